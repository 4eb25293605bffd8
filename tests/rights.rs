//! Least privilege: the operator has the chart's roles and nothing else, on a real API server. Each rule is taken away in turn; then a request
//! that the operator made with it is refused. A rule that no request needs fails the test, and so does a request that was refused on the way.

// Helpers of tests are tests too, but clippy only knows the functions marked so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(dead_code)] // what only the other test files use
mod support;

#[path = "rights/cluster.rs"]
mod cluster;
#[path = "rights/life.rs"]
mod life;
#[path = "rights/namespaced.rs"]
mod namespaced;
#[path = "rights/rules.rs"]
mod rules;
#[path = "rights/served.rs"]
mod served;

use std::time::{Duration, Instant};

use kube::api::{ApiResource, DynamicObject, PostParams};
use serde_json::json;

use cluster::{Cluster, Request};
use life::{Life, PATIENCE, SECOND, WORK};
use rules::{Rule, chart, may, role_of, roles};
use support::{kubernetes::condition_of, postgres::Postgres, process::eventually};

/// What the chart tells an operator that has rights in [`WORK`] and [`SECOND`] only.
const NAMESPACED: [(&str, &str); 3] = [
    ("AMAS_RBAC_SCOPE", "Namespaced"),
    ("AMAS_WATCH_NAMESPACES", "work,second"),
    ("AMAS_CLUSTER_ID", "test"),
];

/// How long the API server may take to know of another role.
const IN_FORCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn every_rule_of_the_chart_is_needed_and_nothing_is_refused() {
    let chart = chart(&["certManager.enabled=true", "secrets.watch=Labelled"]);
    let cluster = Cluster::start().await;
    prepare(&cluster, &chart).await;
    Life::new(&cluster, &[("AMAS_SECRETS_WATCH", "Labelled")]).live().await;

    let requests = none_refused(&cluster, |_| true);
    let mut needless = Vec::new();
    for (role, all) in roles(&chart).values() {
        for rule in all {
            let sample = requests.iter().find(|request| rule.allows(request));
            let said = match sample {
                Some(sample) => without(&cluster, role, all, rule, sample).await,
                None if rule.resource == "amasdatabases/finalizers" => owning(&cluster, role, all, rule).await,
                None => None,
            };
            println!("{rule:60} {}", said.as_deref().unwrap_or("NOTHING"));
            needless.extend(said.is_none().then(|| rule.to_string()));
        }
    }
    assert!(needless.is_empty(), "nothing needs: {needless:#?}");
}

#[tokio::test]
async fn rights_in_one_namespace_are_enough() {
    let settings = [
        "rbac.scope=Namespaced",
        "watchNamespaces={work,second}",
        "clusterId=test",
        "certManager.enabled=true",
    ];
    let (namespaced, wide) = (chart(&settings), chart(&["certManager.enabled=true"]));
    let rules = |chart| -> Vec<String> {
        let all = roles(chart).into_values().flat_map(|(_, rules)| rules);
        all.filter(|rule| rule.resource != "namespaces" && rule.resource != "clusterissuers")
            .map(|rule| rule.to_string())
            .collect()
    };
    assert_eq!(
        rules(&namespaced),
        rules(&wide),
        "the same rules, but for what belongs to no namespace"
    );
    let cluster = Cluster::start().await;
    prepare(&cluster, &namespaced).await;
    let life = Life::new(&cluster, &NAMESPACED);
    let mut operator = life.short().await;
    none_refused(&cluster, |_| true);

    // What happens to the rights in one namespace is nothing to the other, also for an operator that starts.
    let server = Postgres::start().await;
    life.lose_rights().await;
    life.serve_in_the_second(&server, "before").await;
    assert!(operator.runs(), "what one namespace refuses ends nobody");
    drop(operator);
    let mut operator = life.operator();
    life.serve_in_the_second(&server, "after").await;
    life.regain_rights().await;
    assert!(operator.runs());
    none_refused(&cluster, |request| request.namespace != WORK);
}

#[tokio::test]
async fn a_namespace_goes_with_its_rights_while_the_operator_is_there() {
    let settings = [
        "rbac.scope=Namespaced",
        "watchNamespaces={work,second}",
        "clusterId=test",
    ];
    let cluster = Cluster::with_controllers().await;
    prepare(&cluster, &chart(&settings)).await;
    let life = Life::new(&cluster, &NAMESPACED);
    let mut operator = life.operator();
    let redis = json!({"managed": {"storage": {"size": "1Gi"}}});
    life.ours(
        "AmasDatabase",
        "db",
        json!({"deletionPolicy": "Delete", "redis": redis}),
    )
    .await;
    life.until("create", "statefulsets").await;
    let took = life.drop_namespace().await;
    println!("deletion: a namespace with namespaced rights is gone after {took:?}, with the operator up");
    let server = Postgres::start().await;
    life.serve_in_the_second(&server, "elsewhere").await;
    assert!(operator.runs());
}

