//! What cannot run, or stops in its middle: a clear message, the right exit code, and nothing lost or half done.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use sqlx::ConnectOptions;

use super::{Dir, command, output};
use crate::migrate::{Database, FIVE};
use crate::support::{
    pgbouncer::PgBouncer,
    postgres,
    postmaster::Postmaster,
    process::{Process, eventually, free_port},
};

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, note text);";

fn folder(name: &str, texts: &[&str]) -> Dir {
    let dir = Dir::new(name);
    for (index, text) in texts.iter().enumerate() {
        dir.file(&format!("{:04}_m.sql", index + 1), text);
    }
    dir
}

/// Runs `up`: the exit code, and what it said.
async fn up(db: &Database, dir: &Dir) -> (i32, String) {
    let (code, _, said) = output(command(db, &["up"], &[("--dir", dir.path())])).await;
    (code, said)
}

fn says(said: &str, words: &[&str]) {
    for word in words {
        assert!(said.contains(word), "{word}: {said}");
    }
}

#[tokio::test]
async fn what_needs_psql_is_refused_before_anything_runs() {
    let db = Database::new("meta").await;
    let cases = [
        ("SELECT 1;\n\\d t\n", "0002_m.sql:2:1: \\d is a command of psql"),
        (
            "SELECT 1;\n\n\\copy t from 'x'\n",
            "0002_m.sql:3:1: \\copy is a command of psql",
        ),
        ("\\connect other\nSELECT 1;", "0002_m.sql:1:1: \\connect is a command"),
        (
            "COPY t FROM stdin;\n1\tone\n\\.\n",
            "0002_m.sql:1:1: COPY from or to the client",
        ),
        (
            "INSERT INTO t VALUES (1);\nCOMMIT;\nSELECT 1/0;",
            "0002_m.sql:2:1: COMMIT inside a migration",
        ),
    ];
    for (sql, words) in cases {
        let (code, said) = up(&db, &folder("meta", &[TABLE, sql])).await;
        assert_eq!(code, 11, "{sql}: {said}");
        says(&said, &[words, "nothing was run"]);
        assert_eq!(db.ask("SELECT to_regclass('t')::text").await, ["NULL"], "{sql}");
    }
}

#[tokio::test]
async fn what_is_no_file_or_no_set_is_refused_before_anything_runs() {
    let db = Database::new("no_set").await;
    let cases: [(&str, &[u8], &str); 5] = [
        (
            "0002_m.sql",
            b"\xEF\xBB\xBFSELECT 1;",
            "0002_m.sql: starts with a byte order mark",
        ),
        ("0002_m.sql", b"\xFF\xFES\0E\0", "0002_m.sql: is UTF-16"),
        ("0002_m.sql", b"SELECT 1;\n-- caf\xE9\n", "0002_m.sql:2:7: is not UTF-8"),
        ("0002_m.sql", b" \r\n", "0002_m.sql: is empty"),
        ("001_again.sql", b"SELECT 1;", "version 1 is already taken by"),
    ];
    let records = "SELECT count(*)::text || ' ' || max(installed_on) FROM _sqlx_migrations \
                   UNION ALL SELECT count(*)::text || ' ' || coalesce(max(id), 0) FROM amas_migrate.runs";
    let refused = async |expected: &[&str], look: &str| {
        for (name, content, words) in cases {
            let dir = folder("no_set", &[TABLE]);
            fs::write(dir.path().join(name), content).unwrap();
            let (code, said) = up(&db, &dir).await;
            assert_eq!(code, 11, "{words}: {said}");
            says(&said, &[words]);
            assert_eq!(db.ask(look).await, expected, "{words}");
        }
    };
    let made = "SELECT to_regclass('t')::text UNION ALL SELECT to_regclass('_sqlx_migrations')::text \
                UNION ALL SELECT to_regnamespace('amas_migrate')::text";
    refused(&["NULL", "NULL", "NULL"], made).await;
    // the same where the records are there
    let (code, said) = up(&db, &folder("no_set", &[TABLE])).await;
    assert_eq!(code, 0, "{said}");
    let before = db.ask(records).await;
    refused(&before.iter().map(String::as_str).collect::<Vec<_>>(), records).await;
    assert_eq!(db.versions().await, [1]);
}

#[tokio::test]
async fn line_ends_of_windows_count_as_one() {
    let db = Database::new("windows_lines").await;
    let sql = "-- made elsewhere\r\nINSERT INTO t VALUES (1);\r\n\r\nSELECT id,\r\n       nosuch\r\nFROM t;\r\n";
    let (code, said) = up(&db, &folder("windows_lines", &[TABLE, sql])).await;
    assert_eq!(code, 10, "{said}");
    says(
        &said,
        &["0002_m.sql:5:8: column \"nosuch\" does not exist (SQLSTATE 42703)"],
    );
    // in a body, whose lines the server counts by itself
    let body = "SELECT 1;\r\nDO $$\r\nBEGIN\r\n  PERFORM 1;\r\n  INSERT INTO nowhere VALUES (1);\r\nEND $$;\r\n";
    let (code, said) = up(&db, &folder("windows_lines", &[TABLE, body])).await;
    assert_eq!(code, 10, "{said}");
    says(
        &said,
        &["0002_m.sql:5:15: relation \"nowhere\" does not exist (SQLSTATE 42P01)"],
    );
    assert_eq!(db.versions().await, [1]);
}

