//! What a Redis server is asked to hold true.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use crate::{
    api::{
        names::{ItemName, KeyPattern, KeyPrefix},
        sensitive::Sensitive,
    },
    stores::{claim::Claim, endpoint::Endpoint, health::Attention, redis::parameters::Parameters},
};

/// The server's own part, from the AmasDatabase.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RedisDuty {
    /// Database 0 of this server, as user `default` or another one that may do what the policies ask.
    pub endpoint: Endpoint,
    /// A further password that is valid beside the endpoint's, while one takes the place of the other.
    pub second: Option<Sensitive>,
    pub claim: Claim,
    /// Whether the operator made this server: recorded in the claim, and then its passwords are ours to hold.
    pub managed: bool,
    pub attention: Attention,
    /// Parameters of a managed server.
    pub parameters: Parameters,
    /// The fingerprint of the certificate that a server of ours should show. Not part of the fingerprint.
    pub serves: Option<String>,
    /// A person's word, by its value, that somebody else's claim is to be replaced by ours.
    pub take_over: Option<String>,
}

impl RedisDuty {
    /// Identifies this duty within one run of the operator: equal duties have equal fingerprints.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        // Handled once, it changes nothing that is to be.
        let mut lasting = Self {
            take_over: None,
            serves: None,
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

/// One CachePolicy.
#[derive(Clone, Debug, PartialEq)]
pub struct CacheDuty {
    /// The generation of the CachePolicy these values are from.
    pub generation: i64,
    /// Only keys below `prefix:` are looked at, and patterns are relative to it. Without one, patterns are full patterns.
    pub prefix: Option<KeyPrefix>,
    /// At most one policy of a server may set it.
    pub eviction: Option<Eviction>,
    /// For keys below the prefix that no rule matches; without a prefix it applies to nothing.
    pub default_ttl: Option<DefaultTtl>,
    /// Where patterns overlap, the first rule in the list wins.
    pub rules: Vec<Rule>,
    /// The pause between the end of a sweep and the start of the next; see [`CacheDuty::SWEEP_INTERVAL`].
    pub sweep_interval: Duration,
}

impl CacheDuty {
    /// The default pause between two sweeps.
    pub const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

    /// A policy without rules and default has nothing to sweep for.
    pub fn sweeps(&self) -> bool {
        !self.rules.is_empty() || self.default_ttl.is_some()
    }
}

/// How much memory the server may use, and what it drops when that is full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eviction {
    /// In bytes; 0 is the server's own "no limit".
    pub max_memory_bytes: u64,
    pub policy: EvictionPolicy,
}

/// The values of `maxmemory-policy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvictionPolicy {
    NoEviction,
    AllkeysLru,
    AllkeysLfu,
    AllkeysRandom,
    VolatileLru,
    VolatileLfu,
    VolatileRandom,
    VolatileTtl,
}

impl EvictionPolicy {
    /// The word the server uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoEviction => "noeviction",
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

/// A TTL for keys that were written without one. A key that has one keeps it, however long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultTtl {
    pub ttl: Duration,
    /// Keys of other types are never touched.
    pub types: Vec<KeyType>,
    pub mode: Mode,
}

/// What the server's TYPE answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyType {
    String,
    List,
    Set,
    SortedSet,
    Hash,
    Stream,
}

impl KeyType {
    /// The word the server uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::List => "list",
            Self::Set => "set",
            Self::SortedSet => "zset",
            Self::Hash => "hash",
            Self::Stream => "stream",
        }
    }
}

/// What holds for one family of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub name: ItemName,
    /// Relative to the prefix.
    pub pattern: KeyPattern,
    pub expires: Expires,
    pub mode: Mode,
}

/// When the keys of a family go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expires {
    /// At the latest after this time. Enforced, a key without TTL gets it and a longer TTL is cut to it; a shorter one stays.
    After(Duration),
    /// Not at all. Keys that have a TTL nevertheless are counted and left alone in both modes: whether the
    /// TTL or the rule is the mistake only a person can tell, and taking a TTL away can fill a server.
    Never,
}

/// Whether a rule only counts or also changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Audit,
    Enforce,
}
