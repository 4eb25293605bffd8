//! The Neo4j Community server that the operator runs: image contract and configuration. Pure.

use std::collections::BTreeMap;

use crate::{
    api::{common::ManagedTls, neo4j::ManagedNeo4j},
    stores::{
        neo4j::parameters::variable,
        workload::{CERTIFICATES, Config, Family, Image, Reload, SecretFile, Workload},
    },
};

pub const PORT: u16 = 7687;
/// Of a fresh volume.
pub const USER: &str = "neo4j";
/// The users that rotations go back and forth between.
pub const USERS: [&str; 2] = [USER, "neo4j_twin"];
/// Key of the connection Secret that holds the initial login with the password's salted hash; the server sees no clear password.
pub const AUTH_KEY: &str = "auth.ini";

const MIB: u64 = 1 << 20;

/// Heap in MiB: half of the memory limit, 512 without one.
fn heap(spec: &ManagedNeo4j) -> u64 {
    spec.resources
        .limits
        .get("memory")
        .map_or(512, |limit| (limit.value() / MIB / 2).max(256))
}

fn settings(spec: &ManagedNeo4j) -> BTreeMap<String, String> {
    let heap = heap(spec);
    let page_cache = spec
        .resources
        .limits
        .get("memory")
        .map_or(128, |limit| (limit.value() / MIB / 4).max(64));
    let all = [
        ("server_default__listen__address", "0.0.0.0".to_owned()),
        ("server_memory_heap_initial__size", format!("{}m", heap.min(256))),
        ("server_memory_heap_max__size", format!("{heap}m")),
        ("server_memory_pagecache_size", format!("{page_cache}m")),
        ("initial_dbms_default__database", spec.initial_database.clone()),
        ("dbms_usage__report_enabled", "false".to_owned()),
    ];
    let own = all.into_iter().map(|(name, value)| (format!("NEO4J_{name}"), value));
    let asked = spec
        .parameters
        .iter()
        .map(|(name, value)| (variable(name), value.trim().to_owned()));
    own.chain(asked).collect()
}

/// What an encrypted server is told beside the rest. Where encryption is required, there is no HTTP either, which has no certificate.
pub fn encrypt(workload: &mut Workload, tls: &ManagedTls) {
    let level = if tls.required { "REQUIRED" } else { "OPTIONAL" };
    let mut more = vec![
        ("server_bolt_tls__level", level),
        ("dbms_ssl_policy_bolt_enabled", "true"),
        ("dbms_ssl_policy_bolt_base__directory", CERTIFICATES),
        ("dbms_ssl_policy_bolt_private__key", "tls.key"),
        ("dbms_ssl_policy_bolt_public__certificate", "tls.crt"),
        ("dbms_ssl_policy_bolt_client__auth", "NONE"),
    ];
    if tls.required {
        more.push(("server_http_enabled", "false"));
        workload.ports.retain(|(name, _)| *name == "bolt");
    }
    let Config::Environment(settings) = &mut workload.config else {
        return;
    };
    let more = more
        .into_iter()
        .map(|(name, value)| (format!("NEO4J_{name}"), value.to_owned()));
    settings.extend(more);
    workload.reload = reload(settings);
    workload.encrypted = true;
}

fn reload(settings: &BTreeMap<String, String>) -> Reload {
    Reload::AllBut(
        settings
            .iter()
            .map(|(name, value)| format!("{name}={value}\n"))
            .collect(),
    )
}

/// What the server needs. Its login is put in place before the first start: a volume that has a system database already keeps its own.
pub fn workload(family: &Family, spec: &ManagedNeo4j, image: Image) -> Workload {
    let settings = settings(spec);
    Workload {
        component: "neo4j",
        application: "neo4j",
        version: spec.version.clone(),
        image: image.name,
        image_source: image.source,
        user: 7474,
        command: Vec::new(),
        environment: Vec::new(),
        reload: reload(&settings),
        config: Config::Environment(settings),
        secret: SecretFile {
            secret: family.child_name("neo4j-connection"),
            key: AUTH_KEY,
            folder: "/run/amas",
        },
        encrypted: false,
        certificate: None,
        prepare: Some(format!(
            "[ -e /data/databases/system ] || [ -e /data/dbms/{AUTH_KEY} ] || {{ mkdir -p /data/dbms && cp /run/amas/{AUTH_KEY} /data/dbms/{AUTH_KEY}; }}"
        )),
        data_folder: "/data",
        scratch: vec!["/tmp", "/logs"],
        // The image's entry point writes its configuration file into its own folder.
        read_only_root: false,
        ports: vec![("bolt", PORT), ("http", 7474)],
        grace_seconds: 60,
        storage: spec.storage.clone(),
        resources: spec.resources.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn memory_follows_the_limit() {
        let spec = |resources| {
            serde_json::from_value::<ManagedNeo4j>(json!({"storage": {"size": "1Gi"}, "resources": resources})).unwrap()
        };
        assert_eq!(settings(&spec(json!({})))["NEO4J_server_memory_heap_max__size"], "512m");
        let large = settings(&spec(json!({"limits": {"memory": "4Gi"}})));
        assert_eq!(
            (
                large["NEO4J_server_memory_heap_max__size"].as_str(),
                large["NEO4J_server_memory_pagecache_size"].as_str()
            ),
            ("2048m", "1024m")
        );
    }
}
