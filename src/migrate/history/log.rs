//! What was done to a database, as `migrate history` and `migrate show` tell it.

use jiff::Timestamp;
use serde::Serialize;
use sqlx::{AssertSqlSafe, PgConnection, Row, postgres::PgRow, raw_sql};

use super::{micros, timestamp};

/// One row of `amas_migrate.history`: something that was done to a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    pub id: i64,
    pub version: i64,
    pub description: String,
    /// `up`, `down`, or `stamp`: recorded without being run.
    pub direction: String,
    pub checksum: String,
    pub at: Timestamp,
    /// The login.
    pub by: String,
    /// The Job's name, or `shell`; None for what no run did.
    pub attempt: Option<String>,
    /// None for what was not run.
    pub took_ms: Option<i64>,
    /// The way back that is stored with it; None unless asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub down_sql: Option<String>,
}

/// What was done to a database, newest first and `limit` at most: all of it, or with a `version` only to that one and with its stored way back.
pub async fn entries(conn: &mut PgConnection, version: Option<i64>, limit: u32) -> Result<Vec<Entry>, sqlx::Error> {
    let there = "SELECT pg_catalog.to_regclass('amas_migrate.history') IS NOT NULL";
    if !raw_sql(there).fetch_one(&mut *conn).await?.try_get::<bool, _>(0)? {
        return Ok(Vec::new());
    }
    let (only, down) = match version {
        Some(version) => (format!("WHERE h.version = {version}"), "h.down_sql"),
        None => (String::new(), "NULL::pg_catalog.text"),
    };
    let sql = format!(
        "SELECT h.id, h.version, pg_catalog.left(h.description, 500) AS description, h.direction, \
         pg_catalog.encode(h.checksum, 'hex') AS checksum, {at} AS at, h.applied_by, \
         pg_catalog.left(r.attempt, 500) AS attempt, h.execution_ms, {down} AS down_sql \
         FROM amas_migrate.history h LEFT JOIN amas_migrate.runs r ON r.id = h.run_id {only} ORDER BY h.id DESC LIMIT {limit}",
        at = micros("h.applied_at"),
    );
    let rows = raw_sql(AssertSqlSafe(sql)).fetch_all(conn).await?;
    rows.iter().map(entry).collect()
}

fn entry(row: &PgRow) -> Result<Entry, sqlx::Error> {
    Ok(Entry {
        id: row.try_get("id")?,
        version: row.try_get("version")?,
        description: row.try_get("description")?,
        direction: row.try_get("direction")?,
        checksum: row.try_get("checksum")?,
        at: timestamp(row.try_get("at")?)?,
        by: row.try_get("applied_by")?,
        attempt: row.try_get("attempt")?,
        took_ms: row.try_get("execution_ms")?,
        down_sql: row.try_get("down_sql")?,
    })
}
