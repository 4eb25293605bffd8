//! A namespace for one kind of bad input: objects applied, conditions expected, silence afterwards.

use std::time::Duration;

use amas_operator::api::amas_database::AmasDatabase;
use kube::{Api, Resource, api::DynamicObject};
use serde_json::{Value, json};

use crate::{
    cluster::{
        conditions::{self, status},
        objects::{self, api, ours},
        platform::PATIENCE,
        quiet::Quiet,
        wait::Watch,
    },
    harness::{Result, context::Ctx},
};

/// How long nothing may be written once things have settled.
const SILENCE: Duration = Duration::from_secs(10);

pub struct Room<'a> {
    pub ctx: &'a Ctx,
    pub namespace: String,
}

/// A PostgreSQL of the smallest kind, with more fields.
pub fn postgres(more: Value) -> Value {
    with(
        json!({ "managed": { "storage": { "size": "1Gi" } }, "database": "app" }),
        more,
    )
}

/// A Redis of the smallest kind.
pub fn redis() -> Value {
    json!({ "managed": { "storage": { "size": "1Gi" } } })
}

/// The first object with the fields of the second.
pub fn with(mut base: Value, more: Value) -> Value {
    for (key, value) in more.as_object().into_iter().flatten() {
        base[key] = value.clone();
    }
    base
}

impl<'a> Room<'a> {
    pub async fn new(ctx: &'a Ctx, purpose: &str) -> Result<Self> {
        let namespace = ctx.namespace(purpose).await?;
        Ok(Self { ctx, namespace })
    }

    pub fn api<K: Resource<DynamicType = ()>>(&self) -> Api<DynamicObject> {
        api::<K>(&self.ctx.client, &self.namespace)
    }

    pub async fn apply(&self, object: DynamicObject) -> Result {
        objects::apply(&self.ctx.client, &self.namespace, &[object]).await
    }

    pub async fn database(&self, name: &str, spec: Value) -> Result {
        self.apply(ours("AmasDatabase", name, spec)?).await
    }

    /// Waits until Ready is False and Stalled True for the reason, and the message says all of `words`.
    pub async fn stalled<K: Resource<DynamicType = ()>>(
        &self,
        name: &str,
        reason: &str,
        words: &[&str],
    ) -> Result<DynamicObject> {
        let api = self.api::<K>();
        let mut watch = Watch::open(&api, name).await?;
        let holds = |object: Option<&DynamicObject>| {
            object.is_some_and(|object| {
                let observed = object.data["status"]["observedGeneration"].as_i64() == object.metadata.generation;
                observed
                    && status(object, "Ready") == Some("False")
                    && status(object, "Stalled") == Some("True")
                    && conditions::reason(object, "Ready") == reason
            })
        };
        watch
            .until(PATIENCE, &format!("{name}: Stalled because of {reason}"), holds)
            .await?;
        let object = watch.into_object()?;
        let message = conditions::message(&object, "Ready").to_owned();
        let missing: Vec<&&str> = words.iter().filter(|word| !message.contains(**word)).collect();
        let same = conditions::reason(&object, "Stalled") == reason && status(&object, "Reconciling").is_none();
        let target = format!("Ready False, Stalled True, says {words:?}");
        self.ctx.figure(
            format!("{name}: {reason}"),
            message.clone(),
            target,
            missing.is_empty() && same,
        );
        Ok(object)
    }

    pub async fn ready<K: Resource<DynamicType = ()>>(&self, name: &str, after: &str) -> Result<DynamicObject> {
        let object = conditions::wait_true(&self.api::<K>(), name, &["Ready"], PATIENCE).await?;
        let clean = status(&object, "Stalled").is_none() && status(&object, "Reconciling").is_none();
        self.ctx
            .figure(format!("{name}: {after}"), conditions::summary(&object), "Ready", clean);
        Ok(object)
    }

    pub async fn database_ready(&self, name: &str, after: &str) -> Result<DynamicObject> {
        self.ready::<AmasDatabase>(name, after).await
    }

    /// Nothing in this namespace is written by the operator once things have settled.
    pub async fn silent(&self, what: &str) -> Result {
        let quiet = Quiet::within(self.ctx, &self.namespace);
        quiet.settled().await?;
        let writes = quiet.writes_within(SILENCE).await?;
        if !writes.is_empty() {
            self.ctx.say(writes.lines());
        }
        self.ctx.figure(
            format!("{what}: writes in {} s", SILENCE.as_secs()),
            writes.to_string(),
            "nothing",
            writes.is_empty(),
        );
        Ok(())
    }
}
