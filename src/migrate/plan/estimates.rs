//! How large the tables are that a plan locks, as the live catalog has it. Shown to people, never in the plan's hash.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::Serialize;
use sqlx::{PgConnection, Row};

use crate::migrate::{record::literal, session};

use super::Planned;

/// Somebody may hold a table whose size is asked, and nobody waits for that.
const PATIENCE: &str = "500ms";
const LOCK_NOT_AVAILABLE: &str = "55P03";

/// What the catalog says of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Estimate {
    /// As of the last ANALYZE; None: it never was.
    pub rows: Option<i64>,
    /// With indexes and TOAST, as of now; None: a table was locked.
    pub bytes: Option<i64>,
}

/// By the table's name as statements and locks have it.
pub type Estimates = BTreeMap<String, Estimate>;

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rows {
            Some(rows) => write!(f, "about {rows} rows, ")?,
            None => f.write_str("rows unknown, ")?,
        }
        match self.bytes {
            Some(bytes) => write!(f, "{} KiB", bytes / 1024),
            None => f.write_str("size unknown"),
        }
    }
}

/// What is known of a table, to be written behind its name.
pub(super) fn noted(known: &Estimates, table: &str) -> String {
    known.get(table).map_or_else(String::new, |one| format!(" ({one})"))
}

/// The tables that statements lock and that are there before them.
pub fn tables(statements: &[Planned]) -> Vec<String> {
    let locks = statements.iter().flat_map(|statement| &statement.locks);
    let names: BTreeSet<&String> = locks.map(|lock| &lock.table).collect();
    names.into_iter().cloned().collect()
}

/// Asks for all of these tables at once. Those that are not there are not in it.
pub async fn estimates(
    conn: &mut PgConnection,
    tables: &[String],
    search_path: &str,
) -> Result<Estimates, sqlx::Error> {
    if tables.is_empty() {
        return Ok(Estimates::new());
    }
    let locked = |error: &sqlx::Error| {
        let code = error.as_database_error().and_then(|error| error.code());
        code.is_some_and(|code| code == LOCK_NOT_AVAILABLE)
    };
    match read(conn, tables, search_path, "pg_catalog.pg_total_relation_size(c.oid)").await {
        Err(error) if locked(&error) => read(conn, tables, search_path, "NULL::pg_catalog.int8").await,
        found => found,
    }
}

/// The settings hold for this one message.
async fn read(
    conn: &mut PgConnection,
    tables: &[String],
    search_path: &str,
    size: &str,
) -> Result<Estimates, sqlx::Error> {
    let names: Vec<String> = tables.iter().map(|name| format!("({})", literal(name))).collect();
    let sql = format!(
        "SELECT pg_catalog.set_config('lock_timeout', '{PATIENCE}', true), pg_catalog.set_config('search_path', {path}, true); \
         SELECT name, CASE WHEN c.reltuples >= 0 THEN c.reltuples::pg_catalog.int8 END, {size} \
         FROM (VALUES {names}) AS asked (name) \
         JOIN pg_catalog.pg_class c ON c.oid = pg_catalog.to_regclass(name)",
        path = literal(search_path),
        names = names.join(", ")
    );
    let rows = session::ask(conn, &sql).await?;
    let one = |row: &sqlx::postgres::PgRow| {
        let (rows, bytes) = (row.try_get(1)?, row.try_get(2)?);
        Ok((row.try_get(0)?, Estimate { rows, bytes }))
    };
    // the first row is that of the settings
    rows.iter().skip(1).map(one).collect()
}
