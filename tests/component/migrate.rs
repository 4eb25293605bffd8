//! The migration engine against a real PostgreSQL, as a non-superuser owner.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use amas_operator::{
    api::names::SqlName,
    migrate::{
        consent::Consent,
        history::{self, State},
        plan::{self, Options},
        report::{Failure, Report, StatementFailure},
        runner::{self, Event, Goal, OnFailure, Request, Urgency},
        session,
        source::Source,
    },
};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row, raw_sql};
use sqlx_core::migrate::Migrator;
use tokio::sync::watch;

use crate::support::{postgres::Postgres, process::eventually};

#[path = "migrate_command.rs"]
mod command;
#[path = "migrate_crashes.rs"]
mod crashes;
#[path = "migrate_durable.rs"]
mod durable;
#[path = "migrate_halted.rs"]
mod halted;
#[path = "migrate_model.rs"]
mod model;
#[path = "migrate_public.rs"]
mod public_sets;
#[path = "migrate_rollback.rs"]
mod rollback;
#[path = "migrate_running.rs"]
mod running;
#[path = "migrate_sqlx_cli.rs"]
mod sqlx_cli;
#[path = "migrate_statements.rs"]
mod statements;

type File = (&'static str, &'static str, &'static str);

/// Name, up, down.
const FIVE: [File; 5] = [
    (
        "0001_users",
        "CREATE TABLE users (id int PRIMARY KEY, name text);",
        "DROP TABLE users;",
    ),
    (
        "0002_posts",
        "CREATE TABLE posts (id int PRIMARY KEY);\r\n-- end",
        "DROP TABLE posts;",
    ),
    (
        "0003_more_posts",
        "ALTER TABLE posts ADD COLUMN title text;\nCREATE INDEX ON posts (title)",
        "ALTER TABLE posts DROP COLUMN title;",
    ),
    (
        "0004_function",
        "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RETURN 1; END $$;",
        "DROP FUNCTION f();",
    ),
    (
        "0005_rows",
        r"INSERT INTO users VALUES (1, 'it''s; \ fine');",
        r"DELETE FROM users WHERE name <> '\';",
    ),
];

fn bytes(files: &[File]) -> Vec<(String, Vec<u8>)> {
    let pair = |&(name, up, down): &File| {
        [
            (format!("{name}.up.sql"), up.into()),
            (format!("{name}.down.sql"), down.into()),
        ]
    };
    files.iter().flat_map(pair).collect()
}

fn source(files: &[File]) -> Source {
    Source::from_files(bytes(files)).unwrap()
}

/// FIVE with one file replaced.
fn five_with(index: usize, up: &'static str) -> Vec<File> {
    let mut files = FIVE.to_vec();
    files[index].1 = up;
    files
}

/// Who stands before an advisory lock of this database: a gate, or the migration lock.
const STANDING: &str = "SELECT pid::text FROM pg_locks WHERE locktype = 'advisory' AND NOT granted \
                        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";

/// A file that stands still at its end while there is a [`Database::gate`]: the runner's own time for locks is not for this one.
fn held(sql: &str) -> &'static str {
    format!("{sql} SET LOCAL lock_timeout = 0; SELECT pg_advisory_xact_lock_shared(5);").leak()
}

/// A database of its own on the shared server.
struct Database {
    server: Arc<Postgres>,
    name: String,
}

impl Database {
    async fn new(name: &str) -> Self {
        let server = Postgres::shared().await;
        server.database(name).await;
        Self {
            server,
            name: name.to_owned(),
        }
    }

    fn owner(&self) -> String {
        format!("{}_owner", self.name)
    }

    async fn connect(&self) -> PgConnection {
        self.connect_as(&self.owner()).await
    }

    async fn connect_as(&self, role: &str) -> PgConnection {
        let login = self.server.login(role, &self.name);
        session::connect(&login, &Options::default(), Duration::from_secs(5))
            .await
            .unwrap()
    }

    async fn run(&self, request: Request) -> Report {
        self.run_as(&self.owner(), &request).await
    }

    async fn run_as(&self, role: &str, request: &Request) -> Report {
        let (_keep, stop) = watch::channel(Urgency::No);
        runner::run(&mut self.connect_as(role).await, request, stop, &mut |_| {}).await
    }

