//! What identifies a plan: approval, Job names and the runner's own check all use this hash.

use sha2::{Digest, Sha256};

use crate::{api::names::SqlName, migrate::source::Checksum};

use super::{Direction, Plan, Step};

/// Running options: what changes the meaning of the same files, and so the plan's hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Schema of `_sqlx_migrations`. Default `public`.
    pub schema: SqlName,
    /// The runner's search_path, a list separated by commas. Default `public`.
    pub search_path: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            schema: SqlName::public(),
            search_path: "public".to_owned(),
        }
    }
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Identifies exactly this plan on this database; see [`hash_steps`].
    pub fn hash(&self, database_identity: &str, options: &Options) -> String {
        hash_steps(
            database_identity,
            self.direction,
            options,
            self.steps.iter().map(StepId::from),
        )
    }
}

/// What of a step is in the hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepId {
    pub version: i64,
    pub checksum: Checksum,
    pub down: Option<Checksum>,
}

impl From<&Step> for StepId {
    fn from(step: &Step) -> Self {
        let down = step.down.as_ref().map(|down| down.checksum.clone());
        Self {
            version: step.version,
            checksum: step.checksum.clone(),
            down,
        }
    }
}

/// Hex SHA-256 over one line each of: a format mark, the database's identity, the direction, the running options, and
/// every step in order as `version checksum down-checksum`. Nothing of the live catalog is in it, so it stays the same
/// while the application works; any change of a pending file, of their order or of the database changes it.
pub fn hash_steps(
    database_identity: &str,
    direction: Direction,
    options: &Options,
    steps: impl Iterator<Item = StepId>,
) -> String {
    let mut text = format!(
        "amas plan 1\n{database_identity:?}\n{direction}\n{} {:?}\n",
        options.schema, options.search_path
    );
    for step in steps {
        let down = step.down.map_or("-".to_owned(), |checksum| checksum.to_string());
        text.push_str(&format!("{} {} {down}\n", step.version, step.checksum));
    }
    hex::encode(Sha256::digest(text.as_bytes()))
}

/// The first eight hex digits, for names.
pub fn hash8(hash: &str) -> &str {
    hash.get(..8).unwrap_or(hash)
}
