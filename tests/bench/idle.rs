//! M2 at the command line: what it takes to find that nothing is to be done, with a thousand and with ten thousand migrations applied. The operator, which
//! finds that all the time, is measured by tests/kubernetes/nothing_to_do.rs; that it takes no longer with the longer history is judged there.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use amas_operator::{
    api::names::SqlName,
    migrate::{glance::Glance, history},
};
use sqlx::PgConnection;

use super::{
    postgres::Postgres,
    rounds::{Rounds, Target},
    sets::Set,
    tools::{fresh, ours, sqlx},
};

const SHORT: usize = 1_000;
const LONG: usize = 10_000;
/// An arm's turn is the best of so many: they take milliseconds.
const TURNS: usize = 5;

#[derive(Clone, Copy)]
enum Arm {
    /// What is asked of the database, over a connection that is there.
    Asking(usize),
    /// The same with the connection.
    Connecting(usize),
    /// `migrate up`.
    Program(usize),
    /// Reading the files, one after the other: an edit of any of them has to be noticed.
    Reading(usize),
    /// sqlx's migrator, as a library.
    Sqlx(usize),
}

/// One history, up to its last row.
struct History {
    set: Set,
    database: &'static str,
    url: String,
    conn: PgConnection,
    digest: Option<String>,
}

impl History {
    async fn new(server: &Postgres, database: &'static str, count: usize) -> Self {
        let set = Set::idle(count);
        fresh(server, database).await;
        let url = server.url("postgres", database);
        ours(&["up"], &set.dir, &url);
        server.admin(database, &["VACUUM ANALYZE"]).await;
        Self {
            digest: Glance::of(std::slice::from_ref(&set.dir)).map(|glance| glance.digest),
            conn: server.connect("postgres", database).await,
            set,
            database,
            url,
        }
    }

    async fn turn(&mut self, server: &Postgres, arm: Arm) -> Duration {
        let began = Instant::now();
        match arm {
            Arm::Asking(_) => ask(&mut self.conn, &self.digest).await,
            Arm::Connecting(_) => ask(&mut server.connect("postgres", self.database).await, &self.digest).await,
            Arm::Program(_) => {
                ours(&["up"], &self.set.dir, &self.url);
            }
            Arm::Reading(_) => read(&self.set.dir),
            Arm::Sqlx(_) => {
                sqlx(server, self.database, &self.set.dir).await;
            }
        }
        began.elapsed()
    }
}

/// The answer has to be that exactly these files are in.
async fn ask(conn: &mut PgConnection, digest: &Option<String>) {
    let settled = history::settled(conn, &SqlName::public()).await.unwrap();
    assert!(settled.is_some() && settled == *digest, "{settled:?}, not {digest:?}");
}

fn read(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.to_str().unwrap().ends_with(".up.sql") {
            std::hint::black_box(fs::read(path).unwrap());
        }
    }
}

pub async fn measure(server: &Postgres, rounds: &Rounds) {
    let mut histories = [
        History::new(server, "short", SHORT).await,
        History::new(server, "long", LONG).await,
    ];
    let arms = [
        Arm::Asking(0),
        Arm::Asking(1),
        Arm::Connecting(0),
        Arm::Connecting(1),
        Arm::Program(0),
        Arm::Program(1),
        Arm::Program(1),
        Arm::Reading(0),
        Arm::Reading(1),
        Arm::Sqlx(1),
    ];
    let turn = async |arm: Arm| {
        let (Arm::Asking(which)
        | Arm::Connecting(which)
        | Arm::Program(which)
        | Arm::Reading(which)
        | Arm::Sqlx(which)) = arm;
        let mut best = Duration::MAX;
        for _ in 0..TURNS {
            best = best.min(histories[which].turn(server, arm).await);
        }
        best
    };
    let name = format!("M2 nothing to do, {LONG} applied");
    let [asks, ask, connects, connect, starts, start, twin, reads, read, sqlx] = rounds.of(&name, arms, turn).await;
    rounds.twins(&start, &twin);
    rounds.ratio(
        "sqlx to connecting and asking the database",
        &sqlx,
        &connect,
        Target::AtLeast(5.0),
    );
    // These grow with the history: an edit of any file or row has to be noticed, see docs/migrations.md.
    let asking = format!("connecting and asking the database, to {SHORT} applied");
    rounds.tell(&asking, &connect, &connects);
    rounds.tell(&format!("the question alone, to {SHORT} applied"), &ask, &asks);
    rounds.tell(&format!("migrate up, to {SHORT} applied"), &start, &starts);
    rounds.tell("sqlx to migrate up", &sqlx, &start);
    rounds.tell(
        "migrate up to only reading the files, one after the other",
        &start,
        &read,
    );
    rounds.tell(&format!("only reading the files, to {SHORT} of them"), &read, &reads);
}
