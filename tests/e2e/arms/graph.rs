//! Redis and Neo4j by hand: what one would type into redis-cli and cypher-shell.

use amas_operator::api::{cache_policy::CachePolicySpec, graph_schema::GraphSchemaSpec, names::GraphName};

use super::{by_hand::ByHand, platform::PATIENCE};
use crate::{
    cluster::{clients, wait},
    harness::Result,
};

/// Memory limit and eviction as the policy says.
pub async fn redis(hand: &ByHand<'_>, policy: &CachePolicySpec) -> Result {
    let url = hand.redis_url();
    let mut connection = wait::retry(PATIENCE, async || clients::redis(&url).await).await?;
    if let Some(eviction) = &policy.eviction {
        let set = |key: &str, value: String| {
            let mut command = redis::cmd("CONFIG");
            command.arg("SET").arg(key).arg(value);
            command
        };
        set("maxmemory", eviction.max_memory.value().to_string())
            .exec_async(&mut connection)
            .await?;
        set("maxmemory-policy", eviction.policy.as_str().into())
            .exec_async(&mut connection)
            .await?;
    }
    Ok(())
}

/// Constraints and indexes as the schema says, all online.
pub async fn neo4j(hand: &ByHand<'_>, schema: &GraphSchemaSpec) -> Result {
    let (uri, password) = (hand.neo4j_uri(), hand.password.clone());
    let graph = wait::retry(PATIENCE, async || clients::neo4j(&uri, "neo4j", &password).await).await?;
    for statement in statements(schema) {
        clients::run(&graph, neo4rs::query(&statement)).await?;
    }
    clients::run(&graph, neo4rs::query("CALL db.awaitIndexes(300)")).await
}

fn statements(schema: &GraphSchemaSpec) -> Vec<String> {
    let list = |properties: &[GraphName]| {
        let names: Vec<String> = properties.iter().map(|property| format!("n.{property}")).collect();
        names.join(", ")
    };
    let constraints = schema.constraints.iter().map(|item| {
        format!(
            "CREATE CONSTRAINT {} FOR (n:{}) REQUIRE ({}) IS UNIQUE",
            item.name,
            item.label,
            list(&item.properties)
        )
    });
    let indexes = schema.indexes.iter().map(|item| {
        format!(
            "CREATE INDEX {} FOR (n:{}) ON ({})",
            item.name,
            item.label,
            list(&item.properties)
        )
    });
    constraints.chain(indexes).collect()
}
