//! Migrations of an image: a Job that mounts it brings the files, and from then on they are planned and run like any others. No node mounts
//! images or runs Jobs here: the test does.

use std::time::Instant;

use kube::api::DeleteParams;
use serde_json::{Value, json};

use super::{
    approval::{one, run, stalled},
    lifecycle::{database, external},
};
use crate::support::{
    kubernetes::{Kubernetes, Namespace, PATIENCE},
    postgres::Postgres,
};

const FILES: [(&str, &str); 2] = [
    ("0001_a.sql", "CREATE TABLE a (id int);"),
    ("0002_b.sql", "DROP TABLE IF EXISTS b;"),
];
const SECRET: &str = "a-role-imaged-owner";

fn object(image: &Value, allowed: &[i64]) -> Value {
    let sql = json!({"database": "imaged", "owner": "imaged_owner", "roles": [], "external": external("postgres")});
    let migrations = json!({"source": {"image": image}, "allowDestructive": allowed});
    database("a", json!({"postgres": sql, "migrations": migrations}))
}

fn image(digit: char, path: &str) -> Value {
    let digest = digit.to_string().repeat(64);
    json!({"reference": format!("registry.example.com:5000/app/migrations@sha256:{digest}"), "path": path})
}

async fn job(ns: &Namespace) -> Value {
    let begun = Instant::now();
    loop {
        if let Some(job) = one(ns, "Job").await {
            return job;
        }
        let object = ns.get("AmasDatabase", "a").await.unwrap();
        assert!(begun.elapsed() < PATIENCE, "no Job: {object:#}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// It has no node that would end it.
async fn end(ns: &Namespace, job: &Value) {
    let name = job["metadata"]["name"].as_str().unwrap();
    ns.kind("Job").delete(name, &DeleteParams::background()).await.unwrap();
}

fn argument<'a>(job: &'a Value, flag: &str) -> Option<&'a str> {
    let all = job.pointer("/spec/template/spec/containers/0/args")?.as_array()?;
    let at = all.iter().position(|one| one == flag)?;
    all.get(at + 1)?.as_str()
}

#[tokio::test]
async fn migrations_come_from_an_image_of_nothing_but_files() {
    let api = Kubernetes::shared().await;
    let ns = api.namespace("imaged").await;
    let postgres = Postgres::shared().await;
    ns.secret("postgres", &[("uri", &postgres.url("postgres", "postgres"))])
        .await;
    let _operator = ns.operator(&[]).await;

    for (refused, part) in [
        (
            json!({"reference": "registry.example.com/app/migrations:1.0"}),
            "reference",
        ),
        (image('a', "/../etc"), "without '..'"),
        (image('a', "migrations"), "path"),
    ] {
        let answer = ns.try_apply(object(&refused, &[])).await.unwrap_err();
        assert!(answer.to_string().contains(part), "{answer}");
    }
    let first = image('a', "/sql/");
    ns.apply(object(&first, &[])).await;
    let brings = job(&ns).await;
    let volumes = brings
        .pointer("/spec/template/spec/volumes")
        .unwrap()
        .as_array()
        .unwrap();
    let volume = volumes.iter().find(|volume| volume["name"] == "source").unwrap();
    assert_eq!(
        volume["image"],
        json!({"reference": first["reference"], "pullPolicy": "IfNotPresent"})
    );
    assert_eq!(argument(&brings, "--dir"), Some("/run/amas/source/sql"));
    let (code, log) = run(&ns, &brings, &FILES, SECRET).await;
    assert_eq!(code, Some(0), "{log}");
    ns.wait("AmasDatabase", "a", "told the newest version", |object| {
        object.pointer("/status/migrations/target") == Some(&2.into())
    })
    .await;
    end(&ns, &brings).await;

    // What the files say is known before anything runs.
    stalled(&ns, "DestructiveNotAllowed", "0002_b.sql:1: drops a table").await;
    ns.apply(object(&first, &[2])).await;
    let runs = job(&ns).await;
    assert_eq!(argument(&runs, "--dir"), Some("/run/amas/source/sql"));
    // The plan is bound to the files that were read: an image that has others is not run.
    let other = [FILES[0], ("0002_b.sql", "DROP TABLE IF EXISTS c;")];
    assert_eq!(run(&ns, &runs, &other, SECRET).await.0, Some(13));
    let (code, log) = run(&ns, &runs, &FILES, SECRET).await;
    assert_eq!(code, Some(0), "{log}");
    ns.wait("AmasDatabase", "a", "at version 2", |object| {
        object.pointer("/status/migrations/current") == Some(&2.into())
    })
    .await;
    end(&ns, &runs).await;
    ns.wait_condition("AmasDatabase", "a", "Ready", "True").await;

    // Another image has other files, newer ones among them.
    ns.apply(object(&image('b', "/migrations"), &[2])).await;
    let brings = job(&ns).await;
    let more = [FILES[0], FILES[1], ("0003_c.sql", "SELECT 1;")];
    let (code, log) = run(&ns, &brings, &more, SECRET).await;
    assert_eq!(code, Some(0), "{log}");
    ns.wait("AmasDatabase", "a", "told the newest version", |object| {
        object.pointer("/status/migrations/target") == Some(&3.into())
    })
    .await;
    end(&ns, &brings).await;
    let runs = job(&ns).await;
    let (code, log) = run(&ns, &runs, &more, SECRET).await;
    assert_eq!(code, Some(0), "{log}");
    ns.wait("AmasDatabase", "a", "at version 3", |object| {
        object.pointer("/status/migrations/current") == Some(&3.into())
    })
    .await;
    end(&ns, &runs).await;
    ns.wait_condition("AmasDatabase", "a", "Ready", "True").await;
}
