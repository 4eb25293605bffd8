//! Migration Jobs that end otherwise than one hopes.

use std::time::Duration;

use serde_json::{Value, json};

use super::message;
use crate::{
    deletion::reason,
    jobs::{Migrated, name_of},
    support::{job, kubernetes::condition_of},
};

/// One file, read now.
async fn migrates(scene: &Migrated, text: &str) {
    scene.files(&[("0001_a.sql", text)]).await;
    let asked = json!({"amas.dev/reread-sources": text.len().to_string()});
    scene.apply(json!({}), asked).await;
}

#[tokio::test]
async fn a_job_that_gave_up_is_said_and_a_repaired_file_goes_on() {
    let scene = Migrated::new("gaveup").await;
    let ns = &scene.ns;
    let mut operator = ns.operator(&[]).await;
    migrates(&scene, "SELECT 1;").await;
    // Three pods' worth of Jobs, one after another.
    for turn in 1..=3 {
        let is_of_turn = |job: &Value| name_of(job).ends_with(&format!("-{turn}"));
        job::give_up(ns, name_of(&scene.job_that(is_of_turn).await)).await;
    }
    let failed = |object: &Value| reason(object) == "MigrationFailed" && condition_of(object, "Stalled").is_some();
    ns.wait("AmasDatabase", "a", "MigrationFailed", failed).await;
    // Also to one that starts.
    operator.kill();
    operator.again();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let object = ns.wait("AmasDatabase", "a", "MigrationFailed", failed).await;
    println!("Job given up: {}", message(&object));
    let before: Vec<String> = scene.jobs().await.iter().map(|job| name_of(job).to_owned()).collect();
    migrates(&scene, "SELECT 1, 2;").await;
    scene
        .job_that(|job| !before.iter().any(|name| name == name_of(job)))
        .await;
}

#[tokio::test]
async fn a_run_whose_job_vanished_meanwhile_is_started_again() {
    let scene = Migrated::new("vanished").await;
    let ns = &scene.ns;
    let mut operator = ns.operator(&[]).await;
    migrates(&scene, "SELECT 1;").await;
    let first = scene.job().await;
    operator.kill();
    ns.delete("Job", name_of(&first)).await;
    operator.again();
    let uid = &first["metadata"]["uid"];
    scene.job_that(|job| job["metadata"]["uid"] != *uid).await;
}
