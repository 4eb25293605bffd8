//! AmasDatabase: the stores of one platform, their migrations and their one readiness gate.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use super::status::AmasDatabaseStatus;
use super::{
    common::{DeletionPolicy, Disruption, MaintenanceWindow, ManagedTls, NetworkSettings, PodSettings},
    credentials::Credentials,
    migrations::{Migrations, Seed},
    neo4j::Neo4jSpec,
    postgres::PostgresSpec,
    redis::RedisSpec,
    units::Span,
};

/// What the data layer of one platform should be.
#[derive(Clone, Debug, CustomResource, Deserialize, Serialize, PartialEq, KubeSchema)]
#[kube(
    group = "amas.dev",
    version = "v1alpha1",
    kind = "AmasDatabase",
    plural = "amasdatabases",
    shortname = "amasdb",
    category = "amas",
    namespaced,
    status = "AmasDatabaseStatus",
    doc = "The data layer of one platform: PostgreSQL, Redis and Neo4j, provisioned or adopted, migrated, and reported by one readiness gate.",
    validation = ("self.metadata.name.size() <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')", "metadata.name: use at most 40 lower-case letters, digits and hyphens, starting with a letter (it begins the names of Services)"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "PG", type_ = "string", json_path = ".status.conditions[?(@.type==\"PostgresReady\")].status"),
    printcolumn(name = "Redis", type_ = "string", json_path = ".status.conditions[?(@.type==\"RedisReady\")].status"),
    printcolumn(name = "Neo4j", type_ = "string", json_path = ".status.conditions[?(@.type==\"Neo4jReady\")].status"),
    printcolumn(name = "Migration", type_ = "string", json_path = ".status.migrations.progress"),
    printcolumn(name = "Available", type_ = "string", json_path = ".status.conditions[?(@.type==\"Available\")].status", priority = "1"),
    printcolumn(name = "PG size", type_ = "string", json_path = ".status.stores.postgres.size", priority = "1"),
    printcolumn(name = "Tables", type_ = "integer", json_path = ".status.stores.postgres.tables", priority = "1"),
    printcolumn(name = "Nodes", type_ = "string", json_path = ".status.stores.neo4j.nodes", priority = "1"),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].message", priority = "1"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[cfg_attr(test, kube(cel))]
