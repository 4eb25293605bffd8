//! Every string field of the three kinds, found by walking the definitions, with text that has broken somebody before: the schema refuses it, or
//! the operator says what is wrong with it, or it may be any text. A new field has to be given its place here.

use std::collections::BTreeMap;

use amas_operator::api::crds;
use futures::{StreamExt, stream};
use kube::api::{DynamicObject, PostParams};
use serde_json::{Value, json};

use crate::{
    by_hand::{on_postgres, put_files},
    deletion::reason,
    lifecycle::{self, external},
    support::{
        kubernetes::{Kubernetes, Namespace, PATIENCE, condition_of},
        process::eventually,
    },
};

const NASTY: [&str; 9] = [
    LONG,
    MIXED,
    "line\nbreak",
    "ünïcödé-名",
    "a'b",
    "a\"b",
    "a;DROP TABLE x",
    "../../secrets/other",
    "a\u{1}b\\$(id)`id`",
];
const LONG: &str = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\
                    xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\
                    xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";
const MIXED: &str = "ä'; DROP \"x\" --\n$(id)";
/// Those that the operator is shown, of each field that the schema lets through.
const SHOWN: [&str; 3] = [LONG, MIXED, "line\nbreak"];

/// What becomes of values that the schema lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Each is told in the condition Ready, by the operator or in the words of the API server.
    Told,
    /// Some are told, the others are quoted.
    ToldOrQuoted,
    /// Any text is right.
    Text,
}

/// Ends of the paths that the schema lets anything through for. All others are refused by the schema.
const LET_THROUGH: [(&str, Fate); 24] = [
    (".connection.keys.{key}", Fate::Told),
    (".connection.keys.{value}", Fate::Told),
    (".connection.extra.{key}", Fate::Told),
    // A value in a Secret.
    (".connection.extra.{value}", Fate::Text),
    // A long name is a name: no such image is found.
    (".managed.image", Fate::Text),
    (".backup.image", Fate::Text),
    // A name that clients show, quoted.
    (".session.applicationName", Fate::Text),
    (".managed.parameters.{key}", Fate::Told),
    (".managed.parameters.{value}", Fate::ToldOrQuoted),
    (".managed.resources.limits.{key}", Fate::Told),
    (".managed.resources.requests.{key}", Fate::Told),
    // Told when the Job is to be made, which takes a database.
    (".job.resources.limits.{key}", Fate::Text),
    (".job.resources.requests.{key}", Fate::Text),
    (".pods.labels.{key}", Fate::Told),
    (".pods.labels.{value}", Fate::Told),
    (".pods.annotations.{key}", Fate::Told),
    (".pods.annotations.{value}", Fate::Text),
    (".pods.nodeSelector.{key}", Fate::Told),
    (".pods.nodeSelector.{value}", Fate::Told),
    (".pods.tolerations[].key", Fate::Told),
    (".pods.tolerations[].value", Fate::Told),
    (".pods.tolerations[].operator", Fate::Told),
    (".pods.tolerations[].effect", Fate::Told),
    (".rules[].pattern", Fate::Text),
];
/// The API server takes any text here and the kubelet finds no such Secret.
const OF_THE_KUBELET: &str = ".pods.imagePullSecrets[].name";

fn fate(path: &str) -> Option<Fate> {
    if path.ends_with(OF_THE_KUBELET) {
        return Some(Fate::Text);
    }
    LET_THROUGH
        .iter()
        .find(|(end, _)| path.ends_with(end))
        .map(|(_, fate)| *fate)
}

/// The paths of all strings below a schema: `a.b[].c`, and `a.{key}` and `a.{value}` of a map.
fn strings(schema: &Value, path: &str, found: &mut Vec<String>) {
    if let Some(properties) = schema["properties"].as_object() {
        for (name, below) in properties {
            strings(below, &format!("{path}.{name}"), found);
        }
    }
    if schema["additionalProperties"].is_object() {
        found.push(format!("{path}.{{key}}"));
        strings(&schema["additionalProperties"], &format!("{path}.{{value}}"), found);
    }
    if schema["items"].is_object() {
        strings(&schema["items"], &format!("{path}[]"), found);
    }
    if schema["type"] == "string" || schema["x-kubernetes-int-or-string"] == true {
        found.push(path.to_owned());
    }
}

