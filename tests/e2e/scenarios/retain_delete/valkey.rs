//! The same promises with Valkey in the place of Redis: Ready, keys get their TTL, and what is written outlives the pod.

use std::time::Duration;

use amas_operator::api::{amas_database::AmasDatabase, cache_policy::CachePolicy};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::DeleteParams};
use serde_json::json;

use crate::{
    cluster::{
        clients::{self, Values},
        conditions,
        objects::{self, api},
        platform::PATIENCE,
        wait,
    },
    ensure,
    harness::{Result, context::Ctx},
};

struct Scene<'a> {
    ctx: &'a Ctx,
    namespace: String,
}

pub async fn run(ctx: &Ctx) -> Result {
    let namespace = ctx.namespace("valkey").await?;
    let scene = Scene { ctx, namespace };
    scene.up().await?;
    let mut client = scene.client().await?;
    for key in ["app:session:1", "app:queue"] {
        redis::cmd("SET").arg(key).arg("kept").exec_async(&mut client).await?;
    }
    let program: String = redis::cmd("INFO").arg("server").query_async(&mut client).await?;
    let version = program.lines().find_map(|line| line.strip_prefix("valkey_version:"));
    let status = api::<AmasDatabase>(&ctx.client, &scene.namespace)
        .get("data")
        .await?
        .data["status"]["stores"]["redis"]
        .clone();
    ctx.figure(
        "Valkey: what serves, and what status says",
        format!("{version:?}, {} {}", status["engine"], status["version"]),
        "the same",
        status["engine"] == "Valkey" && version.is_some_and(|version| status["version"] == version.trim()),
    );
    scene.policy().await?;
    scene.kept("its TTL rule is enforced").await?;
    scene.replace_pod().await?;
    scene.kept("its pod was deleted").await
}

impl Scene<'_> {
    async fn up(&self) -> Result {
        let spec = json!({ "redis": { "managed": { "engine": "Valkey", "storage": { "size": "1Gi" } } } });
        self.apply("AmasDatabase", "data", spec).await?;
        let all = api::<AmasDatabase>(&self.ctx.client, &self.namespace);
        conditions::wait_true(&all, "data", &["Ready", "RedisReady"], PATIENCE).await?;
        Ok(())
    }

    async fn policy(&self) -> Result {
        let rules = json!([
            { "name": "sessions", "pattern": "session:*", "ttl": "1h", "mode": "Enforce" },
            { "name": "queue", "pattern": "queue", "expires": "Never" },
        ]);
        let eviction = json!({ "maxMemory": "64Mi", "policy": "volatile-ttl" });
        let spec = json!({ "databaseRef": { "name": "data" }, "prefix": "app", "eviction": eviction, "rules": rules });
        self.apply("CachePolicy", "keys", spec).await?;
        let all = api::<CachePolicy>(&self.ctx.client, &self.namespace);
        conditions::wait_true(&all, "keys", &["Ready"], PATIENCE).await?;
        Ok(())
    }

    async fn apply(&self, kind: &str, name: &str, spec: serde_json::Value) -> Result {
        let object =
            json!({ "apiVersion": "amas.dev/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec });
        objects::apply(&self.ctx.client, &self.namespace, &[serde_json::from_value(object)?]).await
    }

    async fn client(&self) -> Result<redis::aio::MultiplexedConnection> {
        let cache = Values::read(&self.ctx.client, &self.namespace, "data-redis-connection").await?;
        clients::redis(cache.get("REDIS_URL")?).await
    }

    async fn replace_pod(&self) -> Result {
        // The append-only file reaches the disk within a second.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let pods: Api<Pod> = Api::namespaced(self.ctx.client.clone(), &self.namespace);
        let old = pods.get("data-redis-0").await?.metadata.uid;
        pods.delete("data-redis-0", &DeleteParams::default()).await?;
        let new = async || {
            ensure!(
                pods.get("data-redis-0").await?.metadata.uid != old,
                "the old pod is still there"
            );
            Ok(())
        };
        wait::retry(PATIENCE, new).await
    }

    /// Both keys are there, with the expiry that each should have, and eviction is in force.
    async fn kept(&self, when: &str) -> Result {
        let read = async || {
            let mut client = self.client().await?;
            let values: Vec<String> = redis::cmd("MGET")
                .arg("app:session:1")
                .arg("app:queue")
                .query_async(&mut client)
                .await?;
            let session: i64 = redis::cmd("TTL").arg("app:session:1").query_async(&mut client).await?;
            let queue: i64 = redis::cmd("TTL").arg("app:queue").query_async(&mut client).await?;
            let eviction: Vec<String> = redis::cmd("CONFIG")
                .arg("GET")
                .arg("maxmemory-policy")
                .query_async(&mut client)
                .await?;
            Ok((values.join(" "), session, queue, eviction.concat()))
        };
        let (values, session, queue, eviction) = wait::retry(PATIENCE, read).await?;
        self.ctx.figure(
            format!("Valkey: keys after {when}"),
            format!("{values}; TTL {session} s and {queue}; {eviction}"),
            "both keys, one with at most an hour, one without end, volatile-ttl",
            values == "kept kept" && (1..=3600).contains(&session) && queue == -1 && eviction.ends_with("volatile-ttl"),
        );
        Ok(())
    }
}
