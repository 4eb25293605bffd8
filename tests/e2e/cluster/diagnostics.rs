//! What a failed scenario leaves for whoever reads it: our objects, pods, events, the operator's log.

use amas_operator::api::{amas_database::AmasDatabase, cache_policy::CachePolicy, graph_schema::GraphSchema};
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{Event, PersistentVolumeClaim, Pod},
};
use kube::{
    Api, Resource, ResourceExt,
    api::{DynamicObject, ListParams},
};

use super::{conditions, objects, operator};
use crate::harness::{Result, context::Ctx};

pub async fn print(ctx: &Ctx) {
    for namespace in ctx.namespaces() {
        println!("  -- namespace {namespace}");
        if let Err(error) = namespace_state(ctx, &namespace).await {
            println!("  (cannot be read: {error})");
        }
    }
    println!("  -- operator");
    match operator::log(ctx, 40).await {
        Ok(log) => ctx.say(log),
        Err(error) => println!("  (no log: {error})"),
    }
}

async fn namespace_state(ctx: &Ctx, namespace: &str) -> Result {
    kind::<AmasDatabase>(ctx, namespace).await?;
    kind::<CachePolicy>(ctx, namespace).await?;
    kind::<GraphSchema>(ctx, namespace).await?;
    for pod in list::<Pod>(ctx, namespace).await? {
        ctx.say(format!("Pod {}: {}", pod.name_any(), pod_state(&pod)));
    }
    for object in list::<Job>(ctx, namespace)
        .await?
        .into_iter()
        .chain(list::<PersistentVolumeClaim>(ctx, namespace).await?)
    {
        ctx.say(format!("{}: {}", object.name_any(), object.data["status"]));
    }
    let events: Api<Event> = Api::namespaced(ctx.client.clone(), namespace);
    let telling = |event: &Event| {
        let ours = event
            .reporting_component
            .as_deref()
            .is_some_and(|name| name.contains("amas"));
        ours || event.type_.as_deref() == Some("Warning")
    };
    for event in events.list(&ListParams::default()).await?.into_iter().filter(telling) {
        let object = event.involved_object;
        let name = [object.kind.unwrap_or_default(), object.name.unwrap_or_default()].join("/");
        ctx.say(format!(
            "Event {name} {}: {}",
            event.reason.unwrap_or_default(),
            event.message.unwrap_or_default()
        ));
    }
    Ok(())
}

async fn list<K: Resource<DynamicType = ()>>(ctx: &Ctx, namespace: &str) -> Result<Vec<DynamicObject>> {
    Ok(objects::api::<K>(&ctx.client, namespace)
        .list(&ListParams::default())
        .await?
        .items)
}

/// One of our kinds: conditions with messages, and the rest of the status.
async fn kind<K: Resource<DynamicType = ()>>(ctx: &Ctx, namespace: &str) -> Result {
    // Without the CRD there is nothing to show.
    for mut object in list::<K>(ctx, namespace).await.unwrap_or_default() {
        ctx.say(format!("{} {}", K::kind(&()), conditions::describe(&object)));
        for kind in [
            "Ready",
            "PostgresReady",
            "RedisReady",
            "Neo4jReady",
            "MigrationsApplied",
            "PoliciesReady",
        ] {
            let message = conditions::message(&object, kind);
            if !message.is_empty() && conditions::status(&object, kind) != Some("True") {
                ctx.say(format!("  {kind}: {message}"));
            }
        }
        let mut status = object.data["status"].take();
        if let Some(fields) = status.as_object_mut() {
            fields.remove("conditions");
        }
        ctx.say(format!("  {status}"));
    }
    Ok(())
}

fn pod_state(pod: &DynamicObject) -> String {
    let status = &pod.data["status"];
    let containers = status["containerStatuses"].as_array().cloned().unwrap_or_default();
    let one = |container: &serde_json::Value| {
        format!(
            "ready={} restarts={} {}",
            container["ready"], container["restartCount"], container["state"]
        )
    };
    let all: Vec<String> = containers.iter().map(one).collect();
    format!("{} {}", status["phase"].as_str().unwrap_or("?"), all.join("; "))
}
