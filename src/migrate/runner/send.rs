//! The part of the runner that sends: migrations in and outside transactions, seeds, and how the run ended.

use std::time::Instant;

use sqlx::postgres::PgDatabaseError;
use tokio::task::JoinHandle;

use crate::migrate::{
    plan::{Direction, Plan, Step},
    record::{self, Ending},
    report::{Failure, Report},
    seed::{Hashes, Pending},
    session::{self, SendError},
    statements,
};

use super::{Event, Runner, Urgency, asked, message::Message};

impl Runner<'_, '_> {
    /// Every step in order; a polite stop is taken between them.
    pub(super) async fn steps(&mut self, plan: &Plan) -> Result<(), Failure> {
        let (direction, from, to) = (plan.direction, plan.from, plan.to);
        (self.tell)(Event::Planned {
            direction,
            from,
            to,
            steps: plan.steps.len(),
        });
        for (index, step) in plan.steps.iter().enumerate() {
            self.pause_point()?;
            (self.tell)(Event::Starting(step));
            let started = Instant::now();
            let after = match direction {
                Direction::Up => step.version,
                Direction::Down => plan.steps.get(index + 1).map_or(to, |next| next.version),
            };
            if statements::no_transaction(&step.sql) {
                self.step_outside(step, direction, after).await?;
            } else {
                let tail = record::commit_step(&self.request.options.schema, self.id(), step, direction, after);
                let message = Message::transaction(&step.file, &step.sql, &tail);
                self.deliver(&message, Some(step.version))
                    .await
                    .map_err(Undelivered::into_failure)?;
            }
            self.report.current = after;
            self.report.done += 1;
            (self.tell)(Event::Applied {
                step,
                direction,
                took: started.elapsed(),
            });
        }
        Ok(())
    }

    /// A migration outside a transaction, statement by statement. Its row says success = false meanwhile, and after a
    /// failure too, unless nothing can have been left behind.
    async fn step_outside(&mut self, step: &Step, direction: Direction, after: i64) -> Result<(), Failure> {
        let schema = &self.request.options.schema;
        let started = Instant::now();
        session::ask(self.conn, &record::mark_unfinished(schema, step, direction)).await?;
        let parts = statements::split(&step.sql).unwrap_or_default();
        for (index, part) in parts.iter().enumerate() {
            let message = Message::single(&step.file, &step.sql, part);
            let Err(undelivered) = self.deliver(&message, Some(step.version)).await else {
                continue;
            };
            let clean = index == 0 && !part.concurrently && matches!(undelivered, Undelivered::Answered(_));
            if clean {
                session::ask(self.conn, &record::unmark(schema, step, direction)).await?;
            }
            return Err(undelivered.into_failure());
        }
        let done = record::mark_finished(schema, self.id(), step, direction, (after, started.elapsed()));
        session::ask(self.conn, &done).await?;
        Ok(())
    }

    /// The seeds that are new or changed, each in its transaction with its record.
    pub(super) async fn seeds(
        &mut self,
        pending: &[Pending],
        hashing: JoinHandle<Result<Hashes, Failure>>,
    ) -> Result<(), Failure> {
        let hashes = hashing.await.map_err(|error| Failure::Usage(error.to_string()))??;
        for seed in pending {
            self.pause_point()?;
            let started = Instant::now();
            self.open_seed(seed, &hashes).await?;
            let file = format!("{}/{}", seed.profile, seed.script.file);
            let tail = record::commit_seed(&seed.profile, &seed.script.file, &seed.script.checksum, self.id());
            let message = Message::inside(&file, &seed.script.sql, &tail);
            self.deliver(&message, None)
                .await
                .map_err(|undelivered| match undelivered.into_failure() {
                    Failure::Statement(failure) => Failure::Seed(failure),
                    other => other,
                })?;
            self.report.seeds += 1;
            (self.tell)(Event::Seeded {
                profile: &seed.profile,
                file: &seed.script.file,
                took: started.elapsed(),
            });
        }
        self.tell_unchanged(pending.len());
        Ok(())
    }

    /// Opens the seed's transaction with the settings it reads. They are bound, not written into the text: a text is
    /// logged whole when it fails, and even a hash has no business in a log.
    async fn open_seed(&mut self, seed: &Pending, hashes: &Hashes) -> Result<(), Failure> {
        session::ask(self.conn, "BEGIN").await?;
        for (setting, hash) in hashes.iter().filter(|(setting, _)| seed.wants(setting)) {
            sqlx::query("SELECT pg_catalog.set_config($1, $2, true)")
                .bind(setting)
                .bind(hash)
                .persistent(false)
                .execute(&mut *self.conn)
                .await?;
        }
        Ok(())
    }

    pub(super) fn tell_unchanged(&mut self, pending: usize) {
        let all: usize = self.request.seeds.iter().map(|profile| profile.files.len()).sum();
        if all > pending {
            (self.tell)(Event::SeedsUnchanged(all - pending));
        }
    }

    /// Sends a message unless told to drop everything, and explains what the server answers.
    async fn deliver(&mut self, message: &Message<'_>, version: Option<i64>) -> Result<(), Undelivered> {
        let sent = tokio::select! {
            sent = session::send(self.conn, &message.text) => sent,
            () = asked(&mut self.stop, Urgency::Now) => {
                self.usable = false;
                return Err(Undelivered::Other(Failure::Interrupted));
            }
        };
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

    /// Leaves a failed transaction, also one that a file without a transaction opened, and takes back its settings.
    pub(super) async fn rollback(&mut self) {
        let sql = "ROLLBACK; RESET ROLE; RESET ALL";
        if session::send(self.conn, sql).await.is_err() {
            self.usable = false;
        }
    }

    /// Between two transactions: a polite stop is taken here.
    fn pause_point(&self) -> Result<(), Failure> {
        match *self.stop.borrow() {
            Urgency::No => Ok(()),
            Urgency::Soon | Urgency::Now => Err(Failure::Interrupted),
        }
    }

    fn id(&self) -> i64 {
        self.run.unwrap_or_default()
    }

    /// Writes down how it ended, as far as the session still can, gives the lock back and hands the report out.
    pub(super) async fn close(mut self, mut result: Result<(), Failure>) -> Report {
        self.usable &= result.as_ref().err().is_none_or(Failure::session_usable);
        if self.usable && result.is_err() {
            // whatever was open; a lost session shows here
            self.rollback().await;
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
        let message = failure.map(|failure| match failure.statement() {
            Some(statement) => statement.message.clone(),
            None => failure.to_string(),
        });
        let ending = Ending {
            outcome,
            message,
            failed: failure.and_then(Failure::statement),
        };
        session::ask(self.conn, &record::finish_run(self.id(), &ending)).await?;
        Ok(())
    }
}

/// Why a message did not do its work.
enum Undelivered {
    /// The server said no and is ready for the next one.
    Answered(Failure),
    Other(Failure),
}

impl Undelivered {
    fn into_failure(self) -> Failure {
        match self {
            Undelivered::Answered(failure) | Undelivered::Other(failure) => failure,
        }
    }
}

fn database_error(failed: &SendError) -> Option<&PgDatabaseError> {
    failed.error.as_database_error()?.try_downcast_ref()
}
