//! Migrations where no node runs the Job: the test runs its container, and takes the Job away, as a cluster would.

use std::{
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use base64::Engine;
use kube::api::DeleteParams;
use serde_json::{Map, Value, json};

use crate::support::{
    kubernetes::{Kubernetes, Namespace, PATIENCE},
    postgres::Postgres,
    process::Folder,
};

/// A namespace of this name, whose Secret `postgres` leads to the common server.
pub(super) async fn on_postgres(name: &str) -> (Namespace, Arc<Postgres>) {
    let ns = Kubernetes::shared().await.namespace(name).await;
    let postgres = Postgres::shared().await;
    ns.secret("postgres", &[("uri", &postgres.url("postgres", "postgres"))])
        .await;
    (ns, postgres)
}

/// Puts migrations into the ConfigMap `files`, with these labels.
pub(super) async fn put_files(ns: &Namespace, files: &[(&str, &str)], labels: Value) {
    let data: Map<String, Value> = files
        .iter()
        .map(|(name, sql)| ((*name).to_owned(), (*sql).into()))
        .collect();
    ns.apply(
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "files", "labels": labels}, "data": data}),
    )
    .await;
}

/// The Job that has to come and is not this one.
pub(super) async fn job(ns: &Namespace, but: &str) -> Value {
    let begun = Instant::now();
    loop {
        let found = one(ns, "Job").await.filter(|job| job["metadata"]["name"] != but);
        if let Some(job) = found {
            return job;
        }
        assert!(begun.elapsed() < PATIENCE, "no Job but {but}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// One of ours of this kind.
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

/// Waits until the operator has read what a Job did. One that goes before that would be made again.
pub(super) async fn at_version(ns: &Namespace, version: usize) {
    ns.wait("AmasDatabase", "a", &format!("at version {version}"), |object| {
        object.pointer("/status/migrations/current") == Some(&version.into())
    })
    .await;
}

/// Takes a Job away, which has no node that would end it, and nobody who collects garbage. Its name.
pub(super) async fn end(ns: &Namespace, job: &Value) -> String {
    let name = job["metadata"]["name"].as_str().unwrap();
    ns.kind("Job").delete(name, &DeleteParams::background()).await.unwrap();
    name.to_owned()
}
