//! An external server that is restarted twenty times within a minute: few status writes, and Ready again afterwards.

mod server;

use std::time::{Duration, Instant};

use amas_operator::api::amas_database::AmasDatabase;
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api,
    api::{DynamicObject, ListParams},
};
use server::{Engine, Server};

use crate::{
    cluster::{
        audit::Request,
        conditions::{self, all_true, reason},
        objects::{self, api},
        wait::{SETTLE, Watch},
    },
    harness::{About, Result, context::Ctx},
};

const RESTARTS: u32 = 20;
/// A restart every so often: twenty of them within a minute, and some time left.
const PERIOD: Duration = Duration::from_millis(2800);
const MINUTE: Duration = Duration::from_secs(60);
/// How long the server is away each time.
const AWAY: Duration = Duration::from_millis(400);
/// Status writes that this may cost.
const WRITES: usize = 4;
/// How long until Ready after the last restart: half a minute without a loss, and some.
const CALM: Duration = Duration::from_secs(60);
const START: Duration = Duration::from_secs(60);

pub async fn run(ctx: &Ctx) -> Result {
    let namespace = ctx.namespace("external").await?;
    let address = node_address(ctx).await?;
    let redis = Server::new(Engine::Redis, &address)?;
    let postgres = Server::new(Engine::Postgres, &address)?;
    futures::try_join!(
        Box::pin(flap(ctx, &namespace, redis)),
        Box::pin(flap(ctx, &namespace, postgres))
    )?;
    Ok(())
}

/// An address of the node that pods reach.
async fn node_address(ctx: &Ctx) -> Result<String> {
    let nodes: Api<Node> = Api::all(ctx.client.clone());
    let node = nodes
        .list(&ListParams::default())
        .await?
        .items
        .into_iter()
        .next()
        .about("no node")?;
    let addresses = node.status.and_then(|status| status.addresses).unwrap_or_default();
    let internal = addresses.into_iter().find(|address| address.type_ == "InternalIP");
    Ok(internal.about("the node has no address")?.address)
}

async fn flap(ctx: &Ctx, namespace: &str, mut server: Server) -> Result {
    let name = server.engine.name();
    server.start()?;
    server.answers().await?;
    objects::apply(&ctx.client, namespace, &server.objects()?).await?;
    let databases = api::<AmasDatabase>(&ctx.client, namespace);
    conditions::wait_true(&databases, name, &["Ready"], START)
        .await
        .about("Ready at first")?;
    // Writes that belong to the beginning.
    tokio::time::sleep(SETTLE).await;
    let mark = ctx.audit()?;
    let mut watch = Watch::open(&databases, name).await?;
    let (versions, took) = futures::try_join!(watch.record(MINUTE), restarts(&mut server))?;
    let condition = server.engine.condition();
    let told = |version: &DynamicObject| format!("{} ({})", reason(version, "Ready"), reason(version, condition));
    let seen: Vec<String> = versions.iter().map(told).collect();
    let flapped = versions.iter().any(|version| reason(version, condition) == "Flapping");
    ctx.figure(
        format!(
            "external {name}: {RESTARTS} restarts in {:.0} s are told: Ready ({condition})",
            took.as_secs_f64()
        ),
        seen.join(", "),
        "Flapping, once",
        flapped && took <= MINUTE,
    );
    server.answers().await?;
    // Only what the watch tells from here on counts: its last version may be older than the last restart.
    let well = |object: Option<&DynamicObject>| object.is_some_and(|object| all_true(object, &["Ready", "Available"]));
    let from = Instant::now();
    let seen = Watch::open(&databases, name)
        .await?
        .until(CALM, "Ready again", well)
        .await?;
    let value = format!("{:.1} s", seen.duration_since(from).as_secs_f64());
    let target = format!("<= {} s", CALM.as_secs());
    ctx.figure(
        format!("external {name}: Ready after a minute of restarts"),
        value,
        target,
        true,
    );
    tokio::time::sleep(Duration::from_secs(5)).await;
    let ours = |request: &Request| request.namespace == namespace && request.name == name;
    let requests = mark.requests()?.of("amasdatabases/status");
    let writes = requests.0.into_iter().filter(ours).count();
    let target = format!("<= {WRITES}");
    ctx.figure(
        format!("external {name}: status writes"),
        writes.to_string(),
        target,
        writes <= WRITES,
    );
    Ok(())
}

/// The server dies and comes back, again and again; the time that took.
async fn restarts(server: &mut Server) -> Result<Duration> {
    let start = Instant::now();
    for round in 1..=RESTARTS {
        server.stop().await?;
        tokio::time::sleep(AWAY).await;
        server.start()?;
        tokio::time::sleep((PERIOD * round).saturating_sub(start.elapsed())).await;
    }
    Ok(start.elapsed())
}
