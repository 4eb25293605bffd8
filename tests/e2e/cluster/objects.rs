//! Kubernetes objects of any kind: from YAML, applied, found by our label.

use std::path::Path;

use k8s_openapi::api::{
    apps::v1::StatefulSet,
    batch::v1::Job,
    core::v1::{ConfigMap, PersistentVolumeClaim, Secret, Service, ServiceAccount},
    networking::v1::NetworkPolicy,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams},
};

use crate::harness::{About, Result};

/// Who the suite says it is when it applies.
const MANAGER: &str = "e2e";

/// The objects of a YAML text with any number of documents.
pub fn parse(text: &str) -> Result<Vec<DynamicObject>> {
    let documents: Vec<serde_json::Value> = serde_saphyr::from_multiple(text)?;
    let object = |document| serde_json::from_value(document).about("not a Kubernetes object");
    documents
        .into_iter()
        .filter(|document| !document.is_null())
        .map(object)
        .collect()
}

/// The objects of the files that a folder's kustomization names, in its order.
pub fn folder(path: &Path) -> Result<Vec<DynamicObject>> {
    let read = |name: &str| std::fs::read_to_string(path.join(name)).about(path.join(name).display());
    let kustomization: serde_json::Value = serde_saphyr::from_str(&read("kustomization.yaml")?)?;
    let names = kustomization["resources"]
        .as_array()
        .about("kustomization.yaml names no resources")?;
    let mut objects = Vec::new();
    for name in names.iter().filter_map(|name| name.as_str()) {
        objects.extend(parse(&read(name)?)?);
    }
    Ok(objects)
}

/// An object of ours.
pub fn ours(kind: &str, name: &str, spec: serde_json::Value) -> Result<DynamicObject> {
    let object = serde_json::json!({ "apiVersion": "amas.dev/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec });
    Ok(serde_json::from_value(object)?)
}

/// `${key}` replaced by its value.
pub fn fill(template: &str, key: &str, value: &str) -> String {
    template.replace(&format!("${{{key}}}"), value)
}

/// The resource of one of our kinds, or of any typed kind.
pub fn resource<K: Resource<DynamicType = ()>>() -> ApiResource {
    ApiResource::erase::<K>(&())
}

/// An untyped view of a typed kind in a namespace.
pub fn api<K: Resource<DynamicType = ()>>(client: &Client, namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), namespace, &resource::<K>())
}

/// Server-side apply, as `kubectl apply --server-side` does, one object after the other.
pub async fn apply(client: &Client, namespace: &str, objects: &[DynamicObject]) -> Result {
    for object in objects {
        let types = object.types.as_ref().about("an object without a kind")?;
        let resource = ApiResource::from_gvk(&GroupVersionKind::try_from(types)?);
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
        let mut object = object.clone();
        object.metadata.namespace = Some(namespace.to_owned());
        let params = PatchParams::apply(MANAGER).force();
        api.patch(&object.name_any(), &params, &Patch::Apply(&object))
            .await
            .about(format!("apply {} {}", types.kind, object.name_any()))?;
    }
    Ok(())
}

/// The children of a database, found by our label over every kind that the operator makes: `kind/name`, sorted.
pub async fn children(client: &Client, namespace: &str, database: &str) -> Result<Vec<String>> {
    let kinds = [
        resource::<StatefulSet>(),
        resource::<Service>(),
        resource::<ConfigMap>(),
        resource::<PersistentVolumeClaim>(),
        resource::<Secret>(),
        resource::<ServiceAccount>(),
        resource::<NetworkPolicy>(),
        resource::<Job>(),
    ];
    let selector = ListParams::default().labels(&format!("amas.dev/database={database}"));
    let mut found = Vec::new();
    for kind in kinds {
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &kind);
        found.extend(
            api.list(&selector)
                .await?
                .iter()
                .map(|child| format!("{}/{}", kind.kind, child.name_any())),
        );
    }
    found.sort();
    Ok(found)
}
