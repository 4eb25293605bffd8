//! The manifests of a managed server in the first revision. Pure: from data to objects.

use k8s_openapi::api::core::v1::ResourceRequirements;
use serde_json::{Value, json};

use super::{CERTIFICATES, Config, Family, Shared, Workload, certificate_key, certificates_secret, private_key};
use crate::{
    api::{
        CERTIFICATE, CONFIG, DATA, IMAGE, RESTART, RESTARTED_AT, TEMPLATE_REVISION,
        common::{Disruption, NetworkAccess, PodSettings},
        units::Quantity,
    },
    stores::revisions::{Stamp, config},
};

/// An object to be there, by kind and content.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    pub kind: TemplateKind,
    pub body: Value,
}

/// The kinds of objects that make up a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TemplateKind {
    ServiceAccount,
    ConfigMap,
    Service,
    NetworkPolicy,
    PodDisruptionBudget,
    PersistentVolumeClaim,
    StatefulSet,
}

/// Everything a managed server consists of, but for its Secrets, in the first revision; [`super::revisions`] has the later ones.
pub fn templates(family: &Family, workload: &Workload, shared: Shared<'_>, stamp: &Stamp) -> Vec<Template> {
    let make = |kind, body: Value| Template { kind, body };
    let mut all = vec![
        make(TemplateKind::PersistentVolumeClaim, claim(family, workload)),
        make(TemplateKind::ServiceAccount, service_account(family, workload)),
        make(TemplateKind::ConfigMap, config_map(family, workload)),
        make(TemplateKind::StatefulSet, stateful_set(family, workload, shared, stamp)),
        make(TemplateKind::Service, service(family, workload)),
    ];
    if shared.access != NetworkAccess::None {
        all.push(make(
            TemplateKind::NetworkPolicy,
            network_policy(family, workload, shared),
        ));
    }
    if shared.disruption == Disruption::Block {
        all.push(make(
            TemplateKind::PodDisruptionBudget,
            disruption_budget(family, workload),
        ));
    }
    all
}

fn metadata(family: &Family, workload: &Workload, suffix: &str, owned: bool) -> Value {
    let name = family.child_name(&format!("{}{suffix}", workload.component));
    family.metadata(&name, workload.application, workload.component, owned)
}

fn selector(family: &Family, workload: &Workload) -> Value {
    json!({"amas.dev/database": family.database, "app.kubernetes.io/component": workload.component})
}

/// What a volume is asked for with; without a class in the cluster's default one.
pub fn claim_spec(size: &Quantity, class: Option<&str>) -> Value {
    let mut spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size.as_str()}}});
    if let Some(class) = class {
        spec["storageClassName"] = json!(class);
    }
    spec
}

fn claim(family: &Family, workload: &Workload) -> Value {
    let spec = claim_spec(&workload.storage.size, workload.storage.storage_class_name.as_deref());
    let mut metadata = metadata(family, workload, "", false);
    // The volume outlives its object; who takes it up again learns what is in it.
    metadata["annotations"] = json!({DATA: workload.data()});
    json!({"metadata": metadata, "spec": spec})
}

fn service_account(family: &Family, workload: &Workload) -> Value {
    json!({"metadata": metadata(family, workload, "", true), "automountServiceAccountToken": false})
}

fn config_map(family: &Family, workload: &Workload) -> Value {
    let data = match &workload.config {
        Config::Files { files, .. } => json!(files),
        Config::Environment(variables) => json!(variables),
    };
    let mut metadata = metadata(family, workload, "-config", true);
    metadata["annotations"] = json!({CONFIG: config(workload)});
    json!({"metadata": metadata, "data": data})
}

/// The address clients use. A pod that is not ready is published too: there is no other to send them to, and a refused connection is the
/// honest answer.
fn service(family: &Family, workload: &Workload) -> Value {
    let port = |(name, port): &(&str, u16)| json!({"name": name, "port": port, "targetPort": port});
    json!({"metadata": metadata(family, workload, "", true), "spec": {
        "type": "ClusterIP", "selector": selector(family, workload), "publishNotReadyAddresses": true,
        "ports": workload.ports.iter().map(port).collect::<Vec<_>>(),
    }})
}

