//! The command line of `migrate`: its verbs, and the options that several of them have. Those of one verb are beside it.

use std::{path::PathBuf, str::FromStr, time::Duration};

use clap::{Parser, Subcommand, ValueEnum};
use sqlx::{PgConnection, postgres::PgConnectOptions};

use super::{
    backups::{BackupArgs, BackupsArgs, RestoreArgs},
    deposit::DepositArgs,
    drift::DriftArgs,
    lint::LintArgs,
    look::{CurrentArgs, HistoryArgs, ShowArgs},
    new::NewArgs,
    plan::PlanArgs,
    provide::ProvideArgs,
    records::{RepairArgs, StampArgs},
    redo::RedoArgs,
    status::{StatusArgs, ValidateArgs},
    up::UpArgs,
};
use crate::{
    api::names::SqlName,
    migrate::{plan::Options, report::Failure, seed::HashSource, session},
};

/// Run, take back and check PostgreSQL migrations.
///
/// Exit codes: 0 done or nothing to do; 10 a statement failed; 11 invalid files; 12 files and history disagree;
/// 13 plan is not --plan-hash; 14 seed failed; 15 unknown target or no way back; 16 login or right missing;
/// 17 unusable option; 18 lint found risks; 19 a statement loses data and is not accepted; 20 server not reachable; 21 lock not obtained; 22 stopped by a signal; 23 connection lost;
/// 24 server could not do it now; 30 drift found the schema changed; 31 no backup could be made of what would be lost;
/// 32 a backup cannot be put back as asked. 10-19 need a change, 20-29 may be tried again.
#[derive(Debug, Parser)]
pub struct Args {
    #[command(subcommand)]
    pub(super) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Apply what is pending, then the seeds.
    Up(UpArgs),
    /// Take applied migrations back by their stored down texts. Never asks.
    Down(DownArgs),
    /// Take the newest migrations back and apply them again from their files. Never asks.
    Redo(RedoArgs),
    /// Print the version that the database is at. Changes nothing.
    Current(CurrentArgs),
    /// Show what is applied, pending or edited, and the seeds. Changes nothing.
    Status(StatusArgs),
    /// Show what was done to the database, newest first. Changes nothing.
    History(HistoryArgs),
    /// Show one version: its state, what was done to it, its statements, its stored way back. Changes nothing.
    Show(ShowArgs),
    /// Record exactly the versions up to one as applied, and run nothing: for a database that was migrated by other means.
    #[command(visible_alias = "baseline")]
    Stamp(StampArgs),
    /// Say what files and records disagree on, and settle it as told. Runs nothing.
    Repair(RepairArgs),
    /// Bring the files of a folder into the database, for an operator that cannot see them. Runs nothing.
    #[command(hide = true)]
    Deposit(DepositArgs),
    /// Copy this program and a bundle to where a container of another image finds them.
    #[command(hide = true)]
    Provide(ProvideArgs),
    /// Say what is not as the last run left it: tables, columns, constraints, indexes, views, functions, triggers, types, grants. Changes nothing unless told to.
    Drift(DriftArgs),
    /// List the backups that were made before data was lost, newest first. Changes nothing.
    Backups(BackupsArgs),
    /// Put the tables of a backup back: those that are gone with everything, those that are empty with their rows. Never touches a table that has rows.
    RestoreTables(RestoreArgs),
    /// Check the files; with a database also against its history. Changes nothing.
    Validate(ValidateArgs),
    /// Show what would run, what it locks, and the plan's hash. Changes nothing.
    Plan(PlanArgs),
    /// Say which statements are risky, and what to write instead. Needs no database.
    Lint(LintArgs),
    /// Write an empty pair of files whose version is the time in UTC.
    New(NewArgs),
    /// Only the seeds.
    Seed(SeedArgs),
}

