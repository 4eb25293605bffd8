//! Namespaces of scenarios: made fresh, and cleared quickly.

use std::time::Duration;

use amas_operator::api::{amas_database::AmasDatabase, cache_policy::CachePolicy, graph_schema::GraphSchema};
use k8s_openapi::api::{
    apps::v1::StatefulSet,
    batch::v1::Job,
    core::v1::{Namespace, Pod, ServiceAccount},
};
use kube::{
    Api, Client,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, PostParams},
};
use serde_json::json;

use super::{objects, wait};
use crate::harness::{About, Result, context::Ctx};

/// How long things may take to begin and to end.
const PATIENCE: Duration = Duration::from_secs(120);

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
    let accounts = objects::api::<ServiceAccount>(client, name);
    let mut account = wait::Watch::open(&accounts, "default").await?;
    account
        .until(PATIENCE, "the default service account", |found| found.is_some())
        .await?;
    Ok(())
}

/// Deletes a namespace with everything in it and waits until it is gone.
async fn remove(client: &Client, name: &str) -> Result {
    let namespaces = Api::all_with(client.clone(), &objects::resource::<Namespace>());
    if namespaces.get_opt(name).await?.is_none() {
        return Ok(());
    }
    empty(client, name).await?;
    wait::gone(&namespaces, name, PATIENCE)
        .await
        .about(format!("namespace {name}"))
}

/// Deletes a namespace and waits until nothing runs in it any more; what is left of it goes by itself. Databases get a second to stop.
///
/// In the order in which nothing comes back, and pods first: the namespace controller comes by rarely while pods have time to end.
async fn empty(client: &Client, name: &str) -> Result {
    for kind in [
        objects::resource::<AmasDatabase>(),
        objects::resource::<CachePolicy>(),
        objects::resource::<GraphSchema>(),
    ] {
        delete_all(client, name, &kind).await?;
    }
    delete_all(client, name, &objects::resource::<StatefulSet>()).await?;
    delete_all(client, name, &objects::resource::<Job>()).await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), name);
    let no_pods = async || {
        pods.delete_collection(&DeleteParams::default().grace_period(1), &ListParams::default())
            .await?;
        let left = pods.list(&ListParams::default()).await?.items.len();
        crate::ensure!(left == 0, "{left} pods are left");
        Ok(())
    };
    wait::retry(PATIENCE, no_pods).await.about(format!("pods of {name}"))?;
    let api: Api<Namespace> = Api::all(client.clone());
    api.delete(name, &DeleteParams::default())
        .await
        .about(format!("delete namespace {name}"))
        .map(|_| ())
}

/// Deletes all objects of a kind; a kind that the cluster does not know has none.
async fn delete_all(client: &Client, namespace: &str, kind: &ApiResource) -> Result {
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, kind);
    match api
        .delete_collection(&DeleteParams::background(), &ListParams::default())
        .await
    {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        outcome => outcome.about(format!("delete {}", kind.plural)).map(|_| ()),
    }
}

/// Removes what a scenario made. A failure here is said, not counted.
pub async fn clear(ctx: &Ctx) {
    for name in ctx.namespaces() {
        discard(ctx, &name).await;
    }
}

/// Removes one namespace of the scenario before its end.
pub async fn discard(ctx: &Ctx, name: &str) {
    if let Err(error) = empty(&ctx.client, name).await {
        ctx.say(format!("note: {error}"));
    }
    ctx.forget_namespace(name);
}
