//! Conditions of an object, read the way a pipeline reads them.

use std::time::Duration;

use kube::{Api, ResourceExt, api::DynamicObject};

use super::wait::Watch;
use crate::harness::Result;

fn list(object: &DynamicObject) -> &[serde_json::Value] {
    object.data["status"]["conditions"]
        .as_array()
        .map_or(&[], Vec::as_slice)
}

fn find<'a>(object: &'a DynamicObject, kind: &str) -> Option<&'a serde_json::Value> {
    list(object).iter().find(|condition| condition["type"] == kind)
}

/// `True`, `False`, `Unknown`; `None` when the condition is absent.
pub fn status<'a>(object: &'a DynamicObject, kind: &str) -> Option<&'a str> {
    find(object, kind)?["status"].as_str()
}

pub fn reason<'a>(object: &'a DynamicObject, kind: &str) -> &'a str {
    find(object, kind)
        .and_then(|condition| condition["reason"].as_str())
        .unwrap_or_default()
}

pub fn message<'a>(object: &'a DynamicObject, kind: &str) -> &'a str {
    find(object, kind)
        .and_then(|condition| condition["message"].as_str())
        .unwrap_or_default()
}

/// Whether all are True and the status is about the present generation.
pub fn all_true(object: &DynamicObject, kinds: &[&str]) -> bool {
    let observed = object.data["status"]["observedGeneration"].as_i64();
    observed == object.metadata.generation && kinds.iter().all(|kind| status(object, kind) == Some("True"))
}

/// Type, status and reason of every condition, without times: what a flip changes.
pub fn summary(object: &DynamicObject) -> String {
    let one = |condition: &serde_json::Value| {
        let text = |key: &str| condition[key].as_str().unwrap_or_default().to_owned();
        format!("{}={}({})", text("type"), text("status"), text("reason"))
    };
    let all: Vec<String> = list(object).iter().map(one).collect();
    if all.is_empty() {
        "no conditions".into()
    } else {
        all.join(" ")
    }
}

/// Waits until `name` has all `kinds` True at its present generation; returns it.
pub async fn wait_true(api: &Api<DynamicObject>, name: &str, kinds: &[&str], limit: Duration) -> Result<DynamicObject> {
    let what = format!("{} True", kinds.join(", "));
    let mut watch = Watch::open(api, name).await?;
    watch
        .until(limit, &what, |object| {
            object.is_some_and(|object| all_true(object, kinds))
        })
        .await?;
    watch.into_object()
}

/// Waits until the condition has the status.
#[allow(dead_code)] // what scenarios of bad input wait with
pub async fn wait_for(
    api: &Api<DynamicObject>,
    name: &str,
    kind: &str,
    wanted: &str,
    limit: Duration,
) -> Result<DynamicObject> {
    let what = format!("{kind}={wanted}");
    let mut watch = Watch::open(api, name).await?;
    watch
        .until(limit, &what, |object| {
            object.is_some_and(|object| status(object, kind) == Some(wanted))
        })
        .await?;
    watch.into_object()
}

/// Name and conditions, for messages.
pub fn describe(object: &DynamicObject) -> String {
    format!("{}: {}", object.name_any(), summary(object))
}
