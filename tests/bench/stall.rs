//! M4: how long queries of a running application stand still while a migration waits behind somebody's open transaction.

use std::{
    fs,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use sqlx::{AssertSqlSafe, raw_sql};

use super::{fresh, postgres::Postgres};

/// How long the other transaction stays open.
const OPEN: Duration = Duration::from_secs(4);
const CHANGE: &str = "ALTER TABLE busy ADD COLUMN extra int";

/// The longest query of the application, and the time until the change was in.
struct Seen {
    stall: Duration,
    total: Duration,
}

/// One round: an open transaction that has read the table, an application that reads it all the time, and `change`.
async fn round(server: &Postgres, database: &str, change: impl AsyncFnOnce()) -> Seen {
    fresh(server, database).await;
    server
        .admin(
            database,
            &[
                "CREATE TABLE busy AS SELECT generate_series(1, 1000) AS id",
                "CREATE INDEX ON busy (id)",
            ],
        )
        .await;
    let mut holder = server.connect("postgres", database).await;
    raw_sql("BEGIN; SELECT count(*) FROM busy")
        .execute(&mut holder)
        .await
        .unwrap();
    let opened = Instant::now();
    let stop = Arc::new(AtomicBool::new(false));
    let mut application = server.connect("postgres", database).await;
    let reader = async {
        let mut longest = Duration::ZERO;
        while !stop.load(Ordering::Relaxed) {
            let began = Instant::now();
            raw_sql("SELECT 1 FROM busy WHERE id = 7")
                .execute(&mut application)
                .await
                .expect("no query of the application fails");
            longest = longest.max(began.elapsed());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        longest
    };
    let holding = async {
        tokio::time::sleep_until((opened + OPEN).into()).await;
        raw_sql("COMMIT").execute(&mut holder).await.unwrap();
    };
    let changing = async {
        let began = Instant::now();
        change().await;
        stop.store(true, Ordering::Relaxed);
        began.elapsed()
    };
    let (stall, (), total) = tokio::join!(reader, holding, changing);
    Seen { stall, total }
}

async fn plain(server: &Postgres) -> Seen {
    round(server, "plain", async || {
        let mut session = server.connect("postgres", "plain").await;
        raw_sql(AssertSqlSafe(CHANGE)).execute(&mut session).await.unwrap();
    })
    .await
}

async fn ours(server: &Postgres) -> Seen {
    let dir = std::env::temp_dir().join(format!("amas-bench-{}-stall", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("1_extra.up.sql"), CHANGE).unwrap();
    fs::write(dir.join("1_extra.down.sql"), "ALTER TABLE busy DROP COLUMN extra").unwrap();
    let url = server.url("postgres", "ladder");
    let seen = round(server, "ladder", async || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_amas-operator"));
        command
            .args(["migrate", "up", "--dir"])
            .arg(&dir)
            .env("DATABASE_URL", url)
            .stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || command.output().unwrap())
            .await
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    })
    .await;
    let _ = fs::remove_dir_all(&dir);
    seen
}

pub async fn measure(server: &Postgres, rounds: usize) {
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..rounds.min(3) {
        without.push(plain(server).await);
        with.push(ours(server).await);
    }
    let median = |seen: &[Seen], of: fn(&Seen) -> Duration| {
        let mut times: Vec<_> = seen.iter().map(of).collect();
        times.sort();
        times[times.len() / 2]
    };
    let [stall, longest] = [&with, &without].map(|seen| median(seen, |seen| seen.stall));
    let [total, least] = [&with, &without].map(|seen| median(seen, |seen| seen.total));
    println!(
        "M4 behind a transaction open for {OPEN:?}: longest application query {stall:.1?}, with a plain ALTER {longest:.1?}, {:.0} times shorter (at least 50); total {total:.2?} / {least:.2?} = {:.2} (at most 1.1)",
        longest.as_secs_f64() / stall.as_secs_f64(),
        total.as_secs_f64() / least.as_secs_f64()
    );
}