#[x_kube(validation = ("has(self.postgres) || has(self.redis) || has(self.neo4j)", "spec: name at least one store: postgres, redis or neo4j"))]
#[x_kube(validation = ("!has(self.migrations) || has(self.postgres)", "spec.migrations needs spec.postgres"))]
#[x_kube(validation = ("!has(self.seed) || self.seed.profile == 'none' || (has(self.migrations) && (has(self.migrations.source.bundle) || has(self.seed.configMaps)))", "spec.seed needs spec.migrations, and its files: set spec.seed.configMaps, or spec.migrations.source.bundle with which they come"))]
#[x_kube(validation = ("!has(oldSelf.postgres) || !has(self.postgres) || (self.postgres.database == oldSelf.postgres.database && has(self.postgres.owner) == has(oldSelf.postgres.owner) && (!has(self.postgres.owner) || self.postgres.owner == oldSelf.postgres.owner))", "spec.postgres.database and spec.postgres.owner are immutable"))]
#[x_kube(validation = ("!has(oldSelf.postgres) || !has(self.postgres) || has(self.postgres.managed) == has(oldSelf.postgres.managed)", "spec.postgres: changing between managed and external is refused; make a new AmasDatabase and move the data"))]
#[x_kube(validation = ("!has(oldSelf.redis) || !has(self.redis) || has(self.redis.managed) == has(oldSelf.redis.managed)", "spec.redis: changing between managed and external is refused; make a new AmasDatabase and move the data"))]
#[x_kube(validation = ("!has(oldSelf.neo4j) || !has(self.neo4j) || has(self.neo4j.managed) == has(oldSelf.neo4j.managed)", "spec.neo4j: changing between managed and external is refused; make a new AmasDatabase and move the data"))]
#[x_kube(validation = ("!(has(oldSelf.postgres) && has(oldSelf.postgres.managed) && has(self.postgres) && has(self.postgres.managed)) || (self.postgres.managed.version == oldSelf.postgres.managed.version && has(self.postgres.managed.storage.storageClassName) == has(oldSelf.postgres.managed.storage.storageClassName) && (!has(self.postgres.managed.storage.storageClassName) || self.postgres.managed.storage.storageClassName == oldSelf.postgres.managed.storage.storageClassName))", "spec.postgres.managed: version (there is no major upgrade path yet) and storage.storageClassName are immutable"))]
#[x_kube(validation = ("!(has(oldSelf.redis) && has(oldSelf.redis.managed) && has(self.redis) && has(self.redis.managed)) || (self.redis.managed.engine == oldSelf.redis.managed.engine && self.redis.managed.version == oldSelf.redis.managed.version && self.redis.managed.persistence == oldSelf.redis.managed.persistence && has(self.redis.managed.storage.storageClassName) == has(oldSelf.redis.managed.storage.storageClassName) && (!has(self.redis.managed.storage.storageClassName) || self.redis.managed.storage.storageClassName == oldSelf.redis.managed.storage.storageClassName))", "spec.redis.managed: engine, version, persistence and storage.storageClassName are immutable"))]
#[x_kube(validation = ("!(has(oldSelf.neo4j) && has(oldSelf.neo4j.managed) && has(self.neo4j) && has(self.neo4j.managed)) || (self.neo4j.managed.initialDatabase == oldSelf.neo4j.managed.initialDatabase && has(self.neo4j.managed.storage.storageClassName) == has(oldSelf.neo4j.managed.storage.storageClassName) && (!has(self.neo4j.managed.storage.storageClassName) || self.neo4j.managed.storage.storageClassName == oldSelf.neo4j.managed.storage.storageClassName))", "spec.neo4j.managed: initialDatabase and storage.storageClassName are immutable"))]
#[serde(rename_all = "camelCase")]
pub struct AmasDatabaseSpec {
    /// What becomes of volumes and credential Secrets when this object is deleted. `Retain` (default): they stay, and an object of the same
    /// name takes them up again. `Delete`: they are deleted with it, and on an external server the database and roles that the operator made
    /// there (refused where the operator's rights end with the namespace). Retain does not survive the deletion of the namespace. Mutable.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// How long the deletion of this object may wait for a server that cannot be reached; then it goes all the same, and an Event names what
    /// was left. Only with `deletionPolicy: Delete`. Default: 60s. Mutable.
    #[serde(default = "default_deletion_timeout")]
    pub deletion_timeout: Span,
    /// Nothing is made, changed or deleted, neither in Kubernetes nor in the stores, and no migration starts, until this is false again.
    /// Servers go on running and their health is shown. Default: false. Mutable.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,
    /// The operator that looks after this object: the one that runs with this class. Default: the operator without a class. Mutable: the
    /// other operator takes everything up as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = crate::api::names::OBJECT_NAME), length(min = 1, max = 63))]
    pub controller_class: Option<String>,
    /// The SQL store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres: Option<PostgresSpec>,
    /// The cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis: Option<RedisSpec>,
    /// The graph store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub neo4j: Option<Neo4jSpec>,
    /// The SQL schema. Default: none is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migrations: Option<Migrations>,
    /// First data. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<Seed>,
    /// Further objects that Ready waits for.
    #[serde(default)]
    pub requires: Requires,
    /// How long an optional (`required: false`) managed store is still awaited when it is first provisioned. Default: 120s.
    #[serde(default = "default_startup_timeout")]
    pub optional_startup_timeout: Span,
    /// How the passwords of the stores are looked after. Default: each is kept until somebody asks for another.
    #[serde(default)]
    pub credentials: Credentials,
    /// Settings of all pods that belong to this object.
    #[serde(default)]
    pub pods: PodSettings,
    /// Network access to the managed stores.
    #[serde(default)]
    pub network: NetworkSettings,
    /// Encryption of the connections to the managed stores. The connection Secrets then demand it (`sslmode=verify-full`, `rediss://`, `bolt+s://`) and
    /// hold the authority under `ca.crt`. Default: clear text. Adding or removing it restarts the servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ManagedTls>,
    /// When managed servers may be restarted for what a newer operator brings. Default: never by itself; such an update is shown (condition
    /// UpdatePending) and taken up with the next change that restarts the server anyway, or with the annotation `amas.dev/restart`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance_window: Option<MaintenanceWindow>,
    /// `Allow` (default): the node of a managed server can be drained; the server is away until it runs elsewhere. `Block`: a
    /// PodDisruptionBudget refuses that, and draining waits until somebody deletes the pod.
    #[serde(default)]
    pub disruption: Disruption,
}

fn default_deletion_timeout() -> Span {
    Span::from_secs(60)
}

fn default_startup_timeout() -> Span {
    Span::from_secs(120)
}

/// Objects that must exist, be Ready and be observed at their present generation before this object is Ready.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Requires {
    /// Names of CachePolicies in the same namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(regex(pattern = crate::api::names::OBJECT_NAME), length(min = 1, max = 253)))]
    pub cache_policies: Vec<String>,
    /// Names of GraphSchemas in the same namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(regex(pattern = crate::api::names::OBJECT_NAME), length(min = 1, max = 253)))]
    pub graph_schemas: Vec<String>,
}
