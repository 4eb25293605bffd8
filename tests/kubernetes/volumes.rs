//! Volumes of managed servers against the API server's own rules, without a CSI driver: what a provisioner and a resizer do is done here by hand.

use std::time::Duration;

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::{
    deletion::reason,
    lifecycle::database,
    support::{
        kubernetes::{Kubernetes, Namespace, condition_of},
        postmaster::Postmaster,
        process::eventually,
    },
};

const CLAIM: &str = "PersistentVolumeClaim";

fn cache(size: &str, class: &str) -> Value {
    let storage = json!({"size": size, "storageClassName": class});
    database("a", json!({"redis": {"managed": {"storage": storage}}}))
}

async fn class(ns: &Namespace, grows: bool) -> String {
    let name = format!("{}-{grows}", ns.name);
    let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name}, "provisioner": "nobody",
        "allowVolumeExpansion": grows});
    let api = ns.everywhere("storage.k8s.io", "v1", "StorageClass");
    api.patch(&name, &PatchParams::apply("tests"), &Patch::Apply(&class))
        .await
        .unwrap();
    name
}

/// As a provisioner or a resizer leaves it.
async fn provide(ns: &Namespace, capacity: &str, resizing: Option<&str>) {
    let api = ns.kind(CLAIM);
    let volume = json!({"spec": {"volumeName": "v"}});
    api.patch("a-redis", &PatchParams::default(), &Patch::Merge(&volume))
        .await
        .unwrap();
    let note = resizing.map(|kind| json!([{"type": kind, "status": "True", "message": "waiting for the node"}]));
    let status = json!({"status": {"phase": "Bound", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": capacity}, "conditions": note}});
    api.patch_status("a-redis", &PatchParams::default(), &Patch::Merge(&status))
        .await
        .unwrap();
}

fn requested(claim: &Value) -> &Value {
    &claim["spec"]["resources"]["requests"]["storage"]
}

fn message<'a>(object: &'a Value, condition: &str) -> &'a str {
    condition_of(object, condition)
        .and_then(|found| found["message"].as_str())
        .unwrap_or_default()
}

async fn made(ns: &Namespace, grows: bool) -> String {
    let class = class(ns, grows).await;
    ns.apply(cache("1Gi", &class)).await;
    ns.wait("StatefulSet", "a-redis", "there", |_| true).await;
    provide(ns, "1Gi", None).await;
    class
}

#[tokio::test]
async fn a_volume_grows_and_the_resizer_is_waited_for() {
    let api = Kubernetes::shared().await;
    let ns = api.namespace("grows").await;
    let _operator = ns.operator(&[]).await;
    let class = made(&ns, true).await;
    let before = ns.get("StatefulSet", "a-redis").await.unwrap();
    ns.apply(cache("2Gi", &class)).await;
    ns.wait(CLAIM, "a-redis", "asked to grow", |claim| requested(claim) == "2Gi")
        .await;
    provide(&ns, "1Gi", Some("FileSystemResizePending")).await;
    let growing = "volume a-redis grows from 1Gi to 2Gi";
    ns.wait("AmasDatabase", "a", "growing", |object| {
        message(object, "RedisReady").contains(growing)
    })
    .await;
    provide(&ns, "2Gi", None).await;
    ns.wait("AmasDatabase", "a", "grown", |object| {
        !message(object, "RedisReady").contains(growing)
    })
    .await;
    let after = ns.get("StatefulSet", "a-redis").await.unwrap();
    assert_eq!(after["spec"], before["spec"], "the pod goes on");
}

#[tokio::test]
async fn what_a_volume_cannot_do_is_said_and_nothing_else_happens() {
    let api = Kubernetes::shared().await;
    let ns = api.namespace("stays").await;
    let _operator = ns.operator(&[]).await;
    let class = made(&ns, false).await;
    let before = ns.get("StatefulSet", "a-redis").await.unwrap();
    ns.apply(cache("2Gi", &class)).await;
    let object = ns
        .wait("AmasDatabase", "a", "VolumeCannotGrow", |object| {
            reason(object) == "VolumeCannotGrow"
        })
        .await;
    let said = message(&object, "Ready");
    // The last part is the API server's own word.
    assert!(
        said.contains("volume a-redis stays at 1Gi, 2Gi was refused: ") && said.contains("resize"),
        "{said}"
    );
    ns.apply(cache("500Mi", &class)).await;
    let object = ns
        .wait("AmasDatabase", "a", "refused", |object| reason(object) == "InvalidSpec")
        .await;
    let said = message(&object, "Ready");
    assert!(
        said.contains("500Mi is less than the 1Gi that volume a-redis has"),
        "{said}"
    );
    // One try, then silence.
    let mut writes = String::from("not looked yet");
    for _ in 0..5 {
        let mark = api.audit();
        tokio::time::sleep(Duration::from_secs(3)).await;
        writes = mark.requests().unwrap().in_namespace(&ns.name).writes().lines();
        if writes.is_empty() {
            break;
        }
    }
    assert!(writes.is_empty(), "{writes}");
    let claim = ns.get(CLAIM, "a-redis").await.unwrap();
    assert_eq!(requested(&claim), "1Gi");
    let after = ns.get("StatefulSet", "a-redis").await.unwrap();
    assert_eq!(after["spec"], before["spec"], "the pod goes on");
}

#[tokio::test]
async fn no_server_is_started_on_the_volume_of_another_version() {
    let api = Kubernetes::shared().await;
    let ns = api.namespace("version").await;
    let _operator = ns.operator(&[]).await;
    let claim = |data: &str| {
        let meta =
            json!({"name": "a-postgres", "labels": {"amas.dev/database": "a"}, "annotations": {"amas.dev/data": data}});
        let spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
        json!({"apiVersion": "v1", "kind": CLAIM, "metadata": meta, "spec": spec})
    };
    ns.apply(claim("postgresql 16")).await;
    let labels = json!({"amas.dev/database": "a"});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a-postgres-admin", "labels": labels},
        "stringData": {"PGUSER": "postgres", "PGPASSWORD": "kept with the volume"}});
    ns.apply(secret).await;
    let sql = json!({"database": "app", "managed": {"version": "17", "storage": {"size": "1Gi"}}});
    ns.apply(database("a", json!({"postgres": sql}))).await;
    let object = ns
        .wait("AmasDatabase", "a", "refused", |object| {
            reason(object) == "DataVersionMismatch"
        })
        .await;
    let said = message(&object, "Ready");
    assert!(
        said.contains("holds the data of postgresql 16") && said.contains("asks for postgresql 17"),
        "{said}"
    );
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(ns.get("StatefulSet", "a-postgres").await.is_none());
}