/// An object in which everything is right that the path's field needs beside it.
fn right(kind: &str, path: &str) -> Value {
    let spec = match kind {
        "CachePolicy" => {
            json!({"databaseRef": {"name": "a"}, "prefix": "a", "eviction": {"maxMemory": "100Mi", "policy": "volatile-lru"},
            "defaultTTL": {"ttl": "5m", "types": ["string"]}, "rules": [{"name": "r", "pattern": "a:*", "ttl": "5m"}]})
        }
        "GraphSchema" => json!({"databaseRef": {"name": "a"},
            "constraints": [{"name": "c", "label": "L", "properties": ["p"], "type": "Unique"}],
            "indexes": [{"name": "i", "label": "L", "properties": ["q"], "type": "Range"}]}),
        _ => database(path),
    };
    json!({"apiVersion": "amas.dev/v1alpha1", "kind": kind, "metadata": {"name": "a"}, "spec": spec})
}

fn database(path: &str) -> Value {
    let server = |store: &str| {
        if path.starts_with(&format!("spec.{store}.external")) {
            json!({"external": {"secretRef": {"name": "s"}}})
        } else {
            json!({"managed": {"storage": {"size": "1Gi"}}})
        }
    };
    let mut spec = json!({"maintenanceWindow": {"start": "02:00"}, "pods": {"tolerations": [{"key": "a", "operator": "Equal", "value": "b", "effect": "NoSchedule"}], "imagePullSecrets": [{"name": "a"}]}});
    let is_of = |store: &str| path.starts_with(&format!("spec.{store}."));
    let needs_sql = is_of("postgres") || is_of("migrations") || is_of("seed");
    if needs_sql {
        spec["postgres"] = server("postgres");
        spec["postgres"]["database"] = json!("amas");
        spec["postgres"]["roles"] = json!([{"name": "app", "access": "ReadWrite"}]);
    }
    if is_of("neo4j") {
        spec["neo4j"] = server("neo4j");
    }
    if !needs_sql && !is_of("neo4j") {
        spec["redis"] = server("redis");
    }
    if path.contains("source.configMaps") {
        spec["migrations"] = json!({"source": {"configMaps": []}});
    } else if needs_sql {
        spec["migrations"] = json!({"source": {"bundle": "amas"}});
        spec["seed"] = json!({"profile": "development", "generate": [{"name": "a", "hash": "Bcrypt"}]});
    }
    spec
}

/// Puts a value where the path leads.
fn put(object: &mut Value, path: &str, value: &str) {
    let mut place = object;
    let (parents, last) = path.rsplit_once('.').unwrap();
    for step in parents.split('.') {
        let (name, of_list) = step.strip_suffix("[]").map_or((step, false), |name| (name, true));
        place = &mut place[name];
        if of_list {
            place = &mut place[0];
        }
    }
    let name = match path {
        _ if path.contains(".keys.") => "PGHOST",
        _ if path.contains("redis.managed.parameters.") => "proc-title-template",
        _ if path.contains("neo4j.managed.parameters.") => "db.transaction.timeout",
        _ if path.contains(".parameters.") => "application_name",
        _ if path.contains(".resources.") => "cpu",
        _ => "a",
    };
    match last {
        "{key}" => place[value] = json!("1"),
        "{value}" => place[name] = json!(value),
        list if list.ends_with("[]") => place[list.trim_end_matches("[]")] = json!([value]),
        field => place[field] = json!(value),
    }
}

fn with(kind: &str, path: &str, value: &str) -> Value {
    let mut object = right(kind, path);
    put(&mut object, path, value);
    object
}

