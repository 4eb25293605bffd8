//! The SQL that writes the engine's tables. Pure text: one message each, sent by the runner.
//!
//! `_sqlx_migrations` is kept as sqlx would leave it. What sqlx does not know is in schema `amas_migrate`.

mod layout;

use crate::api::names::SqlName;

use super::{
    adjust::Change,
    history::CHANNEL,
    plan::{Direction, Step},
    progress,
    report::{StatementFailure, truncate},
    source::Checksum,
};

pub use layout::{LAYOUT, OLDER, bootstrap};

/// A string literal that means the same whatever standard_conforming_strings is.
pub fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

pub fn bytes(checksum: &Checksum) -> String {
    format!("pg_catalog.decode('{checksum}', 'hex')")
}

/// A value or NULL.
pub fn or_null<T>(value: Option<T>, write: impl Fn(T) -> String) -> String {
    value.map_or_else(|| "NULL".to_owned(), write)
}

/// A run about to start.
pub struct NewRun<'a> {
    pub plan_hash: Option<&'a str>,
    pub attempt: &'a str,
    pub direction: &'a str,
    pub from: i64,
    pub to: i64,
    pub total: usize,
}

/// What a killed run left open: the lock is ours now, so it is dead.
pub const CLOSE_DEAD: &str = "UPDATE amas_migrate.runs SET outcome = 'interrupted', finished_at = pg_catalog.now(), \
     waiting = NULL WHERE finished_at IS NULL";

/// Closes what a killed run left open (its lock is ours now, so it is dead) and inserts the new run. One row: its id, and the server process.
pub fn begin_run(run: &NewRun<'_>) -> String {
    format!(
        "BEGIN; SET LOCAL synchronous_commit = off; \
         {CLOSE_DEAD}; \
         WITH new AS (INSERT INTO amas_migrate.runs \
         (plan_hash, attempt, direction, from_version, to_version, current_version, total) \
         VALUES ({hash}, {attempt}, {direction}, {from}, {to}, {from}, {total}) RETURNING id) \
         SELECT id, pg_catalog.pg_backend_pid(), pg_catalog.pg_notify('{CHANNEL}', id::text) FROM new; COMMIT",
        hash = or_null(run.plan_hash, literal),
        attempt = literal(run.attempt),
        direction = literal(run.direction),
        from = run.from,
        to = run.to,
        total = run.total,
    )
}

/// Migrations whose texts are in one transaction, and where the schema is after them.
pub struct Committed<'a> {
    pub steps: &'a [Step],
    pub direction: Direction,
    pub after: i64,
}

/// What is sent after the text of migrations in their transaction: history rows, progress, commit.
///
/// First everything the text may have SET is taken back, so that neither these statements nor the next file see it.
/// The commit does not wait for the disk: history and DDL are in one transaction, so a crash loses a suffix of both,
/// and [`finish_run`] waits for all of them.
pub fn commit_steps(schema: &SqlName, run: i64, done: &Committed<'_>) -> String {
    // what one of several took is not known
    let share = done.steps.len().max(1);
    let sqlx = match done.direction {
        Direction::Up => {
            let rows = done.steps.iter().map(|step| {
                let (version, description) = (step.version, literal(&step.description));
                format!(
                    "({version}, {description}, true, {}, {ELAPSED_NS} / {share})",
                    bytes(&step.checksum)
                )
            });
            format!(
                "INSERT INTO \"{schema}\"._sqlx_migrations (version, description, success, checksum, execution_time) VALUES {}",
                joined(rows)
            )
        }
        Direction::Down => format!(
            "DELETE FROM \"{schema}\"._sqlx_migrations WHERE version IN ({})",
            joined(done.steps.iter().map(|step| step.version.to_string()))
        ),
    };
    let records = history_and_progress(run, done, &format!("{ELAPSED_MS} / {share}"));
    format!("{RESET}; {LAZILY}; {sqlx}; {records}; COMMIT")
}

const ELAPSED_NS: &str =
    "(EXTRACT(epoch FROM pg_catalog.clock_timestamp() - pg_catalog.now()) * 1000000000)::pg_catalog.int8";
const ELAPSED_MS: &str =
    "(EXTRACT(epoch FROM pg_catalog.clock_timestamp() - pg_catalog.now()) * 1000)::pg_catalog.int8";

/// Takes back what a file may have SET, and the role; RESET ALL leaves that as it is.
pub const RESET: &str = "RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL";
/// The commit does not wait for the disk.
const LAZILY: &str = "SET LOCAL synchronous_commit = off";

