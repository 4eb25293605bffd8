//! The key families of AMAS with an example key each, and a client that writes and looks at them.

use std::{ops::RangeInclusive, time::Duration};

use redis::{FromRedisValue, aio::MultiplexedConnection};

use crate::{
    cluster::wait,
    ensure,
    harness::{About, Result},
};

/// How a family's keys are written.
#[derive(Clone, Copy)]
pub enum Kind {
    Text,
    List,
    Hash,
    Set,
}

/// A key family: an example key, and what a sweep gives it.
pub struct Family {
    pub id: &'static str,
    pub key: &'static str,
    pub kind: Kind,
    /// Seconds; `None` when it must never get an expiry.
    pub ttl: Option<i64>,
    /// The rule that counts it; `None` for the default and for keys that no policy is about.
    pub rule: Option<&'static str>,
}

const fn family(
    id: &'static str,
    key: &'static str,
    kind: Kind,
    ttl: Option<i64>,
    rule: Option<&'static str>,
) -> Family {
    Family {
        id,
        key,
        kind,
        ttl,
        rule,
    }
}

pub static FAMILIES: [Family; 17] = [
    family("A-RD-K01", "amas:task:t-1", Kind::Text, Some(300), Some("task")),
    family(
        "A-RD-K02",
        "amas:tasks:status:pending:limit:50:offset:0",
        Kind::Text,
        Some(60),
        Some("tasks-by-status"),
    ),
    family(
        "A-RD-K03",
        "amas:tasks:stats:global",
        Kind::Text,
        Some(300),
        Some("task-statistics"),
    ),
    family(
        "A-RD-K04",
        "amas:tasks:recent_feed",
        Kind::List,
        None,
        Some("recent-feed"),
    ),
    family(
        "A-RD-K05",
        "amas:agent:performance:security_expert",
        Kind::Text,
        Some(300),
        Some("agent-performance"),
    ),
    family(
        "A-RD-K06",
        "amas:agents:top:type:None:limit:10",
        Kind::Text,
        Some(300),
        Some("top-agents"),
    ),
    family(
        "A-RD-K07",
        "amas:prediction:v1.0:0123456789abcdef0123456789abcdef",
        Kind::Text,
        Some(3600),
        Some("prediction"),
    ),
    family("A-RD-K08", "amas:lock:task:t-1", Kind::Text, None, Some("lock")),
    family("A-RD-K09", "amas:get_tasks:osint:limit=5", Kind::Text, Some(300), None),
    family("A-RD-K10", "amas:warmed-entry", Kind::Text, Some(300), None),
    family("A-RD-K11", "amas:session:s-1", Kind::Hash, None, None),
    family("A-RD-K12", "rate:user-1", Kind::Text, None, None),
    family("A-RD-K12", "queue:tasks", Kind::List, None, None),
    family("A-RD-K12", "online", Kind::Set, None, None),
    family("A-RD-K12", "profile:1", Kind::Hash, None, None),
    // The boundary of the prefix is its colon.
    family("A-RD-03", "amasx:task:t-1", Kind::Text, None, None),
    family("A-RD-03", "task:t-1", Kind::Text, None, None),
];

/// A sweep a second: this is long enough for several.
pub const SWEEPS: Duration = Duration::from_secs(4);
/// How long anything about keys is waited for: a busy machine sweeps late.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A client of the cache.
pub struct Cache(pub MultiplexedConnection);

impl Cache {
    pub async fn ask<T: FromRedisValue>(&mut self, words: &[&str]) -> Result<T> {
        let mut command = redis::Cmd::new();
        words.iter().for_each(|word| {
            command.arg(*word);
        });
        command.query_async(&mut self.0).await.about(words.join(" "))
    }

    /// Milliseconds; -1 without an expiry, -2 when the key is gone.
    pub async fn pttl(&mut self, key: &str) -> Result<i64> {
        self.ask(&["PTTL", key]).await
    }

    /// Writes a key of the family afresh, without an expiry.
    pub async fn write(&mut self, family: &Family) -> Result {
        self.ask::<i64>(&["DEL", family.key]).await?;
        match family.kind {
            Kind::Text => self.ask::<String>(&["SET", family.key, "1"]).await.map(|_| ()),
            Kind::List => self.ask::<i64>(&["LPUSH", family.key, "1", "2"]).await.map(|_| ()),
            Kind::Hash => self.ask::<i64>(&["HSET", family.key, "field", "1"]).await.map(|_| ()),
            Kind::Set => self.ask::<i64>(&["SADD", family.key, "1"]).await.map(|_| ()),
        }
    }

    /// Waits until the key's PTTL is within the range, which may depend on when it is asked for.
    pub async fn reaches(
        &mut self,
        key: &str,
        wanted: impl Fn() -> RangeInclusive<i64>,
    ) -> std::result::Result<(), String> {
        let looked = wait::retry(PATIENCE, async || {
            let seen = self.pttl(key).await?;
            let wanted = wanted();
            ensure!(
                wanted.contains(&seen),
                "PTTL {key} is {seen}, expected within {wanted:?}"
            );
            Ok(())
        });
        looked.await.map_err(|error| error.to_string())
    }
}