/// Two transactions of its own in one file: what the first has committed stays, the record says that it is half way.
#[tokio::test]
async fn a_file_that_commits_by_itself_goes_on_where_it_stopped() {
    let db = Database::new("commits").await;
    let own = "-- no-transaction\nBEGIN;\nINSERT INTO t VALUES (1);\nCOMMIT;\nBEGIN;\nINSERT INTO t VALUES (2);\n";
    let (code, said) = up(
        &db,
        &folder("commits", &[TABLE, &format!("{own}SELECT 1/0;\nCOMMIT;\n")]),
    )
    .await;
    assert_eq!(code, 10, "{said}");
    says(&said, &["0002_m.sql:7: division by zero (SQLSTATE 22012)"]);
    assert_eq!(db.ask("SELECT id::text FROM t").await, ["1"]);
    let (code, said) = up(&db, &folder("commits", &[TABLE, &format!("{own}COMMIT;\n")])).await;
    assert_eq!(code, 0, "{said}");
    assert_eq!(
        db.ask("SELECT id::text FROM t ORDER BY id").await,
        ["1", "2"],
        "nothing runs twice"
    );
}

#[tokio::test]
async fn a_role_without_rights_is_told_which() {
    let db = Database::new("no_rights").await;
    let dir = folder("no_rights", &[TABLE, "ALTER SYSTEM SET work_mem = '1MB';"]);
    // the application's role may make no schema
    let mut stranger = command(&db, &["up"], &[("--dir", dir.path())]);
    stranger.env("DATABASE_URL", db.server.url("no_rights_app", &db.name));
    let (code, _, said) = output(stranger).await;
    assert_eq!(code, 16, "{said}");
    says(
        &said,
        &["permission denied for schema public", "42501", "grant the right"],
    );
    // the owner is no superuser
    let (code, said) = up(&db, &dir).await;
    assert_eq!(code, 10, "{said}");
    says(&said, &["0002_m.sql:1: permission denied", "42501", "grant the right"]);
    assert_eq!(db.versions().await, [1]);
}

#[tokio::test]
async fn a_statements_time_is_up() {
    let db = Database::new("timed").await;
    let slow = "INSERT INTO t VALUES (1);\nSET LOCAL statement_timeout = '100ms';\nSELECT pg_sleep(30);";
    let (code, said) = up(&db, &folder("timed", &[TABLE, slow])).await;
    assert_eq!(code, 24, "{said}");
    says(
        &said,
        &[
            "0002_m.sql:3: canceling statement due to statement timeout (SQLSTATE 57014)",
            "sets a statement_timeout",
        ],
    );
    assert_eq!(
        (db.ask("SELECT count(*)::text FROM t").await, db.versions().await),
        (vec!["0".to_owned()], vec![1])
    );
    // that of the role is the application's, not the migration's
    let role = format!("ALTER ROLE {} SET statement_timeout = '100ms'", db.owner());
    db.server.admin(&db.name, &[&role]).await;
    let (code, said) = up(&db, &folder("timed", &[TABLE, "SELECT pg_sleep(0.4);"])).await;
    assert_eq!(code, 0, "{said}");
}

#[tokio::test]
async fn five_megabytes_are_one_file() {
    let db = Database::new("large").await;
    let rows: Vec<String> = (0..40_000)
        .map(|id| format!("({id}, '{}; it''s {id}')", "x".repeat(100)))
        .collect();
    let large = format!("INSERT INTO t VALUES\n{};\n", rows.join(",\n"));
    assert!(large.len() > 5_000_000);
    let dir = folder("large", &[TABLE, &large]);
    let began = Instant::now();
    let (code, said) = up(&db, &dir).await;
    assert_eq!(code, 0, "{said}");
    println!("a file of {} bytes: {:?}", large.len(), began.elapsed());
    assert_eq!(db.ask("SELECT count(*)::text FROM t").await, ["40000"]);
    assert_eq!(up(&db, &dir).await.0, 0, "and its checksum is right");
    let broken = format!("{large}INSERT INTO t VALUES (1, nosuch);");
    let (code, said) = up(&db, &folder("large", &[TABLE, &large, &broken])).await;
    assert_eq!(code, 10, "{}", said.len());
    assert!(said.len() < 5_000, "{} bytes of error", said.len());
}

