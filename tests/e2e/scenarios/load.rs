//! A client at work: 200 operations a second on each store, over a bounded set of rows, keys and nodes.

use std::{
    cell::{Cell, RefCell},
    time::Duration,
};

use redis::aio::MultiplexedConnection;
use sqlx::PgConnection;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::{
    cluster::{clients::Stores, platform::WRITER},
    harness::{Result, context::Ctx},
};

/// Operations a second on each store: 20 bursts of 10.
const BURSTS: u32 = 20;
const BURST: u64 = 10;
/// How many rows, keys and nodes are written over and over.
const BOUND: u64 = 500;

pub struct Load {
    postgres: RefCell<PgConnection>,
    redis: MultiplexedConnection,
    neo4j: neo4rs::Graph,
    step: Cell<u64>,
}

impl Load {
    pub async fn prepare(ctx: &Ctx, namespace: &str, database: &str) -> Result<Self> {
        let stores = Stores::open(&ctx.client, namespace, database, WRITER).await?;
        let step = Cell::new(0);
        Ok(Self {
            postgres: RefCell::new(stores.postgres),
            redis: stores.redis,
            neo4j: stores.neo4j,
            step,
        })
    }

    /// Works for a time; returns what was done, in words.
    pub async fn run(&self, time: Duration) -> Result<String> {
        let end = Instant::now() + time;
        let (sql, cache, graph) = futures::try_join!(
            paced(end, async |step| self.sql(step).await),
            paced(end, async |step| self.cache(step).await),
            paced(end, async |step| self.graph(step).await),
        )?;
        self.step.set(self.step.get() + 1);
        let rate = |count: u64| count as f64 / time.as_secs_f64();
        Ok(format!(
            "{:.0} SQL, {:.0} Redis, {:.0} Cypher operations a second",
            rate(sql),
            rate(cache),
            rate(graph)
        ))
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
        Ok(self.neo4j.run(neo4rs::query(text).param("id", id)).await?)
    }
}

/// Bursts of operations at a steady rate until the end; a late burst is not made up for. Returns how many were done.
async fn paced(end: Instant, operation: impl AsyncFn(u64) -> Result) -> Result<u64> {
    let mut ticks = interval(Duration::from_secs(1) / BURSTS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut done = 0;
    while Instant::now() < end {
        ticks.tick().await;
        for _ in 0..BURST {
            operation(done).await?;
            done += 1;
        }
    }
    Ok(done)
}
