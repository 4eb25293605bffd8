//! M4: how long queries of a running application stand still while a migration waits for a lock that others hold, and when it is done.

use std::{
    fs,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use sqlx::{AssertSqlSafe, raw_sql};
use tokio::{sync::Notify, time::sleep};

use super::{fresh, median, postgres::Postgres};

/// How long the other transaction stays open.
const OPEN: Duration = Duration::from_secs(4);
const TABLES: &[&str] = &[
    "CREATE TABLE busy AS SELECT generate_series(1, 1000) AS id",
    "CREATE INDEX ON busy (id)",
    "CREATE TABLE free AS TABLE busy",
];
/// A table that autovacuum needs many seconds for.
const VACUUMED: &[&str] = &[
    "CREATE TABLE busy (id int, filler text) WITH (autovacuum_vacuum_threshold = 1, autovacuum_vacuum_scale_factor = 0, \
     autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1)",
    "INSERT INTO busy SELECT i, repeat('x', 500) FROM generate_series(1, 5000) i",
    "DELETE FROM busy WHERE id % 2 = 0",
];

/// Who holds locks on `busy`.
#[derive(Clone, Copy)]
enum Others {
    /// One transaction that has read it and stays open for [`OPEN`].
    OpenTransaction,
    /// So many connections that read it for 50 ms again and again.
    Readers(usize),
    Autovacuum,
}

struct Case {
    others: Others,
    /// The table that the application reads, whose longest query counts.
    watched: &'static str,
    change: &'static str,
}

/// The longest query of the application, the time until the change was in, and what the runner said meanwhile.
struct Seen {
    stall: Duration,
    total: Duration,
    said: String,
}

impl Others {
    fn tables(self) -> &'static [&'static str] {
        match self {
            Self::Autovacuum => VACUUMED,
            Self::OpenTransaction | Self::Readers(_) => TABLES,
        }
    }

    /// Is in the way until its time is over, or until `done`.
    async fn hold(self, server: &Postgres, database: &str, under_way: &Notify, done: &AtomicBool) {
        match self {
            Self::OpenTransaction => {
                let mut holder = server.connect("postgres", database).await;
                raw_sql("BEGIN; SELECT count(*) FROM busy")
                    .execute(&mut holder)
                    .await
                    .unwrap();
                under_way.notify_one();
                sleep(OPEN).await;
                raw_sql("COMMIT").execute(&mut holder).await.unwrap();
            }
            Self::Readers(count) => {
                let reader = async |number: u64| {
                    let mut connection = server.connect("postgres", database).await;
                    sleep(Duration::from_millis(7 * number)).await;
                    under_way.notify_one();
                    while !done.load(Ordering::Relaxed) {
                        raw_sql("SELECT pg_sleep(0.05) FROM busy LIMIT 1")
                            .execute(&mut connection)
                            .await
                            .expect("no query of the application fails");
                    }
                };
                futures::future::join_all((0..count as u64).map(reader)).await;
            }
            Self::Autovacuum => {
                let mut connection = server.connect("postgres", database).await;
                let working = "SELECT 1 FROM pg_stat_progress_vacuum WHERE relid = 'busy'::regclass";
                let began = Instant::now();
                while raw_sql(working)
                    .fetch_optional(&mut connection)
                    .await
                    .unwrap()
                    .is_none()
                {
                    assert!(began.elapsed() < Duration::from_secs(60), "autovacuum does not begin");
                    sleep(Duration::from_millis(20)).await;
                }
                under_way.notify_one();
            }
        }
    }
}

/// An application that reads `table` until `done`: its longest query.
async fn application(server: &Postgres, database: &str, table: &str, done: &AtomicBool) -> Duration {
    let mut connection = server.connect("postgres", database).await;
    let query = format!("SELECT 1 FROM {table} WHERE id = 7");
    let mut longest = Duration::ZERO;
    while !done.load(Ordering::Relaxed) {
        let began = Instant::now();
        raw_sql(AssertSqlSafe(query.as_str()))
            .execute(&mut connection)
            .await
            .expect("no query of the application fails");
        longest = longest.max(began.elapsed());
        sleep(Duration::from_millis(2)).await;
    }
    longest
}

