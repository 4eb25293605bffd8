//! Runs a plan in one session: lock, read, check, then one message a transaction.
//!
//! A migration's text, its history rows, the progress row and the COMMIT travel in one simple-protocol message, several
//! light migrations in one transaction; no commit waits for the disk but the run's last, which waits for all of them.
//! `backups` saves what is lost, `steps` goes through the plan, `transact`, `waiting` and `ladder` come by the locks, `parts`, `lone` and `leftovers` run
//! what cannot be in one transaction, `pulse` shows signs of life meanwhile.

use sqlx::{PgConnection, Row};
use tokio::sync::watch;

use super::{
    backup,
    consent::Consent,
    drift,
    history::{self, Applied, State},
    plan::{self, Direction, Plan, Planned, StepId, hash_steps},
    record::{self, NewRun},
    report::{Failure, Holder, Report},
    seed, session, tables,
};

mod backups;
mod closing;
mod ladder;
mod leftovers;
mod lone;
mod message;
mod parts;
mod pulse;
mod request;
mod seeds;
mod send;
mod steps;
mod take_back;
mod transact;
mod waiting;

pub use request::{Event, Goal, OnFailure, Request, Tell, Urgency};

/// Runs a request on an open session and never fails to say how it ended.
///
/// The lock is held from before the history is read until the end. What was committed before a failure stays.
pub async fn run(
    conn: &mut PgConnection,
    request: &Request,
    stop: watch::Receiver<Urgency>,
    tell: &mut Tell<'_>,
) -> Report {
    let report = Report {
        current: 0,
        target: 0,
        total: 0,
        done: 0,
        seeds: 0,
        failure: None,
    };
    let mut runner = Runner {
        conn,
        request,
        stop,
        tell,
        report,
        run: None,
        lock_of: None,
        pulse: None,
        ready: false,
        usable: true,
    };
    let result = runner.whole().await;
    runner.close(result).await
}

struct Runner<'a, 't> {
    conn: &'a mut PgConnection,
    request: &'a Request,
    stop: watch::Receiver<Urgency>,
    tell: &'a mut Tell<'t>,
    report: Report,
    /// Our row in `runs`.
    run: Option<i64>,
    /// The database whose lock is ours.
    lock_of: Option<String>,
    pulse: Option<pulse::Pulse>,
    /// The tables exist.
    ready: bool,
    /// The session answers; false once a message was abandoned.
    usable: bool,
}

impl Runner<'_, '_> {
    async fn whole(&mut self) -> Result<(), Failure> {
        let identity = history::identity(self.conn).await?;
        let database = history::database(&identity).to_owned();
        self.lock(&database).await?;
        self.lock_of = Some(database);
        self.locked(&identity).await
    }

    async fn lock(&mut self, database: &str) -> Result<(), Failure> {
        let tell = &mut self.tell;
        let mut waiting = |holder: Option<Holder>| tell(Event::Waiting(holder.as_ref()));
        let mut stop = self.stop.clone();
        let lock = session::lock(self.conn, database, self.request.lock_timeout, &mut waiting);
        tokio::select! {
            result = lock => result,
            () = asked(&mut stop, Urgency::Soon) => {
                self.usable = false;
                Err(Failure::Interrupted)
            }
        }
    }

    async fn locked(&mut self, identity: &str) -> Result<(), Failure> {
        let created = tables::ensure(self.conn, &self.request.options.schema).await?;
        self.ready = true;
        let state = self.read().await?;
        self.report.current = state.current();
        self.report.target = self.report.current;
        if created {
            tables::adopt(self.conn, &self.request.source, &state.applied).await?;
        }
        let plan = self.plan(&state)?;
        self.report.target = plan.to;
        self.report.total = plan.steps.len();
        let hash = plan.hash(identity, &self.request.options);
        self.check_hash(identity, &plan, &hash).await?;
        let statements = self.statements(&plan, &state).await?;
        self.check_consent(&statements)?;
        let seeds = seed::pending(self.conn, &self.request.seeds).await?;
        if plan.is_empty() && seeds.is_empty() {
            if state.latest_run.is_some_and(|run| run.finished_at.is_none()) {
                session::ask(self.conn, record::CLOSE_DEAD).await?;
            }
            if !drift::is_recorded(self.conn, &self.request.options.schema).await? {
                self.record_schema().await?;
            }
            self.tell_unchanged(0);
            return Ok(());
        }
        self.note_drift().await?;
        let hashing = seed::start_hashing(&self.request.hashes, &seeds);
        let stored = self.request.plan_hash.clone().unwrap_or(hash);
        self.begin(Some(&stored)).await?;
        if !created {
            tables::adopt(self.conn, &self.request.source, &state.applied).await?;
        }
        self.back_up(identity, &plan, &statements).await?;
        if let Err(failure) = self.steps(&plan).await {
            return Err(self.take_back(failure, plan.from).await);
        }
        self.seeds(&seeds, hashing).await
    }

