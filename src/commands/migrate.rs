//! `amas-operator migrate up|down|status|validate|seed`: the migration engine as a Job's container and from a shell.

use std::{io::IsTerminal, path::PathBuf, process::ExitCode, str::FromStr, time::Duration};

use clap::{Parser, Subcommand, ValueEnum};
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use tokio::sync::watch;

use crate::{
    api::names::SqlName,
    migrate::{
        plan::Options,
        report::{Failure, Report},
        runner::{self, Event, Goal, Request, Urgency},
        seed::{HashSource, Profile},
        session,
        source::Source,
    },
};

mod status;

/// How long a statement in flight may go on after the first signal: a Pod has 30 s until it is killed.
const GRACE: Duration = Duration::from_secs(20);

/// Run, take back and check PostgreSQL migrations.
///
/// Exit codes: 0 done or nothing to do; 10 a statement failed; 11 invalid files; 12 files and history disagree;
/// 13 plan is not --plan-hash; 14 seed failed; 15 unknown target or no way back; 16 login or right missing;
/// 17 unusable option; 20 server not reachable; 21 lock not obtained; 22 stopped by a signal; 23 connection lost;
/// 24 server could not do it now. 10-19 need a change, 20-29 may be tried again.
#[derive(Debug, Parser)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Apply what is pending, then the seeds.
    Up(UpArgs),
    /// Take applied migrations back by their stored down texts. Never asks.
    Down(DownArgs),
    /// Show what is applied, pending or edited. Changes nothing.
    Status(StatusArgs),
    /// Check the files; with a database also against its history. Changes nothing.
    Validate(ValidateArgs),
    /// Only the seeds.
    Seed(SeedArgs),
}

/// Which database. Without any of these, PGHOST, PGPORT, PGUSER, PGPASSWORD, PGDATABASE and PGPASSFILE are used.
#[derive(Debug, clap::Args)]
struct DatabaseArgs {
    /// File that holds the connection URL (a mounted Secret).
    #[arg(long, value_name = "FILE", conflicts_with = "database_url")]
    database_url_file: Option<PathBuf>,
    /// Connection URL. A password given here is seen by everybody in ps: prefer the environment.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    database_url: Option<String>,
    /// How long to wait for a server that is away or starting: 500ms, 60s, 5m.
    #[arg(long, default_value = "60s", value_parser = duration, value_name = "TIME")]
    connect_timeout: Duration,
    /// Schema of _sqlx_migrations.
    #[arg(long, default_value = "public")]
    schema: SqlName,
    /// The session's search_path.
    #[arg(long, default_value = "public")]
    search_path: String,
}

#[derive(Debug, clap::Args)]
struct RunArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    /// How long to wait for another migration to finish.
    #[arg(long, default_value = "5m", value_parser = duration, value_name = "TIME")]
    lock_timeout: Duration,
    /// Run only exactly this plan.
    #[arg(long, value_name = "SHA256")]
    plan_hash: Option<String>,
    /// Who runs it, as the records shall say: the Job's name.
    #[arg(long, default_value = "shell", value_name = "NAME")]
    attempt: String,
    /// Write the outcome as JSON to this file (/dev/termination-log).
    #[arg(long, value_name = "FILE")]
    termination_message: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct DirArgs {
    /// Folder of NNNN_name.up.sql and NNNN_name.down.sql; several are merged.
    #[arg(long = "dir", value_name = "DIR", required = true)]
    dirs: Vec<PathBuf>,
}

#[derive(Debug, Default, clap::Args)]
struct SeedOptions {
    /// Folder of NNNN_name.sql to run after the migrations; several run in the order given.
    #[arg(long = "seed-dir", value_name = "DIR")]
    seed_dirs: Vec<PathBuf>,
    /// NAME=FILE: setting amas.seed.NAME_hash is the bcrypt hash of the password in FILE.
    #[arg(long = "seed-hash", value_name = "NAME=FILE", value_parser = hash_source)]
    seed_hashes: Vec<HashSource>,
}

#[derive(Debug, clap::Args)]
struct UpArgs {
    #[command(flatten)]
    dirs: DirArgs,
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    seeds: SeedOptions,
    /// Stop after this version.
    #[arg(long, value_name = "VERSION")]
    to: Option<i64>,
}

#[derive(Debug, clap::Args)]
struct DownArgs {
    /// Folders of the files, for versions whose down text is not stored.
    #[arg(long = "dir", value_name = "DIR")]
    dirs: Vec<PathBuf>,
    #[command(flatten)]
    run: RunArgs,
    /// Down to this version, which stays; 0 takes everything back.
    #[arg(long, value_name = "VERSION", conflicts_with = "steps")]
    to: Option<i64>,
    /// How many versions to take back.
    #[arg(long, default_value_t = 1)]
    steps: usize,
}

