//! How a command ended: failures with what to do, exit codes, and the termination message.

mod advice;
mod ending;

use std::{fmt, time::Duration};

use serde::Serialize;

use super::{
    blockers::{self, Blocker},
    consent::Unaccepted,
    plan::PlanError,
    source::SourceError,
};

pub use advice::remedy;
pub use ending::{Report, TERMINATION_BYTES, Termination};

/// `FILE:LINE:COLUMN`, as far as it is known.
pub fn place<N: fmt::Display>(file: &str, line: Option<N>, column: Option<N>) -> String {
    let parts = [line, column].into_iter().flatten();
    parts.fold(file.to_owned(), |place, part| format!("{place}:{part}"))
}

/// A statement that the server refused, and where it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StatementFailure {
    /// The migration's version; None for a seed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,
    pub file: String,
    /// From 1; None when the transaction failed at its end (a deferred constraint).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// In the line, in characters from 1, when the server named a position.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    pub sqlstate: String,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
    /// The server's context lines (PL/pgSQL call stack).
    pub context: Option<String>,
    /// In characters from the start of the file, from 1, when the server named one.
    pub position: Option<usize>,
}

impl StatementFailure {
    /// Whether the same statement may well succeed later.
    pub fn is_transient(&self) -> bool {
        is_transient(&self.sqlstate)
    }

    /// `FILE:LINE:COLUMN`, as far as it is known.
    fn place(&self) -> String {
        place(&self.file, self.line, self.column)
    }
}

impl fmt::Display for StatementFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let when = if self.line.is_none() { "at commit: " } else { "" };
        write!(
            f,
            "{}: {when}{} (SQLSTATE {})",
            self.place(),
            self.message,
            self.sqlstate
        )?;
        for (name, text) in [
            ("detail", &self.detail),
            ("hint", &self.hint),
            ("context", &self.context),
        ] {
            if let Some(text) = text {
                write!(f, "\n  {name}: {}", text.replace('\n', "\n           "))?;
            }
        }
        Ok(())
    }
}

/// Who has the migration lock, as far as the server tells us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub pid: i32,
    /// Hidden by the server from roles that may not see it.
    pub application: Option<String>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {}", self.pid)?;
        match &self.application {
            Some(name) if !name.is_empty() => write!(f, " ({name})"),
            _ => Ok(()),
        }
    }
}

/// Why a command did not succeed. The texts are safe to show: no credential is ever in them.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("{0}")]
    Statement(Box<StatementFailure>),
    /// A statement failed, and what the run had applied before it was taken back, as far as that went.
    #[error("{cause}\n  {}", taken_back(*stands_at, problem.as_deref()))]
    RolledBack {
        cause: Box<StatementFailure>,
        stands_at: i64,
        /// Why it went no further.
        problem: Option<Box<Failure>>,
    },
    #[error("{0}")]
    Source(#[from] SourceError),
    #[error("{0}")]
    Plan(#[from] PlanError),
    #[error("the plan is not the one asked for: expected {expected}, found {found}")]
    PlanMoved { expected: String, found: String },
    #[error("{0}; if that is meant: --allow-destructive {list}", list = .0.list(","))]
    Destructive(Box<Unaccepted>),
    #[error("seed {0}")]
    Seed(Box<StatementFailure>),
    #[error("seed setting {name}: {problem}")]
    SeedSetting { name: String, problem: String },
    /// The login, the database or a right is missing, or the records are of a newer release.
    #[error("{0}")]
    Refused(String),
    /// What the server answered to a statement of ours, or to the login.
    #[error("{message} (SQLSTATE {sqlstate})")]
    Server { sqlstate: String, message: String },
    #[error("a connection pooler answers, which does not keep a session's settings and locks together")]
    Pooled,
    /// An option that cannot be used.
    #[error("{0}")]
    Usage(String),
    #[error("the server cannot be reached: {0}")]
    Unreachable(String),
    #[error("the migration lock was not free within {waited:?}{}", holder.as_ref().map(|h| format!("; {h} holds it")).unwrap_or_default())]
    Locked { waited: Duration, holder: Option<Holder> },
    /// A table's lock was not to be had.
    #[error("{}", blocked(refusal, *waited, by))]
    Blocked {
        /// What the server said last, with file and line.
        refusal: Box<StatementFailure>,
        waited: Duration,
        by: Vec<Blocker>,
    },
    /// A file that is half way was edited where it is done.
    #[error(
        "{file}: the first {done} of its parts are done, and they are not the same any more; put them back as they were, what comes after them may change"
    )]
    Changed { file: String, done: usize },
    /// The schema is not as the last run left it.
    #[error("{0} objects are not as they were recorded")]
    Drifted(usize),
    /// What would be lost could not be saved, so nothing was run.
    #[error("no backup could be made of what would be lost: {0}")]
    NotBackedUp(String),
    /// A backup could not be put back: nothing was changed.
    #[error("{0}")]
    NotRestored(String),
    #[error("stopped by a signal")]
    Interrupted,
    #[error("the connection was lost: {0}")]
    Lost(String),
    /// The server could not do it now: out of resources, shutting down, deadlock.
    #[error("{0}")]
    Transient(String),
}

