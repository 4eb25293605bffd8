//! Redis: what the application's clients use, and what the server tells of itself.

use futures::StreamExt;

use super::{
    book::Book,
    families::{Cache, PATIENCE},
};
use crate::harness::Result;

/// What the application's clients use: every command, and publish/subscribe.
pub async fn run(redis: &mut Cache, url: &str, book: &mut Book) -> Result {
    let pong: String = redis.ask(&["PING"]).await?;
    book.check(&["A-RD-06"], "PING answers PONG", pong == "PONG", || pong.clone());
    let all = [
        "SET rq:s 1 EX 30 NX",
        "SET rq:s 2 EX 30 XX",
        "GET rq:s",
        "SETEX rq:e 30 1",
        "EXISTS rq:s",
        "EXPIRE rq:s 30",
        "TTL rq:s",
        "HSET rq:h f 1",
        "HGET rq:h f",
        "HGETALL rq:h",
        "HDEL rq:h f",
        "INCRBY rq:n 5",
        "DECRBY rq:n 2",
        "LPUSH rq:l 1",
        "RPUSH rq:l 2 3",
        "LPOP rq:l",
        "RPOP rq:l",
        "LLEN rq:l",
        "LRANGE rq:l 0 -1",
        "LTRIM rq:l 0 99",
        "SADD rq:m 1",
        "SMEMBERS rq:m",
        "SISMEMBER rq:m 1",
        "SREM rq:m 1",
        "SCAN 0 MATCH rq:* COUNT 100",
        "INFO",
        "PUBLISH rq:c 1",
        "UNLINK rq:s rq:e rq:n rq:l",
    ];
    let mut refused = Vec::new();
    for command in all {
        let words: Vec<&str> = command.split(' ').collect();
        refused.extend(
            redis
                .ask::<redis::Value>(&words)
                .await
                .err()
                .map(|error| error.to_string()),
        );
    }
    let transaction: redis::RedisResult<(String, i64)> = redis::pipe()
        .atomic()
        .set("rq:t", 1)
        .del("rq:t")
        .query_async(&mut redis.0)
        .await;
    refused.extend(transaction.err().map(|error| error.to_string()));
    let mut channel = redis::Client::open(url)?.get_async_pubsub().await?;
    channel.subscribe("rq:c").await?;
    redis.ask::<i64>(&["PUBLISH", "rq:c", "heard"]).await?;
    let heard = tokio::time::timeout(PATIENCE, channel.on_message().next())
        .await
        .ok()
        .flatten();
    let heard: Option<String> = heard.and_then(|message| message.get_payload().ok());
    if heard.as_deref() != Some("heard") {
        refused.push(format!("the channel gave {heard:?}"));
    }
    let how = format!(
        "{} commands, MULTI/EXEC and publish/subscribe work through REDIS_URL",
        all.len()
    );
    book.check(&["A-RD-07"], &how, refused.is_empty(), || refused.join("; "));
    let flags: (Option<String>, Option<String>) = (
        redis.ask(&["SET", "rq:x", "1", "EX", "30", "NX"]).await?,
        redis.ask(&["SET", "rq:x", "2", "EX", "30", "NX"]).await?,
    );
    book.check(
        &["A-X-23"],
        "SET with EX and NX is one command: the second finds the key",
        flags.0.is_some() && flags.1.is_none(),
        || format!("{flags:?}"),
    );
    let clients: Vec<String> = redis.ask(&["CONFIG", "GET", "maxclients"]).await?;
    let enough = clients
        .last()
        .and_then(|count| count.parse::<i64>().ok())
        .is_some_and(|count| count >= 100);
    book.check(&["A-RD-02"], "the server takes at least 100 clients", enough, || {
        format!("{clients:?}")
    });
    statistics(redis, book).await
}

async fn statistics(redis: &mut Cache, book: &mut Book) -> Result {
    let info: String = redis.ask(&["INFO"]).await?;
    let missing = |fields: &[&str]| -> Vec<String> {
        let there = |field: &str| info.lines().any(|line| line.split(':').next() == Some(field));
        fields
            .iter()
            .filter(|field| !there(field))
            .map(|field| (*field).to_owned())
            .collect()
    };
    let health = missing(&[
        "redis_version",
        "used_memory",
        "connected_clients",
        "uptime_in_seconds",
        "db0",
    ]);
    book.check(
        &["A-OP-03"],
        "INFO gives version, memory, clients, uptime, keyspace of database 0",
        health.is_empty(),
        || format!("missing: {health:?}"),
    );
    let statistics = missing(&[
        "keyspace_hits",
        "keyspace_misses",
        "used_memory_human",
        "uptime_in_days",
    ]);
    book.check(
        &["A-OP-04", "A-X-30"],
        "INFO gives hits and misses of the server, whichever process asked",
        statistics.is_empty(),
        || format!("missing: {statistics:?}"),
    );
    Ok(())
}
