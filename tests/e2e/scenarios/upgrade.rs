//! What changes while databases run: their parameters, their volumes, and the operator itself.

use std::time::{Duration, Instant};

use k8s_openapi::api::{core::v1::PersistentVolumeClaim, storage::v1::StorageClass};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, DynamicObject, PostParams},
};
use serde_json::{Value, json};

use crate::{
    cluster::{
        clients,
        conditions::{self, message, reason, status},
        database::{Database, NAME},
        helm, node, operator,
        platform::PATIENCE,
        wait,
    },
    ensure,
    harness::{About, Result, context::Ctx},
};

const IMAGE: &str = "localhost/amas-redis:8-next";
/// A storage class of this scenario.
const FIXED: &str = "e2e-upgrade-fixed";
/// By then everything that the operator owes is written: steps on the way may be up to 10 s late.
const SETTLE: Duration = Duration::from_secs(12);

struct Scene<'a> {
    ctx: &'a Ctx,
    data: Database<'a>,
}

pub async fn run(ctx: &Ctx) -> Result {
    let scene = Scene {
        ctx,
        data: Database::new(ctx, "changes").await?,
    };
    let fixed = scene.fixed_class().await?;
    let outcome = Box::pin(scene.changes()).await;
    fixed.delete(FIXED, &DeleteParams::default()).await?;
    outcome?;
    let values = helm::values(ctx).await?;
    let outcome = Box::pin(scene.newer_operator(&values)).await;
    // Others run after this.
    helm::install(ctx, &values).await?;
    outcome?;
    Box::pin(scene.reinstalled(&values)).await
}