/// The exit code of a backup that failed: nothing ran, and a person has to look.
const NOT_BACKED_UP: u8 = 31;

/// The exit codes of a run after which trying again changes nothing.
pub fn final_codes() -> impl Iterator<Item = u8> {
    (10..20).chain([NOT_BACKED_UP])
}

impl Failure {
    /// 10-19: nothing changes by trying again. 20-29: trying again may help.
    ///
    /// | code | meaning |
    /// |---|---|
    /// | 0 | done, or nothing to do |
    /// | 2 | wrong usage of the command line |
    /// | 10 | a statement of a migration failed |
    /// | 11 | the files are not a valid set |
    /// | 12 | files and history disagree: edited, missing, ahead, dirty, out of order |
    /// | 13 | the plan is not the one given by --plan-hash |
    /// | 14 | a seed failed |
    /// | 15 | the target is unknown or there is no way back to it |
    /// | 16 | login refused, no such database, no right, a server that takes no writes, a pooler |
    /// | 17 | an option cannot be used |
    /// | 18 | `lint` found risks |
    /// | 19 | a statement loses data and its version is not accepted |
    /// | 20 | server not reachable within --connect-timeout |
    /// | 21 | the migration lock, or the lock of a table, not obtained within --lock-timeout |
    /// | 22 | stopped by a signal |
    /// | 23 | connection lost |
    /// | 24 | the server could not do it now: deadlock, shutdown, out of resources |
    /// | 30 | `drift`: the schema is not as it was recorded |
    /// | 31 | no backup could be made of what a migration takes away; nothing was run |
    /// | 32 | `restore-tables`: the backup cannot be put back as asked; nothing was changed |
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::Statement(failure) | Failure::Seed(failure) if failure.is_transient() => 24,
            Failure::Server { sqlstate, .. } if is_transient(sqlstate) => 24,
            Failure::Statement(_) => 10,
            // Whoever comes next fails at the same statement, and takes back the rest.
            Failure::RolledBack {
                problem: Some(problem), ..
            } if problem.exit_code() >= 20 => problem.exit_code(),
            Failure::RolledBack { .. } => 10,
            Failure::Source(_) | Failure::Plan(PlanError::Unrunnable { .. }) => 11,
            Failure::Plan(PlanError::UnknownTarget { .. } | PlanError::NoWayBack { .. }) => 15,
            Failure::Plan(_) | Failure::Changed { .. } => 12,
            Failure::PlanMoved { .. } => 13,
            Failure::Seed(_) | Failure::SeedSetting { .. } => 14,
            Failure::Refused(_) | Failure::Server { .. } | Failure::Pooled => 16,
            Failure::Usage(_) => 17,
            Failure::Destructive(_) => 19,
            Failure::Unreachable(_) => 20,
            Failure::Locked { .. } | Failure::Blocked { .. } => 21,
            Failure::Interrupted => 22,
            Failure::Lost(_) => 23,
            Failure::Transient(_) => 24,
            Failure::Drifted(_) => 30,
            Failure::NotBackedUp(_) => NOT_BACKED_UP,
            Failure::NotRestored(_) => 32,
        }
    }

    /// The statement that failed, if one did.
    pub fn statement(&self) -> Option<&StatementFailure> {
        match self {
            Failure::Statement(failure) | Failure::Seed(failure) => Some(failure),
            Failure::Blocked { refusal, .. } => Some(refusal),
            Failure::RolledBack { cause, .. } => Some(cause),
            _ => None,
        }
    }

    /// What the server called it, if it was the server.
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Failure::Server { sqlstate, .. } => Some(sqlstate),
            other => other.statement().map(|statement| statement.sqlstate.as_str()),
        }
    }

    /// For a record that has file, line and SQLSTATE in places of their own.
    pub fn message(&self) -> String {
        match self {
            Failure::Statement(failure) | Failure::Seed(failure) => failure.message.clone(),
            Failure::Server { message, .. } => message.clone(),
            Failure::RolledBack {
                cause,
                stands_at,
                problem,
            } => format!("{}; {}", cause.message, taken_back(*stands_at, problem.as_deref())),
            other => other.to_string(),
        }
    }

    /// Whether the session can still be used to write down how the run ended.
    pub fn session_usable(&self) -> bool {
        match self {
            Failure::Lost(_) | Failure::Unreachable(_) => false,
            Failure::RolledBack {
                problem: Some(problem), ..
            } => problem.session_usable(),
            _ => true,
        }
    }
}

