//! A schema that somebody changes by hand is told within a minute and forgotten when it is undone; it holds migrations back until it is
//! accepted, or is put back, as the specification says. No node runs Jobs: the test does.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::jobs::Migrated;
use crate::support::kubernetes::condition_of;

const FILES: [(&str, &str); 2] = [
    (
        "0001_a.sql",
        "CREATE TABLE a (id int PRIMARY KEY, note text); CREATE INDEX a_note ON a (note); CREATE VIEW seen AS SELECT id FROM a;",
    ),
    ("0002_b.sql", "CREATE TABLE b (id int);"),
];
/// A schema is looked at every minute; the rest is a margin for a busy machine.
const NOTICED: Duration = Duration::from_secs(60 + 30);

/// As many versions as asked for, with this mode and what is accepted.
async fn apply(scene: &Migrated, version: usize, mode: &str, accept: &str) {
    let asked = match accept {
        "" => json!({}),
        accept => json!({"amas.dev/accept-drift": accept}),
    };
    scene
        .apply(json!({"targetVersion": version, "drift": {"mode": mode}}), asked)
        .await;
}

async fn by_hand(scene: &Migrated, sql: &str) {
    scene.server.admin("drifting", &[sql]).await;
}

async fn migrate(scene: &Migrated, version: i64) {
    let job = scene.job().await;
    scene.succeed(&job, &FILES, ("current", version)).await;
    scene.ready().await;
}

/// How long it took until the status had so many objects that differ, and then the object.
async fn told(scene: &Migrated, objects: Option<i64>) -> (Duration, Value) {
    let begun = Instant::now();
    loop {
        let object = scene.object().await;
        let drift = object
            .pointer("/status/migrations/drift/objects")
            .and_then(Value::as_i64);
        if drift == objects && condition_of(&object, "Drifted").is_some() == objects.is_some() {
            return (begun.elapsed(), object);
        }
        assert!(
            begun.elapsed() < NOTICED,
            "not {objects:?} within {NOTICED:?}: {object:#}"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_schema_changed_by_hand_is_told_held_back_accepted_and_put_back() {
    let scene = Migrated::new("drifting").await;
    scene.files(&FILES).await;
    let _operator = scene.ns.operator(&[]).await;
    apply(&scene, 1, "Report", "").await;
    migrate(&scene, 1).await;

    // Told beside the readiness, and gone with the change.
    by_hand(&scene, "DROP INDEX a_note; ALTER TABLE a ADD COLUMN by_hand int").await;
    let (took, object) = told(&scene, Some(2)).await;
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
    by_hand(&scene, "ALTER TABLE a DROP COLUMN by_hand").await;
    println!("forgotten after {:?}", told(&scene, Some(1)).await.0);

    // Held back until it is accepted. The rights that the operator gives are no change.
    apply(&scene, 2, "Block", "").await;
    let object = scene.stalled("Drifted", "index a_note: gone").await;
    assert_eq!(condition_of(&object, "Available").unwrap()["status"], "True");
    assert!(scene.jobs().await.is_empty(), "nothing runs before");
    apply(&scene, 2, "Block", "yes").await;
    migrate(&scene, 2).await;
    let (_, object) = told(&scene, None).await;
    assert_eq!(object.pointer("/status/handled/accept-drift"), Some(&"yes".into()));

    // Put back.
    apply(&scene, 2, "Correct", "").await;
    scene.ready().await;
    by_hand(&scene, "DROP VIEW seen; CREATE TABLE mine (id int)").await;
    let (took, object) = told(&scene, Some(1)).await;
    println!("put back after {took:?}");
    assert_eq!(
        object.pointer("/status/migrations/drift/differences/0"),
        Some(&"table mine: new".into())
    );
    by_hand(&scene, "SELECT id FROM seen; DROP TABLE mine").await;
    told(&scene, None).await;
}