fn network_policy(family: &Family, workload: &Workload, shared: Shared<'_>) -> Value {
    let clients = match shared.access {
        NetworkAccess::Labelled => json!({"podSelector": {"matchLabels": {"amas.dev/client": family.database}}}),
        _ => json!({"podSelector": {}}),
    };
    let runner = json!({"podSelector": {"matchLabels": {"amas.dev/database": family.database}}});
    let operator = json!({
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": shared.operator_namespace}},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "amas-operator"}},
    });
    let port = |(_, port): &(&str, u16)| json!({"protocol": "TCP", "port": port});
    json!({"metadata": metadata(family, workload, "", true), "spec": {
        "podSelector": {"matchLabels": selector(family, workload)},
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [clients, runner, operator], "ports": workload.ports.iter().map(port).collect::<Vec<_>>()}],
    }})
}

/// A drain asks before it evicts, and is told no.
fn disruption_budget(family: &Family, workload: &Workload) -> Value {
    let spec = json!({"maxUnavailable": 0, "selector": {"matchLabels": selector(family, workload)}});
    json!({"metadata": metadata(family, workload, "", true), "spec": spec})
}

fn stateful_set(family: &Family, workload: &Workload, shared: Shared<'_>, stamp: &Stamp) -> Value {
    let mut metadata = metadata(family, workload, "", true);
    let name = metadata["name"].clone();
    metadata["annotations"] =
        json!({TEMPLATE_REVISION: stamp.revision, IMAGE: stamp.image_note(workload.image_source)});
    json!({"metadata": metadata, "spec": {
        "replicas": 1, "serviceName": name, "podManagementPolicy": "OrderedReady",
        "selector": {"matchLabels": selector(family, workload)},
        "template": {"metadata": pod_metadata(family, workload, shared.pods, stamp), "spec": pod_spec(family, workload, shared.pods, stamp)},
    }})
}

fn pod_metadata(family: &Family, workload: &Workload, pods: &PodSettings, stamp: &Stamp) -> Value {
    let labels = pod_labels(pods, family.labels(workload.application, workload.component));
    let mut annotations = json!(pods.annotations);
    annotations[CONFIG] = json!(stamp.config);
    if let Some(asked) = &stamp.restart {
        annotations[RESTART] = json!(asked);
    }
    if let Some(certificate) = &stamp.certificate {
        annotations[CERTIFICATE] = json!(certificate);
    }
    // `kubectl rollout restart` is not undone: that would be a second restart.
    if let Some(at) = &stamp.restarted_at {
        annotations[RESTARTED_AT] = json!(at);
    }
    json!({"labels": labels, "annotations": annotations})
}

/// The labels of a pod: the user's, and ours, which win.
pub fn pod_labels(pods: &PodSettings, ours: Value) -> Value {
    let mut labels = json!(pods.labels);
    if let (Some(labels), Value::Object(ours)) = (labels.as_object_mut(), ours) {
        labels.extend(ours);
    }
    labels
}

