//! The end of a command: the report the runner hands out and the termination message a Pod leaves.

use serde::Serialize;

use super::{Failure, truncate};

/// The termination message is at most this long; the kubelet keeps 4 KiB.
pub const TERMINATION_BYTES: usize = 3 * 1024;

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
    pub column: Option<usize>,
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

    /// The database is at this version, which is the one that was asked for.
    pub fn nothing_to_do(version: i64) -> Self {
        Self {
            current: version,
            target: version,
            total: 0,
            done: 0,
            seeds: 0,
            failure: None,
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
        let message = self.failure.as_ref().map(Failure::message);
        let mut termination = Termination {
            outcome: self.outcome().to_owned(),
            current: self.current,
            target: self.target,
            version: statement.and_then(|s| s.version),
            sqlstate: self.failure.as_ref().and_then(Failure::sqlstate).map(str::to_owned),
            file: statement.map(|s| truncate(&s.file, 255).to_owned()),
            line: statement.and_then(|s| s.line),
            column: statement.and_then(|s| s.column),
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

#[cfg(test)]
mod tests {
    use super::super::StatementFailure;
    use super::*;

    fn failed(message: &str) -> Report {
        let failure = StatementFailure {
            version: Some(3),
            file: "0003_x.up.sql".into(),
            line: Some(7),
            column: Some(15),
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
            r#"{"outcome":"failed","current":2,"target":5,"version":3,"sqlstate":"42P01","file":"0003_x.up.sql","line":7,"column":15,"message":"no \"t\"","code":10}"#
        );
        for message in ["ä".repeat(5000), "\u{1}\"\\".repeat(3000), "x".repeat(3000)] {
            let json = failed(&message).termination();
            let parsed: Termination = serde_json::from_str(&json).unwrap();
            assert!(json.len() <= TERMINATION_BYTES && json.len() > 2500, "{}", json.len());
            assert!(message.starts_with(&parsed.message.unwrap()));
        }
    }
}
