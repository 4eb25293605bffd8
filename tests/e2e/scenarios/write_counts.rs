//! From create to Ready: how many requests it takes.

use std::collections::BTreeMap;

use amas_operator::api::amas_database::AmasDatabase;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use crate::{
    cluster::{
        audit::{Class, Mark, Requests},
        conditions,
        objects::{self, api, children},
        platform::{PATIENCE, Platform, postgres_only},
        wait,
    },
    harness::{About, Result, context::Ctx},
};

/// A step on the way is written once so many seconds have passed since the last write: a start that takes long has more of them.
const PACE: i64 = 10;

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
    let start = Start::seen(ctx, "PostgreSQL-only", mark, (&namespace, "small")).await?;
    start.judge(3)?;
    let events = start.writes.only(&[Class::Event]).len();
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
    let database = platform.database.name_any();
    Start::seen(ctx, "AMAS (3 objects)", mark, (&namespace, &database))
        .await?
        .judge(12)
}

/// What it took from create to Ready, and what was written after that.
struct Start<'a> {
    ctx: &'a Ctx,
    what: &'a str,
    requests: Requests,
    /// Those of its namespace: databases from before may write too.
    writes: Requests,
    children: Vec<String>,
}

impl<'a> Start<'a> {
    async fn seen(ctx: &'a Ctx, what: &'a str, mark: Mark, (namespace, database): (&str, &str)) -> Result<Self> {
        tokio::time::sleep(wait::SETTLE).await;
        let requests = mark.requests()?;
        Ok(Self {
            ctx,
            what,
            writes: requests.writes().in_namespace(namespace),
            requests,
            children: children(&ctx.client, namespace, database).await?,
        })
    }

    fn judge(&self, allowed: usize) -> Result {
        let Self { ctx, what, writes, .. } = self;
        let children = self.children.len();
        ctx.say(format!("{what}: {children} children: {}", self.children.join(", ")));
        ctx.say(format!("{what}: writes: {writes}"));
        ctx.say(format!(
            "{what}: reads: {}",
            self.requests.only(&[Class::Get, Class::List, Class::Watch])
        ));
        let steps = steps(writes)?;
        let budget = children + allowed + steps;
        if writes.len() > budget {
            ctx.say(writes.lines());
        }
        let statuses = writes.of("amasdatabases/status").len();
        ctx.figure(
            format!("{what}: writes from create to Ready"),
            format!(
                "{} writes for {children} children ({statuses} of its status)",
                writes.len()
            ),
            format!("<= {budget}: children + {allowed} + {steps}, one for each {PACE} s of an object's status writes"),
            writes.len() <= budget,
        );
        let lists = self.requests.only(&[Class::List]);
        ctx.figure(
            format!("{what}: LIST from create to Ready"),
            lists.to_string(),
            "nothing",
            lists.is_empty(),
        );
        Ok(())
    }
}

/// How many steps on the way there is room for between the first and the last status write of each object.
fn steps(writes: &Requests) -> Result<usize> {
    let mut spans: BTreeMap<(&str, &str), (&str, &str)> = BTreeMap::new();
    for request in writes.0.iter().filter(|request| request.resource.ends_with("/status")) {
        let at = request.at.as_str();
        let object = (request.resource.as_str(), request.name.as_str());
        let (first, last) = spans.entry(object).or_insert((at, at));
        *first = at.min(*first);
        *last = at.max(*last);
    }
    let mut steps = 0;
    for (first, last) in spans.into_values() {
        let [first, last] = [first, last].map(|at| at.parse::<Timestamp>().about(at));
        steps += usize::try_from(last?.duration_since(first?).as_secs() / PACE)?;
    }
    Ok(steps)
}
