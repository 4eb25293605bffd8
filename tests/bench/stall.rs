//! M4: how long queries of a running application stand still while a migration waits for a lock that others hold, and when it is done.

use std::{
    fs,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use sqlx::{AssertSqlSafe, PgConnection, Row, raw_sql};
use tokio::{sync::Notify, time::sleep};

use super::{
    postgres::Postgres,
    rounds::{Rounds, Target},
    tools::fresh,
};

const DATABASE: &str = "stall";
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

/// What a round showed.
struct Seen {
    /// The longest query of the application.
    stall: Duration,
    /// Until the change was in.
    total: Duration,
    /// Queries that were refused, of all that were sent.
    failed: (usize, usize),
    /// By the runner.
    said: String,
}

/// Queries that were sent, and those refused.
#[derive(Default)]
struct Queries {
    sent: AtomicUsize,
    failed: AtomicUsize,
    /// The change is in.
    done: AtomicBool,
}

impl Queries {
    fn over(&self) -> bool {
        self.done.load(Ordering::Relaxed)
    }

    async fn send(&self, conn: &mut PgConnection, sql: &str) {
        self.sent.fetch_add(1, Ordering::Relaxed);
        if raw_sql(AssertSqlSafe(sql)).execute(conn).await.is_err() {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Others {
    fn tables(self) -> &'static [&'static str] {
        match self {
            Self::Autovacuum => VACUUMED,
            Self::OpenTransaction | Self::Readers(_) => TABLES,
        }
    }

    /// Is in the way until its time is over, or until `done`.
    async fn hold(self, server: &Postgres, database: &str, under_way: &Notify, queries: &Queries) {
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
                    while !queries.over() {
                        queries
                            .send(&mut connection, "SELECT pg_sleep(0.05) FROM busy LIMIT 1")
                            .await;
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

/// An application that reads `table` until the change is in: its longest query.
async fn application(server: &Postgres, database: &str, table: &str, queries: &Queries) -> Duration {
    let mut connection = server.connect("postgres", database).await;
    let query = format!("SELECT 1 FROM {table} WHERE id = 7");
    let mut longest = Duration::ZERO;
    while !queries.over() {
        let began = Instant::now();
        queries.send(&mut connection, &query).await;
        longest = longest.max(began.elapsed());
        sleep(Duration::from_millis(2)).await;
    }
    longest
}

/// One round: the others, an application, and `change`, which tells what it said.
async fn round(server: &Postgres, case: &Case, change: impl AsyncFnOnce() -> String) -> Seen {
    fresh(server, DATABASE).await;
    server.admin(DATABASE, case.others.tables()).await;
    let (under_way, queries) = (Notify::new(), Queries::default());
    let changing = async {
        under_way.notified().await;
        sleep(Duration::from_millis(200)).await;
        let began = Instant::now();
        let said = change().await;
        queries.done.store(true, Ordering::Relaxed);
        (said, began.elapsed())
    };
    let (stall, (), (said, total)) = tokio::join!(
        application(server, DATABASE, case.watched, &queries),
        case.others.hold(server, DATABASE, &under_way, &queries),
        changing
    );
    let columns = "SELECT count(*) FROM pg_attribute WHERE attname = 'extra' AND NOT attisdropped";
    let mut conn = server.connect("postgres", DATABASE).await;
    let changed: i64 = raw_sql(columns).fetch_one(&mut conn).await.unwrap().get(0);
    assert_eq!(
        changed,
        case.change.matches("extra").count() as i64,
        "the change is not in"
    );
    Seen {
        stall,
        total,
        failed: (queries.failed.into_inner(), queries.sent.into_inner()),
        said,
    }
}

/// As somebody would do it by hand.
async fn plain(server: &Postgres, case: &Case) -> Seen {
    round(server, case, async || {
        let mut session = server.connect("postgres", DATABASE).await;
        raw_sql(case.change).execute(&mut session).await.unwrap();
        String::new()
    })
    .await
}

async fn ours(server: &Postgres, case: &Case) -> Seen {
    let dir = std::env::temp_dir().join(format!("amas-bench-{}-stall", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("1_change.sql"), case.change).unwrap();
    let url = server.url("postgres", DATABASE);
    let seen = round(server, case, async || {
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

/// Both ways of one case over the rounds: ours, and by hand.
struct Compared {
    own: Vec<Seen>,
    stall: [Vec<Duration>; 2],
    total: [Vec<Duration>; 2],
}

/// Where the limits are absolute, chance has its room in them: how far twins are apart is only told.
async fn compare(server: &Postgres, rounds: &Rounds, name: &str, case: Case) -> Compared {
    let run = async |by_us: bool| match by_us {
        true => ours(server, &case).await,
        false => plain(server, &case).await,
    };
    let [own, twin, by_hand] = rounds.of(&format!("M4 {name}"), [true, true, false], run).await;
    let stalls = |seen: &[Seen]| seen.iter().map(|seen| seen.stall).collect::<Vec<_>>();
    let totals = |seen: &[Seen]| seen.iter().map(|seen| seen.total).collect::<Vec<_>>();
    let compared = Compared {
        stall: [stalls(&own), stalls(&by_hand)],
        total: [totals(&own), totals(&by_hand)],
        own,
    };
    let ([stall, stall_by_hand], [total, total_by_hand]) = (&compared.stall, &compared.total);
    rounds.tell("longest query, ours to ours", stall, &stalls(&twin));
    rounds.tell("longest query, ours to by hand", stall, stall_by_hand);
    rounds.tell("done, ours to ours", total, &totals(&twin));
    rounds.tell("done, ours to by hand", total, total_by_hand);
    let all = compared.own.iter().chain(&twin).map(|seen| seen.failed);
    let (failed, sent) = all.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    rounds.verdict(
        failed == 0,
        &format!("{failed} of {sent} application queries failed, none may"),
    );
    compared
}

const ADD: &str = "ALTER TABLE busy ADD COLUMN extra int";
const ADD_BOTH: &str = "ALTER TABLE free ADD COLUMN extra int;\nALTER TABLE busy ADD COLUMN extra int;";

pub async fn measure(rounds: &Rounds) {
    let server = Postgres::start_with(&[("autovacuum_naptime", "1s")]).await;
    let case = |others, watched, change| Case {
        others,
        watched,
        change,
    };
    let (longest, done) = ("longest query", "done");

    let open = case(Others::OpenTransaction, "busy", ADD);
    let seen = compare(&server, rounds, "behind a transaction open for 4 s", open).await;
    let ([stall, stall_by_hand], [total, total_by_hand]) = (&seen.stall, &seen.total);
    rounds.ratio(
        "longest query, by hand to ours",
        stall_by_hand,
        stall,
        Target::AtLeast(50.0),
    );
    rounds.ratio("done, ours to by hand", total, total_by_hand, Target::AtMost(1.1));

    for readers in [8, 16] {
        let busy = case(Others::Readers(readers), "busy", ADD);
        let seen = compare(
            &server,
            rounds,
            &format!("{readers} readers of 50 ms back to back"),
            busy,
        )
        .await;
        rounds.longest(done, &seen.total[0], Duration::from_secs(5));
        rounds.longest(longest, &seen.stall[0], Duration::from_millis(120));
    }

    let vacuumed = case(Others::Autovacuum, "busy", ADD);
    let seen = compare(&server, rounds, "while autovacuum works on the table", vacuumed).await;
    rounds.longest(done, &seen.total[0], Duration::from_secs(3));
    rounds.longest(longest, &seen.stall[0], Duration::from_millis(1300));
    let named = seen.own.iter().filter(|seen| seen.said.contains("autovacuum")).count();
    let of = seen.own.len();
    rounds.verdict(
        named == of,
        &format!("named in the log in {named} of {of} rounds, in all"),
    );

    let two = case(Others::OpenTransaction, "free", ADD_BOTH);
    let seen = compare(
        &server,
        rounds,
        "two tables, one behind a transaction open for 4 s",
        two,
    )
    .await;
    rounds.longest("longest query on the other", &seen.stall[0], Duration::from_millis(30));
}
