//! What the API server refuses at once, with a message of ours where the schema alone would be hard to read.

use serde_json::{Value, json};

use super::room::{Room, postgres, redis, with};
use crate::{
    cluster::objects::ours,
    harness::{Result, context::Ctx},
};

pub async fn run(ctx: &Ctx) -> Result {
    let room = Room::new(ctx, "refused").await?;
    for (what, kind, name, spec, words) in cases() {
        let refusal = room
            .apply(ours(kind, &name, spec)?)
            .await
            .err()
            .map(|error| error.to_string());
        let ok = refusal
            .as_ref()
            .is_some_and(|text| words.iter().all(|word| text.contains(word)));
        let seen = refusal.unwrap_or_else(|| "accepted".into());
        ctx.figure(
            format!("refused: {what}"),
            shorten(&seen),
            format!("says {words:?}"),
            ok,
        );
    }
    Ok(())
}

/// The table of figures needs no more than this.
pub fn shorten(text: &str) -> String {
    let text = text.split("is invalid: ").last().unwrap_or(text);
    text.chars().take(160).collect()
}

/// What the refusal says.
type Words = &'static [&'static str];
type Case = (&'static str, &'static str, String, Value, Words);

fn cases() -> Vec<Case> {
    [structure(), amounts(), names(), policies(), graphs()].concat()
}

fn database(what: &'static str, spec: Value, words: Words) -> Case {
    (what, "AmasDatabase", "bad".to_owned(), spec, words)
}

fn policy(what: &'static str, more: Value, words: Words) -> Case {
    let spec = with(json!({ "databaseRef": { "name": "d" }, "prefix": "p" }), more);
    (what, "CachePolicy", "bad".to_owned(), spec, words)
}

/// Blocks that exclude or need each other.
fn structure() -> Vec<Case> {
    let external = json!({ "secretRef": { "name": "s" }, "tls": { "mode": "Disable" } });
    let both = |base: Value| with(base, json!({ "external": external }));
    let neo4j = json!({ "managed": { "storage": { "size": "1Gi" } } });
    vec![
        database(
            "both modes of PostgreSQL",
            json!({ "postgres": both(postgres(json!({}))) }),
            &["set exactly one of managed and external"],
        ),
        database(
            "no mode of PostgreSQL",
            json!({ "postgres": { "database": "app" } }),
            &["set exactly one of managed and external"],
        ),
        database(
            "both modes of Redis",
            json!({ "redis": both(redis()) }),
            &["redis: set exactly one"],
        ),
        database(
            "both modes of Neo4j",
            json!({ "neo4j": both(neo4j) }),
            &["neo4j: set exactly one"],
        ),
        database("no store", json!({}), &["name at least one store"]),
        database(
            "migrations without PostgreSQL",
            json!({ "redis": redis(), "migrations": { "source": { "bundle": "amas" } } }),
            &["spec.migrations needs spec.postgres"],
        ),
        database(
            "two migration sources",
            json!({ "postgres": postgres(json!({})), "migrations": { "source": { "bundle": "amas", "configMaps": ["m"] } } }),
            &["set exactly one of bundle, configMaps and image"],
        ),
        database(
            "a seed without a bundle",
            json!({ "postgres": postgres(json!({})), "seed": { "profile": "test" } }),
            &["spec.seed needs spec.migrations, and its files"],
        ),
        database(
            "a misspelt field",
            json!({ "redis": redis(), "deletePolicy": "Delete" }),
            &["deletePolicy"],
        ),
    ]
}

/// Quantities, durations, numbers, versions.
fn amounts() -> Vec<Case> {
    let sized = |size: Value| json!({ "managed": { "storage": { "size": size } } });
    vec![
        database(
            "quantity 20GB",
            json!({ "redis": sized(json!("20GB")) }),
            &["spec.redis.managed.storage.size", "should match"],
        ),
        database(
            "quantity -1Gi",
            json!({ "redis": sized(json!("-1Gi")) }),
            &["spec.redis.managed.storage.size", "should match"],
        ),
        database(
            "duration 5",
            json!({ "redis": redis(), "optionalStartupTimeout": "5" }),
            &["spec.optionalStartupTimeout", "should match"],
        ),
        database(
            "duration 5w",
            json!({ "redis": redis(), "optionalStartupTimeout": "5w" }),
            &["spec.optionalStartupTimeout", "should match"],
        ),
        database(
            "statement timeout 30sec",
            json!({ "postgres": postgres(json!({ "session": { "statementTimeout": "30sec" } })) }),
            &["statementTimeout", "should match"],
        ),
        database(
            "connection limit 0",
            json!({ "postgres": postgres(json!({ "roles": [{ "name": "a", "access": "ReadOnly", "connectionLimit": 0 }] })) }),
            &["connectionLimit", "greater than or equal to 1"],
        ),
        database(
            "version 14",
            json!({ "postgres": { "managed": { "version": "14", "storage": { "size": "1Gi" } }, "database": "app" } }),
            &["spec.postgres.managed.version"],
        ),
    ]
}

