//! Nothing to do means nothing done: a second apply, and a busy cluster at rest.

use std::time::Duration;

use crate::{
    cluster::{
        audit::{Class, Requests},
        objects, operator,
        platform::{Platform, postgres_only, wait_postgres_only},
        process,
        quiet::Quiet,
        wait::SETTLE,
    },
    harness::{About, Result, context::Ctx},
    scenarios::load::{self, RATE},
};

/// Databases beside the platform.
const MORE: usize = 10;
/// What the operator's resident memory is to stay under, in MiB.
const MEMORY: f64 = 17.0;
/// What its image is to stay under, in MB.
const IMAGE: f64 = 25.0;
/// How often memory is looked at.
const SAMPLES: u32 = 6;
/// The share of what the machine gives that clients must be given all the time.
const KEPT_UP: f64 = 0.9;

pub async fn run(ctx: &Ctx) -> Result {
    let platform = Platform::load(ctx)?;
    let namespace = platform.up(ctx, "amas").await?;
    Quiet::everywhere(ctx).settled().await?;
    second_apply(ctx, &platform, &namespace).await?;
    more_databases(ctx).await?;
    at_rest(ctx, &platform, &namespace).await?;
    image(ctx)
}

async fn second_apply(ctx: &Ctx, platform: &Platform, namespace: &str) -> Result {
    let again = async || {
        platform.apply(ctx, namespace).await?;
        least_memory(ctx, SETTLE).await
    };
    let (memory, requests) = Quiet::everywhere(ctx).watch(again).await?;
    let writes = requests.writes();
    ctx.figure(
        "second apply: writes by the operator",
        writes.to_string(),
        "nothing",
        writes.is_empty(),
    );
    memory_figure(ctx, "1 database", memory);
    Ok(())
}

/// Two at a time, so that the node stays answerable.
async fn more_databases(ctx: &Ctx) -> Result {
    let namespace = ctx.namespace("more").await?;
    let names: Vec<String> = (1..=MORE).map(|number| format!("small-{number}")).collect();
    for pair in names.chunks(2) {
        for name in pair {
            objects::apply(&ctx.client, &namespace, &postgres_only(name)?).await?;
        }
        wait_postgres_only(ctx, &namespace, pair).await?;
    }
    ctx.say(format!("{MORE} more databases are Ready"));
    Ok(())
}

async fn at_rest(ctx: &Ctx, platform: &Platform, namespace: &str) -> Result {
    let load = load::Load::prepare(ctx, namespace, &platform.name()).await?;
    let quiet = Quiet::everywhere(ctx);
    // The first operations make rows and keys; what is measured is the steady state, and this is what the machine gives.
    let warm = quiet.settle(async || load.run(SETTLE).await).await?;
    let pid = operator::pid(ctx).await?;
    let measure = async || {
        let cpu = process::cpu_seconds(pid)?;
        let (done, memory) = futures::try_join!(load.run(ctx.settings.idle), least_memory(ctx, ctx.settings.idle))?;
        Ok((done, memory, process::cpu_seconds(pid)? - cpu))
    };
    let ((done, memory, cpu), requests) = quiet.watch(measure).await?;
    let seconds = ctx.settings.idle.as_secs_f64();
    ctx.say(format!(
        "the operator used {:.1} ms of CPU a second",
        1000.0 * cpu / seconds
    ));
    let wanted = KEPT_UP * warm.lowest().min(RATE);
    ctx.figure(
        "at rest: what clients did meanwhile",
        done.to_string(),
        format!("{wanted:.0} of each: {KEPT_UP} of {RATE}, or of what the machine gave before ({warm})"),
        done.lowest() >= wanted,
    );
    memory_figure(ctx, "11 databases", memory);
    judge(ctx, &requests, seconds);
    Ok(())
}

fn judge(ctx: &Ctx, requests: &Requests, seconds: f64) {
    let lease = requests.only(&[Class::Lease]);
    let watches = requests.only(&[Class::Watch]);
    let rest = requests.only(&[Class::List, Class::Get, Class::Event, Class::Write, Class::Other]);
    let rate = format!(
        "{} in {seconds:.0} s ({:.2} a second)",
        lease,
        lease.len() as f64 / seconds
    );
    let most = watches.by_kind().into_values().max().unwrap_or(0);
    ctx.say(format!("watches: {watches}"));
    ctx.figure(
        "at rest, 11 databases under load: lease requests",
        rate,
        "the lease only",
        !lease.is_empty(),
    );
    ctx.figure("at rest: watch requests a kind", most.to_string(), "<= 2", most <= 2);
    ctx.figure("at rest: anything else", rest.to_string(), "nothing", rest.is_empty());
}

/// The least that the operator takes within a time: what it needs, without what a moment adds.
async fn least_memory(ctx: &Ctx, time: Duration) -> Result<f64> {
    let pid = operator::pid(ctx).await?;
    let mut least = f64::INFINITY;
    for _ in 0..SAMPLES {
        tokio::time::sleep(time / SAMPLES).await;
        least = least.min(process::resident(pid)?);
    }
    Ok(least)
}

fn memory_figure(ctx: &Ctx, when: &str, resident: f64) {
    ctx.figure(
        format!("operator memory, {when}"),
        format!("{resident:.1} MiB"),
        format!("< {MEMORY} MiB"),
        resident < MEMORY,
    );
}

fn image(ctx: &Ctx) -> Result {
    let Some(path) = &ctx.settings.image_tar else {
        ctx.say("image size not looked at: AMAS_IMAGE_TAR names no archive");
        return Ok(());
    };
    let size = std::fs::metadata(path).about(path.display())?.len() as f64 / 1e6;
    ctx.figure(
        "operator image",
        format!("{size:.1} MB"),
        format!("< {IMAGE} MB"),
        size < IMAGE,
    );
    Ok(())
}
