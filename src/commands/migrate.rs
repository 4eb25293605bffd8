//! `amas-operator migrate up|down|status|validate|plan|lint|new|seed`: the migration engine as a Job's container and from a shell.

use std::{io::IsTerminal, path::PathBuf, process::ExitCode, time::Duration};

use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use tokio::sync::watch;

use crate::migrate::{
    blockers,
    plan::Direction,
    report::{Failure, Report},
    runner::{self, Event, Goal, Request, Urgency},
    seed::Profile,
    session::{self, Login},
    source::{Source, SourceError},
};

mod args;
mod lint;
mod new;
mod plan;
mod status;

pub use args::Args;
use args::{RunArgs, SeedOptions, Verb};

/// How long a statement in flight may go on after the first signal: a Pod has 30 s until it is killed.
const GRACE: Duration = Duration::from_secs(20);

/// Runs the subcommand; the exit code says how it ended (see [`Failure::exit_code`]).
pub async fn run(args: Args) -> ExitCode {
    let code = match args.verb {
        Verb::Up(up) => {
            let goal = Goal::Up(up.to);
            execute(up.run, goal, Source::load(&up.dirs.dirs), up.seeds).await
        }
        Verb::Down(down) => {
            let goal = down.to.map_or(Goal::DownSteps(down.steps), Goal::Down);
            let source = if down.dirs.is_empty() {
                Ok(Source::default())
            } else {
                Source::load(&down.dirs)
            };
            execute(down.run, goal, source, SeedOptions::default()).await
        }
        Verb::Seed(seed) => execute(seed.run, Goal::Seed, Ok(Source::default()), seed.seeds).await,
        Verb::Status(args) => finish(status::status(&args).await),
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

/// Loads, connects, runs, reports.
async fn execute(args: RunArgs, goal: Goal, source: Result<Source, SourceError>, seeds: SeedOptions) -> u8 {
    let report = match prepare(&args, goal, source, seeds) {
        Ok((request, login)) => perform(&args, &request, &login).await,
        Err(failure) => Report::early(failure),
    };
    if let Some(file) = &args.termination_message
        && let Err(error) = std::fs::write(file, report.termination())
    {
        eprintln!("warning: {} cannot be written: {error}", file.display());
    }
    match &report.failure {
        Some(failure) => explain(failure),
        None if report.total == 0 && report.seeds == 0 => eprintln!("nothing to do, version {}", report.current),
        None => eprintln!("done, version {}", report.current),
    }
    report.exit_code()
}

fn prepare(
    args: &RunArgs,
    goal: Goal,
    source: Result<Source, SourceError>,
    seeds: SeedOptions,
) -> Result<(Request, PgConnectOptions), Failure> {
    let request = Request {
        source: source?,
        goal,
        options: args.database.options(),
        plan_hash: args.plan_hash.clone(),
        attempt: args.attempt.clone(),
        lock_timeout: args.lock_timeout,
        login: None,
        seeds: load_profiles(&seeds.seed_dirs)?,
        hashes: seeds.seed_hashes,
    };
    let login = args.database.login()?;
    let request = Request {
        login: Some(Login::new(&login, &request.options)),
        ..request
    };
    Ok((request, login))
}

fn load_profiles(dirs: &[PathBuf]) -> Result<Vec<Profile>, Failure> {
    let mut profiles: Vec<Profile> = Vec::new();
    for dir in dirs {
        let profile = Profile::load(dir)?;
        if profiles.iter().any(|other| other.label == profile.label) {
            return Err(Failure::Usage(format!(
                "two seed folders are named {}; their records would mix",
                profile.label
            )));
        }
        profiles.push(profile);
    }
    Ok(profiles)
}

async fn perform(args: &RunArgs, request: &Request, login: &PgConnectOptions) -> Report {
    let stop = listen_for_signals();
    let mut interrupted = stop.clone();
    let connecting = session::connect(login, &request.options, args.database.connect_timeout);
    let connected = tokio::select! {
        connected = connecting => connected,
        _ = interrupted.wait_for(|urgency| *urgency > Urgency::No) => Err(Failure::Interrupted),
    };
    let mut conn = match connected {
        Ok(conn) => conn,
        Err(failure) => return Report::early(failure),
    };
    let report = runner::run(&mut conn, request, stop, &mut print_event()).await;
    close(conn, report.failure.is_none()).await;
    report
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

/// Plain lines; to a terminal the name is shown as soon as a migration starts.
fn print_event() -> impl FnMut(Event<'_>) + Send {
    let terminal = std::io::stderr().is_terminal();
    move |event| {
        // one write a line: standard error has no buffer
        if let Some(text) = describe(&event, terminal) {
            eprint!("{text}");
        }
    }
}

fn describe(event: &Event<'_>, terminal: bool) -> Option<String> {
    Some(match event {
        Event::Waiting(Some(holder)) => format!("waiting for the migration lock: {holder} holds it\n"),
        Event::Waiting(None) => "waiting for the migration lock\n".to_owned(),
        Event::Blocked { file, waited, by } => format!(
            "{}  has waited {} s for {}\n",
            name(file),
            waited.as_secs(),
            blockers::list(by)
        ),
        Event::Planned { steps: 0, .. } => return None,
        Event::Planned {
            direction,
            from,
            to,
            steps,
        } => {
            let plural = if *steps == 1 { "" } else { "s" };
            format!("{direction} from version {from} to {to}: {steps} migration{plural}\n")
        }
        Event::Starting(step) if terminal => format!("{} ...", name(&step.file)),
        Event::Starting(_) => return None,
        Event::Applied { step, direction, took } => {
            let back = if terminal { "\r" } else { "" };
            let verb = match direction {
                Direction::Up => "applied",
                Direction::Down => "taken back",
            };
            format!("{back}{}  {verb} in {} ms\n", name(&step.file), took.as_millis())
        }
        Event::Seeded { profile, file, took } => {
            format!(
                "{}  seeded in {} ms\n",
                name(&format!("{profile}/{file}")),
                took.as_millis()
            )
        }
        Event::SeedsUnchanged(1) => "1 seed file unchanged\n".to_owned(),
        Event::SeedsUnchanged(count) => format!("{count} seed files unchanged\n"),
    })
}

/// A file's name as a column, without what every file has.
fn name(file: &str) -> String {
    let name = file
        .trim_end_matches(".sql")
        .trim_end_matches(".up")
        .trim_end_matches(".down");
    format!("{name:<40}")
}
