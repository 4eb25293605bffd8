//! Policies that contradict each other or have nothing to be about.

use amas_operator::api::{cache_policy::CachePolicy, graph_schema::GraphSchema};
use kube::api::DeleteParams;
use serde_json::{Value, json};

use super::room::{Room, redis};
use crate::{
    cluster::{
        clients::{self, Values},
        objects::ours,
    },
    harness::{Result, context::Ctx},
};

pub async fn run(ctx: &Ctx) -> Result {
    let room = Room::new(ctx, "policies").await?;
    room.database("cache", json!({ "redis": redis() })).await?;
    room.apply(eviction("middle", "volatile-lru")?).await?;
    room.ready::<CachePolicy>("middle", "the only one with eviction")
        .await?;
    // Whatever they are called, the one that came second gives way.
    room.apply(eviction("zulu", "noeviction")?).await?;
    room.stalled::<CachePolicy>("zulu", "Conflicted", &["CachePolicy middle already sets eviction"])
        .await?;
    room.apply(eviction("alpha", "noeviction")?).await?;
    room.stalled::<CachePolicy>("alpha", "Conflicted", &["CachePolicy middle already sets eviction"])
        .await?;
    room.apply(ours(
        "GraphSchema",
        "graph",
        json!({ "databaseRef": { "name": "cache" } }),
    )?)
    .await?;
    room.stalled::<GraphSchema>("graph", "DatabaseNotFound", &["AmasDatabase cache has no neo4j"])
        .await?;
    let zero = json!({ "databaseRef": { "name": "cache" }, "rules": [{ "name": "r", "pattern": "x", "ttl": "0s" }] });
    room.apply(ours("CachePolicy", "zero", zero)?).await?;
    room.stalled::<CachePolicy>("zero", "InvalidSpec", &["spec.rules[r].ttl"])
        .await?;
    room.silent("conflicting policies").await?;
    policy_is(&room, "volatile-lru", "while others contradict").await?;
    for name in ["alpha", "middle"] {
        room.api::<CachePolicy>().delete(name, &DeleteParams::default()).await?;
    }
    room.ready::<CachePolicy>("zulu", "the others are deleted").await?;
    policy_is(&room, "noeviction", "after that").await
}

fn eviction(name: &str, policy: &str) -> Result<kube::api::DynamicObject> {
    let spec: Value =
        json!({ "databaseRef": { "name": "cache" }, "eviction": { "maxMemory": "64Mi", "policy": policy } });
    ours("CachePolicy", name, spec)
}

/// What the server itself says.
async fn policy_is(room: &Room<'_>, wanted: &str, when: &str) -> Result {
    let secret = Values::read(&room.ctx.client, &room.namespace, "cache-redis-connection").await?;
    let mut redis = clients::redis(secret.get("REDIS_URL")?).await?;
    let seen: Vec<String> = redis::cmd("CONFIG")
        .arg("GET")
        .arg("maxmemory-policy")
        .query_async(&mut redis)
        .await?;
    let seen = seen.last().cloned().unwrap_or_default();
    room.ctx
        .figure(format!("maxmemory-policy {when}"), &seen, wanted, seen == wanted);
    Ok(())
}
