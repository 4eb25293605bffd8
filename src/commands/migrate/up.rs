//! `up`: the files are read while the connection is made, and no further than it takes to know that all of them are in.

use std::{collections::BTreeSet, path::PathBuf};

use sqlx::{PgConnection, postgres::PgConnectOptions};
use tokio::sync::watch;

use crate::migrate::{
    consent::Consent,
    glance::Glance,
    history,
    report::{Failure, Report},
    runner::{Goal, OnFailure, Urgency},
    source::Source,
};

use super::{
    Seeds, Wanted,
    args::{DirArgs, RunArgs, SeedOptions},
    backups::BackupArgs,
    close, open, perform, request,
};

#[derive(Debug, clap::Args)]
pub(super) struct UpArgs {
    #[command(flatten)]
    dirs: DirArgs,
    #[command(flatten)]
    pub(super) run: RunArgs,
    #[command(flatten)]
    seeds: SeedOptions,
    /// Stop after this version.
    #[arg(long, value_name = "VERSION")]
    to: Option<i64>,
    #[command(flatten)]
    losses: LossArgs,
    #[command(flatten)]
    backup: BackupArgs,
    /// When a statement fails: leave the versions applied before it, or take them back by their down texts to where this run began.
    #[arg(long, value_enum, default_value_t, value_name = "WHAT")]
    on_failure: OnFailure,
}

#[derive(Debug, clap::Args)]
struct LossArgs {
    /// Versions whose statements may lose data (drop, truncate, narrow a type, change all rows), or `all`.
    #[arg(long = "allow-destructive", value_name = "VERSION,...", value_delimiter = ',', value_parser = accepted)]
    accepted: Vec<Accepted>,
}

#[derive(Clone, Copy, Debug)]
enum Accepted {
    All,
    Version(i64),
}

impl LossArgs {
    fn consent(&self) -> Consent {
        let versions: Option<BTreeSet<i64>> = self
            .accepted
            .iter()
            .map(|one| match one {
                Accepted::All => None,
                Accepted::Version(version) => Some(*version),
            })
            .collect();
        versions.map_or(Consent::Everything, Consent::Versions)
    }
}

fn accepted(text: &str) -> Result<Accepted, String> {
    match text {
        "all" => Ok(Accepted::All),
        _ => text
            .parse()
            .map(Accepted::Version)
            .map_err(|_| "write versions, or all".to_owned()),
    }
}

/// The files, as far as they have been looked at.
enum Files {
    Glanced(Glance),
    Read(Source),
}

/// A session, what tells when to stop, and the digest of what is applied if that is all there is to know of the database.
type Opened = (PgConnection, watch::Receiver<Urgency>, Option<String>);

pub(super) async fn up(mut args: UpArgs) -> Report {
    let seeds = Seeds::load(std::mem::take(&mut args.seeds), &args.dirs.dirs);
    let attempt = async { attempt(&args, seeds?).await };
    attempt.await.unwrap_or_else(Report::early)
}

async fn attempt(args: &UpArgs, seeds: Seeds) -> Result<Report, Failure> {
    let dirs = &args.dirs.dirs;
    let login = args.run.database.login()?;
    let both = tokio::try_join!(look(dirs, seeds.is_empty()), connect(args, &login));
    let (files, (conn, stop, applied)) = both.map_err(|failure| {
        // what will not pass by itself is said first
        Source::load(dirs).err().map_or(failure, Failure::from)
    })?;
    let source = match files {
        Files::Glanced(glance) if is_in(args, &glance, applied.as_deref()) => {
            close(conn, true).await;
            return Ok(Report::nothing_to_do(glance.newest));
        }
        Files::Glanced(_) => Source::load(dirs)?,
        Files::Read(source) => source,
    };
    let wanted = Wanted {
        goal: Goal::Up(args.to),
        consent: args.losses.consent(),
        on_failure: args.on_failure,
        backup: args.backup.settings(),
    };
    let request = request(&args.run, &login, wanted, source, seeds);
    Ok(perform(conn, stop, &request).await)
}

/// Only at a glance where that may do: seeds are compared one by one.
async fn look(dirs: &[PathBuf], glance: bool) -> Result<Files, Failure> {
    let dirs = dirs.to_vec();
    let reading = tokio::task::spawn_blocking(move || {
        let glanced = glance.then(|| Glance::of(&dirs)).flatten();
        glanced.map_or_else(
            || Source::load(&dirs).map(Files::Read),
            |glance| Ok(Files::Glanced(glance)),
        )
    });
    let read = reading.await.map_err(|error| Failure::Usage(error.to_string()))?;
    Ok(read?)
}

async fn connect(args: &UpArgs, login: &PgConnectOptions) -> Result<Opened, Failure> {
    let (mut conn, stop) = open(&args.run, login).await?;
    let applied = history::settled(&mut conn, &args.run.database.schema).await?;
    Ok((conn, stop, applied))
}

/// Whether the database has exactly these files, and that is what was asked for. A plan of nothing is whichever was approved.
fn is_in(args: &UpArgs, glance: &Glance, applied: Option<&str>) -> bool {
    applied == Some(glance.digest.as_str()) && args.to.is_none_or(|to| to == glance.newest)
}
