//! What is the GraphSchema's own: constraints and indexes as a duty of the Neo4j keeper, and what is shown of them.

use std::collections::BTreeSet;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};
use kube::{Resource, runtime::reflector::Store as Cache};

use crate::{
    api::{
        amas_database::AmasDatabase,
        conditions::Reason,
        graph_schema::{self as api, GraphSchema, GraphSchemaStatus, ItemStatus},
    },
    controllers::{
        Context,
        database::StoreKind,
        policy::{Policy, PolicyStatus, Standing},
        wakes::Wakes,
    },
    engine::{queue::Waker, status::Book},
    stores::{
        keeper::Keepers,
        neo4j::{
            ConstraintDuty, ConstraintKind, GraphDuty, GraphFacts, IndexDuty, IndexKind, ItemFacts, ItemState, Neo4j,
            Neo4jFacts,
        },
    },
};

impl PolicyStatus for GraphSchemaStatus {
    fn observed_generation(&self) -> Option<i64> {
        self.observed_generation
    }

    fn conditions(&self) -> &[Condition] {
        &self.conditions
    }

    fn observe(&mut self, generation: i64, conditions: Vec<Condition>) {
        (self.observed_generation, self.conditions) = (Some(generation), conditions);
    }
}

impl Policy for GraphSchema {
    type Engine = Neo4j;
    type Facts = GraphFacts;
    const STORE: StoreKind = StoreKind::Neo4j;

    fn database(&self) -> &str {
        &self.spec.database_ref.name
    }

    fn is_declared(database: &AmasDatabase) -> bool {
        database.spec.neo4j.is_some()
    }

    fn cache(context: &Context) -> &Cache<Self> {
        &context.caches.graph_schemas
    }

    fn book(context: &Context) -> &Book<GraphSchemaStatus> {
        &context.books.graph_schemas
    }

    fn keepers(context: &Context) -> &Keepers<Neo4j> {
        &context.keepers.neo4j
    }

    fn waker(wakes: &Wakes) -> &Waker<Self> {
        &wakes.graph_schemas
    }

    fn validate(&self, _: &Context) -> Result<GraphDuty, Standing> {
        validate(self)
    }

    fn facts<'a>(all: &'a Neo4jFacts, name: &str) -> Option<&'a GraphFacts> {
        all.policies.get(name)
    }

    fn generation(facts: &GraphFacts) -> i64 {
        facts.generation
    }

    fn conflict(all: &Neo4jFacts) -> Option<&str> {
        all.claim_conflict.as_deref()
    }

    fn standing(duty: &GraphDuty, facts: &GraphFacts) -> Standing {
        standing(duty, facts)
    }

    fn show(&self, facts: &GraphFacts, _: &GraphSchemaStatus, new: &mut GraphSchemaStatus, _: Timestamp) {
        let online = |items: &[ItemFacts], of: usize| {
            let online = items.iter().filter(|item| item.state == ItemState::Online).count();
            Some(format!("{online}/{of}"))
        };
        new.constraints_online = online(&facts.constraints, self.spec.constraints.len());
        new.indexes_online = online(&facts.indexes, self.spec.indexes.len());
        new.constraints = facts.constraints.iter().map(item_status).collect();
        new.indexes = facts.indexes.iter().map(item_status).collect();
    }
}

/// The duty that the specification means. Two items must not be the same thing, nor have one name.
fn validate(object: &GraphSchema) -> Result<GraphDuty, Standing> {
    let spec = &object.spec;
    let mut names = BTreeSet::new();
    let all = spec
        .constraints
        .iter()
        .map(|item| &item.name)
        .chain(spec.indexes.iter().map(|item| &item.name));
    if let Some(twice) = all.clone().find(|name| !names.insert((*name).clone())) {
        return Err(Standing::invalid(
            Reason::InvalidSpec,
            format!("the name {twice} is used twice; constraints and indexes share their names"),
        ));
    }
    for constraint in &spec.constraints {
        if let Some(index) = spec
            .indexes
            .iter()
            .find(|index| (&index.label, &index.properties) == (&constraint.label, &constraint.properties))
        {
            let message = format!(
                "index {} is on what constraint {} indexes already; leave the index out",
                index.name, constraint.name
            );
            return Err(Standing::invalid(Reason::InvalidSpec, message));
        }
    }
    Ok(GraphDuty {
        generation: object.meta().generation.unwrap_or_default(),
        constraints: spec.constraints.iter().map(constraint).collect(),
        indexes: spec.indexes.iter().map(index).collect(),
    })
}

