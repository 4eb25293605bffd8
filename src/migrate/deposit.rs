//! The files of a source that only a Job can see (an image's), brought into the database as they are, so that whoever plans can read them.
//! Read over the owner's own login, like everything that the owner could have changed; a Job checks its plan against the real files.

use sqlx::{PgConnection, Row};

use crate::api::names::SqlName;

use super::{
    history,
    record::{self, literal},
    report::Failure,
    session,
    source::Source,
    tables,
};

/// A source's files stay while it is one of the two newest.
pub const TABLE: &str = "
CREATE TABLE IF NOT EXISTS amas_migrate.files (
    source           text NOT NULL,
    name             text NOT NULL,
    content          bytea NOT NULL,
    stored_at        timestamptz NOT NULL DEFAULT pg_catalog.now(),
    PRIMARY KEY (source, name)
);";

/// Stores files under the name of their source, after the same checks that a run makes of them.
pub async fn store(
    conn: &mut PgConnection,
    schema: &SqlName,
    source: &str,
    files: &[(String, Vec<u8>)],
) -> Result<(), Failure> {
    Source::from_files(files.to_vec())?;
    let identity = history::identity(conn).await?;
    let database = history::database(&identity).to_owned();
    session::lock(conn, &database, std::time::Duration::from_secs(60), &mut |_| {}).await?;
    tables::ensure(conn, schema).await?;
    let rows: Vec<String> = files
        .iter()
        .map(|(name, content)| format!("({}, {}, {})", literal(source), literal(name), bytes(content)))
        .collect();
    let sql = format!(
        "DELETE FROM amas_migrate.files WHERE source = {source} OR source NOT IN \
         (SELECT f.source FROM amas_migrate.files f GROUP BY f.source ORDER BY max(f.stored_at) DESC LIMIT 1); \
         INSERT INTO amas_migrate.files (source, name, content) VALUES {rows}",
        source = literal(source),
        rows = rows.join(", ")
    );
    let stored = session::send(conn, &record::told(&[sql])).await;
    if stored.is_err() {
        let _ = session::send(conn, "ROLLBACK").await;
    }
    session::unlock(conn, &database).await?;
    stored.map_err(|failed| failed.error.into())
}

fn bytes(content: &[u8]) -> String {
    format!("pg_catalog.decode('{}', 'hex')", hex::encode(content))
}

/// The files of a source; none: they were not stored.
pub async fn read(conn: &mut PgConnection, source: &str) -> Result<Vec<(String, Vec<u8>)>, sqlx::Error> {
    let there = session::ask(conn, "SELECT pg_catalog.to_regclass('amas_migrate.files') IS NOT NULL").await?;
    if !there.first().is_some_and(|row| row.try_get(0).unwrap_or(false)) {
        return Ok(Vec::new());
    }
    let sql = format!(
        "SELECT f.name, f.content FROM amas_migrate.files f WHERE f.source = {} ORDER BY f.name",
        literal(source)
    );
    let rows = session::ask(conn, &sql).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}