fn joined(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(", ")
}

fn history_and_progress(run: i64, done: &Committed<'_>, ms: &str) -> String {
    let direction = done.direction;
    let rows = done.steps.iter().map(|step| {
        let stored = step.down.as_ref().filter(|_| direction == Direction::Up);
        format!(
            "({run}, {version}, {description}, '{direction}', {checksum}, {ms}, {down}, {down_checksum})",
            version = step.version,
            description = literal(&step.description),
            checksum = bytes(&step.checksum),
            down = or_null(stored, |down| literal(&down.sql)),
            down_checksum = or_null(step.down.as_ref(), |down| bytes(&down.checksum)),
        )
    });
    format!(
        "INSERT INTO amas_migrate.history \
         (run_id, version, description, direction, checksum, execution_ms, down_sql, down_checksum) VALUES {rows}; \
         UPDATE amas_migrate.runs SET done = CASE WHEN direction = '{direction}' THEN done + {count} ELSE GREATEST(0, done - {count}) END, current_version = {after}, waiting = NULL, \
         heartbeat_at = pg_catalog.clock_timestamp() WHERE id = {run}; \
         SELECT pg_catalog.pg_notify('{CHANNEL}', '{run}')",
        rows = joined(rows),
        count = done.steps.len(),
        after = done.after,
    )
}

/// Before a file of several parts: its row says success = false until it is through, and how far it came is kept.
pub fn mark_unfinished(schema: &SqlName, step: &Step, direction: Direction) -> String {
    let mark = match direction {
        Direction::Up => format!(
            "INSERT INTO \"{schema}\"._sqlx_migrations (version, description, success, checksum, execution_time) \
             VALUES ({}, {}, false, {}, -1)",
            step.version,
            literal(&step.description),
            bytes(&step.checksum)
        ),
        Direction::Down => {
            format!(
                "UPDATE \"{schema}\"._sqlx_migrations SET success = false WHERE version = {}",
                step.version
            )
        }
    };
    format!("BEGIN; {mark}; {}; COMMIT", progress::start(step.version, direction))
}

/// Takes [`mark_unfinished`] back after a failure of its first part, unless that has left something behind: then it is begun.
pub fn unmark(schema: &SqlName, step: &Step, direction: Direction) -> String {
    let version = step.version;
    let unmark = match direction {
        Direction::Up => format!("DELETE FROM \"{schema}\"._sqlx_migrations"),
        Direction::Down => format!("UPDATE \"{schema}\"._sqlx_migrations SET success = true"),
    };
    format!(
        "BEGIN; {unmark} WHERE version = {version} AND NOT EXISTS \
         (SELECT FROM amas_migrate.progress p WHERE p.version = {version} AND p.begun); \
         DELETE FROM amas_migrate.progress WHERE version = {version} AND NOT begun; COMMIT"
    )
}

/// After a file of several parts. A file that was corrected in its middle is the one that is in.
pub fn mark_finished(schema: &SqlName, run: i64, done: &Committed<'_>, took: std::time::Duration) -> String {
    let each = done.steps.iter().map(|step| {
        let version = step.version;
        let sqlx = match done.direction {
            Direction::Up => format!(
                "UPDATE \"{schema}\"._sqlx_migrations SET success = true, execution_time = {}, checksum = {}, \
                 description = {} WHERE version = {version}",
                took.as_nanos(),
                bytes(&step.checksum),
                literal(&step.description),
            ),
            Direction::Down => format!("DELETE FROM \"{schema}\"._sqlx_migrations WHERE version = {version}"),
        };
        format!("{sqlx}; {}; ", progress::end(version))
    });
    let each: String = each.collect();
    let records = history_and_progress(run, done, &took.as_millis().to_string());
    format!("{RESET}; BEGIN; {each}{records}; COMMIT")
}

/// A history row for a version that sqlx applied: adopted, with the way back its file has.
pub fn stamp(version: i64, description: &str, checksum: &Checksum, down: Option<&super::plan::Down>) -> String {
    format!(
        "INSERT INTO amas_migrate.history (version, description, direction, checksum, down_sql, down_checksum) \
         VALUES ({version}, {}, 'stamp', {}, {}, {})",
        literal(description),
        bytes(checksum),
        or_null(down, |down| literal(&down.sql)),
        or_null(down, |down| bytes(&down.checksum)),
    )
}

