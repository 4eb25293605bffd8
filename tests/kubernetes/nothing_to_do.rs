//! While there is nothing to do, a long history costs no more than a short one: no request, no session on the server, no Job, and the same time.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::PgConnection;

use super::jobs::Migrated;
use crate::support::{audit::Mark, operator::Operator, process::Folder};

/// Reconciles of each history. The fastest counts, since other tests run beside it.
const TOUCHES: usize = 100;
/// What the longer one may take of the shorter one's time.
const RATIO: f64 = 1.2;
/// The keeper looks at its database this often, whoever reconciles.
const LOOK: Duration = Duration::from_secs(30);
/// Progress that flips nothing is told within 10 s.
const CALM: Duration = Duration::from_secs(11);

/// A database whose migrations are all in.
struct History {
    scene: Migrated,
    operator: Operator,
    /// On the server, in another database.
    asking: PgConnection,
    name: &'static str,
    _files: Folder,
}

impl History {
    async fn of(name: &'static str, count: i64) -> Self {
        let files: Vec<(String, String)> = (1..=count)
            .map(|version| (format!("{version:05}_m.sql"), format!("SELECT {version};")))
            .collect();
        let files: Vec<(&str, &str)> = files.iter().map(|(file, sql)| (file.as_str(), sql.as_str())).collect();
        let bundles = Folder::new(name);
        for (file, sql) in &files {
            bundles.write(&format!("history/{file}"), sql);
        }
        let scene = Migrated::new(name).await;
        let settings = [("AMAS_MIGRATIONS_DIR", bundles.path().to_str().unwrap())];
        let operator = scene.ns.operator(&settings).await;
        scene.apply(json!({"source": {"bundle": "history"}}), json!({})).await;
        let job = scene.job().await;
        scene.succeed(&job, &files, ("current", count)).await;
        scene.ready().await;
        let asking = scene.server.connect("postgres", "postgres").await;
        Self {
            scene,
            operator,
            asking,
            name,
            _files: bundles,
        }
    }

    /// How many sessions the database has had.
    async fn sessions(&mut self) -> i64 {
        let ended = "SELECT sessions FROM pg_stat_database WHERE datname = $1";
        let query = sqlx::query_scalar(ended).bind(self.name);
        query.fetch_one(&mut self.asking).await.unwrap()
    }

    /// How many reconciles of AmasDatabases there were, and their seconds.
    async fn reconciles(&self) -> (f64, f64) {
        self.operator.reconciles().await.expect("the operator tells of them")
    }

    /// Waits until whatever follows a Job has come to its end.
    async fn calm(&self) {
        let mut seen = self.reconciles().await;
        loop {
            tokio::time::sleep(CALM).await;
            let now = self.reconciles().await;
            if now == seen {
                return;
            }
            seen = now;
        }
    }

    /// The seconds of one reconcile that finds nothing to do; none where another came between.
    async fn reconcile(&self, number: usize) -> Option<f64> {
        let (before, spent) = self.reconciles().await;
        self.scene
            .ns
            .annotate("a", "example.com/touched", &number.to_string())
            .await;
        loop {
            let (count, seconds) = self.reconciles().await;
            if count > before {
                return (count == before + 1.0).then_some(seconds - spent);
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn writes(&self, mark: &Mark) -> String {
        let requests = mark.requests().unwrap().in_namespace(&self.scene.ns.name);
        requests.writes().lines()
    }
}

#[tokio::test]
async fn a_long_history_costs_what_a_short_one_does() {
    let mut histories = [History::of("short", 1_000).await, History::of("long", 10_000).await];
    for history in &histories {
        history.calm().await;
    }
    let mut best = [f64::MAX; 2];
    let mark = histories[0].scene.ns.api.audit();
    let (mut before, begun) = (Vec::new(), Instant::now());
    for history in &mut histories {
        before.push(history.sessions().await);
    }
    for number in 0..TOUCHES {
        for (history, best) in histories.iter().zip(&mut best) {
            if let Some(seconds) = history.reconcile(number).await {
                *best = best.min(seconds);
            }
        }
    }
    let [short, long] = best.map(|seconds| seconds * 1e3);
    let ratio = long / short;
    println!(
        "nothing to do, with 1,000 and with 10,000 migrations applied: a reconcile takes {short:.2} and {long:.2} ms (x {ratio:.2}), no request, no session, no Job"
    );
    for (history, before) in histories.iter_mut().zip(before) {
        let sessions = history.sessions().await - before;
        // One of them at the beginning, and one at the end.
        let looks = 1 + begun.elapsed().as_secs() / LOOK.as_secs() + 1;
        assert!(
            sessions.unsigned_abs() <= looks,
            "{}: {sessions} sessions, not {looks}",
            history.name
        );
        assert_eq!(history.writes(&mark), "", "{}: requests", history.name);
        assert_eq!(history.scene.jobs().await, [] as [Value; 0], "{}", history.name);
    }
    assert!(ratio <= RATIO, "{ratio:.2} is more than {RATIO}");
}
