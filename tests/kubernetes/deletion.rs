//! The end of a database whose deletionPolicy is Delete: with its namespace, whether the operator is there or not; with rights that end with the
//! namespace; and from a server that is away, read-only, or somebody else's too.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    lifecycle::{database, external, postgres},
    support::{
        kubernetes::{Kubernetes, Namespace},
        operator::Operator,
        postgres::Postgres,
        process::eventually,
        store_proxy::{Protocol, StoreProxy},
    },
};

/// How long an operator waits for a server that is away before it lets go: it has to say meanwhile that it waits.
const TIMEOUT: Duration = Duration::from_secs(15);
/// The same where it has to succeed.
const AMPLE: Duration = Duration::from_secs(60);
/// What it may take beyond that to try for the last time, to say so, and to let go.
const LATE: Duration = Duration::from_secs(15);
/// What a namespace controller and an operator may take on a busy machine.
const GONE: Duration = Duration::from_secs(120);

/// A database on somebody else's server, made by us, and a managed one; both go with their object.
struct Pair {
    ns: Namespace,
    postgres: std::sync::Arc<Postgres>,
    name: String,
}

impl Pair {
    async fn new(ns: Namespace) -> Self {
        let postgres = postgres(&ns).await;
        let name = ns.name.replace('-', "_");
        Self { ns, postgres, name }
    }

    /// As an operator that lives elsewhere sees it: its lease must not go with the namespace.
    async fn operator(&self, settings: &[(&str, &str)]) -> Operator {
        let home = self.ns.api.namespace("operator").await;
        let own = [("POD_NAMESPACE", home.name.as_str())];
        self.ns.operator(&[&own, settings].concat()).await
    }

    async fn external(&self, timeout: Duration) {
        let roles = json!([{"name": format!("{}_app", self.name), "access": "ReadWrite"}]);
        let sql = json!({"database": self.name, "owner": format!("{}_owner", self.name), "roles": roles, "external": external("postgres")});
        let timeout = format!("{}s", timeout.as_secs());
        let spec = json!({"deletionPolicy": "Delete", "deletionTimeout": timeout, "postgres": sql});
        self.ns.apply(database("outside", spec)).await;
        self.ns.wait_condition("AmasDatabase", "outside", "Ready", "True").await;
    }

    async fn managed(&self) {
        let redis = json!({"managed": {"storage": {"size": "1Gi"}}});
        self.ns
            .apply(database("inside", json!({"deletionPolicy": "Delete", "redis": redis})))
            .await;
        self.ns.wait("Pod", "inside-redis-0", "made", |_| true).await;
    }

    /// What of our making is on the server: the database and its roles.
    async fn on_the_server(&self) -> Vec<String> {
        let mut admin = self.postgres.connect("postgres", "postgres").await;
        let query = "SELECT datname::text FROM pg_database WHERE datname = $1 UNION ALL SELECT rolname::text FROM pg_roles WHERE strpos(rolname, $1) = 1";
        sqlx::query_scalar(query)
            .bind(&self.name)
            .fetch_all(&mut admin)
            .await
            .unwrap()
    }

    /// Deletes the namespace and waits until it is gone.
    async fn drop_namespace(&self) -> Duration {
        let begun = Instant::now();
        self.ns.drop().await;
        eventually("the namespace is gone", GONE, async || !self.ns.exists().await).await;
        begun.elapsed()
    }
}

#[tokio::test]
async fn a_namespace_goes_with_everything_that_was_made_for_it() {
    let api = Kubernetes::with_controllers().await;
    let pair = Pair::new(api.namespace("gone").await).await;
    let operator = pair.operator(&[]).await;
    tokio::join!(pair.external(AMPLE), pair.managed());
    assert_eq!(pair.on_the_server().await.len(), 3);
    let took = pair.drop_namespace().await;
    println!("deletion: a namespace with the operator up is gone after {took:?}");
    let left = pair.on_the_server().await;
    assert!(left.is_empty(), "{left:?}\n{}", operator.log());
}

