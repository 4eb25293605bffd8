//! What the database says: which versions are applied, and how the last run went. Reads only.
//!
//! The owner of the tables can put anything into them, so this is read over a connection *logged in* as the owner, and
//! every text is cut at a bound by the server.

mod log;

use futures::TryStreamExt;
use jiff::Timestamp;
use serde::Serialize;
use sqlx::{AssertSqlSafe, Either, PgConnection, Row, postgres::PgRow, raw_sql};

use crate::api::names::SqlName;

use super::{
    drift,
    plan::{Direction, Down, StepId},
    progress::{self, Unfinished},
    record::{LAYOUT, literal},
    source::{Checksum, digest},
};

pub use log::{Entry, entries};

/// The channel of `NOTIFY`; the payload is the id of the run that moved. It is a wake-up only.
pub const CHANNEL: &str = "amas_migrate";

/// One row of `_sqlx_migrations`, with the stored way back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    pub version: i64,
    pub description: String,
    pub checksum: Checksum,
    /// False while a file of several parts is unfinished.
    pub success: bool,
    /// How far it came then; None if that was not us.
    pub unfinished: Option<Unfinished>,
    pub applied_at: Timestamp,
    /// The down text stored at up; only read for versions above the target given to [`read`].
    pub down: Option<Down>,
}

/// Everything known of a database's migrations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// In the order of their versions.
    pub applied: Vec<Applied>,
    /// Highest id of `amas_migrate.history`, 0 when it is empty or absent (a database that only sqlx has migrated).
    pub highest_history_id: i64,
    pub latest_run: Option<Run>,
    /// Where the ways up began that have not come to their end, the last up to now: the next is the rest of all of them.
    pub began: Option<i64>,
}

impl State {
    /// The highest applied version, 0 when there is none.
    pub fn current(&self) -> i64 {
        super::plan::current(&self.applied)
    }

    /// See [`Summary`].
    pub fn summary(&self) -> Summary {
        let whole = self.applied.iter().filter(|applied| applied.success).count();
        let rows = self.applied.iter().map(|applied| (applied.version, &applied.checksum));
        Summary {
            current: self.current(),
            whole,
            digest: (whole == self.applied.len()).then(|| digest(rows)),
        }
    }
}

/// What is asked of a history again and again, found once: so that asking costs the same however long it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The highest applied version, 0 when there is none.
    pub current: i64,
    /// How many are applied, to their ends.
    pub whole: usize,
    /// Of what is applied (see [`Source::digest`](super::source::Source::digest)); None where something is half way.
    pub digest: Option<String>,
}

/// One row of `amas_migrate.runs`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    pub id: i64,
    pub plan_hash: Option<String>,
    /// The Job's name, or `shell`.
    pub attempt: String,
    /// `up`, `down` or `seed`.
    pub direction: String,
    pub started_at: Timestamp,
    pub heartbeat_at: Timestamp,
    pub finished_at: Option<Timestamp>,
    /// `succeeded`, `failed` or `interrupted`; None while it runs, or when it died and no later run has said so yet.
    pub outcome: Option<String>,
    pub from_version: i64,
    pub to_version: i64,
    pub current_version: i64,
    pub total: i32,
    pub done: i32,
    pub failed_version: Option<i64>,
    pub sqlstate: Option<String>,
    pub file: Option<String>,
    pub line: Option<i32>,
    /// At most 2,000 characters.
    pub message: Option<String>,
    /// In characters from the start of the file, counting from 1.
    pub error_position: Option<i32>,
    /// In characters from the start of the line, counting from 1.
    pub error_column: Option<i32>,
    /// Who it is waiting for, for a person.
    pub waiting: Option<String>,
}

