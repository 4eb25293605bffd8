//! The runner killed, and its connection cut, at every statement boundary of a batch that mixes transactions and
//! statements outside of any: after a plain rerun everything is as after a run that nobody disturbed.
//!
//! Triggers in the database count boundaries, and at the wanted one stand still until the test has done its harm: after
//! each DDL statement and before each index, after each statement on the records, and at the commit.

use std::{
    ops::RangeInclusive,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, stream};
use sqlx::{AssertSqlSafe, PgConnection, Row, raw_sql};

use amas_operator::migrate::drift;

use super::{File, STANDING, bytes, command::Dir, public};
use crate::support::{postgres::Postgres, wire::Wire};

/// The first is in the template, so that the tables of the records are there for the triggers.
const FILES: [File; 13] = [
    (
        "0001_base",
        "CREATE TABLE base (id int); CREATE TABLE log (what text); CREATE TYPE mood AS ENUM ('a');",
        "DROP TABLE base, log; DROP TYPE mood;",
    ),
    (
        "0002_users",
        "CREATE TABLE users (id int PRIMARY KEY, name text);",
        "DROP TABLE users;",
    ),
    (
        "0003_orders",
        "CREATE TABLE orders (id int, user_id int REFERENCES users, note text); INSERT INTO log VALUES ('3');",
        "DROP TABLE orders;",
    ),
    (
        "0004_function",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1';",
        "DROP FUNCTION f();",
    ),
    (
        "0005_column",
        "ALTER TABLE base ADD COLUMN name text; INSERT INTO log VALUES ('5');",
        "ALTER TABLE base DROP COLUMN name;",
    ),
    (
        "0006_index",
        "CREATE INDEX CONCURRENTLY orders_user ON orders (user_id);",
        "DROP INDEX CONCURRENTLY orders_user;",
    ),
    (
        "0007_mixed",
        "INSERT INTO log VALUES ('7a');\nCREATE UNIQUE INDEX CONCURRENTLY base_id ON base (id);\nINSERT INTO log VALUES ('7b');\nCREATE INDEX CONCURRENTLY base_name ON base (name);",
        "DROP INDEX base_id; DROP INDEX base_name;",
    ),
    (
        "0008_value",
        "ALTER TYPE mood ADD VALUE 'b';\nCREATE TABLE moods (mood mood DEFAULT 'b');\nINSERT INTO moods VALUES ('b');",
        "DROP TABLE moods;",
    ),
    (
        "0009_unnamed",
        "CREATE INDEX CONCURRENTLY ON orders (note);",
        "DROP INDEX orders_note_idx;",
    ),
    (
        "0010_drop",
        "DROP INDEX CONCURRENTLY base_name;\nREINDEX INDEX CONCURRENTLY base_id;",
        "CREATE INDEX base_name ON base (name);",
    ),
    (
        "0011_own",
        "-- no-transaction\nVACUUM base;\nBEGIN;\nINSERT INTO log VALUES ('11a');\nCREATE TABLE eleven ();\nCOMMIT;\nINSERT INTO log VALUES ('11b');",
        "DROP TABLE eleven;",
    ),
    ("0012_view", "CREATE VIEW v AS SELECT id FROM users;", "DROP VIEW v;"),
    (
        "0013_last",
        "CREATE FUNCTION g() RETURNS int LANGUAGE sql AS 'SELECT 2'; INSERT INTO log VALUES ('13');",
        "DROP FUNCTION g();",
    ),
];

const HOOKS: &[&str] = &[
    "CREATE SCHEMA hooks",
    // one that is logged gives its transaction an id now and then, which DROP INDEX CONCURRENTLY does not bear
    "CREATE UNLOGGED SEQUENCE hooks.passed",
    "CREATE TABLE hooks.plan AS SELECT 0 AS stop_at",
    "CREATE FUNCTION hooks.boundary() RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET lock_timeout = 0 AS $$ BEGIN \
     IF nextval('hooks.passed') = (SELECT stop_at FROM hooks.plan) THEN PERFORM pg_advisory_xact_lock(77); END IF; END $$",
    "CREATE FUNCTION hooks.on_ddl() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN PERFORM hooks.boundary(); END $$",
    "CREATE FUNCTION hooks.on_rows() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN PERFORM hooks.boundary(); RETURN NULL; END $$",
    "CREATE EVENT TRIGGER starts ON ddl_command_start WHEN TAG IN ('CREATE INDEX', 'DROP INDEX') EXECUTE FUNCTION hooks.on_ddl()",
    "CREATE EVENT TRIGGER ends ON ddl_command_end EXECUTE FUNCTION hooks.on_ddl()",
    "CREATE TRIGGER boundary AFTER INSERT OR UPDATE OR DELETE ON _sqlx_migrations EXECUTE FUNCTION hooks.on_rows()",
    "CREATE TRIGGER boundary AFTER INSERT OR UPDATE OR DELETE ON amas_migrate.history EXECUTE FUNCTION hooks.on_rows()",
    "CREATE TRIGGER boundary AFTER INSERT OR UPDATE OR DELETE ON amas_migrate.progress EXECUTE FUNCTION hooks.on_rows()",
    "CREATE CONSTRAINT TRIGGER commit AFTER INSERT ON amas_migrate.history DEFERRABLE INITIALLY DEFERRED \
     FOR EACH ROW EXECUTE FUNCTION hooks.on_rows()",
];

