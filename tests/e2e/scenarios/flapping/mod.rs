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
        audit::Requests,
        conditions::{self, all_true},
        objects::{self, api},
        wait::Watch,
    },
    harness::{About, Result, context::Ctx},
};

const RESTARTS: u32 = 20;
/// A restart every so often: twenty of them within a minute.
const PERIOD: Duration = Duration::from_millis(2900);
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
    tokio::time::sleep(Duration::from_secs(5)).await;
    let mark = ctx.audit()?;
    let mut watch = Watch::open(&databases, name).await?;
    let start = Instant::now();
    for round in 1..=RESTARTS {
        server.stop();
        tokio::time::sleep(AWAY).await;
        server.start()?;
        tokio::time::sleep((PERIOD * round).saturating_sub(start.elapsed())).await;
    }
    let took = start.elapsed().as_secs_f64();
    server.answers().await?;
    let last = Instant::now();
    let well = |object: Option<&DynamicObject>| object.is_some_and(|object| all_true(object, &["Ready", "Available"]));
    // What is Ready now may still be told to have been lost.
    tokio::time::sleep(Duration::from_secs(3)).await;
    watch.until(CALM, "Ready again", well).await?;
    let recovered = last.elapsed().as_secs_f64();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let of = |requests: Requests| {
        Requests(
            requests
                .0
                .into_iter()
                .filter(|request| request.namespace == namespace && request.name == name)
                .collect(),
        )
    };
    let writes = of(mark.requests()?.of("amasdatabases/status"));
    ctx.figure(
        format!("external {name}: {RESTARTS} restarts in {took:.0} s: status writes"),
        writes.len().to_string(),
        format!("<= {WRITES}"),
        writes.len() <= WRITES && took <= 60.0,
    );
    ctx.figure(
        format!("external {name}: Ready after the last restart"),
        format!("{recovered:.1} s"),
        format!("<= {} s", CALM.as_secs()),
        true,
    );
    Ok(())
}
