//! From create to Ready: how many requests it takes.

use std::time::Duration;

use amas_operator::api::amas_database::AmasDatabase;
use kube::ResourceExt;

use crate::{
    cluster::{
        audit::{Class, Requests},
        conditions,
        objects::{self, api, children},
        platform::{PATIENCE, Platform, postgres_only},
    },
    harness::{Result, context::Ctx},
};

/// Time for writes that come after Ready.
const SETTLE: Duration = Duration::from_secs(5);

pub async fn run(ctx: &Ctx) -> Result {
    small(ctx).await?;
    Box::pin(platform(ctx)).await
}

async fn small(ctx: &Ctx) -> Result {
    let namespace = ctx.namespace("small").await?;
    let mark = ctx.audit()?;
    objects::apply(&ctx.client, &namespace, &postgres_only("small")?).await?;
    let databases = api::<AmasDatabase>(&ctx.client, &namespace);
    conditions::wait_true(&databases, "small", &["Ready", "PostgresReady"], PATIENCE).await?;
    tokio::time::sleep(SETTLE).await;
    let requests = mark.requests()?;
    let children = children(&ctx.client, &namespace, "small").await?;
    judge(ctx, "PostgreSQL-only", &requests, &children, 3);
    let events = requests.only(&[Class::Event]).len();
    ctx.figure(
        "PostgreSQL-only: Events from create to Ready",
        events.to_string(),
        "<= 3",
        events <= 3,
    );
    Ok(())
}

async fn platform(ctx: &Ctx) -> Result {
    let platform = Platform::load(ctx)?;
    let namespace = ctx.namespace("amas").await?;
    let mark = ctx.audit()?;
    platform.apply(ctx, &namespace).await?;
    platform.wait_ready(ctx, &namespace).await?;
    tokio::time::sleep(SETTLE).await;
    let requests = mark.requests()?;
    let children = children(&ctx.client, &namespace, &platform.database.name_any()).await?;
    judge(ctx, "AMAS (3 objects)", &requests, &children, 12);
    Ok(())
}

fn judge(ctx: &Ctx, what: &str, requests: &Requests, children: &[String], allowed: usize) {
    let writes = requests.writes();
    ctx.say(format!("{what}: {} children: {}", children.len(), children.join(", ")));
    ctx.say(format!("{what}: writes: {writes}"));
    ctx.say(format!(
        "{what}: reads: {}",
        requests.only(&[Class::Get, Class::List, Class::Watch])
    ));
    let budget = children.len() + allowed;
    if writes.len() > budget {
        ctx.say(writes.lines());
    }
    let statuses = requests.of("amasdatabases/status").len();
    let value = format!(
        "{} writes for {} children ({statuses} of its status)",
        writes.len(),
        children.len()
    );
    ctx.figure(
        format!("{what}: writes from create to Ready"),
        value,
        format!("<= {budget}"),
        writes.len() <= budget,
    );
    let lists = requests.only(&[Class::List]);
    ctx.figure(
        format!("{what}: LIST from create to Ready"),
        lists.to_string(),
        "nothing",
        lists.is_empty(),
    );
}
