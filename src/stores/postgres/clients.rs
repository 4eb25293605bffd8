//! Whether the address that applications use leads to the server that the operator works on. A pooler may be in between, so it is asked as
//! an application would ask, without any setting of ours.

use std::time::Duration;

use sqlx::PgConnection;
use tokio::time::timeout;

use super::{
    PostgresDuty,
    connect::read,
    duty::Clients,
    sentinel::MAINTENANCE_DATABASE,
    wire::{Wire, WireError},
};
use crate::stores::{endpoint::StoreError, limits::Limit};

const DEADLINE: Duration = Duration::from_secs(5);
/// Of the cluster, which a standby shares with its primary.
const IDENTITY: &str = "SELECT json_build_array(system_identifier::text, pg_catalog.pg_is_in_recovery())::text \
                        FROM pg_catalog.pg_control_system()";

type Identity = (String, bool);

/// Says what is not as it should be and may be so; an address that leads elsewhere is an error, found before anything is done.
pub async fn check(
    server: &mut PgConnection,
    clients: &Clients,
    duty: &PostgresDuty,
) -> Result<Option<Limit>, StoreError> {
    let (identity, standby): Identity = match read(server, IDENTITY.to_owned()).await {
        Err(error) if error.is("42501") => return Ok(Some(Limit::UriNotChecked)),
        outcome => outcome?,
    };
    let Some((theirs, their_standby)) = timeout(DEADLINE, ask(clients, duty)).await.ok().flatten() else {
        return Ok(Some(Limit::UriNotChecked));
    };
    if identity != theirs {
        return Err(StoreError::Rejected(format!(
            "uri and directUri in the Secret lead to different servers (system identifiers {theirs} and {identity}); \
             both must lead to the same server, uri through a pooler if there is one; nothing is done there until they do"
        )));
    }
    Ok((their_standby && !standby).then_some(Limit::UriReadOnly))
}

/// The database that the address names, else ours, which may not be there yet.
async fn ask(clients: &Clients, duty: &PostgresDuty) -> Option<Identity> {
    let databases = match &clients.database {
        Some(named) => vec![named.as_str()],
        None => vec![duty.database.as_str(), MAINTENANCE_DATABASE],
    };
    for database in databases {
        match identity(clients, database).await {
            Ok(answer) => return serde_json::from_str(answer.first()?).ok(),
            Err(error) => tracing::debug!(database, error = error.text, "the clients' address could not be asked"),
        }
    }
    None
}

async fn identity(clients: &Clients, database: &str) -> Result<Vec<String>, WireError> {
    Wire::visit(&clients.login, database).await?.query(IDENTITY).await
}
