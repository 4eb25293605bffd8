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
    let tls = match endpoint.tls {
        Tls::Disable => PgSslMode::Disable,
        Tls::Require => PgSslMode::Require,
    };
    let options = PgConnectOptions::new_without_pgpass()
        .host(&endpoint.host)
        .port(endpoint.port)
        .username(&endpoint.user)
        .password(endpoint.password.reveal())
        .database(database)
        .ssl_mode(tls)
        .application_name(APPLICATION_NAME)
        .options([("search_path", "pg_catalog,pg_temp"), ("statement_timeout", "5000")])
        // Statements carry SCRAM verifiers, which belong in no log of ours.
        .disable_statement_logging();
    Ok(options.connect().await?)
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