fn constraint(item: &api::Constraint) -> ConstraintDuty {
    let api::ConstraintKind::Unique = item.kind;
    ConstraintDuty {
        name: item.name.clone(),
        label: item.label.clone(),
        properties: item.properties.clone(),
        kind: ConstraintKind::Unique,
    }
}

fn index(item: &api::Index) -> IndexDuty {
    let api::IndexKind::Range = item.kind;
    IndexDuty {
        name: item.name.clone(),
        label: item.label.clone(),
        properties: item.properties.clone(),
        kind: IndexKind::Range,
    }
}

fn standing(duty: &GraphDuty, facts: &GraphFacts) -> Standing {
    let items = || facts.constraints.iter().chain(&facts.indexes);
    let problems: Vec<(Reason, String)> = items().filter_map(problem).collect();
    if let Some((reason, _)) = problems.first() {
        let text: Vec<String> = problems.iter().map(|(_, text)| text.clone()).collect();
        return Standing::invalid(*reason, text.join("; "));
    }
    let online = items().filter(|item| item.state == ItemState::Online).count();
    let wanted = duty.constraints.len() + duty.indexes.len();
    if online < wanted {
        return Standing::waiting(
            Reason::Configuring,
            format!("{online} of {wanted} constraints and indexes are online"),
        );
    }
    Standing::ready(format!("{wanted} constraints and indexes are online"))
}

fn problem(item: &ItemFacts) -> Option<(Reason, String)> {
    let name = &item.name;
    match &item.state {
        ItemState::Missing | ItemState::Populating(_) | ItemState::Online => None,
        ItemState::Failed(message) => Some((Reason::Refused, format!("{name}: {message}"))),
        ItemState::Violated(violation) => {
            let samples: Vec<String> = violation
                .samples
                .iter()
                .map(|sample| format!("({}) on {} nodes", sample.values.join(", "), sample.nodes))
                .collect();
            let text = format!(
                "{name}: {} values occur more than once, on {} nodes: {}; remove the duplicates and it comes in by itself",
                violation.values,
                violation.nodes,
                samples.join(", ")
            );
            Some((Reason::ConstraintViolated, text))
        }
        ItemState::NameTaken(message) => Some((Reason::NameTaken, format!("{name}: {message}"))),
        ItemState::Blocked(message) => Some((Reason::Refused, format!("{name}: {message}"))),
    }
}

fn item_status(item: &ItemFacts) -> ItemStatus {
    let (state, message) = match &item.state {
        ItemState::Missing => ("Missing", None),
        // How far it is moves all the time and is no news.
        ItemState::Populating(_) => ("Populating", None),
        ItemState::Online => ("Online", None),
        ItemState::Failed(message) => ("Failed", Some(message.clone())),
        ItemState::Violated(violation) => (
            "Violated",
            Some(format!(
                "{} nodes have a value that occurs more than once",
                violation.nodes
            )),
        ),
        ItemState::NameTaken(message) => ("NameTaken", Some(message.clone())),
        ItemState::Blocked(message) => ("Failed", Some(message.clone())),
    };
    let (violations, samples) = match &item.state {
        ItemState::Violated(violation) => {
            let samples = violation
                .samples
                .iter()
                .map(|sample| sample.values.join(", "))
                .collect();
            (i64::try_from(violation.values).ok(), samples)
        }
        _ => (None, Vec::new()),
    };
    ItemStatus {
        name: item.name.to_string(),
        actual_name: item.actual_name.clone().filter(|actual| actual != item.name.as_str()),
        state: state.into(),
        message,
        violations,
        samples,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn schema(spec: serde_json::Value) -> GraphSchema {
        serde_json::from_value(json!({"apiVersion": "amas.dev/v1alpha1", "kind": "GraphSchema", "metadata": {"name": "g", "namespace": "n", "generation": 1}, "spec": spec})).unwrap()
    }

    #[test]
    fn names_and_definitions_are_unique() {
        let unique = json!({"name": "a", "label": "T", "properties": ["p"], "type": "Unique"});
        let index =
            |name: &str, property: &str| json!({"name": name, "label": "T", "properties": [property], "type": "Range"});
        let make =
            |index| schema(json!({"databaseRef": {"name": "d"}, "constraints": [unique.clone()], "indexes": [index]}));
        assert!(validate(&make(index("b", "q"))).is_ok());
        assert!(
            validate(&make(index("a", "q")))
                .unwrap_err()
                .message
                .contains("used twice")
        );
        assert!(
            validate(&make(index("b", "p")))
                .unwrap_err()
                .message
                .contains("leave the index out")
        );
    }
}
