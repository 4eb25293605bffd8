//! Namespaces of scenarios: made fresh, and cleared quickly.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::json;

use super::{objects, wait};
use crate::harness::{About, Result, context::Ctx};

/// Makes a namespace that enforces the restricted level; an old one of the name is removed first.
pub async fn create(client: &Client, name: &str) -> Result {
    remove(client, name).await?;
    let namespace = json!({
        "metadata": { "name": name, "labels": {
            "pod-security.kubernetes.io/enforce": "restricted",
            "app.kubernetes.io/part-of": "amas-e2e",
        } },
    });
    let api: Api<Namespace> = Api::all(client.clone());
    api.create(&PostParams::default(), &serde_json::from_value(namespace)?)
        .await?;
    // Pods are admitted only once the account exists.
    let accounts = objects::api::<k8s_openapi::api::core::v1::ServiceAccount>(client, name);
    let mut account = wait::Watch::open(&accounts, "default").await?;
    account
        .until(Duration::from_secs(30), "the default service account", |found| {
            found.is_some()
        })
        .await?;
    Ok(())
}

/// Deletes a namespace with everything in it and waits until it is gone. Databases get a second to stop.
pub async fn remove(client: &Client, name: &str) -> Result {
    let api: Api<Namespace> = Api::all(client.clone());
    if api.get_opt(name).await?.is_none() {
        return Ok(());
    }
    api.delete(name, &DeleteParams::default())
        .await
        .about(format!("delete namespace {name}"))?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), name);
    let soon = DeleteParams::default().grace_period(1);
    pods.delete_collection(&soon, &ListParams::default()).await?;
    let namespaces = Api::all_with(client.clone(), &objects::resource::<Namespace>());
    wait::gone(&namespaces, name, Duration::from_secs(120))
        .await
        .about(format!("namespace {name}"))
}

/// Removes what the present scenario made. A failure here is said, not counted.
pub async fn clear(ctx: &Ctx) {
    for name in ctx.namespaces() {
        discard(ctx, &name).await;
    }
}

/// Removes one namespace of the scenario before its end.
pub async fn discard(ctx: &Ctx, name: &str) {
    if let Err(error) = remove(&ctx.client, name).await {
        ctx.say(format!("note: {error}"));
    }
    ctx.forget_namespace(name);
}