    async fn up(&self, files: &[File]) -> Report {
        self.run(request(Goal::Up(None), source(files))).await
    }

    async fn state(&self) -> State {
        history::read(&mut self.connect().await, &public(), Some(0))
            .await
            .unwrap()
            .unwrap()
    }

    /// The first column of every row as text.
    async fn ask(&self, sql: &str) -> Vec<String> {
        self.ask_as("postgres", sql).await
    }

    /// The same, asked by this role.
    async fn ask_as(&self, role: &str, sql: &str) -> Vec<String> {
        let mut conn = self.server.connect(role, &self.name).await;
        let rows = raw_sql(AssertSqlSafe(sql.to_owned()))
            .fetch_all(&mut conn)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
        rows.iter()
            .map(|row| row.try_get::<Option<String>, _>(0).unwrap().unwrap_or("NULL".into()))
            .collect()
    }

    /// Holds up the files that are [`held`] until it is closed.
    async fn gate(&self) -> PgConnection {
        let mut gate = self.server.connect("postgres", &self.name).await;
        raw_sql("SELECT pg_advisory_lock(5)").execute(&mut gate).await.unwrap();
        gate
    }

    /// Waits until so many are [`STANDING`].
    async fn stands(&self, count: usize) {
        let what = format!("{count} stand before a lock of {}", self.name);
        let there = || async { self.ask(STANDING).await.len() == count };
        eventually(&what, Duration::from_secs(60), there).await;
    }

    /// Whether the engine has a session here whose last query has this in it.
    async fn is_asked(&self, part: &str) -> bool {
        let sql = format!(
            "SELECT pid::text FROM pg_stat_activity WHERE datname = current_database() \
             AND application_name = '{}' AND query LIKE '%{part}%'",
            session::APPLICATION
        );
        !self.ask(&sql).await.is_empty()
    }

    async fn versions(&self) -> Vec<i64> {
        self.state()
            .await
            .applied
            .iter()
            .map(|applied| applied.version)
            .collect()
    }

    /// Everything a schema is made of here, to compare two ways to it.
    async fn shape(&self) -> Vec<String> {
        self.ask(
            "SELECT c.relname || '.' || a.attname || ' ' || a.atttypid::regtype FROM pg_attribute a \
             JOIN pg_class c ON c.oid = a.attrelid WHERE c.relnamespace = 'public'::regnamespace AND a.attnum > 0 \
             AND NOT a.attisdropped UNION ALL SELECT proname::text FROM pg_proc \
             WHERE pronamespace = 'public'::regnamespace ORDER BY 1",
        )
        .await
    }
}

fn public() -> SqlName {
    SqlName::public()
}

fn request(goal: Goal, source: Source) -> Request {
    Request {
        source,
        goal,
        options: Options::default(),
        plan_hash: None,
        consent: match goal {
            Goal::Up(_) => Consent::Versions(BTreeSet::new()),
            _ => Consent::Everything,
        },
        on_failure: OnFailure::Stop,
        backup: None,
        attempt: "test".into(),
        lock_timeout: Duration::from_secs(20),
        login: None,
        seeds: vec![],
        hashes: vec![],
    }
}

fn succeeded(report: &Report) {
    assert!(report.failure.is_none(), "{:?}", report.failure);
}

fn statement(report: &Report) -> &StatementFailure {
    report
        .failure
        .as_ref()
        .and_then(Failure::statement)
        .unwrap_or_else(|| panic!("{:?}", report.failure))
}

