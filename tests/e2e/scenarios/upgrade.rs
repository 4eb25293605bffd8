//! The operator itself changes under databases that run: an upgrade of its release writes nothing, a newer one restarts nothing, and without
//! one they go on.

use kube::{ResourceExt, api::DynamicObject};
use serde_json::{Value, json};

use crate::{
    cluster::{
        audit::Requests,
        clients,
        conditions::{self, message, status},
        database::Database,
        helm, node, operator,
        platform::{PATIENCE, Platform},
        quiet::Quiet,
        wait,
    },
    harness::{About, Result, context::Ctx},
};

const IMAGE: &str = "localhost/amas-redis:8-next";

struct Scene<'a> {
    data: Database<'a>,
}

pub async fn run(ctx: &Ctx) -> Result {
    let data = Database::new(ctx, "data").await?;
    let scene = Scene { data };
    scene.up().await?;
    // All three kinds, migrations and Neo4j: whatever there is to be taken up.
    Platform::load(ctx)?.up(ctx, "amas").await?;
    let values = helm::values(ctx).await?;
    scene.upgraded(&values).await?;
    let outcome = Box::pin(scene.newer_operator(&values)).await;
    // Others run after this.
    helm::install(ctx, &values).await?;
    outcome?;
    Box::pin(scene.reinstalled(&values)).await
}

impl Scene<'_> {
    async fn up(&self) -> Result {
        let managed = json!({"storage": {"size": "1Gi"}});
        let roles = json!([{"name": "data_app", "access": "ReadWrite"}]);
        let postgres = json!({"managed": managed, "database": "data", "roles": roles});
        self.data
            .apply(json!({"postgres": postgres, "redis": {"managed": managed}}))
            .await?;
        self.data.wait_true(&["Ready"]).await.map(|_| ())
    }

    /// An application gets in.
    async fn serves(&self) -> Result {
        let secret = self.data.values("role-data-app").await?;
        clients::postgres(secret.get("DATABASE_URL")?).await.map(|_| ())
    }

    /// An upgrade of the release that brings another pod of the operator, and nothing for the databases.
    async fn upgraded(&self, values: &Value) -> Result {
        Quiet::everywhere(self.data.ctx).settled().await?;
        let before = operator::pod(self.data.ctx).await?.name_any();
        let mut other = values.clone();
        other["podAnnotations"]["e2e"] = json!("upgraded");
        let writes = self
            .writes_of(async || helm::install(self.data.ctx, &other).await)
            .await?;
        let after = operator::pod(self.data.ctx).await?.name_any();
        self.data.ctx.figure(
            "helm upgrade: writes of the operator",
            format!("{writes}; {before} -> {after}"),
            "nothing, by another pod",
            writes.is_empty() && before != after,
        );
        Ok(())
    }

    /// What the operator writes while something is done to its release and until it has taken up everything.
    async fn writes_of(&self, done: impl AsyncFnOnce() -> Result) -> Result<Requests> {
        let mark = self.data.ctx.audit()?;
        done().await?;
        wait::retry(PATIENCE, async || operator::pod(self.data.ctx).await.map(|_| ())).await?;
        tokio::time::sleep(wait::SETTLE).await;
        Ok(mark.requests()?.writes())
    }

    /// An upgrade that brings another image for the same version of Redis.
    async fn newer_operator(&self, values: &Value) -> Result {
        let old = values["images"]["overrides"]["redis:8"]
            .as_str()
            .about("no image override")?;
        node::tag(self.data.ctx, old, IMAGE).await?;
        let pods = (self.data.life("postgres").await?, self.data.life("redis").await?);
        let mut newer = values.clone();
        newer["images"]["overrides"]["redis:8"] = json!(IMAGE);
        helm::install(self.data.ctx, &newer).await?;
        let pending = self
            .data
            .until("UpdatePending", |object| {
                status(object, "UpdatePending") == Some("True")
            })
            .await?;
        let said = message(&pending, "Ready").to_owned();
        let same = (self.data.life("postgres").await?, self.data.life("redis").await?) == pods;
        self.data.ctx.figure(
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
        self.data.ctx.figure(
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
        Quiet::everywhere(self.data.ctx).settled().await?;
        let pods = (self.data.life("postgres").await?, self.data.life("redis").await?);
        helm::uninstall(self.data.ctx).await?;
        self.serves()
            .await
            .about("the database does not serve without the operator")?;
        let writes = self
            .writes_of(async || helm::install(self.data.ctx, values).await)
            .await?;
        let same = (self.data.life("postgres").await?, self.data.life("redis").await?) == pods;
        self.data.ctx.figure(
            "helm uninstall and install: writes of the operator",
            format!("{writes}{}", if same { "" } else { "; RESTARTED" }),
            "nothing; no restart",
            writes.is_empty() && same,
        );
        let ready = self.data.wait_true(&["Ready"]).await?;
        self.data.ctx.say(format!(
            "{} after it: {}",
            ready.name_any(),
            conditions::summary(&ready)
        ));
        Ok(())
    }
}
