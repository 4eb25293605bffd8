//! The end of a run: its record, the lock, the report.

use std::time::Duration;

use tokio::time::sleep;

use crate::migrate::{
    drift,
    record::{self, Ending},
    report::{Failure, Report},
    session,
};

use super::{Event, Runner};

const RECORD_ATTEMPTS: usize = 5;
const RECORD_PAUSE: Duration = Duration::from_millis(200);

impl Runner<'_, '_> {
    /// Writes down how it ended, as far as the session still can, gives the lock back and hands the report out.
    pub(super) async fn close(mut self, mut result: Result<(), Failure>) -> Report {
        self.pulse = None;
        self.usable &= result.as_ref().err().is_none_or(Failure::session_usable);
        if self.usable && result.is_err() {
            // whatever was open; a lost session shows here
            self.rollback().await;
        }
        if self.usable && self.run.is_some() {
            // after a failure too: what was committed before it stays
            let recorded = self.record_schema().await;
            result = result.and(recorded);
            self.usable &= result.as_ref().err().is_none_or(Failure::session_usable);
        }
        if self.usable && self.ready && (self.run.is_some() || result.is_err()) {
            let written = self.write_ending(result.as_ref().err()).await;
            // a run whose end is not on disk has not succeeded
            result = result.and(written);
        }
        if let (true, Some(database)) = (self.usable, &self.lock_of)
            && let Err(error) = session::unlock(self.conn, database).await
        {
            result = result.and(Err(error.into()));
        }
        self.report.failure = result.err();
        self.report
    }

    /// What was changed by hand before this run is not this run's work.
    pub(super) async fn note_drift(&mut self) -> Result<(), Failure> {
        let schema = &self.request.options.schema;
        // looking is dear, to a server that has nothing to compare with too
        let noted = match drift::is_recorded(self.conn, schema).await {
            Ok(true) => drift::note(self.conn, schema).await,
            unknown => unknown.map(drop),
        };
        self.unless_lost(noted)
    }

    /// Objects that others are changing, or have locked, may keep a definition from being read.
    pub(super) async fn record_schema(&mut self) -> Result<(), Failure> {
        let mut attempts = 1;
        loop {
            let recorded = drift::record(self.conn, &self.request.options.schema).await;
            if attempts == RECORD_ATTEMPTS || !matches!(recorded, Err(sqlx::Error::Database(_))) {
                return self.unless_lost(recorded);
            }
            attempts += 1;
            sleep(RECORD_PAUSE).await;
        }
    }

    /// No run fails because its schema cannot be described.
    fn unless_lost(&mut self, outcome: Result<(), sqlx::Error>) -> Result<(), Failure> {
        match outcome {
            Err(sqlx::Error::Database(error)) => {
                (self.tell)(Event::SchemaNotRecorded(error.message()));
                Ok(())
            }
            outcome => Ok(outcome?),
        }
    }

    async fn write_ending(&mut self, failure: Option<&Failure>) -> Result<(), Failure> {
        if self.run.is_none() {
            let hash = self.request.plan_hash.clone();
            self.begin(hash.as_deref()).await?;
        }
        let outcome = match failure {
            None => "succeeded",
            Some(Failure::Interrupted) => "interrupted",
            Some(_) => "failed",
        };
        let message = failure.map(Failure::message);
        let ending = Ending {
            outcome,
            message,
            failed: failure.and_then(Failure::statement),
            sqlstate: failure.and_then(Failure::sqlstate),
        };
        session::ask(self.conn, &record::finish_run(self.id(), &ending)).await?;
        Ok(())
    }
}
