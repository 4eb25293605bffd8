//! What the operator makes: put right when it is edited by hand, and never made over somebody else's.

use std::collections::BTreeMap;

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::{
    deletion::reason,
    lifecycle::database,
    support::{
        kubernetes::{Kubernetes, Namespace, PATIENCE, condition_of},
        process::eventually,
    },
};

/// Every kind of child that says how a server runs, with a hand edit of it.
fn edits() -> Vec<(&'static str, Value)> {
    vec![
        ("Service", json!({"spec": {"selector": {"by": "hand"}}})),
        ("ConfigMap", json!({"data": {"by": "hand"}})),
        ("ServiceAccount", json!({"automountServiceAccountToken": true})),
        ("StatefulSet", json!({"spec": {"replicas": 0}})),
        ("NetworkPolicy", json!({"spec": {"ingress": null}})),
        ("PodDisruptionBudget", json!({"spec": {"maxUnavailable": 1}})),
    ]
}

/// All kinds, with the least that the API server takes for one of somebody else's.
fn strangers() -> Vec<(&'static str, &'static str, Value)> {
    let container = json!([{"name": "c", "image": "i"}]);
    let labels = json!({"of": "somebody"});
    let set = json!({"serviceName": "s", "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": {"containers": container}}});
    let claim = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}});
    vec![
        ("v1", "Service", json!({"spec": {"ports": [{"port": 1}]}})),
        ("v1", "ConfigMap", json!({"data": {"theirs": "yes"}})),
        ("v1", "ServiceAccount", json!({})),
        ("apps/v1", "StatefulSet", json!({"spec": set})),
        (
            "networking.k8s.io/v1",
            "NetworkPolicy",
            json!({"spec": {"podSelector": {}}}),
        ),
        (
            "policy/v1",
            "PodDisruptionBudget",
            json!({"spec": {"maxUnavailable": 1, "selector": {"matchLabels": labels}}}),
        ),
        ("v1", "PersistentVolumeClaim", json!({"spec": claim})),
        ("v1", "Secret", json!({"stringData": {"theirs": "yes"}})),
    ]
}

fn cache(name: &str) -> Value {
    database(
        name,
        json!({"disruption": "Block", "redis": {"managed": {"storage": {"size": "1Gi"}}}}),
    )
}

/// What our label is on, by name.
async fn ours(ns: &Namespace, kind: &str, name: &str) -> BTreeMap<String, Value> {
    let all = ns.list(kind).await.into_iter();
    let ours = all.filter(|object| object["metadata"]["labels"]["amas.dev/database"] == name);
    ours.map(|object| (object["metadata"]["name"].as_str().unwrap().to_owned(), object))
        .collect()
}

/// What an edit could have moved, without the address that the server gives.
fn content(object: &Value) -> Value {
    let mut spec = object["spec"].clone();
    if let Some(spec) = spec.as_object_mut() {
        spec.retain(|key, _| !["clusterIP", "clusterIPs"].contains(&key.as_str()));
    }
    json!([spec, object["data"], object["automountServiceAccountToken"]])
}

/// Every child as it is.
async fn contents(ns: &Namespace) -> BTreeMap<(String, String), Value> {
    let mut all = BTreeMap::new();
    for (kind, _) in edits() {
        let found = ours(ns, kind, "a").await;
        assert!(!found.is_empty(), "no {kind}");
        all.extend(
            found
                .iter()
                .map(|(name, object)| ((kind.to_owned(), name.clone()), content(object))),
        );
    }
    all
}

/// By somebody; the object as it is then.
async fn patch(ns: &Namespace, kind: &str, name: &str, patch: &Value) -> Value {
    let params = PatchParams {
        field_manager: Some("somebody".into()),
        ..Default::default()
    };
    let patched = ns.kind(kind).patch(name, &params, &Patch::Merge(patch)).await;
    serde_json::to_value(patched.unwrap_or_else(|error| panic!("{kind} {name}: {error}"))).unwrap()
}

/// Gives how many objects were edited, and how many of them are ConfigMaps.
async fn edit(ns: &Namespace) -> (usize, usize) {
    let mut edited = Vec::new();
    for (kind, edit) in edits() {
        for name in ours(ns, kind, "a").await.keys() {
            patch(ns, kind, name, &edit).await;
            edited.push(kind);
        }
    }
    (edited.len(), edited.iter().filter(|kind| **kind == "ConfigMap").count())
}

