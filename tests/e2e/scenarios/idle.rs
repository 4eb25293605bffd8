//! Nothing to do means nothing done: a second apply, and a busy cluster at rest.

use std::time::Duration;

use crate::{
    cluster::{
        audit::{Class, Requests},
        objects, operator,
        platform::{Platform, postgres_only, wait_postgres_only},
        process,
    },
    harness::{About, Result, context::Ctx},
    scenarios::load,
};

/// Databases beside the platform.
const MORE: usize = 10;
/// What the operator's resident memory is to stay under, in MiB.
const MEMORY: f64 = 17.0;
/// What its image is to stay under, in MB.
const IMAGE: f64 = 25.0;
/// Time for what follows Ready.
const SETTLE: Duration = Duration::from_secs(10);

pub async fn run(ctx: &Ctx) -> Result {
    let platform = Platform::load(ctx)?;
    let namespace = platform.up(ctx, "amas").await?;
    tokio::time::sleep(SETTLE).await;
    second_apply(ctx, &platform, &namespace).await?;
    memory(ctx, "1 database").await?;
    more_databases(ctx).await?;
    at_rest(ctx, &platform, &namespace).await?;
    memory(ctx, "11 databases").await?;
    image(ctx)
}

async fn second_apply(ctx: &Ctx, platform: &Platform, namespace: &str) -> Result {
    let mark = ctx.audit()?;
    platform.apply(ctx, namespace).await?;
    tokio::time::sleep(SETTLE).await;
    let writes = mark.requests()?.writes();
    ctx.figure(
        "second apply: writes by the operator",
        writes.to_string(),
        "nothing",
        writes.is_empty(),
    );
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
    // The first operations make rows and keys; what is measured is the steady state.
    load.run(SETTLE).await?;
    let pid = operator::pid(ctx).await?;
    let cpu = process::cpu_seconds(pid)?;
    let mark = ctx.audit()?;
    let done = load.run(ctx.settings.idle).await?;
    let requests = mark.requests()?;
    let seconds = ctx.settings.idle.as_secs_f64();
    let cpu = 1000.0 * (process::cpu_seconds(pid)? - cpu) / seconds;
    ctx.say(format!("the operator used {cpu:.1} ms of CPU a second"));
    ctx.figure(
        "at rest: what clients did meanwhile",
        done.to_string(),
        "200 of each",
        done.lowest() >= 190.0,
    );
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

async fn memory(ctx: &Ctx, when: &str) -> Result {
    let resident = process::resident(operator::pid(ctx).await?)?;
    ctx.figure(
        format!("operator memory, {when}"),
        format!("{resident:.1} MiB"),
        format!("< {MEMORY} MiB"),
        resident < MEMORY,
    );
    Ok(())
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
