//! The CustomResourceDefinitions, generated from the types and completed by what the derive cannot say.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{CustomResourceDefinition, JSON};
use kube::CustomResourceExt;
use serde_json::json;

use super::{amas_database::AmasDatabase, cache_policy::CachePolicy, graph_schema::GraphSchema};

/// All our definitions, in the order they are installed.
pub fn all() -> Vec<CustomResourceDefinition> {
    [AmasDatabase::crd(), CachePolicy::crd(), GraphSchema::crd()]
        .map(with_status_default)
        .into()
}

/// A new object has `status.observedGeneration: -1` without a write, so that tools which know generations take it as in progress.
fn with_status_default(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        let schema = version
            .schema
            .as_mut()
            .and_then(|schema| schema.open_api_v3_schema.as_mut());
        let status = schema
            .and_then(|schema| schema.properties.as_mut())
            .and_then(|map| map.get_mut("status"));
        if let Some(status) = status {
            status.default = Some(JSON(json!({ "observedGeneration": -1 })));
            status.nullable = None;
        }
    }
    crd
}
