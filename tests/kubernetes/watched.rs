//! ConfigMaps and Secrets that people have marked to be watched: a change is taken up at once, without a word.

use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::{
    approval::{one, run},
    deletion::reason,
    lifecycle::{database, external, redis},
};
use crate::support::{
    kubernetes::{Kubernetes, Namespace, PATIENCE, condition_of},
    postgres::Postgres,
    process::eventually,
};

async fn patch(ns: &Namespace, kind: &str, name: &str, patch: Value) {
    let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
    ns.kind(kind).patch(name, &params, &patch).await.unwrap();
}

#[tokio::test]
async fn a_marked_secret_is_read_again_when_it_changes() {
    let api = Kubernetes::shared().await;
    let ns = api.namespace("watched").await;
    let _server = redis(&ns).await;
    patch(
        &ns,
        "Secret",
        "redis",
        json!({"metadata": {"labels": {"amas.dev/watch": "true"}}}),
    )
    .await;
    let _operator = ns.operator(&[("AMAS_SECRETS_WATCH", "Labelled")]).await;
    ns.apply(database("a", json!({"redis": {"external": external("redis")}})))
        .await;
    ns.wait_condition("AmasDatabase", "a", "Ready", "True").await;
    let right = ns.get("Secret", "redis").await.unwrap()["data"]["uri"].clone();
    // Nobody was refused, nothing was asked for: only the watch tells.
    patch(&ns, "Secret", "redis", json!({"data": {"uri": null}})).await;
    let told = |object: &Value| reason(object) == "CredentialsMissing";
    ns.wait("AmasDatabase", "a", "told", told).await;
    patch(&ns, "Secret", "redis", json!({"data": {"uri": right}})).await;
    ns.wait_condition("AmasDatabase", "a", "Ready", "True").await;
}

#[tokio::test]
async fn a_marked_config_map_of_migrations_is_read_again_when_it_changes() {
    const FILES: [(&str, &str); 1] = [("0001_a.sql", "CREATE TABLE a (id int);")];
    let api = Kubernetes::shared().await;
    let ns = api.namespace("marked").await;
    let postgres = Postgres::shared().await;
    ns.secret("postgres", &[("uri", &postgres.url("postgres", "postgres"))])
        .await;
    let labels = json!({"amas.dev/watch": "true"});
    ns.apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "files", "labels": labels}, "data": {"0001_a.sql": FILES[0].1}}))
        .await;
    let _operator = ns.operator(&[]).await;
    let sql = json!({"database": "marked", "owner": "marked_owner", "external": external("postgres")});
    let migrations = json!({"source": {"configMaps": ["files"]}});
    ns.apply(database("a", json!({"postgres": sql, "migrations": migrations})))
        .await;
    eventually("a Job", PATIENCE, || async { one(&ns, "Job").await.is_some() }).await;
    let job = one(&ns, "Job").await.unwrap();
    let (code, log) = run(&ns, &job, &FILES, "a-role-marked-owner").await;
    assert_eq!(code, Some(0), "{log}");
    ns.wait("AmasDatabase", "a", "at version 1", |object| {
        object.pointer("/status/migrations/current") == Some(&1.into())
    })
    .await;
    // Gone before what it did was read, it would be made again.
    let name = job["metadata"]["name"].as_str().unwrap();
    ns.kind("Job").delete(name, &DeleteParams::background()).await.unwrap();
    ns.wait_condition("AmasDatabase", "a", "Ready", "True").await;

    patch(
        &ns,
        "ConfigMap",
        "files",
        json!({"data": {"0002_b.sql": "CREATE TABLE b (id int);"}}),
    )
    .await;
    let told = |object: &Value| {
        let applied = condition_of(object, "MigrationsApplied");
        applied.is_some_and(|found| found["reason"] == "NewerAvailable")
    };
    ns.wait("AmasDatabase", "a", "told what is new", told).await;
}
