//! Migration Jobs that end otherwise than one hopes.

use std::time::Duration;

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::{SOON, beside, message, sql};
use crate::{
    deletion::reason,
    lifecycle::database,
    support::{
        kubernetes::{Namespace, condition_of},
        postgres::Postgres,
        process::eventually,
    },
};

/// Files in a ConfigMap, and a database that runs them.
async fn migrated(ns: &Namespace, name: &str, text: &str) -> Value {
    ns.apply(
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "files"}, "data": {"0001_a.sql": text}}),
    )
    .await;
    let mut object = database(
        "a",
        json!({"postgres": sql(name, json!({})), "migrations": {"source": {"configMaps": ["files"]}}}),
    );
    object["metadata"]["annotations"] = json!({"amas.dev/reread-sources": text.len().to_string()});
    object
}

async fn jobs(ns: &Namespace) -> Vec<String> {
    let all = ns.list("Job").await;
    let mut names: Vec<String> = all
        .iter()
        .map(|job| job["metadata"]["name"].as_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

/// As the Job controller leaves one whose pods failed too often.
async fn give_up(ns: &Namespace, job: &str) {
    let at = "2026-01-01T00:00:00Z";
    let condition = |kind: &str| {
        json!({"type": kind, "status": "True", "reason": "BackoffLimitExceeded", "message": "Job has reached the specified backoff limit",
        "lastTransitionTime": at, "lastProbeTime": at})
    };
    let conditions = ["FailureTarget", "Failed"].map(condition);
    let status = json!({"status": {"startTime": at, "failed": 4, "conditions": conditions}});
    ns.kind("Job")
        .patch_status(job, &PatchParams::default(), &Patch::Merge(&status))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_job_that_gave_up_is_said_and_a_repaired_file_goes_on() {
    let postgres = Postgres::shared().await;
    let ns = beside("gaveup", &postgres).await;
    let mut operator = ns.operator(&[]).await;
    ns.apply(migrated(&ns, "gaveup", "SELECT 1;").await).await;
    // Three pods' worth of Jobs, one after another.
    for turn in 1..=3 {
        eventually("a Job", SOON, async || {
            jobs(&ns).await.iter().any(|name| name.ends_with(&format!("-{turn}")))
        })
        .await;
        let name = jobs(&ns)
            .await
            .into_iter()
            .find(|name| name.ends_with(&format!("-{turn}")))
            .unwrap();
        give_up(&ns, &name).await;
    }
    let failed = |object: &Value| reason(object) == "MigrationFailed" && condition_of(object, "Stalled").is_some();
    ns.wait("AmasDatabase", "a", "MigrationFailed", failed).await;
    // Also to one that starts.
    operator.kill();
    operator.again();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let object = ns.wait("AmasDatabase", "a", "MigrationFailed", failed).await;
    println!("Job given up: {}", message(&object));
    let before = jobs(&ns).await;
    ns.apply(migrated(&ns, "gaveup", "SELECT 1, 2;").await).await;
    eventually("another Job", SOON, async || {
        jobs(&ns).await.iter().any(|name| !before.contains(name))
    })
    .await;
}

#[tokio::test]
async fn a_run_whose_job_vanished_meanwhile_is_started_again() {
    let postgres = Postgres::shared().await;
    let ns = beside("vanished", &postgres).await;
    let mut operator = ns.operator(&[]).await;
    ns.apply(migrated(&ns, "vanished", "SELECT 1;").await).await;
    eventually("a Job", SOON, async || jobs(&ns).await.len() == 1).await;
    let first = ns.list("Job").await[0]["metadata"].clone();
    operator.kill();
    ns.delete("Job", first["name"].as_str().unwrap()).await;
    operator.again();
    eventually("another Job", SOON, async || {
        let all = ns.list("Job").await;
        all.iter()
            .any(|job| job["metadata"]["uid"] != first["uid"] && job["metadata"]["deletionTimestamp"].is_null())
    })
    .await;
}
