//! Whether the schema is still as the last run left it.
//!
//! At the end of a run every object's definition, in the server's own words, is written into `amas_migrate.objects`, and one
//! line about the whole into `amas_migrate.fingerprints`. [`look`] compares them with what is there now; both happen in the
//! server, and only differences travel. [`signal`] is a cheap hint that a look is due. Data, statistics, comments, partitions,
//! temporary objects, what belongs to an extension, the migrations' own tables, and grants to roles that an operator
//! manages (their comment says so) are no part of it.

use std::fmt;

use jiff::Timestamp;
use serde::Serialize;
use sqlx::{PgConnection, Row, postgres::PgRow};

use crate::api::names::SqlName;

use super::{history::CHANNEL, record::literal, session};

pub mod correct;
mod line;

/// The tables; `drift` has what a run found changed when it began, so that it does not pass for the run's own work.
pub const TABLES: &str = "
CREATE TABLE IF NOT EXISTS amas_migrate.fingerprints (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    version          bigint NOT NULL,
    applied          text NOT NULL,
    server           integer NOT NULL,
    digest           text NOT NULL,
    objects          integer NOT NULL,
    recorded_at      timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    recorded_by      text NOT NULL DEFAULT session_user
);
CREATE TABLE IF NOT EXISTS amas_migrate.objects (
    kind             text NOT NULL,
    name             text NOT NULL,
    parent           text NOT NULL,
    definition       text NOT NULL
);
CREATE TABLE IF NOT EXISTS amas_migrate.drift (
    kind             text NOT NULL,
    name             text NOT NULL,
    parent           text NOT NULL,
    recorded         text,
    present          text
);";

const OBJECTS: &str = include_str!("drift/objects.sql");

/// Everything that definitions are printed by; compiling such a query takes longer than running it; and nobody waits long for us, nor we for anybody.
const SETTINGS: &str = "SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL timezone = 'UTC'; SET LOCAL datestyle = 'ISO, MDY'; \
     SET LOCAL intervalstyle = 'postgres'; SET LOCAL extra_float_digits = 1; SET LOCAL bytea_output = 'hex'; \
     SET LOCAL quote_all_identifiers = off; SET LOCAL jit = off; SET LOCAL lock_timeout = '1s'";

/// Differences that are read; more are counted.
const SHOWN: usize = 200;

/// One object that is not as it was recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// `table`, `column`, `index`, `grant` ...
    pub kind: String,
    pub name: String,
    /// Its definition when it was recorded; None: it was not there.
    pub recorded: Option<String>,
    /// Its definition now; None: it is gone.
    pub present: Option<String>,
}

/// What is known of the schema.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Drift {
    /// The version whose schema was recorded.
    pub version: i64,
    pub recorded_at: Option<Timestamp>,
    /// SHA-256 over the recorded objects.
    pub fingerprint: String,
    /// Why nothing can be compared; None when it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown: Option<&'static str>,
    /// How many objects differ; what belongs to a table that came or went is not counted.
    pub total: usize,
    /// The first of them.
    pub differences: Vec<Difference>,
}

/// What is applied, as one digest: the same that tells [`history::settled`](super::history::settled) about the files.
fn applied(schema: &SqlName) -> String {
    format!(
        "(SELECT coalesce(encode(sha256(string_agg(int8send(m.version) || m.checksum, ''::bytea ORDER BY m.version)), 'hex'), '') \
         FROM \"{schema}\"._sqlx_migrations m)"
    )
}

/// Whether `f` describes this server and what is applied, and no run is under way.
fn is_current(schema: &SqlName) -> String {
    format!(
        "f.applied = {} AND f.server = current_setting('server_version_num')::int / 10000 \
         AND NOT EXISTS (SELECT FROM amas_migrate.runs WHERE finished_at IS NULL)",
        applied(schema)
    )
}

/// The last record.
pub(super) const LATEST: &str = "(SELECT * FROM amas_migrate.fingerprints ORDER BY id DESC LIMIT 1)";

/// Both sides, and where they differ.
fn different() -> String {
    format!(
        "WITH present AS MATERIALIZED ({OBJECTS}), different AS MATERIALIZED ( \
         SELECT coalesce(o.kind, p.kind) AS kind, coalesce(o.name, p.name) AS name, coalesce(o.parent, p.parent) AS parent, \
         o.definition AS recorded, p.definition AS present \
         FROM amas_migrate.objects o FULL JOIN present p ON p.kind = o.kind AND p.name = o.name \
         WHERE o.definition IS DISTINCT FROM p.definition)"
    )
}

/// Keeps in mind what somebody has changed, before a run begins: it stays a difference after it, unless the run changes it.
/// Where that is not known (a run died, sqlx was at work), what was found before stays.
pub(super) async fn note(conn: &mut PgConnection, schema: &SqlName) -> Result<(), sqlx::Error> {
    let known = format!("EXISTS (SELECT FROM {LATEST} f WHERE {})", is_current(schema));
    let sql = format!(
        "BEGIN; {SETTINGS}; DELETE FROM amas_migrate.drift WHERE {known}; \
         INSERT INTO amas_migrate.drift (kind, name, parent, recorded, present) {} \
         SELECT kind, name, parent, recorded, present FROM different WHERE {known}; COMMIT",
        different()
    );
    whole(conn, &sql).await.map(drop)
}

