//! What is known of a Redis server and of the policies on it.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::{
    api::{names::ItemName, redis::RedisEngine},
    stores::{limits::Limit, redis::configure::ParameterFacts},
};

/// Everything the worker saw and did. What is worth waking an object for is [`RedisFacts::material`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RedisFacts {
    /// The [`fingerprint`](super::RedisDuty::fingerprint) of the base duty that holds: reachable, logged in, claimed.
    pub duty_in: Option<u64>,
    /// Which program answers; absent before it was asked.
    pub engine: Option<RedisEngine>,
    /// As the server writes it; Valkey's own version where the server is Valkey.
    pub version: String,
    /// Changes with every start of the server process.
    pub run_id: String,
    pub persistence: Persistence,
    /// What the server or the login does not allow; `None` until it was asked.
    pub limits: Option<Vec<Limit>>,
    /// Somebody else's claim; while it is set, nothing on the server is changed or swept.
    pub claim_conflict: Option<String>,
    /// The word to take over under which the claim was last judged.
    pub take_over_seen: Option<String>,
    /// What became of the parameters of a managed server; `None` where none are asked for.
    pub parameters: Option<ParameterFacts>,
    /// Why the last slice failed as a whole.
    pub error: Option<String>,
    pub figures: RedisFigures,
    /// By the name of the CachePolicy.
    pub policies: BTreeMap<String, CacheFacts>,
}

/// How the server keeps its data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Persistence {
    pub aof_enabled: bool,
    /// The last append, rewrite or snapshot worked, as far as the server does any of them.
    pub last_write_ok: bool,
}

/// Numbers that move all the time: for metrics, and for status when it is written anyway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RedisFigures {
    /// In bytes.
    pub used_memory: u64,
    /// In bytes; 0 means no limit.
    pub max_memory: u64,
    pub connected_clients: u64,
    /// Reads that found their key, and reads that did not, since the server started.
    pub hits: u64,
    pub misses: u64,
    /// Number of keys by database; empty databases are absent.
    pub keys: BTreeMap<u32, u64>,
}

/// What is known of one CachePolicy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CacheFacts {
    /// The generation these facts hold for.
    pub generation: i64,
    /// The asked eviction was read back from the server, or none is asked.
    pub eviction_in: bool,
    pub eviction: Option<EvictionFacts>,
    /// The policy whose eviction is in force instead of this one's.
    pub eviction_conflict: Option<String>,
    /// The last whole sweep at this generation.
    pub sweep: Option<SweepFacts>,
    /// When a sweep last changed a key.
    pub last_change_sweep: Option<Timestamp>,
    /// Why the eviction could not be set.
    pub eviction_error: Option<String>,
    /// Why the last sweep ended early.
    pub sweep_error: Option<String>,
}

/// The eviction the server runs with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvictionFacts {
    /// In bytes; 0 means no limit.
    pub max_memory: u64,
    /// As the server writes it.
    pub policy: String,
    pub enforced_by: EnforcedBy,
}

/// Who sees to it that the eviction stays as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnforcedBy {
    /// Set by us and read back.
    Operator,
    /// CONFIG is refused; what the server reports by INFO is what its provider set.
    Provider,
    /// Neither CONFIG nor INFO tells.
    Unverified,
}

/// One finished sweep. SCAN may give a key twice while the server resizes, so counts are close, not exact.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SweepFacts {
    pub finished_at: Timestamp,
    /// Keys seen below the prefix, matched or not.
    pub keys_seen: u64,
    /// In the order of the policy's rules.
    pub rules: Vec<RuleFacts>,
    pub default_ttl: FamilyFacts,
}

/// What a sweep found for one rule.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleFacts {
    pub name: ItemName,
    pub keys: FamilyFacts,
}

/// Counts of keys. Enforced rules correct without asking first, so there only `matched` and `changed` are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FamilyFacts {
    pub matched: u64,
    /// Should expire and have no TTL.
    pub without_ttl: u64,
    /// Have a longer TTL than the rule's.
    pub too_long: u64,
    /// Should never expire and have a TTL.
    pub expiring: u64,
    /// Got a TTL, or had it cut.
    pub changed: u64,
}

impl RedisFacts {
    /// These facts with everything flattened that moves without meaning anything: of figures nothing is left, of
    /// counts only whether there is any. Two snapshots whose `material` is equal need no reconcile.
    pub fn material(&self) -> Self {
        let policies = self
            .policies
            .iter()
            .map(|(name, facts)| (name.clone(), facts.material()))
            .collect();
        Self {
            figures: RedisFigures::default(),
            // A start is told by the health.
            run_id: String::new(),
            policies,
            ..self.clone()
        }
    }
}

impl CacheFacts {
    fn material(&self) -> Self {
        let sweep = self.sweep.as_ref().map(|sweep| SweepFacts {
            finished_at: Timestamp::UNIX_EPOCH,
            keys_seen: 0,
            rules: sweep
                .rules
                .iter()
                .map(|rule| RuleFacts {
                    keys: rule.keys.material(),
                    ..rule.clone()
                })
                .collect(),
            default_ttl: sweep.default_ttl.material(),
        });
        Self {
            sweep,
            last_change_sweep: None,
            ..self.clone()
        }
    }
}

impl FamilyFacts {
    /// Whether there are offences at all; how many keys a family has, or how many were mended, is business as usual.
    fn material(&self) -> Self {
        Self {
            matched: 0,
            without_ttl: self.without_ttl.min(1),
            too_long: self.too_long.min(1),
            expiring: self.expiring.min(1),
            changed: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(without_ttl: u64, used_memory: u64) -> RedisFacts {
        let keys = FamilyFacts {
            matched: without_ttl * 3,
            without_ttl,
            ..FamilyFacts::default()
        };
        let rules = vec![RuleFacts {
            name: ItemName::parse("performance").unwrap(),
            keys,
        }];
        let sweep = SweepFacts {
            finished_at: Timestamp::now(),
            rules,
            ..SweepFacts::default()
        };
        let policy = CacheFacts {
            sweep: Some(sweep),
            ..CacheFacts::default()
        };
        RedisFacts {
            figures: RedisFigures {
                used_memory,
                ..RedisFigures::default()
            },
            policies: BTreeMap::from([("amas".into(), policy)]),
            ..RedisFacts::default()
        }
    }

    #[test]
    fn only_what_means_something_is_material() {
        assert_eq!(facts(2, 100).material(), facts(9, 200).material());
        assert_ne!(facts(0, 100).material(), facts(1, 100).material());
        let lost = RedisFacts {
            error: Some("gone".into()),
            ..facts(2, 100)
        };
        assert_ne!(lost.material(), facts(2, 100).material());
    }
}
