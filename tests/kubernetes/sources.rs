//! What counts in the ConfigMaps that migrations come from, and the Job that is made of it where its name is somebody else's.

use serde_json::{Value, json};

use super::jobs::{Migrated, name_of};
use crate::support::kubernetes::condition_of;

const ONE: (&str, &str) = ("0001_one.sql", "CREATE TABLE public.one (id int);");
const TWO: (&str, &str) = ("0002_two.sql", "CREATE TABLE public.two (id int);");

#[tokio::test]
async fn several_config_maps_are_one_set_of_the_files_that_count() {
    let scene = Migrated::new("several").await;
    let _operator = scene.ns.operator(&[]).await;
    let beside = [("README.md", "# not SQL"), ("0003_notes.txt", "nor this")];
    scene.ns.config_map("one", &[ONE, beside[0]]).await;
    scene.ns.config_map("two", &[TWO, beside[1]]).await;
    let migrations = json!({"source": {"configMaps": ["one", "two"]}});
    scene.apply(migrations.clone(), json!({})).await;
    let job = scene.job().await;
    let projected = &job["spec"]["template"]["spec"]["volumes"];
    for name in ["one", "two"] {
        assert!(
            projected.to_string().contains(&format!("\"name\":\"{name}\"")),
            "{projected}"
        );
    }
    let all = [ONE, TWO, beside[0], beside[1]];
    scene.succeed(&job, &all, ("current", 2)).await;
    scene.ready().await;

    // One version in both.
    scene
        .ns
        .config_map("two", &[TWO, ("0001_again.sql", "SELECT 1;")])
        .await;
    let again = |value: &str| json!({"amas.dev/reread-sources": value});
    scene.apply(migrations.clone(), again("1")).await;
    scene
        .stalled(
            "InvalidSpec",
            "0001_again.sql: version 1 is already taken by 0001_one.sql",
        )
        .await;

    // kubectl puts a file that is no UTF-8 among the binary ones, where it must not be lost.
    let latin = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "two"},
        "data": {TWO.0: TWO.1}, "binaryData": {"0003_three.sql": "U0VMRUNUICfoJzs="},
    });
    scene.ns.delete("ConfigMap", "two").await;
    scene.ns.apply(latin).await;
    scene.apply(migrations.clone(), again("2")).await;
    scene
        .stalled("InvalidSpec", "0003_three.sql:1:9: is not UTF-8 from here on")
        .await;
    assert_eq!(scene.jobs().await, [] as [Value; 0]);
    assert_eq!(scene.object().await["status"]["migrations"]["current"], 2);

    scene.ns.delete("ConfigMap", "two").await;
    scene.ns.config_map("two", &[TWO]).await;
    scene.apply(migrations, again("3")).await;
    scene.ready().await;
}

#[tokio::test]
async fn a_job_of_somebody_else_is_told_and_not_asked_for_again_and_again() {
    let scene = Migrated::new("theirs").await;
    let mut operator = scene.ns.operator(&[]).await;
    scene.files(&[ONE]).await;
    scene.apply(json!({}), json!({})).await;
    let job = scene.job().await;
    operator.kill();
    scene.ns.delete("Job", name_of(&job)).await;
    scene.ns.wait_gone("Job", name_of(&job)).await;
    let template = json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}});
    let theirs = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name_of(&job)}, "spec": {"template": template},
    });
    scene.ns.apply(theirs).await;
    operator.again();
    let object = scene.stalled("NameTaken", &format!("Job {}", name_of(&job))).await;
    assert_eq!(condition_of(&object, "Ready").unwrap()["status"], "False");
    let mark = scene.ns.api.audit();
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    let asked = mark.requests().unwrap().in_namespace(&scene.ns.name);
    let jobs = asked.writes().lines();
    assert!(!jobs.contains("jobs"), "{jobs}");

    scene.ns.delete("Job", name_of(&job)).await;
    scene.ns.wait_gone("Job", name_of(&job)).await;
    // It is looked at again every minute, or by an operator that starts.
    operator.kill();
    operator.again();
    let ours = scene.job().await;
    scene.succeed(&ours, &[ONE], ("current", 1)).await;
    scene.ready().await;
}
