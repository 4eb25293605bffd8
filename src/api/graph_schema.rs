//! GraphSchema: constraints and indexes for the Neo4j of an AmasDatabase.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{common::DatabaseRef, names::GraphName};

/// Constraints and indexes that the graph must have.
#[derive(Clone, Debug, CustomResource, Deserialize, Serialize, PartialEq, KubeSchema)]
#[kube(
    group = "amas.dev",
    version = "v1alpha1",
    kind = "GraphSchema",
    plural = "graphschemas",
    shortname = "graphschema",
    category = "amas",
    namespaced,
    status = "GraphSchemaStatus",
    doc = "Constraints and indexes for the Neo4j of an AmasDatabase.",
    printcolumn(name = "Database", type_ = "string", json_path = ".spec.databaseRef.name"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(name = "Constraints", type_ = "string", json_path = ".status.constraintsOnline"),
    printcolumn(name = "Indexes", type_ = "string", json_path = ".status.indexesOnline"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = "1"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[cfg_attr(test, kube(cel))]
#[x_kube(validation = ("self.databaseRef.name == oldSelf.databaseRef.name", "spec.databaseRef is immutable"))]
#[serde(rename_all = "camelCase")]
pub struct GraphSchemaSpec {
    /// The AmasDatabase whose Neo4j this schema is for. Immutable.
    pub database_ref: DatabaseRef,
    /// The operator that looks after this object: the one that runs with this class, as for its AmasDatabase. Default: the operator
    /// without a class. Mutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = crate::api::names::OBJECT_NAME), length(min = 1, max = 63))]
    pub controller_class: Option<String>,
    /// Constraints, matched by what they constrain: an equal one under another name is taken as it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub constraints: Vec<Constraint>,
    /// Indexes, matched by what they index: an equal one under another name is taken as it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub indexes: Vec<Index>,
}

/// A constraint on nodes of one label.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, JsonSchema)]
pub struct Constraint {
    /// Name in the database when it is created.
    pub name: GraphName,
    /// Label of the nodes.
    pub label: GraphName,
    /// Properties that together must be unique.
    #[schemars(length(min = 1, max = 16))]
    pub properties: Vec<GraphName>,
    /// `Unique`: no two nodes of the label have the same values. (Existence and key constraints need the Enterprise edition.)
    #[serde(rename = "type")]
    pub kind: ConstraintKind,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum ConstraintKind {
    Unique,
}

/// An index on nodes of one label.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, JsonSchema)]
pub struct Index {
    /// Name in the database when it is created.
    pub name: GraphName,
    /// Label of the nodes.
    pub label: GraphName,
    /// Properties, in the order of the index.
    #[schemars(length(min = 1, max = 16))]
    pub properties: Vec<GraphName>,
    /// `Range`: equality, ranges, prefixes, order.
    #[serde(rename = "type")]
    pub kind: IndexKind,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum IndexKind {
    Range,
}

/// What is true of the graph's schema, as last observed.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct GraphSchemaStatus {
    /// The generation that this status describes; -1 before the operator first saw the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready: every constraint and index is online.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Constraints that are online and that are declared, such as `3/3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub constraints_online: Option<String>,
    /// Indexes that are online and that are declared, such as `4/4`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub indexes_online: Option<String>,
    /// The constraints, one each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub constraints: Vec<ItemStatus>,
    /// The indexes, one each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub indexes: Vec<ItemStatus>,
}

/// One constraint or index as the server has it.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ItemStatus {
    /// Name in the specification.
    pub name: String,
    /// Name in the database, when that is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actual_name: Option<String>,
    /// `Online`, `Populating`, `Failed`, `Violated`, `NameTaken` or `Missing`.
    pub state: String,
    /// What went wrong, or how far it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// How many values occur more than once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub violations: Option<i64>,
    /// Some of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5))]
    pub samples: Vec<String>,
}
