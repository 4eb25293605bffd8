//! One AmasDatabase in a namespace of its own: applied, changed and awaited as its user does it, its Secrets read, its servers' pods looked at.

use amas_operator::api::amas_database::AmasDatabase;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{DynamicObject, Patch, PatchParams},
};
use redis::aio::MultiplexedConnection;
use serde_json::Value;

use super::{
    clients::{self, Values},
    conditions,
    objects::{self, api},
    platform::PATIENCE,
    pods,
    wait::Watch,
};
use crate::harness::{Result, context::Ctx};

/// Its name.
pub const NAME: &str = "data";

pub struct Database<'a> {
    pub ctx: &'a Ctx,
    pub namespace: String,
}

impl<'a> Database<'a> {
    /// In a fresh namespace, not applied yet.
    pub async fn new(ctx: &'a Ctx, purpose: &str) -> Result<Self> {
        let namespace = ctx.namespace(purpose).await?;
        Ok(Self { ctx, namespace })
    }

    pub fn api(&self) -> Api<DynamicObject> {
        api::<AmasDatabase>(&self.ctx.client, &self.namespace)
    }

    pub async fn apply(&self, spec: Value) -> Result {
        self.apply_beside("AmasDatabase", NAME, spec).await
    }

    /// Another object of ours in its namespace.
    pub async fn apply_beside(&self, kind: &str, name: &str, spec: Value) -> Result {
        let object = objects::ours(kind, name, spec)?;
        objects::apply(&self.ctx.client, &self.namespace, &[object]).await
    }

    pub async fn patch(&self, patch: Value) -> Result {
        let params = PatchParams::default();
        self.api().patch(NAME, &params, &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// Waits until these conditions are True at its present generation.
    pub async fn wait_true(&self, kinds: &[&str]) -> Result<DynamicObject> {
        conditions::wait_true(&self.api(), NAME, kinds, PATIENCE).await
    }

    pub async fn until(&self, what: &str, wanted: impl Fn(&DynamicObject) -> bool) -> Result<DynamicObject> {
        let mut watch = Watch::open(&self.api(), NAME).await?;
        watch
            .until(PATIENCE, what, |object| object.is_some_and(&wanted))
            .await?;
        watch.into_object()
    }

    /// Its Secret of this suffix.
    pub async fn values(&self, suffix: &str) -> Result<Values> {
        Values::read(&self.ctx.client, &self.namespace, &format!("{NAME}-{suffix}")).await
    }

    pub async fn redis(&self) -> Result<MultiplexedConnection> {
        let cache = self.values("redis-connection").await?;
        clients::redis(cache.get("REDIS_URL")?).await
    }

    pub async fn pod(&self, store: &str) -> Result<Pod> {
        let pods: Api<Pod> = Api::namespaced(self.ctx.client.clone(), &self.namespace);
        Ok(pods.get(&pod_name(store)).await?)
    }

    /// Which pod of a store runs and how often it was restarted.
    pub async fn life(&self, store: &str) -> Result<String> {
        Ok(pods::life(&self.pod(store).await?))
    }

    pub async fn replace_pod(&self, store: &str) -> Result {
        pods::replace(&self.ctx.client, &self.namespace, &pod_name(store)).await
    }
}

pub fn pod_name(store: &str) -> String {
    format!("{NAME}-{store}-0")
}