/// The operator's requests, none of which among these was refused.
fn none_refused(cluster: &Cluster, these: impl Fn(&Request) -> bool) -> Vec<Request> {
    let requests = cluster.requests();
    let refused: Vec<&Request> = requests.iter().filter(|request| request.refused).collect();
    println!("{} requests of the operator, {} refused", requests.len(), refused.len());
    let wrongly: Vec<&&Request> = refused.iter().filter(|request| these(request)).collect();
    assert!(wrongly.is_empty(), "{wrongly:#?}");
    requests
}

/// Namespaces that enforce restricted pods, the definitions, and the chart's roles; all of it is in force when this returns.
async fn prepare(cluster: &Cluster, chart: &[serde_json::Value]) {
    for name in ["amas-system", WORK, SECOND] {
        let labels = json!({"pod-security.kubernetes.io/enforce": "restricted"});
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
        cluster.apply("", object).await;
    }
    let wanted = |object: &&serde_json::Value| {
        let kind = object["kind"].as_str().unwrap_or_default();
        kind == "CustomResourceDefinition" || kind.contains("Role")
    };
    for object in chart.iter().filter(wanted) {
        cluster.apply("", object.clone()).await;
    }
    let definitions = cluster.api("apiextensions.k8s.io/v1", "CustomResourceDefinition", "");
    let established = |definition: &DynamicObject| {
        condition_of(&definition.data, "Established").is_some_and(|found| found["status"] == "True")
    };
    eventually("the definitions are established", PATIENCE, async || {
        let all = definitions.list(&Default::default()).await.unwrap();
        all.items.iter().all(established)
    })
    .await;
    for (group, resource, verb, namespace) in [
        ("amas.dev", "amasdatabases", "list", WORK),
        ("amas.dev", "amasdatabases", "list", SECOND),
        ("coordination.k8s.io", "leases", "get", "amas-system"),
    ] {
        let request = Request {
            group: group.into(),
            resource: resource.into(),
            verb: verb.into(),
            namespace: namespace.into(),
            name: String::new(),
            uri: String::new(),
            refused: false,
        };
        eventually("the roles are in force", PATIENCE, async || {
            may(cluster, &request).await
        })
        .await;
    }
}

/// Takes the rule away, sees the sample refused, and gives it back.
async fn without(
    cluster: &Cluster,
    role: &serde_json::Value,
    all: &[Rule],
    rule: &Rule,
    sample: &Request,
) -> Option<String> {
    assert!(may(cluster, sample).await, "{sample:?}");
    cluster
        .apply("", role_of(role, all.iter().filter(|other| *other != rule).cloned()))
        .await;
    let begun = Instant::now();
    let mut refused = false;
    while !refused && begun.elapsed() < IN_FORCE {
        tokio::time::sleep(Duration::from_millis(20)).await;
        refused = !may(cluster, sample).await;
    }
    cluster.apply("", role_of(role, all.iter().cloned())).await;
    eventually("the rule is back", IN_FORCE, async || may(cluster, sample).await).await;
    refused.then(|| format!("refused: {}", sample.uri.split('?').next().unwrap_or_default()))
}

/// A child that its owner waits for may only be made by who may set the owner's finalizers, where the API server insists on that.
async fn owning(cluster: &Cluster, role: &serde_json::Value, all: &[Rule], rule: &Rule) -> Option<String> {
    let uid = cluster
        .api("amas.dev/v1alpha1", "AmasDatabase", WORK)
        .list(&Default::default())
        .await
        .unwrap();
    let owner = uid.items.first().expect("a database is left");
    let child = |name: &str| -> DynamicObject {
        let owner = json!({"apiVersion": "amas.dev/v1alpha1", "kind": "AmasDatabase", "name": owner.metadata.name, "uid": owner.metadata.uid,
            "controller": true, "blockOwnerDeletion": true});
        let meta = json!({"name": name, "namespace": WORK, "ownerReferences": [owner]});
        serde_json::from_value(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta})).unwrap()
    };
    let resource = ApiResource::erase::<k8s_openapi::api::core::v1::ConfigMap>(&());
    let api = kube::Api::<DynamicObject>::namespaced_with(cluster.operator_client().await, WORK, &resource);
    api.create(&PostParams::default(), &child("with"))
        .await
        .expect("with the rule");
    cluster
        .apply("", role_of(role, all.iter().filter(|other| *other != rule).cloned()))
        .await;
    let begun = Instant::now();
    let mut said = None;
    while said.is_none() && begun.elapsed() < IN_FORCE {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let without = child(&format!("without-{}", begun.elapsed().as_millis()));
        if let Err(kube::Error::Api(status)) = api.create(&PostParams::default(), &without).await {
            said = Some(format!("refused: an owned child: {}", status.message));
        }
    }
    cluster.apply("", role_of(role, all.iter().cloned())).await;
    said
}
