//! The Neo4j block of an AmasDatabase.

use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::common::{Connection, External, Resources, SecretRef, Storage};

/// A Neo4j server that the operator runs (`managed`) or uses (`external`). Its connection Secret is `<name>-neo4j-connection`.
/// On the Community edition every user is an administrator: whoever reads that Secret may change everything in the graph.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, KubeSchema)]
#[x_kube(validation = ("has(self.managed) != has(self.external)", "neo4j: set exactly one of managed and external"))]
#[serde(rename_all = "camelCase")]
pub struct Neo4jSpec {
    /// Whether Ready and Available need this store. Default: true.
    #[serde(default = "super::yes")]
    pub required: bool,
    /// A Community server run by the operator. Exactly one of managed and external; changing from one to the other is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed: Option<ManagedNeo4j>,
    /// An existing server. Exactly one of managed and external.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<External>,
    /// How the connection Secret is written.
    #[serde(default)]
    pub connection: Connection,
}

/// A Neo4j Community server run by the operator: one replica, one volume.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ManagedNeo4j {
    /// Version: 5.26 (the long-term support line of Neo4j 5). Default: 5.26.
    #[serde(default = "default_version")]
    #[schemars(regex(pattern = "^5\\.26$"))]
    pub version: String,
    /// The data volume, a PersistentVolumeClaim `<name>-neo4j`.
    pub storage: Storage,
    /// CPU and memory of the server. With a memory limit the heap is half of it; without one it is 512Mi.
    #[serde(default)]
    pub resources: Resources,
    /// Secret of yours in the same namespace with the password: key `password`, and optionally `username`, which must be `neo4j`. At least 8 characters. The
    /// connection Secret is published all the same, with that password in it, and follows it. Default: the operator makes a password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
    /// Image to run instead of the operator's choice for the version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = crate::api::names::IMAGE), length(min = 1, max = 512))]
    pub image: Option<String>,
    /// Name of the one database of a Community server. It takes effect when the volume is first used, and is immutable. Default: neo4j.
    #[serde(default = "default_database")]
    #[schemars(regex(pattern = "^[a-z][a-z0-9]{2,62}$"))]
    pub initial_database: String,
    /// Server settings, as in neo4j.conf: `db.transaction.timeout: "30s"`. The Community edition changes none of them while it runs, so a
    /// change restarts the server once. Settings begin with `db.`, `dbms.memory.`, `server.memory.`, `dbms.cypher.`, `server.db.`,
    /// `server.threads.`, `server.bolt.thread_pool_` or `browser.`; what else there is belongs to the operator and is refused. A name that the
    /// server does not know keeps it from starting, which the condition tells. Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 128))]
    pub parameters: BTreeMap<String, String>,
}

fn default_version() -> String {
    "5.26".into()
}

fn default_database() -> String {
    "neo4j".into()
}
