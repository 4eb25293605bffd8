//! Neo4j: constraints and indexes by name and state, duplicates refused, the labels and relationships of the platform.

use neo4rs::{Graph, query};

use super::book::Book;
use crate::{
    cluster::{
        clients::{self, Values},
        platform::Platform,
    },
    ensure,
    harness::{Result, context::Ctx},
};

/// (id, name, label, property) of the constraints.
const CONSTRAINTS: [(&str, &str, &str, &str); 3] = [
    ("A-NJ-C01", "task_id_unique", "Task", "task_id"),
    ("A-NJ-C02", "agent_id_unique", "Agent", "agent_id"),
    ("A-NJ-C03", "user_id_unique", "User", "user_id"),
];
/// The same of the indexes.
const INDEXES: [(&str, &str, &str, &str); 5] = [
    ("A-NJ-I01", "task_status_idx", "Task", "status"),
    ("A-NJ-I02", "task_created_idx", "Task", "created_at"),
    ("A-NJ-I03", "agent_type_idx", "Agent", "type"),
    ("A-NJ-I04", "agent_status_idx", "Agent", "status"),
    ("A-X-40", "task_task_type_idx", "Task", "task_type"),
];
/// What the application runs at its start, and must find done.
const OWN: &str = "SHOW INDEXES YIELD name WHERE NOT name STARTS WITH 'index_' RETURN name AS row ORDER BY row";

const NODES: &str = "
    CREATE (t:Task {task_id: 'rq-1', title: 'a', task_type: 'osint', status: 'pending', priority: 5, created_at: datetime('2026-01-01T00:00:00'), updated_at: datetime()}),
           (u:Task {task_id: 'rq-2', title: 'b', task_type: 'osint', status: 'pending', priority: 5, created_at: datetime(), updated_at: datetime()}),
           (a:Agent {agent_id: 'rq-3', name: 'c', type: 'analyzer', status: 'active', expertise_score: 0.9, created_at: datetime()}),
           (:User {user_id: 'rq-4'}),
           (t)-[:ASSIGNED_TO {weight: 1}]->(a), (t)-[:EXECUTED_BY {weight: 2}]->(a), (t)-[:RECOMMENDED_FOR {weight: 3}]->(a), (u)-[:DEPENDS_ON]->(t),
           (a)-[:EXECUTED {started_at: datetime(), completed_at: datetime(), duration: 1.5, success: true, quality_score: 0.8, tokens_used: 10, cost_usd: 0.01}]->(t)";
const LABELS: &str =
    "MATCH (n) WHERE any(key IN keys(n) WHERE toString(n[key]) STARTS WITH 'rq-') UNWIND labels(n) AS label
    RETURN label + ' ' + toString(size(keys(n))) AS row ORDER BY row";
const RELATIONSHIPS: &str = "MATCH (n)-[r]->(m) WHERE n.task_id STARTS WITH 'rq-' OR n.agent_id STARTS WITH 'rq-'
    RETURN labels(n)[0] + ' ' + type(r) + ' ' + labels(m)[0] + ' ' + toString(size(keys(r))) AS row ORDER BY row";
const CLEAR: &str = "MATCH (n) WHERE n.task_id STARTS WITH 'rq-' OR n.agent_id STARTS WITH 'rq-' OR n.user_id STARTS WITH 'rq-' DETACH DELETE n";

pub async fn run(ctx: &Ctx, platform: &Platform, namespace: &str, book: &mut Book) -> Result {
    let secret = Values::read(&ctx.client, namespace, &format!("{}-neo4j-connection", platform.name())).await?;
    let graph = clients::neo4j(
        secret.get("NEO4J_URI")?,
        secret.get("NEO4J_USER")?,
        secret.get("NEO4J_PASSWORD")?,
    )
    .await?;
    schema(&graph, book).await?;
    duplicates(&graph, book).await?;
    nothing_to_add(&graph, book).await?;
    content(&graph, book).await
}

