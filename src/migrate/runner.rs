//! Runs a plan in one session: lock, read, check, then one message a transaction.
//!
//! A migration's text, its history rows, the progress row and the COMMIT travel in one simple-protocol message, several
//! light migrations in one transaction; no commit waits for the disk but the run's last, which waits for all of them.
//! `backups` saves what is lost, `steps` goes through the plan, `transact`, `waiting` and `ladder` come by the locks, `parts`, `lone` and `leftovers` run
//! what cannot be in one transaction, `pulse` shows signs of life meanwhile.

use std::time::Duration;

use sqlx::{PgConnection, Row};
use tokio::sync::watch;

use super::{
    backup,
    blockers::Blocker,
    consent::Consent,
    drift,
    history::{self, Applied, State},
    plan::{self, Direction, Options, Plan, Planned, Step, StepId, hash_steps},
    record::{self, NewRun},
    report::{Failure, Holder, Report},
    seed::{self, HashSource, Profile},
    session::{self, Login},
    source::Source,
    tables,
};

mod backups;
mod closing;
mod ladder;
mod leftovers;
mod lone;
mod message;
mod parts;
mod pulse;
mod seeds;
mod send;
mod steps;
mod take_back;
mod transact;
mod waiting;

/// Where the schema shall go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// To this version, None for the newest file; never down.
    Up(Option<i64>),
    /// To this version, 0 for an empty schema; never up.
    Down(i64),
    /// This many applied versions back.
    DownSteps(usize),
    /// Only the seeds.
    Seed,
}

/// What becomes of the versions that a run has applied before one of its statements fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum OnFailure {
    /// They stay; a corrected file goes on from there.
    #[default]
    Stop,
    /// They are taken back by their stored down texts.
    Rollback,
}

/// Everything one command is to do.
#[derive(Clone, Debug)]
pub struct Request {
    pub source: Source,
    pub goal: Goal,
    pub options: Options,
    /// Refuse with PlanMoved unless exactly this plan (or what this attempt left of it) would run.
    pub plan_hash: Option<String>,
    /// The versions that may lose data.
    pub consent: Consent,
    /// What is saved before anything runs; None: nothing is.
    pub backup: Option<backup::Settings>,
    /// Only of a way up.
    pub on_failure: OnFailure,
    /// The Job's name, or `shell`; written into `runs`.
    pub attempt: String,
    /// How long to wait for the migration lock, and then for the locks of each transaction.
    pub lock_timeout: Duration,
    /// For a second connection that shows signs of life during long statements.
    pub login: Option<Login>,
    pub seeds: Vec<Profile>,
    pub hashes: Vec<HashSource>,
}

/// What a run tells while it goes on.
#[derive(Debug)]
pub enum Event<'a> {
    /// Another session has had the lock for a second.
    Waiting(Option<&'a Holder>),
    /// Other sessions hold what a migration needs.
    Blocked {
        file: &'a str,
        waited: Duration,
        by: &'a [Blocker],
    },
    /// The run is about to start.
    Planned {
        direction: Direction,
        from: i64,
        to: i64,
        steps: usize,
    },
    /// What is about to lose data is being saved.
    BackingUp { tables: usize },
    BackedUp {
        id: i64,
        file: &'a str,
        bytes: u64,
        took: Duration,
    },
    /// A migration is about to be sent.
    Starting(&'a Step),
    Applied {
        step: &'a Step,
        direction: Direction,
        took: Duration,
    },
    Seeded {
        profile: &'a str,
        file: &'a str,
        took: Duration,
    },
    /// Seeds that are recorded with the same checksum.
    SeedsUnchanged(usize),
    /// The schema could not be recorded, so that changes made by hand are not told until the next run: what the server said.
    SchemaNotRecorded(&'a str),
}

/// Receives events; called between round trips.
pub type Tell<'a> = dyn FnMut(Event<'_>) + Send + 'a;

/// How urgently a run shall stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    #[default]
    No,
    /// Before the next migration.
    Soon,
    /// Now: the connection is dropped and the server rolls the open migration back.
    Now,
}

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
        let statements = self.statements(&plan, &state)?;
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
    fn statements(&self, plan: &Plan, state: &State) -> Result<Vec<Planned>, Failure> {
        let backup = self.request.backup.as_ref();
        let saved = backup.is_some_and(|backup| backup.before == backup::Before::Destructive);
        match saved || self.request.consent != Consent::Everything {
            true => Ok(plan.statements(&self.request.source, state)?),
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
