//! The chart's roles, taken apart: one rule is one verb on one resource.

use std::collections::BTreeMap;

use kube::api::PostParams;
use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, Request},
    support::apiserver::{OPERATOR, tool},
};

/// One verb on one resource of one role.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    pub role: String,
    pub group: String,
    pub resource: String,
    pub verb: String,
    /// Of these objects only; empty means all.
    pub names: Vec<String>,
}

impl Rule {
    pub fn allows(&self, request: &Request) -> bool {
        (&self.group, &self.resource, &self.verb) == (&request.group, &request.resource, &request.verb)
            && (self.names.is_empty() || self.names.contains(&request.name))
    }

    fn value(&self) -> Value {
        let mut rule = json!({"apiGroups": [self.group], "resources": [self.resource], "verbs": [self.verb]});
        if !self.names.is_empty() {
            rule["resourceNames"] = json!(self.names);
        }
        rule
    }
}

impl std::fmt::Display for Rule {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let group = if self.group.is_empty() { "core" } else { &self.group };
        write!(to, "{:8} {group}/{}", self.verb, self.resource)
    }
}

/// What `helm template` gives with these settings.
pub fn chart(settings: &[&str]) -> Vec<Value> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/amas-operator");
    let mut helm = tool("helm");
    helm.args(["template", "amas-operator", folder, "--namespace", "amas-system"]);
    for setting in settings {
        helm.args(["--set", setting]);
    }
    let output = helm.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let all: Vec<Value> = serde_saphyr::from_multiple(std::str::from_utf8(&output.stdout).unwrap()).unwrap();
    all.into_iter().filter(|object| object.is_object()).collect()
}

/// The roles that are bound to the operator, by name, each as its rules.
pub fn roles(chart: &[Value]) -> BTreeMap<String, (Value, Vec<Rule>)> {
    let bound: Vec<&str> = chart
        .iter()
        .filter_map(|object| object["roleRef"]["name"].as_str())
        .collect();
    let is_role = |object: &&Value| {
        object.get("rules").is_some() && bound.contains(&object["metadata"]["name"].as_str().unwrap_or_default())
    };
    let entry = |role: &Value| {
        let name = role["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        (name.clone(), (role.clone(), rules(&name, role)))
    };
    chart.iter().filter(is_role).map(entry).collect()
}

fn words(value: &Value) -> Vec<String> {
    let all = value.as_array().into_iter().flatten();
    all.filter_map(|word| word.as_str().map(str::to_owned)).collect()
}

fn rules(role: &str, object: &Value) -> Vec<Rule> {
    let mut all = Vec::new();
    for rule in object["rules"].as_array().unwrap() {
        for group in words(&rule["apiGroups"]) {
            for resource in words(&rule["resources"]) {
                for verb in words(&rule["verbs"]) {
                    all.push(Rule {
                        role: role.into(),
                        group: group.clone(),
                        resource: resource.clone(),
                        verb,
                        names: words(&rule["resourceNames"]),
                    });
                }
            }
        }
    }
    all
}

/// The role with these rules only.
pub fn role_of(role: &Value, rules: impl Iterator<Item = Rule>) -> Value {
    let mut role = role.clone();
    role["rules"] = rules.map(|rule| rule.value()).collect();
    role
}

/// The API server's own answer to whether the operator may make a request.
pub async fn may(cluster: &Cluster, request: &Request) -> bool {
    let (resource, subresource) = request.resource.split_once('/').unwrap_or((&request.resource, ""));
    let attributes = json!({"group": request.group, "resource": resource, "subresource": subresource, "verb": request.verb,
        "namespace": request.namespace, "name": request.name});
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "metadata": {},
        "spec": {"user": OPERATOR, "resourceAttributes": attributes}});
    let api = cluster.api("authorization.k8s.io/v1", "SubjectAccessReview", "");
    let answer = api
        .create(&PostParams::default(), &serde_json::from_value(review).unwrap())
        .await
        .unwrap();
    answer.data["status"]["allowed"] == true
}
