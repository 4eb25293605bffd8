//! What a deleted AmasDatabase leaves: with Retain its data and passwords, which the next of its name takes up; with Delete nothing.

mod valkey;

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret};
use kube::{
    Resource, ResourceExt,
    api::{DeleteParams, DynamicObject, ListParams},
};
use serde_json::{Value, json};

use crate::{
    cluster::{
        clients,
        database::{Database, NAME},
        objects::{api, children},
        wait,
    },
    ensure,
    harness::{About, Result, context::Ctx},
};

/// How long children and volumes may take to go.
const GONE: Duration = Duration::from_secs(120);

struct Scene<'a> {
    data: Database<'a>,
    policy: &'static str,
}

pub async fn run(ctx: &Ctx) -> Result {
    let retain = Scene {
        data: Database::new(ctx, "retain").await?,
        policy: "Retain",
    };
    let delete = Scene {
        data: Database::new(ctx, "delete").await?,
        policy: "Delete",
    };
    futures::try_join!(
        Box::pin(retain.retain()),
        Box::pin(delete.delete()),
        Box::pin(valkey::run(ctx))
    )?;
    Ok(())
}

impl Scene<'_> {
    /// PostgreSQL and Redis, applied and Ready.
    async fn up(&self) -> Result<DynamicObject> {
        let volume = json!({ "storage": { "size": "1Gi" } });
        let roles = json!([{ "name": "app_writer", "access": "ReadWrite" }]);
        let postgres = json!({ "managed": volume, "database": "app", "roles": roles });
        let redis = json!({ "managed": volume });
        self.data
            .apply(json!({ "deletionPolicy": self.policy, "postgres": postgres, "redis": redis }))
            .await?;
        self.data.wait_true(&["Ready", "PostgresReady", "RedisReady"]).await
    }

    /// Deletes it and waits until it and its workloads are gone.
    async fn down(&self) -> Result {
        self.data.api().delete(NAME, &DeleteParams::default()).await?;
        wait::gone(&self.data.api(), NAME, GONE).await?;
        let workload = async || {
            let left = children(&self.data.ctx.client, &self.data.namespace, NAME).await?;
            let left: Vec<String> = left
                .into_iter()
                .filter(|child| !child.starts_with("Secret/") && !child.starts_with("PersistentVolumeClaim/"))
                .collect();
            ensure!(left.is_empty(), "still there: {}", left.join(", "));
            let pods = api::<Pod>(&self.data.ctx.client, &self.data.namespace)
                .list(&ListParams::default())
                .await?
                .items
                .len();
            ensure!(pods == 0, "{pods} pods are still there");
            Ok(())
        };
        wait::retry(GONE, workload).await.about("the workloads go")
    }

    /// What is there of a kind, by name: uid and content.
    async fn kept<K: Resource<DynamicType = ()>>(&self, field: &str) -> Result<BTreeMap<String, Value>> {
        let all = api::<K>(&self.data.ctx.client, &self.data.namespace)
            .list(&ListParams::default())
            .await?;
        let content = |object: DynamicObject| (object.name_any(), json!([object.metadata.uid, object.data[field]]));
        Ok(all.into_iter().map(content).collect())
    }

    async fn secrets(&self) -> Result<BTreeMap<String, Value>> {
        self.kept::<Secret>("data").await
    }

    async fn volumes(&self) -> Result<BTreeMap<String, Value>> {
        self.kept::<PersistentVolumeClaim>("spec").await
    }

    async fn write(&self) -> Result {
        let sql = self.data.values("postgres-admin").await?;
        let host = format!("{NAME}-postgres.{}.svc", self.data.namespace);
        let url = format!("postgresql://postgres:{}@{host}:5432/app", sql.get("PGPASSWORD")?);
        let mut admin = clients::postgres(&url).await?;
        clients::sql(
            &mut admin,
            "CREATE TABLE kept AS SELECT generate_series(1, 100) AS id; ALTER TABLE kept OWNER TO app_owner",
        )
        .await?;
        let mut redis = self.data.redis().await?;
        redis::cmd("SET").arg("kept").arg("100").exec_async(&mut redis).await?;
        // The append-only file reaches the disk within a second.
        tokio::time::sleep(Duration::from_secs(2)).await;
        Ok(())
    }

    /// Reads back with the application's Secrets: rows as the role sees them, and the key.
    async fn read(&self) -> Result<(String, String)> {
        let secret = self.data.values("role-app-writer").await?;
        let mut session = clients::postgres(secret.get("DATABASE_URL")?).await?;
        let rows = clients::value(&mut session, "SELECT count(*)::text FROM kept").await?;
        let mut redis = self.data.redis().await?;
        Ok((rows, redis::cmd("GET").arg("kept").query_async(&mut redis).await?))
    }

    async fn retain(&self) -> Result {
        let object = self.up().await?;
        let finalizers = object.metadata.finalizers.unwrap_or_default();
        self.data.ctx.figure(
            "Retain: finalizers",
            finalizers.join(", "),
            "none",
            finalizers.is_empty(),
        );
        self.write().await?;
        let before = (self.secrets().await?, self.volumes().await?);
        self.down().await?;
        let after = (self.secrets().await?, self.volumes().await?);
        let value = format!("{} Secrets, {} volumes", after.0.len(), after.1.len());
        self.data.ctx.figure(
            "Retain: left after the deletion",
            value,
            "all Secrets and volumes, unchanged",
            before == after && after.0.len() == 4 && after.1.len() == 2,
        );
        let mark = self.data.ctx.audit()?;
        self.up().await?;
        let again = self.secrets().await?;
        let created = mark
            .requests()?
            .of("secrets")
            .writes()
            .0
            .into_iter()
            .filter(|request| request.namespace == self.data.namespace && request.code < 400)
            .count();
        self.data.ctx.figure(
            "Retain: Secrets made for the next of the name",
            created.to_string(),
            "0, same passwords",
            created == 0 && again == before.0,
        );
        let volumes = self.volumes().await?;
        self.data.ctx.figure(
            "Retain: volumes of the next of the name",
            format!("{}", volumes.len()),
            "the same two",
            volumes == before.1,
        );
        let (rows, key) = wait::retry(Duration::from_secs(60), async || self.read().await).await?;
        self.data.ctx.figure(
            "Retain: data of the next of the name",
            format!("{rows} rows, key {key}"),
            "100 rows, key 100",
            rows == "100" && key == "100",
        );
        Ok(())
    }

    async fn delete(&self) -> Result {
        let object = self.up().await?;
        let finalizers = object.metadata.finalizers.unwrap_or_default();
        let ours = finalizers.iter().filter(|name| name.starts_with("amas.dev/")).count();
        self.data.ctx.figure(
            "Delete: finalizers",
            finalizers.join(", "),
            "one of ours",
            ours == 1 && finalizers.len() == 1,
        );
        self.down().await?;
        let empty = async || {
            let left: Vec<String> = self
                .secrets()
                .await?
                .into_keys()
                .chain(self.volumes().await?.into_keys())
                .collect();
            ensure!(left.is_empty(), "still there: {}", left.join(", "));
            Ok(())
        };
        let left = wait::retry(GONE, empty).await.err().map(|error| error.to_string());
        let value = left
            .clone()
            .unwrap_or_else(|| "object, workloads, Secrets and volumes are gone".into());
        self.data
            .ctx
            .figure("Delete: left after the deletion", value, "nothing", left.is_none());
        Ok(())
    }
}
