//! Keys that the user names: of connection Secrets, and of the pods' labels and annotations. What is wrong with them. Pure.

use crate::{
    api::{amas_database::AmasDatabaseSpec, common::Connection},
    controllers::credentials,
};

/// Keys of Secrets are limited by Kubernetes, and two of ours must not fall on one name.
pub fn connection_problems(spec: &AmasDatabaseSpec) -> Vec<String> {
    let roles = spec.postgres.iter().flat_map(|postgres| &postgres.roles);
    let mut all: Vec<(String, &Connection, &[&str])> = roles
        .map(|role| {
            let place = format!("spec.postgres.roles[{}]", role.name);
            (place, &role.connection, &credentials::POSTGRES_KEYS[..])
        })
        .collect();
    let redis = spec.redis.iter().map(|redis| &redis.connection);
    all.extend(redis.map(|connection| ("spec.redis".to_owned(), connection, &credentials::REDIS_KEYS[..])));
    let neo4j = spec.neo4j.iter().map(|neo4j| &neo4j.connection);
    all.extend(neo4j.map(|connection| ("spec.neo4j".to_owned(), connection, &credentials::NEO4J_KEYS[..])));
    let problems = all.into_iter().flat_map(|(place, connection, ours)| {
        let say = move |problem| format!("{place}.connection{problem}");
        key_problems(connection, ours).into_iter().map(say)
    });
    problems.collect()
}

/// What is wrong with the keys of one Secret, of which `ours` can be named otherwise.
fn key_problems(connection: &Connection, ours: &[&str]) -> Vec<String> {
    let valid = |key: &str| {
        !key.is_empty()
            && key.len() <= 253
            && key
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    let mut problems = Vec::new();
    for key in connection.keys.values().chain(connection.extra.keys()) {
        if !valid(key) {
            problems.push(format!(
                ": {key:?} is not a valid key of a Secret: use letters, digits, '-', '_' and '.'"
            ));
        } else if credentials::is_own_key(key) {
            problems.push(format!(": the key {key} is the operator's own; choose another name"));
        }
    }
    for key in connection.keys.keys().filter(|key| !ours.contains(&key.as_str())) {
        problems.push(format!(
            ".keys: {key:?} is no key of this Secret; those that can be named otherwise are {}",
            ours.join(", ")
        ));
    }
    let name = |key: &&str| connection.keys.get(*key).cloned().unwrap_or_else(|| (*key).to_owned());
    let mut names: Vec<String> = ours.iter().map(name).collect();
    names.sort();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        problems.push(format!(".keys: two values would be written under {:?}", twice[0]));
    }
    problems
}

/// Labels and annotations that say whose the pods are cannot be the user's.
pub fn pod_problems(spec: &AmasDatabaseSpec) -> Vec<String> {
    let reserved = |key: &&String| key.starts_with("amas.dev/") || key.starts_with("app.kubernetes.io/");
    let labels = spec.pods.labels.keys().filter(reserved).map(|key| ("labels", key));
    let annotations = spec
        .pods
        .annotations
        .keys()
        .filter(reserved)
        .map(|key| ("annotations", key));
    let say = |(field, key)| format!("spec.pods.{field}: {key} is the operator's own; take it out");
    labels.chain(annotations).map(say).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn problems(spec: Value) -> Vec<String> {
        let spec: AmasDatabaseSpec = serde_json::from_value(spec).unwrap();
        let mut all = connection_problems(&spec);
        all.extend(pod_problems(&spec));
        all
    }

    #[test]
    fn keys_that_do_not_exist_or_are_ours_are_refused_in_words() {
        let redis =
            |connection: Value| json!({"redis": {"managed": {"storage": {"size": "1Gi"}}, "connection": connection}});
        for (connection, expected) in [
            (json!({"keys": {"REDIS_URL": "a b"}}), "not a valid key"),
            (json!({"keys": {"REDIS_URL": "x".repeat(254)}}), "not a valid key"),
            (json!({"extra": {"line\nbreak": "1"}}), "not a valid key"),
            (json!({"keys": {"DATABASE_URL": "URL"}}), "REDIS_URL, REDIS_HOST"),
            (json!({"keys": {"users.acl": "ACL"}}), "is no key"),
            (json!({"extra": {"rotation.next-password": "1"}}), "the operator's own"),
            (json!({"keys": {"REDIS_URL": "users.acl"}}), "the operator's own"),
            (json!({"keys": {"REDIS_URL": "A", "REDIS_HOST": "A"}}), "two values"),
            (json!({"keys": {"REDIS_URL": "REDIS_HOST"}}), "two values"),
        ] {
            let found = problems(redis(connection.clone()));
            assert!(
                found.iter().any(|problem| problem.contains(expected)),
                "{connection}: {found:?}"
            );
            assert!(
                found.iter().all(|problem| problem.starts_with("spec.redis.connection")),
                "{found:?}"
            );
        }
        let swapped = json!({"keys": {"REDIS_URL": "REDIS_HOST", "REDIS_HOST": "REDIS_URL"}, "extra": {"POOL": "5"}});
        assert_eq!(problems(redis(swapped)), [""; 0]);
    }

    #[test]
    fn labels_and_annotations_of_ours_are_refused() {
        let pods = |pods: Value| json!({"redis": {"managed": {"storage": {"size": "1Gi"}}}, "pods": pods});
        for pods_block in [
            json!({"labels": {"amas.dev/database": "other"}}),
            json!({"labels": {"app.kubernetes.io/name": "x"}}),
            json!({"annotations": {"amas.dev/config": "x"}}),
        ] {
            assert_eq!(problems(pods(pods_block)).len(), 1);
        }
        assert_eq!(
            problems(pods(json!({"labels": {"team": "a"}, "annotations": {"a/b": "c"}}))),
            [""; 0]
        );
    }
}