/// Names of objects, roles and databases.
fn names() -> Vec<Case> {
    vec![
        database(
            "the owner as a role",
            json!({ "postgres": postgres(json!({ "owner": "boss", "roles": [{ "name": "boss", "access": "ReadOnly" }] })) }),
            &["the owner must not be listed under roles"],
        ),
        database(
            "a role twice",
            json!({ "postgres": postgres(json!({ "roles": [{ "name": "a", "access": "ReadOnly" }, { "name": "a", "access": "ReadWrite" }] })) }),
            &["roles", "uplicate"],
        ),
        database(
            "a role of 64 characters",
            json!({ "postgres": postgres(json!({ "roles": [{ "name": "a".repeat(64), "access": "ReadOnly" }] })) }),
            &["name", "63"],
        ),
        database(
            "a database of 64 characters",
            json!({ "postgres": postgres(json!({ "database": "a".repeat(64) })) }),
            &["spec.postgres.database", "63"],
        ),
        database(
            "a database with a hyphen",
            json!({ "postgres": postgres(json!({ "database": "my-app" })) }),
            &["spec.postgres.database", "should match"],
        ),
        (
            "a name of 41 characters",
            "AmasDatabase",
            "a".repeat(41),
            json!({ "redis": redis() }),
            &["use at most 40 lower-case letters"],
        ),
        (
            "a name that begins with a digit",
            "AmasDatabase",
            "1a".into(),
            json!({ "redis": redis() }),
            &["starting with a letter"],
        ),
        (
            "a name with a dot",
            "AmasDatabase",
            "a.b".into(),
            json!({ "redis": redis() }),
            &["use at most 40 lower-case letters"],
        ),
    ]
}

/// Cache policies.
fn policies() -> Vec<Case> {
    vec![
        policy(
            "a TTL of 300 without a unit",
            json!({ "defaultTTL": { "ttl": "300" } }),
            &["spec.defaultTTL.ttl", "should match"],
        ),
        policy(
            "a rule with TTL and Never",
            json!({ "rules": [{ "name": "r", "pattern": "*", "ttl": "1s", "expires": "Never" }] }),
            &["exactly one of ttl and expires: Never"],
        ),
        policy(
            "a rule with neither",
            json!({ "rules": [{ "name": "r", "pattern": "*" }] }),
            &["exactly one of ttl and expires: Never"],
        ),
        policy(
            "allkeys-lru with a family that never expires",
            json!({ "eviction": { "maxMemory": "1Mi", "policy": "allkeys-lru" }, "rules": [{ "name": "r", "pattern": "*", "expires": "Never" }] }),
            &["an allkeys policy may evict keys"],
        ),
        policy(
            "memory of 200MB",
            json!({ "eviction": { "maxMemory": "200MB", "policy": "noeviction" } }),
            &["spec.eviction.maxMemory", "should match"],
        ),
        policy(
            "a prefix with a star",
            json!({ "prefix": "a*" }),
            &["spec.prefix", "should match"],
        ),
    ]
}

/// Graph schemas.
fn graphs() -> Vec<Case> {
    vec![
        (
            "a constraint of an unknown kind",
            "GraphSchema",
            "bad".into(),
            json!({ "databaseRef": { "name": "d" }, "constraints": [{ "name": "c", "label": "L", "properties": ["p"], "type": "Exists" }] }),
            &["constraints", "Unsupported value"],
        ),
        (
            "a label that would need quoting",
            "GraphSchema",
            "bad".into(),
            json!({ "databaseRef": { "name": "d" }, "constraints": [{ "name": "c", "label": "L`) DETACH", "properties": ["p"], "type": "Unique" }] }),
            &["label", "should match"],
        ),
    ]
}