/// How often it was told that something was put right.
async fn corrections(ns: &Namespace) -> usize {
    let all = ns.list("Event").await.into_iter();
    let times = |event: Value| event["series"]["count"].as_u64().unwrap_or(1);
    let told = all.filter(|event| event["reason"] == "Corrected").map(times);
    usize::try_from(told.sum::<u64>()).unwrap()
}

#[tokio::test]
async fn hand_edits_of_every_kind_are_put_right_now_or_when_the_operator_is_back() {
    let api = Kubernetes::shared().await;
    let ns = api.namespace("edits").await;
    let mut operator = ns.operator(&[]).await;
    ns.apply(cache("a")).await;
    ns.wait("StatefulSet", "a-redis", "there", |_| true).await;
    ns.wait_condition("AmasDatabase", "a", "Ready", "False").await;
    let before = contents(&ns).await;
    let (edited, _) = edit(&ns).await;
    eventually("all edits are put right", PATIENCE, async || {
        contents(&ns).await == before
    })
    .await;
    eventually("each is told", PATIENCE, async || corrections(&ns).await == edited).await;

    operator.kill();
    let (again, config_maps) = edit(&ns).await;
    assert_ne!(contents(&ns).await, before);
    operator.again();
    eventually("all edits are put right", PATIENCE, async || {
        contents(&ns).await == before
    })
    .await;
    // Whether a person or a policy has changed a ConfigMap, a process that has not written it cannot tell.
    let told = edited + again - config_maps;
    eventually("each is told", PATIENCE, async || corrections(&ns).await == told).await;
    println!(
        "{} edits of {} kinds put right, {told} of them told",
        edited + again,
        edits().len()
    );

    // Deleted, all are made again.
    let uids = async || -> Vec<Value> {
        let mut all = Vec::new();
        for (kind, _) in edits() {
            all.extend(
                ours(&ns, kind, "a")
                    .await
                    .into_values()
                    .map(|object| object["metadata"]["uid"].clone()),
            );
        }
        all
    };
    let first = uids().await;
    for (kind, _) in edits() {
        for name in ours(&ns, kind, "a").await.keys() {
            ns.delete(kind, name).await;
        }
    }
    eventually("all are made again", PATIENCE, async || {
        let now = uids().await;
        now.len() == first.len() && now.iter().all(|uid| !first.contains(uid))
    })
    .await;
    assert_eq!(contents(&ns).await, before);
    assert_eq!(corrections(&ns).await, told, "what was deleted is made, not corrected");
}

#[tokio::test]
async fn a_child_without_our_label_is_nobodys_to_change_until_it_has_it_again() {
    let api = Kubernetes::shared().await;
    let ns = api.namespace("label").await;
    let _operator = ns.operator(&[]).await;
    ns.apply(cache("a")).await;
    ns.wait("StatefulSet", "a-redis", "there", |_| true).await;
    ns.wait_condition("AmasDatabase", "a", "Ready", "False").await;
    let kinds = edits()
        .into_iter()
        .map(|(kind, _)| kind)
        .chain(["PersistentVolumeClaim"]);
    for kind in kinds {
        let (name, _) = ours(&ns, kind, "a").await.pop_first().unwrap();
        let left = patch(
            &ns,
            kind,
            &name,
            &json!({"metadata": {"labels": {"amas.dev/database": null}}}),
        )
        .await;
        let said = |object: &Value| {
            let message = condition_of(object, "Ready").map(|ready| ready["message"].to_string());
            reason(object) == "NameTaken" && message.is_some_and(|text| text.contains(&format!("{kind} {name} ")))
        };
        ns.wait("AmasDatabase", "a", &format!("NameTaken: {kind} {name}"), said)
            .await;
        let now = ns.get(kind, &name).await.unwrap();
        assert_eq!(
            now["metadata"]["resourceVersion"], left["metadata"]["resourceVersion"],
            "{kind} {name}"
        );
        patch(
            &ns,
            kind,
            &name,
            &json!({"metadata": {"labels": {"amas.dev/database": "a"}}}),
        )
        .await;
        let over = |object: &Value| reason(object) != "NameTaken";
        ns.wait("AmasDatabase", "a", &format!("{kind} {name} is ours again"), over)
            .await;
    }
}

