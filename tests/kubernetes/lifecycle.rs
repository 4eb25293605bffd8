//! The harness itself: external stores become Ready, a killed operator comes back and writes nothing, two operators take turns.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};

use crate::support::{
    kubernetes::{Kubernetes, Namespace},
    postgres::Postgres,
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

    operator.kill();
    let mark = api.audit();
    operator.again();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let requests = mark.requests().unwrap().in_namespace(&ns.name);
    assert!(!requests.is_empty(), "the operator came back:\n{}", operator.log());
    assert!(requests.writes().is_empty(), "{}", requests.writes().lines());
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
