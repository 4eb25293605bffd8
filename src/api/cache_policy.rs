//! CachePolicy: eviction and expiry for the Redis of an AmasDatabase.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    common::DatabaseRef,
    names::{ItemName, KeyPrefix},
    units::{Quantity, Span},
};

/// How long keys live and what is evicted when memory runs out.
#[derive(Clone, Debug, CustomResource, Deserialize, Serialize, PartialEq, KubeSchema)]
#[kube(
    group = "amas.dev",
    version = "v1alpha1",
    kind = "CachePolicy",
    plural = "cachepolicies",
    shortname = "cachepol",
    category = "amas",
    namespaced,
    status = "CachePolicyStatus",
    doc = "Expiry and eviction rules for the Redis of an AmasDatabase.",
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
    printcolumn(name = "Matched", type_ = "integer", json_path = ".status.matched"),
    printcolumn(name = "Without TTL", type_ = "integer", json_path = ".status.withoutTTL"),
    printcolumn(
        name = "Eviction",
        type_ = "string",
        json_path = ".status.eviction.policy",
        priority = "1"
    ),
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
#[x_kube(validation = ("has(self.prefix) == has(oldSelf.prefix) && (!has(self.prefix) || self.prefix == oldSelf.prefix)", "spec.prefix is immutable"))]
#[x_kube(validation = ("!has(self.eviction) || !self.eviction.policy.startsWith('allkeys') || !has(self.rules) || !self.rules.exists(r, has(r.expires) && r.expires == 'Never')", "spec.eviction.policy: an allkeys policy may evict keys of a rule with expires: Never; use a volatile policy or noeviction"))]
#[serde(rename_all = "camelCase")]
pub struct CachePolicySpec {
    /// The AmasDatabase whose Redis this policy is for. Immutable.
    pub database_ref: DatabaseRef,
    /// The operator that looks after this object: the one that runs with this class, as for its AmasDatabase. Default: the operator
    /// without a class. Mutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = crate::api::names::OBJECT_NAME), length(min = 1, max = 63))]
    pub controller_class: Option<String>,
    /// First part of every key this policy is about, without the colon that follows it. Absent: patterns are whole keys, and the policy
    /// is about the listed families only. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<KeyPrefix>,
    /// Memory limit and eviction. At most one CachePolicy of a server may set it. Default: left as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eviction: Option<Eviction>,
    /// Expiry for keys under the prefix that no rule matches. Default: none.
    #[serde(default, rename = "defaultTTL", skip_serializing_if = "Option::is_none")]
    pub default_ttl: Option<DefaultTtl>,
    /// Key families. The first rule that matches a key decides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub rules: Vec<KeyRule>,
    /// Pause between the end of one pass over the keys and the start of the next. Default: 60s.
    #[serde(default = "default_sweep_interval")]
    pub sweep_interval: Span,
}

fn default_sweep_interval() -> Span {
    Span::from_secs(60)
}

/// The server's memory limit and what it evicts.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Eviction {
    /// `maxmemory` of the server, such as `200Mi`.
    pub max_memory: Quantity,
    /// `maxmemory-policy` of the server: what goes when the memory is full.
    pub policy: EvictionPolicy,
}

/// The words of Redis.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EvictionPolicy {
    Noeviction,
    AllkeysLru,
    AllkeysLfu,
    AllkeysRandom,
    VolatileLru,
    VolatileLfu,
    VolatileRandom,
    VolatileTtl,
}

impl EvictionPolicy {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Noeviction => "noeviction",
            Self::AllkeysLru => "allkeys-lru",
            Self::AllkeysLfu => "allkeys-lfu",
            Self::AllkeysRandom => "allkeys-random",
            Self::VolatileLru => "volatile-lru",
            Self::VolatileLfu => "volatile-lfu",
            Self::VolatileRandom => "volatile-random",
            Self::VolatileTtl => "volatile-ttl",
        }
    }
}

/// Expiry for keys that no rule matches.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, JsonSchema)]
pub struct DefaultTtl {
    /// Time to live given to a key that has none, such as `5m`.
    pub ttl: Span,
    /// Types of values it is given to. Default: string only, because lists and hashes are often queues and counters.
    #[serde(default = "default_types")]
    #[schemars(length(min = 1, max = 6))]
    pub types: Vec<KeyType>,
    /// `Audit` (default) counts the keys; `Enforce` sets the expiry.
    #[serde(default)]
    pub mode: Mode,
}

fn default_types() -> Vec<KeyType> {
    vec![KeyType::String]
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum KeyType {
    String,
    List,
    Set,
    Zset,
    Hash,
    Stream,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum Mode {
    #[default]
    Audit,
    Enforce,
}

/// One family of keys.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, KubeSchema)]
#[x_kube(validation = ("has(self.ttl) != has(self.expires)", "a rule needs exactly one of ttl and expires: Never"))]
pub struct KeyRule {
    /// Name of the rule, unique in the policy.
    pub name: ItemName,
    /// Glob pattern of the keys, as in Redis, after the prefix and its colon.
    #[schemars(length(min = 1, max = 512))]
    pub pattern: String,
    /// Time to live of the keys, such as `5m`; either this or `expires`. A key without expiry is given it; a longer one is cut to it; a shorter one is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Span>,
    /// `Never`: the keys must neither expire nor be evicted; those with an expiry are counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Expires>,
    /// `Audit` (default) counts the keys; `Enforce` sets the expiry.
    #[serde(default)]
    pub mode: Mode,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum Expires {
    Never,
}

/// What is true of the policy, as last observed.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CachePolicyStatus {
    /// The generation that this status describes; -1 before the operator first saw the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready: eviction is in force and a pass over the keys has been made with these rules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Keys that any rule matched in the last pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matched: Option<i64>,
    /// Keys that should have an expiry and had none in the last pass.
    #[serde(default, rename = "withoutTTL", skip_serializing_if = "Option::is_none")]
    pub without_ttl: Option<i64>,
    /// Counts, a rule each. They are written again only when they have changed much.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub rules: Vec<RuleStatus>,
    /// Counts of the keys that fell under defaultTTL.
    #[serde(default, rename = "defaultTTL", skip_serializing_if = "Option::is_none")]
    pub default_ttl: Option<RuleCounts>,
    /// The last pass that changed a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_change_sweep: Option<Time>,
    /// The server's memory limit and eviction policy, read back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eviction: Option<EvictionStatus>,
    /// When the counts were taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<Time>,
}

/// Counts of one rule.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, JsonSchema)]
pub struct RuleStatus {
    /// Name of the rule.
    pub name: String,
    #[serde(flatten)]
    pub counts: RuleCounts,
}

/// Counts of one pass.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuleCounts {
    /// Keys that matched.
    pub matched: i64,
    /// Of these, keys that should have an expiry and had none; for `expires: Never`, keys that had one.
    #[serde(rename = "withoutTTL")]
    pub without_ttl: i64,
}

/// The server's answer.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EvictionStatus {
    /// `maxmemory` in bytes.
    pub max_memory: i64,
    /// `maxmemory-policy`.
    pub policy: String,
    /// `Operator`: set and read back by us. `Provider`: the service sets it, and it is as declared.
    pub enforced_by: String,
}
