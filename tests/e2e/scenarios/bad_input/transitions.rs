//! Changes that a specification must not make: refused by the API server, whichever way they are tried.

use amas_operator::api::amas_database::AmasDatabase;
use serde_json::{Value, json};

use super::{
    refused::shorten,
    room::{Room, postgres, redis, with},
};
use crate::{
    cluster::objects::ours,
    ensure,
    harness::{Result, context::Ctx},
};

const IMMUTABLE: &str = "immutable";
const MODES: &str = "changing between managed and external is refused";

/// Pods of these objects find no node: only their specification matters.
fn base() -> Value {
    json!({
        "pods": { "nodeSelector": { "nowhere": "to-be-found" } },
        "postgres": postgres(json!({ "owner": "boss" })),
        "redis": redis(),
        "neo4j": { "required": false, "managed": { "storage": { "size": "1Gi", "storageClassName": "standard" }, "initialDatabase": "graph" } },
    })
}

pub async fn run(ctx: &Ctx) -> Result {
    let room = Room::new(ctx, "transitions").await?;
    room.database("fixed", base()).await?;
    for (what, pointer, value, word) in changes() {
        let mut spec = base();
        set(&mut spec, pointer, value);
        refused(&room, "AmasDatabase", "fixed", what, spec, word).await?;
    }
    let policy = json!({ "databaseRef": { "name": "fixed" }, "prefix": "p" });
    let plain = json!({ "databaseRef": { "name": "fixed" } });
    for (name, spec) in [("prefixed", &policy), ("plain", &plain)] {
        room.apply(ours("CachePolicy", name, spec.clone())?).await?;
    }
    room.apply(ours("GraphSchema", "fixed", plain.clone())?).await?;
    let other = json!({ "databaseRef": { "name": "other" } });
    let cases = [
        (
            "CachePolicy",
            "prefixed",
            "databaseRef changed",
            with(policy.clone(), other.clone()),
        ),
        (
            "CachePolicy",
            "prefixed",
            "prefix changed",
            with(policy.clone(), json!({ "prefix": "q" })),
        ),
        ("CachePolicy", "prefixed", "prefix unset", plain.clone()),
        ("CachePolicy", "plain", "prefix set", policy),
        ("GraphSchema", "fixed", "databaseRef changed", other),
    ];
    for (kind, name, what, spec) in cases {
        refused(&room, kind, name, what, spec, IMMUTABLE).await?;
    }
    let stands = room.api::<AmasDatabase>().get("fixed").await?;
    ensure!(
        stands.metadata.generation == Some(1),
        "a refused change was stored: generation {:?}",
        stands.metadata.generation
    );
    block_replaced(&room).await
}

/// (what, JSON pointer below spec, new value or null for unset, word of the refusal).
type Change = (&'static str, &'static str, Value, &'static str);

fn changes() -> Vec<Change> {
    let mut all = fields();
    all.extend(blocks());
    all
}

/// Single fields changed, unset, or set where there was none.
fn fields() -> Vec<Change> {
    let immutable = |what, pointer, value| (what, pointer, value, IMMUTABLE);
    vec![
        immutable("database changed", "/postgres/database", json!("other")),
        immutable("owner changed", "/postgres/owner", json!("other")),
        immutable("owner unset", "/postgres/owner", Value::Null),
        immutable("PostgreSQL version changed", "/postgres/managed/version", json!("16")),
        immutable(
            "storage class set",
            "/postgres/managed/storage/storageClassName",
            json!("standard"),
        ),
        immutable(
            "storage class unset",
            "/neo4j/managed/storage/storageClassName",
            Value::Null,
        ),
        immutable(
            "storage class changed",
            "/neo4j/managed/storage/storageClassName",
            json!("other"),
        ),
        immutable("persistence changed", "/redis/managed/persistence", json!("RDB")),
        immutable("Redis changed to Valkey", "/redis/managed/engine", json!("Valkey")),
        immutable("Redis version changed", "/redis/managed/version", json!("7")),
        immutable(
            "initial database changed",
            "/neo4j/managed/initialDatabase",
            json!("other"),
        ),
        immutable("initial database unset", "/neo4j/managed/initialDatabase", Value::Null),
    ]
}

/// The block around a field replaced, or the whole store.
fn blocks() -> Vec<Change> {
    let external = json!({ "secretRef": { "name": "s" }, "tls": { "mode": "Disable" } });
    let managed = json!({ "storage": { "size": "1Gi", "storageClassName": "standard" } });
    let outside = json!({ "external": external });
    let moved = json!({ "database": "app", "owner": "boss", "external": external });
    let other = postgres(json!({ "database": "other", "owner": "boss" }));
    vec![
        (
            "storage replaced without the class",
            "/neo4j/managed/storage",
            json!({ "size": "1Gi" }),
            IMMUTABLE,
        ),
        (
            "managed replaced without the initial database",
            "/neo4j/managed",
            managed,
            IMMUTABLE,
        ),
        ("PostgreSQL replaced by another database", "/postgres", other, IMMUTABLE),
        ("PostgreSQL replaced by an external one", "/postgres", moved, MODES),
        ("Redis replaced by an external one", "/redis", outside.clone(), MODES),
        ("Neo4j replaced by an external one", "/neo4j", outside, MODES),
    ]
}

/// Sets what a pointer names, or removes it.
fn set(spec: &mut Value, pointer: &str, value: Value) {
    let (parent, key) = pointer.rsplit_once('/').unwrap_or(("", pointer));
    let Some(fields) = spec.pointer_mut(parent).and_then(Value::as_object_mut) else {
        return;
    };
    match value {
        Value::Null => fields.remove(key),
        value => fields.insert(key.to_owned(), value),
    };
}

async fn refused(room: &Room<'_>, kind: &str, name: &str, what: &str, spec: Value, word: &str) -> Result {
    let refusal = room
        .apply(ours(kind, name, spec)?)
        .await
        .err()
        .map(|error| error.to_string());
    let ok = refusal.as_ref().is_some_and(|text| text.contains(word));
    let seen = refusal.unwrap_or_else(|| "accepted".into());
    room.ctx.figure(
        format!("{kind}: {what}"),
        shorten(&seen),
        format!("refused, says {word:?}"),
        ok,
    );
    Ok(())
}

/// A block may be taken out and put back; its volume is still there, so it must be the same database.
async fn block_replaced(room: &Room<'_>) -> Result {
    let mut without = base();
    set(&mut without, "/redis", Value::Null);
    room.database("fixed", without).await?;
    room.database("fixed", base()).await?;
    let again = room.api::<AmasDatabase>().get("fixed").await?;
    room.ctx.figure(
        "AmasDatabase: a store block taken out and put back",
        format!("generation {:?}", again.metadata.generation.unwrap_or_default()),
        "accepted",
        true,
    );
    room.silent("after refused and accepted changes").await
}
