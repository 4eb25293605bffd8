//! Data written through the published Secrets is still there after whatever happens to pods, operator and node.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;

use crate::{
    cluster::{
        clients::{self, Stores},
        node, operator,
        platform::{PATIENCE, Platform, WRITER},
        pods, process,
        quiet::Quiet,
        wait,
    },
    ensure,
    harness::{About, Result, context::Ctx},
};

/// Rows, list entries and nodes that are written.
const COUNT: usize = 100;
/// By then an operator that came back has taken up everything.
const TAKEN_UP: Duration = Duration::from_secs(15);
/// Append-only files reach the disk within a second.
const SYNC: Duration = Duration::from_secs(2);

struct Scene<'a> {
    ctx: &'a Ctx,
    platform: Platform,
    namespace: String,
}

pub async fn run(ctx: &Ctx) -> Result {
    let platform = Platform::load(ctx)?;
    let namespace = platform.up(ctx, "amas").await?;
    let scene = Scene {
        ctx,
        platform,
        namespace,
    };
    scene.write().await?;
    tokio::time::sleep(SYNC).await;
    scene.pods_deleted().await?;
    scene.operator_killed().await?;
    scene.power_cut().await
}

impl Scene<'_> {
    async fn stores(&self) -> Result<Stores> {
        Stores::open(&self.ctx.client, &self.namespace, &self.platform.name(), WRITER).await
    }

    async fn write(&self) -> Result {
        let mut stores = self.stores().await?;
        let insert = "INSERT INTO tasks (task_id, title, task_type) SELECT 'kept-' || n, 'kept', 'e2e' FROM generate_series(1, 100) n";
        clients::sql(&mut stores.postgres, insert).await?;
        // The feed is a list that must not expire.
        let mut push = redis::cmd("RPUSH");
        push.arg("amas:tasks:recent_feed").arg((0..COUNT).collect::<Vec<_>>());
        push.exec_async(&mut stores.redis).await?;
        let create = "UNWIND range(1, 100) AS n CREATE (:Task {task_id: 'kept-' + toString(n), title: 'kept'})";
        clients::run(&stores.neo4j, neo4rs::query(create)).await
    }

    /// Opens new sessions by the Secrets and counts what was written.
    async fn count(&self) -> Result<[usize; 3]> {
        let mut stores = self.stores().await?;
        let rows = clients::value(
            &mut stores.postgres,
            "SELECT count(*)::text FROM tasks WHERE title = 'kept'",
        )
        .await?;
        let length: usize = redis::cmd("LLEN")
            .arg("amas:tasks:recent_feed")
            .query_async(&mut stores.redis)
            .await?;
        let nodes = clients::cypher(
            &stores.neo4j,
            "MATCH (t:Task {title: 'kept'}) RETURN toString(count(t)) AS row",
        )
        .await?;
        Ok([rows.parse()?, length, nodes.first().about("no count")?.parse()?])
    }

    /// Everything is there again and Ready, without a hand on it.
    async fn kept(&self, after: &str) -> Result {
        let [rows, length, nodes] = wait::retry(PATIENCE, async || self.count().await).await.about(after)?;
        self.platform.wait_ready(self.ctx, &self.namespace).await.about(after)?;
        let value = format!("{rows} rows, {length} list entries, {nodes} nodes; Ready");
        let ok = [rows, length, nodes] == [COUNT; 3];
        self.ctx
            .figure(format!("data after: {after}"), value, format!("{COUNT} of each"), ok);
        Ok(())
    }

    async fn pods_deleted(&self) -> Result {
        for store in ["postgres", "redis", "neo4j"] {
            let name = format!("{}-{store}-0", self.platform.name());
            pods::replace(&self.ctx.client, &self.namespace, &name).await?;
        }
        self.kept("database pods deleted").await
    }

    async fn operator_killed(&self) -> Result {
        // What the deleted pods set going must be over.
        Quiet::everywhere(self.ctx).settled().await?;
        let mark = self.ctx.audit()?;
        let old = operator::pid(self.ctx).await?;
        process::signal("KILL", &[old]).await?;
        operator::restarted(self.ctx, old, PATIENCE).await?;
        tokio::time::sleep(TAKEN_UP).await;
        let writes = mark.requests()?.writes();
        self.ctx.figure(
            "operator killed (SIGKILL) and restarted: writes",
            writes.to_string(),
            "nothing",
            writes.is_empty(),
        );
        self.kept("operator killed").await
    }

    async fn power_cut(&self) -> Result {
        node::stop(self.ctx).await?;
        let before = self.renewed().await?;
        node::start(self.ctx).await?;
        // Until the operator is back, conditions are those of before.
        let alive = async || {
            ensure!(
                self.renewed().await? > before,
                "the operator has not renewed its lease since the power cut"
            );
            Ok(())
        };
        let count = wait::retry(PATIENCE, async || self.count().await).await?;
        wait::retry(PATIENCE, alive).await?;
        self.ctx.say(format!("after the power cut: {count:?}"));
        self.kept("node stopped and started").await
    }

    /// When the operator last renewed its lease.
    async fn renewed(&self) -> Result<String> {
        let leases: Api<Lease> = Api::namespaced(self.ctx.client.clone(), &self.ctx.settings.operator_namespace);
        let lease = serde_json::to_value(leases.get("amas-operator").await?)?;
        Ok(lease["spec"]["renewTime"]
            .as_str()
            .about("the lease was never renewed")?
            .to_owned())
    }
}
