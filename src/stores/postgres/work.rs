//! One slice of work: the admin's part when it is due, then history, rights and figures over the owner's own login.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use sqlx::{Connection, PgConnection};

use super::{
    PostgresDuty, PostgresFacts,
    catalog::{self, Catalog, OtherRole},
    certificate, clients,
    configure::configure,
    connect::{SqlError, connect, execute, read},
    drift,
    duty::{Deposit, ExtensionDuty, Figures, MigrationFacts, PlanEstimates},
    logins,
    mark::Mark,
    plan::{conflict, missing_extensions, plan, retired},
    provided, rights,
    sentinel::MAINTENANCE_DATABASE,
    sql::ident,
    step::Step,
};
use crate::{
    api::names::SqlName,
    migrate::{
        deposit, history,
        plan::{Options, estimates},
        seed,
        source::Source,
    },
    stores::{
        endpoint::{StoreError, refusal},
        keeper::Progress,
    },
};

/// The whole database is looked at again this often, for what was changed by hand.
const FULL_LOOK: Duration = Duration::from_secs(600);
/// How often somebody else's claim is looked at again: it may have been released; and a database that is gone: it may be back.
const CONFLICT_LOOK: Duration = Duration::from_secs(30);
const FIGURES_AGE: Duration = Duration::from_secs(60);
/// After statements met objects that changed under them.
const SOON: Duration = Duration::from_millis(500);
/// While a runner is at work; its end is announced, so this only matters when it dies.
const WHILE_RUNNING: Duration = Duration::from_secs(5);
/// Between two looks for a changed configuration file, which its node brings.
const FILE_ARRIVES: Duration = Duration::from_secs(1);
/// The same for a renewed certificate, which is not urgent.
pub const CERTIFICATE_ARRIVES: Duration = Duration::from_secs(10);
/// A runner without a sign for this long is dead: it shows one every ten seconds, during a long statement too.
const RUNNER_DEAD: Duration = Duration::from_secs(60);

/// What is remembered between slices; no connection.
#[derive(Debug, Default)]
pub struct PostgresWorker {
    /// The duty whose admin part is in, and when that was last seen.
    settled: Option<(u64, Instant)>,
    /// The duty, the latest history and the number of applied migrations for which the rights are in.
    rights_for: Option<(u64, i64, usize)>,
    /// The database has been seen: log in to it directly.
    exists: bool,
    figures_at: Option<Instant>,
    drift: drift::Watched,
    /// The certificate that the server was last seen to show.
    pub(super) shown: Option<String>,
}

/// One slice; see the file's head.
pub async fn slice(
    worker: &mut PostgresWorker,
    duty: &PostgresDuty,
    facts: &mut PostgresFacts,
) -> Result<Progress, StoreError> {
    let fingerprint = duty.fingerprint();
    if facts.duty_in != Some(fingerprint) {
        facts.duty_in = None;
    }
    let outcome = towards(worker, duty, fingerprint, facts).await;
    facts.error = refusal(&outcome, facts.error.take());
    outcome
}

async fn towards(
    worker: &mut PostgresWorker,
    duty: &PostgresDuty,
    fingerprint: u64,
    facts: &mut PostgresFacts,
) -> Result<Progress, StoreError> {
    let asked = duty.take_over.is_some() && facts.take_over_seen != duty.take_over;
    let settled = !asked
        && worker
            .settled
            .is_some_and(|(seen, at)| seen == fingerprint && at.elapsed() < FULL_LOOK);
    if !settled {
        worker.settled = None;
        worker.rights_for = None;
        settle(worker, duty, facts).await?;
        facts.take_over_seen.clone_from(&duty.take_over);
        if facts.conflict.is_some() || facts.database_missing {
            return Ok(Progress::Done {
                again_in: Some(CONFLICT_LOOK),
            });
        }
        if !facts.unsure.is_empty() {
            return Ok(Progress::Done {
                again_in: Some(FULL_LOOK),
            });
        }
        worker.settled = Some((fingerprint, Instant::now()));
    } else if is_moving(duty, facts) {
        follow_configuration(worker, duty, facts).await?;
    }
    let drift = match look(worker, duty, fingerprint, facts).await {
        Ok(Looked::Settled(drift)) => drift,
        Ok(Looked::Moving(pause)) => return Ok(Progress::More { pause }),
        // No such database: somebody has dropped it since it was seen.
        Err(error) if settled && error.is("3D000") => {
            (worker.settled, worker.exists) = (None, false);
            return Ok(Progress::More { pause: Duration::ZERO });
        }
        Err(error) => return Err(error.into()),
    };
    if !is_configured(duty, facts) {
        return Ok(Progress::More { pause: FILE_ARRIVES });
    }
    facts.duty_in = Some(fingerprint);
    let again = match certificate::hold(worker, duty).await? {
        true => FULL_LOOK,
        false => CERTIFICATE_ARRIVES,
    };
    let again = drift.map_or(again, |drift| drift.min(again));
    Ok(Progress::Done { again_in: Some(again) })
}

