//! The admin's part: roles, database, extensions, claim, configuration.

use sqlx::{Connection, PgConnection};

use super::PostgresWorker;
use crate::{
    api::names::SqlName,
    stores::{
        endpoint::StoreError,
        postgres::{
            PostgresDuty, PostgresFacts,
            catalog::{self, Catalog, OtherRole},
            clients,
            configure::configure,
            connect::{SqlError, connect, execute},
            duty::ExtensionDuty,
            logins,
            mark::Mark,
            plan::{conflict, missing_extensions, plan, retired},
            provided,
            sentinel::MAINTENANCE_DATABASE,
            sql::ident,
            step::Step,
        },
    },
};

/// The admin's part: roles, database, extensions, claim.
pub async fn settle(
    worker: &mut PostgresWorker,
    duty: &PostgresDuty,
    facts: &mut PostgresFacts,
) -> Result<(), StoreError> {
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
        hold(&mut connection, &have, duty, created, facts).await?;
    }
    configuration(&mut connection, duty, facts).await?;
    connection.close().await.map_err(SqlError::from)?;
    Ok(())
}

/// Brings in what the database lacks of the duty, and says what stays other than it is asked for.
async fn hold(
    connection: &mut PgConnection,
    have: &Catalog,
    duty: &PostgresDuty,
    created: bool,
    facts: &mut PostgresFacts,
) -> Result<(), StoreError> {
    if duty.is_owner_only() {
        provided::hold(have, duty).await?;
    }
    let outcome = apply(connection, have, &plan(have, duty, created)).await;
    let refused = outcome.map_err(|error| explained(error, duty, have))?;
    facts.missing_extensions = missing_extensions(have, duty, &refused.extensions);
    facts.undeclared_extensions.clone_from(&have.undeclared_extensions);
    let stays = |name: &SqlName, mark: &Mark, role: &OtherRole| {
        !mark.created_by_us || role.owns || refused.roles.contains(name)
    };
    facts.retired_roles = retired(have, duty)
        .filter(|(name, mark, role)| stays(name, mark, role))
        .map(|(name, ..)| name.to_string())
        .collect();
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

pub async fn follow_configuration(
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

pub fn is_configured(duty: &PostgresDuty, facts: &PostgresFacts) -> bool {
    let wanted = duty.configuration.as_ref();
    wanted.is_none_or(|wanted| facts.configuration.as_ref().is_some_and(|facts| facts.is_in(wanted)))
}

/// Whether the configuration has to be looked at again: a file is on its way, or a restart may have come.
pub fn is_moving(duty: &PostgresDuty, facts: &PostgresFacts) -> bool {
    let waits = facts
        .configuration
        .as_ref()
        .is_some_and(|facts| !facts.restart.is_empty());
    waits || !is_configured(duty, facts)
}

/// To the database itself if it is known to exist, else to where one can be created from.
pub async fn log_in(exists: bool, duty: &PostgresDuty) -> Result<PgConnection, SqlError> {
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
pub async fn connect_admin(duty: &PostgresDuty, database: &str) -> Result<PgConnection, SqlError> {
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
pub async fn drop_role(connection: &mut PgConnection, name: &SqlName) -> Result<bool, SqlError> {
    let statement = Step::DropRole { name: name.clone() }.statement();
    match execute(connection, &[statement]).await {
        Err(error) if ["2BP01", "42501", "55006"].iter().any(|state| error.is(state)) => Ok(false),
        outcome => outcome.map(|()| true),
    }
}