/// `<system identifier>/<database>`: what a plan's hash is bound to. One round trip.
pub async fn identity(conn: &mut PgConnection) -> Result<String, sqlx::Error> {
    let sql = "SELECT (SELECT system_identifier FROM pg_catalog.pg_control_system())::text, \
               pg_catalog.current_database()::text";
    let row = raw_sql(sql).fetch_one(conn).await?;
    Ok(format!(
        "{}/{}",
        row.try_get::<String, _>(0)?,
        row.try_get::<String, _>(1)?
    ))
}

/// The name in an [`identity`].
pub fn database(identity: &str) -> &str {
    identity.split_once('/').map_or("", |(_, name)| name)
}

/// Reads what is applied and the latest run in at most two round trips; None when neither sqlx's table nor ours exists.
///
/// `schema` is where `_sqlx_migrations` is (usually `public`). With a `target`, the stored down texts of the versions
/// above it are read too, which [`plan`](super::plan::plan) needs for a way down.
pub async fn read(
    conn: &mut PgConnection,
    schema: &SqlName,
    target: Option<i64>,
) -> Result<Option<State>, sqlx::Error> {
    let tables = raw_sql(AssertSqlSafe(format!(
        "SELECT pg_catalog.to_regclass('\"{schema}\"._sqlx_migrations') IS NOT NULL, \
                pg_catalog.to_regclass('amas_migrate.runs') IS NOT NULL, \
                pg_catalog.to_regclass('amas_migrate.progress') IS NOT NULL"
    )))
    .fetch_one(&mut *conn)
    .await?;
    let (sqlx, own, progress): (bool, bool, bool) = (tables.try_get(0)?, tables.try_get(1)?, tables.try_get(2)?);
    if !sqlx && !own {
        return Ok(None);
    }
    let mut sql = Vec::new();
    if sqlx {
        sql.push(applied_query(schema, own.then_some(target).flatten(), progress));
    }
    if own {
        sql.push(RUN_QUERY.to_owned());
    }
    let mut state = State::default();
    for (index, rows) in results(conn, &sql.join(";")).await?.iter().enumerate() {
        match (sqlx && index == 0, rows.first()) {
            (true, _) => state.applied = rows.iter().map(applied_row).collect::<Result<_, _>>()?,
            (false, Some(row)) => {
                state.highest_history_id = row.try_get("highest")?;
                state.latest_run = run_row(row)?;
                state.began = row.try_get("began")?;
            }
            (false, None) => {}
        }
    }
    Ok(Some(state))
}

/// The digest of what is applied (see [`Source::digest`](super::source::Source::digest)), if that is all there is to know: nothing is half way, no
/// run is open, this very schema is recorded, and the tables are of this release. Two round trips of a few bytes.
pub async fn settled(conn: &mut PgConnection, schema: &SqlName) -> Result<Option<String>, sqlx::Error> {
    let there = format!(
        "SELECT pg_catalog.to_regclass('\"{schema}\"._sqlx_migrations') IS NOT NULL AND \
         pg_catalog.obj_description(pg_catalog.to_regnamespace('amas_migrate'), 'pg_namespace') = {}",
        literal(LAYOUT)
    );
    let row = raw_sql(AssertSqlSafe(there)).fetch_one(&mut *conn).await?;
    if row.try_get::<Option<bool>, _>(0)? != Some(true) {
        return Ok(None);
    }
    // before release 16 an ORDER BY of the aggregate's own sorts what the index has in order, which is most of what this costs
    let digest = format!(
        "SELECT a.digest FROM (SELECT pg_catalog.bool_and(m.success) AS whole, pg_catalog.encode(pg_catalog.sha256( \
         pg_catalog.string_agg(pg_catalog.int8send(m.version) || m.checksum, ''::pg_catalog.bytea)), 'hex') AS digest \
         FROM (SELECT success, version, checksum FROM \"{schema}\"._sqlx_migrations ORDER BY version) m) a JOIN {latest} f ON f.applied = a.digest \
         WHERE a.whole AND f.server = pg_catalog.current_setting('server_version_num')::pg_catalog.int4 / 10000 \
         AND NOT EXISTS (SELECT FROM amas_migrate.runs WHERE finished_at IS NULL)",
        latest = drift::LATEST,
    );
    let row = raw_sql(AssertSqlSafe(digest)).fetch_optional(conn).await?;
    row.map(|row| row.try_get(0)).transpose()
}