/// How far what a run had applied was taken back.
fn taken_back(stands_at: i64, problem: Option<&Failure>) -> String {
    match problem {
        None => format!("rolled back: the schema is at version {stands_at}, where this run began"),
        Some(problem) => format!("rolled back to version {stands_at} only: {problem}"),
    }
}

/// Where, for how long, by whom.
fn blocked(refusal: &StatementFailure, waited: Duration, by: &[Blocker]) -> String {
    let who = match by {
        [] => refusal.message.clone(),
        by => format!("in the way: {}", blockers::list(by)),
    };
    format!(
        "{}: a lock was not free within {} s; {who}",
        refusal.place(),
        waited.as_secs()
    )
}

/// An error of one of our own statements, or of the connection.
impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(db) => Failure::Server {
                sqlstate: db.code().unwrap_or_default().into_owned(),
                message: db.message().to_owned(),
            },
            _ => Failure::Lost(error.to_string()),
        }
    }
}

/// SQLSTATEs after which the same statement may well succeed.
pub fn is_transient(sqlstate: &str) -> bool {
    matches!(
        sqlstate,
        "40001" | "40P01" | "55P03" | "57014" | "57P01" | "57P02" | "57P03" | "57P05"
    ) || sqlstate.starts_with("08")
        || sqlstate.starts_with("53")
}

/// At most `bytes` of a text, cut between characters.
pub fn truncate(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len()))
        .rev()
        .find(|&end| text.is_char_boundary(end))
        .unwrap_or(0);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_tell_users_from_weather() {
        let mut deadlock = StatementFailure::default();
        assert_eq!(Failure::Statement(deadlock.clone().into()).exit_code(), 10);
        deadlock.sqlstate = "40P01".into();
        assert_eq!(Failure::Statement(deadlock.into()).exit_code(), 24);
        assert_eq!(
            Failure::Plan(PlanError::UnknownTarget {
                target: 1,
                known: String::new()
            })
            .exit_code(),
            15
        );
        assert_eq!(Failure::Interrupted.exit_code(), 22);
    }
}
