//! `redo`: the newest versions back and in again, in two runs of one session.

use sqlx::PgConnection;
use tokio::sync::watch;

use crate::migrate::{
    history, plan,
    report::{Failure, Report},
    runner::{self, Goal, Request, Urgency},
    source::Source,
};

use super::{
    Seeds, Wanted,
    args::{DirArgs, RunArgs},
    backups::BackupArgs,
    close, open,
    progress::print_event,
    request,
};

#[derive(Debug, clap::Args)]
pub(super) struct RedoArgs {
    #[command(flatten)]
    dirs: DirArgs,
    #[command(flatten)]
    pub(super) run: RunArgs,
    /// How many versions.
    #[arg(long, default_value_t = 1)]
    steps: usize,
    #[command(flatten)]
    backup: BackupArgs,
}

pub(super) async fn redo(args: &RedoArgs) -> Report {
    if args.run.plan_hash.is_some() {
        return Report::early(Failure::Usage("redo has two plans; --plan-hash names one".to_owned()));
    }
    attempt(args).await.unwrap_or_else(Report::early)
}

async fn attempt(args: &RedoArgs) -> Result<Report, Failure> {
    let wanted = Wanted::by_hand(Goal::DownSteps(args.steps), args.backup.settings_by_hand());
    let source = Source::load(&args.dirs.dirs)?;
    let login = args.run.database.login()?;
    let request = request(&args.run, &login, wanted, source, Seeds::default());
    let (mut conn, stop) = open(&args.run, &login).await?;
    let report = both(&mut conn, request, args.steps, stop).await;
    close(conn, report.failure.is_none()).await;
    Ok(report)
}

async fn both(conn: &mut PgConnection, mut request: Request, steps: usize, stop: watch::Receiver<Urgency>) -> Report {
    let current = match way_up(conn, &request, steps).await {
        Ok(current) => current,
        Err(failure) => return Report::early(failure),
    };
    let down = runner::run(conn, &request, stop.clone(), &mut print_event()).await;
    if down.failure.is_some() {
        return down;
    }
    request.goal = Goal::Up(Some(current));
    runner::run(conn, &request, stop, &mut print_event()).await
}

/// The version to come back to. Nothing is taken back that could not be applied again: its file is there and can be sent.
async fn way_up(conn: &mut PgConnection, request: &Request, steps: usize) -> Result<i64, Failure> {
    let state = history::read(conn, &request.options.schema, None)
        .await?
        .unwrap_or_default();
    let stays = state.applied.len().saturating_sub(steps);
    let current = state.current();
    plan::plan(&request.source, &state.applied[..stays], Some(current))?;
    Ok(current)
}