/// Which database. Without any of these, PGHOST, PGPORT, PGUSER, PGPASSWORD, PGDATABASE and PGPASSFILE are used.
#[derive(Debug, clap::Args)]
pub(super) struct DatabaseArgs {
    /// File that holds the connection URL (a mounted Secret).
    #[arg(long, value_name = "FILE", conflicts_with = "database_url")]
    pub(super) database_url_file: Option<PathBuf>,
    /// Connection URL. A password given here is seen by everybody in ps: prefer the environment.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub(super) database_url: Option<String>,
    /// How long to wait for a server that is away or starting: 500ms, 60s, 5m.
    #[arg(long, default_value = "60s", value_parser = duration, value_name = "TIME")]
    pub(super) connect_timeout: Duration,
    /// Schema of _sqlx_migrations.
    #[arg(long, default_value = "public")]
    pub(super) schema: SqlName,
    /// The session's search_path.
    #[arg(long, default_value = "public")]
    pub(super) search_path: String,
}

#[derive(Debug, clap::Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    pub(super) database: DatabaseArgs,
    /// How long to wait for another migration to finish, and for the locks that each transaction needs.
    #[arg(long, default_value = "5m", value_parser = duration, value_name = "TIME")]
    pub(super) lock_timeout: Duration,
    /// Run only exactly this plan.
    #[arg(long, value_name = "SHA256")]
    pub(super) plan_hash: Option<String>,
    /// Who runs it, as the records shall say: the Job's name.
    #[arg(long, env = "AMAS_ATTEMPT", default_value = "shell", value_name = "NAME")]
    pub(super) attempt: String,
    /// Write the outcome as JSON to this file (/dev/termination-log).
    #[arg(long, value_name = "FILE")]
    pub(super) termination_message: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(super) struct DirArgs {
    /// Folder of NNNN_name.up.sql and NNNN_name.down.sql; several are merged.
    #[arg(long = "dir", value_name = "DIR", required = true)]
    pub(super) dirs: Vec<PathBuf>,
}

#[derive(Debug, Default, clap::Args)]
pub(super) struct SeedOptions {
    /// Folder of NNNN_name.sql to run after the migrations; several run in the order given.
    #[arg(long = "seed-dir", value_name = "DIR")]
    pub(super) seed_dirs: Vec<PathBuf>,
    /// Run the seeds of this profile after the migrations: the folders common, NAME and last, in that order, below the folder seed in --dir.
    #[arg(long, value_name = "NAME", conflicts_with = "seed_dirs")]
    pub(super) seed_profile: Option<String>,
    /// NAME=FILE: setting amas.seed.NAME_hash is the bcrypt hash of the password in FILE.
    #[arg(long = "seed-hash", value_name = "NAME=FILE", value_parser = hash_source)]
    pub(super) seed_hashes: Vec<HashSource>,
}

#[derive(Debug, clap::Args)]
pub(super) struct DownArgs {
    /// Folders of the files, for versions whose down text is not stored.
    #[arg(long = "dir", value_name = "DIR")]
    pub(super) dirs: Vec<PathBuf>,
    #[command(flatten)]
    pub(super) run: RunArgs,
    /// Down to this version, which stays; 0 takes everything back.
    #[arg(long, value_name = "VERSION", conflicts_with = "steps")]
    pub(super) to: Option<i64>,
    /// How many versions to take back.
    #[arg(long, default_value_t = 1)]
    pub(super) steps: usize,
    #[command(flatten)]
    pub(super) backup: BackupArgs,
}

#[derive(Debug, clap::Args)]
pub(super) struct SeedArgs {
    /// Folder of the migrations, whose folder seed has the profiles.
    #[arg(long = "dir", value_name = "DIR", requires = "seed_profile")]
    pub(super) dirs: Vec<PathBuf>,
    #[command(flatten)]
    pub(super) run: RunArgs,
    #[command(flatten)]
    pub(super) seeds: SeedOptions,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Output {
    Table,
    Json,
}

impl DatabaseArgs {
    pub(super) fn options(&self) -> Options {
        Options {
            schema: self.schema.clone(),
            search_path: self.search_path.clone(),
        }
    }

    /// Whether any database was named, so that `validate` knows whether to look at one.
    pub(super) fn given(&self) -> bool {
        self.database_url_file.is_some() || self.database_url.is_some() || std::env::var_os("PGHOST").is_some()
    }

    /// A session of its own for a verb that runs nothing.
    pub(super) async fn connect(&self) -> Result<PgConnection, Failure> {
        session::connect(&self.login()?, &self.options(), self.connect_timeout).await
    }

    pub(super) fn login(&self) -> Result<PgConnectOptions, Failure> {
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
pub(super) fn duration(text: &str) -> Result<Duration, String> {
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