#[tokio::test]
async fn a_fresh_database_gets_everything_once() {
    let db = Database::new("fresh").await;
    assert_eq!(
        history::read(&mut db.connect().await, &public(), None).await.unwrap(),
        None
    );
    let report = db.up(&FIVE).await;
    succeeded(&report);
    assert_eq!((report.current, report.target, report.done), (5, 5, 5));
    let state = db.state().await;
    assert_eq!(state.current(), 5);
    assert_eq!(
        &*state.applied[4].down.as_ref().unwrap().sql,
        FIVE[4].2,
        "the way back is stored as it was"
    );
    assert_eq!(state.applied[2].description, "more posts");
    let run = state.latest_run.clone().unwrap();
    assert_eq!((run.outcome.as_deref(), run.done, run.total), (Some("succeeded"), 5, 5));
    assert_eq!((run.from_version, run.to_version, run.current_version), (0, 5, 5));
    assert_eq!(
        (
            run.attempt.as_str(),
            run.direction.as_str(),
            run.plan_hash.unwrap().len()
        ),
        ("test", "up", 64)
    );
    assert!(run.finished_at.is_some());
    assert_eq!(state.highest_history_id, 5);
    assert_eq!(db.ask("SELECT name FROM users").await, [r"it's; \ fine"]);
    let who = db
        .ask("SELECT DISTINCT applied_by || ' ' || application FROM amas_migrate.history")
        .await;
    assert_eq!(who, ["fresh_owner amas-migrate"]);
    assert_eq!(
        db.ask("SELECT (min(execution_time) > 0)::text FROM _sqlx_migrations")
            .await,
        ["true"]
    );
    let again = db.up(&FIVE).await;
    succeeded(&again);
    assert_eq!((again.done, again.total, again.current), (0, 0, 5));
    assert_eq!(
        db.ask("SELECT count(*)::text FROM amas_migrate.runs").await,
        ["1"],
        "nothing to do writes nothing"
    );
}

#[tokio::test]
async fn a_failure_names_file_line_and_column_and_keeps_what_was_done() {
    let db = Database::new("failing").await;
    // third file, SQLSTATE, line, and the column where the server names a position
    let cases: &[(&str, &str, Option<usize>, Option<usize>)] = &[
        (
            "SELECT 1; -- a; b\n/* ; */ SELECT ';';\n\nALTER TABLE posts ADD COLUMN x nosuchtype;",
            "42704",
            Some(4),
            Some(32),
        ),
        (
            "SELECT 'ä;\nö';\nSELECT $x$ ; $$ $x$;\n\n  INSERT INTO posts VALUES (1), (1);",
            "23505",
            Some(5),
            None,
        ),
        (
            "SELECT 1;\nDO $$\nBEGIN\n  -- it's;\n  RAISE EXCEPTION 'no' USING HINT = 'try';\nEND $$;",
            "P0001",
            Some(5),
            None,
        ),
        (
            "SELECT 'ä';\nDO $$\nBEGIN\n  PERFORM 1; INSERT INTO nosuch VALUES ('ö');\nEND $$;",
            "42P01",
            Some(4),
            Some(26),
        ),
        ("DO $$\nBEGIN\n  SELEKT 'ö';\nEND $$;", "42601", Some(3), Some(3)),
        (
            "CREATE FUNCTION g() RETURNS int LANGUAGE plpgsql AS $$\nBEGIN\n RETURN 1 +;\nEND $$;",
            "42601",
            Some(3),
            Some(12),
        ),
        ("SELECT 'äöü', nosuch()\n", "42883", Some(1), Some(15)),
        (
            "SELECT 1;\nSELECT 2;\nALTER TABLE posts ADD",
            "42601",
            Some(3),
            Some(21),
        ),
        ("SELECT 1;\nSELEKT 2;\n", "42601", Some(2), Some(1)),
        (
            "ALTER TABLE posts ADD UNIQUE (id) DEFERRABLE INITIALLY DEFERRED;\n\
             CREATE TABLE c (id int REFERENCES posts DEFERRABLE INITIALLY DEFERRED);\nINSERT INTO c VALUES (9);",
            "23503",
            None,
            None,
        ),
    ];
    for (sql, sqlstate, line, column) in cases {
        let report = db.up(&five_with(2, sql)).await;
        let failed = statement(&report);
        assert_eq!(
            (failed.sqlstate.as_str(), failed.line, failed.column, failed.version),
            (*sqlstate, *line, *column, Some(3)),
            "{sql}\n{failed}"
        );
        assert_eq!(
            (failed.file.as_str(), failed.position.is_some()),
            ("0003_more_posts.up.sql", column.is_some()),
            "{sql}"
        );
        assert_eq!((report.exit_code(), report.current), (10, 2));
        assert_eq!(db.versions().await, [1, 2], "{sql}");
        let run = db.state().await.latest_run.unwrap();
        assert_eq!(run.outcome.as_deref(), Some("failed"));
        assert_eq!(
            (run.failed_version, run.sqlstate.as_deref()),
            (Some(3), Some(*sqlstate))
        );
        assert_eq!(
            (run.line, run.error_column, run.message.as_deref()),
            (
                line.map(|l| l as i32),
                column.map(|c| c as i32),
                Some(failed.message.as_str())
            )
        );
        assert!(run.finished_at.is_some());
    }
    let report = db.up(&FIVE).await;
    succeeded(&report);
    assert_eq!((report.done, db.versions().await), (3, vec![1, 2, 3, 4, 5]));
}

