//! The same promises with Valkey in the place of Redis: Ready, keys get their TTL, and what is written outlives the pod.

use std::time::Duration;

use amas_operator::api::cache_policy::CachePolicy;
use serde_json::{Value, json};

use crate::{
    cluster::{conditions, database::Database, objects::api, platform::PATIENCE, wait},
    harness::{Result, context::Ctx},
};

struct Scene<'a> {
    data: Database<'a>,
}

pub async fn run(ctx: &Ctx) -> Result {
    let data = Database::new(ctx, "valkey").await?;
    let scene = Scene { data };
    let status = scene.up().await?;
    let mut client = scene.data.redis().await?;
    for key in ["app:session:1", "app:queue"] {
        redis::cmd("SET").arg(key).arg("kept").exec_async(&mut client).await?;
    }
    let program: String = redis::cmd("INFO").arg("server").query_async(&mut client).await?;
    let version = program.lines().find_map(|line| line.strip_prefix("valkey_version:"));
    ctx.figure(
        "Valkey: what serves, and what status says",
        format!("{version:?}, {} {}", status["engine"], status["version"]),
        "the same",
        status["engine"] == "Valkey" && version.is_some_and(|version| status["version"] == version.trim()),
    );
    scene.policy().await?;
    scene.kept("its TTL rule is enforced").await?;
    // The append-only file reaches the disk within a second.
    tokio::time::sleep(Duration::from_secs(2)).await;
    scene.data.replace_pod("redis").await?;
    scene.kept("its pod was deleted").await
}

impl Scene<'_> {
    /// What its status says of Redis.
    async fn up(&self) -> Result<Value> {
        let spec = json!({ "redis": { "managed": { "engine": "Valkey", "storage": { "size": "1Gi" } } } });
        self.data.apply(spec).await?;
        let ready = self.data.wait_true(&["Ready", "RedisReady"]).await?;
        Ok(ready.data["status"]["stores"]["redis"].clone())
    }

    async fn policy(&self) -> Result {
        let rules = json!([
            { "name": "sessions", "pattern": "session:*", "ttl": "1h", "mode": "Enforce" },
            { "name": "queue", "pattern": "queue", "expires": "Never" },
        ]);
        let eviction = json!({ "maxMemory": "64Mi", "policy": "volatile-ttl" });
        let spec = json!({ "databaseRef": { "name": "data" }, "prefix": "app", "eviction": eviction, "rules": rules });
        self.data.apply_beside("CachePolicy", "keys", spec).await?;
        let all = api::<CachePolicy>(&self.data.ctx.client, &self.data.namespace);
        conditions::wait_true(&all, "keys", &["Ready"], PATIENCE).await?;
        Ok(())
    }

    /// Both keys are there, with the expiry that each should have, and eviction is in force.
    async fn kept(&self, when: &str) -> Result {
        let read = async || {
            let mut client = self.data.redis().await?;
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
        self.data.ctx.figure(
            format!("Valkey: keys after {when}"),
            format!("{values}; TTL {session} s and {queue}; {eviction}"),
            "both keys, one with at most an hour, one without end, volatile-ttl",
            values == "kept kept" && (1..=3600).contains(&session) && queue == -1 && eviction.ends_with("volatile-ttl"),
        );
        Ok(())
    }
}