/// The version at which an attempt found the database when it first set to a plan; None if it never did.
pub(super) async fn began_at(conn: &mut PgConnection, attempt: &str, plan: &str) -> Result<Option<i64>, sqlx::Error> {
    let sql = "SELECT from_version FROM amas_migrate.runs WHERE attempt = $1 AND plan_hash = $2 ORDER BY id LIMIT 1";
    sqlx::query(sql)
        .bind(attempt)
        .bind(plan)
        .fetch_optional(conn)
        .await?
        .map(|row| row.try_get(0))
        .transpose()
}

/// The steps that an attempt has already done of a plan, and that were not taken back since: a Job's second Pod goes on where the first one was killed.
pub(super) async fn done_by(conn: &mut PgConnection, attempt: &str, plan: &str) -> Result<Vec<StepId>, sqlx::Error> {
    let sql = "SELECT h.version, h.checksum, h.down_checksum FROM amas_migrate.history h \
               JOIN amas_migrate.runs r ON r.id = h.run_id \
               WHERE r.attempt = $1 AND r.plan_hash = $2 AND h.direction = r.direction AND NOT EXISTS (SELECT FROM amas_migrate.history l \
               WHERE l.version = h.version AND l.id > h.id) ORDER BY h.id";
    let rows = sqlx::query(sql).bind(attempt).bind(plan).fetch_all(conn).await?;
    let step = |row: &PgRow| {
        let down: Option<Vec<u8>> = row.try_get(2)?;
        let down = down.map(Checksum::from_row);
        Ok(StepId {
            version: row.try_get(0)?,
            checksum: Checksum::from_row(row.try_get(1)?),
            down,
        })
    };
    rows.iter().map(step).collect()
}

/// The rows of each statement of one simple-protocol message.
async fn results(conn: &mut PgConnection, sql: &str) -> Result<Vec<Vec<PgRow>>, sqlx::Error> {
    let mut all = vec![Vec::new()];
    let mut stream = raw_sql(AssertSqlSafe(sql.to_owned())).fetch_many(conn);
    while let Some(item) = stream.try_next().await? {
        match (item, all.last_mut()) {
            (Either::Right(row), Some(rows)) => rows.push(row),
            _ => all.push(Vec::new()),
        }
    }
    Ok(all)
}

fn micros(column: &str) -> String {
    format!("(EXTRACT(epoch FROM {column}) * 1000000)::pg_catalog.int8")
}

fn applied_query(schema: &SqlName, downs_above: Option<i64>, progress: bool) -> String {
    let at = micros("m.installed_on");
    let down = match downs_above {
        None => "NULL::pg_catalog.text".to_owned(),
        // what lies under a `down`, or is of another text, is no way back of what somebody else has applied since
        Some(target) => format!(
            "CASE WHEN m.version > {target} THEN \
             (SELECT l.down_sql FROM (SELECT h.direction, h.checksum, h.down_sql FROM amas_migrate.history h \
              WHERE h.version = m.version ORDER BY h.id DESC LIMIT 1) l \
              WHERE l.direction <> 'down' AND l.checksum = m.checksum) END"
        ),
    };
    format!(
        "SELECT m.version, pg_catalog.left(m.description, 500) AS description, m.checksum, m.success, \
         {at} AS applied_at, {down} AS down_sql, {unfinished} FROM \"{schema}\"._sqlx_migrations m ORDER BY m.version",
        unfinished = progress::columns(progress)
    )
}

