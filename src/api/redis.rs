//! The Redis block of an AmasDatabase.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{Connection, External, Resources, SecretRef, Storage};

/// A Redis or Valkey server that the operator runs (`managed`) or uses (`external`). Its connection Secret is `<name>-redis-connection`.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, KubeSchema)]
#[x_kube(validation = ("has(self.managed) != has(self.external)", "redis: set exactly one of managed and external"))]
#[serde(rename_all = "camelCase")]
pub struct RedisSpec {
    /// Whether Ready and Available need this store. Default: true.
    #[serde(default = "super::yes")]
    pub required: bool,
    /// A server run by the operator. Exactly one of managed and external; changing from one to the other is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed: Option<ManagedRedis>,
    /// An existing server. Exactly one of managed and external.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<External>,
    /// How the connection Secret is written.
    #[serde(default)]
    pub connection: Connection,
}

/// A server run by the operator: one replica, one volume.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, KubeSchema)]
#[x_kube(validation = ("self.engine != 'Valkey' || self.version == '8'", "redis.managed: Valkey is there in version 8"))]
#[serde(rename_all = "camelCase")]
pub struct ManagedRedis {
    /// `Redis` (default) or `Valkey`: the program that serves. Everything else is the same for both. Immutable.
    #[serde(default)]
    pub engine: RedisEngine,
    /// Major version: 7 or 8 of Redis, 8 of Valkey. Default: 8. It cannot be changed while there is no upgrade path.
    #[serde(default = "default_version")]
    #[schemars(regex(pattern = "^(7|8)$"))]
    pub version: String,
    /// `AOF`: every write reaches the disk within a second. `RDB`: snapshots, some minutes of writes may be lost. `None`: nothing survives a restart.
    /// Default: AOF. Immutable.
    #[serde(default)]
    pub persistence: Persistence,
    /// The data volume, a PersistentVolumeClaim `<name>-redis`.
    pub storage: Storage,
    /// CPU and memory of the server. Default: none requested, none limited.
    #[serde(default)]
    pub resources: Resources,
    /// Secret of yours in the same namespace with the password: key `password`, and optionally `username`, which must be `default`. The
    /// connection Secret is published all the same, with that password in it, and follows it. Default: the operator makes a password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
    /// Image to run instead of the operator's choice for the version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = crate::api::names::IMAGE), length(min = 1, max = 512))]
    pub image: Option<String>,
    /// Server parameters, as in redis.conf: `maxclients: "500"`. The running server takes a change up at once; one that it reads only when it
    /// starts (such as io-threads), or that is taken out again, restarts it once. A value that the running server refuses is not written, and
    /// the server goes on. What the operator owns (addresses, users and passwords, TLS, paths, persistence, replication, modules, and
    /// maxmemory and maxmemory-policy, which belong to CachePolicies) is refused. Default: none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 128))]
    pub parameters: BTreeMap<String, String>,
}

fn default_version() -> String {
    "8".into()
}

/// A program that speaks the protocol of Redis.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum RedisEngine {
    #[default]
    Redis,
    Valkey,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum Persistence {
    #[default]
    AOF,
    RDB,
    None,
}
