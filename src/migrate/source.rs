//! Migration files: from names and bytes to a checked, ordered set. Touches the disk only in [`Source::load`].

mod draft;
mod file;

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use sha2::{Digest, Sha256, Sha384};

use super::files;
use draft::Draft;

pub use file::{Kind, base_name, parse_name, statements_of};

/// Versions from here on are dates or times: 20260412.
const SERIAL: i64 = 10_000_000;
/// So many holes are written out in a message.
const NAMED: usize = 10;

/// The SHA-384 of a file's raw bytes, as sqlx stores it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Checksum(Vec<u8>);

impl Checksum {
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha384::digest(bytes).to_vec())
    }

    /// What a database row says; any length, so that a damaged row compares unequal instead of failing to load.
    pub fn from_row(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl fmt::Debug for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One SQL file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// The file's name without its folder, as messages show it.
    pub file: String,
    pub sql: Arc<str>,
    pub checksum: Checksum,
}

/// One version: its up file and, if the set is reversible, its down file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migration {
    /// The integer before the first underscore of the file's name; greater than zero.
    pub version: i64,
    /// The rest of the name with underscores as spaces.
    pub description: String,
    pub up: Script,
    /// None for sqlx's plain `NNNN_name.sql`, which cannot be taken back.
    pub down: Option<Script>,
}

/// A checked set of migrations in the order of their versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    migrations: BTreeMap<i64, Migration>,
    /// Of what is above; kept, since it is asked for at every reconcile.
    digest: String,
}

/// Everything that is wrong with a set of files, so that one look mends them all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", problems.join("\n"))]
pub struct SourceError {
    /// One sentence each: the file, what is wrong, what to do.
    pub problems: Vec<String>,
}

impl Source {
    /// Migrations that were checked before.
    pub fn of(migrations: impl IntoIterator<Item = Migration>) -> Self {
        let pairs = migrations.into_iter().map(|migration| (migration.version, migration));
        let migrations: BTreeMap<i64, Migration> = pairs.collect();
        Self {
            digest: digest(migrations.values().map(|one| (one.version, &one.up.checksum))),
            migrations,
        }
    }

    /// Reads every `*.sql` file of the folders, which are merged in the order given. Subfolders, hidden files (the
    /// bookkeeping of a mounted ConfigMap) and files that are not SQL are passed over.
    pub fn load(dirs: &[PathBuf]) -> Result<Self, SourceError> {
        let mut files = Vec::new();
        for dir in dirs {
            files.extend(read_sql_files(dir)?);
        }
        Self::from_files(files)
    }

    /// The same checks on files that are in memory. A name may have a folder before it, which only messages show.
    pub fn from_files(files: Vec<(String, Vec<u8>)>) -> Result<Self, SourceError> {
        let mut draft = Draft::default();
        for (name, bytes) in files {
            if let Err(problem) = draft.add(&name, bytes) {
                draft.problems.push(problem);
            }
        }
        draft.finish()
    }

    pub fn migrations(&self) -> impl DoubleEndedIterator<Item = &Migration> {
        self.migrations.values()
    }

    pub fn get(&self, version: i64) -> Option<&Migration> {
        self.migrations.get(&version)
    }

    /// SHA-256 over versions and checksums in their order: what the same history would give.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// How many have this version or a lower one.
    pub fn count_to(&self, version: i64) -> usize {
        match version >= self.newest() {
            true => self.migrations.len(),
            false => self.migrations.range(..=version).count(),
        }
    }

    /// Numbers that no file has, the first and the last of each hole, where versions are serial: at least half of the steps
    /// from one to the next are by one. Those that go up by ten, or are times, have holes by nature.
    pub fn gaps(&self) -> Vec<(i64, i64)> {
        let serial: Vec<i64> = self.migrations.range(..SERIAL).map(|(version, _)| *version).collect();
        let pairs = serial.windows(2).map(|pair| (pair[0] + 1, pair[1] - 1));
        let gaps: Vec<(i64, i64)> = pairs.filter(|(first, last)| first <= last).collect();
        match 2 * gaps.len() < serial.len() {
            true => gaps,
            false => Vec::new(),
        }
    }

    /// The highest version, 0 when there is none.
    pub fn newest(&self) -> i64 {
        self.migrations.keys().next_back().copied().unwrap_or(0)
    }
}

impl Default for Source {
    fn default() -> Self {
        Self::of([])
    }
}

/// See [`Source::digest`].
pub fn digest<'a>(applied: impl Iterator<Item = (i64, &'a Checksum)>) -> String {
    let mut hash = Sha256::new();
    for (version, checksum) in applied {
        hash.update(version.to_be_bytes());
        hash.update(checksum.as_bytes());
    }
    hex::encode(hash.finalize())
}

/// What to think of holes between serial versions, if there are any. It is no error: somebody may have taken a file back.
pub fn gap_warning(gaps: Vec<(i64, i64)>) -> Option<String> {
    let numbers = |(first, last): &(i64, i64)| match first == last {
        true => first.to_string(),
        false => format!("{first} to {last}"),
    };
    let mut named: Vec<String> = gaps.iter().take(NAMED).map(numbers).collect();
    if gaps.len() > NAMED {
        named.push(format!("and {} more", gaps.len() - NAMED));
    }
    (!gaps.is_empty()).then(|| {
        format!(
            "no file has version {}, though the versions are serial; if a file was lost put it back before a later one is applied, \
             since it is refused after that",
            named.join(", ")
        )
    })
}