#[tokio::test]
async fn refuses_before_the_first_statement() {
    let db = Database::new("refusing").await;
    succeeded(&db.up(&FIVE[..4]).await);
    let before = db.shape().await;
    let refusals: Vec<(Vec<File>, &str)> = vec![
        (
            five_with(1, "SELECT 'edited'"),
            "0002_posts.up.sql: migration 2 was edited",
        ),
        (FIVE[..3].to_vec(), "ahead of the newest file (3)"),
        (
            [&FIVE[..1], &FIVE[2..]].concat(),
            "migration 2 (posts) is applied but its file is missing",
        ),
    ];
    for (files, expected) in refusals {
        let report = db.up(&files).await;
        let text = report.failure.as_ref().unwrap().to_string();
        assert!(text.contains(expected) && report.exit_code() == 12, "{text}");
        assert_eq!(db.state().await.latest_run.unwrap().message.unwrap(), text);
    }
    db.ask("DELETE FROM _sqlx_migrations WHERE version = 2").await;
    assert!(
        db.up(&FIVE)
            .await
            .failure
            .unwrap()
            .to_string()
            .contains("lies below the current version 4")
    );
    db.ask("UPDATE _sqlx_migrations SET success = false WHERE version = 3")
        .await;
    assert!(
        db.up(&FIVE)
            .await
            .failure
            .unwrap()
            .to_string()
            .contains("migration 3 (more posts) was left half done")
    );
    assert_eq!(db.shape().await, before);
}

#[tokio::test]
async fn two_runners_run_nothing_twice() {
    let db = Database::new("racing").await;
    let mut files = five_with(0, held(FIVE[0].1));
    files[4].1 = "INSERT INTO users SELECT count(*), 'once' FROM users;";
    let (mut told, heard) = (Vec::new(), AtomicBool::new(false));
    let (_keep, stop) = watch::channel(Urgency::No);
    let request = request(Goal::Up(None), source(&files));
    let mut second = db.connect().await;
    let gate = db.gate().await;
    let late = async {
        db.stands(1).await;
        let mut tell = |event: Event<'_>| {
            if let Event::Waiting(Some(holder)) = event {
                told.push(holder.to_string());
                heard.store(true, Ordering::Relaxed);
            }
        };
        runner::run(&mut second, &request, stop, &mut tell).await
    };
    let open = async {
        let waits = || async { heard.load(Ordering::Relaxed) };
        eventually("the second says who has the lock", Duration::from_secs(60), waits).await;
        gate.close().await.unwrap();
    };
    let (first, late, ()) = tokio::join!(db.up(&files), late, open);
    succeeded(&first);
    succeeded(&late);
    assert_eq!((first.done, late.done), (5, 0));
    assert_eq!(
        db.ask("SELECT version::text FROM amas_migrate.history ORDER BY id")
            .await,
        ["1", "2", "3", "4", "5"]
    );
    assert!(told.len() == 1 && told[0].ends_with("(amas-migrate)"), "{told:?}");
}

#[tokio::test]
async fn the_lock_has_a_deadline_and_names_its_holder() {
    let db = Database::new("locked").await;
    let mut holder = db.connect().await;
    session::lock(&mut holder, "locked", Duration::ZERO, &mut |_| {})
        .await
        .unwrap();
    let request = Request {
        lock_timeout: Duration::from_millis(300),
        ..request(Goal::Up(None), source(&FIVE))
    };
    let report = db.run(request).await;
    let text = report.failure.as_ref().unwrap().to_string();
    assert!(
        report.exit_code() == 21 && text.contains("pid ") && text.contains("(amas-migrate) holds it"),
        "{text}"
    );
}

