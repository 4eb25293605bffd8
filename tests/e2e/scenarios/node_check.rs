//! The suite's hands on the node, tried on servers that were started by hand: load, signals, the power switch.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use kube::Api;

use super::load::Load;
use crate::{
    arms::{by_hand::ByHand, platform},
    cluster::{clients, node, platform::Platform, process, wait},
    ensure,
    harness::{About, Result, context::Ctx},
};

const PATIENCE: Duration = Duration::from_secs(120);

pub async fn run(ctx: &Ctx) -> Result {
    let namespace = ctx.namespace("servers").await?;
    let platform = Platform::load(ctx)?;
    let hand = ByHand::new(ctx, &namespace);
    platform::by_hand(&platform, &hand).await?;
    let load = Load::on(platform::floor_stores(&platform, &hand).await?);
    for _ in 0..3 {
        ctx.say(load.run(Duration::from_secs(5)).await?.to_string());
    }
    drop(load);
    for store in ["postgres", "redis", "neo4j"] {
        signals(ctx, &namespace, store).await?;
    }
    let mut session = clients::redis(&hand.redis_url()).await?;
    redis::cmd("SET")
        .arg("kept")
        .arg("yes")
        .exec_async(&mut session)
        .await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    node::stop(ctx).await?;
    let down = clients::redis(&hand.redis_url()).await.is_err();
    node::start(ctx).await?;
    ensure!(down, "Redis answered while the node was stopped");
    wait::retry(PATIENCE, async || {
        clients::postgres(&hand.postgres_url("amas_app", "amas")).await
    })
    .await?;
    let mut session = wait::retry(PATIENCE, async || clients::redis(&hand.redis_url()).await).await?;
    let kept: Option<String> = redis::cmd("GET").arg("kept").query_async(&mut session).await?;
    ensure!(
        kept.as_deref() == Some("yes"),
        "a key from before the power cut: expected yes, seen {kept:?}"
    );
    Ok(())
}

/// Stops, continues and kills the server; a killed one comes back as another process.
async fn signals(ctx: &Ctx, namespace: &str, store: &str) -> Result {
    let pods: Api<Pod> = Api::namespaced(ctx.client.clone(), namespace);
    let name = format!("floor-{store}-0");
    let before = process::of_pod(&pods.get(&name).await?)?;
    let stopped = process::stop_all(&pods.get(&name).await?).await?;
    let still = stopped.iter().filter(|&&pid| process::is_stopped(pid)).count();
    process::signal("CONT", &stopped).await?;
    ensure!(
        still == stopped.len() && still > 0,
        "{still} of {} processes of {name} stopped",
        stopped.len()
    );
    let memory = process::resident(before.main)?;
    let start = Instant::now();
    process::signal("KILL", &[before.main]).await?;
    let restarted = async || {
        let main = process::of_pod(&pods.get(&name).await?)?.main;
        ensure!(main != before.main, "the process of {name} is still {main}");
        Ok(())
    };
    wait::retry(PATIENCE, restarted)
        .await
        .about(format!("{name} restarts"))?;
    let took = start.elapsed().as_secs_f64();
    ctx.say(format!(
        "{name}: {} processes, {memory:.0} MiB, restarted {took:.1} s after SIGKILL",
        before.all.len()
    ));
    Ok(())
}
