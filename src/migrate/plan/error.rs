//! Why there is no plan.

use super::Direction;
use crate::migrate::statements::Unrunnable;

/// The text names version, file and remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    #[error(
        "{file}: migration {version} was edited after it was applied; restore the file and put the change into a new migration"
    )]
    Edited { version: i64, file: String },
    #[error("migration {version} ({description}) is applied but its file is missing; put the file back")]
    Missing { version: i64, description: String },
    #[error(
        "migration {version} ({description}) is half way up but its file is missing; put the file back under this version and run `up`, which goes on with it, or look at what its parts did and tell `repair`"
    )]
    HalfMissing { version: i64, description: String },
    #[error(
        "the database is at version {current}, ahead of the newest file ({newest}); use the files that brought it there, or go down to a version explicitly"
    )]
    DatabaseAhead { current: i64, newest: i64 },
    #[error(
        "migration {version} ({description}) was left half done outside a transaction; look at what it did, finish or undo it by hand, then set success = true on its row in _sqlx_migrations, or delete the row"
    )]
    Dirty { version: i64, description: String },
    #[error(
        "migration {version} ({description}) is half way {direction}; finish that first: {}",
        match direction {
            Direction::Up => "`up`".to_owned(),
            Direction::Down => format!("`down --to` a version below {version}"),
        }
    )]
    HalfWay {
        version: i64,
        description: String,
        direction: Direction,
    },
    #[error(
        "{file}: version {version} is new but lies below the current version {current}; give it a version above {current}"
    )]
    OutOfOrder { version: i64, file: String, current: i64 },
    #[error("there is no version {target}; known are {known}")]
    UnknownTarget { target: i64, known: String },
    #[error(
        "migration {version} ({description}) has no down text, neither stored nor in a file; there is no way below it"
    )]
    NoWayBack { version: i64, description: String },
    #[error("{file}:{problem}")]
    Unrunnable { file: String, problem: Unrunnable },
}

impl PlanError {
    pub fn unrunnable(file: &str, problem: Unrunnable) -> Self {
        Self::Unrunnable {
            file: file.to_owned(),
            problem,
        }
    }
}