async fn schema(graph: &Graph, book: &mut Book) -> Result {
    let constraints = clients::cypher(
        graph,
        "SHOW CONSTRAINTS YIELD name, type, labelsOrTypes, properties RETURN name + ' ' + type + ' ' + labelsOrTypes[0] + ' ' + properties[0] AS row",
    )
    .await?;
    for (id, name, label, property) in CONSTRAINTS {
        let wanted = format!("{name} UNIQUENESS {label} {property}");
        book.check(
            &[id],
            &format!("{name} on {label}.{property}"),
            constraints.contains(&wanted),
            || format!("{constraints:?}"),
        );
    }
    let indexes = clients::cypher(
        graph,
        "SHOW INDEXES YIELD name, type, state, labelsOrTypes, properties WHERE type = 'RANGE' RETURN name + ' ' + state + ' ' + labelsOrTypes[0] + ' ' + properties[0] AS row",
    )
    .await?;
    for (id, name, label, property) in INDEXES {
        let wanted = format!("{name} ONLINE {label} {property}");
        book.check(
            &[id],
            &format!("range index {name} on {label}.{property} is ONLINE"),
            indexes.contains(&wanted),
            || format!("{indexes:?}"),
        );
    }
    let count = CONSTRAINTS.len() + INDEXES.len();
    ensure!(
        indexes.len() == count && constraints.len() == CONSTRAINTS.len(),
        "expected {count} range indexes, seen {indexes:?} {constraints:?}"
    );
    Ok(())
}

async fn duplicates(graph: &Graph, book: &mut Book) -> Result {
    for (id, name, label, property) in CONSTRAINTS {
        let create = format!("CREATE (:{label} {{{property}: 'rq-twice'}})");
        clients::run(graph, query(&create)).await?;
        let refusal = clients::run(graph, query(&create))
            .await
            .err()
            .map(|error| error.to_string());
        let ok = refusal
            .as_ref()
            .is_some_and(|text| text.contains("ConstraintValidationFailed") || text.contains("already exists"));
        book.check(
            &[id],
            &format!("{name} refuses a second {label} with the same {property}"),
            ok,
            || format!("{refusal:?}"),
        );
    }
    clients::run(graph, query(CLEAR)).await
}

/// The application makes the same names itself; it must find them done.
async fn nothing_to_add(graph: &Graph, book: &mut Book) -> Result {
    let before = clients::cypher(graph, OWN).await?;
    for (_, name, label, property) in CONSTRAINTS {
        clients::run(
            graph,
            query(&format!(
                "CREATE CONSTRAINT {name} IF NOT EXISTS FOR (n:{label}) REQUIRE n.{property} IS UNIQUE"
            )),
        )
        .await?;
    }
    for (_, name, label, property) in INDEXES {
        clients::run(
            graph,
            query(&format!(
                "CREATE INDEX {name} IF NOT EXISTS FOR (n:{label}) ON (n.{property})"
            )),
        )
        .await?;
    }
    let after = clients::cypher(graph, OWN).await?;
    book.check(
        &["A-NJ-04"],
        "the application's own statements for constraints and indexes add nothing",
        before == after,
        || format!("{before:?}, then {after:?}"),
    );
    Ok(())
}

async fn content(graph: &Graph, book: &mut Book) -> Result {
    clients::run(graph, query(NODES)).await?;
    let labels = clients::cypher(graph, LABELS).await?;
    for (id, row) in [("A-NJ-L01", "Task 7"), ("A-NJ-L02", "Agent 6"), ("A-NJ-L03", "User 1")] {
        book.check(
            &[id],
            &format!("a node with the stated properties is stored and found ({row})"),
            labels.iter().any(|seen| seen == row),
            || format!("{labels:?}"),
        );
    }
    let relationships = clients::cypher(graph, RELATIONSHIPS).await?;
    for (id, row) in [
        ("A-NJ-E01", "Task ASSIGNED_TO Agent 1"),
        ("A-NJ-E02", "Task EXECUTED_BY Agent 1"),
        ("A-NJ-E03", "Task RECOMMENDED_FOR Agent 1"),
        ("A-NJ-E04", "Task DEPENDS_ON Task 0"),
        ("A-NJ-E05", "Agent EXECUTED Task 7"),
    ] {
        book.check(
            &[id],
            &format!("stored and found with its properties ({row})"),
            relationships.iter().any(|seen| seen == row),
            || format!("{relationships:?}"),
        );
    }
    let counts = clients::cypher(graph, "MATCH (n) WHERE n:Task OR n:Agent OR n:User WITH labels(n)[0] AS label, count(*) AS nodes RETURN label + ' ' + toString(nodes) AS row ORDER BY row").await?;
    book.check(
        &["A-OP-05"],
        "the graph answers with the node count of each label",
        counts == ["Agent 1", "Task 2", "User 1"],
        || format!("{counts:?}"),
    );
    clients::run(graph, query(CLEAR)).await
}
