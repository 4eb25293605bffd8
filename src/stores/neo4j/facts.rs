//! What is known of a Neo4j server and of the schemas on it.

use std::collections::BTreeMap;

use crate::{api::names::GraphName, stores::limits::Limit};

/// Everything the worker saw and did. What is worth waking an object for is [`Neo4jFacts::material`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Neo4jFacts {
    /// The [`fingerprint`](super::Neo4jDuty::fingerprint) of the base duty that holds: reachable, logged in, claimed.
    pub duty_in: Option<u64>,
    /// What the server or the login does not allow; `None` until it was asked.
    pub limits: Option<Vec<Limit>>,
    /// Somebody else's claim; while it is set, nothing on the server is changed.
    pub claim_conflict: Option<String>,
    /// The word to take over under which the claim was last judged.
    pub take_over_seen: Option<String>,
    /// Why the last slice failed as a whole.
    pub error: Option<String>,
    pub figures: GraphFigures,
    /// By the name of the GraphSchema.
    pub policies: BTreeMap<String, GraphFacts>,
}

/// Numbers that move all the time. Our own claim is not among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GraphFigures {
    pub nodes: u64,
    /// Nodes by label, for the first [`LABELS_SHOWN`](super::LABELS_SHOWN) labels by name.
    pub labels: Vec<(String, u64)>,
}

/// What is known of one GraphSchema.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GraphFacts {
    /// The generation these facts hold for.
    pub generation: i64,
    /// In the order of the schema.
    pub constraints: Vec<ItemFacts>,
    /// In the order of the schema.
    pub indexes: Vec<ItemFacts>,
}

/// What is known of one constraint or index.
#[derive(Clone, Debug, PartialEq)]
pub struct ItemFacts {
    pub name: GraphName,
    /// The name under which an equal definition exists; that one is as good.
    pub actual_name: Option<String>,
    pub state: ItemState,
}

/// How far an item is.
#[derive(Clone, Debug, PartialEq)]
pub enum ItemState {
    /// Not there yet; it is next.
    Missing,
    /// There, and its index is being filled: percent done.
    Populating(f64),
    Online,
    /// The server gave up or refused; retried slowly.
    Failed(String),
    /// The data breaks the constraint; retried slowly, so it comes in by itself once the data is mended.
    Violated(Violation),
    /// The name belongs to something of another definition, which is left alone.
    NameTaken(String),
    /// An index on the very same label and properties is in the constraint's way.
    Blocked(String),
}

/// What breaks a uniqueness constraint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Violation {
    /// Values that occur more than once.
    pub values: u64,
    /// Nodes that have such a value.
    pub nodes: u64,
    /// The most frequent ones, at most five.
    pub samples: Vec<Sample>,
}

/// One value that occurs more than once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// In the order of the constraint's properties, each cut to 64 characters.
    pub values: Vec<String>,
    pub nodes: u64,
    /// The element ids of two of them.
    pub elements: Vec<String>,
}

impl Neo4jFacts {
    /// These facts without what moves without meaning anything: figures, and how far a population is. Two snapshots
    /// whose `material` is equal need no reconcile.
    pub fn material(&self) -> Self {
        let policies = self
            .policies
            .iter()
            .map(|(name, facts)| (name.clone(), facts.material()))
            .collect();
        Self {
            figures: GraphFigures::default(),
            policies,
            ..self.clone()
        }
    }
}

impl GraphFacts {
    fn material(&self) -> Self {
        let flatten = |items: &[ItemFacts]| items.iter().map(ItemFacts::material).collect();
        Self {
            generation: self.generation,
            constraints: flatten(&self.constraints),
            indexes: flatten(&self.indexes),
        }
    }

    /// Every item is online.
    pub fn is_in(&self) -> bool {
        self.constraints
            .iter()
            .chain(&self.indexes)
            .all(|item| item.state == ItemState::Online)
    }
}

impl ItemFacts {
    fn material(&self) -> Self {
        let state = match &self.state {
            ItemState::Populating(_) => ItemState::Populating(0.0),
            state => state.clone(),
        };
        Self { state, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(state: ItemState, nodes: u64) -> Neo4jFacts {
        let item = ItemFacts {
            name: GraphName::parse("i").unwrap(),
            actual_name: None,
            state,
        };
        let policy = GraphFacts {
            indexes: vec![item],
            ..GraphFacts::default()
        };
        Neo4jFacts {
            figures: GraphFigures {
                nodes,
                ..GraphFigures::default()
            },
            policies: BTreeMap::from([("amas".into(), policy)]),
            ..Neo4jFacts::default()
        }
    }

    #[test]
    fn only_what_means_something_is_material() {
        let populating = |percent, nodes| facts(ItemState::Populating(percent), nodes).material();
        assert_eq!(populating(10.0, 1), populating(90.0, 2));
        assert_ne!(populating(10.0, 1), facts(ItemState::Online, 1).material());
        assert!(facts(ItemState::Online, 1).policies["amas"].is_in());
        assert!(!facts(ItemState::Missing, 1).policies["amas"].is_in());
    }
}