/// One round: the others, an application, and `change`, which tells what it said.
async fn round(server: &Postgres, database: &str, case: &Case, change: impl AsyncFnOnce() -> String) -> Seen {
    fresh(server, database).await;
    server.admin(database, case.others.tables()).await;
    let (under_way, done) = (Notify::new(), AtomicBool::new(false));
    let changing = async {
        under_way.notified().await;
        sleep(Duration::from_millis(200)).await;
        let began = Instant::now();
        let said = change().await;
        done.store(true, Ordering::Relaxed);
        (said, began.elapsed())
    };
    let (stall, (), (said, total)) = tokio::join!(
        application(server, database, case.watched, &done),
        case.others.hold(server, database, &under_way, &done),
        changing
    );
    Seen { stall, total, said }
}

/// As somebody would do it by hand.
async fn plain(server: &Postgres, case: &Case) -> Seen {
    round(server, "plain", case, async || {
        let mut session = server.connect("postgres", "plain").await;
        raw_sql(case.change).execute(&mut session).await.unwrap();
        String::new()
    })
    .await
}

async fn ours(server: &Postgres, case: &Case) -> Seen {
    let dir = std::env::temp_dir().join(format!("amas-bench-{}-stall", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("1_change.sql"), case.change).unwrap();
    let url = server.url("postgres", "ladder");
    let seen = round(server, "ladder", case, async || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_amas-operator"));
        command
            .args(["migrate", "up", "--dir"])
            .arg(&dir)
            .env("DATABASE_URL", url)
            .stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || command.output().unwrap())
            .await
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        said
    })
    .await;
    let _ = fs::remove_dir_all(&dir);
    seen
}

fn stall(seen: &[Seen]) -> Duration {
    median(seen.iter().map(|seen| seen.stall))
}

fn total(seen: &[Seen]) -> Duration {
    median(seen.iter().map(|seen| seen.total))
}

/// Both ways in turn.
async fn rounds(server: &Postgres, count: usize, case: &Case) -> (Vec<Seen>, Vec<Seen>) {
    let (mut by_hand, mut own) = (Vec::new(), Vec::new());
    for _ in 0..count {
        by_hand.push(plain(server, case).await);
        own.push(ours(server, case).await);
    }
    (by_hand, own)
}

pub async fn measure(rounds_wanted: usize) {
    let count = rounds_wanted.min(3);
    let server = Postgres::start_with(&[("autovacuum_naptime", "1s")]).await;
    let case = |others, watched, change| Case {
        others,
        watched,
        change,
    };
    const ADD: &str = "ALTER TABLE busy ADD COLUMN extra int";

    let (by_hand, own) = rounds(&server, count, &case(Others::OpenTransaction, "busy", ADD)).await;
    println!(
        "M4 behind a transaction open for {OPEN:?}: longest application query {:.1?}, with a plain ALTER {:.1?}, {:.0} times shorter (at least 50); total {:.2?} / {:.2?} = {:.2} (at most 1.1)",
        stall(&own),
        stall(&by_hand),
        stall(&by_hand).as_secs_f64() / stall(&own).as_secs_f64(),
        total(&own),
        total(&by_hand),
        total(&own).as_secs_f64() / total(&by_hand).as_secs_f64()
    );
    for readers in [8, 16] {
        let (by_hand, own) = rounds(&server, count, &case(Others::Readers(readers), "busy", ADD)).await;
        println!(
            "M4 {readers} readers of 50 ms back to back: done in {:.2?} (at most 5 s), by hand {:.2?}; longest application query {:.1?} (at most 120 ms), by hand {:.1?}",
            total(&own),
            total(&by_hand),
            stall(&own),
            stall(&by_hand)
        );
    }
    let (by_hand, own) = rounds(&server, count, &case(Others::Autovacuum, "busy", ADD)).await;
    let named = own.iter().filter(|seen| seen.said.contains("autovacuum")).count();
    println!(
        "M4 while autovacuum works on the table: done in {:.2?} (at most 3 s), by hand {:.2?}; longest application query {:.2?} (at most 1.3 s), by hand {:.2?}; named in the log in {named} of {count} rounds",
        total(&own),
        total(&by_hand),
        stall(&own),
        stall(&by_hand)
    );
    let both = "ALTER TABLE free ADD COLUMN extra int;\nALTER TABLE busy ADD COLUMN extra int;";
    let (by_hand, own) = rounds(&server, count, &case(Others::OpenTransaction, "free", both)).await;
    println!(
        "M4 two tables, one of them behind a transaction open for {OPEN:?}: longest query on the other {:.1?} (at most 30 ms), by hand {:.1?}",
        stall(&own),
        stall(&by_hand)
    );
}