async fn is_accepted(ns: &Namespace, kind: &str, object: &Value) -> Result<bool, String> {
    let dry = PostParams {
        dry_run: true,
        ..Default::default()
    };
    let object: DynamicObject = serde_json::from_value(object.clone()).unwrap();
    match ns.kind(kind).create(&dry, &object).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 422 || status.code == 400 => Ok(false),
        Err(error) => Err(error.to_string()),
    }
}

/// All paths with the values that the schema lets through.
async fn let_through(ns: &Namespace) -> BTreeMap<(String, String), Vec<&'static str>> {
    let mut cases = Vec::new();
    let mut all = BTreeMap::new();
    for definition in crds::all() {
        let definition = serde_json::to_value(definition).unwrap();
        let kind = definition["spec"]["names"]["kind"].as_str().unwrap().to_owned();
        let spec = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        let mut paths = Vec::new();
        strings(spec, "spec", &mut paths);
        for path in paths {
            let plain = right(&kind, &path);
            assert_eq!(is_accepted(ns, &kind, &plain).await, Ok(true), "{kind} {path}: {plain}");
            all.insert((kind.clone(), path.clone()), Vec::new());
            cases.extend(NASTY.map(|value| (kind.clone(), path.clone(), value)));
        }
    }
    let ask = |(kind, path, value): (String, String, &'static str)| async move {
        let accepted = is_accepted(ns, &kind, &with(&kind, &path, value)).await.unwrap();
        ((kind, path), value, accepted)
    };
    let answers: Vec<_> = stream::iter(cases).map(ask).buffer_unordered(16).collect().await;
    for (field, value, accepted) in answers {
        if accepted {
            all.get_mut(&field).unwrap().push(value);
        }
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_text_in_every_string_field_is_refused_or_told_or_quoted() {
    let api = Kubernetes::shared().await;
    let ns = api.namespace("strings").await;
    let all = let_through(&ns).await;
    let refused = all.values().filter(|values| values.is_empty()).count();
    println!(
        "{} string fields with {} values each: the schema refuses all of them in {refused}",
        all.len(),
        NASTY.len()
    );
    assert!(all.len() > 100, "the definitions were walked");
    for ((kind, path), values) in &all {
        assert_eq!(
            fate(path).is_some(),
            !values.is_empty(),
            "{kind} {path}: the schema lets {values:?} through"
        );
    }

    let _operator = ns.operator(&[]).await;
    let shown = all
        .iter()
        .filter(|((kind, _), _)| kind == "AmasDatabase")
        .flat_map(|((_, path), values)| {
            let values = values.iter().filter(|value| SHOWN.contains(value));
            values.map(|value| (path.clone(), *value))
        });
    let shown: Vec<(String, &str)> = shown.collect();
    let show = |(number, (path, value)): (usize, &(String, &'static str))| {
        let (ns, path, value) = (ns.clone(), path.clone(), *value);
        async move {
            let name = format!("s{number}");
            let mut object = with("AmasDatabase", &path, value);
            object["metadata"]["name"] = json!(name);
            ns.apply(object).await;
            let object = ns.wait_condition("AmasDatabase", &name, "Ready", "False").await;
            let ready = condition_of(&object, "Ready").unwrap().clone();
            let told = ready["reason"] == "InvalidSpec" || ready["reason"] == "Refused";
            let right = match fate(&path) {
                Some(Fate::Told) => told,
                Some(Fate::Text) => !told,
                _ => true,
            };
            assert!(right, "{path} = {value:?}: {ready:#}");
            ns.delete("AmasDatabase", &name).await;
            usize::from(told)
        }
    };
    let told: Vec<usize> = stream::iter(shown.iter().enumerate())
        .map(show)
        .buffer_unordered(6)
        .collect()
        .await;
    println!(
        "{} of {} values that the schema lets through were told",
        told.iter().sum::<usize>(),
        told.len()
    );
}

/// The values of annotations are anybody's, and longer than all else.
#[tokio::test]
async fn hostile_annotations_do_nothing_and_are_kept_short() {
    const ASKING: [&str; 10] = [
        "accept-drift",
        "accept-empty",
        "approve-plan",
        "reissue-credentials",
        "renew-certificates",
        "reread-secrets",
        "reread-sources",
        "restart",
        "rotate-credentials",
        "take-over",
    ];
    let (ns, postgres) = on_postgres("asked").await;
    let operator = ns.operator(&[]).await;
    let sql = json!({"database": "asked", "owner": "asked_owner", "external": external("postgres")});
    ns.apply(lifecycle::database("a", json!({"postgres": sql}))).await;
    ns.wait_condition("AmasDatabase", "a", "Ready", "True").await;
    let roles = async || -> Vec<String> {
        let mut admin = postgres.connect("postgres", "postgres").await;
        let query = "SELECT rolname || ' ' || coalesce(md5(rolpassword), '') FROM pg_authid WHERE rolname LIKE 'asked%' ORDER BY 1";
        sqlx::query_scalar(query).fetch_all(&mut admin).await.unwrap()
    };
    let (before, secret) = (roles().await, ns.get("Secret", "a-role-asked-owner").await.unwrap());
    let long = format!("asked_owner{}/x", "y".repeat(20_000));
    // All but a plain value, which asks for something.
    let values = [
        "no_such/1",
        "/",
        "a/b/c",
        "'; DROP ROLE asked_owner; --/1",
        "\"\u{1F4A5}\u{202E}/1",
        "line\nbreak/1",
        long.as_str(),
    ];
    for value in values {
        for name in ASKING {
            ns.annotate("a", &format!("amas.dev/{name}"), value).await;
        }
        let handled = |object: &Value| {
            let handled = object.pointer("/status/handled/rotate-credentials");
            handled
                .and_then(Value::as_str)
                .is_some_and(|text| text.starts_with(&value[..value.len().min(100)]))
        };
        let object = ns.wait("AmasDatabase", "a", "handled", handled).await;
        let size = object["status"].to_string().len();
        assert!(size < 32 * 1024, "{size} bytes of status");
    }
    ns.wait_condition("AmasDatabase", "a", "Ready", "True").await;
    assert_eq!(roles().await, before);
    assert_eq!(
        ns.get("Secret", "a-role-asked-owner").await.unwrap()["data"],
        secret["data"]
    );
    let unknown = |event: &Value| event["reason"] == "NoSuchCredential";
    assert!(ns.list("Event").await.iter().any(unknown), "{}", operator.log());
}

/// What a Job may have is for the API server to say, once there is a database to make one for.
#[tokio::test]
async fn what_a_job_may_not_have_is_told_and_mended() {
    let (ns, _postgres) = on_postgres("jobs").await;
    put_files(&ns, &[("0001_a.sql", "CREATE TABLE a (id int);")], json!({})).await;
    let _operator = ns.operator(&[]).await;
    let with = |resource: &str| {
        let sql = json!({"database": "jobs", "owner": "jobs_owner", "external": external("postgres")});
        let job = json!({"resources": {"limits": {resource: "1"}}});
        let migrations = json!({"source": {"configMaps": ["files"]}, "job": job});
        lifecycle::database("a", json!({"postgres": sql, "migrations": migrations}))
    };
    let mut told = 0;
    for resource in SHOWN {
        if ns.try_apply(with(resource)).await.is_err() {
            continue;
        }
        told += 1;
        let object = ns
            .wait("AmasDatabase", "a", "refused", |object| {
                object.pointer("/status/observedGeneration") == object.pointer("/metadata/generation")
                    && reason(object) == "Refused"
            })
            .await;
        let said = condition_of(&object, "Ready").unwrap()["message"].to_string();
        assert!(said.contains("resources.limits"), "{said}");
        assert!(ns.list("Job").await.is_empty());
    }
    assert!(told > 0, "the schema lets some through");
    ns.apply(with("cpu")).await;
    eventually("there is a Job", PATIENCE, || async { ns.list("Job").await.len() == 1 }).await;
}
