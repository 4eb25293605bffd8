//! Objects as requests carry them: ours put into what is there, and nothing of others lost.

use kube::api::DynamicObject;
use serde_json::{Value, json};

use crate::engine::{Own, child::ChildKind};

pub(super) fn dynamic(kind: ChildKind, object: &Value) -> Result<DynamicObject, kube::Error> {
    let mut object = object.clone();
    let resource = kind.api_resource();
    object["apiVersion"] = Value::from(resource.api_version);
    object["kind"] = Value::from(resource.kind);
    serde_json::from_value(object).map_err(kube::Error::SerdeError)
}

pub(super) fn to_value(object: &DynamicObject) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}

/// Our owner as it is wanted, also none; other owners stay.
pub(super) fn own(live: &mut Value, wanted: &Value) {
    let owners = |metadata: &Value| metadata["ownerReferences"].as_array().cloned().unwrap_or_default();
    let ours = |owner: &Value| owner["kind"] == crate::api::amas_database::AmasDatabase::KIND;
    let mut all: Vec<Value> = owners(live).into_iter().filter(|owner| !ours(owner)).collect();
    all.extend(owners(wanted));
    live["ownerReferences"] = all.into();
}

pub(super) fn merge_map(live: &mut Value, wanted: &Value) {
    let Some(wanted) = wanted.as_object() else { return };
    if !live.is_object() {
        *live = json!({});
    }
    for (key, value) in wanted {
        live[key] = value.clone();
    }
}