/// Records the schema as it is, but for what [`note`] found and the run has left alone.
pub(super) async fn record(conn: &mut PgConnection, schema: &SqlName) -> Result<(), sqlx::Error> {
    // The record of the run's end is what waits for the disk.
    let sql = recording(schema, "SET LOCAL synchronous_commit = off", "SELECT 1");
    whole(conn, &sql).await.map(drop)
}

/// Whether the record is of what is applied now.
pub(super) async fn is_recorded(conn: &mut PgConnection, schema: &SqlName) -> Result<bool, sqlx::Error> {
    let sql = format!(
        "BEGIN READ ONLY; {SETTINGS}; SELECT EXISTS (SELECT FROM {LATEST} f WHERE {}); COMMIT",
        is_current(schema)
    );
    let rows = whole(conn, &sql).await?;
    rows.first().map_or(Ok(false), |row| row.try_get(0))
}

/// Records the schema as it is, whatever has been changed.
pub async fn accept(conn: &mut PgConnection, schema: &SqlName) -> Result<(), sqlx::Error> {
    let tell = format!("SELECT pg_notify('{CHANNEL}', '0')");
    let sql = recording(schema, "DELETE FROM amas_migrate.drift", &tell);
    whole(conn, &sql).await.map(drop)
}

/// Records these extensions as they are: whoever is to see to them has made or updated them.
pub async fn take_up_extensions(conn: &mut PgConnection, names: &[String]) -> Result<(), sqlx::Error> {
    if names.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = names.iter().map(|name| literal(name)).collect();
    let names = names.join(", ");
    let sql = format!(
        "BEGIN; {SETTINGS}; DELETE FROM amas_migrate.objects WHERE kind = 'extension' AND name IN ({names}); \
         INSERT INTO amas_migrate.objects (kind, name, parent, definition) SELECT o.kind, o.name, o.parent, o.definition \
         FROM ({OBJECTS}) o WHERE o.kind = 'extension' AND o.name IN ({names}); \
         UPDATE amas_migrate.fingerprints f SET (digest, objects) = ({DIGEST}) WHERE f.id = (SELECT max(id) FROM amas_migrate.fingerprints); COMMIT"
    );
    whole(conn, &sql).await.map(drop)
}

/// Over what is recorded: the digest, and how many objects.
const DIGEST: &str = "SELECT coalesce(encode(sha256(string_agg(sha256(convert_to(o.kind || E'\\n' || o.name || E'\\n' || o.definition, 'UTF8')), \
     ''::bytea ORDER BY o.kind COLLATE \"C\", o.name COLLATE \"C\")), 'hex'), ''), count(*)::integer FROM amas_migrate.objects o";

/// What `d` is part of is there, or was gone by hand too: with a table that the run has dropped goes what was missing of it.
const ITS_WHOLE: &str = "(d.parent = '' OR EXISTS (SELECT FROM present q WHERE q.parent = '' AND q.name = d.parent) \
     OR EXISTS (SELECT FROM amas_migrate.drift w WHERE w.parent = '' AND w.name = d.parent AND w.present IS NULL))";

fn recording(schema: &SqlName, before: &str, after: &str) -> String {
    format!(
        "BEGIN; {SETTINGS}; {before}; \
         WITH present AS MATERIALIZED ({OBJECTS}), right_ones AS MATERIALIZED ( \
         SELECT p.kind, p.name, p.parent, p.definition FROM present p \
         LEFT JOIN amas_migrate.drift d ON d.kind = p.kind AND d.name = p.name \
         WHERE d.kind IS NULL OR d.present IS DISTINCT FROM p.definition \
         UNION ALL SELECT d.kind, d.name, d.parent, d.recorded FROM amas_migrate.drift d \
         LEFT JOIN present p ON p.kind = d.kind AND p.name = d.name \
         WHERE d.recorded IS NOT NULL AND d.present IS NOT DISTINCT FROM p.definition AND {ITS_WHOLE}), \
         gone AS (DELETE FROM amas_migrate.objects o WHERE NOT EXISTS (SELECT FROM right_ones r \
         WHERE r.kind = o.kind AND r.name = o.name AND r.definition = o.definition AND r.parent = o.parent)) \
         INSERT INTO amas_migrate.objects (kind, name, parent, definition) SELECT r.kind, r.name, r.parent, r.definition \
         FROM right_ones r WHERE NOT EXISTS (SELECT FROM amas_migrate.objects o \
         WHERE r.kind = o.kind AND r.name = o.name AND r.definition = o.definition AND r.parent = o.parent); \
         DELETE FROM amas_migrate.drift; \
         INSERT INTO amas_migrate.fingerprints (version, applied, server, digest, objects) \
         SELECT coalesce((SELECT max(m.version) FROM \"{schema}\"._sqlx_migrations m), 0), {applied}, \
         current_setting('server_version_num')::int / 10000, d.digest, d.objects FROM ({DIGEST}) d (digest, objects); {after}; COMMIT",
        applied = applied(schema)
    )
}

