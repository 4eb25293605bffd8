//! Another version of the operator takes over: a migration that the one before it began ends undisturbed and runs once; a chart with newer
//! definitions finds the objects that were stored under older ones as they were.

use std::{path::Path, process::Command, time::Duration};

use amas_operator::api::crds;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use super::jobs::{Migrated, name_of};
use crate::support::{
    apiserver::{Server, Who, tool},
    job::{self, Pod},
    process::{Folder, Process, eventually, free_port},
};

const PATIENCE: Duration = Duration::from_secs(60);
/// It goes on until it gets a lock that the test holds while another operator takes over.
const SLOW: &str = "CREATE TABLE public.ran (id int); INSERT INTO public.ran VALUES (1);
SELECT pg_sleep(0.2) FROM generate_series(1, 1000) WHERE NOT pg_try_advisory_xact_lock(7);";

#[tokio::test]
async fn a_migration_that_an_older_operator_began_ends_undisturbed_and_runs_once() {
    let scene = Migrated::new("handover").await;
    let (ns, files) = (&scene.ns, [("0001_slow.sql", SLOW)]);
    scene.files(&files).await;
    let mut old = ns.operator(&[("AMAS_IMAGE", "localhost/amas-operator:old")]).await;
    scene.apply(json!({}), json!({})).await;
    let job = scene.job().await;
    let image = |job: &Value| job["spec"]["template"]["spec"]["containers"][0]["image"].clone();
    assert_eq!(image(&job), "localhost/amas-operator:old");

    let mut inside = scene.server.connect("postgres", "handover").await;
    let hold = sqlx::query("SELECT pg_advisory_lock(7)");
    hold.execute(&mut inside).await.unwrap();
    let mut pod = Pod::new(ns, &job, &files).await;
    let mut runner = pod.container.spawn().unwrap();
    let mut admin = scene.server.connect("postgres", "postgres").await;
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'handover' AND state = 'active' AND query LIKE '%pg_try_advisory_xact_lock(7)%'";
    let mut waits = async || {
        sqlx::query_scalar::<_, i64>(waiting)
            .fetch_one(&mut admin)
            .await
            .unwrap()
            == 1
    };
    let begun = std::time::Instant::now();
    while !waits().await {
        assert!(
            begun.elapsed() < PATIENCE,
            "the runner has not begun: {:?}",
            runner.try_wait()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    old.stop();
    let new = ns
        .operator(&[("AMAS_IMAGE", "localhost/amas-operator:new"), ("POD_NAME", "new")])
        .await;
    ns.wait("Lease", "amas-operator", "taken over", |lease| {
        lease["spec"]["holderIdentity"] == "new"
    })
    .await;
    assert!(waits().await, "the migration goes on while another operator leads");
    let let_go = sqlx::query("SELECT pg_advisory_unlock(7)");
    let_go.execute(&mut inside).await.unwrap();

    let ended = tokio::time::timeout(PATIENCE, runner.wait()).await.unwrap().unwrap();
    assert!(ended.success(), "{ended:?}; the new operator said:\n{}", new.log());
    job::complete(ns, name_of(&job)).await;
    scene.ready().await;
    let jobs = ns.list("Job").await;
    assert_eq!(jobs.len(), 1, "no second one");
    assert_eq!(
        (&jobs[0]["metadata"]["uid"], image(&jobs[0])),
        (&job["metadata"]["uid"], image(&job))
    );
    assert!(jobs[0]["metadata"]["deletionTimestamp"].is_null());
    for (query, times) in [
        ("SELECT count(*) FROM public.ran", 1),
        ("SELECT count(*) FROM amas_migrate.history", 1),
    ] {
        let found: i64 = sqlx::query_scalar(query).fetch_one(&mut inside).await.unwrap();
        assert_eq!(found, times, "{query}");
    }
}

/// The definitions of a release that had none of these fields yet.
fn older() -> Vec<Value> {
    let definition = |definition: CustomResourceDefinition| {
        let mut definition = serde_json::to_value(definition).unwrap();
        definition["apiVersion"] = json!("apiextensions.k8s.io/v1");
        definition["kind"] = json!("CustomResourceDefinition");
        definition["metadata"]["annotations"] = json!({"helm.sh/resource-policy": "keep"});
        if definition["spec"]["names"]["kind"] == "AmasDatabase" {
            let fields = &mut definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
            for (part, field) in [("status", "issuer"), ("status", "pinned"), ("spec", "disruption")] {
                let all = fields[part]["properties"].as_object_mut().unwrap();
                assert!(all.remove(field).is_some(), "{part}.{field}");
            }
        }
        definition
    };
    crds::all().into_iter().map(definition).collect()
}

/// The chart as it is, but with other definitions.
fn older_chart(folder: &Folder) {
    let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/amas-operator");
    let copied = Command::new("cp")
        .arg("-r")
        .arg(chart)
        .arg(folder.path().join("chart"))
        .status()
        .unwrap();
    assert!(copied.success());
    let all: Vec<String> = older()
        .iter()
        .map(|definition| format!("---\n{definition}\n"))
        .collect();
    folder.write("chart/templates/crds.yaml", &all.concat());
}

fn helm(folder: &Folder, kubeconfig: &Path, chart: &Path) {
    let mut helm = tool("helm");
    helm.args(["upgrade", "--install", "amas-operator"]).arg(chart);
    helm.args(["--namespace", "amas-system", "--create-namespace", "--kubeconfig"])
        .arg(kubeconfig);
    let output = helm.env("HOME", folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

struct Installed {
    server: Server,
    client: Client,
    starts: std::cell::Cell<u32>,
}

impl Installed {
    fn api(&self, group: &str, kind: &str, namespace: Option<&str>) -> Api<DynamicObject> {
        let version = if group == "amas.dev" { "v1alpha1" } else { "v1" };
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        }
    }

    /// The program of this checkout, which knows its own definitions.
    fn operator(&self) -> (Process, std::path::PathBuf) {
        self.starts.set(self.starts.get() + 1);
        let name = format!("operator-{}", self.starts.get());
        let log = self.server.folder.path().join(format!("{name}.log"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_amas-operator"));
        command
            .arg("run")
            .env(
                "KUBECONFIG",
                self.server.kubeconfig("operator", &self.server.url(), Who::Operator),
            )
            .env("POD_NAME", name)
            .env("POD_NAMESPACE", "amas-system")
            .env("AMAS_IMAGE", "localhost/amas-operator:dev")
            .env("AMAS_HTTP_PORT", free_port().to_string());
        (Process::spawn(&mut command, &log), log)
    }

    /// Waits until the API tells of a field, or no longer lacks it.
    async fn published(&self, field: &str) {
        eventually(&format!("{field} is published"), PATIENCE, async || {
            let request = axum::http::Request::get("/openapi/v3/apis/amas.dev/v1alpha1")
                .body(Vec::new())
                .unwrap();
            let text = self.client.request_text(request).await.unwrap_or_default();
            text.contains(&format!("\"{field}\""))
        })
        .await;
    }
}

async fn said(log: &Path, words: &str) {
    eventually(words, PATIENCE, async || {
        std::fs::read_to_string(log).unwrap_or_default().contains(words)
    })
    .await;
}

#[tokio::test]
async fn objects_of_older_definitions_go_through_a_chart_upgrade_as_they_are() {
    let folder = Folder::new("charts");
    older_chart(&folder);
    let server = Server::start(false).await;
    let client = server.client(Who::Tests).await;
    let installed = Installed {
        server,
        client,
        starts: std::cell::Cell::new(0),
    };
    let kubeconfig = installed.server.kubeconfig("helm", &installed.server.url(), Who::Tests);
    helm(&folder, &kubeconfig, &folder.path().join("chart"));
    installed.published("deletionTimeout").await;

    let spec = json!({"deletionTimeout": "90s", "tls": {"required": true}, "network": {"mode": "Labelled"}, "redis": {
        "managed": {"storage": {"size": "3Gi"}, "version": "8"}, "connection": {"extra": {"POOL": "7"}}}});
    let object =
        json!({"apiVersion": "amas.dev/v1alpha1", "kind": "AmasDatabase", "metadata": {"name": "old"}, "spec": spec});
    let databases = installed.api("amas.dev", "AmasDatabase", Some("amas-system"));
    let applied = databases
        .patch("old", &PatchParams::apply("user").force(), &Patch::Apply(&object))
        .await
        .unwrap();

    // What it cannot write, it waits for, and says so.
    let (mut operator, log) = installed.operator();
    said(
        &log,
        "are older than this operator and lack AmasDatabase.status.issuer, AmasDatabase.status.pinned",
    )
    .await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let sets = installed.api("apps", "StatefulSet", Some("amas-system"));
    assert!(
        sets.get_opt("old-redis").await.unwrap().is_none(),
        "nothing is begun that could not be told"
    );

    helm(
        &folder,
        &kubeconfig,
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/charts/amas-operator")),
    );
    said(&log, "the definitions on the cluster are ours").await;
    eventually("the object is looked after", PATIENCE, async || {
        let object = databases.get("old").await.unwrap();
        object.data["status"]["observedGeneration"].as_i64() == object.metadata.generation
            && object.data["status"]["conditions"].is_array()
    })
    .await;
    let after = databases.get("old").await.unwrap();
    assert_eq!(after.metadata.uid, applied.metadata.uid);
    let mut before = applied.data["spec"].clone();
    // The one that the older definitions did not know has its default.
    before["disruption"] = json!("Allow");
    assert_eq!(after.data["spec"], before);
    sets.get("old-redis").await.expect("made from what was stored");

    // And the other way round: definitions of a release that is newer than the operator.
    operator.kill();
    let definitions = installed.api("apiextensions.k8s.io", "CustomResourceDefinition", None);
    let mut newer = definitions.get("amasdatabases.amas.dev").await.unwrap();
    let schema = &mut newer.data["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    schema["properties"]["spec"]["properties"]["laterField"] = json!({"type": "string"});
    definitions
        .replace("amasdatabases.amas.dev", &PostParams::default(), &newer)
        .await
        .unwrap();
    installed.published("laterField").await;
    let (_operator, log) = installed.operator();
    said(
        &log,
        "newer than this operator, which ignores AmasDatabase.spec.laterField",
    )
    .await;
    said(&log, "leading").await;
}
