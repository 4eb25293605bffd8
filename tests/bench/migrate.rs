//! `make bench-migrate`: what migrations cost beside the least they can cost, and beside other tools, in interleaved rounds on one server.
//!
//! The floor is one `psql` session with one transaction, all texts and the history rows; what one message would take is told beside it. The other tools are
//! sqlx 0.9's own migrator, as a library in this process, which saves its start, and the program `refinery`. Every arm has to leave the same schema and the
//! same history. `rounds` says how figures are taken and judged; a target that is missed makes the exit code 1.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod idle;
#[allow(dead_code)] // what only the tests use
#[path = "../support/postgres.rs"]
mod postgres;
mod rounds;
mod sets;
mod stall;
mod tools;

use std::process::ExitCode;

use postgres::Postgres;
use rounds::{Rounds, Target};
use sets::Set;
use tools::{Tool, fresh, ours};

const MANY: usize = 1_000;
const FILLED: usize = 12;
const BATCH: usize = 50;

/// What is asked of a set in M1.
#[derive(Clone, Copy)]
struct Wanted {
    /// Over the floor.
    most: f64,
    /// How much longer sqlx and refinery have to take; None: what the server does is most of it, and is the same for all.
    peers: Option<f64>,
}

/// M5: lint may take so much of the time in which the same set is applied.
const LINT: f64 = 0.05;

/// M1 and M5: a set, by every tool.
async fn apply(server: &Postgres, rounds: &Rounds, name: &str, set: Set, wanted: Wanted) {
    use Tool::{Floor, Lint, LintProgram, Message, Messages, Ours, Refinery, Sqlx, Twin};
    let mut end = None;
    let run = async |tool: Tool| tool.run(server, &set, &mut end).await;
    let arms = [Floor, Message, Messages, Ours, Twin, Sqlx, Refinery, Lint, LintProgram];
    let name = format!("M1 {} {name}", set.count);
    let [floor, message, messages, own, twin, sqlx, refinery, lint, lint_program] = rounds.of(&name, arms, run).await;
    rounds.twins(&own, &twin);
    rounds.ratio("ours to floor", &own, &floor, Target::AtMost(wanted.most));
    for (what, times) in [("sqlx to ours", &sqlx), ("refinery to ours", &refinery)] {
        match wanted.peers {
            Some(least) => rounds.ratio(what, times, &own, Target::AtLeast(least)),
            None => rounds.tell(what, times, &own),
        }
    }
    rounds.tell("ours to one message for all", &own, &message);
    rounds.tell("ours to a message for each", &own, &messages);
    rounds.ratio("M5, lint to ours", &lint, &own, Target::AtMost(LINT));
    rounds.tell("M5, the program's lint to ours", &lint_program, &own);
}

/// M3: what a process for each migration would cost, beside one for all, which is what a Job is.
async fn processes(server: &Postgres, rounds: &Rounds) {
    let set = Set::tables(BATCH);
    let url = server.url("postgres", "bench");
    let run = async |together: bool| {
        fresh(server, "bench").await;
        let each = |version: usize| ours(&["up", "--to", &version.to_string()], &set.dir, &url);
        match together {
            true => ours(&["up"], &set.dir, &url),
            false => (1..=BATCH).map(each).sum(),
        }
    };
    let [one, each] = rounds.of(&format!("M3 {BATCH} tables"), [true, false], run).await;
    rounds.tell("a process for each to one for all", &each, &one);
}

/// `AMAS_BENCH_PARTS` names some of them.
async fn all(rounds: &Rounds) {
    let parts = std::env::var("AMAS_BENCH_PARTS").unwrap_or_default();
    let wanted = |part: &str| parts.is_empty() || parts.split_whitespace().any(|one| one == part);
    // neither a checkpoint nor autovacuum in the middle of an arm
    let quiet = [
        ("max_locks_per_transaction", "2048"),
        ("autovacuum", "off"),
        ("max_wal_size", "4GB"),
    ];
    let server = Postgres::start_with(&quiet).await;
    if wanted("M1") {
        let light = Wanted {
            most: 1.35,
            peers: Some(2.0),
        };
        let heavy = Wanted { most: 1.1, peers: None };
        apply(&server, rounds, "functions", Set::functions(MANY), light).await;
        apply(&server, rounds, "tables with a key", Set::tables(MANY), heavy).await;
        apply(&server, rounds, "filled tables", Set::filled(FILLED), heavy).await;
    }
    if wanted("M2") {
        idle::measure(&server, rounds).await;
    }
    if wanted("M3") {
        processes(&server, rounds).await;
    }
    drop(server);
    if wanted("M4") {
        stall::measure(rounds).await;
    }
}

fn main() -> ExitCode {
    let rounds = Rounds::from_env();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(all(&rounds));
    rounds.end()
}
