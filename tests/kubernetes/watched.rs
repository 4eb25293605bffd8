//! ConfigMaps and Secrets that people have marked to be watched: a change is taken up at once, without a word.

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::{
    by_hand::{at_version, end, job, on_postgres, put_files, run},
    deletion::reason,
    lifecycle::{database, external, redis},
};
use crate::support::kubernetes::{Kubernetes, Namespace, condition_of};

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
    let (ns, _postgres) = on_postgres("marked").await;
    put_files(&ns, &FILES, json!({"amas.dev/watch": "true"})).await;
    let _operator = ns.operator(&[]).await;
    let sql = json!({"database": "marked", "owner": "marked_owner", "external": external("postgres")});
    let migrations = json!({"source": {"configMaps": ["files"]}});
    ns.apply(database("a", json!({"postgres": sql, "migrations": migrations})))
        .await;
    let job = job(&ns, "").await;
    let (code, log) = run(&ns, &job, &FILES, "a-role-marked-owner").await;
    assert_eq!(code, Some(0), "{log}");
    at_version(&ns, 1).await;
    end(&ns, &job).await;
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
