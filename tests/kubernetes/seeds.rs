//! First data out of ConfigMaps: each profile's files are run once by a Job, those of another profile beside what is there.

use serde_json::{Value, json};

use super::jobs::{Migrated, name_of};
use crate::support::job::{self, argument};

const FILES: [(&str, &str); 1] = [(
    "0001_note.sql",
    "CREATE TABLE public.note (id int PRIMARY KEY, text text);",
)];

async fn seeded(scene: &Migrated, profile: &str, map: &str, asked: &str) {
    let mut object = scene.wanted(json!({}), json!({"amas.dev/reread-sources": asked}));
    object["spec"]["seed"] = json!({"profile": profile, "configMaps": [map]});
    scene.ns.apply(object).await;
}

async fn put(scene: &Migrated, map: &str, text: &str) {
    scene.ns.config_map(map, &[("0001_notes.sql", text)]).await;
}

/// Runs the Job that has to come, until the profile is told as in; how it was called for that.
async fn run(scene: &Migrated, profile: &str) -> Value {
    let job = scene.job().await;
    // Where it was in before, that must not be taken for the end of this run.
    let due = |object: &Value| object["status"]["migrations"]["seeded"] != profile;
    scene.ns.wait("AmasDatabase", "a", "told as due", due).await;
    let (code, log) = scene.run(&job, &FILES).await;
    assert_eq!(code, Some(0), "{log}");
    job::complete(&scene.ns, name_of(&job)).await;
    is_in(scene, profile).await;
    scene.ns.delete("Job", name_of(&job)).await;
    job
}

async fn is_in(scene: &Migrated, profile: &str) {
    let told = |object: &Value| object["status"]["migrations"]["seeded"] == profile;
    scene
        .ns
        .wait("AmasDatabase", "a", &format!("seeded {profile}"), told)
        .await;
    scene.ready().await;
}

async fn notes(scene: &Migrated) -> String {
    let mut inside = scene.server.connect("postgres", "seeding").await;
    let query = "SELECT string_agg(text, ' ' ORDER BY id) FROM public.note";
    sqlx::query_scalar(query).fetch_one(&mut inside).await.unwrap()
}

fn insert(id: i64, text: &str) -> String {
    format!("INSERT INTO public.note VALUES ({id}, '{text}') ON CONFLICT (id) DO UPDATE SET text = excluded.text;")
}

#[tokio::test]
async fn seeds_of_config_maps_follow_the_profile() {
    let scene = Migrated::new("seeding").await;
    let _operator = scene.ns.operator(&[]).await;
    scene.files(&FILES).await;
    put(&scene, "first", &insert(1, "developer")).await;
    put(&scene, "live", &insert(2, "customer")).await;

    seeded(&scene, "development", "first", "1").await;
    let both = run(&scene, "development").await;
    assert_eq!(argument(&both, "--seed-dir"), Some("/run/amas/seed-files/development"));
    assert_eq!(notes(&scene).await, "developer");

    seeded(&scene, "production", "live", "1").await;
    let seeds = run(&scene, "production").await;
    assert_eq!(argument(&seeds, "--seed-dir"), Some("/run/amas/seed-files/production"));
    assert_eq!(notes(&scene).await, "developer customer");

    // A changed file runs again; one that has not changed does not, whichever profile was in between.
    put(&scene, "live", &insert(2, "client")).await;
    seeded(&scene, "production", "live", "2").await;
    run(&scene, "production").await;
    assert_eq!(notes(&scene).await, "developer client");
    seeded(&scene, "development", "first", "2").await;
    is_in(&scene, "development").await;
    assert_eq!(scene.jobs().await, [] as [Value; 0]);
}
