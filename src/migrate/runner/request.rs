//! What a run is asked for, and what it tells while it goes on.

use std::time::Duration;

use crate::migrate::{
    backup,
    blockers::Blocker,
    consent::Consent,
    plan::{Direction, Options, Step},
    report::Holder,
    seed::{HashSource, Profile},
    session::Login,
    source::Source,
};

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