fn pod_spec(family: &Family, workload: &Workload, pods: &PodSettings, stamp: &Stamp) -> Value {
    let name = family.child_name(workload.component);
    let mut spec = json!({
        "serviceAccountName": name,
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": workload.grace_seconds,
        "securityContext": {
            "runAsNonRoot": true, "runAsUser": workload.user, "runAsGroup": workload.user, "fsGroup": workload.user,
            "fsGroupChangePolicy": "OnRootMismatch", "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container(family, workload, &stamp.image)],
        "volumes": volumes(family, workload),
    });
    if let Some(script) = &workload.prepare {
        spec["initContainers"] = json!([{
            "name": "prepare", "image": stamp.image, "command": ["sh", "-c", script],
            "securityContext": security(true), "volumeMounts": [data_mount(workload), secret_mount(workload)],
        }]);
    }
    add_pod_settings(&mut spec, pods);
    spec
}

/// Scheduling and pull settings of the whole database, for servers and Jobs alike.
pub fn add_pod_settings(spec: &mut Value, pods: &PodSettings) {
    if !pods.node_selector.is_empty() {
        spec["nodeSelector"] = json!(pods.node_selector);
    }
    if !pods.tolerations.is_empty() {
        spec["tolerations"] = json!(pods.tolerations);
    }
    if let Some(class) = &pods.priority_class_name {
        spec["priorityClassName"] = json!(class);
    }
    if !pods.image_pull_secrets.is_empty() {
        spec["imagePullSecrets"] = json!(pods.image_pull_secrets);
    }
}

/// The restricted security context of every container.
pub fn security(read_only_root: bool) -> Value {
    json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": read_only_root})
}

fn container(family: &Family, workload: &Workload, image: &str) -> Value {
    let (_, port) = workload.ports.first().copied().unwrap_or_default();
    let probe = |period: u32, failures: u32| json!({"tcpSocket": {"port": port}, "periodSeconds": period, "timeoutSeconds": 2, "failureThreshold": failures});
    let mut container = json!({
        "name": workload.component,
        "image": image,
        "env": workload.environment.iter().map(|(name, value)| json!({"name": name, "value": value})).collect::<Vec<_>>(),
        "ports": workload.ports.iter().map(|(name, port)| json!({"name": name, "containerPort": port})).collect::<Vec<_>>(),
        "securityContext": security(workload.read_only_root),
        "resources": ResourceRequirements::from(&workload.resources),
        // The last lines of its log, when it ends by an error: they become part of the condition.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        // An hour for a recovery; the operator's own sentinel is what decides on readiness.
        "startupProbe": probe(1, 3600),
        "readinessProbe": probe(5, 3),
        "livenessProbe": probe(10, 6),
        "volumeMounts": mounts(workload),
    });
    if !workload.command.is_empty() {
        container["args"] = json!(workload.command);
    }
    if let Config::Environment(_) = workload.config {
        container["envFrom"] =
            json!([{"configMapRef": {"name": family.child_name(&format!("{}-config", workload.component))}}]);
    }
    container
}

fn data_mount(workload: &Workload) -> Value {
    json!({"name": "data", "mountPath": workload.data_folder})
}

fn secret_mount(workload: &Workload) -> Value {
    json!({"name": "secret", "mountPath": workload.secret.folder, "readOnly": true})
}

fn mounts(workload: &Workload) -> Vec<Value> {
    let mut mounts = vec![data_mount(workload)];
    if workload.prepare.is_none() {
        mounts.push(secret_mount(workload));
    }
    if let Config::Files { folder, .. } = &workload.config {
        mounts.push(json!({"name": "config", "mountPath": folder, "readOnly": true}));
    }
    if workload.encrypted {
        mounts.push(json!({"name": "certificates", "mountPath": CERTIFICATES, "readOnly": true}));
    }
    let scratch = |(number, folder): (usize, &&str)| json!({"name": format!("scratch-{number}"), "mountPath": folder});
    mounts.extend(workload.scratch.iter().enumerate().map(scratch));
    mounts
}

fn volumes(family: &Family, workload: &Workload) -> Vec<Value> {
    let name = family.child_name(workload.component);
    let secret = &workload.secret;
    let mut volumes = vec![
        json!({"name": "data", "persistentVolumeClaim": {"claimName": name}}),
        json!({"name": "secret", "secret": {"secretName": secret.secret, "items": [{"key": secret.key, "path": secret.key}]}}),
    ];
    if let Config::Files { .. } = workload.config {
        volumes.push(json!({"name": "config", "configMap": {"name": family.child_name(&format!("{}-config", workload.component))}}));
    }
    if workload.encrypted {
        // Of a key its group at most may know, or the server refuses it. The pod sees its own only.
        let item = |key: String, path: &str| json!({"key": key, "path": path, "mode": 0o440});
        let items = [
            item(certificate_key(workload.component), "tls.crt"),
            item(private_key(workload.component), "tls.key"),
        ];
        volumes.push(
            json!({"name": "certificates", "secret": {"secretName": certificates_secret(family), "items": items}}),
        );
    }
    volumes
        .extend((0..workload.scratch.len()).map(|number| json!({"name": format!("scratch-{number}"), "emptyDir": {}})));
    volumes
}
