//! A client at work: 200 operations a second on each store, over a bounded set of rows, keys and nodes.

use std::{cell::RefCell, fmt, time::Duration};

use futures::{StreamExt, TryStreamExt};

use redis::aio::MultiplexedConnection;
use sqlx::PgConnection;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::{
    cluster::{
        clients::{self, Stores},
        platform::WRITER,
    },
    harness::{Result, context::Ctx},
};

/// Operations a second on each store: 20 bursts of 10.
pub const RATE: f64 = BURSTS as f64 * BURST as f64;
const BURSTS: u32 = 20;
const BURST: u64 = 10;
/// How many rows, keys and nodes are written over and over.
const BOUND: u64 = 500;

pub struct Load {
    postgres: RefCell<PgConnection>,
    redis: MultiplexedConnection,
    neo4j: neo4rs::Graph,
}

impl Load {
    pub async fn prepare(ctx: &Ctx, namespace: &str, database: &str) -> Result<Self> {
        Ok(Self::on(Stores::open(&ctx.client, namespace, database, WRITER).await?))
    }

    pub fn on(stores: Stores) -> Self {
        let postgres = RefCell::new(stores.postgres);
        Self {
            postgres,
            redis: stores.redis,
            neo4j: stores.neo4j,
        }
    }

    /// Works for a time; returns how much was done.
    pub async fn run(&self, time: Duration) -> Result<Rates> {
        let end = Instant::now() + time;
        let (sql, redis, cypher) = futures::try_join!(
            // One session runs one statement after the other.
            paced(end, 1, async |step| self.sql(step).await),
            paced(end, 4, async |step| self.cache(step).await),
            paced(end, 8, async |step| self.graph(step).await),
        )?;
        let rate = |count: u64| count as f64 / time.as_secs_f64();
        Ok(Rates {
            sql: rate(sql),
            redis: rate(redis),
            cypher: rate(cypher),
        })
    }

    /// The application's own work: read an agent, count an execution.
    // The session is used by this task alone, one statement after the other.
    #[allow(clippy::await_holding_refcell_ref)]
    async fn sql(&self, step: u64) -> Result {
        let mut session = self.postgres.borrow_mut();
        let text = match step % 2 {
            0 => "SELECT name FROM agents WHERE id = $1",
            _ => "UPDATE agents SET total_executions = total_executions + 1 WHERE id = $1",
        };
        let id = i32::try_from(step % 8)? + 1;
        sqlx::query(text).bind(id).execute(&mut *session).await?;
        Ok(())
    }

    async fn cache(&self, step: u64) -> Result {
        let mut connection = self.redis.clone();
        let key = format!("amas:prediction:v1.0:{:032x}", step % BOUND);
        match step % 2 {
            0 => {
                redis::cmd("SET")
                    .arg(key)
                    .arg("{}")
                    .arg("EX")
                    .arg(3600)
                    .exec_async(&mut connection)
                    .await?
            }
            _ => redis::cmd("GET").arg(key).exec_async(&mut connection).await?,
        }
        Ok(())
    }

    async fn graph(&self, step: u64) -> Result {
        let text = match step % 2 {
            0 => "MERGE (t:Task {task_id: $id}) SET t.priority = 5",
            _ => "MATCH (t:Task {task_id: $id}) RETURN t.priority",
        };
        let id = format!("load-{}", step % BOUND);
        clients::run(&self.neo4j, neo4rs::query(text).param("id", id)).await
    }
}

/// Operations a second that were done on each store.
pub struct Rates {
    pub sql: f64,
    pub redis: f64,
    pub cypher: f64,
}

impl Rates {
    pub fn lowest(&self) -> f64 {
        self.sql.min(self.redis).min(self.cypher)
    }
}

impl fmt::Display for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.0} SQL, {:.0} Redis, {:.0} Cypher operations a second",
            self.sql, self.redis, self.cypher
        )
    }
}

/// Bursts of operations at a steady rate until the end, so many at a time. A late burst is followed at once by the next.
async fn paced(end: Instant, at_once: usize, operation: impl AsyncFn(u64) -> Result) -> Result<u64> {
    let mut ticks = interval(Duration::from_secs(1) / BURSTS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut done = 0;
    while Instant::now() < end {
        ticks.tick().await;
        let burst = futures::stream::iter(done..done + BURST).map(Ok);
        burst.try_for_each_concurrent(at_once, |step| operation(step)).await?;
        done += BURST;
    }
    Ok(done)
}
