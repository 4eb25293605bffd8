//! `amas-operator migrate VERB`: the migration engine as a Job's container and from a shell.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use tokio::sync::watch;

use crate::migrate::{
    backup,
    consent::Consent,
    report::{Failure, Report},
    runner::{self, Goal, OnFailure, Request, Urgency},
    seed::{HashSource, Profile},
    session::{self, Login},
    source::{Source, SourceError},
};

mod args;
mod backups;
mod deposit;
mod drift;
mod lint;
mod look;
mod new;
mod plan;
mod progress;
mod provide;
mod records;
mod redo;
mod status;
mod up;

pub use args::Args;
use args::{RunArgs, SeedOptions, Verb};
use progress::print_event;

/// How long a statement in flight may go on after the first signal: a Pod has 30 s until it is killed.
const GRACE: Duration = Duration::from_secs(20);

/// Runs the subcommand; the exit code says how it ended (see [`Failure::exit_code`]).
pub async fn run(args: Args) -> ExitCode {
    let code = match args.verb {
        Verb::Up(args) => {
            let message = args.run.termination_message.clone();
            end(message.as_deref(), up::up(args).await)
        }
        Verb::Down(down) => {
            let goal = down.to.map_or(Goal::DownSteps(down.steps), Goal::Down);
            let source = if down.dirs.is_empty() {
                Ok(Source::default())
            } else {
                Source::load(&down.dirs)
            };
            let wanted = Wanted::by_hand(goal, down.backup.settings_by_hand());
            execute(&down.run, wanted, source, Ok(Seeds::default())).await
        }
        Verb::Seed(seed) => {
            let seeds = Seeds::load(seed.seeds, &seed.dirs);
            let wanted = Wanted::by_hand(Goal::Seed, None);
            execute(&seed.run, wanted, Ok(Source::default()), seeds).await
        }
        Verb::Redo(redo) => end(redo.run.termination_message.as_deref(), redo::redo(&redo).await),
        Verb::Current(args) => finish(look::current(&args).await),
        Verb::Status(args) => finish(status::status(&args).await),
        Verb::History(args) => finish(look::history(&args).await),
        Verb::Show(args) => finish(look::show(&args).await),
        Verb::Stamp(args) => finish(records::stamp(&args).await),
        Verb::Repair(args) => finish(records::repair(&args).await),
        Verb::Deposit(args) => finish(deposit::deposit(&args).await),
        Verb::Provide(args) => finish(provide::provide(&args)),
        Verb::Drift(args) => finish(drift::drift(&args).await),
        Verb::Backups(args) => finish(backups::backups(&args).await),
        Verb::RestoreTables(args) => finish(backups::restore(&args).await),
        Verb::Validate(args) => finish(status::validate(&args).await),
        Verb::Plan(args) => finish(plan::plan(&args).await),
        Verb::Lint(args) => lint::lint(&args).unwrap_or_else(|failure| finish(Err(failure))),
        Verb::New(args) => finish(new::new(&args)),
    };
    ExitCode::from(code)
}

fn finish(result: Result<(), Failure>) -> u8 {
    let Err(failure) = result else { return 0 };
    explain(&failure);
    failure.exit_code()
}

fn explain(failure: &Failure) {
    eprintln!("error: {failure}\n{}", failure.advice());
}

/// Where to, what may be lost on the way, what of it is saved first, and what becomes of a way up that fails.
struct Wanted {
    goal: Goal,
    consent: Consent,
    on_failure: OnFailure,
    backup: Option<backup::Settings>,
}

impl Wanted {
    /// Somebody has asked for exactly this.
    fn by_hand(goal: Goal, backup: Option<backup::Settings>) -> Self {
        Self {
            goal,
            consent: Consent::Everything,
            on_failure: OnFailure::Stop,
            backup,
        }
    }
}

/// What runs after the migrations.
#[derive(Default)]
struct Seeds {
    profiles: Vec<Profile>,
    hashes: Vec<HashSource>,
}

impl Seeds {
    /// A profile's folders are below those of the migrations.
    fn load(options: SeedOptions, dirs: &[PathBuf]) -> Result<Self, Failure> {
        Ok(Self {
            profiles: load_profiles(&options.seed_dirs, options.seed_profile.as_deref(), dirs)?,
            hashes: options.seed_hashes,
        })
    }

    fn is_empty(&self) -> bool {
        self.profiles.is_empty() && self.hashes.is_empty()
    }
}

