//! The Kubernetes objects that we make: which kinds, which of their fields are ours, and the lean form in which they are remembered.
//!
//! A watched child keeps its metadata, a hash of the fields we own, and a few facts. Whether it is as we want it is one comparison of
//! two hashes, so a restarted operator writes nothing, and a hand edit shows without a copy of the object in memory.

mod facts;

use std::{
    borrow::Cow,
    hash::{DefaultHasher, Hash, Hasher},
    sync::LazyLock,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::{ApiResource, GroupVersionKind, Resource};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use self::facts::facts;
pub use self::facts::{Facts, PodTemplate, Volume, pod_template};
use super::selection::Selection;
use crate::api::units::Quantity;

/// The kinds of objects we make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChildKind {
    ServiceAccount,
    ConfigMap,
    Secret,
    Service,
    NetworkPolicy,
    PodDisruptionBudget,
    PersistentVolumeClaim,
    StatefulSet,
    Job,
    /// What cert-manager makes a server's certificate from. Never watched, since its kind may not be there: it is read by name.
    Certificate,
    /// Made by a StatefulSet or Job, watched for image pulls, crash loops and termination messages.
    Pod,
}

impl ChildKind {
    pub const ALL: [Self; 11] = [
        Self::ServiceAccount,
        Self::ConfigMap,
        Self::Secret,
        Self::Service,
        Self::NetworkPolicy,
        Self::PodDisruptionBudget,
        Self::PersistentVolumeClaim,
        Self::StatefulSet,
        Self::Job,
        Self::Certificate,
        Self::Pod,
    ];

    /// The children that are watched. Secrets never are: they are read by name. (What people have marked to be watched is another matter.)
    pub const WATCHED: [Self; 9] = [
        Self::ServiceAccount,
        Self::ConfigMap,
        Self::Service,
        Self::NetworkPolicy,
        Self::PodDisruptionBudget,
        Self::PersistentVolumeClaim,
        Self::StatefulSet,
        Self::Job,
        Self::Pod,
    ];