#[derive(Debug, clap::Args)]
struct StatusArgs {
    #[command(flatten)]
    dirs: DirArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Debug, clap::Args)]
struct ValidateArgs {
    #[command(flatten)]
    dirs: DirArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    /// Seed folders to check too.
    #[arg(long = "seed-dir", value_name = "DIR")]
    seed_dirs: Vec<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct SeedArgs {
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    seeds: SeedOptions,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    Table,
    Json,
}

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
async fn execute(
    args: RunArgs,
    goal: Goal,
    source: Result<Source, crate::migrate::source::SourceError>,
    seeds: SeedOptions,
) -> u8 {
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
    source: Result<Source, crate::migrate::source::SourceError>,
    seeds: SeedOptions,
) -> Result<(Request, PgConnectOptions), Failure> {
    let request = Request {
        source: source?,
        goal,
        options: args.database.options(),
        plan_hash: args.plan_hash.clone(),
        attempt: args.attempt.clone(),
        lock_timeout: args.lock_timeout,
        seeds: load_profiles(&seeds.seed_dirs)?,
        hashes: seeds.seed_hashes,
    };
    Ok((request, args.database.login()?))
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
    let name = |file: &str| {
        let name = file
            .trim_end_matches(".sql")
            .trim_end_matches(".up")
            .trim_end_matches(".down");
        format!("{name:<40}")
    };
    move |event| match event {
        Event::Waiting(Some(holder)) => eprintln!("waiting for the migration lock: {holder} holds it"),
        Event::Waiting(None) => eprintln!("waiting for the migration lock"),
        Event::Planned {
            direction,
            from,
            to,
            steps,
        } if steps > 0 => {
            eprintln!(
                "{direction} from version {from} to {to}: {steps} migration{}",
                if steps == 1 { "" } else { "s" }
            );
        }
        Event::Planned { .. } => {}
        Event::Starting(step) if terminal => eprint!("{} ...", name(&step.file)),
        Event::Starting(_) => {}
        Event::Applied { step, direction, took } => {
            let (back, verb) = (if terminal { "\r" } else { "" }, verb(direction));
            eprintln!("{back}{} {verb} in {} ms", name(&step.file), took.as_millis());
        }
        Event::Seeded { profile, file, took } => {
            eprintln!(
                "{} seeded in {} ms",
                name(&format!("{profile}/{file}")),
                took.as_millis()
            );
        }
        Event::SeedsUnchanged(count) => eprintln!("{count} seed files unchanged"),
    }
}

fn verb(direction: crate::migrate::plan::Direction) -> &'static str {
    match direction {
        crate::migrate::plan::Direction::Up => "applied",
        crate::migrate::plan::Direction::Down => "taken back",
    }
}

impl DatabaseArgs {
    fn options(&self) -> Options {
        Options {
            schema: self.schema.clone(),
            search_path: self.search_path.clone(),
        }
    }

    /// Whether any database was named, so that `validate` knows whether to look at one.
    fn given(&self) -> bool {
        self.database_url_file.is_some() || self.database_url.is_some() || std::env::var_os("PGHOST").is_some()
    }

    fn login(&self) -> Result<PgConnectOptions, Failure> {
        let url = match (&self.database_url_file, &self.database_url) {
            (Some(file), _) => std::fs::read_to_string(file)
                .map_err(|error| Failure::Usage(format!("{} cannot be read: {error}", file.display())))?,
            (None, Some(url)) => url.clone(),
            (None, None) => return Ok(PgConnectOptions::new()),
        };
        let in_arguments = std::env::args().any(|arg| arg.contains(url.trim()));
        if in_arguments
            && url
                .split('@')
                .next()
                .is_some_and(|login| login.matches(':').count() > 1)
        {
            eprintln!(
                "warning: the password in --database-url can be seen in ps; use DATABASE_URL or --database-url-file"
            );
        }
        // the parser's own text could repeat parts of the URL
        PgConnectOptions::from_str(url.trim()).map_err(|_| {
            Failure::Usage("the database URL is not valid: postgres://USER:PASSWORD@HOST:PORT/DATABASE".to_owned())
        })
    }
}

/// `500ms`, `60s`, `5m`, `1h`.
fn duration(text: &str) -> Result<Duration, String> {
    let bad = || "write a number with its unit: 500ms, 60s, 5m, 1h".to_owned();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| bad())?;
    let millis = match &text[digits.len()..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(bad()),
    };
    number.checked_mul(millis).map(Duration::from_millis).ok_or_else(bad)
}

fn hash_source(text: &str) -> Result<HashSource, String> {
    let (name, file) = text.split_once('=').ok_or("write NAME=FILE")?;
    let name = SqlName::parse(name).map_err(|error| error.to_string())?;
    Ok(HashSource {
        name,
        file: file.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        for bad in ["5", "s", "5d", "-1s", "18446744073709551615h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
