//! Backups of the tables that a migration takes data away from: made by pg_dump before anything runs, recorded in the database, put
//! back by [`restore`].
//!
//! `extent` says which tables, `folder` where the file is and whether it is whole, `tool` runs PostgreSQL's programs. The file is one dump
//! in PostgreSQL's own format: whatever becomes of this program, `pg_restore` reads it.

mod extent;
mod folder;
pub mod restore;
mod script;
mod tool;

use std::{path::PathBuf, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, Row, postgres::PgRow};

use crate::api::names::SqlName;

use super::{
    analysis::TableName,
    record::{literal, or_null},
    report::Failure,
    session::{self, Login},
};

pub(super) use extent::{Extent, OutOfReach, lost};
use folder::Place;
pub(super) use tool::Tool;

/// The table; the file's name is that in the folder, wherever that is mounted.
pub const TABLE: &str = "
CREATE TABLE IF NOT EXISTS amas_migrate.backups (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id           bigint,
    file             text NOT NULL,
    entries          jsonb NOT NULL,
    bytes            bigint NOT NULL,
    sha256           text NOT NULL,
    made_by          text NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    restored_at      timestamptz
);";

/// Before which migrations a backup is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Before {
    /// Those that lose data: of the tables that lose something.
    #[default]
    Destructive,
    /// All: of every table that the login may read.
    Always,
    Never,
}

/// What a run saves first, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub before: Before,
    pub folder: Option<PathBuf>,
}

/// A table or sequence in a backup; names are quoted, and have their schema.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub name: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sequence: bool,
    /// The table that it is part of: whose column a sequence numbers, or (not known of every backup) whose partition a table is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<String>,
}

impl Entry {
    /// The name as people write it: `s.a"b` for `"s"."a""b"`.
    pub fn plain(&self) -> String {
        plain(&self.name)
    }
}

/// A quoted name without its quotes.
pub fn plain(name: &str) -> String {
    let inner = name
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .unwrap_or(name);
    inner.replace("\".\"", ".").replace("\"\"", "\"")
}

/// A backup as it is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Backup {
    pub id: i64,
    pub at: Timestamp,
    /// The run that it was made for: its Job's name, or `shell`, its direction and versions. None: not known any more.
    pub attempt: Option<String>,
    pub direction: Option<String>,
    pub from: Option<i64>,
    pub to: Option<i64>,
    pub file: String,
    pub entries: Vec<Entry>,
    pub bytes: i64,
    pub sha256: String,
    /// The program that made it.
    pub made_by: String,
    pub restored_at: Option<Timestamp>,
}

impl Backup {
    /// The tables in it, quoted.
    pub fn tables(&self) -> impl Iterator<Item = &str> {
        let tables = self.entries.iter().filter(|entry| !entry.sequence);
        tables.map(|entry| entry.name.as_str())
    }
}

/// The tables and sequences of an extent that are there.
pub(super) async fn entries(conn: &mut PgConnection, schema: &SqlName, extent: &Extent) -> Result<Vec<Entry>, Failure> {
    let mut entries = extent::entries(conn, schema, extent).await?;
    let names: Vec<String> = entries.iter().map(|entry| literal(&entry.name)).collect();
    let sql = format!(
        "SELECT f, n.nspname::text, p.relname::text FROM pg_catalog.unnest(ARRAY[{}]::pg_catalog.text[]) f \
         JOIN pg_catalog.pg_class c ON c.oid = pg_catalog.to_regclass(f)::pg_catalog.oid AND c.relispartition \
         JOIN pg_catalog.pg_inherits i ON i.inhrelid = c.oid JOIN pg_catalog.pg_class p ON p.oid = i.inhparent \
         JOIN pg_catalog.pg_namespace n ON n.oid = p.relnamespace",
        names.join(", ")
    );
    for row in session::ask(conn, &sql).await? {
        let (part, schema, name): (String, String, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        if let Some(entry) = entries.iter_mut().find(|entry| entry.name == part) {
            let whole = TableName {
                schema: Some(schema),
                name,
            };
            entry.of = Some(whole.to_string());
        }
    }
    Ok(entries)
}

/// A dump that was made and is on disk, not recorded yet.
#[derive(Debug)]
pub(super) struct Made {
    pub file: String,
    pub bytes: u64,
    sha256: String,
    made_by: String,
}

/// What is dumped, from where, to where.
pub(super) struct Task<'a> {
    pub login: &'a Login,
    pub entries: &'a [Entry],
    pub folder: PathBuf,
    /// `<system identifier>/<database>`.
    pub identity: &'a str,
    /// Of the server.
    pub major: u32,
    /// How long to wait for a table that somebody has locked.
    pub lock_timeout: Duration,
}

/// A dump under way: dropping it ends the program and leaves no file behind.
pub(super) struct Dump<'a> {
    task: Task<'a>,
    place: Place,
}