impl Scene<'_> {
    async fn changes(&self) -> Result {
        self.up().await?;
        self.loaded_without_a_restart().await?;
        self.restarted_once().await?;
        self.refused_value().await?;
        self.volume().await?;
        self.volume_that_cannot_grow().await?;
        self.wrong_image_and_back().await
    }

    /// A class as the default one, whose volumes keep their size.
    async fn fixed_class(&self) -> Result<Api<StorageClass>> {
        let classes: Api<StorageClass> = Api::all(self.ctx.client.clone());
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
        self.ctx.figure(
            "a parameter that can be reloaded: from apply to Ready",
            format!(
                "{took:.1} s; work_mem {now}; {}",
                if same { "no restart" } else { "RESTARTED" }
            ),
            "6MB within 20 s, no restart",
            now == "6MB" && same && took < 20.0,
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
        tokio::time::sleep(SETTLE).await;
        let once =
            after != before && self.data.life("postgres").await? == after && self.data.life("redis").await? == redis;
        self.ctx.figure(
            "a parameter that takes a restart: from apply to Ready",
            format!(
                "{took:.1} s; max_connections {now}; {}",
                if once { "one restart" } else { "NOT one restart" }
            ),
            "120, one restart of PostgreSQL and none of Redis",
            now == "120" && once,
        );
        let notes = self.restart_events().await?;
        self.ctx.figure(
            "the Event about it",
            notes.join("; "),
            "one that names the parameter",
            notes.len() == 1 && notes[0].contains("max_connections"),
        );
        Ok(())
    }

    async fn restart_events(&self) -> Result<Vec<String>> {
        let events: Api<k8s_openapi::api::events::v1::Event> =
            Api::namespaced(self.ctx.client.clone(), &self.data.namespace);
        let all = events.list(&Default::default()).await?;
        let ours = all
            .into_iter()
            .filter(|event| event.reason.as_deref() == Some("Restarting"));
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
        self.ctx.figure(
            "a value that the server would not take",
            said.clone(),
            "InvalidParameter, names it; Available, no restart",
            said.starts_with("InvalidParameter") && said.contains("shared_buffers") && fine,
        );
        self.parameters(json!({"shared_buffers": null})).await?;
        self.ready().await.map(|_| ())
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
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.ctx.client.clone(), &self.data.namespace);
        let claim = serde_json::to_value(claims.get(&format!("{NAME}-postgres")).await?)?;
        let capacity = &claim["status"]["capacity"]["storage"];
        self.ctx.figure(
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
        self.ctx
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
        let mark = self.ctx.audit()?;
        tokio::time::sleep(SETTLE).await;
        let writes = mark.requests()?.writes();
        self.ctx.figure(
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
        self.ctx.figure(
            "a wrong image, corrected: from apply to Ready",
            format!("{took:.1} s"),
            "by itself within 60 s",
            took < 60.0,
        );
        Ok(())
    }

    /// An upgrade that brings another image for the same version of Redis.
    async fn newer_operator(&self, values: &Value) -> Result {
        let old = values["images"]["overrides"]["redis:8"]
            .as_str()
            .about("no image override")?;
        node::tag(self.ctx, old, IMAGE).await?;
        let pods = (self.data.life("postgres").await?, self.data.life("redis").await?);
        let mut newer = values.clone();
        newer["images"]["overrides"]["redis:8"] = json!(IMAGE);
        helm::install(self.ctx, &newer).await?;
        let pending = self
            .data
            .until("UpdatePending", |object| {
                status(object, "UpdatePending") == Some("True")
            })
            .await?;
        let said = message(&pending, "Ready").to_owned();
        let same = (self.data.life("postgres").await?, self.data.life("redis").await?) == pods;
        self.ctx.figure(
            "an operator upgrade with a newer image: Ready",
            format!("{:?}: {said}", status(&pending, "Ready")),
            "True, names the image; no restart",
            status(&pending, "Ready") == Some("True") && said.contains(IMAGE) && same,
        );
        self.data
            .patch(json!({"metadata": {"annotations": {"amas.dev/restart": "redis/1"}}}))
            .await?;
        let handled = |object: &DynamicObject| {
            object.data["status"]["handled"]["restart"] == "redis/1"
                && status(object, "Ready") == Some("True")
                && status(object, "UpdatePending").is_none()
        };
        self.data.until("handled", handled).await?;
        let (postgres, redis) = (self.data.life("postgres").await?, self.data.life("redis").await?);
        let pod = self.data.pod("redis").await?;
        let image = pod.spec.and_then(|spec| spec.containers.into_iter().next()?.image);
        self.ctx.figure(
            "amas.dev/restart=redis/1",
            format!("Redis runs {image:?}"),
            "the newer image; PostgreSQL not restarted",
            image.as_deref() == Some(IMAGE) && redis != pods.1 && postgres == pods.0,
        );
        // The way back is an update too.
        Ok(())
    }

    async fn reinstalled(&self, values: &Value) -> Result {
        // What the way back to the older image leaves to say.
        self.data
            .until("UpdatePending", |object| {
                status(object, "UpdatePending") == Some("True")
            })
            .await?;
        tokio::time::sleep(SETTLE).await;
        let pods = (self.data.life("postgres").await?, self.data.life("redis").await?);
        helm::uninstall(self.ctx).await?;
        ensure!(
            self.show("work_mem").await.is_ok(),
            "the database does not serve without the operator"
        );
        let mark = self.ctx.audit()?;
        helm::install(self.ctx, values).await?;
        wait::retry(PATIENCE, async || operator::pod(self.ctx).await.map(|_| ())).await?;
        tokio::time::sleep(SETTLE).await;
        let writes = mark.requests()?.writes();
        let same = (self.data.life("postgres").await?, self.data.life("redis").await?) == pods;
        self.ctx.figure(
            "helm uninstall and install: writes of the operator",
            format!("{writes}{}", if same { "" } else { "; RESTARTED" }),
            "nothing; no restart",
            writes.is_empty() && same,
        );
        let ready = self.ready().await?;
        self.ctx.say(format!(
            "{} after it: {}",
            ready.name_any(),
            conditions::summary(&ready)
        ));
        Ok(())
    }
}
