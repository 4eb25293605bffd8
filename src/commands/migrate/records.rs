//! `stamp` and `repair`: what the records say is changed, and nothing is run.

use std::time::Duration;

use sqlx::Connection;

use crate::migrate::{
    adjust::{self, Change, Verdicts},
    history::Applied,
    report::Failure,
    source::Source,
};

use super::{
    args::{DatabaseArgs, DirArgs, duration},
    status,
};

#[derive(Debug, clap::Args)]
pub(super) struct StampArgs {
    #[command(flatten)]
    dirs: DirArgs,
    #[command(flatten)]
    records: RecordArgs,
    /// The version that the database is at; 0 for none.
    #[arg(long, value_name = "VERSION")]
    to: i64,
}

#[derive(Debug, clap::Args)]
pub(super) struct RepairArgs {
    #[command(flatten)]
    dirs: DirArgs,
    #[command(flatten)]
    records: RecordArgs,
    /// Versions that are in the database as their files say now.
    #[arg(long, value_name = "VERSION,...", value_delimiter = ',')]
    applied: Vec<i64>,
    /// Versions that are not in the database.
    #[arg(long, value_name = "VERSION,...", value_delimiter = ',')]
    pending: Vec<i64>,
}

#[derive(Debug, clap::Args)]
struct RecordArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    /// How long to wait for another migration to finish.
    #[arg(long, default_value = "5m", value_parser = duration, value_name = "TIME")]
    lock_timeout: Duration,
}

pub(super) async fn stamp(args: &StampArgs) -> Result<(), Failure> {
    let source = Source::load(&args.dirs.dirs)?;
    change(&args.records, |applied| adjust::stamp(&source, applied, args.to)).await
}

/// Without a verdict only says what is wrong; the first problem is the failure.
pub(super) async fn repair(args: &RepairArgs) -> Result<(), Failure> {
    let source = Source::load(&args.dirs.dirs)?;
    let verdicts = Verdicts {
        applied: args.applied.iter().copied().collect(),
        pending: args.pending.iter().copied().collect(),
    };
    if !verdicts.applied.is_empty() || !verdicts.pending.is_empty() {
        return change(&args.records, |applied| adjust::repair(&source, applied, &verdicts)).await;
    }
    let state = status::read(&args.records.database).await?;
    let mut problems = adjust::problems(&source, &state.applied);
    for problem in &problems {
        println!("{}\n    {}", problem.what, problem.remedy());
    }
    if problems.is_empty() {
        println!("files and records agree");
        return Ok(());
    }
    Err(Failure::Plan(problems.remove(0).what))
}

async fn change(
    args: &RecordArgs,
    decide: impl FnOnce(&[Applied]) -> Result<Vec<Change>, Failure>,
) -> Result<(), Failure> {
    let options = args.database.options();
    let mut conn = args.database.connect().await?;
    let changes = adjust::adjust(&mut conn, &options.schema, args.lock_timeout, decide).await?;
    conn.close().await?;
    for change in &changes {
        println!("{change}");
    }
    if changes.is_empty() {
        println!("the records say so already");
    }
    Ok(())
}
