//! What every message of a run goes through: sending, listening meanwhile, and what the server answered.

use sqlx::postgres::PgDatabaseError;

use crate::migrate::{
    record,
    report::Failure,
    session::{self, SendError},
};

use super::{Event, Runner, Urgency, asked, message::Message, pulse};

impl Runner<'_, '_> {
    /// Sends a message unless told to drop everything, and explains what the server answers. After a refusal the
    /// session is as it was at its start.
    pub(super) async fn deliver(&mut self, message: &Message<'_>, version: Option<i64>) -> Result<(), Undelivered> {
        let sent = self.send(message.file, &message.text).await?;
        let Err(failed) = sent else { return Ok(()) };
        match database_error(&failed) {
            Some(error) => {
                let failure = message.explain(error, &failed, version);
                self.rollback().await;
                Err(Undelivered::Answered(Failure::Statement(Box::new(failure))))
            }
            None => Err(Undelivered::Other(failed.error.into())),
        }
    }

    /// Sends a text of this file, showing signs of life and saying who blocks it, unless told to drop everything.
    pub(super) async fn send(&mut self, file: &str, text: &str) -> Result<Result<(), SendError>, Failure> {
        if let Some(pulse) = &self.pulse {
            pulse.begins(file);
        }
        let sending = session::send(self.conn, text);
        tokio::pin!(sending);
        let sent = loop {
            tokio::select! {
                sent = &mut sending => break sent,
                () = asked(&mut self.stop, Urgency::Now) => {
                    self.usable = false;
                    return Err(Failure::Interrupted);
                }
                (waited, by) = pulse::next(&mut self.pulse) => {
                    (self.tell)(Event::Blocked { file, waited, by: &by });
                }
            }
        };
        if let Some(pulse) = &self.pulse {
            pulse.ends();
        }
        Ok(sent)
    }

    /// Leaves a failed transaction, also one that a file opened itself, and takes back its settings.
    pub(super) async fn rollback(&mut self) {
        let sql = format!("ROLLBACK; {}", record::RESET);
        if session::send(self.conn, &sql).await.is_err() {
            self.usable = false;
        }
    }

    /// Between two transactions: a polite stop is taken here.
    pub(super) fn pause_point(&self) -> Result<(), Failure> {
        match *self.stop.borrow() {
            Urgency::No => Ok(()),
            Urgency::Soon | Urgency::Now => Err(Failure::Interrupted),
        }
    }

    /// Sleeps unless told to stop.
    pub(super) async fn rest(&mut self, time: std::time::Duration) -> Result<(), Failure> {
        tokio::select! {
            () = tokio::time::sleep(time) => Ok(()),
            () = asked(&mut self.stop, Urgency::Soon) => Err(Failure::Interrupted),
        }
    }

    pub(super) fn id(&self) -> i64 {
        self.run.unwrap_or_default()
    }
}

/// Why a message did not do its work.
pub(super) enum Undelivered {
    /// The server said no and is ready for the next one.
    Answered(Failure),
    Other(Failure),
}

impl Undelivered {
    pub fn into_failure(self) -> Failure {
        match self {
            Undelivered::Answered(failure) | Undelivered::Other(failure) => failure,
        }
    }

    /// The SQLSTATE of a statement that was refused.
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Undelivered::Answered(Failure::Statement(failure)) => Some(&failure.sqlstate),
            _ => None,
        }
    }
}

impl From<Failure> for Undelivered {
    fn from(failure: Failure) -> Self {
        Undelivered::Other(failure)
    }
}

impl From<sqlx::Error> for Undelivered {
    fn from(error: sqlx::Error) -> Self {
        Undelivered::Other(error.into())
    }
}

fn database_error(failed: &SendError) -> Option<&PgDatabaseError> {
    failed.error.as_database_error()?.try_downcast_ref()
}
