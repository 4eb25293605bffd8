//! How migrations run: parts, what failed indexes leave, locks that others hold, signs of life, light files together.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use amas_operator::migrate::{
    adjust::{self, Verdicts},
    plan::Options,
    report::{Failure, Report},
    runner::{self, Event, Goal, Request, Urgency},
    session::{self, Login},
    source::Source,
};
use sqlx::{AssertSqlSafe, Connection, PgConnection, raw_sql};
use tokio::{sync::watch, time::sleep};

use super::{Database, STANDING, held, public, request, sqlx_migrator, statement, succeeded};
use crate::support::{postgres::Postgres, process::eventually};

/// Plain files from their texts, numbered from 1.
fn files(texts: &[&str]) -> Source {
    let file = |(index, sql): (usize, &&str)| (format!("{:04}_m.sql", index + 1), sql.as_bytes().to_vec());
    Source::from_files(texts.iter().enumerate().map(file).collect()).unwrap()
}

async fn up(db: &Database, texts: &[&str]) -> Report {
    db.run(request(Goal::Up(None), files(texts))).await
}

/// Runs with a second connection, and tells who was in the way.
async fn up_telling(db: &Database, texts: &[&str], patience: Duration) -> (Report, Vec<String>) {
    let login = db.server.login(&db.owner(), &db.name);
    let request = Request {
        lock_timeout: patience,
        login: Some(Login::new(&login, &Options::default())),
        ..request(Goal::Up(None), files(texts))
    };
    let (_keep, stop) = watch::channel(Urgency::No);
    let mut told = Vec::new();
    let mut tell = |event: Event<'_>| {
        if let Event::Blocked { file, by, .. } = event {
            told.extend(by.iter().map(|blocker| format!("{file} {blocker}")));
        }
    };
    let report = runner::run(&mut db.connect().await, &request, stop, &mut tell).await;
    (report, told)
}

async fn run(conn: &mut PgConnection, sql: &str) {
    raw_sql(AssertSqlSafe(sql.to_owned())).execute(conn).await.unwrap();
}

#[tokio::test]
async fn a_file_of_several_parts_goes_on_where_it_stopped() {
    let db = Database::new("parts").await;
    let mut texts = ["CREATE TABLE t (a int); CREATE TABLE log (what text);", ""];
    let begin = "INSERT INTO log VALUES ('once');\nCREATE INDEX CONCURRENTLY i ON t (a);\nSET search_path = pg_catalog;\n\
                 VACUUM public.t;\nINSERT INTO public.log VALUES (current_setting('search_path'));\n";
    let failing = format!("{begin}SELECT 1/0;");
    texts[1] = &failing;
    let report = up(&db, &texts).await;
    let failed = statement(&report);
    assert_eq!(
        (failed.line, failed.sqlstate.as_str(), report.current),
        (Some(6), "22012", 1)
    );
    assert_eq!(db.ask("SELECT what FROM log").await, ["once"]);
    assert_eq!(db.ask("SELECT done::text FROM amas_migrate.progress").await, ["4"]);
    let sqlx = sqlx_migrator(&super::FIVE, "parts").await;
    assert!(
        sqlx.run_direct(None, &mut db.connect().await, false).await.is_err(),
        "sqlx sees that it is half done"
    );
    let corrected = format!("{begin}SELECT 1;");
    texts[1] = &corrected;
    succeeded(&up(&db, &texts).await);
    assert_eq!(
        db.ask("SELECT what FROM log ORDER BY 1").await,
        ["once", "pg_catalog"],
        "settings come back"
    );
    assert_eq!(db.ask("SELECT count(*)::text FROM amas_migrate.progress").await, ["0"]);
    assert_eq!(db.versions().await, [1, 2]);
}

