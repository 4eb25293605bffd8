//! `make bench-migrate`: what migrations cost beside the least they can cost, and beside another tool, in interleaved rounds on one server.
//!
//! Each figure is the median over the rounds; the first round is dropped. The floor is one `psql` session that sends the same statements in one
//! transaction, without a history. The other tool is sqlx 0.9's own migrator, as a library in this process: it saves its start.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(dead_code)] // what only the tests use
#[path = "../support/postgres.rs"]
mod postgres;
mod stall;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use postgres::Postgres;
use sqlx_core::migrate::Migrator;

const LIGHT: usize = 1_000;
const LONG: usize = 10_000;

/// A folder of migrations and all their up statements in one file.
struct Set {
    dir: PathBuf,
    all: PathBuf,
}

impl Set {
    /// Versions 1 to `count`; each makes one small table.
    fn light(count: usize) -> Self {
        let dir = std::env::temp_dir().join(format!("amas-bench-{}-{count}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let mut all = String::new();
        for version in 1..=count {
            let up = format!("CREATE TABLE t{version} (id int NOT NULL, note text);\n");
            all.push_str(&up);
            fs::write(dir.join(format!("{version:05}_t{version}.up.sql")), up).unwrap();
            fs::write(
                dir.join(format!("{version:05}_t{version}.down.sql")),
                format!("DROP TABLE t{version};\n"),
            )
            .unwrap();
        }
        let file = dir.join("all.psql");
        fs::write(&file, all).unwrap();
        Self { dir, all: file }
    }

    /// The same files with statements that do nothing, for a long history that costs no tables.
    fn idle(count: usize) -> Self {
        let set = Self::light(count);
        for version in 1..=count {
            fs::write(set.dir.join(format!("{version:05}_t{version}.up.sql")), "SELECT 1;\n").unwrap();
        }
        set
    }
}

impl Drop for Set {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Times of one arm over the rounds.
#[derive(Default)]
struct Times(Vec<Duration>);

impl Times {
    fn median(&self) -> Duration {
        let mut kept = self.0[1.min(self.0.len() - 1)..].to_vec();
        kept.sort();
        kept[kept.len() / 2]
    }
}

fn timed(command: &mut Command) -> Duration {
    let began = Instant::now();
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    began.elapsed()
}

fn ours(url: &str, dir: &Path) -> Duration {
    let mut command = Command::new(env!("CARGO_BIN_EXE_amas-operator"));
    timed(
        command
            .args(["migrate", "up", "--dir"])
            .arg(dir)
            .env("DATABASE_URL", url),
    )
}

fn floor(url: &str, all: &Path) -> Duration {
    timed(
        Command::new("psql")
            .args(["-X", "-q", "-1", "-v", "ON_ERROR_STOP=1", "-d", url, "-f"])
            .arg(all),
    )
}

async fn sqlx(server: &Postgres, database: &str, dir: &Path) -> Duration {
    let began = Instant::now();
    let migrator = Migrator::new(dir).await.unwrap();
    migrator
        .run_direct(None, &mut server.connect("postgres", database).await, false)
        .await
        .unwrap();
    began.elapsed()
}

async fn fresh(server: &Postgres, database: &str) {
    let drop = format!("DROP DATABASE IF EXISTS {database}");
    let create = format!("CREATE DATABASE {database} TEMPLATE template0");
    server.admin("postgres", &[&drop, &create, "CHECKPOINT"]).await;
}

/// M1: a thousand light migrations.
async fn light(server: &Postgres, rounds: usize) -> (Times, Times, Times) {
    let set = Set::light(LIGHT);
    let (mut least, mut own, mut other) = (Times::default(), Times::default(), Times::default());
    for _ in 0..=rounds {
        fresh(server, "floor").await;
        least.0.push(floor(&server.url("postgres", "floor"), &set.all));
        fresh(server, "ours").await;
        own.0.push(ours(&server.url("postgres", "ours"), &set.dir));
        fresh(server, "sqlx").await;
        other.0.push(sqlx(server, "sqlx", &set.dir).await);
    }
    (least, own, other)
}

/// M2: nothing to do, with a thousand and with ten thousand applied.
async fn nothing_to_do(server: &Postgres, rounds: usize) -> (Times, Times, Times) {
    let (short, long) = (Set::idle(LIGHT), Set::idle(LONG));
    fresh(server, "short").await;
    fresh(server, "long").await;
    let urls = [server.url("postgres", "short"), server.url("postgres", "long")];
    ours(&urls[0], &short.dir);
    ours(&urls[1], &long.dir);
    let (mut thousand, mut ten, mut other) = (Times::default(), Times::default(), Times::default());
    for _ in 0..=rounds.max(10) {
        thousand.0.push(ours(&urls[0], &short.dir));
        ten.0.push(ours(&urls[1], &long.dir));
        other.0.push(sqlx(server, "long", &long.dir).await);
    }
    (thousand, ten, other)
}

fn main() {
    let rounds =
        std::env::var("AMAS_BENCH_ROUNDS").map_or(5, |rounds| rounds.parse().expect("AMAS_BENCH_ROUNDS: a number"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let server = Postgres::start_with(&[("max_locks_per_transaction", "2048")]).await;
        let ratio = |a: &Times, b: &Times| a.median().as_secs_f64() / b.median().as_secs_f64();
        let (least, own, other) = light(&server, rounds).await;
        println!(
            "M1 {LIGHT} light migrations: floor {:.2?}, ours {:.2?}, sqlx {:.2?}; ours/floor {:.2} (at most 1.35), sqlx/ours {:.1} (at least 2)",
            least.median(), own.median(), other.median(), ratio(&own, &least), ratio(&other, &own)
        );
        let (thousand, ten, other) = nothing_to_do(&server, rounds).await;
        println!(
            "M2 nothing to do: {LIGHT} applied {:.1?}, {LONG} applied {:.1?}, sqlx {:.1?}; long/short {:.2} (at most 1.2), sqlx/ours {:.1}",
            thousand.median(), ten.median(), other.median(), ratio(&ten, &thousand), ratio(&other, &ten)
        );
        stall::measure(&server, rounds).await;
    });
}
