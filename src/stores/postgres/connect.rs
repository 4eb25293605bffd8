//! Connections that work is done on, and which lane an error of the server takes.

use sqlx::{
    ConnectOptions, PgConnection,
    postgres::{PgConnectOptions, PgSslMode},
};

use crate::stores::endpoint::{Endpoint, StoreError, Tls};

/// How the operator's connections show up in `pg_stat_activity`.
pub const APPLICATION_NAME: &str = "amas-operator";
/// Pinned at start-up, where nothing that was set for a role or a database overrides it.
pub const OPTIONS: &str = "-c search_path=pg_catalog,pg_temp -c statement_timeout=5000";
/// The search path of these, as the server tells it.
pub const PINNED_PATH: &str = "pg_catalog,pg_temp";

/// Why a statement or a connection failed, with the SQLSTATE where the server said it.
#[derive(Debug)]
pub struct SqlError {
    pub sqlstate: Option<String>,
    text: String,
}

impl SqlError {
    pub fn is(&self, sqlstate: &str) -> bool {
        self.sqlstate.as_deref() == Some(sqlstate)
    }

    /// The same with words that tell more.
    pub fn saying(self, text: String) -> Self {
        Self { text, ..self }
    }

    /// The class of the SQLSTATE, its first two characters.
    pub fn class(&self) -> Option<&str> {
        self.sqlstate.as_deref()?.get(..2)
    }
}

impl std::fmt::Display for SqlError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<sqlx::Error> for SqlError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            // The server's detail and the statement are left out: they may quote what must not be shown.
            sqlx::Error::Database(error) => Self {
                sqlstate: error.code().map(Into::into),
                text: error.message().to_owned(),
            },
            error => Self {
                sqlstate: None,
                text: error.to_string(),
            },
        }
    }
}

impl From<SqlError> for StoreError {
    fn from(SqlError { sqlstate, text }: SqlError) -> Self {
        lane(sqlstate.as_deref(), text)
    }
}

/// Which lane an error takes: by the SQLSTATE's class; without one the connection failed.
pub fn lane(sqlstate: Option<&str>, text: String) -> StoreError {
    let Some(code) = sqlstate else {
        return StoreError::Unreachable(text);
    };
    match code.get(..2).unwrap_or_default() {
        "28" => StoreError::LoginRefused(text),
        // Connection exception, transaction rollback, insufficient resources, object in use, operator intervention, system error.
        "08" | "40" | "53" | "55" | "57" | "58" => StoreError::Unreachable(format!("{text} ({code})")),
        _ => StoreError::Rejected(format!("{text} ({code})")),
    }
}

/// Logs in to `database`.
pub async fn connect(endpoint: &Endpoint, database: &str) -> Result<PgConnection, SqlError> {
    let options = PgConnectOptions::new_without_pgpass()
        .host(&endpoint.host)
        .port(endpoint.port)
        .username(&endpoint.user)
        .password(endpoint.password.reveal())
        .database(database)
        .application_name(APPLICATION_NAME)
        .options([("search_path", PINNED_PATH), ("statement_timeout", "5000")])
        // Statements carry SCRAM verifiers, which belong in no log of ours.
        .disable_statement_logging();
    Ok(encrypted(options, &endpoint.tls).connect().await?)
}

/// Authorities that are given come on top of the public ones here; the sentinel, which must have got in first, takes them alone.
fn encrypted(mut options: PgConnectOptions, tls: &Tls) -> PgConnectOptions {
    let Tls::Encrypt(trust) = tls else {
        return options.ssl_mode(PgSslMode::Disable);
    };
    options = options.ssl_mode(if trust.verify {
        PgSslMode::VerifyFull
    } else {
        PgSslMode::Require
    });
    if let Some(ca) = trust.ca.as_ref().filter(|_| trust.verify) {
        options = options.ssl_root_cert_from_pem(ca.clone().into_bytes());
    }
    if let Some(client) = &trust.client {
        options = options
            .ssl_client_cert_from_pem(client.certificate.as_bytes())
            .ssl_client_key_from_pem(client.key.reveal().as_bytes());
    }
    options
}

/// Runs statements that return nothing, in one round trip and one transaction.
pub async fn execute(connection: &mut PgConnection, statements: &[String]) -> Result<(), SqlError> {
    if !statements.is_empty() {
        let batch = sqlx::AssertSqlSafe(statements.join(";\n"));
        sqlx::raw_sql(batch).execute(connection).await?;
    }
    Ok(())
}

/// Runs one query that returns one JSON text, and reads it.
pub async fn read<T: serde::de::DeserializeOwned>(connection: &mut PgConnection, query: String) -> Result<T, SqlError> {
    let row = sqlx::raw_sql(sqlx::AssertSqlSafe(query)).fetch_one(connection).await?;
    let text: String = sqlx::Row::try_get(&row, 0)?;
    serde_json::from_str(&text).map_err(|error| SqlError {
        sqlstate: None,
        text: format!("unexpected answer: {error}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes() {
        let lane = |code| lane(code, "x".into());
        assert_eq!(lane(None), StoreError::Unreachable("x".into()));
        assert_eq!(lane(Some("57P03")), StoreError::Unreachable("x (57P03)".into()));
        assert_eq!(lane(Some("53300")), StoreError::Unreachable("x (53300)".into()));
        assert_eq!(lane(Some("28P01")), StoreError::LoginRefused("x".into()));
        assert_eq!(lane(Some("42501")), StoreError::Rejected("x (42501)".into()));
    }
}
