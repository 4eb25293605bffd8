//! The GraphSchema controller: observe, validate, plan, apply, report. Its plan is one duty; the Neo4j keeper carries it out.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::jiff::Timestamp;
use kube::Resource;

use crate::{
    api::{
        conditions::{ConditionType, Reason, is_true, merge},
        graph_schema::{self as api, GraphSchema, GraphSchemaStatus, ItemStatus},
    },
    controllers::{
        Context,
        policy::{Change, Standing, database_key, find_database, report, stands, store_missing},
    },
    engine::{
        metrics::Object,
        queue::{Next, Reconcile, ReconcileError, Verdict},
        status::Weight,
    },
    stores::{
        keeper::Snapshot,
        neo4j::{
            ConstraintDuty, ConstraintKind, GraphDuty, GraphFacts, IndexDuty, IndexKind, ItemFacts, ItemState, Neo4j,
        },
    },
};

/// Reconciles GraphSchemas.
pub struct GraphSchemas(pub Arc<Context>);

impl Reconcile<GraphSchema> for GraphSchemas {
    async fn reconcile(&self, object: Arc<GraphSchema>) -> Result<Next, ReconcileError> {
        let context = &*self.0;
        let name = object.meta().name.clone().unwrap_or_default();
        // Caches and the keeper's snapshot; no request.
        let key = database_key(&*object, &object.spec.database_ref.name);
        let database = find_database(context, &key);
        let snapshot = context.keepers.neo4j.snapshot(&key);
        // Pure: the duty, or what is wrong.
        let duty = validate(&object);
        // The duty to the keeper; nothing is written to Kubernetes.
        match &duty {
            Ok(duty) => context.keepers.neo4j.assign_policy(&key, &name, duty.clone()),
            Err(_) => context.keepers.neo4j.withdraw_policy(&key, &name),
        }
        let declared = database.as_ref().is_some_and(|database| database.spec.neo4j.is_some());
        let missing = store_missing(
            database.as_deref(),
            declared,
            "neo4j",
            &key.database,
            snapshot.as_ref().map(|snapshot| &snapshot.health),
        );
        let facts = snapshot
            .as_deref()
            .and_then(|snapshot: &Snapshot<Neo4j>| snapshot.facts.policies.get(&name))
            .cloned();
        let standing = match (duty, missing) {
            (Err(standing), _) => standing,
            (_, Some(standing)) => standing,
            (Ok(duty), None) => standing(&duty, facts.as_ref(), snapshot.as_deref()),
        };
        let old = context
            .books
            .graph_schemas
            .last(object.meta().uid.as_deref().unwrap_or_default())
            .map(|(status, _)| status);
        let first = old.is_none() && object.status.as_ref().is_none_or(|status| status.conditions.is_empty());
        let old = old.or_else(|| object.status.clone()).unwrap_or_default();
        let ready = is_true(&old.conditions, ConditionType::Ready);
        let health = snapshot.as_ref().map(|snapshot| &snapshot.health);
        if stands(
            &standing,
            health,
            old.observed_generation,
            object.meta().generation,
            ready,
        ) {
            return Ok(Next {
                verdict: Verdict::Converged,
                after: None,
            });
        }
        let new = status(&object, &old, &standing, facts.as_ref(), Timestamp::now());
        let weight = weight(&old, &new);
        let age = None;
        report(
            context,
            &*object,
            &context.books.graph_schemas,
            Change {
                new,
                weight,
                standing,
                first,
                was_stalled: is_true(&old.conditions, ConditionType::Stalled),
                age,
            },
        )
        .await
    }
}

/// Forgets everything about an object that is gone.
pub fn forget(context: &Context, object: &GraphSchema) {
    let meta = object.meta();
    let key = database_key(object, &object.spec.database_ref.name);
    let name = meta.name.clone().unwrap_or_default();
    context.keepers.neo4j.withdraw_policy(&key, &name);
    context
        .books
        .graph_schemas
        .forget(meta.uid.as_deref().unwrap_or_default());
    context.metrics.ready.remove(&Object {
        kind: "GraphSchema",
        namespace: key.namespace,
        name,
    });
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

/// How a schema stands whose store answers.
fn standing(duty: &GraphDuty, facts: Option<&GraphFacts>, snapshot: Option<&Snapshot<Neo4j>>) -> Standing {
    if let Some(conflict) = snapshot.and_then(|snapshot| snapshot.facts.claim_conflict.as_ref()) {
        return Standing::invalid(Reason::Conflicted, conflict);
    }
    let Some(facts) = facts.filter(|facts| facts.generation == duty.generation) else {
        return Standing::waiting(Reason::Configuring, "the schema is being taken up");
    };
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

fn status(
    object: &GraphSchema,
    old: &GraphSchemaStatus,
    standing: &Standing,
    facts: Option<&GraphFacts>,
    now: Timestamp,
) -> GraphSchemaStatus {
    let generation = object.meta().generation.unwrap_or_default();
    let mut new = GraphSchemaStatus {
        observed_generation: Some(generation),
        conditions: merge(&old.conditions, &standing.conditions(), generation, now),
        ..old.clone()
    };
    if let Some(facts) = facts.filter(|facts| facts.generation == generation) {
        let online = |items: &[ItemFacts]| items.iter().filter(|item| item.state == ItemState::Online).count();
        new.constraints_online = Some(format!(
            "{}/{}",
            online(&facts.constraints),
            object.spec.constraints.len()
        ));
        new.indexes_online = Some(format!("{}/{}", online(&facts.indexes), object.spec.indexes.len()));
        new.constraints = facts.constraints.iter().map(item_status).collect();
        new.indexes = facts.indexes.iter().map(item_status).collect();
    }
    new
}

fn weight(old: &GraphSchemaStatus, new: &GraphSchemaStatus) -> Weight {
    if old == new {
        return Weight::None;
    }
    let flags = |status: &GraphSchemaStatus| {
        (
            is_true(&status.conditions, ConditionType::Ready),
            is_true(&status.conditions, ConditionType::Stalled),
        )
    };
    if flags(old) == flags(new) {
        Weight::Progress
    } else {
        Weight::News
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
