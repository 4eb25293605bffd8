//! How long stores take to answer. One that stands still with its machine is truly down for a while, and what the operator says then is no noise.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use futures::future::join_all;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt, api::ListParams};
use redis::aio::MultiplexedConnection;
use sqlx::PgConnection;

use super::clients::{self, Values};
use crate::harness::{Result, context::Ctx};

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(500);
/// What no answer counts as: a session may have ended.
const LOST: Duration = Duration::from_secs(60);

enum Store {
    Postgres(PgConnection),
    Redis(MultiplexedConnection),
    Neo4j(neo4rs::Graph),
}

impl Store {
    /// By a Secret that the operator publishes; nothing when it is another one, or its server is not there.
    async fn open(secret: &Values) -> Option<Self> {
        if let Ok(url) = secret.get("DATABASE_URL") {
            return clients::postgres(url).await.ok().map(Self::Postgres);
        }
        if let Ok(url) = secret.get("REDIS_URL") {
            return clients::redis(url).await.ok().map(Self::Redis);
        }
        let [uri, user, password] = ["NEO4J_URI", "NEO4J_USER", "NEO4J_PASSWORD"].map(|key| secret.get(key).ok());
        clients::neo4j(uri?, user?, password?).await.ok().map(Self::Neo4j)
    }

    async fn ask(&mut self) -> Result {
        match self {
            Self::Postgres(session) => clients::sql(session, "SELECT 1").await,
            Self::Redis(connection) => Ok(redis::cmd("PING").exec_async(connection).await?),
            Self::Neo4j(graph) => clients::run(graph, neo4rs::query("RETURN 1")).await,
        }
    }

    async fn answer(&mut self) -> Duration {
        let asked = Instant::now();
        match tokio::time::timeout(LOST, self.ask()).await {
            Ok(Ok(())) => asked.elapsed(),
            _ => LOST,
        }
    }
}

/// Sessions on the stores of namespaces.
pub struct Pulse(Vec<Store>);

impl Pulse {
    pub async fn open(ctx: &Ctx, namespaces: &[String]) -> Result<Self> {
        let mut secrets = Vec::new();
        for namespace in namespaces {
            let api: Api<Secret> = Api::namespaced(ctx.client.clone(), namespace);
            let found = api.list(&ListParams::default()).await?;
            secrets.extend(found.iter().map(|secret| Values::of(&secret.name_any(), secret)));
        }
        let stores = join_all(secrets.iter().map(Store::open)).await;
        Ok(Self(stores.into_iter().flatten().collect()))
    }

    /// Does something and asks every store meanwhile; the longest that one of them took to answer.
    pub async fn during<T>(&mut self, work: impl Future<Output = T>) -> (T, Duration) {
        let over = Cell::new(false);
        let work = async {
            let done = work.await;
            over.set(true);
            done
        };
        let asking = async {
            let mut worst = Duration::ZERO;
            while !over.get() {
                worst = worst.max(self.slowest().await);
                tokio::time::sleep(PAUSE).await;
            }
            worst
        };
        futures::join!(work, asking)
    }

    async fn slowest(&mut self) -> Duration {
        let answers = join_all(self.0.iter_mut().map(Store::answer)).await;
        answers.into_iter().max().unwrap_or_default()
    }
}