#[tokio::test]
async fn down_and_up_again() {
    let db = Database::new("updown").await;
    succeeded(&db.up(&FIVE).await);
    let full = db.shape().await;
    let report = db.run(request(Goal::DownSteps(1), Source::default())).await;
    succeeded(&report);
    assert_eq!((report.current, db.versions().await), (4, vec![1, 2, 3, 4]));
    // the files of 3 and 4 are gone, as after a revert in Git: the stored texts run
    let report = db.run(request(Goal::Down(2), source(&FIVE[..2]))).await;
    succeeded(&report);
    let run = db.state().await.latest_run.unwrap();
    assert_eq!(
        (run.direction.as_str(), run.from_version, run.current_version, run.done),
        ("down", 4, 2, 2)
    );
    assert_eq!(db.versions().await, [1, 2]);
    let report = db.run(request(Goal::Up(Some(1)), source(&FIVE))).await;
    assert_eq!(report.exit_code(), 17, "up never goes down");
    succeeded(&db.run(request(Goal::Down(0), source(&FIVE))).await);
    assert!(db.versions().await.is_empty());
    assert!(db.shape().await.iter().all(|line| line.starts_with("_sqlx_migrations")));
    succeeded(&db.up(&FIVE).await);
    assert_eq!(db.shape().await, full);
    let directions = db.ask("SELECT direction FROM amas_migrate.history ORDER BY id").await;
    assert_eq!(
        directions.concat(),
        ["up".repeat(5), "down".repeat(5), "up".repeat(5)].concat()
    );
    let failing = db.run(request(Goal::Down(7), source(&FIVE))).await;
    succeeded(&failing);
    assert_eq!(failing.total, 0, "down never goes up");
}

#[tokio::test]
async fn a_failing_down_stops_there() {
    let db = Database::new("nodown").await;
    let mut files = FIVE.to_vec();
    files[2].2 = "SELECT 1;\nSELECT 1/0;";
    succeeded(&db.up(&files).await);
    let report = db.run(request(Goal::Down(0), source(&files))).await;
    let failed = statement(&report);
    assert_eq!(
        (failed.file.as_str(), failed.line, report.current),
        ("0003_more_posts.down.sql", Some(2), 3)
    );
    assert_eq!(db.versions().await, [1, 2, 3]);
}

