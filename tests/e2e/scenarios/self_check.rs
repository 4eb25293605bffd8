//! The suite's own parts, so that a zero in the table means nothing happened and not that nothing was seen.

use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, DynamicObject};

use crate::{
    cluster::{
        audit::{self, Class},
        objects,
        quiet::Quiet,
        wait,
    },
    ensure,
    harness::{About, Result, context::Ctx},
};

pub async fn run(ctx: &Ctx) -> Result {
    audit_lines()?;
    audit_log(ctx).await?;
    watches(ctx).await
}

fn line(agent: &str, stage: &str, verb: &str, object: &str) -> String {
    format!(
        r#"{{"kind":"Event","stage":"{stage}","verb":"{verb}","userAgent":"{agent}","objectRef":{{{object}}},"responseStatus":{{"code":200}}}}"#
    )
}

fn audit_lines() -> Result {
    let ours = "amas-operator/0.1.0";
    let status = r#""resource":"amasdatabases","subresource":"status","apiGroup":"amas.dev","name":"a""#;
    let cases = [
        (
            line(ours, "ResponseComplete", "patch", status),
            Some((Class::Write, "amasdatabases/status")),
        ),
        (line("kubectl/v1", "ResponseComplete", "patch", status), None),
        (
            line(ours, "ResponseStarted", "watch", r#""resource":"pods""#),
            Some((Class::Watch, "pods")),
        ),
        (line(ours, "ResponseComplete", "watch", r#""resource":"pods""#), None),
        (
            line(ours, "ResponseComplete", "list", r#""resource":"pods""#),
            Some((Class::List, "pods")),
        ),
        (
            line(ours, "ResponseComplete", "get", r#""resource":"secrets""#),
            Some((Class::Get, "secrets")),
        ),
        (
            line(ours, "ResponseComplete", "update", r#""resource":"leases""#),
            Some((Class::Lease, "leases")),
        ),
        (
            line(ours, "ResponseComplete", "create", r#""resource":"events""#),
            Some((Class::Event, "events")),
        ),
        (line(ours, "ResponseComplete", "get", ""), Some((Class::Other, ""))),
    ];
    for (text, expected) in cases {
        let seen = audit::request(&text);
        let seen = seen.as_ref().map(|request| (request.class, request.resource.as_str()));
        ensure!(
            seen == expected,
            "audit line {text}: expected {expected:?}, seen {seen:?}"
        );
    }
    Ok(())
}

/// A request by somebody who says to be the operator is found in the real log, after the mark and not before.
async fn audit_log(ctx: &Ctx) -> Result {
    let Some(path) = &ctx.settings.audit_log else {
        ctx.say("AMAS_AUDIT_LOG is not set: the log itself is not looked at");
        return Ok(());
    };
    let namespace = ctx.namespace("audit").await?;
    let mut config = kube::Config::infer().await?;
    config
        .headers
        .push((http_name("user-agent")?, "amas-operator/self-check".parse()?));
    let client = kube::Client::try_from(config)?;
    let map = r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "seen"}}"#;
    let apply = async || objects::apply(&client, &namespace, &objects::parse(map)?).await;
    let (_, requests) = Quiet::within(ctx, &namespace).watch(apply).await?;
    let writes = requests.writes();
    ensure!(writes.len() == 1, "expected one patch of a ConfigMap, seen: {writes}");
    ensure!(
        audit::Mark::now(path)?.requests()?.is_empty(),
        "a request was counted twice"
    );
    ctx.say(format!("the audit log has: {writes}"));
    Ok(())
}

fn http_name<N: std::str::FromStr<Err: Into<crate::harness::Failure>>>(name: &str) -> Result<N> {
    name.parse().about(name)
}

/// A change and a deletion are seen by a watch that was opened before the object existed.
async fn watches(ctx: &Ctx) -> Result {
    let namespace = ctx.namespace("watch").await?;
    let maps = objects::api::<ConfigMap>(&ctx.client, &namespace);
    let soon = Duration::from_secs(5);
    let mut watch = wait::Watch::open(&maps, "seen").await?;
    ensure!(watch.current().is_none(), "an object that nobody made is there");
    for value in ["1", "2"] {
        let map = format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: seen}}, data: {{value: '{value}'}}}}");
        objects::apply(&ctx.client, &namespace, &objects::parse(&map)?).await?;
        let holds =
            |object: Option<&DynamicObject>| object.is_some_and(|object| object.data["data"]["value"] == *value);
        watch.until(soon, "the new value", holds).await?;
    }
    maps.delete("seen", &DeleteParams::default()).await?;
    watch.until(soon, "gone", |object| object.is_none()).await.map(|_| ())
}
