//! A set of migrations while it is read, with all that is wrong with it.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Checksum, Migration, Script, Source, SourceError,
    file::{Kind, base_name, parse_name, statements_of, text},
};

/// A set being read: halves of migrations and what was found wrong so far.
#[derive(Default)]
pub struct Draft {
    /// By version: description, whether the name was a plain one, the path as given, the script.
    ups: BTreeMap<i64, (String, bool, String, Script)>,
    downs: BTreeMap<i64, (String, Script)>,
    /// Every half whose name could be read, also when its content was refused: it is not reported as missing too.
    seen: BTreeSet<(i64, Kind)>,
    pub problems: Vec<String>,
}

impl Draft {
    pub fn add(&mut self, path: &str, bytes: Vec<u8>) -> Result<(), String> {
        let file = base_name(path).to_owned();
        let name = parse_name(&file).map_err(|why| format!("{path}: {why}"))?;
        let earlier = match name.kind {
            Kind::Down => self.downs.get(&name.version).map(|(path, _)| path),
            _ => self.ups.get(&name.version).map(|(_, _, path, _)| path),
        };
        if let Some(earlier) = earlier {
            return Err(format!(
                "{path}: version {} is already taken by {earlier}; give one of them another version",
                name.version
            ));
        }
        self.seen.insert((name.version, name.kind));
        let checksum = Checksum::of(&bytes);
        // An empty down file is how many a set says that there is nothing to take back.
        let sql = match name.kind {
            Kind::Down => text(path, bytes)?,
            _ => statements_of(path, bytes)?,
        };
        let script = Script {
            file,
            sql: sql.into(),
            checksum,
        };
        if name.kind == Kind::Down {
            self.downs.insert(name.version, (path.to_owned(), script));
        } else {
            let plain = name.kind == Kind::Plain;
            self.ups
                .insert(name.version, (name.description, plain, path.to_owned(), script));
        }
        Ok(())
    }

    pub fn finish(mut self) -> Result<Source, SourceError> {
        let mut migrations = Vec::new();
        for (version, (description, plain, path, up)) in self.ups {
            let down = self.downs.remove(&version).map(|(_, script)| script);
            if !plain && !self.seen.contains(&(version, Kind::Down)) {
                self.problems.push(format!(
                    "{path}: has no down file; add {}.down.sql, or rename it to {}.sql if there is no way back",
                    up.file.trim_end_matches(".up.sql"),
                    up.file.trim_end_matches(".up.sql")
                ));
            }
            migrations.push(Migration {
                version,
                description,
                up,
                down,
            });
        }
        for (version, (path, _)) in self.downs {
            if !self.seen.contains(&(version, Kind::Up)) {
                self.problems
                    .push(format!("{path}: has no up file beside it; add one or remove this file"));
            }
        }
        if migrations.is_empty() && self.problems.is_empty() {
            self.problems
                .push("no migration file (NNNN_name.up.sql) was found".to_owned());
        }
        if self.problems.is_empty() {
            Ok(Source::of(migrations))
        } else {
            Err(SourceError {
                problems: self.problems,
            })
        }
    }
}
