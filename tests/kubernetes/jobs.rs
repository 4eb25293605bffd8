//! A database `a` on the tests' PostgreSQL with migrations, and its Jobs, which the test runs: no node does.

use std::{sync::Arc, time::Instant};

use serde_json::{Value, json};

use super::lifecycle::{database, external, postgres};
use crate::support::{
    job::Pod,
    kubernetes::{Kubernetes, Namespace, PATIENCE, condition_of},
    postgres::Postgres,
};

pub struct Migrated {
    pub ns: Namespace,
    pub server: Arc<Postgres>,
    /// Of the database on the server; its roles are `<name>_owner` and `<name>_app`.
    name: &'static str,
}

impl Migrated {
    pub async fn new(name: &'static str) -> Self {
        let ns = Kubernetes::shared().await.namespace(name).await;
        let server = postgres(&ns).await;
        Self { ns, server, name }
    }

    /// The files of the ConfigMap that migrations come from unless they say otherwise.
    pub async fn files(&self, files: &[(&str, &str)]) {
        self.ns.config_map("files", files).await;
    }

    /// The object with these `migrations`, and what its annotations ask for.
    pub fn wanted(&self, mut migrations: Value, asked: Value) -> Value {
        let roles = json!([{"name": format!("{}_app", self.name), "access": "ReadWrite"}]);
        let owner = format!("{}_owner", self.name);
        let sql = json!({"database": self.name, "owner": owner, "roles": roles, "external": external("postgres")});
        if migrations["source"].is_null() {
            migrations["source"] = json!({"configMaps": ["files"]});
        }
        let mut object = database("a", json!({"postgres": sql, "migrations": migrations}));
        object["metadata"]["annotations"] = asked;
        object
    }

    pub async fn apply(&self, migrations: Value, asked: Value) {
        self.ns.apply(self.wanted(migrations, asked)).await;
    }

    pub async fn object(&self) -> Value {
        self.ns.get("AmasDatabase", "a").await.unwrap()
    }

    /// Waits until it is Stalled for this reason, with this part in the message; the object.
    pub async fn stalled(&self, reason: &str, part: &str) -> Value {
        let is_stalled = |object: &Value| {
            condition_of(object, "Stalled").is_some_and(|stalled| {
                stalled["reason"] == reason && stalled["message"].as_str().is_some_and(|text| text.contains(part))
            })
        };
        let what = format!("stalled: {reason}: {part}");
        self.ns.wait("AmasDatabase", "a", &what, is_stalled).await
    }

    pub async fn ready(&self) {
        self.ns.wait_condition("AmasDatabase", "a", "Ready", "True").await;
    }

    /// Jobs that are there and stay, by name.
    pub async fn jobs(&self) -> Vec<Value> {
        let mut all = self.ns.list("Job").await;
        all.retain(|job| job["metadata"]["deletionTimestamp"].is_null());
        all.sort_by_key(|job| job["metadata"]["name"].to_string());
        all
    }

    /// Waits for a Job that is as `wanted` says.
    pub async fn job_that(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            if let Some(job) = self.jobs().await.into_iter().find(&wanted) {
                return job;
            }
            assert!(begun.elapsed() < PATIENCE, "no Job: {:#}", self.object().await);
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    pub async fn job(&self) -> Value {
        self.job_that(|_| true).await
    }

    /// Runs the pod of a Job with these files.
    pub async fn run(&self, job: &Value, files: &[(&str, &str)]) -> (Option<i32>, String) {
        Pod::new(&self.ns, job, files).await.run().await
    }

    /// The same to a good end, until `status.migrations` says in this field which version that makes. Then the Job is taken away, since nobody
    /// here ends or collects it.
    pub async fn succeed(&self, job: &Value, files: &[(&str, &str)], (field, version): (&str, i64)) {
        let (code, log) = self.run(job, files).await;
        assert_eq!(code, Some(0), "{log}");
        let is_told = |object: &Value| object["status"]["migrations"][field] == version;
        let what = format!("{field} {version}");
        self.ns.wait("AmasDatabase", "a", &what, is_told).await;
        self.ns.delete("Job", name_of(job)).await;
    }
}

pub fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}
