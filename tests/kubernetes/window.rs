//! What a newer operator would change of a server waits for the maintenance window, and comes by itself when that opens.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::{
    lifecycle::database,
    support::kubernetes::{Kubernetes, condition_of},
};

/// An object whose window begins then, for an hour.
fn object(begins: Timestamp) -> Value {
    let window = json!({"start": begins.strftime("%H:%M").to_string()});
    let redis = json!({"managed": {"storage": {"size": "1Gi"}}});
    database("a", json!({"maintenanceWindow": window, "redis": redis}))
}

fn image(set: &Value) -> &str {
    let image = set.pointer("/spec/template/spec/containers/0/image");
    image.and_then(Value::as_str).unwrap_or_default()
}

fn pending(object: &Value) -> bool {
    condition_of(object, "UpdatePending").is_some_and(|found| found["status"] == "True")
}

#[tokio::test]
async fn a_newer_image_waits_for_the_window_and_comes_when_it_opens() {
    let api = Kubernetes::shared().await;
    let ns = api.namespace("window").await;
    let mut old = ns.operator(&[("AMAS_IMAGE_OVERRIDES", "redis:8=localhost/old")]).await;
    let hours = |hours| Timestamp::now() + SignedDuration::from_hours(hours);
    ns.apply(object(hours(6))).await;
    ns.wait("StatefulSet", "a-redis", "made", |set| image(set) == "localhost/old")
        .await;
    old.stop();

    let settings = [("AMAS_IMAGE_OVERRIDES", "redis:8=localhost/new"), ("POD_NAME", "new")];
    let _new = ns.operator(&settings).await;
    ns.wait("AmasDatabase", "a", "told that something waits", pending).await;
    let set = ns.get("StatefulSet", "a-redis").await.unwrap();
    assert_eq!(image(&set), "localhost/old", "the window is closed");

    // The next full minute.
    let begins = Timestamp::now() + SignedDuration::from_secs(60);
    ns.apply(object(begins)).await;
    let until = Duration::try_from(begins.duration_since(Timestamp::now())).unwrap_or_default();
    tokio::time::sleep(until).await;
    ns.wait("StatefulSet", "a-redis", "updated in the window", |set| {
        image(set) == "localhost/new"
    })
    .await;
    ns.wait("AmasDatabase", "a", "done", |object| !pending(object)).await;
}
