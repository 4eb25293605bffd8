//! Migration Jobs that end otherwise than one hopes.

use std::time::Duration;

use serde_json::{Value, json};

use super::message;
use crate::{
    deletion::reason,
    jobs::{Migrated, name_of},
    support::{job, kubernetes::condition_of},
};

const DAY: u64 = 86_400;

/// One file, read now.
async fn migrates(scene: &Migrated, text: &str) {
    scene.files(&[("0001_a.sql", text)]).await;
    let asked = json!({"amas.dev/reread-sources": text.len().to_string()});
    scene.apply(json!({}), asked).await;
}

/// How long after its end a Job is collected; never where this says nothing.
async fn lifetime(scene: &Migrated, job: &str, wanted: Option<u64>) {
    let is_so = |job: &Value| job.pointer("/spec/ttlSecondsAfterFinished").and_then(Value::as_u64) == wanted;
    scene.ns.wait("Job", job, &format!("collected {wanted:?}"), is_so).await;
}

#[tokio::test]
async fn a_job_that_gave_up_is_said_and_a_repaired_file_goes_on() {
    let scene = Migrated::new("gaveup").await;
    let ns = &scene.ns;
    let mut operator = ns.operator(&[]).await;
    migrates(&scene, "SELECT 1;").await;
    // Three pods' worth of Jobs, one after another.
    let mut jobs = Vec::new();
    for turn in 1..=3 {
        let is_of_turn = |job: &Value| name_of(job).ends_with(&format!("-{turn}"));
        jobs.push(name_of(&scene.job_that(is_of_turn).await).to_owned());
        job::give_up(ns, &jobs[turn - 1]).await;
    }
    let failed = |object: &Value| reason(object) == "MigrationFailed" && condition_of(object, "Stalled").is_some();
    ns.wait("AmasDatabase", "a", "MigrationFailed", failed).await;
    // The last one stays for people to look at.
    lifetime(&scene, &jobs[0], Some(DAY)).await;
    lifetime(&scene, &jobs[2], None).await;
    // That it failed is known without it, and also to an operator that starts.
    operator.kill();
    for job in &jobs {
        ns.delete("Job", job).await;
    }
    operator.again();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let object = ns.wait("AmasDatabase", "a", "MigrationFailed", failed).await;
    println!("Job given up: {}", message(&object));
    assert_eq!(scene.jobs().await, [] as [Value; 0]);

    // One more for a person who asks, with the same files; no name is used twice.
    ns.annotate("a", "amas.dev/reread-sources", "again").await;
    let fourth = scene.job().await;
    let fourth = name_of(&fourth);
    assert_eq!(fourth, jobs[0].replace("-0-1", "-0-4"));
    job::give_up(ns, fourth).await;
    lifetime(&scene, fourth, None).await;
    let handled = |object: &Value| failed(object) && object["status"]["migrations"]["attempts"] == 4;
    ns.wait("AmasDatabase", "a", "MigrationFailed again", handled).await;
    assert_eq!(scene.jobs().await.len(), 1, "one");

    migrates(&scene, "SELECT 1, 2;").await;
    scene.job_that(|job| name_of(job) != fourth).await;
    lifetime(&scene, fourth, Some(DAY)).await;
}

#[tokio::test]
async fn a_run_whose_job_vanished_meanwhile_is_started_again() {
    let scene = Migrated::new("vanished").await;
    let ns = &scene.ns;
    let mut operator = ns.operator(&[]).await;
    migrates(&scene, "SELECT 1;").await;
    let first = scene.job().await;
    let told = |object: &Value| object["status"]["migrations"]["attempts"] == 1;
    ns.wait("AmasDatabase", "a", "one attempt", told).await;
    operator.kill();
    ns.delete("Job", name_of(&first)).await;
    operator.again();
    let second = scene
        .job_that(|job| job["metadata"]["uid"] != first["metadata"]["uid"])
        .await;
    assert_eq!(name_of(&second), name_of(&first).replace("-0-1", "-0-2"));
}

/// The operator is away while a Job ends: both ends are understood at its start, and no second Job is made.
#[tokio::test]
async fn a_job_that_ends_while_no_operator_looks_is_understood() {
    let scene = Migrated::new("unseen").await;
    let ns = &scene.ns;
    let mut operator = ns.operator(&[]).await;
    let mut files = vec![("0001_a.sql", "CREATE TABLE public.a (id int);")];
    scene.files(&files).await;
    scene.apply(json!({}), json!({})).await;
    let good = scene.job().await;
    operator.kill();
    let (code, log) = scene.run(&good, &files).await;
    assert_eq!(code, Some(0), "{log}");
    job::complete(ns, name_of(&good)).await;
    operator.again();
    scene.ready().await;
    let only = scene.jobs().await;
    assert!(
        only.len() == 1 && only[0]["metadata"]["uid"] == good["metadata"]["uid"],
        "{only:#?}"
    );

    files.push(("0002_b.sql", "SELECT 1;\nINSERT INTO public.nowhere VALUES (1);"));
    scene.files(&files).await;
    scene.apply(json!({"targetVersion": 2}), json!({})).await;
    let bad = scene.job_that(|job| name_of(job) != name_of(&good)).await;
    operator.kill();
    let (code, log) = scene.run(&bad, &files).await;
    assert_eq!(code, Some(10), "{log}");
    job::give_up(ns, name_of(&bad)).await;
    operator.again();
    let object = scene.stalled("MigrationFailed", "0002_b.sql:2").await;
    assert_eq!(object["status"]["migrations"]["current"], 1);
    lifetime(&scene, name_of(&bad), None).await;
    let names: Vec<String> = scene.jobs().await.iter().map(|job| name_of(job).to_owned()).collect();
    let mut wanted = [name_of(&good), name_of(&bad)];
    wanted.sort_unstable();
    assert_eq!(names, wanted);
}