#[tokio::test]
async fn what_is_half_way_can_be_settled_by_hand() {
    let db = Database::new("half_settled").await;
    let texts = ["CREATE TABLE t (a int);", "VACUUM t; SELECT 1/0;"];
    assert_eq!(up(&db, &texts).await.exit_code(), 10);
    assert_eq!(db.ask("SELECT done::text FROM amas_migrate.progress").await, ["1"]);
    let source = files(&texts);
    assert_eq!(adjust::problems(&source, &db.state().await.applied), []);
    let verdicts = Verdicts {
        applied: [2].into(),
        ..Verdicts::default()
    };
    let decide = |applied: &[_]| adjust::repair(&source, applied, &verdicts);
    let mut conn = db.connect().await;
    let patience = Duration::from_secs(5);
    adjust::adjust(&mut conn, &public(), patience, decide).await.unwrap();
    assert_eq!(db.ask("SELECT count(*)::text FROM amas_migrate.progress").await, ["0"]);
    succeeded(&up(&db, &texts).await);
    assert_eq!(db.state().await.current(), 2);
}

#[tokio::test]
async fn what_a_failed_index_leaves_is_removed() {
    let db = Database::new("invalid").await;
    let table = "CREATE TABLE t (a int); INSERT INTO t VALUES (1), (1);";
    let unique = "CREATE UNIQUE INDEX CONCURRENTLY i ON t (a);";
    let indexes = "SELECT relname || indisvalid FROM pg_index JOIN pg_class c ON c.oid = indexrelid WHERE indrelid = 't'::regclass";
    let report = up(&db, &[table, unique]).await;
    assert_eq!(
        (statement(&report).sqlstate.as_str(), report.exit_code()),
        ("23505", 10)
    );
    assert_eq!(db.ask(indexes).await, Vec::<String>::new());
    assert_eq!(db.versions().await, [1]);
    // one that somebody else has left
    let mut conn = db.connect().await;
    raw_sql(unique).execute(&mut conn).await.unwrap_err();
    assert_eq!(db.ask(indexes).await, ["ifalse"]);
    run(&mut conn, "DELETE FROM t WHERE ctid = (SELECT min(ctid) FROM t)").await;
    succeeded(
        &up(
            &db,
            &[table, "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS i ON t (a);"],
        )
        .await,
    );
    assert_eq!(db.ask(indexes).await, ["itrue"]);
}

#[tokio::test]
async fn a_deadlock_while_an_index_is_built_is_got_over() {
    let db = Database::new("deadlock").await;
    // what the index has left is waited for behind the other one, too, which has to be gone by then
    let patient = "ALTER ROLE deadlock_owner SET deadlock_timeout = '3s'";
    db.server.admin("deadlock", &[patient]).await;
    let table = "CREATE TABLE t (a int);";
    succeeded(&up(&db, &[table]).await);
    // waits for the migration lock with an open transaction, as sqlx's migrator does, and never gives way
    let mut other = db.server.connect("postgres", "deadlock").await;
    run(
        &mut other,
        "SET deadlock_timeout = '60s'; BEGIN; INSERT INTO t VALUES (1)",
    )
    .await;
    let lock = format!("SELECT pg_advisory_lock({})", session::lock_id("deadlock"));
    let (gate, before) = (db.gate().await, db.server.log().len());
    let waiter = async {
        db.stands(1).await;
        raw_sql(AssertSqlSafe(lock)).execute(&mut other).await.unwrap_err();
    };
    let release = async {
        db.stands(2).await;
        gate.close().await.unwrap();
        let locked = || async {
            let log = db.server.log();
            log.get(before..)
                .is_some_and(|since| since.contains("deadlock detected"))
        };
        eventually("the server finds the deadlock", Duration::from_secs(60), locked).await;
        db.ask(&format!(
            "SELECT pg_terminate_backend(pid::int)::text FROM ({STANDING}) the_waiter"
        ))
        .await;
    };
    let texts = [
        table,
        held("CREATE TABLE u ();"),
        "CREATE INDEX CONCURRENTLY i ON t (a);",
    ];
    let (report, (), ()) = tokio::join!(up(&db, &texts), waiter, release);
    succeeded(&report);
    assert_eq!(
        db.ask("SELECT indisvalid::text FROM pg_index WHERE indexrelid = 'i'::regclass")
            .await,
        ["true"]
    );
}

/// An application that reads `free` and `busy` all the time.
#[derive(Default)]
struct Readers {
    /// How often both were read.
    rounds: AtomicUsize,
    slowest: Mutex<Duration>,
    end: AtomicBool,
}

