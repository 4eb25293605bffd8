//! The sentinel of a Neo4j server: a Bolt login of its own whose end is seen at once.

use crate::stores::{
    endpoint::StoreError,
    keeper::{Sentinel, ServerIdentity, Sign},
    neo4j::{bolt::Bolt, duty::Neo4jDuty, packstream::Value, users},
};

const COMPONENTS: &str = "CALL dbms.components() YIELD name, versions WHERE name = 'Neo4j Kernel' RETURN versions[0]";
/// The JVM's own start time, the same in every answer of one process.
const STARTED: &str = "CALL dbms.queryJmx('java.lang:type=Runtime') YIELD attributes RETURN attributes.StartTime.value";

/// Asks the database, not only the server: a server whose database panicked answers a RESET but no query.
pub struct Neo4jSentinel {
    bolt: Bolt,
    database: String,
}

impl Neo4jSentinel {
    pub async fn open(base: &Neo4jDuty) -> Result<(Self, ServerIdentity), StoreError> {
        let (bolt, _) = users::log_in(base).await?;
        let mut sentinel = Self {
            bolt,
            database: base.database.to_string(),
        };
        sentinel.ping().await?;
        let version = sentinel.single(COMPONENTS).await?;
        let version = version.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned();
        // A user who may not look at JMX is no reason to call a server unwell.
        let started = match sentinel.single(STARTED).await {
            Ok(value) => value.as_ref().and_then(Value::as_int),
            Err(StoreError::Rejected(_)) => None,
            Err(error) => return Err(error),
        };
        let started_at = started.and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok());
        Ok((sentinel, ServerIdentity { version, started_at }))
    }

    /// The first value of the first row.
    async fn single(&mut self, cypher: &str) -> Result<Option<Value>, StoreError> {
        let rows = self.bolt.query(cypher, &self.database).await?;
        Ok(rows.into_iter().next().and_then(|row| row.into_iter().next()))
    }
}

impl Sentinel for Neo4jSentinel {
    async fn next_sign(&mut self) -> Sign {
        Sign::Lost(self.bolt.end().await.to_string())
    }

    async fn ping(&mut self) -> Result<(), StoreError> {
        self.single("RETURN 1").await.map(drop)
    }
}
