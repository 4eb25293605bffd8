//! The status of an AmasDatabase: facts that changed materially, never live figures.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::redis::RedisEngine;

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

/// Where the SQL schema stands.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MigrationsStatus {
    /// Version of the last applied migration; absent when none is applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<i64>,
    /// Version asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<i64>,
    /// How many migrations are between the two.
    #[serde(default)]
    pub pending: i64,
    /// Applied and known migrations up to the target, such as `5/5`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub progress: String,
    /// How many Jobs the present plan has had.
    #[serde(default)]
    pub attempts: i64,
    /// The plan of the last Job: the first eight digits of its hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// The plan that waits for a person, or was approved and runs; absent when nothing waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending_plan: Option<PendingPlan>,
    /// The seed profile that is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seeded: Option<String>,
    /// Why the last Job failed; absent when it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<MigrationFailure>,
    /// What somebody has changed since the last run; absent when nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift: Option<SchemaDrift>,
    /// The last ten migrations that were applied, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub history: Vec<AppliedMigration>,
}

/// Changes of the schema that no migration made.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SchemaDrift {
    /// The version whose schema was recorded.
    pub version: i64,
    /// How many objects differ from what was recorded.
    pub objects: i64,
    /// The first ten, such as `column users.email: character varying(255) -> text`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub differences: Vec<String>,
}

/// Migrations that are to run, as one plan.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PendingPlan {
    /// What approves exactly this plan. It covers the database, the direction, each pending migration with its down text, and the running
    /// options; nothing that changes by itself.
    pub hash: String,
    /// `up` or `down`.
    pub direction: String,
    /// Version before it; 0 for none.
    pub from: i64,
    /// Version after it; 0 for none.
    pub to: i64,
    /// How many migrations it has.
    pub migrations: i64,
    /// How many statements it has.
    pub statement_count: i64,
    /// Its first statements, twenty at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub statements: Vec<PlanStatement>,
    /// ConfigMap with the whole plan (key `plan.txt`, at most 900 KiB).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<String>,
}

/// One statement of a plan.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanStatement {
    /// Version of its migration.
    pub version: i64,
    /// File and line.
    pub place: String,
    /// Its first 200 characters.
    pub statement: String,
    /// What it locks of what is there: `ACCESS EXCLUSIVE on "users"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locks: Option<String>,
    /// `rewrite` or `scan` of a table, and what it loses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub risk: Option<String>,
    /// Lint rules that it meets and that no comment accepts: `rename, not-null-scan`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lint: Option<String>,
    /// How large the tables are that it locks, as the catalog had it when the plan was first waited with:
    /// `"users": about 1200 rows, 96 KiB`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tables: Option<String>,
}

/// The statement that failed.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MigrationFailure {
    /// Version of the migration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,
    /// File of the migration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Line in the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<i64>,
    /// Character in the line, from 1, where the server names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<i64>,
    /// SQLSTATE that the server gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sqlstate: Option<String>,
    /// What went wrong.
    pub message: String,
}

/// One applied migration.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AppliedMigration {
    /// Its version.
    pub version: i64,
    /// What the name of its file says after the version.
    pub description: String,
    /// When it was applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied_at: Option<Time>,
}
