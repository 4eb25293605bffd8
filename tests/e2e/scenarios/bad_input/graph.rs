//! A constraint over data that violates it: how many, which, and in by itself once they are gone.

use amas_operator::api::{amas_database::AmasDatabase, graph_schema::GraphSchema};
use kube::api::DynamicObject;
use neo4rs::query;
use serde_json::{Value, json};

use super::room::Room;
use crate::{
    cluster::{
        clients::{self, Values},
        conditions,
        objects::ours,
        platform::PATIENCE,
        wait::Watch,
    },
    harness::{Result, context::Ctx},
};

/// Three values on seven nodes, and some that are alone.
const DUPLICATES: &str = "UNWIND ['a', 'a', 'b', 'b', 'c', 'c', 'c', 'd', 'e'] AS id CREATE (:Item {id: id})";
const REMOVE: &str = "MATCH (n:Item) WITH n.id AS id, collect(n) AS nodes UNWIND nodes[1..] AS more DETACH DELETE more";

pub async fn run(ctx: &Ctx) -> Result {
    let room = Room::new(ctx, "graph").await?;
    room.database(
        "graph",
        json!({ "neo4j": { "managed": { "storage": { "size": "1Gi" } } } }),
    )
    .await?;
    room.database_ready("graph", "Neo4j alone").await?;
    let secret = Values::read(&ctx.client, &room.namespace, "graph-neo4j-connection").await?;
    let graph = clients::neo4j(
        secret.get("NEO4J_URI")?,
        secret.get("NEO4J_USER")?,
        secret.get("NEO4J_PASSWORD")?,
    )
    .await?;
    clients::run(&graph, query(DUPLICATES)).await?;
    room.apply(ours("GraphSchema", "graph", schema())?).await?;
    let words = [
        "item_unique: 3 values occur more than once, on 7 nodes",
        "remove the duplicates",
    ];
    room.stalled::<GraphSchema>("graph", "ConstraintViolated", &words)
        .await?;
    // What can come in comes in, and is told with the next write.
    let told =
        |object: Option<&DynamicObject>| object.is_some_and(|object| object.data["status"]["indexesOnline"] == "1/1");
    let schemas = room.api::<GraphSchema>();
    let mut watch = Watch::open(&schemas, "graph").await?;
    watch.until(PATIENCE, "the index online", told).await?;
    let seen = watch.into_object()?;
    status(ctx, &seen.data["status"]);
    let database =
        conditions::wait_for(&room.api::<AmasDatabase>(), "graph", "PoliciesReady", "False", PATIENCE).await?;
    let reason = conditions::reason(&database, "Ready");
    ctx.figure(
        "graph: AmasDatabase meanwhile",
        conditions::message(&database, "Ready"),
        "Ready False, PolicyNotReady",
        reason == "PolicyNotReady",
    );
    room.silent("a violated constraint").await?;
    clients::run(&graph, query(REMOVE)).await?;
    let mended = room.ready::<GraphSchema>("graph", "the duplicates are removed").await?;
    let online = [
        &mended.data["status"]["constraintsOnline"],
        &mended.data["status"]["indexesOnline"],
    ]
    .map(Value::to_string)
    .join(" ");
    ctx.figure(
        "graph: constraints and indexes online",
        &online,
        "\"2/2\" \"1/1\"",
        online == "\"2/2\" \"1/1\"",
    );
    room.database_ready("graph", "its GraphSchema is Ready")
        .await
        .map(|_| ())
}

/// One constraint that the data violates, one that it does not, and an index.
fn schema() -> Value {
    json!({
        "databaseRef": { "name": "graph" },
        "constraints": [
            { "name": "item_unique", "label": "Item", "properties": ["id"], "type": "Unique" },
            { "name": "other_unique", "label": "Other", "properties": ["id"], "type": "Unique" },
        ],
        "indexes": [{ "name": "item_name", "label": "Item", "properties": ["name"], "type": "Range" }],
    })
}

/// How many and which, in fields; the rest of the schema came in.
fn status(ctx: &Ctx, status: &Value) {
    let item = &status["constraints"][0];
    let mut samples: Vec<&str> = item["samples"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    samples.sort_unstable();
    let shown = format!("{} {} {samples:?}", item["state"], item["violations"]);
    let ok = item["state"] == "Violated"
        && item["violations"] == 3
        && samples.len() == 3
        && samples.iter().zip(["a", "b", "c"]).all(|(seen, id)| seen.contains(id));
    ctx.figure(
        "violated constraint: state, how many, which",
        shown,
        "Violated 3 a, b, c",
        ok,
    );
    let rest = [&status["constraintsOnline"], &status["indexesOnline"]]
        .map(Value::to_string)
        .join(" ");
    ctx.figure(
        "violated constraint: the others came in",
        &rest,
        "\"1/2\" \"1/1\"",
        rest == "\"1/2\" \"1/1\"",
    );
}