/// The admin's part: roles, database, extensions, claim.
async fn settle(worker: &mut PostgresWorker, duty: &PostgresDuty, facts: &mut PostgresFacts) -> Result<(), StoreError> {
    let mut connection = log_in(worker.exists, duty).await?;
    let in_front = match &duty.clients {
        Some(clients) => clients::check(&mut connection, clients, duty).await?,
        None => None,
    };
    let mut have = catalog::read(&mut connection, duty, false).await?;
    facts.max_connections = Some(have.max_connections);
    facts.limits = Some(have.limits(duty).into_iter().chain(in_front).collect());
    let created = have.database_owner.is_none();
    facts.database_missing = created && duty.kept;
    if facts.database_missing {
        (worker.exists, facts.duty_in) = (false, None);
        return Ok(());
    }
    if created {
        facts.conflict = conflict(&have, duty);
        if facts.conflict.is_some() {
            return Ok(());
        }
        let outcome = apply(&mut connection, &have, &plan(&have, duty, false)).await;
        outcome.map_err(|error| explained(error, duty, &have))?;
    }
    if have.here != duty.database.as_str() {
        connection.close().await.map_err(SqlError::from)?;
        connection = connect_admin(duty, duty.database.as_str()).await?;
        have = catalog::read(&mut connection, duty, created).await?;
    }
    worker.exists = true;
    facts.conflict = conflict(&have, duty);
    facts.unsure = if duty.sure || facts.conflict.is_some() {
        Vec::new()
    } else {
        logins::unsure(&have, duty)
    };
    if !facts.unsure.is_empty() {
        tracing::info!(roles = ?facts.unsure, "the server has other passwords: waiting for the Secrets to be read again");
    } else if facts.conflict.is_none() {
        if duty.is_owner_only() {
            provided::hold(&have, duty).await?;
        }
        let outcome = apply(&mut connection, &have, &plan(&have, duty, created)).await;
        let refused = outcome.map_err(|error| explained(error, duty, &have))?;
        facts.missing_extensions = missing_extensions(&have, duty, &refused.extensions);
        facts.undeclared_extensions.clone_from(&have.undeclared_extensions);
        let stays = |name: &SqlName, mark: &Mark, role: &OtherRole| {
            !mark.created_by_us || role.owns || refused.roles.contains(name)
        };
        facts.retired_roles = retired(&have, duty)
            .filter(|(name, mark, role)| stays(name, mark, role))
            .map(|(name, ..)| name.to_string())
            .collect();
    }
    configuration(&mut connection, duty, facts).await?;
    connection.close().await.map_err(SqlError::from)?;
    Ok(())
}

/// What to do where the login may not do what is asked of it.
fn explained(error: SqlError, duty: &PostgresDuty, have: &Catalog) -> SqlError {
    let (database, owner) = (ident(duty.database.as_str()), ident(duty.owner.as_str()));
    if error.is("25006") {
        let text = format!("{error}: the server is a standby or set to be read only; give the address of the primary");
        return error.saying(text);
    }
    if !error.is("42501") {
        return error;
    }
    let role = duty.roles.iter().map(|role| &role.name).chain([&duty.owner]);
    let absent = role
        .filter(|role| !have.roles.contains_key(role.as_str()))
        .map(|role| ident(role.as_str()));
    let text = match absent.collect::<Vec<_>>() {
        absent if !absent.is_empty() && !have.marks_roles => format!(
            "there is no role {} and this login may not create one; as an administrator run: ALTER ROLE {} CREATEROLE; or use external.privileges: Owner without roles",
            absent.join(", "),
            ident(&have.me)
        ),
        _ if have.database_owner.is_none() && !have.creates_databases => format!(
            "there is no database {database} and this login may not create one; as an administrator run: CREATE DATABASE {database} OWNER {owner};"
        ),
        _ => return error,
    };
    error.saying(text)
}