/// What sqlx itself would run of these files.
async fn sqlx_migrator(files: &[File], tag: &str) -> Migrator {
    let dir = std::env::temp_dir().join(format!("amas-sqlx-{}-{tag}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    for (name, sql) in bytes(files) {
        std::fs::write(dir.join(name), sql).unwrap();
    }
    let migrator = Migrator::new(dir.as_path()).await.unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    migrator
}

#[tokio::test]
async fn sqlx_and_we_read_each_other() {
    let table =
        "SELECT version || description || encode(checksum, 'hex') || success FROM _sqlx_migrations ORDER BY version";
    let columns = "SELECT column_name || ' ' || data_type || ' ' || is_nullable || coalesce(column_default, '') \
                   FROM information_schema.columns WHERE table_name = '_sqlx_migrations' ORDER BY ordinal_position";
    let (ours, theirs) = (Database::new("ours").await, Database::new("theirs").await);
    let migrator = sqlx_migrator(&FIVE, "both").await;
    succeeded(&ours.up(&FIVE).await);
    migrator
        .run_direct(None, &mut theirs.connect().await, false)
        .await
        .unwrap();
    assert_eq!(ours.ask(table).await, theirs.ask(table).await);
    assert_eq!(ours.ask(columns).await, theirs.ask(columns).await);

    // sqlx after us: nothing to do, it can take back and apply again
    migrator
        .run_direct(None, &mut ours.connect().await, false)
        .await
        .unwrap();
    let mut conn = ours.connect().await;
    migrator.undo(&mut conn, 3).await.unwrap();
    assert_eq!(ours.versions().await, [1, 2, 3]);
    succeeded(&ours.up(&FIVE).await);
    migrator.run_direct(None, &mut conn, false).await.unwrap();

    // we after sqlx: its rows are adopted with the way back, and go with it
    let before = theirs.state().await;
    assert_eq!(
        (before.current(), before.highest_history_id, before.latest_run),
        (5, 0, None)
    );
    let report = theirs.up(&FIVE).await;
    succeeded(&report);
    assert_eq!((report.done, report.current), (0, 5));
    assert_eq!(
        theirs.ask("SELECT DISTINCT direction FROM amas_migrate.history").await,
        ["stamp"]
    );
    succeeded(&theirs.run(request(Goal::Down(0), Source::default())).await);
    assert_eq!(theirs.ask(table).await, Vec::<String>::new());
}

#[tokio::test]
async fn the_app_role_cannot_touch_history() {
    let db = Database::new("guarded").await;
    succeeded(&db.up(&FIVE).await);
    let mut app = db.server.connect("guarded_app", "guarded").await;
    raw_sql("INSERT INTO users VALUES (7, 'app')")
        .execute(&mut app)
        .await
        .unwrap();
    for sql in [
        "SELECT * FROM _sqlx_migrations",
        "DELETE FROM _sqlx_migrations",
        "SELECT * FROM amas_migrate.history",
        "INSERT INTO amas_migrate.runs DEFAULT VALUES",
        "SELECT nextval('amas_migrate.runs_id_seq')",
        "CREATE TABLE amas_migrate.planted ()",
    ] {
        let error = raw_sql(sql).execute(&mut app).await.unwrap_err();
        assert_eq!(
            error.as_database_error().unwrap().code().unwrap(),
            "42501",
            "{sql}: {error}"
        );
    }
    let others = "SELECT count(*)::text FROM pg_class c, aclexplode(c.relacl) a WHERE a.grantee <> c.relowner AND \
                  (c.relnamespace = 'amas_migrate'::regnamespace OR c.relname = '_sqlx_migrations')";
    assert_eq!(db.ask(others).await, ["0"]);
}

#[tokio::test]
async fn a_killed_connection_leaves_nothing_half_done() {
    let (db, reference) = (Database::new("killed").await, Database::new("unkilled").await);
    let files = five_with(2, held("ALTER TABLE posts ADD COLUMN title text;"));
    let gate = db.gate().await;
    let kill = async {
        db.stands(1).await;
        db.ask(&format!(
            "SELECT pg_terminate_backend(pid::int)::text FROM ({STANDING}) of_the_file"
        ))
        .await
    };
    let (report, killed) = tokio::join!(db.up(&files), kill);
    gate.close().await.unwrap();
    assert_eq!((killed, report.current), (vec!["true".to_owned()], 2));
    assert!([23, 24].contains(&report.exit_code()), "{:?}", report.failure);
    assert_eq!(db.state().await.latest_run.unwrap().outcome, None);
    succeeded(&db.up(&files).await);
    succeeded(&reference.up(&files).await);
    assert_eq!(db.shape().await, reference.shape().await);
    let outcomes = db.ask("SELECT outcome FROM amas_migrate.runs ORDER BY id").await;
    assert_eq!(
        outcomes,
        ["interrupted", "succeeded"],
        "the next run says what became of the dead one"
    );
}

#[tokio::test]
async fn outside_a_transaction() {
    let db = Database::new("outside").await;
    let concurrent =
        "-- no-transaction\nCREATE INDEX CONCURRENTLY one ON posts (id);\nCREATE INDEX CONCURRENTLY two ON posts (id);";
    let files = [
        FIVE[0],
        FIVE[1],
        (
            "0003_index",
            concurrent,
            "-- no-transaction\nDROP INDEX CONCURRENTLY one, two;",
        ),
    ];
    let down = [
        FIVE[0],
        FIVE[1],
        (
            "0003_index",
            concurrent,
            "-- no-transaction\nDROP INDEX CONCURRENTLY one;\nDROP INDEX CONCURRENTLY two;",
        ),
    ];
    let typo = [
        FIVE[0],
        FIVE[1],
        ("0003_index", "-- no-transaction\nVACUM;\nSELECT 1;", "SELECT 1"),
    ];
    let report = db.up(&typo).await;
    assert_eq!(
        (statement(&report).line, db.versions().await),
        (Some(2), vec![1, 2]),
        "nothing was left behind"
    );
    succeeded(&db.up(&down).await);
    assert!(db.state().await.applied[2].success);
    succeeded(&db.run(request(Goal::DownSteps(1), source(&down))).await);
    let half = "-- no-transaction\nCREATE INDEX CONCURRENTLY one ON posts (id);\n\nCREATE INDEX CONCURRENTLY one ON posts (id);";
    let report = db.up(&[FIVE[0], FIVE[1], ("0003_index", half, "SELECT 1")]).await;
    assert_eq!((statement(&report).line, statement(&report).position), (Some(4), None));
    let half = db.state().await;
    assert!(!half.applied[2].success && half.current() == 2);
    let other = "-- no-transaction\nCREATE INDEX CONCURRENTLY three ON posts (id);\nCREATE INDEX CONCURRENTLY two ON posts (id);";
    let report = db.up(&[FIVE[0], FIVE[1], ("0003_index", other, "SELECT 1")]).await;
    assert_eq!(report.exit_code(), 12, "what is done was changed: {:?}", report.failure);
    assert_eq!(
        db.run(request(Goal::DownSteps(1), source(&files))).await.exit_code(),
        12,
        "half way up"
    );
    // corrected where it stopped
    succeeded(&db.up(&files).await);
    let indexes =
        "SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = 'posts'::regclass AND indisvalid ORDER BY 1";
    assert_eq!(db.ask(indexes).await, ["one", "posts_pkey", "two"]);
    let checksum = db.state().await.applied[2].checksum.clone();
    assert_eq!(checksum, source(&files).get(3).unwrap().up.checksum);
}

#[tokio::test]
async fn what_a_file_sets_does_not_leak() {
    let db = Database::new("leaking").await;
    db.server
        .admin(
            "leaking",
            &["CREATE ROLE leaking_group", "GRANT leaking_group TO leaking_owner"],
        )
        .await;
    let files = [
        (
            "0001_dump",
            "CREATE TABLE a ();\nSELECT pg_catalog.set_config('search_path', '', false);\nSET standard_conforming_strings = off;\nSET ROLE leaking_group;",
            "SELECT 1",
        ),
        (
            "0002_next",
            r"CREATE TABLE b (t text DEFAULT '\');",
            "SET search_path = nowhere; DROP TABLE public.b",
        ),
    ];
    succeeded(&db.up(&files).await);
    assert_eq!(
        db.ask("SELECT tableowner || current_setting('search_path') FROM pg_tables WHERE tablename = 'b'")
            .await
            .len(),
        1
    );
    let report = db.run(request(Goal::Down(0), source(&files))).await;
    succeeded(&report);
    // also after a failure, in the session's own closing statements
    let report = db
        .up(&[(
            "0001_x",
            "SET search_path = ''; SET ROLE leaking_group; SELECT 1/0;",
            "SELECT 1",
        )])
        .await;
    assert_eq!(report.exit_code(), 10);
    assert_eq!(db.state().await.latest_run.unwrap().sqlstate.as_deref(), Some("22012"));
}

#[tokio::test]
async fn only_the_plan_that_was_asked_for() {
    let db = Database::new("planned").await;
    let identity = history::identity(&mut db.connect().await).await.unwrap();
    assert!(
        identity.ends_with("/planned") && identity.len() > "/planned".len(),
        "{identity}"
    );
    let options = Options::default();
    let bad = five_with(2, "SELECT 1/0");
    let hash = plan::plan(&source(&bad), &[], None).unwrap().hash(&identity, &options);
    let job = |source, hash: &str, attempt: &str| Request {
        plan_hash: Some(hash.to_owned()),
        attempt: attempt.to_owned(),
        ..request(Goal::Up(None), source)
    };
    let moved = db.run(job(source(&FIVE), &hash, "job-1")).await;
    assert_eq!((moved.exit_code(), moved.done), (13, 0));
    assert_eq!(db.run(job(source(&bad), &hash, "job-1")).await.exit_code(), 10);
    // the Job's second Pod goes on with the rest of the same plan; another Job may not
    assert_eq!(db.run(job(source(&bad), &hash, "job-2")).await.exit_code(), 13);
    let second = db.run(job(source(&bad), &hash, "job-1")).await;
    assert_eq!((second.exit_code(), second.current), (10, 2));
    succeeded(&db.up(&FIVE).await);
    succeeded(&db.run(job(source(&FIVE), &hash, "job-3")).await);
    // down: the same hash from what the operator reads
    let state = db.state().await;
    let plan = plan::plan(&source(&FIVE), &state.applied, Some(1)).unwrap();
    let hash = plan.hash(&identity, &options);
    let down = Request {
        goal: Goal::Down(1),
        consent: Consent::Everything,
        ..job(source(&FIVE), &hash, "job-4")
    };
    succeeded(&db.run(down).await);
    assert_eq!(db.versions().await, [1]);
    assert_eq!(db.state().await.latest_run.unwrap().plan_hash, Some(hash));
}