#[tokio::test]
async fn a_namespace_waits_for_an_operator_that_is_away_and_no_longer() {
    let api = Kubernetes::with_controllers().await;
    let pair = Pair::new(api.namespace("away").await).await;
    let mut operator = pair.operator(&[]).await;
    tokio::join!(pair.external(TIMEOUT), pair.managed());
    operator.kill();
    pair.ns.drop().await;
    // Everything is gone but what has our finalizer.
    pair.ns.wait_gone("Secret", "postgres").await;
    pair.ns.wait_gone("Pod", "inside-redis-0").await;
    assert!(pair.ns.exists().await);
    let begun = Instant::now();
    operator.again();
    eventually("the namespace is gone", GONE, async || !pair.ns.exists().await).await;
    println!(
        "deletion: a namespace is gone {:?} after the operator is back",
        begun.elapsed()
    );
    // The login went with the Secret, so nobody can drop the database: that is said.
    assert_eq!(pair.on_the_server().await.len(), 3);
    assert!(
        operator.log().contains("not everything went along"),
        "{}",
        operator.log()
    );
    assert_eq!(left_behind(&operator).await, 1);
}

#[tokio::test]
async fn a_namespace_never_waits_for_rights_that_end_with_it() {
    let api = Kubernetes::with_controllers().await;
    let pair = Pair::new(api.namespace("narrow").await).await;
    let mut operator = pair.operator(&[("AMAS_RBAC_SCOPE", "Namespaced")]).await;
    pair.managed().await;
    let object = pair.ns.get("AmasDatabase", "inside").await.unwrap();
    assert_eq!(object.pointer("/metadata/finalizers"), None);
    // Alone, the object takes its data along by ownership.
    operator.kill();
    pair.ns.delete("AmasDatabase", "inside").await;
    for (kind, name) in [
        ("PersistentVolumeClaim", "inside-redis"),
        ("Secret", "inside-redis-connection"),
    ] {
        pair.ns.wait_gone(kind, name).await;
    }
    operator.again();
    pair.managed().await;
    operator.kill();
    let took = pair.drop_namespace().await;
    println!("deletion: a namespace with namespaced rights is gone after {took:?}, without the operator");
    // Delete on somebody else's server needs what dies with the namespace: refused.
    let pair = Pair::new(api.namespace("narrow").await).await;
    let _operator = pair.operator(&[("AMAS_RBAC_SCOPE", "Namespaced")]).await;
    let sql = json!({"database": pair.name, "external": external("postgres")});
    pair.ns
        .apply(database(
            "outside",
            json!({"deletionPolicy": "Delete", "postgres": sql}),
        ))
        .await;
    let refused = pair
        .ns
        .wait_condition("AmasDatabase", "outside", "Ready", "False")
        .await;
    assert_eq!(reason(&refused), "InvalidSpec");
}

#[tokio::test]
async fn a_server_that_is_away_holds_nobody_back() {
    let api = Kubernetes::shared().await;
    let ns = api.namespace("unreachable").await;
    let pair = Pair::new(ns).await;
    let proxy = StoreProxy::start(Protocol::Postgres, pair.postgres.port).await;
    let uri = format!("postgres://postgres@127.0.0.1:{}/postgres", proxy.port);
    pair.ns.secret("postgres", &[("uri", &uri)]).await;
    let operator = pair.operator(&[]).await;
    pair.external(TIMEOUT).await;
    proxy.cut();
    let begun = Instant::now();
    pair.ns.delete("AmasDatabase", "outside").await;
    let waiting = pair
        .ns
        .wait("AmasDatabase", "outside", "waiting", |object| {
            reason(object) == "Deleting"
        })
        .await;
    println!("deletion: {}", waiting["status"]["conditions"][0]["message"]);
    pair.ns.wait_gone("AmasDatabase", "outside").await;
    let took = begun.elapsed();
    println!("deletion: from a server that is away gone after {took:?}, of {TIMEOUT:?} allowed");
    assert!(took < TIMEOUT + LATE, "{took:?}");
    let said = |event: &Value| event["reason"] == "LeftBehind" && event["type"] == "Warning";
    let events = pair.ns.list("Event").await;
    let event = events.iter().find(|event| said(event)).expect("an Event");
    let note = event["message"].as_str().unwrap_or_default();
    assert!(note.contains(&format!("postgres database {}", pair.name)), "{note}");
    assert_eq!(left_behind(&operator).await, 1);
    assert_eq!(pair.on_the_server().await.len(), 3, "it is still there");
}

pub fn reason(object: &Value) -> &str {
    let ready = crate::support::kubernetes::condition_of(object, "Ready");
    ready.and_then(|ready| ready["reason"].as_str()).unwrap_or_default()
}

/// The operator's counter of things that should have gone along.
async fn left_behind(operator: &Operator) -> u64 {
    let metrics = operator.metrics().await;
    let line = metrics.lines().find(|line| line.starts_with("amas_left_behind_total{"));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok())
        .unwrap_or_default()
}
