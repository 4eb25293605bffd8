//! A policy of the cluster changes what the operator writes: that is told once and not fought over.

use std::time::Duration;

use kube::{
    Api,
    api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::{
    lifecycle::database,
    support::{
        kubernetes::{Kubernetes, Namespace, PATIENCE},
        process::eventually,
    },
};

/// How long nothing must be written for it to be quiet.
const QUIET: Duration = Duration::from_secs(3);
const FIELD: &str = "spec.template.spec.terminationGracePeriodSeconds";
/// What the policy makes of it.
const GRACE: i64 = 77;

fn of_policies(api: &Kubernetes, kind: &str) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind);
    Api::all_with(api.client.clone(), &ApiResource::from_gvk(&kind))
}

/// A policy that changes every StatefulSet of the namespace; gone with the test.
async fn install(ns: &Namespace) {
    let pointer = format!("/{}", FIELD.replace('.', "/"));
    let patch = format!("[JSONPatch{{op: \"replace\", path: \"{pointer}\", value: {GRACE}}}]");
    let policy = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicy", "metadata": {"name": ns.name}, "spec": {
        "failurePolicy": "Fail", "reinvocationPolicy": "Never",
        "matchConstraints": {"resourceRules": [{"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["statefulsets"]}]},
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": patch}}]}});
    let binding = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicyBinding", "metadata": {"name": ns.name}, "spec": {
        "policyName": ns.name, "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": ns.name}}}}});
    for (kind, object) in [
        ("MutatingAdmissionPolicy", policy),
        ("MutatingAdmissionPolicyBinding", binding),
    ] {
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        of_policies(&ns.api, kind)
            .create(&PostParams::default(), &object)
            .await
            .unwrap();
    }
    let probe = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "probe"}, "spec": {
        "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {
            "terminationGracePeriodSeconds": 1, "containers": [{"name": "c", "image": "i"}]}}}});
    let dry = PostParams {
        dry_run: true,
        ..Default::default()
    };
    eventually("the policy is in force", PATIENCE, || async {
        let probe: DynamicObject = serde_json::from_value(probe.clone()).unwrap();
        let made = ns.kind("StatefulSet").create(&dry, &probe).await.unwrap();
        made.data.pointer(&pointer) == Some(&json!(GRACE))
    })
    .await;
}

async fn remove(ns: &Namespace) {
    for kind in ["MutatingAdmissionPolicyBinding", "MutatingAdmissionPolicy"] {
        let policies = of_policies(&ns.api, kind);
        policies.delete(&ns.name, &DeleteParams::default()).await.unwrap();
    }
}

/// What the operator wrote to StatefulSets while nothing happened.
async fn writes_while_quiet(ns: &Namespace) -> usize {
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mark = ns.api.audit();
    tokio::time::sleep(QUIET).await;
    let requests = mark.requests().unwrap().in_namespace(&ns.name);
    requests.writes().of("statefulsets").len()
}

async fn told(ns: &Namespace) -> Vec<Value> {
    let events = ns.list("Event").await;
    events
        .into_iter()
        .filter(|event| event["reason"] == "ChildMutated")
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_policy_of_the_cluster_changes_is_told_once_and_left() {
    let api = Kubernetes::shared().await;
    let ns = api.namespace("mutated").await;
    install(&ns).await;
    let mut operator = ns.operator(&[]).await;
    let object = |cpu: &str| {
        let managed = json!({"storage": {"size": "1Gi"}, "resources": {"limits": {"cpu": cpu}}});
        database("a", json!({"redis": {"managed": managed}}))
    };
    let pointer = format!("/{}", FIELD.replace('.', "/"));
    let is_changed = |set: &Value| set.pointer(&pointer) == Some(&json!(GRACE));
    ns.apply(object("1")).await;
    ns.wait("StatefulSet", "a-redis", "changed by the policy", is_changed)
        .await;
    assert_eq!(writes_while_quiet(&ns).await, 0, "{}", operator.log());
    let events = told(&ns).await;
    assert_eq!(events.len(), 1, "{events:#?}");
    assert!(
        events[0]["message"]
            .as_str()
            .or(events[0]["note"].as_str())
            .unwrap()
            .contains(FIELD),
        "{events:#?}"
    );

    // The specification moves: that gets through, and what the policy does stays.
    ns.apply(object("2")).await;
    let cpu = "/spec/template/spec/containers/0/resources/limits/cpu";
    let set = ns
        .wait("StatefulSet", "a-redis", "as specified", |set| {
            set.pointer(cpu) == Some(&json!("2"))
        })
        .await;
    assert!(is_changed(&set));
    assert_eq!(writes_while_quiet(&ns).await, 0, "{}", operator.log());

    // A person moves it: that is put right.
    let hand = Patch::Merge(json!({"spec": {"template": {"spec": {"serviceAccountName": "somebody"}}}}));
    ns.kind("StatefulSet")
        .patch("a-redis", &PatchParams::default(), &hand)
        .await
        .unwrap();
    let account = "/spec/template/spec/serviceAccountName";
    ns.wait("StatefulSet", "a-redis", "put right", |set| {
        set.pointer(account) == Some(&json!("a-redis"))
    })
    .await;
    assert_eq!(writes_while_quiet(&ns).await, 0, "{}", operator.log());

    // A new operator finds out by one write.
    let mark = api.audit();
    operator.again();
    let writes = || {
        let requests = mark.requests().unwrap().in_namespace(&ns.name);
        requests.writes().of("statefulsets").len()
    };
    eventually("it finds out", PATIENCE, async || writes() > 0).await;
    assert_eq!(writes_while_quiet(&ns).await, 0, "{}", operator.log());
    assert_eq!(writes(), 1, "{}", operator.log());
    remove(&ns).await;
}
