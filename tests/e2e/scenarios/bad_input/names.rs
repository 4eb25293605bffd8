//! Names: somebody else's objects under names that we need, and names as long as they may be.

use std::time::Duration;

use amas_operator::api::amas_database::AmasDatabase;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service};
use kube::{
    Resource,
    api::{DeleteParams, DynamicObject, ListParams},
};
use serde_json::{Value, json};

use super::{
    all,
    room::{Room, postgres, redis},
};
use crate::{
    cluster::{
        clients::{self, Values},
        objects, wait,
    },
    ensure,
    harness::{Result, context::Ctx},
};

/// How long a role's login may take after Ready.
const AGAIN: Duration = Duration::from_secs(30);

pub async fn run(ctx: &Ctx) -> Result {
    let (map, secret) = (Room::new(ctx, "taken").await?, Room::new(ctx, "taken-secret").await?);
    let long = Room::new(ctx, "long").await?;
    all([
        Box::pin(taken(&map)),
        Box::pin(taken_secret(&secret)),
        Box::pin(longest(&long)),
    ])
    .await
}

/// A user's own objects.
fn theirs(name: &str) -> Result<Vec<DynamicObject>> {
    let all = [
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": format!("{name}-redis-config") }, "data": { "redis.conf": "port 1\n" } }),
        json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": format!("{name}-redis") }, "spec": { "selector": { "app": "theirs" }, "ports": [{ "port": 80 }] } }),
    ];
    all.into_iter()
        .map(|object| Ok(serde_json::from_value(object)?))
        .collect()
}

/// The object as it is stored, with its version.
async fn stored<K: Resource<DynamicType = ()>>(room: &Room<'_>, name: &str) -> Result<Value> {
    Ok(serde_json::to_value(room.api::<K>().get(name).await?)?)
}

async fn taken(room: &Room<'_>) -> Result {
    objects::apply(&room.ctx.client, &room.namespace, &theirs("mine")?).await?;
    let before = (
        stored::<ConfigMap>(room, "mine-redis-config").await?,
        stored::<Service>(room, "mine-redis").await?,
    );
    room.database("mine", json!({ "redis": redis() })).await?;
    room.stalled::<AmasDatabase>(
        "mine",
        "NameTaken",
        &[
            "ConfigMap mine-redis-config",
            "Service mine-redis",
            "does not belong to this AmasDatabase",
        ],
    )
    .await?;
    room.silent("taken names").await?;
    let after = (
        stored::<ConfigMap>(room, "mine-redis-config").await?,
        stored::<Service>(room, "mine-redis").await?,
    );
    room.ctx.figure(
        "somebody else's ConfigMap and Service",
        if before == after { "as they were" } else { "changed" },
        "untouched, byte for byte",
        before == after,
    );
    let pods = room
        .api::<Pod>()
        .list(&ListParams::default().labels("amas.dev/database=mine"))
        .await?;
    room.ctx.figure(
        "server started with somebody else's ConfigMap",
        format!("{} pods", pods.items.len()),
        "0 pods",
        pods.items.is_empty(),
    );
    room.api::<ConfigMap>()
        .delete("mine-redis-config", &DeleteParams::default())
        .await?;
    room.api::<Service>()
        .delete("mine-redis", &DeleteParams::default())
        .await?;
    room.database_ready("mine", "the taken names are free again")
        .await
        .map(|_| ())
}

async fn taken_secret(room: &Room<'_>) -> Result {
    let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "mine-redis-connection" }, "stringData": { "REDIS_PASSWORD": "theirs" } });
    room.apply(serde_json::from_value(secret)?).await?;
    let before = stored::<Secret>(room, "mine-redis-connection").await?;
    room.database("mine", json!({ "redis": redis() })).await?;
    room.stalled::<AmasDatabase>("mine", "NameTaken", &["Secret mine-redis-connection"])
        .await?;
    room.silent("a taken Secret").await?;
    let after = stored::<Secret>(room, "mine-redis-connection").await?;
    room.ctx.figure(
        "somebody else's Secret",
        if before == after { "as it was" } else { "changed" },
        "untouched, byte for byte",
        before == after,
    );
    room.api::<Secret>()
        .delete("mine-redis-connection", &DeleteParams::default())
        .await?;
    room.database_ready("mine", "the taken Secret's name is free again")
        .await
        .map(|_| ())
}

/// Everything as long as it may be.
async fn longest(room: &Room<'_>) -> Result {
    let (name, role, database) = ("n".repeat(40), "r".repeat(63), "d".repeat(57));
    let spec = postgres(json!({ "database": database, "roles": [{ "name": role, "access": "ReadWrite" }] }));
    room.database(&name, json!({ "postgres": spec })).await?;
    let object = room.database_ready(&name, "names as long as they may be").await?;
    let secrets: Vec<&str> = object.data["status"]["secrets"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let mut logins = 0;
    for secret in &secrets {
        let values = Values::read(&room.ctx.client, &room.namespace, secret).await?;
        if values.get("PGUSER").ok() == Some(&role) {
            let mut session = wait::retry(AGAIN, async || clients::postgres(values.get("DATABASE_URL")?).await).await?;
            let seen = clients::value(&mut session, "SELECT current_database()::text").await?;
            ensure!(seen == database, "expected database {database}, seen {seen}");
            logins += 1;
        }
    }
    let longest = secrets.iter().map(|name| name.len()).max().unwrap_or_default();
    room.ctx.figure(
        "longest names: Secret of the role logs in",
        format!("{logins} login, longest Secret name {longest}"),
        "1 login, at most 63",
        logins == 1 && longest <= 63,
    );
    Ok(())
}
