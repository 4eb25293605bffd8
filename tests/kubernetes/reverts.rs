//! Files that a Git revert takes away: nothing is taken back that nobody asks for, and what is asked for is, by the text that the database kept.

use serde_json::{Value, json};

use super::jobs::Migrated;
use crate::support::{job::argument, kubernetes::condition_of};

const FILES: [(&str, &str); 4] = [
    ("0001_a.up.sql", "CREATE TABLE public.a (id int);"),
    ("0001_a.down.sql", "DROP TABLE public.a;"),
    ("0002_b.up.sql", "CREATE TABLE public.b (id int);"),
    ("0002_b.down.sql", "DROP TABLE public.b;"),
];

/// Migrations that lose nothing worth a backup, up to this version if one is asked for.
fn migrations(target: Option<i64>, on_failure: &str) -> Value {
    let mut migrations = json!({"allowDestructive": [2], "backupBefore": "Never", "onFailure": on_failure});
    if let Some(target) = target {
        migrations["targetVersion"] = target.into();
    }
    migrations
}

async fn tables(scene: &Migrated) -> String {
    let mut inside = scene.server.connect("postgres", "reverted").await;
    let query = "SELECT string_agg(tablename, ' ' ORDER BY tablename) FROM pg_tables WHERE schemaname = 'public' AND tablename IN ('a', 'b')";
    sqlx::query_scalar(query).fetch_one(&mut inside).await.unwrap()
}

/// The newer database is told and left alone: it serves on, and no Job is made.
async fn ahead(scene: &Migrated) {
    let object = scene.stalled("DatabaseAhead", "").await;
    assert_eq!(condition_of(&object, "Available").unwrap()["status"], "True");
    assert_eq!(object["status"]["migrations"]["current"], 2);
    assert_eq!(scene.jobs().await, [] as [Value; 0]);
}

#[tokio::test]
async fn a_version_is_taken_back_only_where_that_is_asked_for() {
    let scene = Migrated::new("reverted").await;
    let _operator = scene.ns.operator(&[]).await;
    scene.files(&FILES).await;
    scene.apply(migrations(None, "Stop"), json!({})).await;
    let up = scene.job().await;
    scene.succeed(&up, &FILES, ("current", 2)).await;
    scene.ready().await;

    let left = &FILES[..2];
    scene.files(left).await;
    scene
        .apply(migrations(None, "Stop"), json!({"amas.dev/reread-sources": "1"}))
        .await;
    ahead(&scene).await;
    // Also as a change of the specification, which takes up the files as they are now.
    scene.apply(migrations(None, "Rollback"), json!({})).await;
    let seen = |object: &Value| object["status"]["observedGeneration"] == object["metadata"]["generation"];
    scene.ns.wait("AmasDatabase", "a", "seen", seen).await;
    ahead(&scene).await;

    scene.apply(migrations(Some(1), "Stop"), json!({})).await;
    let down = scene.job().await;
    assert_eq!(argument(&down, "migrate"), Some("down"));
    assert_eq!(argument(&down, "--to"), Some("1"));
    scene.succeed(&down, left, ("current", 1)).await;
    scene.ready().await;
    assert_eq!(tables(&scene).await, "a");
    scene.apply(migrations(None, "Stop"), json!({})).await;
    scene.ns.wait("AmasDatabase", "a", "seen", seen).await;
    scene.ready().await;
    assert_eq!(scene.jobs().await, [] as [Value; 0]);
}
