//! The status of an AmasDatabase: facts that changed materially, never live figures.

mod migrations;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::redis::RedisEngine;

pub use migrations::{AppliedMigration, MigrationFailure, MigrationsStatus, PendingPlan, PlanStatement, SchemaDrift};

/// What is true of the data layer, as last observed.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AmasDatabaseStatus {
    /// The generation of the specification that this status describes; -1 before the operator first saw the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready: everything declared is in. Available: every required store serves at the current schema version. One condition a store, and
    /// MigrationsApplied, PoliciesReady, Degraded. Reconciling, Stalled, UpdatePending and Drifted are there only while True.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Facts about each store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stores: Option<StoresStatus>,
    /// The SQL schema's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migrations: Option<MigrationsStatus>,
    /// Secrets that hold connection values or generated values. They outlive this object when deletionPolicy is Retain.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub secrets: Vec<String>,
    /// Credentials whose password was replaced, is being replaced, or will be by its age or the schedule.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub credentials: Vec<CredentialStatus>,
    /// The last handled value of each one-shot annotation, by the annotation's name without `amas.dev/`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub handled: BTreeMap<String, String>,
    /// What was decided for each store when it was made and cannot change, by the store and the field of the specification. It stays
    /// while the store's block is out of the specification, so that it comes back as it was.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 8))]
    pub pinned: BTreeMap<String, BTreeMap<String, String>>,
    /// PersistentVolumeClaims of the managed stores. They outlive this object when deletionPolicy is Retain.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub volumes: Vec<String>,
    /// The issuer of cert-manager that was asked for the servers' certificates, while Certificates of this object may exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 300))]
    pub issuer: Option<String>,
}

/// Where the replacement of one credential's password stands.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CredentialStatus {
    /// The PostgreSQL role, or `postgres-admin`, `redis`, `neo4j`.
    #[schemars(length(max = 63))]
    pub name: String,
    /// The Secret that has it.
    #[schemars(length(max = 253))]
    pub secret: String,
    /// How many passwords came after the first.
    #[serde(default)]
    pub rotations: i64,
    /// When the present password was published, if it is not the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotated_at: Option<Time>,
    /// A new password is being made valid on the server.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub preparing: bool,
    /// Until when the previous password is valid too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_valid_until: Option<Time>,
    /// When the present password is replaced by its age or the schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_rotation_at: Option<Time>,
}

/// Facts, a block a store.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, JsonSchema)]
pub struct StoresStatus {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres: Option<PostgresStatus>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis: Option<RedisStatus>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub neo4j: Option<Neo4jStatus>,
}

/// Something that the login or the service does not allow.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, JsonSchema)]
pub struct StoreLimit {
    /// A stable word, such as `NoCreateRole`, `NoConfig` or `ReadOnly`.
    #[schemars(length(max = 63))]
    pub name: String,
    /// What follows from it.
    #[schemars(length(max = 512))]
    pub consequence: String,
}

/// Facts about the PostgreSQL server and database.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PostgresStatus {
    /// Version of the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Host and port that clients use.
    pub endpoint: String,
    /// When the server process started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// `max_connections` of the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<i64>,
    /// Size of the database, rounded to two digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// Extensions that are there and not (or no longer) listed in the specification. They are never dropped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub undeclared_extensions: Vec<String>,
    /// Roles that are no longer listed in the specification: they cannot log in, and stay because they own something, have rights in another
    /// database, or were not made by the operator.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retired_roles: Vec<String>,
    /// Number of tables outside the system's and the operator's schemas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tables: Option<i64>,
    /// Size of the managed server's volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<String>,
    /// What the login or the service does not allow, and what follows from it. Looked at once for each connection.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub limits: Vec<StoreLimit>,
    /// When these facts were read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<Time>,
}

/// Facts about the Redis server.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RedisStatus {
    /// The program that answers, whatever the specification says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<RedisEngine>,
    /// Version of the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Host and port that clients use.
    pub endpoint: String,
    /// When the server process started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// Number of keys, rounded to two digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<String>,
    /// Size of the managed server's volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<String>,
    /// What the login or the service does not allow, and what follows from it. Looked at once for each connection.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub limits: Vec<StoreLimit>,
    /// When these facts were read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<Time>,
}

/// Facts about the Neo4j server.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Neo4jStatus {
    /// Version of the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Host and port that clients use.
    pub endpoint: String,
    /// When the server process started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// Number of nodes, rounded to two digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<String>,
    /// Size of the managed server's volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<String>,
    /// What the login or the service does not allow, and what follows from it. Looked at once for each connection.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub limits: Vec<StoreLimit>,
    /// When these facts were read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<Time>,
}
