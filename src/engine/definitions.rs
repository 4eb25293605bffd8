//! Whether the definitions on the cluster are those of this program: the schemas that the API publishes (`/openapi/v3`, open to everybody
//! who is logged in, so no cluster-wide right is needed) against our own.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;

/// How far the two are apart, by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Fields of status that the cluster's definition lacks: a status with them would be refused as a whole.
    pub blocking: Vec<String>,
    /// Other fields that it lacks: the API drops them from what users write.
    pub lacking: Vec<String>,
    /// Fields that it has and we do not know.
    pub unknown: Vec<String>,
}

impl Difference {
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// Compares what the API publishes (the document of our group and version) with our definitions. `None`: a kind is not published (yet).
pub fn compare(published: &Value, ours: &[CustomResourceDefinition]) -> Option<Difference> {
    let mut all = Difference::default();
    for definition in ours {
        let kind = &definition.spec.names.kind;
        let schemas = published["components"]["schemas"].as_object()?;
        let theirs = schemas.values().find(|schema| is_of(schema, kind))?;
        let ours = serde_json::to_value(definition).unwrap_or_default();
        let ours = fields(kind, &ours["spec"]["versions"][0]["schema"]["openAPIV3Schema"]);
        let theirs = fields(kind, theirs);
        let is_status = |field: &String| field.starts_with(&format!("{kind}.status."));
        let (blocking, lacking) = ours.difference(&theirs).cloned().partition::<Vec<_>, _>(is_status);
        all.blocking.extend(blocking);
        all.lacking.extend(lacking);
        all.unknown.extend(theirs.difference(&ours).cloned());
    }
    Some(all)
}

fn is_of(schema: &Value, kind: &str) -> bool {
    let kinds = schema["x-kubernetes-group-version-kind"].as_array();
    kinds.is_some_and(|kinds| kinds.iter().any(|one| one["kind"] == kind))
}

/// The paths of all fields below spec and status.
fn fields(kind: &str, schema: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for part in ["spec", "status"] {
        walk(&format!("{kind}.{part}"), &schema["properties"][part], &mut found);
    }
    found
}

fn walk(path: &str, schema: &Value, found: &mut BTreeSet<String>) {
    if !schema.is_object() {
        return;
    }
    for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        walk(&path, schema, found);
        found.insert(path);
    }
    for inner in ["items", "additionalProperties"] {
        walk(path, &schema[inner], found);
    }
    // How the API writes a schema that has a default beside it.
    for inner in schema["allOf"].as_array().into_iter().flatten() {
        walk(path, inner, found);
    }
}

/// What the difference means for whoever runs the operator.
pub fn explain(difference: &Difference) -> Option<String> {
    const SHOWN: usize = 5;
    let list = |fields: &[String]| {
        let more = fields.len().saturating_sub(SHOWN);
        let shown = fields[..fields.len().min(SHOWN)].join(", ");
        if more == 0 {
            shown
        } else {
            format!("{shown} and {more} more")
        }
    };
    let update = "bring them up to date: helm upgrade with crds.enabled, or kubectl apply --server-side -f crds/";
    if !difference.blocking.is_empty() {
        return Some(format!(
            "the CustomResourceDefinitions of amas.dev on this cluster are older than this operator and lack {}; {update}",
            list(&difference.blocking)
        ));
    }
    if !difference.lacking.is_empty() {
        return Some(format!(
            "the CustomResourceDefinitions of amas.dev on this cluster are older than this operator; what users write into {} is dropped; {update}",
            list(&difference.lacking)
        ));
    }
    (!difference.unknown.is_empty()).then(|| {
        format!(
            "the CustomResourceDefinitions of amas.dev on this cluster are newer than this operator, which ignores {}",
            list(&difference.unknown)
        )
    })
}

/// Sixteen digits that name the fields of our definitions, for the log.
pub fn fingerprint(definitions: &[CustomResourceDefinition]) -> String {
    let all: BTreeMap<String, Value> = definitions
        .iter()
        .map(|definition| {
            (
                definition.spec.names.kind.clone(),
                serde_json::to_value(&definition.spec).unwrap_or_default(),
            )
        })
        .collect();
    let digest = <sha2::Sha256 as sha2::Digest>::digest(serde_json::to_string(&all).unwrap_or_default());
    hex::encode(&digest[..8])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::crds;
    use serde_json::json;

    /// As the API publishes our definitions.
    fn published() -> Value {
        let schema = |definition: CustomResourceDefinition| {
            let kind = definition.spec.names.kind.clone();
            let text = serde_json::to_value(&definition).unwrap();
            let mut schema = text["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
            schema["x-kubernetes-group-version-kind"] =
                json!([{"group": "amas.dev", "kind": kind, "version": "v1alpha1"}]);
            (format!("dev.amas.v1alpha1.{kind}"), schema)
        };
        let schemas: serde_json::Map<String, Value> = crds::all().into_iter().map(schema).collect();
        json!({"components": {"schemas": schemas}})
    }

    fn database(document: &mut Value) -> &mut Value {
        &mut document["components"]["schemas"]["dev.amas.v1alpha1.AmasDatabase"]["properties"]
    }

    #[test]
    fn ours_are_ours() {
        assert!(compare(&published(), &crds::all()).unwrap().is_none());
        assert_eq!(compare(&json!({}), &crds::all()), None);
    }

    #[test]
    fn older_and_newer_are_told_apart() {
        let without = |path: &[&str]| {
            let mut document = published();
            let (last, path) = path.split_last().unwrap();
            let mut at = database(&mut document);
            for part in path {
                at = &mut at[*part]["properties"];
            }
            at.as_object_mut().unwrap().remove(*last).unwrap();
            compare(&document, &crds::all()).unwrap()
        };
        let older = without(&["status", "handled"]);
        assert_eq!(older.blocking, ["AmasDatabase.status.handled"]);
        assert!(
            explain(&older)
                .unwrap()
                .contains("older than this operator and lack AmasDatabase.status.handled")
        );
        let older = without(&["spec", "disruption"]);
        assert_eq!(
            (older.blocking.len(), older.lacking.as_slice()),
            (0, ["AmasDatabase.spec.disruption".to_owned()].as_slice())
        );

        let mut newer = published();
        database(&mut newer)["spec"]["properties"]["later"] = json!({"type": "string"});
        let newer = compare(&newer, &crds::all()).unwrap();
        assert_eq!(newer.unknown, ["AmasDatabase.spec.later"]);
        assert!(explain(&newer).unwrap().contains("newer"));
    }
}