/// One change of what is recorded, without anything being run. It settles what was half way too.
pub fn adjust(schema: &SqlName, change: &Change) -> String {
    let (version, sql) = match change {
        Change::Applied {
            version,
            description,
            checksum,
            down,
        } => {
            let sql = format!(
                "INSERT INTO \"{schema}\"._sqlx_migrations (version, description, success, checksum, execution_time) \
                 VALUES ({version}, {}, true, {}, 0) \
                 ON CONFLICT (version) DO UPDATE SET success = true, checksum = EXCLUDED.checksum; {}",
                literal(description),
                bytes(checksum),
                stamp(*version, description, checksum, down.as_ref())
            );
            (version, sql)
        }
        Change::Finished { version } => {
            let sql = format!("UPDATE \"{schema}\"._sqlx_migrations SET success = true WHERE version = {version}");
            (version, sql)
        }
        Change::Pending { version } => {
            let sql = format!(
                "WITH gone AS (DELETE FROM \"{schema}\"._sqlx_migrations WHERE version = {version} RETURNING *) \
                 INSERT INTO amas_migrate.history (version, description, direction, checksum) \
                 SELECT version, description, 'down', checksum FROM gone"
            );
            (version, sql)
        }
    };
    format!("{sql}; {}", progress::end(*version))
}

/// Changes of the records in one transaction, which tells whoever listens.
pub fn told(changes: &[String]) -> String {
    format!(
        "BEGIN; {}; SELECT pg_catalog.pg_notify('{CHANNEL}', '0'); COMMIT",
        changes.join("; ")
    )
}

/// The record of a seed file, in the file's own transaction.
pub fn commit_seed(profile: &str, name: &str, checksum: &Checksum, run: i64) -> String {
    format!(
        "{RESET}; {LAZILY}; INSERT INTO amas_migrate.seeds (profile, name, checksum) VALUES ({}, {}, {}) \
         ON CONFLICT (profile, name) DO UPDATE SET checksum = EXCLUDED.checksum, applied_at = EXCLUDED.applied_at; \
         UPDATE amas_migrate.runs SET waiting = NULL, heartbeat_at = pg_catalog.clock_timestamp() WHERE id = {run}; COMMIT",
        literal(profile),
        literal(name),
        bytes(checksum)
    )
}

/// How a run ended, as its row tells it.
#[derive(Default)]
pub struct Ending<'a> {
    pub outcome: &'a str,
    pub message: Option<String>,
    pub failed: Option<&'a StatementFailure>,
    pub sqlstate: Option<&'a str>,
}

/// Ends a run. An ordinary commit: with it every commit before it is on disk too.
pub fn finish_run(run: i64, ending: &Ending<'_>) -> String {
    let failed = ending.failed;
    format!(
        "BEGIN; UPDATE amas_migrate.runs SET outcome = {outcome}, finished_at = pg_catalog.now(), \
         heartbeat_at = pg_catalog.now(), failed_version = {version}, sqlstate = {sqlstate}, file = {file}, \
         line = {line}, message = {message}, error_position = {position}, error_column = {column}, waiting = NULL WHERE id = {run}; \
         SELECT pg_catalog.pg_notify('{CHANNEL}', '{run}'); COMMIT",
        outcome = literal(ending.outcome),
        version = or_null(failed.and_then(|f| f.version), |v| v.to_string()),
        sqlstate = or_null(ending.sqlstate, literal),
        file = or_null(failed.map(|f| f.file.as_str()), literal),
        line = or_null(failed.and_then(|f| f.line), |v| v.to_string()),
        message = or_null(ending.message.as_deref(), |m| literal(truncate(m, 8000))),
        position = or_null(failed.and_then(|f| f.position), |v| v.to_string()),
        column = or_null(failed.and_then(|f| f.column), |v| v.to_string()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_closed() {
        assert_eq!(literal(r"it's \ "), r"E'it''s \\ '");
        let statements = super::super::statements::split(&literal("a'; DROP TABLE x; --\\'; $$")).unwrap();
        assert_eq!(statements.len(), 1);
    }

    #[test]
    fn every_message_is_whole_statements() {
        let schema = SqlName::parse("public").unwrap();
        let sql = bootstrap(&schema);
        let statements = super::super::statements::split(&sql).unwrap();
        assert_eq!(statements.first().unwrap().words, ["BEGIN"]);
        assert_eq!(statements.last().unwrap().words, ["COMMIT"]);
    }
}
