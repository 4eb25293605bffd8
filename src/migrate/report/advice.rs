//! What to do about a failure, in a line. Safe to show, like the failures themselves.

use super::Failure;

/// What to do about what the server answered, before it is asked again; None where that follows from what was asked.
pub fn remedy(sqlstate: &str) -> Option<&'static str> {
    Some(match sqlstate {
        "25001" => {
            "it cannot run in a transaction: make '-- no-transaction' the file's first line, and let the statement stand there outside of functions and of BEGIN and COMMIT"
        }
        "25006" => {
            "the server takes no writes: give the address of the primary if this is a standby, or turn default_transaction_read_only off"
        }
        "28000" | "28P01" => "check the user, the password and whom pg_hba.conf lets in",
        "3D000" => "make the database, or correct its name",
        "42501" => "grant the right that the role lacks, or log in as the owner of what it is to change",
        "53100" => "make room on the server's disk",
        "53200" => "the server is out of memory: end what uses it, or lower work_mem and maintenance_work_mem",
        "53300" => "no connection was free: end some, or raise max_connections or the limit of the role or database",
        "57014" => {
            "its time was up, or somebody cancelled it: nothing but the file itself sets a statement_timeout, so give it more there"
        }
        _ => return None,
    })
}

impl Failure {
    /// One line: what to do next.
    pub fn advice(&self) -> String {
        match self.sqlstate().and_then(remedy) {
            Some(remedy) => format!("{remedy}, then run it again"),
            None => self.next().to_owned(),
        }
    }

    fn next(&self) -> &'static str {
        match self {
            _ if self.exit_code() == 24 => "run it again",
            Failure::RolledBack { problem: None, .. } => "correct the file and run it again",
            Failure::RolledBack { .. } => {
                "what was not taken back stays: `down` takes it back once it can be, or correct the file and run it again"
            }
            Failure::Statement(_) => "what was applied before it stays; correct the file and run it again",
            Failure::Source(_) => "nothing was run; correct the files",
            Failure::Plan(_) | Failure::Changed { .. } => "nothing was run",
            Failure::PlanMoved { .. } => "nothing was run; look at the new plan and start it with its own hash",
            Failure::Destructive(_) => "nothing was run: data would be lost that nobody has given up",
            Failure::Seed(_) => "the migrations are applied; correct the seed and run it again",
            Failure::SeedSetting { .. } => "check the file named by --seed-hash",
            Failure::Pooled => "nothing was run; give the address of the server itself",
            Failure::Refused(_) | Failure::Server { .. } => {
                "check the credentials, the database's name and the rights of the role"
            }
            Failure::Usage(_) => "see --help",
            Failure::Unreachable(_) => "check host, port and network, then run it again",
            Failure::Blocked { .. } => {
                "what was applied before it stays; end the session in the way, or wait for it, then run it again"
            }
            Failure::Locked { .. } => "another migration is running: wait for it, then run it again",
            Failure::Drifted(_) => {
                "undo the changes; or --correct puts back what loses nothing; or --accept records the schema as it is"
            }
            Failure::NotBackedUp(_) => {
                "nothing was run: mend that, or say --backup-before never if the data may go (in a cluster: migrations.backupBefore)"
            }
            Failure::NotRestored(_) => "nothing was changed",
            Failure::Interrupted => "what was applied stays; run it again to go on",
            Failure::Lost(_) => "what was committed stays; run it again to go on",
            Failure::Transient(_) => "run it again",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migrate::report::StatementFailure;

    #[test]
    fn what_the_server_answered_has_its_remedy() {
        let statement = |sqlstate: &str| {
            let failure = StatementFailure {
                sqlstate: sqlstate.into(),
                ..StatementFailure::default()
            };
            Failure::Statement(failure.into())
        };
        let own = |sqlstate: &str| Failure::Server {
            sqlstate: sqlstate.into(),
            message: String::new(),
        };
        for (sqlstate, word) in [
            ("25001", "first line"),
            ("25006", "primary"),
            ("53100", "disk"),
            ("57014", "statement_timeout"),
            ("42501", "grant"),
        ] {
            for failure in [statement(sqlstate), own(sqlstate)] {
                let advice = failure.advice();
                assert!(
                    advice.contains(word) && advice.ends_with("then run it again"),
                    "{advice}"
                );
            }
        }
        assert!(statement("42601").advice().contains("correct the file"));
        assert!(own("42601").advice().contains("rights of the role"));
        assert_eq!(statement("40P01").advice(), "run it again");
    }
}