async fn follow_configuration(
    worker: &PostgresWorker,
    duty: &PostgresDuty,
    facts: &mut PostgresFacts,
) -> Result<(), SqlError> {
    let mut connection = log_in(worker.exists, duty).await?;
    configuration(&mut connection, duty, facts).await?;
    connection.close().await?;
    Ok(())
}

async fn configuration(
    connection: &mut PgConnection,
    duty: &PostgresDuty,
    facts: &mut PostgresFacts,
) -> Result<(), SqlError> {
    facts.configuration = match &duty.configuration {
        Some(wanted) => Some(configure(connection, wanted, facts.configuration.as_ref()).await?),
        None => None,
    };
    Ok(())
}

fn is_configured(duty: &PostgresDuty, facts: &PostgresFacts) -> bool {
    let wanted = duty.configuration.as_ref();
    wanted.is_none_or(|wanted| facts.configuration.as_ref().is_some_and(|facts| facts.is_in(wanted)))
}

/// Whether the configuration has to be looked at again: a file is on its way, or a restart may have come.
fn is_moving(duty: &PostgresDuty, facts: &PostgresFacts) -> bool {
    let waits = facts
        .configuration
        .as_ref()
        .is_some_and(|facts| !facts.restart.is_empty());
    waits || !is_configured(duty, facts)
}

/// To the database itself if it is known to exist, else to where one can be created from.
pub(super) async fn log_in(exists: bool, duty: &PostgresDuty) -> Result<PgConnection, SqlError> {
    let database = duty.database.as_str();
    let (first, second) = if exists || duty.is_owner_only() {
        (database, MAINTENANCE_DATABASE)
    } else {
        (MAINTENANCE_DATABASE, database)
    };
    match connect_admin(duty, first).await {
        // Unknown database, or no right to connect to it.
        Err(error) if error.is("3D000") || error.is("42501") => connect_admin(duty, second).await,
        outcome => outcome,
    }
}

/// While the admin's password is being replaced, either may be in.
pub(super) async fn connect_admin(duty: &PostgresDuty, database: &str) -> Result<PgConnection, SqlError> {
    match (connect(&duty.admin, database).await, duty.admin_with_next()) {
        (Err(error), Some(next)) if error.is("28P01") => connect(&next, database).await,
        (outcome, _) => outcome,
    }
}

/// What the server did not let us do.
#[derive(Default)]
struct Refused {
    extensions: Vec<ExtensionDuty>,
    /// Roles that could not be dropped.
    roles: Vec<SqlName>,
}

/// Does the steps in as few round trips as they allow.
async fn apply(connection: &mut PgConnection, have: &Catalog, steps: &[Step]) -> Result<Refused, SqlError> {
    let mut refused = Refused::default();
    let mut batch = Vec::new();
    for step in steps {
        match step {
            // Not allowed in a transaction with others.
            Step::CreateDatabase { .. } => {
                execute(connection, &std::mem::take(&mut batch)).await?;
                execute(connection, &[step.statement()]).await?;
            }
            // One that is refused must not take the others along.
            Step::CreateExtension(extension) if !have.superuser => {
                execute(connection, &std::mem::take(&mut batch)).await?;
                match execute(connection, &[step.statement()]).await {
                    Err(error) if error.is("42501") => refused.extensions.push(extension.clone()),
                    outcome => outcome?,
                }
            }
            Step::DropRole { name } => {
                execute(connection, &std::mem::take(&mut batch)).await?;
                if !drop_role(connection, name).await? {
                    refused.roles.push(name.clone());
                }
            }
            _ => batch.push(step.statement()),
        }
    }
    execute(connection, &batch).await?;
    if !steps.is_empty() {
        tracing::info!(database = %have.here, steps = steps.len(), "statements applied");
    }
    Ok(refused)
}

/// False where the server keeps it: it has rights in another database, or it is not ours to drop.
pub(super) async fn drop_role(connection: &mut PgConnection, name: &SqlName) -> Result<bool, SqlError> {
    let statement = Step::DropRole { name: name.clone() }.statement();
    match execute(connection, &[statement]).await {
        Err(error) if ["2BP01", "42501", "55006"].iter().any(|state| error.is(state)) => Ok(false),
        outcome => outcome.map(|()| true),
    }
}

/// What came of a look.
enum Looked {
    /// Look again after this: something is still moving.
    Moving(Duration),
    /// All is in; the schema may have to be looked at after this.
    Settled(Option<Duration>),
}

/// History, rights, drift and figures.
async fn look(
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