#[tokio::test]
async fn a_pooler_is_refused_before_the_first_statement() {
    let server = Postmaster::start().await;
    let dir = folder("pooled", &[TABLE]);
    for (mode, ignore) in [("transaction", ""), ("transaction", "options"), ("session", "options")] {
        let users = [("postgres", server.password.as_str())];
        let Some(pooler) = PgBouncer::start(server.port, &users, mode, ignore).await else {
            return;
        };
        let mut up = Command::new(env!("CARGO_BIN_EXE_amas-operator"));
        up.args(["migrate", "up", "--dir"])
            .arg(dir.path())
            .args(["--connect-timeout", "5s"])
            .env("PGPASSWORD", &server.password)
            .env(
                "DATABASE_URL",
                format!("postgres://postgres@127.0.0.1:{}/postgres", pooler.port),
            );
        let (code, _, said) = output(up).await;
        assert_eq!(code, 16, "{mode} {ignore}: {said}");
        says(&said, &["a connection pooler answers", "address of the server itself"]);
    }
    assert!(!server.log().contains("amas_migrate"), "{}", server.log());
}

/// A server in a mount namespace of its own, where its data is on a disk of this size. Both go with it.
struct SmallDisk {
    process: Process,
    port: u16,
    directory: PathBuf,
}

impl SmallDisk {
    async fn start(megabytes: u32) -> Self {
        let port = free_port();
        let directory = std::env::temp_dir().join(format!("amas-small-disk-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let bin = postgres::bin();
        let bin = bin.display();
        let user = "setpriv --reuid postgres --regid postgres --init-groups --";
        let place = directory.display();
        let script = format!(
            "mount -t tmpfs -o size={megabytes}m,mode=0755 tmpfs {place} && chown postgres {place} && cd {place} && \
             {user} {bin}/initdb -A trust -U postgres --no-sync --wal-segsize=1 -D {place}/data >/dev/null && \
             exec {user} {bin}/postgres -D {place}/data -p {port} -k '' -h 127.0.0.1 -F \
             -c min_wal_size=2MB -c max_wal_size=4MB -c autovacuum=off"
        );
        let mut alone = Command::new("unshare");
        alone.args(["--mount", "--propagation", "private", "sh", "-c", &script]);
        let process = Process::spawn(&mut alone, &directory.with_extension("log"));
        let server = Self {
            process,
            port,
            directory,
        };
        let answers = || async { server.login().connect().await.is_ok() };
        eventually("the server on a small disk answers", Duration::from_secs(60), answers).await;
        server
    }

    fn login(&self) -> sqlx::postgres::PgConnectOptions {
        let options = sqlx::postgres::PgConnectOptions::new_without_pgpass();
        options
            .host("127.0.0.1")
            .port(self.port)
            .username("postgres")
            .database("postgres")
    }

    async fn up(&self, dir: &Dir) -> (i32, String) {
        let mut up = Command::new(env!("CARGO_BIN_EXE_amas-operator"));
        up.args(["migrate", "up", "--dir"]).arg(dir.path()).env(
            "DATABASE_URL",
            format!("postgres://postgres@127.0.0.1:{}/postgres", self.port),
        );
        let (code, _, said) = output(up).await;
        (code, said)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        self.process.signal("QUIT");
        self.process.wait();
        let _ = fs::remove_dir_all(&self.directory);
        let _ = fs::remove_file(self.directory.with_extension("log"));
    }
}

#[tokio::test]
async fn a_full_disk_leaves_what_was_there() {
    let server = SmallDisk::start(80).await;
    // not logged, so that the disk is full with the table and not with the log, which would end the server
    let fill = "CREATE UNLOGGED TABLE big AS SELECT i, repeat('x', 1000) AS filler FROM generate_series(1, 200000) i;";
    let (code, said) = server.up(&folder("full", &[TABLE, fill])).await;
    assert_eq!(code, 24, "{said}");
    says(
        &said,
        &[
            "0002_m.sql:1: ",
            "No space left on device",
            "53100",
            "make room on the server's disk, then run it again",
        ],
    );
    let (code, said) = server
        .up(&folder("full", &[TABLE, &fill.replace("200000", "200")]))
        .await;
    assert_eq!(code, 0, "{said}");
    says(&said, &["up from version 1 to 2"]);
}

#[tokio::test]
async fn a_standby_is_read_only() {
    let mut server = Postmaster::start().await;
    let dir = Dir::of("standby", &FIVE);
    let run = async |server: &Postmaster| {
        let mut up = Command::new(env!("CARGO_BIN_EXE_amas-operator"));
        up.args(["migrate", "up", "--dir"])
            .arg(dir.path())
            .env("PGPASSWORD", &server.password)
            .env(
                "DATABASE_URL",
                format!("postgres://postgres@127.0.0.1:{}/postgres", server.port),
            );
        output(up).await
    };
    server.become_standby().await;
    let (code, _, said) = run(&server).await;
    assert_eq!(code, 16, "{said}");
    says(&said, &["read-only", "25006", "the address of the primary"]);
    assert!(!said.contains(&server.password));
}
