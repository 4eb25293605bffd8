//! Seed files: what is put into a database after its migrations. Each runs in one transaction with its record; an
//! unchanged file is skipped, a changed one runs again (seeds are idempotent by contract).
//!
//! A seed may need a password. Only its bcrypt hash leaves this process, as setting `amas.seed.<name>_hash`.

use std::{collections::BTreeMap, path::PathBuf};

use sqlx::{PgConnection, Row};

use crate::api::{names::SqlName, sensitive::Sensitive};

use super::{
    report::Failure,
    session,
    source::{self, Checksum, Kind, Script, SourceError, base_name, parse_name, read_sql_files},
    statements,
};

/// What GPUs make of cheaper hashes is known; 12 takes about a quarter of a second.
const BCRYPT_COST: u32 = 12;

/// One folder of seed files in the order of their numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// The folder's own name; the key of its records.
    pub label: String,
    pub files: Vec<Script>,
}

impl Profile {
    /// Reads a folder; its own name is the label.
    pub fn load(dir: &std::path::Path) -> Result<Self, SourceError> {
        let path = dir.to_string_lossy();
        Self::from_files(base_name(path.trim_end_matches('/')), read_sql_files(dir)?)
    }

    /// The folders of a named profile below `folder`, in the order they run: what all profiles have, its own, what comes last. One
    /// that adds nothing has no folder.
    pub fn load_named(folder: &std::path::Path, name: &str) -> Result<Vec<Self>, SourceError> {
        let folders = ["common", name, "last"].map(|part| folder.join(part));
        let there: Vec<Self> = folders
            .iter()
            .filter(|folder| folder.is_dir())
            .map(|folder| Self::load(folder))
            .collect::<Result<_, _>>()?;
        if there.is_empty() {
            let problem = format!(
                "{}: has none of the folders common, {name} and last: there is no seed for profile {name}",
                folder.display()
            );
            return Err(SourceError {
                problems: vec![problem],
            });
        }
        Ok(there)
    }

    /// The same from memory.
    pub fn from_files(label: &str, files: Vec<(String, Vec<u8>)>) -> Result<Self, SourceError> {
        let (mut good, mut problems) = (BTreeMap::new(), Vec::new());
        for (path, bytes) in files {
            match check(&path, bytes) {
                Ok((version, script)) => drop(good.insert((version, script.file.clone()), script)),
                Err(problem) => problems.push(problem),
            }
        }
        if !problems.is_empty() {
            return Err(SourceError { problems });
        }
        Ok(Self {
            label: label.to_owned(),
            files: good.into_values().collect(),
        })
    }
}

fn check(path: &str, bytes: Vec<u8>) -> Result<(i64, Script), String> {
    let file = base_name(path).to_owned();
    let name = parse_name(&file).map_err(|why| format!("{path}: {why}"))?;
    if name.kind != Kind::Plain {
        return Err(format!("{path}: a seed has no direction; name it NNNN_name.sql"));
    }
    let checksum = Checksum::of(&bytes);
    let sql = source::statements_of(path, bytes)?;
    if statements::no_transaction(&sql) {
        return Err(format!(
            "{path}: a seed always runs in a transaction; remove the first line"
        ));
    }
    statements::doing(&sql).map_err(|problem| format!("{path}:{problem}"))?;
    Ok((
        name.version,
        Script {
            file,
            sql: sql.into(),
            checksum,
        },
    ))
}

/// A password that seeds may ask for by its hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashSource {
    /// `admin_password` becomes the setting `amas.seed.admin_password_hash`.
    pub name: SqlName,
    /// A file with the clear password; one line end after it is not part of it.
    pub file: PathBuf,
}

impl HashSource {
    pub fn setting(&self) -> String {
        format!("amas.seed.{}_hash", self.name)
    }

