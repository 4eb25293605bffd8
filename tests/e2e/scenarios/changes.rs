//! What changes while a database runs: its parameters, its volumes, its images.

use std::time::Instant;

use k8s_openapi::api::{core::v1::PersistentVolumeClaim, storage::v1::StorageClass};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, DynamicObject, PostParams},
};
use serde_json::{Value, json};

use crate::{
    cluster::{
        clients,
        conditions::{message, reason, status},
        database::{Database, NAME},
        platform::PATIENCE,
        quiet::Quiet,
        wait,
    },
    ensure,
    harness::{About, Result, context::Ctx},
};

/// A storage class of this scenario.
const FIXED: &str = "e2e-changes-fixed";

struct Scene<'a> {
    data: Database<'a>,
}

pub async fn run(ctx: &Ctx) -> Result {
    let data = Database::new(ctx, "data").await?;
    let scene = Scene { data };
    let fixed = scene.fixed_class().await?;
    let outcome = Box::pin(scene.changes()).await;
    fixed.delete(FIXED, &DeleteParams::default()).await?;
    outcome
}

impl Scene<'_> {
    async fn changes(&self) -> Result {
        self.up().await?;
        self.loaded_without_a_restart().await?;
        self.restarted_once().await?;
        self.refused_value().await?;
        self.redis_parameters().await?;
        self.neo4j_setting().await?;
        self.volume().await?;
        self.volume_that_cannot_grow().await?;
        self.wrong_image_and_back().await
    }

    /// A class as the default one, whose volumes keep their size.
    async fn fixed_class(&self) -> Result<Api<StorageClass>> {
        let classes: Api<StorageClass> = Api::all(self.data.ctx.client.clone());
        let like = classes
            .list(&Default::default())
            .await?
            .items
            .into_iter()
            .find(|class| class.name_any() != FIXED);
        let mut class = like.about("no StorageClass")?;
        class.metadata = kube::core::ObjectMeta {
            name: Some(FIXED.into()),
            ..Default::default()
        };
        class.allow_volume_expansion = Some(false);
        // One of an earlier run is as good.
        if classes.get_opt(FIXED).await?.is_none() {
            classes.create(&PostParams::default(), &class).await?;
        }
        Ok(classes)
    }

    async fn up(&self) -> Result {
        let managed = json!({"storage": {"size": "1Gi"}, "parameters": {"work_mem": "5MB"}});
        let roles = json!([{"name": "data_app", "access": "ReadWrite"}]);
        let spec = json!({
            "postgres": {"managed": managed, "database": "data", "roles": roles},
            "redis": {"managed": {"storage": {"size": "1Gi", "storageClassName": FIXED}}},
            "neo4j": {"managed": {"storage": {"size": "1Gi"}}},
        });
        self.data.apply(spec).await?;
        self.ready().await.map(|_| ())
    }

    /// Ready at the present generation.
    async fn ready(&self) -> Result<DynamicObject> {
        self.data.wait_true(&["Ready"]).await
    }

    async fn parameters(&self, parameters: Value) -> Result {
        self.data
            .patch(json!({"spec": {"postgres": {"managed": {"parameters": parameters}}}}))
            .await
    }

    async fn show(&self, parameter: &str) -> Result<String> {
        let secret = self.data.values("role-data-app").await?;
        let mut connection = clients::postgres(secret.get("DATABASE_URL")?).await?;
        clients::value(&mut connection, &format!("SELECT current_setting('{parameter}')")).await
    }

    async fn loaded_without_a_restart(&self) -> Result {
        let pod = self.data.life("postgres").await?;
        let begun = Instant::now();
        self.parameters(json!({"work_mem": "6MB", "log_min_duration_statement": "5s"}))
            .await?;
        self.ready().await?;
        let took = begun.elapsed().as_secs_f64();
        let (now, same) = (self.show("work_mem").await?, self.data.life("postgres").await? == pod);
        self.data.ctx.figure(
            "a parameter that can be reloaded: from apply to Ready",
            format!(
                "{took:.1} s; work_mem {now}; {}",
                if same { "no restart" } else { "RESTARTED" }
            ),
            "6MB, no restart",
            now == "6MB" && same,
        );
        Ok(())
    }

    async fn restarted_once(&self) -> Result {
        let (before, redis) = (self.data.life("postgres").await?, self.data.life("redis").await?);
        let begun = Instant::now();
        self.parameters(json!({"max_connections": "120"})).await?;
        self.ready().await?;
        let took = begun.elapsed().as_secs_f64();
        let after = self.data.life("postgres").await?;
        let now = self.show("max_connections").await?;
        tokio::time::sleep(wait::SETTLE).await;
        let once =
            after != before && self.data.life("postgres").await? == after && self.data.life("redis").await? == redis;
        self.data.ctx.figure(
            "a parameter that takes a restart: from apply to Ready",
            format!(
                "{took:.1} s; max_connections {now}; {}",
                if once { "one restart" } else { "NOT one restart" }
            ),
            "120, one restart of PostgreSQL and none of Redis",
            now == "120" && once,
        );
        let notes = self.events("Restarting").await?;
        self.data.ctx.figure(
            "the Event about it",
            notes.join("; "),
            "one that names the parameter",
            notes.len() == 1 && notes[0].contains("max_connections"),
        );
        Ok(())
    }

    /// What the Events with this reason say.
    async fn events(&self, reason: &str) -> Result<Vec<String>> {
        let events: Api<k8s_openapi::api::events::v1::Event> =
            Api::namespaced(self.data.ctx.client.clone(), &self.data.namespace);
        let all = events.list(&Default::default()).await?;
        let ours = all.into_iter().filter(|event| event.reason.as_deref() == Some(reason));
        Ok(ours.filter_map(|event| event.note).collect())
    }

    async fn refused_value(&self) -> Result {
        let pod = self.data.life("postgres").await?;
        self.parameters(json!({"shared_buffers": "8000GB"})).await?;
        let refused = self
            .data
            .until("Stalled", |object| status(object, "Stalled") == Some("True"))
            .await?;
        let said = format!("{}: {}", reason(&refused, "Ready"), message(&refused, "Ready"));
        let fine = self.data.life("postgres").await? == pod && status(&refused, "Available") == Some("True");
        self.data.ctx.figure(
            "a value that the server would not take",
            said.clone(),
            "InvalidParameter, names it; Available, no restart",
            said.starts_with("InvalidParameter") && said.contains("shared_buffers") && fine,
        );
        self.parameters(json!({"shared_buffers": null})).await?;
        self.ready().await.map(|_| ())
    }

    /// What the server of a store says after a change, and whether its pod was replaced by then and not again.
    async fn changed(
        &self,
        store: &str,
        change: Value,
        says: impl AsyncFn() -> Result<String>,
    ) -> Result<(String, bool)> {
        let before = self.data.life(store).await?;
        let managed = json!({"parameters": change});
        self.data.patch(json!({"spec": {store: {"managed": managed}}})).await?;
        self.ready().await?;
        let (says, after) = (says().await?, self.data.life(store).await?);
        tokio::time::sleep(wait::SETTLE).await;
        ensure!(self.data.life(store).await? == after, "{store} restarted twice");
        Ok((says, before != after))
    }

    async fn redis_parameters(&self) -> Result {
        for (parameter, value, restarts) in [("hz", "20", false), ("io-threads", "2", true)] {
            let says = async || {
                let mut client = self.data.redis().await?;
                let found: Vec<String> = redis::cmd("CONFIG")
                    .arg("GET")
                    .arg(parameter)
                    .query_async(&mut client)
                    .await?;
                Ok(found.join(" "))
            };
            let (says, restarted) = self.changed("redis", json!({parameter: value}), says).await?;
            self.data.ctx.figure(
                format!("Redis: {parameter} changed"),
                format!("{says}; {}", if restarted { "restarted" } else { "no restart" }),
                if restarts { "in, one restart" } else { "in, no restart" },
                says == format!("{parameter} {value}") && restarted == restarts,
            );
        }
        Ok(())
    }

    /// The Community edition changes none while it runs.
    async fn neo4j_setting(&self) -> Result {
        const SETTING: &str = "db.transaction.timeout";
        let says = async || {
            let secret = self.data.values("neo4j-connection").await?;
            let login = (
                secret.get("NEO4J_URI")?,
                secret.get("NEO4J_USER")?,
                secret.get("NEO4J_PASSWORD")?,
            );
            let graph = clients::neo4j(login.0, login.1, login.2).await?;
            let query = format!("SHOW SETTINGS '{SETTING}' YIELD value RETURN value AS row");
            Ok(clients::cypher(&graph, &query).await?.join(" "))
        };
        let (says, restarted) = self.changed("neo4j", json!({SETTING: "40s"}), says).await?;
        self.data.ctx.figure(
            format!("Neo4j: {SETTING} changed"),
            format!("{says}; {}", if restarted { "one restart" } else { "no restart" }),
            "40s, one restart",
            says == "40s" && restarted,
        );
        Ok(())
    }

    async fn size(&self, size: &str) -> Result {
        self.data
            .patch(json!({"spec": {"postgres": {"managed": {"storage": {"size": size}}}}}))
            .await
    }

    async fn volume(&self) -> Result {
        let pod = self.data.life("postgres").await?;
        self.size("2Gi").await?;
        let ready = self.ready().await?;
        let shown = &ready.data["status"]["stores"]["postgres"]["volume"];
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.data.ctx.client.clone(), &self.data.namespace);
        let claim = serde_json::to_value(claims.get(&format!("{NAME}-postgres")).await?)?;
        let capacity = &claim["status"]["capacity"]["storage"];
        self.data.ctx.figure(
            "a larger volume: status, claim",
            format!("{shown}, {capacity}"),
            "2Gi, no restart",
            shown == "2Gi" && capacity == "2Gi" && self.data.life("postgres").await? == pod,
        );
        self.size("1Gi").await?;
        let refused = self
            .data
            .until("Stalled", |object| status(object, "Stalled") == Some("True"))
            .await?;
        let said = message(&refused, "Ready").to_owned();
        let fine = said.contains("cannot shrink") && status(&refused, "Available") == Some("True");
        self.data
            .ctx
            .figure("a smaller volume", said, "said plainly; Available", fine);
        self.size("2Gi").await?;
        self.ready().await.map(|_| ())
    }

    async fn volume_that_cannot_grow(&self) -> Result {
        let pod = self.data.life("redis").await?;
        let size = |size: &str| json!({"spec": {"redis": {"managed": {"storage": {"size": size}}}}});
        self.data.patch(size("2Gi")).await?;
        let refused = self
            .data
            .until("Stalled", |object| status(object, "Stalled") == Some("True"))
            .await?;
        let said = format!("{}: {}", reason(&refused, "Ready"), message(&refused, "Ready"));
        let fine = status(&refused, "Available") == Some("True") && self.data.life("redis").await? == pod;
        // The Event follows the status; after it nothing does.
        let told = async || {
            ensure!(!self.events("VolumeCannotGrow").await?.is_empty(), "no Event yet");
            Ok(())
        };
        wait::retry(PATIENCE, told).await?;
        let quiet = Quiet::within(self.data.ctx, &self.data.namespace);
        quiet.settled().await?;
        let writes = quiet.writes_within(wait::SETTLE).await?;
        self.data.ctx.figure(
            "a volume whose class does not let it grow",
            format!("{said}; then {writes}"),
            "VolumeCannotGrow; Available, the pod runs on, not asked again and again",
            said.starts_with("VolumeCannotGrow") && fine && writes.is_empty(),
        );
        self.data.patch(size("1Gi")).await?;
        self.ready().await.map(|_| ())
    }

    /// Kubernetes alone would wait for the broken pod for ever.
    async fn wrong_image_and_back(&self) -> Result {
        let image = |image: Value| json!({"spec": {"redis": {"managed": {"image": image}}}});
        self.data.patch(image(json!("localhost/no-such-image:1"))).await?;
        self.data
            .until("ImagePullFailed", |object| reason(object, "Ready") == "ImagePullFailed")
            .await?;
        let begun = Instant::now();
        self.data.patch(image(Value::Null)).await?;
        self.ready().await?;
        let took = begun.elapsed().as_secs_f64();
        self.data.ctx.figure(
            "a wrong image, corrected: from apply to Ready",
            format!("{took:.1} s"),
            "by itself",
            true,
        );
        Ok(())
    }
}