impl Readers {
    /// From now on the server tells of each read that stands before a lock for half a second. How long a read takes would tell of this machine, too.
    async fn watched(db: &Database) -> Self {
        let app = format!("{}_app", db.name);
        let long = format!("ALTER ROLE {app} SET deadlock_timeout = '500ms'");
        let told = format!("ALTER ROLE {app} SET log_lock_waits = on");
        db.server.admin(&db.name, &[&long, &told]).await;
        Self::default()
    }

    /// Until told to end.
    async fn read(&self, db: &Database) {
        let mut conn = db.server.connect(&format!("{}_app", db.name), &db.name).await;
        while !self.end.load(Ordering::Relaxed) {
            for table in ["free", "busy"] {
                let started = Instant::now();
                run(&mut conn, &format!("SELECT count(*) FROM {table}")).await;
                let mut slowest = self.slowest.lock().unwrap();
                *slowest = started.elapsed().max(*slowest);
            }
            self.rounds.fetch_add(1, Ordering::Relaxed);
            sleep(Duration::from_millis(2)).await;
        }
    }

    /// Once the record says who is in the way, reads go on, and none has stood in a queue, which behind a migration that waits would be a long one.
    async fn go_on(&self, db: &Database) {
        let waiting = || async {
            let waiting = db.state().await.latest_run.unwrap().waiting.unwrap_or_default();
            waiting.contains("0002_m.sql waits for pid") && waiting.contains("slow report")
        };
        eventually("the record says who is in the way", Duration::from_secs(20), waiting).await;
        let before = self.rounds.load(Ordering::Relaxed);
        let more = || async { self.rounds.load(Ordering::Relaxed) >= before + 100 };
        eventually("reads go on", Duration::from_secs(60), more).await;
        println!(
            "{}: beside a migration that waits no read took longer than {:?}",
            db.name,
            self.slowest.lock().unwrap()
        );
        let log = db.server.log();
        let here = db
            .ask("SELECT oid::text FROM pg_database WHERE datname = current_database()")
            .await
            .remove(0);
        let here = format!("of database {here} ");
        let stood = |line: &&str| line.contains("still waiting for AccessShareLock") && line.contains(&here);
        assert_eq!(log.lines().find(stood), None, "for longer than 0.5 s");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_queues_behind_a_migration_that_waits() {
    let db = Database::new("ladder").await;
    let tables = "CREATE TABLE free (a int); CREATE TABLE busy (a int);";
    succeeded(&up(&db, &[tables]).await);
    let mut blocker = db.server.connect("ladder_app", "ladder").await;
    run(
        &mut blocker,
        "SET application_name = 'slow report'; BEGIN; SELECT * FROM busy",
    )
    .await;
    let texts = [tables, "ALTER TABLE free ADD b int;\nALTER TABLE busy ADD b int;"];
    // too short a patience ends cleanly, and says by whom
    let (report, _) = up_telling(&db, &texts, Duration::from_millis(300)).await;
    let failure = report.failure.as_ref().unwrap();
    let text = failure.to_string();
    assert!(
        matches!(failure, Failure::Blocked { .. }) && report.exit_code() == 21,
        "{text}"
    );
    for part in ["0002_m.sql", "slow report", "ladder_app", "on busy", "pid "] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(db.versions().await, [1]);
    assert!(
        db.state()
            .await
            .latest_run
            .unwrap()
            .message
            .unwrap()
            .contains("slow report")
    );
    // and enough of it gets there while everybody works on
    let readers = Readers::watched(&db).await;
    let migration = async {
        let result = up_telling(&db, &texts, Duration::from_secs(20)).await;
        readers.end.store(true, Ordering::Relaxed);
        (result, Instant::now())
    };
    let release = async {
        readers.go_on(&db).await;
        run(&mut blocker, "ROLLBACK").await;
        Instant::now()
    };
    let (((report, told), done), released, ()) = tokio::join!(migration, release, readers.read(&db));
    succeeded(&report);
    assert!(told.iter().any(|line| line.contains("slow report")), "{told:?}");
    let after = done.saturating_duration_since(released);
    println!("ladder: the migration is done {after:?} after the way is free");
    assert!(after < Duration::from_secs(5), "soon after: {after:?}");
    assert_eq!(db.state().await.latest_run.unwrap().waiting, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_queues_behind_a_statement_outside_of_a_transaction() {
    let db = Database::new("lone").await;
    // else the server hides what others do and for how long
    db.server
        .admin("lone", &["GRANT pg_read_all_stats TO lone_owner"])
        .await;
    let tables = "CREATE TABLE free (a int); CREATE TABLE busy (a int); INSERT INTO busy SELECT 1;";
    succeeded(&up(&db, &[tables]).await);
    let mut blocker = db.server.connect("lone_app", "lone").await;
    run(
        &mut blocker,
        "SET application_name = 'slow report'; BEGIN; SELECT * FROM busy",
    )
    .await;
    let file = "SELECT relfilenode::text FROM pg_class WHERE relname = 'busy'";
    let before = db.ask(file).await;
    let texts = [tables, "SELECT 1;\nVACUUM FULL busy;"];
    let readers = Readers::watched(&db).await;
    let migration = async {
        let (blocked, _) = up_telling(&db, &texts, Duration::from_millis(300)).await;
        let cleared = async {
            readers.go_on(&db).await;
            run(&mut blocker, "ROLLBACK").await;
        };
        let (after, ()) = tokio::join!(up_telling(&db, &texts, Duration::from_secs(20)), cleared);
        readers.end.store(true, Ordering::Relaxed);
        (blocked, after)
    };
    let ((report, (after, told)), ()) = tokio::join!(migration, readers.read(&db));
    let text = report.failure.as_ref().unwrap().to_string();
    assert_eq!(report.exit_code(), 21, "{text}");
    for part in [
        "0002_m.sql:2",
        "slow report",
        "lone_app",
        "on busy",
        "pid ",
        "idle in transaction, for ",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(
        told.iter()
            .any(|line| line.contains("0002_m.sql") && line.contains("slow report")),
        "{told:?}"
    );
    succeeded(&after);
    assert_ne!(db.ask(file).await, before, "the table was written anew");
    assert_eq!(db.state().await.latest_run.unwrap().waiting, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn short_readers_back_to_back_do_not_keep_it_out() {
    let db = Database::new("readers").await;
    let table = "CREATE TABLE busy (a int); INSERT INTO busy VALUES (1);";
    succeeded(&up(&db, &[table]).await);
    let end = AtomicBool::new(false);
    let reader = async |number: u64| {
        let mut conn = db.server.connect("readers_app", "readers").await;
        sleep(Duration::from_millis(7 * number)).await;
        while !end.load(Ordering::Relaxed) {
            run(&mut conn, "SELECT pg_sleep(0.05) FROM busy").await;
        }
    };
    let migration = async {
        let reading =
            "SELECT pid::text FROM pg_stat_activity WHERE usename = 'readers_app' AND query LIKE '%pg_sleep%'";
        let all = || async { db.ask(reading).await.len() == 8 };
        eventually("all of them read", Duration::from_secs(60), all).await;
        let started = Instant::now();
        let report = up(&db, &[table, "ALTER TABLE busy ADD b int;"]).await;
        end.store(true, Ordering::Relaxed);
        (report, started.elapsed())
    };
    let all = futures::future::join_all((0..8).map(reader));
    let ((report, took), _) = tokio::join!(migration, all);
    // within its patience; the bench judges how soon
    succeeded(&report);
    println!("behind 8 readers of 50 ms, back to back, the migration takes {took:?}");
}

#[tokio::test]
async fn autovacuum_gives_way() {
    let settings = [
        ("autovacuum_naptime", "1s"),
        ("deadlock_timeout", "500ms"),
        ("track_counts", "on"),
    ];
    let server = std::sync::Arc::new(Postgres::start_with(&settings).await);
    server.database("vacuumed").await;
    let db = Database {
        server,
        name: "vacuumed".to_owned(),
    };
    let table = "CREATE TABLE t (a int, b text) WITH (autovacuum_vacuum_threshold = 1, autovacuum_vacuum_scale_factor = 0, \
                 autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1); \
                 INSERT INTO t SELECT i, repeat('x', 500) FROM generate_series(1, 12000) i; DELETE FROM t WHERE a % 2 = 0;";
    succeeded(&up(&db, &[table]).await);
    let vacuuming = || async {
        !db.ask("SELECT pid::text FROM pg_stat_progress_vacuum WHERE relid = 't'::regclass")
            .await
            .is_empty()
    };
    eventually("autovacuum works on it", Duration::from_secs(60), vacuuming).await;
    // it rests 0.1 s at each of 800 pages: for longer than this is patient
    let started = Instant::now();
    let (report, told) = up_telling(&db, &[table, "ALTER TABLE t ADD c int;"], Duration::from_secs(20)).await;
    succeeded(&report);
    println!("autovacuum gives way after {:?}", started.elapsed());
    assert!(told.iter().any(|line| line.contains("autovacuum")), "{told:?}");
}

#[tokio::test]
async fn a_long_statement_shows_signs_of_life_and_who_is_in_the_way() {
    let db = Database::new("pulse").await;
    let table = "CREATE TABLE t (a int);";
    succeeded(&up(&db, &[table]).await);
    let mut old = db.server.connect("pulse_app", "pulse").await;
    run(
        &mut old,
        "SET application_name = 'old one'; BEGIN; INSERT INTO t VALUES (1)",
    )
    .await;
    let texts = [table, "CREATE INDEX CONCURRENTLY i ON t (a);"];
    let watching = async {
        let told = || async {
            let run = db.state().await.latest_run.unwrap();
            run.waiting
                .is_some_and(|text| text.contains("old one") && text.contains("0002_m.sql"))
                && run.heartbeat_at.duration_since(run.started_at).as_secs() >= 2
        };
        eventually("the record moves on", Duration::from_secs(15), told).await;
        run(&mut old, "COMMIT").await;
    };
    let ((report, told), ()) = tokio::join!(up_telling(&db, &texts, Duration::from_secs(30)), watching);
    succeeded(&report);
    assert!(told.iter().any(|line| line.contains("old one")), "{told:?}");
    // and the wait for it has an end that leaves nothing behind
    run(&mut old, "BEGIN; INSERT INTO t VALUES (1)").await;
    let texts = [texts[0], texts[1], "CREATE INDEX CONCURRENTLY j ON t (a);"];
    let patience = Duration::from_millis(300);
    let release = async {
        let tidies = || db.is_asked("DROP INDEX CONCURRENTLY");
        eventually("it takes away what it has left", Duration::from_secs(60), tidies).await;
        run(&mut old, "COMMIT").await;
    };
    let ((report, _), ()) = tokio::join!(up_telling(&db, &texts, patience), release);
    assert_eq!(report.exit_code(), 21, "{:?}", report.failure);
    let text = report.failure.as_ref().unwrap().to_string();
    assert!(text.contains("old one") && text.contains("on t"), "{text}");
    let invalid = "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid";
    assert_eq!(db.ask(invalid).await, Vec::<String>::new());
    old.close().await.unwrap();
}

#[tokio::test]
async fn what_a_light_file_sets_for_its_transaction_ends_with_it() {
    let db = Database::new("settings_end").await;
    let texts = [
        "CREATE SCHEMA app;",
        "SET LOCAL search_path = app; CREATE TABLE a ();",
        "CREATE TABLE b ();",
        "CREATE TEMP TABLE c () ON COMMIT DROP;",
        "CREATE TABLE c ();",
        "INSERT INTO c DEFAULT VALUES;",
    ];
    succeeded(&up(&db, &texts).await);
    let tables =
        "SELECT schemaname || '.' || tablename FROM pg_tables WHERE tablename IN ('a', 'b', 'c') ORDER BY tablename";
    assert_eq!(db.ask(tables).await, ["app.a", "public.b", "public.c"]);
    assert_eq!(db.ask("SELECT count(*)::text FROM public.c").await, ["1"]);
}

#[tokio::test]
async fn light_files_wait_no_longer_than_they_may_and_can_be_stopped() {
    let db = Database::new("same_name").await;
    let mut other = db.server.connect(&db.owner(), &db.name).await;
    run(&mut other, "BEGIN; CREATE TABLE t2 ()").await;
    let texts = ["CREATE TABLE t1 ();", "CREATE TABLE t2 ();", "CREATE TABLE t3 ();"];
    let began = Instant::now();
    let (report, told) = up_telling(&db, &texts, Duration::from_secs(6)).await;
    let took = began.elapsed();
    assert_eq!((report.exit_code(), report.current), (21, 1), "{report:?}");
    assert!(took < Duration::from_secs(15), "{took:?}");
    assert!(told.iter().any(|one| one.starts_with("0002_m.sql ")), "{told:?}");

    // Told twice to stop while they wait together.
    let (stop, heard) = watch::channel(Urgency::No);
    let request = Request {
        lock_timeout: Duration::from_secs(30),
        ..request(
            Goal::Up(None),
            files(&["CREATE TABLE t1 ();", "CREATE TABLE t2 ();", "CREATE TABLE t4 ();"]),
        )
    };
    let mut conn = db.connect().await;
    let stopping = async {
        sleep(Duration::from_millis(300)).await;
        stop.send_replace(Urgency::Now);
        Instant::now()
    };
    let mut quiet = |_: Event<'_>| {};
    let (report, stopped) = tokio::join!(runner::run(&mut conn, &request, heard, &mut quiet), stopping);
    assert!(matches!(report.failure, Some(Failure::Interrupted)), "{report:?}");
    assert!(stopped.elapsed() < Duration::from_secs(5), "{:?}", stopped.elapsed());
    // The program would be at its end now; the server finds that out when it has waited for long enough.
    drop(conn);
    let gone = || async { !db.is_asked("").await };
    eventually("nobody waits there any more", Duration::from_secs(60), gone).await;
    assert_eq!(db.versions().await, [1]);
    run(&mut other, "ROLLBACK").await;
    succeeded(&up(&db, &texts).await);
}

#[tokio::test]
async fn light_files_share_a_transaction_and_fail_alone() {
    let db = Database::new("light").await;
    let mut texts: Vec<String> = (0..30)
        .map(|i| format!("CREATE TABLE t{i} (id int PRIMARY KEY);"))
        .collect();
    texts[20] = "SELECT 1;\nCREATE TABLE t20 (id nosuch);".to_owned();
    let borrowed: Vec<&str> = texts.iter().map(String::as_str).collect();
    let report = up(&db, &borrowed).await;
    let failed = statement(&report);
    assert_eq!((failed.file.as_str(), failed.line), ("0021_m.sql", Some(2)));
    assert_eq!((report.current, report.done, db.versions().await.len()), (20, 20, 20));
    texts[20] = "CREATE TABLE t20 (id int);".to_owned();
    let borrowed: Vec<&str> = texts.iter().map(String::as_str).collect();
    succeeded(&up(&db, &borrowed).await);
    let transactions = "SELECT count(DISTINCT xmin::text)::text FROM _sqlx_migrations WHERE version > 20";
    assert_eq!(db.ask(transactions).await, ["1"]);
    let run = db.state().await.latest_run.unwrap();
    assert_eq!((run.done, run.current_version), (10, 30));
}

#[tokio::test]
async fn beside_sqlx_nothing_runs_twice() {
    let db = Database::new("beside").await;
    let mut five = super::FIVE;
    five[0].1 = held(five[0].1);
    let migrator = sqlx_migrator(&five, "beside").await;
    let (mut theirs, gate) = (db.connect().await, db.gate().await);
    let late = async {
        db.stands(1).await;
        migrator.run_direct(None, &mut theirs, false).await
    };
    let open = async {
        // the file, and sqlx before the migration lock
        db.stands(2).await;
        gate.close().await.unwrap();
    };
    let (ours, theirs_ended, ()) = tokio::join!(db.up(&five), late, open);
    succeeded(&ours);
    theirs_ended.unwrap();
    assert_eq!(ours.done, 5, "sqlx waited and found all done");
    let other = Database::new("beside_too").await;
    let (mut theirs, gate) = (other.connect().await, other.gate().await);
    let late = async {
        other.stands(1).await;
        other.up(&five).await
    };
    let open = async {
        let asks = || other.is_asked("pg_try_advisory_lock");
        eventually("we ask for the lock", Duration::from_secs(60), asks).await;
        gate.close().await.unwrap();
    };
    let (theirs_ended, ours, ()) = tokio::join!(migrator.run_direct(None, &mut theirs, false), late, open);
    theirs_ended.unwrap();
    succeeded(&ours);
    assert_eq!((ours.done, ours.current), (0, 5), "we waited and found all done");
}
