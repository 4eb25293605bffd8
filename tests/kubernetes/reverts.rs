//! Files that a Git revert takes away: nothing is taken back that nobody asks for.

use serde_json::{Value, json};

use super::jobs::Migrated;
use crate::support::kubernetes::condition_of;

const FILES: [(&str, &str); 4] = [
    ("0001_a.up.sql", "CREATE TABLE public.a (id int);"),
    ("0001_a.down.sql", "DROP TABLE public.a;"),
    ("0002_b.up.sql", "CREATE TABLE public.b (id int);"),
    ("0002_b.down.sql", "DROP TABLE public.b;"),
];

/// Migrations up to the newest, whatever a failure means.
fn migrations(on_failure: &str) -> Value {
    json!({"allowDestructive": [2], "backupBefore": "Never", "onFailure": on_failure})
}

/// The newer database is told and left alone: it serves on, and no Job is made.
async fn ahead(scene: &Migrated) {
    let object = scene.stalled("DatabaseAhead", "").await;
    assert_eq!(condition_of(&object, "Available").unwrap()["status"], "True");
    assert_eq!(object["status"]["migrations"]["current"], 2);
    assert_eq!(scene.jobs().await, [] as [Value; 0]);
}

#[tokio::test]
async fn a_version_is_not_taken_back_where_nobody_asks_for_it() {
    let scene = Migrated::new("reverted").await;
    let _operator = scene.ns.operator(&[]).await;
    scene.files(&FILES).await;
    scene.apply(migrations("Stop"), json!({})).await;
    let up = scene.job().await;
    scene.succeed(&up, &FILES, ("current", 2)).await;
    scene.ready().await;

    let left = &FILES[..2];
    scene.files(left).await;
    scene
        .apply(migrations("Stop"), json!({"amas.dev/reread-sources": "1"}))
        .await;
    ahead(&scene).await;
    // Also as a change of the specification, which takes up the files as they are now.
    scene.apply(migrations("Rollback"), json!({})).await;
    let seen = |object: &Value| object["status"]["observedGeneration"] == object["metadata"]["generation"];
    scene.ns.wait("AmasDatabase", "a", "seen", seen).await;
    ahead(&scene).await;
}
