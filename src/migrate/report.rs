//! How a command ended: failures with what to do, exit codes, and the termination message.

use std::{fmt, time::Duration};

use serde::Serialize;

use super::{plan::PlanError, source::SourceError};

/// The termination message is at most this long; the kubelet keeps 4 KiB.
pub const TERMINATION_BYTES: usize = 3 * 1024;

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
    pub sqlstate: String,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
    /// The server's context lines (PL/pgSQL call stack).
    pub context: Option<String>,
    /// In characters from the start of the file, from 1, when the server named one.
    pub position: Option<usize>,
}

impl fmt::Display for StatementFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {} (SQLSTATE {})", self.file, self.message, self.sqlstate)?,
            None => write!(
                f,
                "{}: at commit: {} (SQLSTATE {})",
                self.file, self.message, self.sqlstate
            )?,
        }
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
    #[error("{0}")]
    Source(#[from] SourceError),
    #[error("{0}")]
    Plan(#[from] PlanError),
    #[error("the plan is not the one asked for: expected {expected}, found {found}")]
    PlanMoved { expected: String, found: String },
    #[error("seed {0}")]
    Seed(Box<StatementFailure>),
    #[error("seed setting {name}: {problem}")]
    SeedSetting { name: String, problem: String },
    /// The login, the database or a right is missing, or the records are of a newer release.
    #[error("{0}")]
    Refused(String),
    /// An option that cannot be used.
    #[error("{0}")]
    Usage(String),
    #[error("the server cannot be reached: {0}")]
    Unreachable(String),
    #[error("the migration lock was not free within {waited:?}{}", holder.as_ref().map(|h| format!("; {h} holds it")).unwrap_or_default())]
    Locked { waited: Duration, holder: Option<Holder> },
    #[error("stopped by a signal")]
    Interrupted,
    #[error("the connection was lost: {0}")]
    Lost(String),
    /// The server could not do it now: out of resources, shutting down, deadlock.
    #[error("{0}")]
    Transient(String),
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
    /// | 16 | login refused, no such database, no right |
    /// | 17 | an option cannot be used |
    /// | 20 | server not reachable within --connect-timeout |
    /// | 21 | migration lock not obtained within --lock-timeout |
    /// | 22 | stopped by a signal |
    /// | 23 | connection lost |
    /// | 24 | the server could not do it now: deadlock, shutdown, out of resources |
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::Statement(failure) | Failure::Seed(failure) if is_transient(&failure.sqlstate) => 24,
            Failure::Statement(_) => 10,
            Failure::Source(_) | Failure::Plan(PlanError::Unrunnable { .. }) => 11,
            Failure::Plan(PlanError::UnknownTarget { .. } | PlanError::NoWayBack { .. }) => 15,
            Failure::Plan(_) => 12,
            Failure::PlanMoved { .. } => 13,
            Failure::Seed(_) | Failure::SeedSetting { .. } => 14,
            Failure::Refused(_) => 16,
            Failure::Usage(_) => 17,
            Failure::Unreachable(_) => 20,
            Failure::Locked { .. } => 21,
            Failure::Interrupted => 22,
            Failure::Lost(_) => 23,
            Failure::Transient(_) => 24,
        }
    }

    /// One line: what to do next.
    pub fn advice(&self) -> &'static str {
        match self {
            _ if self.exit_code() == 24 => "run it again",
            Failure::Statement(failure) if failure.sqlstate == "25001" => {
                "this statement cannot run in a transaction: make '-- no-transaction' the first line of its file"
            }
            Failure::Statement(_) => "what was applied before it stays; correct the file and run it again",
            Failure::Source(_) => "nothing was run; correct the files",
            Failure::Plan(_) => "nothing was run",
            Failure::PlanMoved { .. } => "nothing was run; look at the new plan and start it with its own hash",
            Failure::Seed(_) => "the migrations are applied; correct the seed and run it again",
            Failure::SeedSetting { .. } => "check the file named by --seed-hash",
            Failure::Refused(_) => "check the credentials, the database's name and the rights of the role",
            Failure::Usage(_) => "see --help",
            Failure::Unreachable(_) => "check host, port and network, then run it again",
            Failure::Locked { .. } => "another migration is running: wait for it, then run it again",
            Failure::Interrupted => "what was applied stays; run it again to go on",
            Failure::Lost(_) => "what was committed stays; run it again to go on",
            Failure::Transient(_) => "run it again",
        }
    }

    /// The statement that failed, if one did.
    pub fn statement(&self) -> Option<&StatementFailure> {
        match self {
            Failure::Statement(failure) | Failure::Seed(failure) => Some(failure),
            _ => None,
        }
    }

    /// Whether the session can still be used to write down how the run ended.
    pub fn session_usable(&self) -> bool {
        !matches!(self, Failure::Lost(_) | Failure::Unreachable(_))
    }
}