/// All that must be the same beside the schema's fingerprint: records, catalog, rows.
const STATE: &str = "\
    SELECT 'sqlx ' || version || description || success || encode(checksum, 'hex') FROM _sqlx_migrations UNION ALL \
    SELECT 'history ' || version || direction || encode(checksum, 'hex') || down_sql || encode(down_checksum, 'hex') || count(*) FROM amas_migrate.history \
      GROUP BY version, direction, checksum, down_sql, down_checksum UNION ALL \
    SELECT 'progress ' || version FROM amas_migrate.progress UNION ALL \
    SELECT 'open run ' || id FROM amas_migrate.runs WHERE finished_at IS NULL UNION ALL \
    SELECT 'column ' || attrelid::regclass || attname || atttypid::regtype FROM pg_attribute \
      WHERE attrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace) AND attnum > 0 UNION ALL \
    SELECT 'index ' || pg_get_indexdef(indexrelid) || indisvalid || indisready FROM pg_index \
      WHERE indrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace) UNION ALL \
    SELECT 'function ' || oid::regprocedure FROM pg_proc WHERE pronamespace = 'public'::regnamespace UNION ALL \
    SELECT 'value ' || enumlabel FROM pg_enum UNION ALL \
    SELECT 'log ' || what FROM log UNION ALL SELECT 'mood ' || mood FROM moods ORDER BY 1";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Harm {
    /// SIGKILL; the server goes on with what it was sent.
    Killed,
    /// The connection is cut, and the server notices at once.
    Cut,
}

struct Matrix {
    server: Arc<Postgres>,
    dir: Dir,
}

impl Matrix {
    async fn new() -> Self {
        // a database a case: no disk is waited for, and nothing is dropped before the end
        let settings = [("fsync", "off"), ("full_page_writes", "off"), ("autovacuum", "off")];
        let server = Arc::new(Postgres::start_with(&settings).await);
        server.database("matrix").await;
        let dir = Dir::new("matrix");
        for (name, sql) in bytes(&FILES) {
            dir.file(&name, std::str::from_utf8(&sql).unwrap());
        }
        let matrix = Self { server, dir };
        let (status, error) = ended(matrix.runner("matrix", matrix.server.port).args(["--to", "1"])).await;
        assert!(status, "{error}");
        matrix.server.admin("matrix", HOOKS).await;
        // the hooks are nobody's change by hand
        drift::accept(&mut matrix.server.connect("postgres", "matrix").await, &public())
            .await
            .unwrap();
        matrix
    }

