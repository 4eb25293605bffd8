//! The harness itself: external stores become Ready, a killed operator comes back and writes nothing, two operators take turns.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{
    kubernetes::{Kubernetes, Namespace, PATIENCE},
    operator::Operator,
    postgres::Postgres,
    process::eventually,
    redis::{PASSWORD, Program, RedisServer},
};

pub fn database(name: &str, stores: Value) -> Value {
    let mut object =
        json!({"apiVersion": "amas.dev/v1alpha1", "kind": "AmasDatabase", "metadata": {"name": name}, "spec": {}});
    object["spec"] = stores;
    object
}

pub fn external(secret: &str) -> Value {
    json!({"secretRef": {"name": secret}, "tls": {"mode": "Disable"}})
}

/// The tests' PostgreSQL, with its administrator's login in Secret `postgres`.
pub async fn postgres(ns: &Namespace) -> Arc<Postgres> {
    let server = Postgres::shared().await;
    login(ns, &server).await;
    server
}

/// The same of a server of the test's own.
pub async fn login(ns: &Namespace, server: &Postgres) {
    ns.secret("postgres", &[("uri", &server.url("postgres", "postgres"))])
        .await;
}

/// A Redis of the test's own, with its login in Secret `redis`.
pub async fn redis(ns: &Namespace) -> RedisServer {
    let server = RedisServer::start(Program::Redis, "").await;
    let uri = format!(
        "redis://default:{}@127.0.0.1:{}",
        PASSWORD.replace(' ', "%20"),
        server.port
    );
    ns.secret("redis", &[("uri", &uri)]).await;
    server
}

/// Waits until an operator has written nothing here for a while: progress may wait for ten seconds to be written together with what follows, and the
/// next process would write it. One that never rests is left to what is asked next.
pub async fn nothing_is_left_to_tell(ns: &Namespace) {
    let (mark, begun) = (ns.api.audit(), Instant::now());
    let written = || mark.requests().unwrap().in_namespace(&ns.name).writes().len();
    let (mut last, mut since) = (written(), begun);
    while since.elapsed() < Duration::from_secs(11) && begun.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(250)).await;
        let now = written();
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
}

/// Kills the operator once it has told everything, and starts it again: it looks, and writes nothing.
pub async fn comes_back_without_a_write(ns: &Namespace, operator: &mut Operator) {
    nothing_is_left_to_tell(ns).await;
    operator.kill();
    let mark = ns.api.audit();
    operator.again();
    let operator = &*operator;
    eventually("the operator has come back", PATIENCE, async || {
        operator.reconciles().await.is_some_and(|(count, _)| count >= 1.0)
    })
    .await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let writes = mark.requests().unwrap().in_namespace(&ns.name).writes();
    assert!(writes.is_empty(), "{}", writes.lines());
}

#[tokio::test]
async fn external_stores_become_ready_and_a_killed_operator_comes_back_without_a_write() {
    let api = Kubernetes::shared().await;
    let ns = api.namespace("ready").await;
    let (_postgres, _redis) = (postgres(&ns).await, redis(&ns).await);
    let mut operator = ns.operator(&[]).await;
    let roles = json!([{"name": "ready_app", "access": "ReadWrite"}]);
    let sql = json!({"database": "ready", "owner": "ready_owner", "roles": roles, "external": external("postgres")});
    ns.apply(database(
        "a",
        json!({"redis": {"external": external("redis")}, "postgres": sql}),
    ))
    .await;
    ns.wait_condition("AmasDatabase", "a", "Ready", "True").await;

    comes_back_without_a_write(&ns, &mut operator).await;
    ns.wait_condition("AmasDatabase", "a", "Ready", "True").await;
}

#[tokio::test]
async fn a_managed_store_is_written_and_goes_with_its_object() {
    let api = Kubernetes::with_controllers().await;
    let ns = api.namespace("managed").await;
    let _operator = ns.operator(&[]).await;
    let managed = json!({"managed": {"storage": {"size": "1Gi"}}});
    ns.apply(database("a", json!({"redis": managed}))).await;
    ns.wait("StatefulSet", "a-redis", "there", |_| true).await;
    ns.wait("Pod", "a-redis-0", "made by the StatefulSet controller", |_| true)
        .await;
    ns.delete("AmasDatabase", "a").await;
    ns.wait_gone("StatefulSet", "a-redis").await;
}

#[tokio::test]
async fn a_second_operator_waits_for_the_first_to_give_the_lease_up() {
    let api = Kubernetes::shared().await;
    let ns = api.namespace("lease").await;
    let holder = |object: &Value| object.pointer("/spec/holderIdentity").cloned().unwrap_or_default();
    let mut first = ns.operator(&[("POD_NAME", "first")]).await;
    ns.wait("Lease", "amas-operator", "held by the first", |lease| {
        holder(lease) == "first"
    })
    .await;
    let _second = ns.operator(&[("POD_NAME", "second")]).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(holder(&ns.get("Lease", "amas-operator").await.unwrap()), "first");
    first.stop();
    ns.wait("Lease", "amas-operator", "held by the second", |lease| {
        holder(lease) == "second"
    })
    .await;
}