/// What somebody has asked for by its verb: connects, runs, reports.
async fn execute(
    args: &RunArgs,
    wanted: Wanted,
    source: Result<Source, SourceError>,
    seeds: Result<Seeds, Failure>,
) -> u8 {
    let attempt = async {
        let (source, seeds) = (source?, seeds?);
        let login = args.database.login()?;
        let request = request(args, &login, wanted, source, seeds);
        let (conn, stop) = open(args, &login).await?;
        Ok::<_, Failure>(perform(conn, stop, &request).await)
    };
    end(
        args.termination_message.as_deref(),
        attempt.await.unwrap_or_else(Report::early),
    )
}

/// Tells how it ended: in words, in the termination message, by the exit code.
fn end(message: Option<&Path>, report: Report) -> u8 {
    leave_message(message, &report);
    match &report.failure {
        Some(failure) => explain(failure),
        None if report.total == 0 && report.seeds == 0 => eprintln!("nothing to do, version {}", report.current),
        None => eprintln!("done, version {}", report.current),
    }
    report.exit_code()
}

/// What a Pod leaves behind, if it was told where.
fn leave_message(file: Option<&Path>, report: &Report) {
    if let Some(file) = file
        && let Err(error) = std::fs::write(file, report.termination())
    {
        eprintln!("warning: {} cannot be written: {error}", file.display());
    }
}

fn request(args: &RunArgs, login: &PgConnectOptions, wanted: Wanted, source: Source, seeds: Seeds) -> Request {
    let options = args.database.options();
    Request {
        source,
        goal: wanted.goal,
        plan_hash: args.plan_hash.clone(),
        consent: wanted.consent,
        on_failure: wanted.on_failure,
        backup: wanted.backup,
        attempt: args.attempt.clone(),
        lock_timeout: args.lock_timeout,
        login: Some(Login::new(login, &options)),
        options,
        seeds: seeds.profiles,
        hashes: seeds.hashes,
    }
}

/// The seed folders that are named, or those of a profile below the folders of migrations.
fn load_profiles(named: &[PathBuf], profile: Option<&str>, dirs: &[PathBuf]) -> Result<Vec<Profile>, Failure> {
    let mut all: Vec<Profile> = named.iter().map(|dir| Profile::load(dir)).collect::<Result<_, _>>()?;
    if let Some(name) = profile {
        for dir in dirs.iter().map(|dir| dir.join("seed")).filter(|dir| dir.is_dir()) {
            all.extend(Profile::load_named(&dir, name)?);
        }
        if all.is_empty() {
            return Err(Failure::Usage(format!(
                "no folder seed with a profile {name} is below --dir"
            )));
        }
    }
    let mut labels = std::collections::BTreeSet::new();
    match all.iter().find(|profile| !labels.insert(profile.label.as_str())) {
        None => Ok(all),
        Some(twice) => Err(Failure::Usage(format!(
            "two seed folders are named {}; their records would mix",
            twice.label
        ))),
    }
}

async fn perform(mut conn: PgConnection, stop: watch::Receiver<Urgency>, request: &Request) -> Report {
    let report = runner::run(&mut conn, request, stop, &mut print_event()).await;
    close(conn, report.failure.is_none()).await;
    report
}

/// A session, and what tells when to stop.
async fn open(args: &RunArgs, login: &PgConnectOptions) -> Result<(PgConnection, watch::Receiver<Urgency>), Failure> {
    let stop = listen_for_signals();
    let mut interrupted = stop.clone();
    let options = args.database.options();
    let connecting = session::connect(login, &options, args.database.connect_timeout);
    let connected = tokio::select! {
        connected = connecting => connected,
        _ = interrupted.wait_for(|urgency| *urgency > Urgency::No) => Err(Failure::Interrupted),
    };
    Ok((connected?, stop))
}

/// A clean goodbye after a clean end; otherwise the socket is dropped, so that nothing waits for an answer.
async fn close(conn: PgConnection, clean: bool) {
    let goodbye = async {
        if clean {
            conn.close().await
        } else {
            conn.close_hard().await
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(1), goodbye).await;
}

/// First SIGTERM or SIGINT: stop at the next safe point, after the grace at once. Second: at once.
fn listen_for_signals() -> watch::Receiver<Urgency> {
    use tokio::signal::unix::{SignalKind, signal};
    let (urgency, receiver) = watch::channel(Urgency::No);
    tokio::spawn(async move {
        let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
            return std::future::pending::<()>().await;
        };
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
        eprintln!("stopping after the current migration; once more: at once");
        urgency.send_replace(Urgency::Soon);
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {}, () = tokio::time::sleep(GRACE) => {} }
        urgency.send_replace(Urgency::Now);
        // keeps the channel open
        std::future::pending::<()>().await;
    });
    receiver
}