/// The `*.sql` files of one folder by name, with the folder before the name.
pub fn read_sql_files(dir: &Path) -> Result<Vec<(String, Vec<u8>)>, SourceError> {
    let mut paths = files::list(dir)?;
    paths.sort_unstable_by(|one, other| one.as_os_str().cmp(other.as_os_str()));
    let texts = files::read_each(&paths, <[u8]>::to_vec)?;
    let names = paths.iter().map(|path| path.to_string_lossy().into_owned());
    Ok(names.zip(texts).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(list: &[(&str, &str)]) -> Vec<(String, Vec<u8>)> {
        list.iter()
            .map(|(name, sql)| (name.to_string(), sql.as_bytes().to_vec()))
            .collect()
    }

    #[test]
    fn reads_both_kinds_of_names_as_sqlx_does() {
        let source = Source::from_files(files(&[
            ("dir/0002_add_an_index.up.sql", "SELECT 2;"),
            ("dir/0002_add_an_index.down.sql", "SELECT -2;"),
            ("20250101000000_plain_one.sql", "SELECT 1;\r\n"),
        ]))
        .unwrap();
        let all: Vec<_> = source.migrations().collect();
        assert_eq!((all[0].version, all[0].description.as_str()), (2, "add an index"));
        assert_eq!(all[0].up.file, "0002_add_an_index.up.sql");
        assert!(all[0].down.is_some() && all[1].down.is_none());
        assert_eq!(
            all[1].up.checksum,
            Checksum::of(b"SELECT 1;\r\n"),
            "checksum is of the raw bytes"
        );
        assert_eq!(source.newest(), 20250101000000);
    }

    #[test]
    fn says_file_and_remedy() {
        let cases: &[(&[(&str, &str)], &str)] = &[
            (
                &[("a/1_x.sql", "s"), ("b/01_y.sql", "s")],
                "b/01_y.sql: version 1 is already taken by a/1_x.sql",
            ),
            (&[("1_x.sql", "s"), ("1_x.up.sql", "s")], "is already taken"),
            (&[("1_x.up.sql", "s")], "add 1_x.down.sql"),
            (&[("1_x.down.sql", "s")], "has no up file"),
            (&[("x.sql", "s")], "has no version"),
            (&[("+1_x.sql", "s")], "has no version greater than zero"),
            (&[("0_x.sql", "s")], "greater than zero"),
            (&[("1_.sql", "s")], "no description"),
            (&[("1_x.UP.sql", "s")], "capitals"),
            (&[("1_x.sql", " \n")], "is empty"),
            (&[("1_x.up.sql", ""), ("1_x.down.sql", "")], "1_x.up.sql: is empty"),
            (&[("1_x.sql", "\u{feff}SELECT 1")], "byte order mark"),
            (&[("1_x.sql", "a\nb\0c")], "1_x.sql:2:2: a NUL"),
            (&[], "no migration file"),
        ];
        for (list, expected) in cases {
            let error = Source::from_files(files(list)).unwrap_err().to_string();
            assert!(error.contains(expected), "{list:?}: {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
        let error = Source::from_files(vec![("1_x.sql".into(), b"a\n\xC3\xA4 \xFF".to_vec())]).unwrap_err();
        assert!(error.to_string().starts_with("1_x.sql:2:3: is not UTF-8"), "{error}");
        let error = Source::from_files(vec![("1_x.sql".into(), b"\xFF\xFES\0".to_vec())]).unwrap_err();
        assert_eq!(error.to_string(), "1_x.sql: is UTF-16; save it as UTF-8");
    }

    #[test]
    fn holes_between_serial_versions_are_told_and_no_others() {
        let gaps = |versions: &[i64]| {
            let files = versions
                .iter()
                .map(|version| (format!("{version}_x.sql"), b"SELECT 1".to_vec()));
            Source::from_files(files.collect()).unwrap().gaps()
        };
        type Case = (&'static [i64], &'static [(i64, i64)]);
        let cases: &[Case] = &[
            (&[1], &[]),
            (&[1, 2, 3], &[]),
            (&[1, 2, 4], &[(3, 3)]),
            (&[5, 6, 7, 10, 11, 13], &[(8, 9), (12, 12)]),
            (&[1, 2, 4, 20_260_412_081_500], &[(3, 3)]),
            // not numbered by one
            (&[1, 3], &[]),
            (&[10, 20, 30, 31], &[]),
            (&[20_260_412, 20_260_413, 20_260_415], &[]),
            (&[20_260_412_081_500, 20_260_412_081_501, 20_260_412_081_503], &[]),
        ];
        for (versions, expected) in cases {
            assert_eq!(&gaps(versions), expected, "{versions:?}");
        }
        assert_eq!(gap_warning(Vec::new()), None);
        let warning = gap_warning(vec![(3, 3), (7, 9)]).unwrap();
        assert!(
            warning.starts_with("no file has version 3, 7 to 9, though"),
            "{warning}"
        );
        let many = gap_warning((1..=12).map(|at| (2 * at, 2 * at)).collect()).unwrap();
        assert!(many.contains("18, 20, and 2 more, though"), "{many}");
    }

    #[test]
    fn reports_every_problem_at_once() {
        let error = Source::from_files(files(&[("x.sql", "s"), ("2_y.sql", "")])).unwrap_err();
        assert_eq!(error.problems.len(), 2);
    }
}