const RUN_QUERY: &str = "SELECT COALESCE((SELECT h.id FROM amas_migrate.history h ORDER BY h.id DESC LIMIT 1), 0) AS highest, \
     (SELECT pg_catalog.min(u.from_version) FROM amas_migrate.runs u WHERE u.direction = 'up' AND u.id > COALESCE( \
       (SELECT pg_catalog.max(e.id) FROM amas_migrate.runs e WHERE e.outcome = 'succeeded' OR e.direction <> 'up'), 0)) AS began, \
     r.id, r.plan_hash, r.attempt, r.direction, \
     (EXTRACT(epoch FROM r.started_at) * 1000000)::pg_catalog.int8 AS started_at, \
     (EXTRACT(epoch FROM r.heartbeat_at) * 1000000)::pg_catalog.int8 AS heartbeat_at, \
     (EXTRACT(epoch FROM r.finished_at) * 1000000)::pg_catalog.int8 AS finished_at, \
     r.outcome, r.from_version, r.to_version, r.current_version, r.total, r.done, r.failed_version, r.sqlstate, \
     pg_catalog.left(r.file, 500) AS file, r.line, pg_catalog.left(r.message, 2000) AS message, r.error_position, \
     pg_catalog.left(pg_catalog.to_jsonb(r) ->> 'waiting', 1000) AS waiting, \
     (pg_catalog.to_jsonb(r) ->> 'error_column')::pg_catalog.int4 AS error_column \
     FROM (SELECT 1) one LEFT JOIN (SELECT * FROM amas_migrate.runs ORDER BY id DESC LIMIT 1) r ON true";

fn timestamp(micros: i64) -> Result<Timestamp, sqlx::Error> {
    Timestamp::from_microsecond(micros).map_err(|error| sqlx::Error::Decode(error.into()))
}

fn applied_row(row: &PgRow) -> Result<Applied, sqlx::Error> {
    Ok(Applied {
        version: row.try_get("version")?,
        description: row.try_get("description")?,
        checksum: Checksum::from_row(row.try_get("checksum")?),
        success: row.try_get("success")?,
        unfinished: unfinished(row)?,
        applied_at: timestamp(row.try_get("applied_at")?)?,
        down: row.try_get::<Option<String>, _>("down_sql")?.map(Down::new),
    })
}

fn unfinished(row: &PgRow) -> Result<Option<Unfinished>, sqlx::Error> {
    let Some(direction) = row.try_get::<Option<String>, _>("direction")? else {
        return Ok(None);
    };
    Ok(Some(Unfinished {
        direction: if direction == "up" {
            Direction::Up
        } else {
            Direction::Down
        },
        done: usize::try_from(row.try_get::<i32, _>("done")?).unwrap_or_default(),
        digest: row.try_get("digest")?,
        begun: row.try_get("begun")?,
    }))
}

fn run_row(row: &PgRow) -> Result<Option<Run>, sqlx::Error> {
    let Some(id) = row.try_get("id")? else { return Ok(None) };
    Ok(Some(Run {
        id,
        plan_hash: row.try_get("plan_hash")?,
        attempt: row.try_get("attempt")?,
        direction: row.try_get("direction")?,
        started_at: timestamp(row.try_get("started_at")?)?,
        heartbeat_at: timestamp(row.try_get("heartbeat_at")?)?,
        finished_at: row
            .try_get::<Option<i64>, _>("finished_at")?
            .map(timestamp)
            .transpose()?,
        outcome: row.try_get("outcome")?,
        from_version: row.try_get("from_version")?,
        to_version: row.try_get("to_version")?,
        current_version: row.try_get("current_version")?,
        total: row.try_get("total")?,
        done: row.try_get("done")?,
        failed_version: row.try_get("failed_version")?,
        sqlstate: row.try_get("sqlstate")?,
        file: row.try_get("file")?,
        line: row.try_get("line")?,
        message: row.try_get("message")?,
        error_position: row.try_get("error_position")?,
        error_column: row.try_get("error_column")?,
        waiting: row.try_get("waiting")?,
    }))
}