/// An error of one of our own statements, or of the connection.
impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(db) => {
                let code = db.code().unwrap_or_default().into_owned();
                let text = format!("{} (SQLSTATE {code})", db.message());
                if is_transient(&code) {
                    Failure::Transient(text)
                } else {
                    Failure::Refused(text)
                }
            }
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

/// How a command ended.
#[derive(Debug)]
pub struct Report {
    /// Version now, as far as known.
    pub current: i64,
    /// Version aimed at.
    pub target: i64,
    pub total: usize,
    pub done: usize,
    pub seeds: usize,
    pub failure: Option<Failure>,
}

/// What a Pod leaves behind, and what the operator parses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Termination {
    /// `succeeded`, `failed` or `interrupted`.
    pub outcome: String,
    pub current: i64,
    pub target: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sqlstate: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The exit code.
    pub code: u8,
}

impl Report {
    /// A command that failed before it knew anything of the database.
    pub fn early(failure: Failure) -> Self {
        Self {
            current: 0,
            target: 0,
            total: 0,
            done: 0,
            seeds: 0,
            failure: Some(failure),
        }
    }

    pub fn outcome(&self) -> &'static str {
        match &self.failure {
            None => "succeeded",
            Some(Failure::Interrupted) => "interrupted",
            Some(_) => "failed",
        }
    }

    pub fn exit_code(&self) -> u8 {
        self.failure.as_ref().map_or(0, Failure::exit_code)
    }

    /// JSON of at most [`TERMINATION_BYTES`]; only the message is ever cut.
    pub fn termination(&self) -> String {
        let statement = self.failure.as_ref().and_then(Failure::statement);
        let message = self.failure.as_ref().map(|failure| match failure.statement() {
            Some(statement) => statement.message.clone(),
            None => failure.to_string(),
        });
        let mut termination = Termination {
            outcome: self.outcome().to_owned(),
            current: self.current,
            target: self.target,
            version: statement.and_then(|s| s.version),
            sqlstate: statement.map(|s| s.sqlstate.clone()),
            file: statement.map(|s| truncate(&s.file, 255).to_owned()),
            line: statement.and_then(|s| s.line),
            message,
            code: self.exit_code(),
        };
        loop {
            let json = serde_json::to_string(&termination).unwrap_or_default();
            match termination.message.take() {
                Some(message) if json.len() > TERMINATION_BYTES => {
                    // escapes make it longer than it is: cut until it fits
                    let over = json.len() - TERMINATION_BYTES;
                    let keep = message.len().saturating_sub(over.div_ceil(6).max(16));
                    termination.message = Some(truncate(&message, keep).to_owned()).filter(|m| !m.is_empty());
                }
                _ => return json,
            }
        }
    }
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

    fn failed(message: &str) -> Report {
        let failure = StatementFailure {
            version: Some(3),
            file: "0003_x.up.sql".into(),
            line: Some(7),
            sqlstate: "42P01".into(),
            message: message.into(),
            ..StatementFailure::default()
        };
        Report {
            current: 2,
            target: 5,
            total: 5,
            done: 2,
            seeds: 0,
            failure: Some(Failure::Statement(failure.into())),
        }
    }

    #[test]
    fn the_termination_message_is_short_and_whole() {
        assert_eq!(
            failed("no \"t\"").termination(),
            r#"{"outcome":"failed","current":2,"target":5,"version":3,"sqlstate":"42P01","file":"0003_x.up.sql","line":7,"message":"no \"t\"","code":10}"#
        );
        for message in ["ä".repeat(5000), "\u{1}\"\\".repeat(3000), "x".repeat(3000)] {
            let json = failed(&message).termination();
            let parsed: Termination = serde_json::from_str(&json).unwrap();
            assert!(json.len() <= TERMINATION_BYTES && json.len() > 2500, "{}", json.len());
            assert!(message.starts_with(&parsed.message.unwrap()));
        }
    }

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
