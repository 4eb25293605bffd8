//! Every Cypher text that is sent, built by pure functions. Names are parsed newtypes and quoted all the same.

use crate::{
    api::names::GraphName,
    stores::neo4j::{
        CLAIM_LABEL,
        duty::{ConstraintDuty, ConstraintKind, IndexDuty, IndexKind},
    },
};

pub const SHOW_CONSTRAINTS: &str =
    "SHOW CONSTRAINTS YIELD name, type, entityType, labelsOrTypes, properties, ownedIndex";
pub const SHOW_INDEXES: &str = "SHOW INDEXES YIELD name, type, state, populationPercent, entityType, labelsOrTypes, \
                                properties, owningConstraint, failureMessage";
/// A row where every user is an administrator.
pub const COMMUNITY: &str =
    "CALL dbms.components() YIELD edition WITH edition WHERE edition = 'community' RETURN edition";
pub const LABELS: &str = "CALL db.labels() YIELD label RETURN label ORDER BY label";

/// Between backticks, with backticks inside doubled: any text is a name then.
pub fn quote(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

fn properties(properties: &[GraphName]) -> String {
    let quoted: Vec<String> = properties
        .iter()
        .map(|name| format!("n.{}", quote(name.as_str())))
        .collect();
    quoted.join(", ")
}

/// No `IF NOT EXISTS`: it silently does nothing where another definition has the name.
pub fn create_constraint(wanted: &ConstraintDuty) -> String {
    let requirement = match wanted.kind {
        ConstraintKind::Unique => "IS UNIQUE",
    };
    format!(
        "CREATE CONSTRAINT {} FOR (n:{}) REQUIRE ({}) {requirement}",
        quote(wanted.name.as_str()),
        quote(wanted.label.as_str()),
        properties(&wanted.properties)
    )
}

pub fn create_index(wanted: &IndexDuty) -> String {
    let kind = match wanted.kind {
        IndexKind::Range => "RANGE",
    };
    format!(
        "CREATE {kind} INDEX {} FOR (n:{}) ON ({})",
        quote(wanted.name.as_str()),
        quote(wanted.label.as_str()),
        properties(&wanted.properties)
    )
}

pub fn drop_index(name: &str) -> String {
    format!("DROP INDEX {}", quote(name))
}

/// Which values occur more than once: one row for each of the five most frequent, with the totals in every row.
/// Two element ids a value cost constant memory, where collecting all would cost the whole label's.
pub fn duplicates(label: &GraphName, properties: &[GraphName]) -> String {
    let label = quote(label.as_str());
    let names: Vec<String> = properties
        .iter()
        .map(|name| format!("n.{}", quote(name.as_str())))
        .collect();
    let present: Vec<String> = names.iter().map(|name| format!("{name} IS NOT NULL")).collect();
    let (present, key) = (present.join(" AND "), names.join(", "));
    format!(
        "MATCH (n:{label}) WHERE {present} \
         WITH [{key}] AS key, count(*) AS nodes, min(elementId(n)) AS first, max(elementId(n)) AS last \
         WHERE nodes > 1 \
         WITH key, nodes, first, last ORDER BY nodes DESC, first \
         WITH count(*) AS values, sum(nodes) AS total, \
         collect({{key: key, nodes: nodes, elements: [first, last]}})[..5] AS samples \
         UNWIND samples AS sample \
         RETURN values, total, [v IN sample.key | left(coalesce(toStringOrNull(v), '?'), 64)] AS key, \
         sample.nodes AS nodes, sample.elements AS elements"
    )
}

/// Node counts from the count store: one row a label, and one with an empty label for all nodes.
pub fn count_nodes<'a>(labels: impl Iterator<Item = &'a str>) -> String {
    let each = labels.map(|label| {
        format!(
            "MATCH (n:{}) RETURN '{}' AS label, count(n) AS nodes",
            quote(label),
            escape(label)
        )
    });
    let all = "MATCH (n) RETURN '' AS label, count(n) AS nodes".to_owned();
    std::iter::once(all).chain(each).collect::<Vec<_>>().join(" UNION ALL ")
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\'', "\\'")
}

pub fn read_claim() -> String {
    format!(
        "MATCH (c:{}) RETURN c.record AS record ORDER BY record LIMIT 2",
        quote(CLAIM_LABEL)
    )
}

/// Takes the parameter `record`.
pub fn write_claim() -> String {
    format!("MERGE (c:{}) SET c.record = $record", quote(CLAIM_LABEL))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> GraphName {
        GraphName::parse(text).unwrap()
    }

    #[test]
    fn quotes_any_text() {
        assert_eq!(quote("a"), "`a`");
        assert_eq!(quote("a`) DETACH DELETE n //"), "`a``) DETACH DELETE n //`");
    }

    #[test]
    fn builds_schema_statements() {
        let constraint = ConstraintDuty {
            name: name("task_id_unique"),
            label: name("Task"),
            properties: vec![name("task_id")],
            kind: ConstraintKind::Unique,
        };
        assert_eq!(
            create_constraint(&constraint),
            "CREATE CONSTRAINT `task_id_unique` FOR (n:`Task`) REQUIRE (n.`task_id`) IS UNIQUE"
        );
        let index = IndexDuty {
            name: name("i"),
            label: name("Task"),
            properties: vec![name("a"), name("b")],
            kind: IndexKind::Range,
        };
        assert_eq!(
            create_index(&index),
            "CREATE RANGE INDEX `i` FOR (n:`Task`) ON (n.`a`, n.`b`)"
        );
        assert_eq!(drop_index("i"), "DROP INDEX `i`");
    }

    #[test]
    fn builds_queries() {
        assert_eq!(
            count_nodes(["Task", "It's"].into_iter()),
            "MATCH (n) RETURN '' AS label, count(n) AS nodes \
             UNION ALL MATCH (n:`Task`) RETURN 'Task' AS label, count(n) AS nodes \
             UNION ALL MATCH (n:`It's`) RETURN 'It\\'s' AS label, count(n) AS nodes"
        );
        let text = duplicates(&name("T"), &[name("a"), name("b")]);
        assert!(
            text.starts_with("MATCH (n:`T`) WHERE n.`a` IS NOT NULL AND n.`b` IS NOT NULL WITH [n.`a`, n.`b`] AS key")
        );
        assert_eq!(write_claim(), "MERGE (c:`__AmasClaim`) SET c.record = $record");
    }
}
