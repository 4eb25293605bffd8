//! `make bench-migrate`: what migrations cost beside the least they can cost, and beside other tools, in interleaved rounds on one server.
//!
//! Each figure is the median over the rounds; the first round is dropped. The floor is one `psql` session that sends the same statements in one
//! transaction, without a history. The other tools are sqlx 0.9's own migrator, as a library in this process, which saves its start, and the program `refinery`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(dead_code)] // what only the tests use
#[path = "../support/postgres.rs"]
mod postgres;
mod stall;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use postgres::Postgres;
use sqlx_core::migrate::Migrator;

const LIGHT: usize = 1_000;
const LONG: usize = 10_000;
const HEAVY: usize = 12;
const BATCH: usize = 50;

/// A folder of migrations, one of the same for refinery, and all their statements in one file.
struct Set {
    root: PathBuf,
    dir: PathBuf,
    refinery: PathBuf,
    all: PathBuf,
}

impl Set {
    /// Versions 1 to `count`, each with what `up` says.
    fn of(count: usize, up: impl Fn(usize) -> String) -> Self {
        static SETS: AtomicUsize = AtomicUsize::new(0);
        let number = SETS.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("amas-bench-{}-{number}", std::process::id()));
        let set = Self {
            dir: root.join("ours"),
            refinery: root.join("refinery"),
            all: root.join("all.psql"),
            root,
        };
        fs::create_dir_all(&set.dir).unwrap();
        fs::create_dir_all(&set.refinery).unwrap();
        let mut all = String::new();
        for version in 1..=count {
            let up = up(version);
            fs::write(set.dir.join(format!("{version:05}_t{version}.up.sql")), &up).unwrap();
            let down = format!("DROP TABLE t{version};\n");
            fs::write(set.dir.join(format!("{version:05}_t{version}.down.sql")), down).unwrap();
            fs::write(set.refinery.join(format!("V{version}__t{version}.sql")), &up).unwrap();
            all.push_str(&up);
        }
        fs::write(&set.all, all).unwrap();
        set
    }

    /// Each makes one small table.
    fn light(count: usize) -> Self {
        Self::of(count, |version| {
            format!("CREATE TABLE t{version} (id int NOT NULL, note text);\n")
        })
    }

    /// Each fills a table and builds two indexes on it.
    fn heavy(count: usize) -> Self {
        Self::of(count, |version| {
            format!(
                "CREATE TABLE t{version} AS SELECT i AS id, md5(i::text) AS note FROM generate_series(1, 200000) i;\n\
                 ALTER TABLE t{version} ADD PRIMARY KEY (id);\nCREATE INDEX ON t{version} (note);\n"
            )
        })
    }

    /// Statements that do nothing, for a long history that costs no tables.
    fn idle(count: usize) -> Self {
        Self::of(count, |_| "SELECT 1;\n".to_owned())
    }
}

impl Drop for Set {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// The middle one.
fn median(times: impl Iterator<Item = Duration>) -> Duration {
    let mut times: Vec<_> = times.collect();
    times.sort();
    times[times.len() / 2]
}

/// Times of one arm over the rounds.
#[derive(Default)]
struct Times(Vec<Duration>);

impl Times {
    /// Without the first round.
    fn median(&self) -> Duration {
        median(self.0.iter().skip(1.min(self.0.len() - 1)).copied())
    }

