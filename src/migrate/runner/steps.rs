//! The steps of a plan in their order: light ones together in one transaction, the others one by one.
//!
//! A transaction for each of a thousand small files costs more than the files themselves. Those that wait for nobody and
//! that nobody waits for share one, with their history rows in it. If the server refuses it, nothing of it has happened,
//! and the same files are sent one by one: then the error has its file, and what comes before it stays.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use crate::migrate::{
    plan::{Direction, Plan, Step},
    record::{self, Committed},
    report::Failure,
    units::{self, Kind, Needs, Parts},
};

use super::{Event, Goal, Runner, send::Undelivered, transact::Work};

/// As much is sent together at the most: less than what a disk takes a moment for.
const BATCH_BYTES: usize = 128 * 1024;
const BATCH_STEPS: usize = 100;
/// Light files wait for nobody, but for a name that somebody else is about to take: then each waits for itself, as long as it may, and says for whom.
const STANDS_FOR: Duration = Duration::from_secs(1);

impl Runner<'_, '_> {
    /// Every step in order; a polite stop is taken between them.
    pub(super) async fn steps(&mut self, plan: &Plan) -> Result<(), Failure> {
        (self.tell)(Event::Planned {
            direction: plan.direction,
            from: plan.from,
            to: plan.to,
            steps: plan.steps.len(),
        });
        let mut apart = Apart::start(plan);
        let mut rest = plan.steps.as_slice();
        while !rest.is_empty() {
            self.pause_point()?;
            let batch = apart.batch(rest).await?;
            let (now, later) = rest.split_at(batch.len());
            let after = |index: usize| match plan.direction {
                Direction::Up => now[index].version,
                Direction::Down => rest.get(index + 1).map_or(plan.to, |next| next.version),
            };
            let together = Committed {
                steps: now,
                direction: plan.direction,
                after: after(now.len() - 1),
            };
            if now.len() == 1 || !self.together(&together).await? {
                for (index, parts) in batch.iter().enumerate() {
                    self.pause_point()?;
                    let one = Committed {
                        steps: &now[index..=index],
                        direction: plan.direction,
                        after: after(index),
                    };
                    self.alone(&one, parts).await?;
                }
            }
            rest = later;
        }
        Ok(())
    }

    /// Light files in one transaction. False if the server refused: then nothing has happened.
    async fn together(&mut self, all: &Committed<'_>) -> Result<bool, Failure> {
        let started = Instant::now();
        let schema = &self.request.options.schema;
        let Some(first) = all.steps.first() else {
            return Ok(true);
        };
        let mut text = format!(
            "BEGIN; SET LOCAL synchronous_commit = off; SET LOCAL lock_timeout = {};\n",
            STANDS_FOR.as_millis()
        );
        for step in all.steps {
            (self.tell)(Event::Starting(step));
            text.push_str(&step.sql);
            text.push_str("\n;\n");
        }
        text.push_str(&record::commit_steps(schema, self.id(), all));
        if let Err(failed) = self.send(&first.file, &text).await? {
            if failed.error.as_database_error().is_none() {
                return Err(failed.error.into());
            }
            self.rollback().await;
            return Ok(false);
        }
        let share = u32::try_from(all.steps.len()).unwrap_or(u32::MAX);
        self.applied(all, started.elapsed() / share);
        Ok(true)
    }

    fn applied(&mut self, done: &Committed<'_>, took: Duration) {
        for step in done.steps {
            (self.tell)(Event::Applied {
                step,
                direction: done.direction,
                took,
            });
        }
        self.report.current = done.after;
        // as its row in `runs` counts: what is taken back after a failure is done no more
        let forward = matches!(self.request.goal, Goal::Up(_)) == (done.direction == Direction::Up);
        self.report.done = match forward {
            true => self.report.done + done.steps.len(),
            false => self.report.done.saturating_sub(done.steps.len()),
        };
    }

    /// One file.
    async fn alone(&mut self, one: &Committed<'_>, parts: &Parts) -> Result<(), Failure> {
        let [step] = one.steps else { return Ok(()) };
        let nothing = Needs::default();
        let started = Instant::now();
        (self.tell)(Event::Starting(step));
        // a way down may have no statement: then its rows are all that is sent
        let whole = match parts.units.as_slice() {
            [] => Some(&nothing),
            [unit] => Some(&unit.needs).filter(|_| matches!(unit.kind, Kind::Transaction(None))),
            _ => None,
        };
        match whole.filter(|_| step.unfinished.is_none()) {
            Some(needs) => {
                let tail = record::commit_steps(&self.request.options.schema, self.id(), one);
                let work = Work {
                    step,
                    span: (0, step.sql.len()),
                    begin: "BEGIN",
                    needs,
                    settings: &[],
                    tail: &tail,
                };
                self.transact(&work).await.map_err(Undelivered::into_failure)?;
            }
            None => self.in_parts(one, step, &parts.units).await?,
        }
        self.applied(one, started.elapsed());
        Ok(())
    }
}

/// The steps taken apart on another thread while the server works on those before.
struct Apart {
    ready: mpsc::Receiver<Result<Parts, Failure>>,
    next: Option<Parts>,
}

impl Apart {
    fn start(plan: &Plan) -> Self {
        let (send, ready) = mpsc::channel(2 * BATCH_STEPS);
        // texts are shared, not copied
        let steps: Vec<Step> = plan.steps.clone();
        tokio::task::spawn_blocking(move || {
            let mut made = BTreeSet::new();
            for step in &steps {
                let parts = units::parts(&step.sql, &mut made)
                    .map_err(|problem| Failure::Usage(format!("{}:{problem}", step.file)));
                if send.blocking_send(parts).is_err() {
                    return;
                }
            }
        });
        Self { ready, next: None }
    }

    /// The next step, or all light ones that follow each other.
    async fn batch(&mut self, rest: &[Step]) -> Result<Vec<Parts>, Failure> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        for step in rest {
            let parts = self.one().await?;
            bytes += step.sql.len();
            let light = parts.light && step.unfinished.is_none();
            let full = !batch.is_empty() && (!light || bytes > BATCH_BYTES || batch.len() == BATCH_STEPS);
            if full {
                self.next = Some(parts);
                return Ok(batch);
            }
            batch.push(parts);
            if !light {
                return Ok(batch);
            }
        }
        Ok(batch)
    }

    async fn one(&mut self) -> Result<Parts, Failure> {
        if let Some(parts) = self.next.take() {
            return Ok(parts);
        }
        let stopped = || Failure::Transient("the files could not be read to their end".to_owned());
        self.ready.recv().await.ok_or_else(stopped)?
    }
}