    async fn read(&mut self) -> Result<State, Failure> {
        let downs_above = match self.request.goal {
            Goal::Down(target) => Some(target),
            Goal::DownSteps(_) => Some(0),
            Goal::Up(_) | Goal::Seed => None,
        };
        let state = history::read(self.conn, &self.request.options.schema, downs_above).await?;
        Ok(state.unwrap_or_default())
    }

    fn plan(&self, state: &State) -> Result<Plan, Failure> {
        let (source, applied) = (&self.request.source, state.applied.as_slice());
        let current = state.current();
        let nothing = Plan {
            direction: Direction::Up,
            from: current,
            to: current,
            steps: Vec::new(),
        };
        let target = match self.request.goal {
            Goal::Seed => return Ok(nothing),
            Goal::Up(Some(target)) if target < current => {
                return Err(Failure::Usage(format!(
                    "the database is at version {current}, above {target}: `down --to {target}` takes it back"
                )));
            }
            Goal::Down(_) | Goal::DownSteps(_) if half_up(applied) => Some(0),
            Goal::Up(target) => target,
            Goal::Down(target) if target >= current => return Ok(nothing),
            Goal::Down(target) => Some(target),
            Goal::DownSteps(0) => return Ok(nothing),
            Goal::DownSteps(steps) => Some(applied.iter().rev().nth(steps).map_or(0, |applied| applied.version)),
        };
        Ok(plan::plan(source, applied, target)?)
    }

    /// The plan must be the one asked for, or the rest of it that this very attempt has not done yet (a Job's second
    /// Pod). A plan with nothing in it harms nobody.
    async fn check_hash(&mut self, identity: &str, plan: &Plan, found: &str) -> Result<(), Failure> {
        let Some(expected) = &self.request.plan_hash else {
            return Ok(());
        };
        if expected == found || plan.is_empty() {
            return Ok(());
        }
        let mut steps = history::done_by(self.conn, &self.request.attempt, expected).await?;
        steps.extend(plan.steps.iter().map(StepId::from));
        if hash_steps(identity, plan.direction, &self.request.options, steps.into_iter()) == *expected {
            return Ok(());
        }
        Err(Failure::PlanMoved {
            expected: expected.clone(),
            found: found.to_owned(),
        })
    }

    /// The plan's statements, if anybody asks what they lose.
    async fn statements(&mut self, plan: &Plan, state: &State) -> Result<Vec<Planned>, Failure> {
        let request = self.request;
        let backup = request.backup.as_ref();
        let saved = backup.is_some_and(|backup| backup.before == backup::Before::Destructive);
        match saved || request.consent != Consent::Everything {
            true => Ok(plan.statements_after(self.begun(plan, state).await?)?),
            false => Ok(Vec::new()),
        }
    }

    /// Nothing is lost that nobody has accepted.
    fn check_consent(&self, statements: &[Planned]) -> Result<(), Failure> {
        let refused = self.request.consent.refuse(statements);
        refused.map_or(Ok(()), |refused| Err(Failure::Destructive(Box::new(refused))))
    }

    async fn begin(&mut self, plan_hash: Option<&str>) -> Result<(), Failure> {
        let direction = match self.request.goal {
            Goal::Up(_) => "up",
            Goal::Down(_) | Goal::DownSteps(_) => "down",
            Goal::Seed => "seed",
        };
        let new = NewRun {
            plan_hash,
            attempt: &self.request.attempt,
            direction,
            from: self.report.current,
            to: self.report.target,
            total: self.report.total,
        };
        let rows = session::ask(self.conn, &record::begin_run(&new)).await?;
        let Some(row) = rows.first() else { return Ok(()) };
        let (run, pid) = (row.try_get(0)?, row.try_get(1)?);
        self.run = Some(run);
        self.pulse = self
            .request
            .login
            .clone()
            .map(|login| pulse::Pulse::start(login, run, pid));
        Ok(())
    }
}

/// Then there is no way down, which the plan says.
fn half_up(applied: &[Applied]) -> bool {
    let half = applied
        .last()
        .filter(|last| !last.success)
        .and_then(|last| last.unfinished.as_ref());
    half.is_some_and(|half| half.direction == Direction::Up)
}

/// Resolves once stopping is at least this urgent.
async fn asked(stop: &mut watch::Receiver<Urgency>, least: Urgency) {
    if stop.wait_for(|urgency| *urgency >= least).await.is_err() {
        // nobody can ask any more
        std::future::pending::<()>().await;
    }
}
