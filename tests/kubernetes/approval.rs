//! A plan waits in the cluster until exactly it is approved, and its Job runs with what was approved. No node runs the Job: the test does.

use std::{path::Path, process::Command};

use base64::Engine;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use super::lifecycle::{database, external};
use crate::support::{
    kubernetes::{Kubernetes, Namespace, condition_of},
    postgres::Postgres,
    process::{Folder, eventually},
};

const FILES: [(&str, &str); 4] = [
    ("0001_a.up.sql", "CREATE TABLE a (id int);"),
    ("0001_a.down.sql", "DROP TABLE a;"),
    ("0002_b.up.sql", "SELECT 1;\nDROP TABLE IF EXISTS b;"),
    ("0002_b.down.sql", "SELECT 1;"),
];

fn object(migrations: &Value, approved: &str) -> Value {
    let sql = json!({"database": "approval", "owner": "approval_owner", "roles": [], "external": external("postgres")});
    let mut migrations = migrations.clone();
    migrations["source"] = json!({"configMaps": ["files"]});
    let mut object = database("a", json!({"postgres": sql, "migrations": migrations}));
    if !approved.is_empty() {
        object["metadata"]["annotations"] = json!({"amas.dev/approve-plan": approved});
    }
    object
}

pub(super) async fn stalled(ns: &Namespace, reason: &str, part: &str) -> Value {
    ns.wait("AmasDatabase", "a", &format!("stalled: {reason}"), |object| {
        condition_of(object, "Stalled").is_some_and(|stalled| {
            stalled["reason"] == reason && stalled["message"].as_str().is_some_and(|text| text.contains(part))
        })
    })
    .await
}

pub(super) async fn one(ns: &Namespace, kind: &str) -> Option<Value> {
    let mut all = ns.list(kind).await.into_iter();
    all.find(|object| {
        object["metadata"]["name"]
            .as_str()
            .is_some_and(|name| name.starts_with("a-"))
    })
}

/// Runs the container of a Job here, with these files and the login of this Secret.
pub(super) async fn run(ns: &Namespace, job: &Value, files: &[(&str, &str)], secret: &str) -> (Option<i32>, String) {
    run_with(ns, job, files, (secret, Path::new("/nonexistent"))).await
}

/// The same, with a folder as the volume for backups.
pub(super) async fn run_with(
    ns: &Namespace,
    job: &Value,
    files: &[(&str, &str)],
    (secret, backups): (&str, &Path),
) -> (Option<i32>, String) {
    let folder = Folder::new(secret);
    for (name, sql) in files {
        folder.write(name, sql);
    }
    let secret = ns.get("Secret", secret).await.unwrap();
    let url = secret["data"]["DATABASE_URL"].as_str().unwrap();
    let url = base64::engine::general_purpose::STANDARD.decode(url).unwrap();
    let url = folder.write("url", std::str::from_utf8(&url).unwrap());
    let args = job.pointer("/spec/template/spec/containers/0/args").unwrap();
    let args = args.as_array().unwrap().iter().map(|arg| match arg.as_str().unwrap() {
        source if source.starts_with("/run/amas/source") || source.starts_with("/migrations/") => {
            folder.path().to_str().unwrap().to_owned()
        }
        "/run/amas/login/DATABASE_URL" => url.to_str().unwrap().to_owned(),
        "/run/amas/backups" => backups.to_str().unwrap().to_owned(),
        "/dev/termination-log" => folder.path().join("end").to_str().unwrap().to_owned(),
        other => other.to_owned(),
    });
    let mut command = Command::new(env!("CARGO_BIN_EXE_amas-operator"));
    command.args(args);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

#[tokio::test]
async fn a_plan_runs_when_its_losses_are_accepted_and_its_hash_is_approved() {
    let api = Kubernetes::shared().await;
    let ns = api.namespace("approval").await;
    let postgres = Postgres::shared().await;
    ns.secret("postgres", &[("uri", &postgres.url("postgres", "postgres"))])
        .await;
    let data: serde_json::Map<String, Value> = FILES
        .map(|(name, sql)| (name.to_owned(), sql.into()))
        .into_iter()
        .collect();
    ns.apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "files"}, "data": data}))
        .await;
    let _operator = ns.operator(&[]).await;

    ns.apply(object(&json!({"approval": "Manual"}), "")).await;
    stalled(&ns, "DestructiveNotAllowed", "allowDestructive: [2]").await;

    let accepted = json!({"approval": "Manual", "allowDestructive": [2]});
    ns.apply(object(&accepted, &"0".repeat(64))).await;
    let seen = stalled(&ns, "WaitingForApproval", "what was approved (000").await;
    let plan = seen.pointer("/status/migrations/pendingPlan").unwrap();
    assert_eq!((&plan["to"], &plan["statementCount"]), (&2.into(), &3.into()), "{plan}");
    let hash = plan["hash"].as_str().unwrap();
    let map = ns.get("ConfigMap", plan["configMap"].as_str().unwrap()).await.unwrap();
    let text = map["data"]["plan.txt"].as_str().unwrap();
    for part in [
        hash,
        "0002_b.up.sql:2: DROP TABLE IF EXISTS b",
        "drops a table",
        "ACCESS EXCLUSIVE on \"b\"",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(one(&ns, "Job").await.is_none(), "nothing runs before");

    ns.apply(object(&accepted, hash)).await;
    eventually("a Job", std::time::Duration::from_secs(20), || async {
        one(&ns, "Job").await.is_some()
    })
    .await;
    let job = one(&ns, "Job").await.unwrap();
    let (code, log) = run(&ns, &job, &FILES, "a-role-approval-owner").await;
    assert_eq!(code, Some(0), "{log}");
    ns.wait("AmasDatabase", "a", "at version 2", |object| {
        object.pointer("/status/migrations/current") == Some(&2.into())
    })
    .await;
    // It has no node that would end it, and nobody collects garbage here.
    let name = job["metadata"]["name"].as_str().unwrap();
    ns.kind("Job").delete(name, &DeleteParams::background()).await.unwrap();
    ns.wait_condition("AmasDatabase", "a", "Ready", "True").await;
    ns.wait_gone("ConfigMap", map["metadata"]["name"].as_str().unwrap())
        .await;
    let after = ns.get("AmasDatabase", "a").await.unwrap();
    assert!(after.pointer("/status/migrations/pendingPlan").is_none(), "{after}");
}