impl<'a> Dump<'a> {
    /// Looks whether it can be made: the folder can be written, the program is there and new enough.
    pub async fn prepare(task: Task<'a>) -> Result<(Self, Tool), Failure> {
        let found = tool::find("pg_dump").await.map_err(Failure::NotBackedUp)?;
        found.check(task.major).map_err(Failure::NotBackedUp)?;
        let place = Place::open(&task.folder, task.identity).map_err(Failure::NotBackedUp)?;
        Ok((Self { task, place }, found))
    }

    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        self.place.bytes()
    }

    pub async fn make(&self, tool: &Tool) -> Result<Made, Failure> {
        let arguments = self.arguments();
        tool.run(self.task.login.options(), &arguments)
            .await
            .map_err(|problem| match problem {
                tool::Problem::Interrupted => Failure::Interrupted,
                tool::Problem::Failed(words) => Failure::NotBackedUp(format!("{}: {words}", tool.version)),
            })?;
        let (bytes, sha256) = self.place.finish().await.map_err(Failure::NotBackedUp)?;
        Ok(Made {
            file: self.place.file_name(),
            bytes,
            sha256,
            made_by: tool.version.clone(),
        })
    }

    fn arguments(&self) -> Vec<String> {
        let wait = self.task.lock_timeout.as_millis().max(1);
        let mut all: Vec<String> = [
            "--format=custom",
            "--encoding=UTF8",
            "--quote-all-identifiers",
            "--strict-names",
            "--no-password",
        ]
        .map(Into::into)
        .into();
        all.push(format!("--lock-wait-timeout={wait}ms"));
        all.push(format!("--file={}", self.place.partial().display()));
        // in double quotes nothing of a name is a pattern
        all.extend(self.task.entries.iter().map(|entry| format!("--table={}", entry.name)));
        all
    }
}

/// Records a dump for a run; one row with its id.
pub(super) fn record(run: Option<i64>, made: &Made, entries: &[Entry]) -> String {
    format!(
        "INSERT INTO amas_migrate.backups (run_id, file, entries, bytes, sha256, made_by) \
         VALUES ({}, {}, {}, {}, {}, {}) RETURNING id",
        or_null(run, |run| run.to_string()),
        literal(&made.file),
        literal(&serde_json::to_string(entries).unwrap_or_default()),
        made.bytes,
        literal(&made.sha256),
        literal(&made.made_by),
    )
}

const LISTED: &str = "SELECT b.id, (EXTRACT(epoch FROM b.created_at) * 1000000)::pg_catalog.int8 AS at, \
     pg_catalog.left(r.attempt, 500) AS attempt, r.direction, r.from_version, r.to_version, b.file, b.entries::text AS entries, b.bytes, b.sha256, \
     pg_catalog.left(b.made_by, 200) AS made_by, (EXTRACT(epoch FROM b.restored_at) * 1000000)::pg_catalog.int8 AS restored_at \
     FROM amas_migrate.backups b LEFT JOIN amas_migrate.runs r ON r.id = b.run_id";

/// What is recorded, newest first.
pub async fn list(conn: &mut PgConnection) -> Result<Vec<Backup>, sqlx::Error> {
    read(conn, "ORDER BY b.id DESC").await
}

/// One of them.
pub async fn get(conn: &mut PgConnection, id: i64) -> Result<Option<Backup>, sqlx::Error> {
    Ok(read(conn, &format!("WHERE b.id = {id}")).await?.pop())
}

async fn read(conn: &mut PgConnection, which: &str) -> Result<Vec<Backup>, sqlx::Error> {
    let there = session::ask(
        conn,
        "SELECT pg_catalog.to_regclass('amas_migrate.backups') IS NOT NULL",
    )
    .await?;
    if !there.first().is_some_and(|row| row.try_get(0).unwrap_or(false)) {
        return Ok(Vec::new());
    }
    let rows = session::ask(conn, &format!("{LISTED} {which}")).await?;
    rows.iter().map(backup).collect()
}

fn backup(row: &PgRow) -> Result<Backup, sqlx::Error> {
    let broken = |error: Box<dyn std::error::Error + Send + Sync>| sqlx::Error::Decode(error);
    let time = |micros: i64| Timestamp::from_microsecond(micros).map_err(|error| broken(error.into()));
    let entries: String = row.try_get("entries")?;
    Ok(Backup {
        id: row.try_get("id")?,
        at: time(row.try_get("at")?)?,
        attempt: row.try_get("attempt")?,
        direction: row.try_get("direction")?,
        from: row.try_get("from_version")?,
        to: row.try_get("to_version")?,
        file: row.try_get("file")?,
        entries: serde_json::from_str(&entries).map_err(|error| broken(error.into()))?,
        bytes: row.try_get("bytes")?,
        sha256: row.try_get("sha256")?,
        made_by: row.try_get("made_by")?,
        restored_at: row.try_get::<Option<i64>, _>("restored_at")?.map(time).transpose()?,
    })
}

/// Whether the file of a backup is in a folder, as far as a look tells: `present`, `missing`, `damaged` (of another size).
pub fn state(backup: &Backup, folder: &std::path::Path) -> &'static str {
    match folder::path(folder, &backup.file).and_then(|path| std::fs::metadata(path).ok()) {
        None => "missing",
        Some(found) if i64::try_from(found.len()) == Ok(backup.bytes) => "present",
        Some(_) => "damaged",
    }
}