    fn runner(&self, database: &str, port: u16) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_amas-operator"));
        command.args(["migrate", "up", "--dir"]).arg(self.dir.path());
        command.env(
            "DATABASE_URL",
            format!("postgres://matrix_owner@127.0.0.1:{port}/{database}"),
        );
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command
    }

    /// A copy of the template, and a connection to it that holds up whoever comes to the boundary.
    async fn copy(&self, name: &str, boundary: i64) -> PgConnection {
        let create = format!("CREATE DATABASE {name} TEMPLATE matrix OWNER matrix_owner STRATEGY file_copy");
        self.server.admin("postgres", &[&create]).await;
        let mut conn = self.server.connect("postgres", name).await;
        let plan = format!("UPDATE hooks.plan SET stop_at = {boundary}; SELECT pg_advisory_lock(77)");
        raw_sql(AssertSqlSafe(plan)).execute(&mut conn).await.unwrap();
        conn
    }

    /// Without harm: the state, and the boundaries.
    async fn reference(&self) -> (Vec<String>, RangeInclusive<i64>) {
        let mut conn = self.copy("matrix_reference", 0).await;
        // the hooks themselves have passed some
        let before: i64 = passed(&mut conn).await;
        let (status, error) = ended(&mut self.runner("matrix_reference", self.server.port)).await;
        assert!(status, "{error}");
        let boundaries = before + 1..=passed(&mut conn).await;
        (state(&mut conn).await, boundaries)
    }

    /// One harm at one boundary, then a plain rerun. The difference, if there is one.
    async fn case(&self, harm: Harm, boundary: i64, expected: &[String]) -> Result<(), String> {
        let name = format!("matrix_{}_{boundary}", if harm == Harm::Cut { "cut" } else { "killed" });
        let mut conn = self.copy(&name, boundary).await;
        let wire = Wire::to(self.server.port).await;
        let mut child = self.runner(&name, wire.port).spawn().unwrap();
        let mut pid = String::new();
        while pid.is_empty() {
            if let Some(status) = child.try_wait().unwrap() {
                return Err(format!("{harm:?} {boundary}: ended before: {status}"));
            }
            tokio::time::sleep(Duration::from_millis(4)).await;
            pid = texts(&mut conn, STANDING).await.pop().unwrap_or_default();
        }
        match harm {
            Harm::Killed => child.kill().unwrap(),
            Harm::Cut => {
                wire.cut();
                texts(&mut conn, &format!("SELECT pg_terminate_backend({pid}, 5000)::text")).await;
            }
        }
        raw_sql("SELECT pg_advisory_unlock(77)")
            .execute(&mut conn)
            .await
            .unwrap();
        tokio::task::spawn_blocking(move || child.wait())
            .await
            .unwrap()
            .unwrap();
        let (status, error) = ended(&mut self.runner(&name, self.server.port)).await;
        if !status {
            return Err(format!("{harm:?} {boundary}: the rerun failed: {error}"));
        }
        let found = state(&mut conn).await;
        if found == expected {
            return Ok(());
        }
        let missing: Vec<_> = expected.iter().filter(|line| !found.contains(line)).collect();
        let extra: Vec<_> = found.iter().filter(|line| !expected.contains(line)).collect();
        Err(format!(
            "{harm:?} {boundary}:\n  missing {missing:?}\n  extra {extra:?}"
        ))
    }
}

/// The texts of [`STATE`], and how the schema stands to its record.
async fn state(conn: &mut PgConnection) -> Vec<String> {
    let drift = drift::look(conn, &public()).await.unwrap().unwrap();
    let mut state = texts(conn, STATE).await;
    state.push(format!(
        "schema {} at {}, unknown {:?}",
        drift.fingerprint, drift.version, drift.unknown
    ));
    state.extend(drift.differences.iter().map(|difference| format!("drift {difference}")));
    state
}

async fn passed(conn: &mut PgConnection) -> i64 {
    let row = raw_sql("SELECT last_value FROM hooks.passed")
        .fetch_one(conn)
        .await
        .unwrap();
    row.get(0)
}

/// Whether it succeeded, and what it said.
async fn ended(command: &mut Command) -> (bool, String) {
    let child = command.spawn().unwrap();
    let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap())
        .await
        .unwrap();
    (
        output.status.success(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

async fn texts(conn: &mut PgConnection, sql: &str) -> Vec<String> {
    let rows = raw_sql(AssertSqlSafe(sql.to_owned())).fetch_all(conn).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wherever_it_is_stopped_a_rerun_completes_it() {
    let matrix = Matrix::new().await;
    let (expected, boundaries) = matrix.reference().await;
    let count = boundaries.clone().count();
    let lines = |start: &str| expected.iter().filter(|line| line.starts_with(start)).count();
    assert!(
        count > 60 && lines("log") == 7 && lines("history") == 13 && lines("schema") == 1 && lines("drift") == 0,
        "{expected:#?}"
    );
    let cuts = boundaries.clone().map(|boundary| (Harm::Cut, boundary));
    let cases: Vec<_> = boundaries
        .map(|boundary| (Harm::Killed, boundary))
        .chain(cuts)
        .collect();
    let all = cases.len();
    let results = stream::iter(cases).map(|(harm, boundary)| matrix.case(harm, boundary, &expected));
    let failed: Vec<String> = results
        .buffer_unordered(4)
        .filter_map(|result| async { result.err() })
        .collect()
        .await;
    assert!(failed.is_empty(), "{} of {}:\n{}", failed.len(), all, failed.join("\n"));
}
