//! Files that a Git revert takes away: nothing is taken back that nobody asks for, and what is asked for is, by the text that the database kept.

use serde_json::{Value, json};

use super::jobs::{Migrated, name_of};
use crate::support::{
    job::{argument, give_up},
    kubernetes::condition_of,
};

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

#[tokio::test]
async fn what_a_failed_run_has_applied_is_taken_back_where_that_is_asked_for() {
    let scene = Migrated::new("rolled").await;
    let mut operator = scene.ns.operator(&[]).await;
    let failing = [("0003_c.up.sql", "SELECT 1/0;"), ("0003_c.down.sql", "SELECT 1;")];
    let files = [FILES.as_slice(), &failing].concat();
    scene.files(&files).await;
    scene.apply(migrations(None, "Rollback"), json!({})).await;
    let job = scene.job().await;
    let (code, log) = scene.run(&job, &files).await;
    assert_eq!(code, Some(10), "{log}");
    // No pod is here to tell its last words: an operator that starts reads the database first.
    operator.kill();
    give_up(&scene.ns, name_of(&job)).await;
    operator.again();
    let object = scene
        .stalled("MigrationFailed", "rolled back: the schema is at version 0")
        .await;
    let told = &object["status"]["migrations"];
    let at = (&told["current"], &told["failure"]["version"]);
    assert_eq!(at, (&Value::Null, &json!(3)), "{told}");
    let mut inside = scene.server.connect("postgres", "rolled").await;
    let left: i64 =
        sqlx::query_scalar("SELECT count(*) FROM pg_tables WHERE schemaname = 'public' AND tablename IN ('a', 'b')")
            .fetch_one(&mut inside)
            .await
            .unwrap();
    assert_eq!(left, 0);
    // A corrected file goes on from there.
    let mended = [FILES.as_slice(), &[("0003_c.up.sql", "SELECT 1;"), failing[1]]].concat();
    scene.files(&mended).await;
    scene
        .apply(migrations(None, "Rollback"), json!({"amas.dev/reread-sources": "1"}))
        .await;
    let again = scene.job_that(|other| name_of(other) != name_of(&job)).await;
    scene.succeed(&again, &mended, ("current", 3)).await;
    scene.ready().await;
}
