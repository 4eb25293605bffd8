//! Migrations of an image: a Job that mounts it, or copies its files, brings them, and from then on they are planned and run like any others. No
//! node mounts images or runs Jobs here: the test does.

use serde_json::{Value, json};

use kube::api::{Patch, PatchParams, PostParams};

use super::jobs::Migrated;
use crate::support::job::argument;

const FILES: [(&str, &str); 2] = [
    ("0001_a.sql", "CREATE TABLE a (id int);"),
    ("0002_b.sql", "DROP TABLE IF EXISTS b;"),
];

/// Migrations of this image, which may lose data in these versions.
fn of(image: &Value, allowed: &[i64]) -> Value {
    json!({"source": {"image": image}, "allowDestructive": allowed})
}

fn image(digit: char, path: &str) -> Value {
    let digest = digit.to_string().repeat(64);
    json!({"reference": format!("registry.example.com:5000/app/migrations@sha256:{digest}"), "path": path})
}

#[tokio::test]
async fn migrations_come_from_an_image_of_nothing_but_files() {
    let scene = Migrated::new("imaged").await;
    let _operator = scene.ns.operator(&[]).await;

    for (refused, part) in [
        (
            json!({"reference": "registry.example.com/app/migrations:1.0"}),
            "reference",
        ),
        (image('a', "/../etc"), "without '..'"),
        (image('a', "migrations"), "path"),
    ] {
        let refused = scene.wanted(of(&refused, &[]), json!({}));
        let answer = scene.ns.try_apply(refused).await.unwrap_err();
        assert!(answer.to_string().contains(part), "{answer}");
    }
    let first = image('a', "/sql/");
    scene.apply(of(&first, &[]), json!({})).await;
    let brings = scene.job().await;
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
    scene.succeed(&brings, &FILES, ("target", 2)).await;

    // What the files say is known before anything runs.
    scene
        .stalled("DestructiveNotAllowed", "0002_b.sql:1: drops a table")
        .await;
    scene.apply(of(&first, &[2]), json!({})).await;
    let runs = scene.job().await;
    assert_eq!(argument(&runs, "--dir"), Some("/run/amas/source/sql"));
    // The plan is bound to the files that were read: an image that has others is not run.
    let other = [FILES[0], ("0002_b.sql", "DROP TABLE IF EXISTS c;")];
    assert_eq!(scene.run(&runs, &other).await.0, Some(13));
    scene.succeed(&runs, &FILES, ("current", 2)).await;
    scene.ready().await;

    // Another image has other files, newer ones among them.
    scene.apply(of(&image('b', "/migrations"), &[2]), json!({})).await;
    let brings = scene.job().await;
    let more = [FILES[0], FILES[1], ("0003_c.sql", "SELECT 1;")];
    scene.succeed(&brings, &more, ("target", 3)).await;
    let runs = scene.job().await;
    scene.succeed(&runs, &more, ("current", 3)).await;
    scene.ready().await;
}

/// Whether a namespace of the restricted Pod Security Standard takes the pod of a Job.
async fn is_restricted(scene: &Migrated, job: &Value) {
    let ns = &scene.ns;
    let labels = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    let all = ns.everywhere("", "v1", "Namespace");
    all.patch(&ns.name, &PatchParams::default(), &Patch::Merge(labels))
        .await
        .unwrap();
    let pod = |spec: &Value| {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "trial"}, "spec": spec});
        serde_json::from_value(pod).unwrap()
    };
    let params = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let spec = &job["spec"]["template"]["spec"];
    ns.kind("Pod").create(&params, &pod(spec)).await.unwrap();
    let mut loose = spec.clone();
    loose["initContainers"][1]["securityContext"] = json!({});
    let refused = ns.kind("Pod").create(&params, &pod(&loose)).await.unwrap_err();
    assert!(refused.to_string().contains("restricted"), "{refused}");
}

#[tokio::test]
async fn where_nothing_mounts_images_their_files_are_copied() {
    let scene = Migrated::new("copied").await;
    let _operator = scene.ns.operator(&[]).await;
    let image = |digit: char| {
        let mut image = image(digit, "/sql/");
        image["mount"] = "Copy".into();
        image
    };
    scene.apply(of(&image('a'), &[2]), json!({})).await;
    let brings = scene.job().await;
    let pod = &brings["spec"]["template"]["spec"];
    let volumes = pod["volumes"].as_array().unwrap();
    assert!(volumes.iter().all(|volume| volume["image"].is_null()), "{volumes:?}");
    assert_eq!(pod["initContainers"][1]["image"], image('a')["reference"]);
    is_restricted(&scene, &brings).await;
    let more = [FILES[0], FILES[1], ("README.md", "not for the database")];
    scene.succeed(&brings, &more, ("target", 2)).await;

    // This one saves tables first too, so its container runs in the server's image.
    let runs = scene.job().await;
    assert_eq!(argument(&runs, "--dir"), Some("/run/amas/source/sql"));
    assert_eq!(argument(&runs, "--backup-before"), Some("destructive"));
    scene.succeed(&runs, &more, ("current", 2)).await;
    scene.ready().await;

    scene.apply(of(&image('b'), &[2]), json!({})).await;
    let (code, log) = scene.run(&scene.job().await, &[("README.md", "nothing else")]).await;
    assert_eq!(code, Some(17), "{log}");
    assert!(log.contains("no file that ends in .sql"), "{log}");
}
