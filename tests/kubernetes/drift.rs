//! A schema that somebody changes by hand is told within a minute and forgotten when it is undone; it holds migrations back until it is
//! accepted, or is put back, as the specification says. No node runs Jobs: the test does.

use std::time::{Duration, Instant};

use kube::api::DeleteParams;
use serde_json::{Value, json};

use super::{
    approval::{one, run, stalled},
    lifecycle::{database, external},
};
use crate::support::{
    kubernetes::{Kubernetes, Namespace, condition_of},
    postgres::Postgres,
};

const FILES: [(&str, &str); 2] = [
    (
        "0001_a.sql",
        "CREATE TABLE a (id int PRIMARY KEY, note text); CREATE INDEX a_note ON a (note); CREATE VIEW seen AS SELECT id FROM a;",
    ),
    ("0002_b.sql", "CREATE TABLE b (id int);"),
];
const NAME: &str = "drifting";
const MINUTE: Duration = Duration::from_secs(60);

struct Scene {
    ns: Namespace,
    postgres: std::sync::Arc<Postgres>,
}

impl Scene {
    async fn apply(&self, files: usize, mode: &str, accept: &str) {
        let roles = json!([{"name": "drifting_app", "access": "ReadWrite"}]);
        let sql =
            json!({"database": NAME, "owner": "drifting_owner", "roles": roles, "external": external("postgres")});
        let migrations = json!({"source": {"configMaps": ["files"]}, "targetVersion": files, "drift": {"mode": mode}});
        let mut object = database("a", json!({"postgres": sql, "migrations": migrations}));
        if !accept.is_empty() {
            object["metadata"]["annotations"] = json!({"amas.dev/accept-drift": accept});
        }
        self.ns.apply(object).await;
    }

    async fn by_hand(&self, sql: &str) {
        self.postgres.admin(NAME, &[sql]).await;
    }

    /// Waits until a Job is there, runs it and takes it away.
    async fn migrate(&self, version: i64) {
        let begun = Instant::now();
        while one(&self.ns, "Job").await.is_none() {
            let object = self.ns.get("AmasDatabase", "a").await.unwrap();
            assert!(begun.elapsed() < MINUTE, "no Job: {object:#}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let job = one(&self.ns, "Job").await.unwrap();
        let (code, log) = run(&self.ns, &job, &FILES, "a-role-drifting-owner").await;
        assert_eq!(code, Some(0), "{log}");
        self.ns
            .wait("AmasDatabase", "a", "migrated", |object| {
                object.pointer("/status/migrations/current") == Some(&version.into())
            })
            .await;
        let name = job["metadata"]["name"].as_str().unwrap();
        self.ns
            .kind("Job")
            .delete(name, &DeleteParams::background())
            .await
            .unwrap();
        self.ns.wait_condition("AmasDatabase", "a", "Ready", "True").await;
    }

    /// How long it took until the status had so many objects that differ, and then the object.
    async fn told(&self, objects: Option<i64>) -> (Duration, Value) {
        let begun = Instant::now();
        loop {
            let object = self.ns.get("AmasDatabase", "a").await.unwrap();
            let drift = object
                .pointer("/status/migrations/drift/objects")
                .and_then(Value::as_i64);
            if drift == objects && condition_of(&object, "Drifted").is_some() == objects.is_some() {
                return (begun.elapsed(), object);
            }
            assert!(begun.elapsed() < MINUTE, "not {objects:?} within a minute: {object:#}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

#[tokio::test]
async fn a_schema_changed_by_hand_is_told_held_back_accepted_and_put_back() {
    let api = Kubernetes::shared().await;
    let scene = Scene {
        ns: api.namespace(NAME).await,
        postgres: Postgres::shared().await,
    };
    let ns = &scene.ns;
    ns.secret("postgres", &[("uri", &scene.postgres.url("postgres", "postgres"))])
        .await;
    let data: serde_json::Map<String, Value> = FILES
        .map(|(name, sql)| (name.to_owned(), sql.into()))
        .into_iter()
        .collect();
    ns.apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "files"}, "data": data}))
        .await;
    let _operator = ns.operator(&[]).await;
    scene.apply(1, "Report", "").await;
    scene.migrate(1).await;

    // Told beside the readiness, and gone with the change.
    scene
        .by_hand("DROP INDEX a_note; ALTER TABLE a ADD COLUMN by_hand int")
        .await;
    let (took, object) = scene.told(Some(2)).await;
    println!("told after {took:?}");
    let lines = json!(["column a.by_hand: new: integer", "index a_note: gone"]);
    assert_eq!(object.pointer("/status/migrations/drift/differences"), Some(&lines));
    for condition in ["Ready", "Available"] {
        assert_eq!(
            condition_of(&object, condition).unwrap()["status"],
            "True",
            "{condition}"
        );
    }
    let ready = condition_of(&object, "Ready").unwrap()["message"].clone();
    assert!(
        ready
            .as_str()
            .unwrap()
            .contains("2 objects are not as version 1 left them"),
        "{ready}"
    );
    scene.by_hand("ALTER TABLE a DROP COLUMN by_hand").await;
    println!("forgotten after {:?}", scene.told(Some(1)).await.0);

    // Held back until it is accepted. The rights that the operator gives are no change.
    scene.apply(2, "Block", "").await;
    let object = stalled(ns, "Drifted", "index a_note: gone").await;
    assert_eq!(condition_of(&object, "Available").unwrap()["status"], "True");
    assert!(one(ns, "Job").await.is_none(), "nothing runs before");
    scene.apply(2, "Block", "yes").await;
    scene.migrate(2).await;
    let (_, object) = scene.told(None).await;
    assert_eq!(object.pointer("/status/handled/accept-drift"), Some(&"yes".into()));

    // Put back.
    scene.apply(2, "Correct", "").await;
    ns.wait_condition("AmasDatabase", "a", "Ready", "True").await;
    scene.by_hand("DROP VIEW seen; CREATE TABLE mine (id int)").await;
    let (took, object) = scene.told(Some(1)).await;
    println!("put back after {took:?}");
    assert_eq!(
        object.pointer("/status/migrations/drift/differences/0"),
        Some(&"table mine: new".into())
    );
    scene.by_hand("SELECT id FROM seen; DROP TABLE mine").await;
    scene.told(None).await;
}