#[tokio::test]
async fn a_volume_that_does_not_say_what_is_in_it_is_told_by_its_server_and_stays_as_it_is() {
    // A server meets the data of another version, and ends.
    let mut server = Postmaster::prepare();
    server.made_by("14");
    server.launch();
    let incompatible = "database files are incompatible with server";
    eventually("the server has seen it", Duration::from_secs(20), async || {
        server.log().contains(incompatible)
    })
    .await;
    let words = server.log();

    let api = Kubernetes::shared().await;
    let ns = api.namespace("unmarked").await;
    let _operator = ns.operator(&[]).await;
    let labels = json!({"amas.dev/database": "a"});
    let spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    let metadata = json!({"name": "a-postgres", "labels": labels});
    let before = ns
        .apply(json!({"apiVersion": "v1", "kind": CLAIM, "metadata": metadata, "spec": spec}))
        .await;
    ns.apply(
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a-postgres-admin", "labels": labels},
        "stringData": {"PGUSER": "postgres", "PGPASSWORD": "kept with the volume"}}),
    )
    .await;
    let sql = json!({"database": "app", "managed": {"version": "15", "storage": {"size": "1Gi"}}});
    ns.apply(database("a", json!({"postgres": sql}))).await;
    ns.wait("StatefulSet", "a-postgres", "there", |_| true).await;
    // Nobody knew: the pod says so, as often as it is tried.
    let spec = json!({"containers": [{"name": "postgres", "image": "postgres:15"}]});
    ns.apply(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a-postgres-0", "labels": labels}, "spec": spec}))
        .await;
    let ended = json!({"name": "postgres", "ready": false, "restartCount": 3, "image": "postgres:15", "imageID": "",
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"exitCode": 1, "message": words}}});
    let status = Patch::Merge(json!({"status": {"phase": "Running", "containerStatuses": [ended]}}));
    ns.kind("Pod")
        .patch_status("a-postgres-0", &PatchParams::default(), &status)
        .await
        .unwrap();
    let told =
        |object: &Value| reason(object) == "DataVersionMismatch" && message(object, "Ready").contains(incompatible);
    let object = ns.wait("AmasDatabase", "a", "told in the server's words", told).await;
    println!("{}", message(&object, "Ready"));
    let now = ns.get(CLAIM, "a-postgres").await.unwrap();
    assert_eq!(
        now["metadata"]["resourceVersion"], before["metadata"]["resourceVersion"],
        "{now}"
    );

    // The data is as it was: its own version starts on it.
    server.kill();
    server.made_by("15");
    server.launch();
    server.wait_until_ready().await;
}
