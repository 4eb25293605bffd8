//! A migration Job whose pod is evicted in the middle, as when its node is drained: the Job controller makes another one, which goes on where the first
//! one stopped. No attempt is counted, and nothing runs twice.

use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    Api,
    api::{DynamicObject, EvictParams, ListParams, LogParams},
};
use serde_json::json;

use super::room::{Room, postgres};
use crate::{
    cluster::{
        clients::{self, Values, role_secret},
        objects::api,
        platform::PATIENCE,
        wait::{self, Watch},
    },
    ensure,
    harness::{About, Result},
};

/// It is under way until somebody opens the gate.
const SLOW: &str = "INSERT INTO ran VALUES ('slow');
DO $$ BEGIN WHILE NOT EXISTS (SELECT FROM gate) LOOP PERFORM pg_sleep(0.1); END LOOP; END $$;
";

pub async fn run(room: &Room<'_>) -> Result {
    let (ctx, namespace) = (room.ctx, &room.namespace);
    let files = json!({
        "0001_begin.sql": "CREATE TABLE ran (what text);\nCREATE TABLE gate (id int);\nINSERT INTO ran VALUES ('begin');\nDO $$ BEGIN END $$;\n",
        "0002_slow.sql": SLOW,
        "0003_end.sql": "INSERT INTO ran VALUES ('end');\n",
    });
    let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "slow" }, "data": files });
    room.apply(serde_json::from_value(map)?).await?;
    let roles = json!([{ "name": "app_writer", "access": "ReadWrite" }]);
    let spec = json!({ "postgres": postgres(json!({ "roles": roles })), "migrations": { "source": { "configMaps": ["slow"] } } });
    room.database("evicted", spec).await?;
    let begun = |object: Option<&DynamicObject>| {
        object.is_some_and(|object| object.data["status"]["migrations"]["current"] == 1)
    };
    let databases = room.api::<amas_operator::api::amas_database::AmasDatabase>();
    Watch::open(&databases, "evicted")
        .await?
        .until(PATIENCE, "version 1 is in", begun)
        .await?;
    let pods: Api<Pod> = Api::namespaced(ctx.client.clone(), namespace);
    let first = evict(room, &pods).await?;

    room.database_ready("evicted", "the pod of its migration was evicted")
        .await?;
    let secret = Values::read(&ctx.client, namespace, &role_secret("evicted", "app_writer")).await?;
    let mut session = clients::postgres(secret.get("DATABASE_URL")?).await?;
    let ran: String = clients::value(&mut session, "SELECT coalesce(string_agg(what, ' '), '') FROM ran").await?;
    ctx.figure("evicted: what ran", &ran, "begin slow end", ran == "begin slow end");
    let jobs = api::<Job>(&ctx.client, namespace).list(&ListParams::default()).await?;
    let failed: i64 = jobs
        .iter()
        .filter_map(|job| job.data["status"]["failed"].as_i64())
        .sum();
    let others = pods.list(&of_job()).await?.items;
    let others = others
        .iter()
        .filter(|pod| pod.metadata.name.as_deref() != Some(first.as_str()));
    let seen = format!("{} Job, {} more pod, {failed} failed", jobs.items.len(), others.count());
    let wanted = "1 Job, 1 more pod, 0 failed";
    ctx.figure("evicted: Jobs", &seen, wanted, seen == wanted);
    Ok(())
}

fn of_job() -> ListParams {
    ListParams::default().labels("batch.kubernetes.io/job-name")
}

/// Evicts the Job's pod in the middle of the second migration, which goes on once the pod has heard of it; returns the pod's name.
async fn evict(room: &Room<'_>, pods: &Api<Pod>) -> Result<String> {
    let first = pods.list(&of_job()).await?.items.into_iter().next();
    let first = first.and_then(|pod| pod.metadata.name).about("the Job has no pod")?;
    pods.evict(&first, &EvictParams::default()).await?;
    let heard = async || {
        let log = pods.logs(&first, &LogParams::default()).await?;
        ensure!(log.contains("stopping after the current migration"), "it says: {log}");
        Ok(())
    };
    wait::retry(PATIENCE, heard).await.about("the evicted pod stops")?;
    let secret = Values::read(&room.ctx.client, &room.namespace, &role_secret("evicted", "app_owner")).await?;
    let mut owner = clients::postgres(secret.get("DATABASE_URL")?).await?;
    clients::sql(&mut owner, "INSERT INTO gate VALUES (1)").await?;
    Ok(first)
}
