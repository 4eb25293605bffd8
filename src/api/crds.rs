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

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        path::{Path, PathBuf},
    };

    use serde_json::Value;

    use super::*;

    fn yaml_files(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => yaml_files(&path, found),
                false if path.extension().is_some_and(|extension| extension == "yaml") => found.push(path),
                false => {}
            }
        }
    }

    /// Every object of ours in the folder of manifests, with the file it is in.
    fn shipped() -> Vec<(PathBuf, Value)> {
        let mut files = Vec::new();
        yaml_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests"), &mut files);
        let documents = files.into_iter().flat_map(|file| {
            let text = std::fs::read_to_string(&file).unwrap();
            let parts: Vec<String> = text.split("\n---\n").map(str::to_owned).collect();
            parts
                .into_iter()
                .map(move |part| (file.clone(), serde_saphyr::from_str::<Value>(&part).unwrap()))
        });
        documents
            .filter(|(_, object)| object["apiVersion"] == "amas.dev/v1alpha1")
            .collect()
    }

    #[test]
    fn what_we_ship_parses_and_keeps_the_rules() {
        let objects = shipped();
        assert!(objects.len() >= 6, "{} objects", objects.len());
        for (file, object) in objects {
            let place = format!("{} {}", file.display(), object["kind"]);
            let result = match object["kind"].as_str() {
                Some("AmasDatabase") => serde_json::from_value::<AmasDatabase>(object)
                    .map(|object| object.validate_cel().map_err(|error| format!("{error:?}"))),
                Some("CachePolicy") => serde_json::from_value::<CachePolicy>(object)
                    .map(|object| object.validate_cel().map_err(|error| format!("{error:?}"))),
                _ => serde_json::from_value::<GraphSchema>(object)
                    .map(|object| object.validate_cel().map_err(|error| format!("{error:?}"))),
            };
            assert_eq!(result.map_err(|error| error.to_string()), Ok(Ok(())), "{place}");
        }
    }

    /// Paths below a schema, as kustomize writes them, that name a ConfigMap or a Secret.
    fn references(schema: &Value, path: &str, found: &mut BTreeSet<String>) {
        if let Some(items) = schema.get("items") {
            references(items, path, found);
        }
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}/{name}");
            match name.to_lowercase() {
                name if name.ends_with("secretref") || name == "imagepullsecrets" => {
                    found.insert(format!("{path}/name"));
                }
                name if name == "configmaps" => {
                    found.insert(path);
                }
                _ => references(property, &path, found),
            }
        }
    }

    #[test]
    fn kustomize_knows_every_reference_to_a_config_map_or_secret() {
        let definition = serde_json::to_value(AmasDatabase::crd()).unwrap();
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        let mut expected = BTreeSet::new();
        references(schema, "spec", &mut expected);
        assert!(expected.len() >= 14, "{expected:?}");
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/kustomize/namereference.yaml");
        let text = std::fs::read_to_string(file).unwrap();
        let known: Value = serde_saphyr::from_str(&text).unwrap();
        let targets = known["nameReference"].as_array().unwrap().iter();
        let files = targets.filter(|target| target["kind"] == "ConfigMap" || target["kind"] == "Secret");
        let paths = files.flat_map(|target| target["fieldSpecs"].as_array().unwrap());
        let paths: BTreeSet<String> = paths.map(|one| one["path"].as_str().unwrap().to_owned()).collect();
        assert_eq!(paths, expected);
    }

    fn database(spec: Value) -> AmasDatabase {
        serde_json::from_value(json!({"apiVersion": "amas.dev/v1alpha1", "kind": "AmasDatabase", "metadata": {"name": "db"}, "spec": spec})).unwrap()
    }

    #[test]
    fn rules_refuse_and_say_why() {
        let managed = json!({"managed": {"storage": {"size": "1Gi"}}});
        let both = json!({"managed": {"storage": {"size": "1Gi"}}, "external": {"secretRef": {"name": "s"}, "tls": {"mode": "Require"}}});
        let external = json!({"external": {"secretRef": {"name": "s"}, "tls": {"mode": "Require"}}});
        let cases = [
            (json!({}), "at least one store"),
            (json!({"redis": both}), "exactly one of managed and external"),
            (
                json!({"redis": managed, "migrations": {"source": {"bundle": "amas"}}}),
                "needs spec.postgres",
            ),
        ];
        for (spec, expected) in cases {
            let error = format!(
                "{:?}",
                database(spec.clone()).validate_cel().expect_err(&spec.to_string())
            );
            assert!(error.contains(expected), "{spec}: {error}");
        }
        let old = database(json!({"redis": managed}));
        let error = format!(
            "{:?}",
            database(json!({"redis": external}))
                .validate_cel_update(&old)
                .unwrap_err()
        );
        assert!(error.contains("between managed and external is refused"), "{error}");
    }

    #[test]
    fn a_definition_is_small_and_gives_a_new_status() {
        for definition in all() {
            let text = serde_json::to_string(&definition).unwrap();
            assert!(text.len() < 200 * 1024, "{} bytes", text.len());
            assert!(text.contains(r#""default":{"observedGeneration":-1}"#));
        }
    }
}
