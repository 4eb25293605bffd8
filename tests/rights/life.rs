//! A life of databases that makes the operator use everything it may do. There is no kubelet and no controller: what those would do is done here.

use std::time::{Duration, Instant};

use kube::{
    ResourceExt,
    api::{DeleteParams, DynamicObject, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::{
    cluster::Cluster,
    support::{
        job::given_up,
        kubernetes::condition_of,
        managed,
        postgres::Postgres,
        process::{Process, eventually},
    },
};

/// The namespace of the databases.
pub const WORK: &str = "work";
/// Another one, for what happens to the first.
pub const SECOND: &str = "second";

pub const OURS: &str = "amas.dev/v1alpha1";
/// How long anything may take; long, for a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Every kind of child: its API, kind, and a hand edit of it.
fn children() -> Vec<(&'static str, &'static str, &'static str, Value)> {
    vec![
        (
            "v1",
            "Service",
            "services",
            json!({"spec": {"selector": {"by": "hand"}}}),
        ),
        ("v1", "ConfigMap", "configmaps", json!({"data": {"by": "hand"}})),
        (
            "v1",
            "ServiceAccount",
            "serviceaccounts",
            json!({"automountServiceAccountToken": true}),
        ),
        (
            "apps/v1",
            "StatefulSet",
            "statefulsets",
            json!({"spec": {"replicas": 0}}),
        ),
        (
            "networking.k8s.io/v1",
            "NetworkPolicy",
            "networkpolicies",
            json!({"spec": {"ingress": null}}),
        ),
        (
            "policy/v1",
            "PodDisruptionBudget",
            "poddisruptionbudgets",
            json!({"spec": {"maxUnavailable": 1}}),
        ),
    ]
}

pub struct Life<'a> {
    pub cluster: &'a Cluster,
    settings: &'a [(&'a str, &'a str)],
    /// Where the servers of [`served`](crate::served) listen.
    pub address: String,
}

impl<'a> Life<'a> {
    pub fn new(cluster: &'a Cluster, settings: &'a [(&'a str, &'a str)]) -> Self {
        Self {
            cluster,
            settings,
            address: managed::own_address(),
        }
    }

    pub fn operator(&self) -> Process {
        self.cluster.operator("operator", &self.hosts(), self.settings)
    }

    /// Waits for a request of the operator. That it never comes is the caller's business: the rule is then found needless.
    pub async fn until(&self, verb: &str, resource: &str) {
        self.until_more(verb, resource, 0).await;
    }

    pub async fn until_more(&self, verb: &str, resource: &str, than: usize) {
        let begun = Instant::now();
        while self.count(verb, resource) <= than {
            if begun.elapsed() > PATIENCE {
                return println!("not seen: {verb} {resource}");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub fn count(&self, verb: &str, resource: &str) -> usize {
        let all = self.cluster.requests();
        all.iter()
            .filter(|request| request.verb == verb && request.resource == resource)
            .count()
    }

    pub async fn ours(&self, kind: &str, name: &str, spec: Value) {
        self.cluster
            .apply(
                WORK,
                json!({"apiVersion": OURS, "kind": kind, "metadata": {"name": name}, "spec": spec}),
            )
            .await;
    }

    pub async fn merge(&self, version: &str, kind: &str, name: &str, patch: &Value) {
        let api = self.cluster.api(version, kind, WORK);
        let patched = api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        patched.unwrap_or_else(|error| panic!("{kind} {name}: {error}"));
    }

    pub async fn status(&self, version: &str, kind: &str, name: &str, status: &Value) {
        let api = self.cluster.api(version, kind, WORK);
        let patch = Patch::Merge(json!({"status": status}));
        api.patch_status(name, &PatchParams::default(), &patch).await.unwrap();
    }

    /// What there is of a kind that belongs to a database.
    pub async fn children(&self, version: &str, kind: &str) -> Vec<DynamicObject> {
        let all = self.cluster.api(version, kind, WORK).list(&Default::default()).await;
        let mut children = all.unwrap().items;
        children.retain(|child| child.labels().contains_key("amas.dev/database"));
        children
    }

    pub async fn names(&self, version: &str, kind: &str) -> Vec<String> {
        let all = self.children(version, kind).await.into_iter();
        all.filter_map(|object| object.metadata.name).collect()
    }

    /// The whole of it.
    pub async fn live(&self) {
        let _operator = self.operator();
        self.class().await;
        self.ours("AmasDatabase", "db", all_stores()).await;
        self.until("create", "statefulsets").await;
        self.policies().await;
        self.hand_edits().await;
        self.grown().await;
        self.stuck_pod().await;
        self.secret_rewritten().await;
        self.news_twice().await;
        self.store_removed().await;
        self.names_taken().await;
        self.issued().await;
        self.migrated().await;
        self.tuned().await;
        self.deleted("db").await;
    }

    async fn class(&self) {
        let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "grows"}, "provisioner": "nobody",
            "allowVolumeExpansion": true});
        self.cluster.apply("", class).await;
    }

    pub async fn policies(&self) {
        self.ours(
            "CachePolicy",
            "keys",
            json!({"databaseRef": {"name": "db"}, "rules": [{"name": "r", "pattern": "x", "ttl": "1h"}]}),
        )
        .await;
        self.ours("GraphSchema", "graph", json!({"databaseRef": {"name": "db"}}))
            .await;
        for kind in ["amasdatabases", "cachepolicies", "graphschemas"] {
            self.until("patch", &format!("{kind}/status")).await;
        }
    }

    async fn hand_edits(&self) {
        for (version, kind, plural, edit) in children() {
            eventually(&format!("there is a {kind}"), PATIENCE, async || {
                !self.names(version, kind).await.is_empty()
            })
            .await;
            for name in self.names(version, kind).await {
                self.merge(version, kind, &name, &edit).await;
            }
            self.until("update", plural).await;
        }
    }

    /// A claim is bound as a provisioner would bind it, and asked to grow.
    async fn grown(&self) {
        self.merge(
            "v1",
            "PersistentVolumeClaim",
            "db-redis",
            &json!({"spec": {"volumeName": "v"}}),
        )
        .await;
        let status = json!({"phase": "Bound", "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"]});
        self.status("v1", "PersistentVolumeClaim", "db-redis", &status).await;
        let spec = json!({"spec": {"redis": {"managed": {"storage": {"size": "2Gi"}}}}});
        self.merge(OURS, "AmasDatabase", "db", &spec).await;
        self.until("update", "persistentvolumeclaims").await;
    }

    /// A pod whose image cannot be pulled, made from what its StatefulSet said before.
    async fn stuck_pod(&self) {
        let set = json!({"replicas": 1, "observedGeneration": 1, "updateRevision": "new", "currentRevision": "old"});
        self.status("apps/v1", "StatefulSet", "db-redis", &set).await;
        let labels = json!({"amas.dev/database": "db", "app.kubernetes.io/component": "redis", "controller-revision-hash": "old"});
        let security = json!({"allowPrivilegeEscalation": false, "runAsNonRoot": true, "runAsUser": 999, "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"}});
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "db-redis-0", "labels": labels},
            "spec": {"containers": [{"name": "redis", "image": "nowhere", "securityContext": security}]}});
        self.cluster.apply(WORK, pod).await;
        let waiting = json!({"phase": "Pending", "containerStatuses": [{"name": "redis", "image": "nowhere", "imageID": "", "ready": false,
            "restartCount": 0, "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}]});
        self.status("v1", "Pod", "db-redis-0", &waiting).await;
        self.until("delete", "pods").await;
    }

    async fn secret_rewritten(&self) {
        let spec = json!({"spec": {"redis": {"connection": {"extra": {"MORE": "yes"}}}}});
        self.merge(OURS, "AmasDatabase", "db", &spec).await;
        self.until("update", "secrets").await;
    }

    /// The same Event again is written into the first one.
    async fn news_twice(&self) {
        let created = self.count("create", "events");
        for (ttl, stalled) in [("0s", true), ("1h", false), ("0s", true)] {
            let rules = json!([{"name": "r", "pattern": "x", "ttl": ttl}]);
            self.ours(
                "CachePolicy",
                "keys",
                json!({"databaseRef": {"name": "db"}, "rules": rules}),
            )
            .await;
            self.policy_told(stalled).await;
        }
        self.until_more("create", "events", created).await;
        self.until("patch", "events").await;
    }

    /// The status of the policy is about what it says now.
    async fn policy_told(&self, stalled: bool) {
        let policies = self.cluster.api(OURS, "CachePolicy", WORK);
        eventually("the policy is told about", PATIENCE, async || {
            let policy = policies.get("keys").await.unwrap();
            policy.data["status"]["observedGeneration"].as_i64() == policy.metadata.generation
                && condition_of(&policy.data, "Stalled").is_some_and(|found| found["status"] == "True") == stalled
        })
        .await;
    }

    /// What a removed store leaves: its workload goes.
    async fn store_removed(&self) {
        let spec = json!({"spec": {"neo4j": null, "disruption": "Allow"}});
        self.merge(OURS, "AmasDatabase", "db", &spec).await;
        for (_, _, plural, _) in children() {
            self.until("delete", plural).await;
        }
    }

    /// Somebody else has the name: one read tells.
    async fn names_taken(&self) {
        let mut kinds = children();
        kinds.push(("v1", "PersistentVolumeClaim", "persistentvolumeclaims", Value::Null));
        kinds.push(("v1", "Secret", "secrets", Value::Null));
        for (version, kind, plural, _) in kinds {
            let database = format!("taken-{plural}");
            for name in self
                .names(version, kind)
                .await
                .iter()
                .filter(|name| name.contains("redis"))
            {
                let original = self.cluster.api(version, kind, WORK).get(name).await.unwrap();
                let mut copy = json!({"apiVersion": version, "kind": kind, "metadata": {"name": name.replacen("db", &database, 1)}});
                for field in ["spec", "data", "type"] {
                    copy[field] = original.data.get(field).cloned().unwrap_or_default();
                }
                copy["spec"]["volumeName"] = Value::Null;
                copy["spec"]["clusterIP"] = Value::Null;
                copy["spec"]["clusterIPs"] = Value::Null;
                if copy["spec"] == json!({"volumeName": null, "clusterIP": null, "clusterIPs": null}) {
                    copy["spec"] = Value::Null;
                }
                self.cluster.apply(WORK, strip(copy)).await;
            }
            self.ours(
                "AmasDatabase",
                &database,
                json!({"disruption": "Block", "redis": {"managed": {"storage": {"size": "1Gi"}}}}),
            )
            .await;
            self.until("get", plural).await;
        }
    }

    /// Certificates from an issuer: its definitions, in as small a form as the API takes.
    async fn issued(&self) {
        for (kind, plural, scope) in [
            ("Certificate", "certificates", "Namespaced"),
            ("Issuer", "issuers", "Namespaced"),
            ("ClusterIssuer", "clusterissuers", "Cluster"),
        ] {
            let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
            let version = json!({"name": "v1", "served": true, "storage": true, "schema": schema});
            let names = json!({"kind": kind, "plural": plural, "singular": kind.to_lowercase(), "listKind": format!("{kind}List")});
            let object = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
                "metadata": {"name": format!("{plural}.cert-manager.io")},
                "spec": {"group": "cert-manager.io", "scope": scope, "names": names, "versions": [version]}});
            self.cluster.apply("", object).await;
            let all = self.cluster.api("cert-manager.io/v1", kind, "");
            eventually(&format!("each {kind} is served"), PATIENCE, async || {
                all.list(&Default::default()).await.is_ok()
            })
            .await;
        }
        let spec = |kind: &str| json!({"tls": {"issuerRef": {"name": "ours", "kind": kind}}, "redis": {"managed": {"storage": {"size": "1Gi"}}}});
        self.ours("AmasDatabase", "issued", spec("Issuer")).await;
        self.until("get", "issuers").await;
        self.until("create", "certificates").await;
        let certificates = self.cluster.api("cert-manager.io/v1", "Certificate", WORK);
        eventually("the certificate is there", PATIENCE, async || {
            certificates.get_opt("issued-redis").await.unwrap().is_some()
        })
        .await;
        let edit = json!({"spec": {"secretName": "by-hand"}});
        self.merge("cert-manager.io/v1", "Certificate", "issued-redis", &edit)
            .await;
        self.ours("AmasDatabase", "issued", spec("ClusterIssuer")).await;
        self.until("get", "clusterissuers").await;
        self.until("update", "certificates").await;
        self.ours(
            "AmasDatabase",
            "issued",
            json!({"tls": null, "redis": {"managed": {"storage": {"size": "1Gi"}}}}),
        )
        .await;
        self.until("delete", "certificates").await;
    }

    /// Migrations from a ConfigMap in an external database, whose Jobs fail, so that the last one is kept; whose Job's name is then found taken.
    async fn migrated(&self) {
        let server = Postgres::start().await;
        server.admin("postgres", &["CREATE DATABASE app"]).await;
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "server"},
            "stringData": {"uri": format!("postgresql://postgres:p@127.0.0.1:{}/app", server.port)}});
        self.cluster.apply(WORK, secret).await;
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "files"}, "data": {"0001_a.sql": "SELECT 1;"}});
        self.cluster.apply(WORK, map).await;
        let external = json!({"secretRef": {"name": "server"}, "tls": {"mode": "Disable"}});
        let spec = json!({"postgres": {"external": external, "database": "app"}, "migrations": {"source": {"configMaps": ["files"]}}});
        self.ours("AmasDatabase", "ext", spec.clone()).await;
        self.until("create", "jobs").await;
        let Some(name) = self.names("batch/v1", "Job").await.pop() else {
            return;
        };
        let (jobs, databases) = (
            self.cluster.api("batch/v1", "Job", WORK),
            self.cluster.api(OURS, "AmasDatabase", WORK),
        );
        let first = name.strip_suffix("-1").unwrap();
        for number in 1..=3 {
            let job = format!("{first}-{number}");
            eventually("the next Job", PATIENCE, async || {
                jobs.get_opt(&job).await.unwrap().is_some()
            })
            .await;
            self.status("batch/v1", "Job", &job, &given_up()).await;
        }
        self.until("patch", "jobs").await;
        // The next of the name needs the same Job, and somebody else has it by then.
        databases.delete("ext", &DeleteParams::default()).await.unwrap();
        eventually("the database is gone", PATIENCE, async || {
            databases.get_opt("ext").await.unwrap().is_none()
        })
        .await;
        for job in self.names("batch/v1", "Job").await {
            jobs.delete(&job, &DeleteParams::background()).await.unwrap();
        }
        eventually("the Jobs are gone", PATIENCE, async || {
            self.names("batch/v1", "Job").await.is_empty()
        })
        .await;
        let pod = json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]});
        self.cluster.apply(WORK, json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {"template": {"spec": pod}}})).await;
        self.ours("AmasDatabase", "ext", spec).await;
        self.until("get", "jobs").await;
        drop(server);
    }

    async fn deleted(&self, name: &str) {
        let api = self.cluster.api(OURS, "AmasDatabase", WORK);
        api.delete(name, &DeleteParams::default()).await.unwrap();
        eventually("the database is gone", PATIENCE, async || {
            api.get_opt(name).await.unwrap().is_none()
        })
        .await;
        self.until("delete", "persistentvolumeclaims").await;
        self.until("delete", "secrets").await;
    }
}

/// Without what is null.
fn strip(mut object: Value) -> Value {
    if let Some(fields) = object.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
        for value in fields.values_mut() {
            *value = strip(value.take());
        }
    }
    object
}

pub fn all_stores() -> Value {
    let managed = json!({"storage": {"size": "1Gi", "storageClassName": "grows"}});
    json!({"deletionPolicy": "Delete", "disruption": "Block", "postgres": {"managed": managed, "database": "app"},
        "redis": {"managed": managed}, "neo4j": {"managed": managed}})
}
