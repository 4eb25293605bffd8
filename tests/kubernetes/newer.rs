//! Migrations that a newer operator brings along: told, and run when the specification changes, never by the upgrade. No node runs the Job: the test does.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    by_hand::{at_version, end, job, on_postgres, one, run},
    lifecycle::{database, external},
};
use crate::support::{
    kubernetes::{Namespace, condition_of},
    process::Folder,
};

const FILES: [(&str, &str); 2] = [
    ("0001_a.sql", "CREATE TABLE a (id int);"),
    ("0002_b.sql", "CREATE TABLE b (id int);"),
];

/// Runs the Job that has to come, as its pod would, with these files.
async fn migrated(ns: &Namespace, files: &[(&str, &str)]) {
    let job = job(ns, "").await;
    let (code, log) = run(ns, &job, files, "a-role-newer-owner").await;
    assert_eq!(code, Some(0), "{log}");
    at_version(ns, files.len()).await;
    end(ns, &job).await;
    ns.wait_condition("AmasDatabase", "a", "Ready", "True").await;
}

#[tokio::test]
async fn migrations_that_a_newer_operator_brings_wait_for_a_change_of_the_specification() {
    let (ns, _postgres) = on_postgres("newer").await;
    let bundles = Folder::new("bundles");
    bundles.write(&format!("own/{}", FILES[0].0), FILES[0].1);
    let settings = [("AMAS_MIGRATIONS_DIR", bundles.path().to_str().unwrap())];
    let mut operator = ns.operator(&settings).await;
    let object = |timeout: &str| {
        let sql = json!({"database": "newer", "owner": "newer_owner", "external": external("postgres")});
        database(
            "a",
            json!({"postgres": sql, "migrations": {"source": {"bundle": "own"}}, "deletionTimeout": timeout}),
        )
    };
    ns.apply(object("60s")).await;
    migrated(&ns, &FILES[..1]).await;

    operator.stop();
    bundles.write(&format!("own/{}", FILES[1].0), FILES[1].1);
    operator.again();
    let told = |object: &Value| {
        let applied = condition_of(object, "MigrationsApplied");
        applied.is_some_and(|found| found["status"] == "True" && found["reason"] == "NewerAvailable")
    };
    let object_now = ns.wait("AmasDatabase", "a", "told what is new", told).await;
    let ready = condition_of(&object_now, "Ready").unwrap();
    assert_eq!(ready["status"], "True", "{object_now:#}");
    // It would have come with the reconcile that told it.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(one(&ns, "Job").await.is_none(), "an upgrade starts no migration");

    ns.apply(object("61s")).await;
    migrated(&ns, &FILES).await;
}