    fn over(&self, other: &Self) -> f64 {
        self.median().as_secs_f64() / other.median().as_secs_f64()
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

fn ours(url: &str, dir: &Path, more: &[&str]) -> Duration {
    let mut command = Command::new(env!("CARGO_BIN_EXE_amas-operator"));
    timed(
        command
            .args(["migrate", "up", "--dir"])
            .arg(dir)
            .args(more)
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

/// `AMAS_REFINERY` is the program.
fn refinery(url: &str, dir: &Path) -> Duration {
    let program = std::env::var("AMAS_REFINERY").expect("AMAS_REFINERY: the program; run by make bench-migrate");
    timed(
        Command::new(program)
            .args(["migrate", "-e", "DATABASE_URL", "-p"])
            .arg(dir)
            .env("DATABASE_URL", url),
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
async fn light(server: &Postgres, rounds: usize) -> Times {
    let set = Set::light(LIGHT);
    let [mut least, mut own, mut sqlx_times, mut refinery_times] = std::array::from_fn(|_| Times::default());
    for _ in 0..=rounds {
        fresh(server, "floor").await;
        least.0.push(floor(&server.url("postgres", "floor"), &set.all));
        fresh(server, "ours").await;
        own.0.push(ours(&server.url("postgres", "ours"), &set.dir, &[]));
        fresh(server, "sqlx").await;
        sqlx_times.0.push(sqlx(server, "sqlx", &set.dir).await);
        fresh(server, "refinery").await;
        refinery_times
            .0
            .push(refinery(&server.url("postgres", "refinery"), &set.refinery));
    }
    println!(
        "M1 {LIGHT} light migrations: floor {:.2?}, ours {:.2?}, sqlx {:.2?}, refinery {:.2?}; ours/floor {:.2} (at most 1.35), sqlx/ours {:.1}, refinery/ours {:.1} (at least 2)",
        least.median(),
        own.median(),
        sqlx_times.median(),
        refinery_times.median(),
        own.over(&least),
        sqlx_times.over(&own),
        refinery_times.over(&own)
    );
    own
}

/// M1: statements that take their time by themselves.
async fn heavy(server: &Postgres, rounds: usize) {
    let set = Set::heavy(HEAVY);
    let (mut least, mut own) = (Times::default(), Times::default());
    for _ in 0..=rounds {
        fresh(server, "floor").await;
        least.0.push(floor(&server.url("postgres", "floor"), &set.all));
        fresh(server, "ours").await;
        own.0.push(ours(&server.url("postgres", "ours"), &set.dir, &[]));
    }
    println!(
        "M1 {HEAVY} heavy migrations: floor {:.2?}, ours {:.2?}; ours/floor {:.2} (at most 1.1)",
        least.median(),
        own.median(),
        own.over(&least)
    );
}

/// What reading the up files of a folder takes, one after the other: an edit of any of them has to be noticed.
fn reading(dir: &Path) -> Duration {
    let began = Instant::now();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.to_str().unwrap().ends_with(".up.sql") {
            std::hint::black_box(fs::read(path).unwrap());
        }
    }
    began.elapsed()
}

/// M2: nothing to do, with a thousand and with ten thousand applied.
async fn nothing_to_do(server: &Postgres, rounds: usize) {
    let (short, long) = (Set::idle(LIGHT), Set::idle(LONG));
    fresh(server, "short").await;
    fresh(server, "long").await;
    let urls = [server.url("postgres", "short"), server.url("postgres", "long")];
    ours(&urls[0], &short.dir, &[]);
    ours(&urls[1], &long.dir, &[]);
    let [mut thousand, mut ten, mut other, mut read] = std::array::from_fn(|_| Times::default());
    for _ in 0..=rounds.max(10) {
        thousand.0.push(ours(&urls[0], &short.dir, &[]));
        ten.0.push(ours(&urls[1], &long.dir, &[]));
        other.0.push(sqlx(server, "long", &long.dir).await);
        read.0.push(reading(&long.dir));
    }
    println!(
        "M2 nothing to do: {LIGHT} applied {:.1?}, {LONG} applied {:.1?}, sqlx with {LONG} {:.1?}; long/short {:.2} (at most 1.2), sqlx/ours {:.1} (at least 5); only reading the files of {LONG} {:.1?}",
        thousand.median(),
        ten.median(),
        other.median(),
        ten.over(&thousand),
        other.over(&ten),
        read.median()
    );
}

/// M3: what a process for each migration would cost, beside one for all, which is what a Job is.
async fn processes(server: &Postgres) {
    let set = Set::light(BATCH);
    let url = server.url("postgres", "ours");
    let (mut one, mut each) = (Times::default(), Times::default());
    for _ in 0..3 {
        fresh(server, "ours").await;
        one.0.push(ours(&url, &set.dir, &[]));
        fresh(server, "ours").await;
        let versions = (1..=BATCH).map(|version| ours(&url, &set.dir, &["--to", &version.to_string()]));
        each.0.push(versions.sum());
    }
    println!(
        "M3 {BATCH} migrations: in one process {:.2?}, in a process each {:.2?}; {:.1} times",
        one.median(),
        each.median(),
        each.over(&one)
    );
}

/// M5: what lint costs beside applying.
fn lint(rounds: usize, applying: &Times) {
    let set = Set::light(LIGHT);
    let mut own = Times::default();
    for _ in 0..=rounds {
        let mut command = Command::new(env!("CARGO_BIN_EXE_amas-operator"));
        own.0
            .push(timed(command.args(["migrate", "lint", "--dir"]).arg(&set.dir)));
    }
    println!(
        "M5 lint of {LIGHT} files: {:.1?}; {:.1} % of applying them (at most 5 %)",
        own.median(),
        own.over(applying) * 100.0
    );
}

fn main() {
    let rounds =
        std::env::var("AMAS_BENCH_ROUNDS").map_or(5, |rounds| rounds.parse().expect("AMAS_BENCH_ROUNDS: a number"));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let server = Postgres::start_with(&[("max_locks_per_transaction", "2048")]).await;
        let applying = light(&server, rounds).await;
        lint(rounds, &applying);
        heavy(&server, rounds).await;
        nothing_to_do(&server, rounds).await;
        processes(&server).await;
        drop(server);
        stall::measure(rounds).await;
    });
}