/// What applications read, of each Secret of an object.
async fn connections(ns: &Namespace) -> BTreeMap<String, Value> {
    let secrets = ours(ns, "Secret", "a").await.into_iter();
    secrets.map(|(name, secret)| (name, secret["data"].clone())).collect()
}

#[tokio::test]
async fn a_secret_edited_by_hand_is_put_right_when_it_is_read() {
    const NOT_OURS: &str = "eW91cnM=";
    let api = Kubernetes::shared().await;
    let ns = api.namespace("secrets").await;
    let mut operator = ns.operator(&[]).await;
    let managed = json!({"storage": {"size": "1Gi"}});
    let sql = json!({"database": "app", "roles": [{"name": "web", "access": "ReadWrite"}], "managed": managed});
    ns.apply(database("a", json!({"postgres": sql, "redis": {"managed": managed}})))
        .await;
    for set in ["a-postgres", "a-redis"] {
        ns.wait("StatefulSet", set, "there", |_| true).await;
    }
    let before = connections(&ns).await;
    assert_eq!(before.len(), 4, "superuser, owner, role, Redis: {:?}", before.keys());
    let edit = async || {
        for (name, data) in &before {
            let ours = data
                .as_object()
                .unwrap()
                .keys()
                .filter(|key| !key.ends_with("PASSWORD"));
            let mut edited: serde_json::Map<String, Value> = ours.map(|key| (key.clone(), NOT_OURS.into())).collect();
            if let Some(host) = edited.keys().find(|key| key.ends_with("HOST")).cloned() {
                edited.insert(host, Value::Null);
            }
            edited.insert("theirs".into(), NOT_OURS.into());
            patch(&ns, "Secret", name, &json!({"data": edited})).await;
        }
    };
    // It is ours as a whole: what somebody has added goes too.
    let put_right = || async { connections(&ns).await == before };
    // They are not watched: a person may say that they are to be read.
    edit().await;
    ns.annotate("a", "amas.dev/reread-secrets", "1").await;
    eventually("all Secrets are put right", PATIENCE, put_right).await;
    // So does a start.
    operator.kill();
    edit().await;
    operator.again();
    eventually("all Secrets are put right", PATIENCE, put_right).await;
}

#[tokio::test]
async fn a_taken_name_of_every_kind_is_said_and_nothing_of_others_is_touched() {
    let api = Kubernetes::shared().await;
    let ns = api.namespace("taken").await;
    let _operator = ns.operator(&[]).await;
    ns.apply(cache("a")).await;
    ns.wait("StatefulSet", "a-redis", "there", |_| true).await;
    let mut theirs = Vec::new();
    for (index, (version, kind, body)) in strangers().into_iter().enumerate() {
        let database = format!("b{index}");
        for name in ours(&ns, kind, "a").await.keys() {
            let name = name.replacen('a', &database, 1);
            let mut object = json!({"apiVersion": version, "kind": kind, "metadata": {"name": name}});
            object
                .as_object_mut()
                .unwrap()
                .extend(body.as_object().unwrap().clone());
            theirs.push((database.clone(), kind, name, ns.apply(object).await));
        }
        ns.apply(cache(&database)).await;
    }
    for (database, kind, name, before) in &theirs {
        let said = |object: &Value| reason(object) == "NameTaken";
        let object = ns.wait("AmasDatabase", database, "NameTaken", said).await;
        let message = condition_of(&object, "Ready").unwrap()["message"].as_str().unwrap();
        assert!(message.contains(&format!("{kind} {name}")), "{message}");
        assert_eq!(condition_of(&object, "Stalled").unwrap()["status"], "True");
        let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
        assert_eq!(
            version(&ns.get(kind, name).await.unwrap()),
            version(before),
            "{kind} {name}"
        );
        // Nothing may run that would use it.
        let set = ns.get("StatefulSet", &format!("{database}-redis")).await;
        assert!(
            set.is_none_or(|_| *kind == "StatefulSet" || wave_of_servers(kind)),
            "{kind}"
        );
    }
    println!("names taken: {} objects of {} kinds", theirs.len(), strangers().len());
}

/// Made at the same time as the server itself: a name that is taken there is found when the server is there already.
fn wave_of_servers(kind: &str) -> bool {
    ["Service", "NetworkPolicy", "PodDisruptionBudget"].contains(&kind)
}