/// What differs from the record; None: nothing was ever recorded. Leaves the session as it was.
pub async fn look(conn: &mut PgConnection, schema: &SqlName) -> Result<Option<Drift>, sqlx::Error> {
    let there = format!(
        "SELECT pg_catalog.to_regclass('amas_migrate.fingerprints') IS NOT NULL \
         AND pg_catalog.to_regclass({}) IS NOT NULL",
        literal(&format!("\"{schema}\"._sqlx_migrations"))
    );
    let rows = session::ask(conn, &there).await?;
    if !rows.first().is_some_and(|row| row.try_get(0).unwrap_or(false)) {
        return Ok(None);
    }
    let about = format!(
        "BEGIN READ ONLY; {SETTINGS}; SELECT f.version, f.digest, (EXTRACT(epoch FROM f.recorded_at) * 1000000)::int8, \
         {current}, f.server = current_setting('server_version_num')::int / 10000, \
         f.applied = {applied} FROM {LATEST} f; COMMIT",
        current = is_current(schema),
        applied = applied(schema),
    );
    let rows = whole(conn, &about).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let mut drift = about_it(row)?;
    if drift.unknown.is_some() {
        return Ok(Some(drift));
    }
    let rows = whole(conn, &differences()).await?;
    drift.total = rows.first().map_or(Ok(0), |row| row.try_get::<i64, _>("total"))? as usize;
    drift.differences = rows.iter().map(difference).collect::<Result<_, _>>()?;
    Ok(Some(drift))
}

fn about_it(row: &PgRow) -> Result<Drift, sqlx::Error> {
    let (current, server, applied): (bool, bool, bool) = (row.try_get(3)?, row.try_get(4)?, row.try_get(5)?);
    Ok(Drift {
        version: row.try_get(0)?,
        fingerprint: row.try_get(1)?,
        recorded_at: Timestamp::from_microsecond(row.try_get(2)?).ok(),
        unknown: match (current, server, applied) {
            (true, ..) => None,
            (_, false, _) => Some("the schema was recorded by another major version of the server"),
            (_, _, false) => Some("migrations were applied or taken back since the schema was recorded"),
            _ => Some("a run is under way, or died"),
        },
        ..Drift::default()
    })
}

/// What came or went with its table is left out.
fn differences() -> String {
    format!(
        "BEGIN READ ONLY; {SETTINGS}; {} \
         SELECT kind, name, left(recorded, 100000) AS recorded, left(present, 100000) AS present, count(*) OVER () AS total \
         FROM different d WHERE NOT EXISTS (SELECT FROM different w WHERE w.parent = '' AND w.name = d.parent \
         AND (w.recorded IS NULL) <> (w.present IS NULL) \
         AND (w.recorded IS NULL) = (d.recorded IS NULL) AND (w.present IS NULL) = (d.present IS NULL)) \
         ORDER BY kind COLLATE \"C\", name COLLATE \"C\" LIMIT {SHOWN}; COMMIT",
        different()
    )
}

fn difference(row: &PgRow) -> Result<Difference, sqlx::Error> {
    Ok(Difference {
        kind: row.try_get("kind")?,
        name: row.try_get("name")?,
        recorded: row.try_get("recorded")?,
        present: row.try_get("present")?,
    })
}

/// A transaction as one message; after an error it is not left open.
async fn whole(conn: &mut PgConnection, sql: &str) -> Result<Vec<PgRow>, sqlx::Error> {
    let answer = session::ask(conn, sql).await;
    if answer.is_err() {
        let _ = session::ask(conn, "ROLLBACK").await;
    }
    answer
}

/// One row of one text that moves when anything in the catalogs has been written: the server's own counts of rows. Costs less
/// than a millisecond whatever the size of the schema; other things (a temporary table) move it too. The text is empty
/// where the server does not count, so that nothing can be told. They arrive up to ten seconds late.
pub const SIGNAL: &str = "SELECT CASE WHEN current_setting('track_counts')::bool THEN \
     string_agg(concat_ws('/', pg_stat_get_tuples_inserted(c), pg_stat_get_tuples_updated(c), pg_stat_get_tuples_deleted(c)), ' ') \
     ELSE '' END FROM unnest(ARRAY['pg_class', 'pg_attribute', 'pg_attrdef', 'pg_constraint', 'pg_index', 'pg_inherits', 'pg_proc', 'pg_aggregate', \
     'pg_type', 'pg_enum', 'pg_range', 'pg_trigger', 'pg_rewrite', 'pg_policy', 'pg_sequence', 'pg_namespace', 'pg_extension', \
     'pg_default_acl']::regclass[]) c";

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&line::line(self))
    }
}
