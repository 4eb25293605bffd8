//! What a run has reported is on the disk: no commit waits for it but the last, which waits for all of them, also after a
//! failure. The server dies in the moment in which the runner has ended.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use sqlx::{ConnectOptions, PgConnection, Row, postgres::PgConnectOptions, raw_sql};

use super::command::{Dir, output};
use crate::support::{postmaster::Postmaster, process::eventually};

/// Between two rounds of the WAL writer, the only one beside a commit that waits to write anything down here.
const ROUND: Duration = Duration::from_secs(10);

async fn connect(server: &Postmaster) -> PgConnection {
    let login = PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(server.port);
    let login = login
        .username("postgres")
        .password(&server.password)
        .database("postgres");
    login.connect().await.unwrap()
}

/// A run: the exit code, and what it said.
async fn up(server: &Postmaster, dir: &Dir) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_amas-operator"));
    command.args(["migrate", "up", "--dir"]).arg(dir.path());
    let url = format!(
        "postgres://postgres:{}@127.0.0.1:{}/postgres",
        server.password, server.port
    );
    command.env("DATABASE_URL", url).stdin(Stdio::null());
    let (code, _, error) = output(command).await;
    (code, error)
}

/// A run, after which the server is killed and started again. The exit code, and whether a commit that nobody waited for,
/// right after the run, was lost as it has to be for the rest to mean anything.
async fn run_and_crash(server: &mut Postmaster, dir: &Dir) -> (i32, String) {
    let launched = Instant::now();
    server.launch();
    server.wait_until_ready().await;
    let mut conn = connect(server).await;
    raw_sql("SET synchronous_commit = off")
        .execute(&mut conn)
        .await
        .unwrap();
    let (code, error) = up(server, dir).await;
    raw_sql("CREATE TABLE unwaited ()").execute(&mut conn).await.unwrap();
    server.kill();
    let in_time = launched.elapsed() < ROUND - Duration::from_secs(1);
    server.launch();
    server.wait_until_ready().await;
    let row = raw_sql("SELECT to_regclass('unwaited') IS NULL")
        .fetch_one(&mut connect(server).await)
        .await
        .unwrap();
    let lost: bool = row.get(0);
    assert!(
        lost || !in_time,
        "the server writes down what nobody waits for: this test shows nothing"
    );
    (code, error)
}

/// How often the server has waited for its log to be on the disk.
async fn syncs(server: &Postmaster) -> i64 {
    let mut conn = connect(server).await;
    let row = raw_sql("SELECT wal_sync FROM pg_stat_wal")
        .fetch_one(&mut conn)
        .await
        .unwrap();
    row.get(0)
}

#[tokio::test]
async fn a_batch_waits_for_the_disk_a_few_times_however_long_it_is() {
    const FILES: usize = 200;
    let mut server = Postmaster::prepare();
    server.configure(
        "wal_writer_delay = '10s'\nwal_writer_flush_after = '1GB'\nautovacuum = off\ncheckpoint_timeout = '1h'\n",
    );
    server.wait_for_disks();
    server.launch();
    server.wait_until_ready().await;
    let dir = Dir::new("syncs");
    for version in 1..=FILES {
        // A transaction of its own.
        dir.file(
            &format!("{version:04}_t.sql"),
            &format!("CREATE TABLE t{version} (); DO $$ BEGIN END $$;"),
        );
    }
    let before = syncs(&server).await;
    let (code, error) = up(&server, &dir).await;
    assert_eq!(code, 0, "{error}");
    // A session's own count is published when it has ended.
    eventually("the run's session is gone", Duration::from_secs(60), || async {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'amas-migrate'";
        let row = raw_sql(sql).fetch_one(&mut connect(&server).await).await.unwrap();
        row.get::<i64, _>(0) == 0
    })
    .await;
    let waited = syncs(&server).await - before;
    println!("{FILES} transactions of migrations wait for the disk {waited} times");
    assert!((1..=10).contains(&waited), "{waited}");
}

async fn recorded(server: &Postmaster) -> Vec<String> {
    let sql = "SELECT 'version ' || version FROM _sqlx_migrations UNION ALL SELECT 'table ' || relname FROM pg_class WHERE relname ~ '^kept' \
               UNION ALL SELECT 'told ' || version FROM amas_migrate.history UNION ALL SELECT 'run ' || outcome FROM amas_migrate.runs ORDER BY 1";
    let rows = raw_sql(sql).fetch_all(&mut connect(server).await).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn what_was_applied_outlives_the_server() {
    let mut server = Postmaster::prepare();
    server.configure("wal_writer_delay = '10s'\nwal_writer_flush_after = '1GB'\nautovacuum = off\n");
    server.wait_for_disks();
    let dir = Dir::new("durable");
    for version in 1..=3 {
        dir.file(
            &format!("{version}_kept.sql"),
            &format!("CREATE TABLE kept{version} ();"),
        );
    }
    dir.file("4_last.sql", "CREATE TABLE kept4 (); SELECT 1/0;");
    let (code, error) = run_and_crash(&mut server, &dir).await;
    assert_eq!(code, 10, "{error}");
    let mut expected = vec!["run failed", "table kept1", "table kept2", "table kept3"];
    expected.extend(["told 1", "told 2", "told 3", "version 1", "version 2", "version 3"]);
    assert_eq!(recorded(&server).await, expected);

    dir.file("4_last.sql", "CREATE TABLE kept4 ();");
    server.kill();
    let (code, error) = run_and_crash(&mut server, &dir).await;
    assert_eq!(code, 0, "{error}");
    let mut expected = vec![
        "run failed",
        "run succeeded",
        "table kept1",
        "table kept2",
        "table kept3",
        "table kept4",
    ];
    expected.extend(["told 1", "told 2", "told 3", "told 4"]);
    expected.extend(["version 1", "version 2", "version 3", "version 4"]);
    assert_eq!(recorded(&server).await, expected);
}