    fn names(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::ServiceAccount => ("", "ServiceAccount", "serviceaccounts"),
            Self::ConfigMap => ("", "ConfigMap", "configmaps"),
            Self::Secret => ("", "Secret", "secrets"),
            Self::Service => ("", "Service", "services"),
            Self::NetworkPolicy => ("networking.k8s.io", "NetworkPolicy", "networkpolicies"),
            Self::PodDisruptionBudget => ("policy", "PodDisruptionBudget", "poddisruptionbudgets"),
            Self::PersistentVolumeClaim => ("", "PersistentVolumeClaim", "persistentvolumeclaims"),
            Self::StatefulSet => ("apps", "StatefulSet", "statefulsets"),
            Self::Job => ("batch", "Job", "jobs"),
            Self::Certificate => ("cert-manager.io", "Certificate", "certificates"),
            Self::Pod => ("", "Pod", "pods"),
        }
    }

    /// How the apiserver names the kind.
    pub fn api_resource(self) -> ApiResource {
        let (group, kind, plural) = self.names();
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, "v1", kind), plural)
    }

    /// The fields of an object of this kind that are ours: what templates write, and nothing that the server adds.
    fn selection(self) -> &'static Selection {
        static SELECTIONS: LazyLock<[Selection; 11]> =
            LazyLock::new(|| ChildKind::ALL.map(|kind| Selection::parse(kind.owned_fields())));
        let index = Self::ALL.iter().position(|&kind| kind == self).unwrap_or_default();
        &SELECTIONS[index]
    }

    fn owned_fields(self) -> &'static str {
        match self {
            Self::ServiceAccount => "automountServiceAccountToken",
            Self::ConfigMap => "data",
            Self::Secret => "data type",
            Self::Service => "spec{type selector publishNotReadyAddresses ports{name port targetPort}}",
            Self::NetworkPolicy => "spec",
            Self::PodDisruptionBudget => "spec{maxUnavailable selector{matchLabels}}",
            Self::PersistentVolumeClaim => "spec{accessModes resources{requests}}",
            Self::Certificate => {
                "spec{secretName dnsNames usages issuerRef{name kind group} privateKey{algorithm size rotationPolicy}}"
            }
            // Jobs are made once and never changed; pods are not ours to write.
            Self::Job | Self::Pod => "",
            Self::StatefulSet => concat!(
                "spec{replicas serviceName podManagementPolicy selector template{metadata{labels annotations} spec{",
                "serviceAccountName automountServiceAccountToken enableServiceLinks terminationGracePeriodSeconds ",
                "securityContext{runAsNonRoot runAsUser runAsGroup fsGroup fsGroupChangePolicy seccompProfile} ",
                "nodeSelector priorityClassName imagePullSecrets tolerations ",
                "initContainers{name image command args securityContext volumeMounts{name mountPath readOnly}} ",
                "containers{name image command args terminationMessagePolicy env{name value} envFrom ports{name containerPort} resources{requests limits} securityContext ",
                "volumeMounts{name mountPath readOnly subPath} ",
                "readinessProbe{exec tcpSocket{port} periodSeconds timeoutSeconds failureThreshold} ",
                "livenessProbe{exec tcpSocket{port} periodSeconds timeoutSeconds failureThreshold} ",
                "startupProbe{exec tcpSocket{port} periodSeconds timeoutSeconds failureThreshold}} ",
                "volumes{name emptyDir configMap{name} secret{secretName items{key path mode}} persistentVolumeClaim{claimName}}}}}",
            ),
        }
    }

    /// Hash of the fields we own, the same for what we want and for what the server holds as long as nobody has changed one of them.
    pub fn hash(self, object: &Value) -> u64 {
        let mut hasher = DefaultHasher::new();
        // serde_json keeps object keys sorted, so equal values print equally.
        normalise(self.selection().project(object))
            .to_string()
            .hash(&mut hasher);
        hasher.finish()
    }

    /// Hash of the fields we own in the pod template of a StatefulSet: whether a change of it would replace the pod.
    pub fn pod_template_hash(self, object: &Value) -> u64 {
        let mut hasher = DefaultHasher::new();
        normalise(self.selection().project(object))["spec"]["template"]
            .to_string()
            .hash(&mut hasher);
        hasher.finish()
    }

    /// Puts the fields we own from `wanted` into `live` and leaves everything else of `live` as it is.
    pub fn overlay(self, live: &mut Value, wanted: &Value) {
        self.selection().overlay(live, wanted);
    }

    /// The fields we own, written in one way.
    pub fn project(self, object: &Value) -> Value {
        normalise(self.selection().project(object))
    }
}

/// Drops what is empty and writes quantities in one way, since the server rewrites `1024Mi` as `1Gi`.
fn normalise(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let amounts = |key: &str| key == "requests" || key == "limits";
            let entries = map.into_iter().map(|(key, value)| {
                let value = if amounts(&key) {
                    normalise_amounts(value)
                } else {
                    normalise(value)
                };
                (key, value)
            });
            Value::Object(entries.filter(|(_, value)| !is_empty(value)).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(normalise).collect()),
        other => other,
    }
}

fn normalise_amounts(amounts: Value) -> Value {
    let Value::Object(map) = amounts else { return amounts };
    let milli = |value: Value| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        match Quantity::parse(text) {
            Ok(quantity) => Value::from(quantity.milli_value().to_string()),
            Err(_) => value,
        }
    };
    Value::Object(map.into_iter().map(|(name, value)| (name, milli(value))).collect())
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

/// A watched child in its lean form.
#[derive(Clone, Debug)]
pub struct Child<K> {
    pub meta: Box<ObjectMeta>,
    pub hash: u64,
    pub facts: Facts,
    kind: std::marker::PhantomData<fn() -> K>,
}

/// Ties a Rust type to a [`ChildKind`], so that each kind has its own watch cache.
pub trait Watched: 'static {
    const KIND: ChildKind;
}

macro_rules! watched {
    ($($name:ident),*) => { pub mod kinds { $(
        #[derive(Clone, Debug)]
        pub struct $name;
        impl super::Watched for $name { const KIND: super::ChildKind = super::ChildKind::$name; }
    )* } };
}
watched!(
    ServiceAccount,
    ConfigMap,
    Service,
    NetworkPolicy,
    PodDisruptionBudget,
    PersistentVolumeClaim,
    StatefulSet,
    Job,
    Pod,
    Secret
);

