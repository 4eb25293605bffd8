//! What a Neo4j server is asked to hold true.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::{
    api::{names::GraphName, sensitive::Sensitive},
    stores::{claim::Claim, endpoint::Endpoint, health::Attention},
};

/// The server's own part, from the AmasDatabase.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Neo4jDuty {
    /// The Bolt address and an administrator's login (on Community every user is one).
    pub endpoint: Endpoint,
    /// A new password for the endpoint's user, which takes the place of its own: either may be the server's at the moment.
    pub next: Option<Sensitive>,
    /// The other users that are ours to hold.
    pub others: Vec<User>,
    /// The database everything happens in; `neo4j` unless the server was started with another.
    pub database: GraphName,
    pub claim: Claim,
    /// Whether the operator made this server; recorded in the claim.
    pub managed: bool,
    pub attention: Attention,
    /// A person's word, by its value, that somebody else's claim is to be replaced by ours.
    pub take_over: Option<String>,
}

/// A user beside the one that the Secret names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct User {
    pub name: String,
    /// Without one the user must not exist.
    pub password: Option<Sensitive>,
    /// A fresh volume has this user, with the password of the Secret.
    pub first: bool,
}

impl Neo4jDuty {
    /// Identifies this duty within one run of the operator: equal duties have equal fingerprints.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        // Handled once, it changes nothing that is to be.
        let mut lasting = Self {
            take_over: None,
            ..self.clone()
        };
        // The password of a server that is not ours is somebody else's to hold.
        if !self.managed {
            lasting.endpoint = self.endpoint.without_password();
        }
        lasting.hash(&mut hasher);
        hasher.finish()
    }
}

/// One GraphSchema. What it does not list is left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GraphDuty {
    /// The generation of the GraphSchema these values are from.
    pub generation: i64,
    pub constraints: Vec<ConstraintDuty>,
    pub indexes: Vec<IndexDuty>,
}

/// A constraint on the nodes of a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConstraintDuty {
    pub name: GraphName,
    pub label: GraphName,
    /// One or more; the order belongs to the definition.
    pub properties: Vec<GraphName>,
    pub kind: ConstraintKind,
}

/// The constraints Community has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConstraintKind {
    Unique,
}

/// An index on the nodes of a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexDuty {
    pub name: GraphName,
    pub label: GraphName,
    /// One or more; the order belongs to the definition.
    pub properties: Vec<GraphName>,
    pub kind: IndexKind,
}

/// The kinds of index that are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexKind {
    Range,
}
