//! The same with an operator that dies of each write on the server: before it arrives, and after it was carried out. The next one knows only the Secret.

use std::time::Instant;

use amas_operator::{
    controllers::credentials::Purpose,
    stores::{endpoint::Endpoint, keeper::Store},
};

use super::{
    Answer, Clients, Engine, Login, Secret, graph, neo4j_engine, opens_neo4j, opens_redis, redis_engine, rotate,
    settle, works,
};
use crate::support::{
    fault::{Fault, Which},
    neo4j::Neo4jServer,
    redis::{Program, RedisServer},
    store_proxy::{Protocol, StoreProxy},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_rotates_past_every_write() {
    let server = RedisServer::start(Program::Redis, "").await;
    let proxy = StoreProxy::start(Protocol::Redis, server.port).await;
    let secret = Secret::new(Purpose::Redis, server.endpoint().password.reveal());
    let mut engine = redis_engine(Endpoint {
        port: proxy.port,
        ..server.endpoint()
    });
    engine.spoilt = Some(proxy.plan.clone());
    let port = server.port;
    past_every_write("Redis", &secret, &engine, move |login| opens_redis(port, login)).await;
    super::agrees_with_its_file(&secret, port).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neo4j_rotates_past_every_write() {
    let Some(server) = Neo4jServer::start().await else {
        return;
    };
    let proxy = StoreProxy::start(Protocol::Bolt, server.port).await;
    let endpoint = server.endpoint();
    let secret = Secret::new(graph(), endpoint.password.reveal());
    let through = Endpoint {
        port: proxy.port,
        ..endpoint.clone()
    };
    let mut engine = neo4j_engine(secret.spec.clone(), through);
    engine.spoilt = Some(proxy.plan.clone());
    let open = move |login| opens_neo4j(endpoint.clone(), login);
    past_every_write("Neo4j", &secret, &engine, open).await;
}

async fn past_every_write<S: Store, F>(
    name: &str,
    secret: &Secret,
    engine: &Engine<S>,
    open: impl Fn(Login) -> F + Clone + Send + Sync + 'static,
) where
    F: Future<Output = Answer> + Send,
{
    let began = Instant::now();
    let plan = engine.spoilt.as_ref().unwrap();
    settle(secret, engine).await;
    plan.begin(None);
    rotate(secret, "undisturbed", engine, || true).await;
    let all = plan.writes();
    assert!(all.len() >= 2, "{all:?}");
    let clients = Clients::start(secret, open.clone());
    for number in 1..=all.len() {
        for fault in [Fault::Swallowed, Fault::LostAnswer] {
            let before = secret.login();
            plan.begin(Some((Which::Number(number), fault)));
            let value = format!("{number} {fault:?}");
            let deaths = rotate(secret, &value, engine, || clients.have_moved(secret)).await;
            assert_eq!(deaths, 1, "of write {value} of {all:?}");
            assert!(works(&open, &secret.login()).await, "{value}: the new password");
            assert!(!works(&open, &before).await, "{value}: the password before is over");
        }
    }
    let logins = clients.end().await;
    let rotations = 2 * all.len();
    assert_eq!(secret.state().rotation.count, u64::try_from(rotations).unwrap() + 1);
    println!(
        "{name}: killed before and after each of {} writes of a rotation, {rotations} rotations in {:.1} s, {logins} logins, none refused",
        all.len(),
        began.elapsed().as_secs_f64()
    );
}
