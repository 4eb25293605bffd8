//! What the operator makes: put right when it is edited by hand, and never made over somebody else's.

use std::{collections::BTreeMap, time::Duration};

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::{
    deletion::reason,
    lifecycle::database,
    support::{
        kubernetes::{Kubernetes, Namespace, condition_of},
        process::eventually,
    },
};

const SOON: Duration = Duration::from_secs(20);

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

/// What an edit could have moved.
fn content(object: &Value) -> Value {
    json!([object["spec"], object["data"], object["automountServiceAccountToken"]])
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

async fn edit(ns: &Namespace) {
    for (kind, edit) in edits() {
        for name in ours(ns, kind, "a").await.keys() {
            let params = PatchParams {
                field_manager: Some("somebody".into()),
                ..Default::default()
            };
            let patched = ns.kind(kind).patch(name, &params, &Patch::Merge(&edit)).await;
            patched.unwrap_or_else(|error| panic!("{kind} {name}: {error}"));
        }
    }
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
    edit(&ns).await;
    eventually("all edits are put right", SOON, async || contents(&ns).await == before).await;
    // They are told, as one series.
    let corrected = |event: &Value| event["reason"] == "Corrected";
    eventually("an Event says so", SOON, async || {
        ns.list("Event").await.iter().any(corrected)
    })
    .await;

    operator.kill();
    edit(&ns).await;
    assert_ne!(contents(&ns).await, before);
    operator.again();
    eventually("all edits are put right", SOON, async || contents(&ns).await == before).await;
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
