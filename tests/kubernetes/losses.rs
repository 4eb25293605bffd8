//! Somebody deletes what holds the data: it is said, nothing empty takes its place, and a person's word makes it anew.

use std::time::{Duration, Instant};

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use sqlx::Connection;

use crate::{
    lifecycle::{database, external, postgres},
    support::{
        kubernetes::{Kubernetes, Namespace, condition_of},
        managed::Node,
    },
};

/// How long nothing must happen for it to count.
const STILL: Duration = Duration::from_millis(1500);

/// Waits until Ready is False for this reason with these words in the message.
async fn told(ns: &Namespace, reason: &str, words: &str) -> Value {
    let is_told = |object: &Value| {
        condition_of(object, "Ready").is_some_and(|ready| {
            ready["status"] == "False"
                && ready["reason"] == reason
                && ready["message"].as_str().unwrap().contains(words)
        })
    };
    ns.wait("AmasDatabase", "a", &format!("{reason}: {words}"), is_told)
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_volume_is_made_again_only_when_told() {
    let api = Kubernetes::shared().await;
    let ns = api.namespace("volume").await;
    let mut node = Node::new(&ns, "a");
    let mut operator = node.operator(&[]);
    ns.apply(database(
        "a",
        json!({"redis": {"managed": {"storage": {"size": "1Gi"}}}}),
    ))
    .await;
    node.run(&["redis"]).await;
    ns.wait_condition("AmasDatabase", "a", "Ready", "True").await;

    // Kubernetes keeps a claim until its pod ends: there is still time.
    ns.delete("PersistentVolumeClaim", "a-redis").await;
    let object = told(&ns, "VolumeMissing", "is being deleted").await;
    assert_eq!(
        condition_of(&object, "Available").unwrap()["status"],
        "True",
        "{object:#}"
    );
    node.redis = None;
    let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    let claims = ns.kind("PersistentVolumeClaim");
    claims.patch("a-redis", &PatchParams::default(), &free).await.unwrap();
    let object = told(&ns, "VolumeMissing", "amas.dev/accept-empty=redis/").await;
    assert_eq!(condition_of(&object, "Stalled").unwrap()["reason"], "VolumeMissing");
    operator.again();
    tokio::time::sleep(STILL).await;
    ns.annotate("a", "amas.dev/accept-empty", "postgres/1").await;
    tokio::time::sleep(STILL).await;
    assert_eq!(
        ns.get("PersistentVolumeClaim", "a-redis").await,
        None,
        "nobody has said so"
    );

    ns.annotate("a", "amas.dev/accept-empty", "redis/1").await;
    ns.wait("PersistentVolumeClaim", "a-redis", "made anew", |_| true).await;
    node.run(&["redis"]).await;
    let is_handled = |object: &Value| object.pointer("/status/handled/accept-empty") == Some(&json!("redis/1"));
    ns.wait("AmasDatabase", "a", "handled", is_handled).await;
    ns.wait_condition("AmasDatabase", "a", "Ready", "True").await;

    // The same word does not count a second time.
    claims.patch("a-redis", &PatchParams::default(), &free).await.unwrap();
    ns.delete("PersistentVolumeClaim", "a-redis").await;
    told(&ns, "VolumeMissing", "is gone").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_database_is_made_again_only_when_told() {
    let api = Kubernetes::shared().await;
    let ns = api.namespace("dropped").await;
    let postgres = postgres(&ns).await;
    let mut operator = ns.operator(&[]).await;
    let roles = json!([{"name": "dropped_app", "access": "ReadWrite"}]);
    let sql = json!({"database": "dropped", "roles": roles, "external": external("postgres")});
    ns.apply(database("a", json!({"postgres": sql}))).await;
    ns.wait_condition("AmasDatabase", "a", "Ready", "True").await;

    let begun = Instant::now();
    postgres
        .admin("postgres", &["DROP DATABASE dropped WITH (FORCE)"])
        .await;
    let object = told(&ns, "DatabaseMissing", "amas.dev/accept-empty=postgres/").await;
    println!("a dropped database was told after {:?}", begun.elapsed());
    assert_eq!(
        condition_of(&object, "Available").unwrap()["status"],
        "False",
        "{object:#}"
    );
    operator.again();
    tokio::time::sleep(STILL).await;
    told(&ns, "DatabaseMissing", "dropped").await;
    let there = async || {
        let login = sqlx::ConnectOptions::connect(&postgres.login("postgres", "dropped")).await;
        match login {
            Ok(session) => session.close().await.is_ok(),
            Err(_) => false,
        }
    };
    assert!(!there().await, "nobody has said so");

    ns.annotate("a", "amas.dev/accept-empty", "postgres/1").await;
    ns.wait_condition("AmasDatabase", "a", "Ready", "True").await;
    assert!(there().await);
    let is_handled = |object: &Value| object.pointer("/status/handled/accept-empty") == Some(&json!("postgres/1"));
    ns.wait("AmasDatabase", "a", "handled", is_handled).await;
}