impl<'de, K: Watched> Deserialize<'de> for Child<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let object = Value::deserialize(deserializer)?;
        Ok(Self {
            meta: Box::new(lean_metadata(&object)),
            hash: K::KIND.hash(&object),
            facts: facts(K::KIND, &object),
            kind: std::marker::PhantomData,
        })
    }
}

impl<K: Watched> Resource for Child<K> {
    type DynamicType = ();
    type Scope = k8s_openapi::NamespaceResourceScope;

    fn kind(_: &()) -> Cow<'_, str> {
        K::KIND.names().1.into()
    }
    fn group(_: &()) -> Cow<'_, str> {
        K::KIND.names().0.into()
    }
    fn version(_: &()) -> Cow<'_, str> {
        "v1".into()
    }
    fn plural(_: &()) -> Cow<'_, str> {
        K::KIND.names().2.into()
    }
    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}

/// The metadata that is used: names, labels, owner. Managed fields, the largest part, are never kept.
fn lean_metadata(object: &Value) -> ObjectMeta {
    let metadata = &object["metadata"];
    let text = |name: &str| metadata[name].as_str().map(str::to_owned);
    ObjectMeta {
        name: text("name"),
        namespace: text("namespace"),
        uid: text("uid"),
        resource_version: text("resourceVersion"),
        labels: serde_json::from_value(metadata["labels"].clone()).ok(),
        owner_references: serde_json::from_value(metadata["ownerReferences"].clone()).ok(),
        deletion_timestamp: serde_json::from_value(metadata["deletionTimestamp"].clone()).ok(),
        ..ObjectMeta::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_hash_ignores_what_the_server_adds() {
        let ours = json!({"spec": {"type": "ClusterIP", "selector": {"a": "b"}, "ports": [{"name": "x", "port": 1, "targetPort": 1}]}});
        let mut live = ours.clone();
        live["spec"]["clusterIP"] = json!("10.0.0.1");
        live["spec"]["ports"][0]["protocol"] = json!("TCP");
        live["metadata"] = json!({"uid": "u"});
        assert_eq!(ChildKind::Service.hash(&ours), ChildKind::Service.hash(&live));
        live["spec"]["ports"][0]["port"] = json!(2);
        assert_ne!(ChildKind::Service.hash(&ours), ChildKind::Service.hash(&live));
    }

    #[test]
    fn quantities_are_equal_however_written() {
        let claim = |amount: &str| json!({"spec": {"resources": {"requests": {"storage": amount}}}});
        let hash = |amount: &str| ChildKind::PersistentVolumeClaim.hash(&claim(amount));
        assert_eq!(hash("1024Mi"), hash("1Gi"));
        assert_ne!(hash("2Gi"), hash("1Gi"));
    }

    #[test]
    fn an_overlay_keeps_what_is_not_ours() {
        let mut live = json!({"metadata": {"labels": {"x": "y"}}, "spec": {"clusterIP": "1.2.3.4", "selector": {"old": "1"}, "type": "ClusterIP", "ports": []}});
        ChildKind::Service.overlay(
            &mut live,
            &json!({"spec": {"selector": {"new": "1"}, "type": "ClusterIP"}}),
        );
        assert_eq!(
            live["spec"],
            json!({"clusterIP": "1.2.3.4", "selector": {"new": "1"}, "type": "ClusterIP"})
        );
        assert_eq!(live["metadata"]["labels"]["x"], "y");
    }

    #[test]
    fn lean_children_are_read_from_whole_objects() {
        let pod: Child<kinds::Pod> = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "managedFields": [{"manager": "x"}], "labels": {"amas.dev/database": "d"}},
            "status": {"containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}]}
        }))
        .unwrap();
        assert_eq!(
            pod.facts.trouble,
            Some(("ImagePullBackOff".into(), "no such image".into()))
        );
        assert!(pod.meta.managed_fields.is_none());
        let job: Child<kinds::Job> = serde_json::from_value(
            json!({"metadata": {"name": "j"}, "status": {"conditions": [{"type": "Failed", "status": "True"}]}}),
        )
        .unwrap();
        assert_eq!(job.facts.finished, Some(false));
    }
}
