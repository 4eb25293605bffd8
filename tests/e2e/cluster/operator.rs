//! The operator as it runs in the cluster: its pod, process and log.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{ListParams, LogParams},
};

use super::{process, wait};
use crate::harness::{About, Result, context::Ctx};

fn pods(ctx: &Ctx) -> Api<Pod> {
    Api::namespaced(ctx.client.clone(), &ctx.settings.operator_namespace)
}

/// How long an operator that was busy may take to be ready again.
const READY: Duration = Duration::from_secs(60);

/// Fails plainly when the operator is not installed or not ready.
pub async fn check(ctx: &Ctx) -> Result {
    wait::retry(READY, async || pod(ctx).await)
        .await
        .about(format!(
            "the operator must run in namespace {}",
            ctx.settings.operator_namespace
        ))
        .map(|_| ())
}

/// The ready pod of the operator.
pub async fn pod(ctx: &Ctx) -> Result<Pod> {
    let selector = ListParams::default().labels("app.kubernetes.io/name=amas-operator");
    let found = pods(ctx).list(&selector).await?;
    found
        .into_iter()
        .find(ready)
        .about("no ready pod with label app.kubernetes.io/name=amas-operator")
}

fn ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions
        .into_iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The operator's process.
pub async fn pid(ctx: &Ctx) -> Result<i32> {
    Ok(process::of_pod(&pod(ctx).await?)?.main)
}

/// Waits until a process other than `old` is the ready operator's.
pub async fn restarted(ctx: &Ctx, old: i32, limit: Duration) -> Result<i32> {
    let attempt = async || {
        let pid = pid(ctx).await?;
        crate::ensure!(pid != old, "the operator's process is still {old}");
        Ok(pid)
    };
    wait::retry(limit, attempt).await.about("the operator restarts")
}

/// The last lines of its log; of the container before too, when there was one.
pub async fn log(ctx: &Ctx, lines: i64) -> Result<String> {
    let pod = pod(ctx).await?;
    let name = pod.metadata.name.about("a pod without a name")?;
    let params = LogParams {
        tail_lines: Some(lines),
        ..LogParams::default()
    };
    let previous = pods(ctx)
        .logs(
            &name,
            &LogParams {
                previous: true,
                ..params.clone()
            },
        )
        .await
        .unwrap_or_default();
    Ok(previous + &pods(ctx).logs(&name, &params).await?)
}