    /// Reads the password and hashes it. Takes a quarter of a second of CPU: call it off the runtime.
    pub fn hash(&self) -> Result<String, Failure> {
        let fail = |problem: String| Failure::SeedSetting {
            name: self.name.to_string(),
            problem,
        };
        let text = std::fs::read_to_string(&self.file)
            .map_err(|error| fail(format!("{} cannot be read: {error}", self.file.display())))?;
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let password = Sensitive::new(line.strip_suffix('\r').unwrap_or(line));
        if password.reveal().is_empty() {
            return Err(fail(format!("{} is empty", self.file.display())));
        }
        bcrypt::non_truncating_hash(password.reveal(), BCRYPT_COST)
            .map_err(|_| fail("bcrypt takes passwords of at most 72 bytes without NUL".to_owned()))
    }
}

/// Hashes by setting name.
pub type Hashes = BTreeMap<String, String>;

/// A seed file that will run.
#[derive(Clone, Debug)]
pub struct Pending {
    pub profile: String,
    pub script: Script,
}

impl Pending {
    /// Whether the file reads this setting.
    pub fn wants(&self, setting: &str) -> bool {
        self.script.sql.contains(setting)
    }
}

/// Checksums of the seed files that are in, by profile and file.
pub type Recorded = BTreeMap<(String, String), Checksum>;

/// Reads which seed files are in. Our tables must exist.
pub async fn recorded(conn: &mut PgConnection) -> Result<Recorded, sqlx::Error> {
    let rows = session::ask(conn, "SELECT profile, name, checksum FROM amas_migrate.seeds").await?;
    let entry = |row: &sqlx::postgres::PgRow| {
        let key: (String, String) = (row.try_get(0)?, row.try_get(1)?);
        Ok((key, Checksum::from_row(row.try_get(2)?)))
    };
    rows.iter().map(entry).collect()
}

/// The files of these profiles that are new or changed, in order.
pub async fn pending(conn: &mut PgConnection, profiles: &[Profile]) -> Result<Vec<Pending>, sqlx::Error> {
    if profiles.is_empty() {
        return Ok(Vec::new());
    }
    let recorded = recorded(conn).await?;
    let all = profiles
        .iter()
        .flat_map(|p| p.files.iter().map(|script| (p.label.clone(), script.clone())));
    let changed =
        all.filter(|(label, script)| recorded.get(&(label.clone(), script.file.clone())) != Some(&script.checksum));
    Ok(changed.map(|(profile, script)| Pending { profile, script }).collect())
}

/// Starts hashing what the pending files ask for, beside whatever runs meanwhile.
pub fn start_hashing(sources: &[HashSource], pending: &[Pending]) -> tokio::task::JoinHandle<Result<Hashes, Failure>> {
    let wanted: Vec<HashSource> = sources
        .iter()
        .filter(|source| pending.iter().any(|file| file.wants(&source.setting())))
        .cloned()
        .collect();
    tokio::task::spawn_blocking(move || {
        wanted
            .iter()
            .map(|source| Ok((source.setting(), source.hash()?)))
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_ordered_by_number_and_checked() {
        let file = |name: &str, sql: &str| (format!("seed/x/{name}"), sql.as_bytes().to_vec());
        let profile =
            Profile::from_files("x", vec![file("10_b.sql", "SELECT 2"), file("9_a.sql", "SELECT 1")]).unwrap();
        let names: Vec<&str> = profile.files.iter().map(|f| f.file.as_str()).collect();
        assert_eq!(names, ["9_a.sql", "10_b.sql"]);
        for (name, sql, expected) in [
            ("1_a.up.sql", "SELECT 1", "no direction"),
            ("1_a.sql", "-- no-transaction\nSELECT 1", "always runs in a transaction"),
            ("1_a.sql", "COMMIT", "1_a.sql:1:1: COMMIT"),
            ("a.sql", "SELECT 1", "has no version"),
        ] {
            let error = Profile::from_files("x", vec![file(name, sql)]).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
