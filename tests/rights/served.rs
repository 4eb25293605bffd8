//! A managed server that runs, so that the operator talks to it: what only such a one makes it do.

use serde_json::json;

use crate::{
    life::{Life, PATIENCE, WORK},
    support::{managed, process::eventually, redis::RedisServer},
};

/// The database of the server.
const TUNED: &str = "tuned";

impl Life<'_> {
    /// What the operator shall know of names.
    pub fn hosts(&self) -> String {
        format!("127.0.0.1 localhost\n{} {TUNED}-redis.{WORK}.svc\n", self.address)
    }

    /// A parameter is changed while the server runs: its pod is told, so that the kubelet brings the file at once.
    pub async fn tuned(&self) {
        let spec = |parameters| json!({"redis": {"managed": {"storage": {"size": "1Gi"}, "parameters": parameters}}});
        self.ours("AmasDatabase", TUNED, spec(json!({}))).await;
        let _server = self.redis_of(TUNED).await;
        let labels = json!({"amas.dev/database": TUNED, "app.kubernetes.io/component": "redis"});
        let security = json!({"allowPrivilegeEscalation": false, "runAsNonRoot": true, "runAsUser": 999, "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"}});
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "tuned-redis-0", "labels": labels},
            "spec": {"containers": [{"name": "redis", "image": "redis", "securityContext": security}]}});
        self.cluster.apply(WORK, pod).await;
        self.ours("AmasDatabase", TUNED, spec(json!({"hz": "20"}))).await;
        self.until("patch", "pods").await;
    }

    /// The server that the pod of a database would run.
    async fn redis_of(&self, database: &str) -> RedisServer {
        let (maps, secrets) = (
            self.cluster.api("v1", "ConfigMap", WORK),
            self.cluster.api("v1", "Secret", WORK),
        );
        let (map, secret) = (
            format!("{database}-redis-config"),
            format!("{database}-redis-connection"),
        );
        eventually("the server's files are there", PATIENCE, async || {
            maps.get_opt(&map).await.unwrap().is_some() && secrets.get_opt(&secret).await.unwrap().is_some()
        })
        .await;
        let config = maps.get(&map).await.unwrap().data["data"]["redis.conf"].clone();
        let entries = managed::entries(&secrets.get(&secret).await.unwrap().data);
        RedisServer::start_at((&self.address, 6379), config.as_str().unwrap(), &entries["users.acl"]).await
    }
}
