//! The table names tests that there are.

use std::path::{Path, PathBuf};

const TABLE: &str = include_str!("mod.rs");
const HERE: &str = "tests/kubernetes/bug_classes";

/// The right column's references: a file or folder, and the test in it, or none where all of it is meant.
fn references(cell: &str) -> Vec<(PathBuf, Option<&str>)> {
    let mut found = Vec::new();
    for part in cell.split(';') {
        // What stands between backquotes is every second piece.
        let quoted: Vec<&str> = part.split('`').skip(1).step_by(2).collect();
        let (paths, names): (Vec<&str>, Vec<&str>) = quoted.into_iter().partition(|word| word.contains('/'));
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(paths.first().unwrap_or(&HERE));
        assert!(paths.len() < 2, "one place in {part:?}; a semicolon parts them");
        if names.is_empty() {
            found.push((path, None));
        } else {
            found.extend(names.into_iter().map(|name| (path.clone(), Some(name))));
        }
    }
    found
}

/// The text of a file, or of all Rust files in a folder.
fn text(path: &Path) -> String {
    if path.is_file() {
        return std::fs::read_to_string(path).unwrap();
    }
    let entries = std::fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    entries.map(|entry| text(&entry.unwrap().path())).collect()
}

#[test]
fn the_table_names_what_there_is() {
    let rows = TABLE.lines().filter_map(|line| line.strip_prefix("//! | ")).skip(1);
    let cells: Vec<&str> = rows.filter_map(|row| row.split(" | ").nth(1)).collect();
    assert!(cells.len() > 10, "the table is read: {cells:?}");
    for (path, name) in cells.into_iter().flat_map(references) {
        let text = text(&path);
        let Some(name) = name else {
            assert!(text.contains("async fn "), "{}: no test", path.display());
            continue;
        };
        let (before, found) = text
            .split_once(&format!("fn {name}("))
            .map_or(("", false), |(before, _)| (before, true));
        let marked = before
            .lines()
            .rev()
            .take(3)
            .any(|line| line.contains("#[test]") || line.contains("#[tokio::test"));
        assert!(found && marked, "{}: no test {name}", path.display());
    }
}
