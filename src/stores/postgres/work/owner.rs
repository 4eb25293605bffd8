//! The owner's part, over its own login: history, rights, drift and figures.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use sqlx::{Connection, PgConnection};

use super::PostgresWorker;
use crate::{
    api::names::SqlName,
    migrate::{
        deposit, history,
        plan::{Options, estimates},
        seed,
        source::Source,
    },
    stores::postgres::{
        PostgresDuty, PostgresFacts,
        connect::{SqlError, connect, execute, read},
        drift,
        duty::{Deposit, Figures, MigrationFacts, PlanEstimates},
        rights,
    },
};

const FIGURES_AGE: Duration = Duration::from_secs(60);
/// After statements met objects that changed under them.
const SOON: Duration = Duration::from_millis(500);
/// While a runner is at work; its end is announced, so this only matters when it dies.
const WHILE_RUNNING: Duration = Duration::from_secs(5);
/// A runner without a sign for this long is dead: it shows one every ten seconds, during a long statement too.
const RUNNER_DEAD: Duration = Duration::from_secs(60);

/// What came of a look.
pub enum Looked {
    /// Look again after this: something is still moving.
    Moving(Duration),
    /// All is in; the schema may have to be looked at after this.
    Settled(Option<Duration>),
}

/// History, rights, drift and figures.
pub async fn look(
    worker: &mut PostgresWorker,
    duty: &PostgresDuty,
    fingerprint: u64,
    facts: &mut PostgresFacts,
) -> Result<Looked, SqlError> {
    let mut owner = connect(&duty.owner_login, duty.database.as_str()).await?;
    let migrations = migrations(&mut owner, duty.back_to).await?;
    let moved = facts.migrations.as_ref() != Some(&migrations);
    facts.deposit = deposited(&mut owner, duty, facts.deposit.take()).await?;
    estimate(&mut owner, duty, facts).await?;
    let latest = migrations.state.as_ref().map_or(0, |state| state.highest_history_id);
    let applied = migrations.state.as_ref().map_or(0, |state| state.applied.len());
    let running = migrations.state.as_ref().is_some_and(is_running);
    facts.migrations = Some(migrations);
    let wanted = Some((fingerprint, latest, applied));
    if worker.rights_for != wanted {
        if running {
            return Ok(Looked::Moving(WHILE_RUNNING));
        }
        if !grant(&mut owner, duty).await? {
            return Ok(Looked::Moving(SOON));
        }
        facts.rights_at = Some(latest);
        worker.rights_for = wanted;
    }
    if moved || worker.figures_at.is_none_or(|at| at.elapsed() >= FIGURES_AGE) {
        facts.figures = figures(&mut owner).await?;
        worker.figures_at = Some(Instant::now());
    }
    // What a run is about to record is nobody's change by hand.
    let drift = match running {
        true => None,
        false => drift::see(&mut worker.drift, duty, facts, &mut owner).await?,
    };
    owner.close().await?;
    Ok(Looked::Settled(drift))
}

/// Whether a runner is at work. Rights wait for it: a GRANT and an ALTER of one table at the same time end one of the two
/// (`tuple concurrently updated`). One that has not been heard of for long is taken for dead.
fn is_running(state: &history::State) -> bool {
    let Some(run) = state.latest_run.as_ref().filter(|run| run.outcome.is_none()) else {
        return false;
    };
    let silent = Duration::try_from(Timestamp::now().duration_since(run.heartbeat_at));
    silent.unwrap_or_default() < RUNNER_DEAD
}

/// Everything the database says of its migrations, over the owner's own login: whatever the owner could have put there is data to us.
async fn migrations(owner: &mut PgConnection, back_to: Option<i64>) -> Result<MigrationFacts, SqlError> {
    let state = history::read(owner, &SqlName::public(), back_to).await?;
    let ours = state.as_ref().is_some_and(|state| state.latest_run.is_some());
    Ok(MigrationFacts {
        identity: history::identity(owner).await?,
        seeds: if ours {
            seed::recorded(owner).await?
        } else {
            Default::default()
        },
        summary: state.as_ref().map(history::State::summary).unwrap_or_default(),
        state,
        back_to,
    })
}

/// The files that a Job has brought for the source that is asked for. Those that were read stay as they are.
async fn deposited(
    owner: &mut PgConnection,
    duty: &PostgresDuty,
    known: Option<Deposit>,
) -> Result<Option<Deposit>, SqlError> {
    let Some(source) = &duty.deposit else { return Ok(None) };
    if let Some(known) = known
        && known.source == *source
        && known.files.is_some()
    {
        return Ok(Some(known));
    }
    let files = deposit::read(owner, source).await?;
    let files = (!files.is_empty()).then(|| Source::from_files(files).map(Arc::new).map_err(|error| error.problems));
    Ok(Some(Deposit {
        source: source.clone(),
        files,
    }))
}

/// How large the tables of the plan are that waits, asked once for each plan. What the server does not tell is asked with the next look.
async fn estimate(owner: &mut PgConnection, duty: &PostgresDuty, facts: &mut PostgresFacts) -> Result<(), SqlError> {
    let Some(plan) = &duty.waiting_plan else { return Ok(()) };
    if facts.estimates.as_ref().is_some_and(|known| known.hash == plan.hash) {
        return Ok(());
    }
    match estimates(owner, &plan.tables, &Options::default().search_path)
        .await
        .map_err(SqlError::from)
    {
        Err(error) if error.sqlstate.is_some() => tracing::debug!(%error, "the sizes of tables could not be read"),
        tables => {
            facts.estimates = Some(PlanEstimates {
                hash: plan.hash.clone(),
                tables: tables?,
            });
        }
    }
    Ok(())
}

async fn grant(owner: &mut PgConnection, duty: &PostgresDuty) -> Result<bool, SqlError> {
    let granted = rights::read(owner, duty).await?;
    match execute(owner, &rights::statements(&granted, duty)).await {
        // Table, schema or column gone, or its row changed by somebody else meanwhile.
        Err(error) if ["42P01", "3F000", "42703", "XX000"].iter().any(|state| error.is(state)) => Ok(false),
        outcome => outcome.map(|()| true),
    }
}

async fn figures(owner: &mut PgConnection) -> Result<Figures, SqlError> {
    let query = "SELECT json_build_object('size_bytes', pg_database_size(current_database()), \
                 'connections', (SELECT numbackends FROM pg_stat_database WHERE datname = current_database()), \
                 'tables', (SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                 WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_' \
                 AND n.nspname NOT IN ('information_schema', 'amas_migrate', 'amas_operator') \
                 AND c.relname <> '_sqlx_migrations'))::text";
    read(owner, query.to_owned()).await
}
