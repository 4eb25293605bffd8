//! What is the CachePolicy's own: eviction and expiry as a duty of the Redis keeper, and what is shown of them.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use kube::{Resource, runtime::reflector::Store as Cache};

use crate::{
    api::{
        amas_database::AmasDatabase,
        cache_policy::{self as api, CachePolicy, CachePolicyStatus, EvictionStatus, RuleCounts, RuleStatus},
        conditions::Reason,
        names::KeyPattern,
    },
    controllers::{
        Context,
        database::{StoreKind, eviction_owner},
        policy::{Policy, PolicyStatus, Standing, database_key},
        wakes::Wakes,
    },
    engine::{queue::Waker, status::Book},
    stores::{
        keeper::Keepers,
        redis::{
            CacheDuty, CacheFacts, DefaultTtl, EnforcedBy, Eviction, EvictionPolicy, Expires, FamilyFacts, KeyType,
            Mode, Redis, RedisFacts, Rule,
        },
    },
};

impl PolicyStatus for CachePolicyStatus {
    fn observed_generation(&self) -> Option<i64> {
        self.observed_generation
    }

    fn conditions(&self) -> &[Condition] {
        &self.conditions
    }

    fn observe(&mut self, generation: i64, conditions: Vec<Condition>) {
        (self.observed_generation, self.conditions) = (Some(generation), conditions);
    }
}

impl Policy for CachePolicy {
    type Engine = Redis;
    type Facts = CacheFacts;
    const STORE: StoreKind = StoreKind::Redis;

    fn database(&self) -> &str {
        &self.spec.database_ref.name
    }

    fn is_declared(database: &AmasDatabase) -> bool {
        database.spec.redis.is_some()
    }

    fn cache(context: &Context) -> &Cache<Self> {
        &context.caches.cache_policies
    }

    fn book(context: &Context) -> &Book<CachePolicyStatus> {
        &context.books.cache_policies
    }

    fn keepers(context: &Context) -> &Keepers<Redis> {
        &context.keepers.redis
    }

    fn waker(wakes: &Wakes) -> &Waker<Self> {
        &wakes.cache_policies
    }

    fn validate(&self, context: &Context) -> Result<CacheDuty, Standing> {
        let key = database_key(self);
        let owner = eviction_owner(context, &key.namespace, &key.database).map(|(owner, _)| owner);
        validate(self, owner.as_deref())
    }

    fn facts<'a>(all: &'a RedisFacts, name: &str) -> Option<&'a CacheFacts> {
        all.policies.get(name)
    }

    fn generation(facts: &CacheFacts) -> i64 {
        facts.generation
    }

    fn conflict(all: &RedisFacts) -> Option<&str> {
        all.claim_conflict.as_deref()
    }

    fn standing(duty: &CacheDuty, facts: &CacheFacts) -> Standing {
        standing(duty, facts)
    }

    fn show(&self, facts: &CacheFacts, old: &CachePolicyStatus, new: &mut CachePolicyStatus, now: Timestamp) {
        show(self, facts, new);
        if without_times(old) != without_times(new) {
            new.as_of = Some(Time(now));
        }
    }

    fn without_figures(status: &CachePolicyStatus) -> CachePolicyStatus {
        CachePolicyStatus {
            rules: Vec::new(),
            default_ttl: None,
            matched: None,
            without_ttl: None,
            ..without_times(status)
        }
    }

    fn figures(status: &CachePolicyStatus) -> Vec<i64> {
        let all = status.rules.iter().map(|rule| rule.counts).chain(status.default_ttl);
        all.flat_map(|counts| [counts.matched, counts.without_ttl]).collect()
    }

    fn figures_at(status: &CachePolicyStatus) -> Option<&Time> {
        status.as_of.as_ref()
    }
}

/// The duty that the specification means. Only one policy of a server sets eviction: the first by name.
fn validate(object: &CachePolicy, eviction_owner: Option<&str>) -> Result<CacheDuty, Standing> {
    let spec = &object.spec;
    if let (Some(_), Some(owner)) = (&spec.eviction, eviction_owner)
        && object.meta().name.as_deref() != Some(owner)
    {
        let message =
            format!("CachePolicy {owner} already sets eviction for this server; take spec.eviction out of one of them");
        return Err(Standing::invalid(Reason::Conflicted, message));
    }
    let rule = |rule: &api::KeyRule| {
        let pattern = KeyPattern::parse(rule.pattern.clone()).map_err(|error| {
            Standing::invalid(
                Reason::InvalidSpec,
                format!("spec.rules[{}].pattern: {error}", rule.name),
            )
        })?;
        let expires = rule.ttl.map_or(Expires::Never, |ttl| Expires::After(ttl.get()));
        Ok(Rule {
            name: rule.name.clone(),
            pattern,
            expires,
            mode: mode(rule.mode),
        })
    };
    if let Some(zero) = spec
        .rules
        .iter()
        .find(|rule| rule.ttl.is_some_and(|ttl| ttl.get().is_zero()))
    {
        return Err(Standing::invalid(
            Reason::InvalidSpec,
            format!("spec.rules[{}].ttl: must be longer than nothing", zero.name),
        ));
    }
    Ok(CacheDuty {
        generation: object.meta().generation.unwrap_or_default(),
        prefix: spec.prefix.clone(),
        eviction: spec.eviction.as_ref().map(|eviction| Eviction {
            max_memory_bytes: eviction.max_memory.value(),
            policy: policy(eviction.policy),
        }),
        default_ttl: spec.default_ttl.as_ref().map(|default| DefaultTtl {
            ttl: default.ttl.get(),
            types: default.types.iter().map(|kind| key_type(*kind)).collect(),
            mode: mode(default.mode),
        }),
        rules: spec.rules.iter().map(rule).collect::<Result<_, _>>()?,
        sweep_interval: spec.sweep_interval.get(),
    })
}

fn mode(mode: api::Mode) -> Mode {
    match mode {
        api::Mode::Audit => Mode::Audit,
        api::Mode::Enforce => Mode::Enforce,
    }
}

fn policy(policy: api::EvictionPolicy) -> EvictionPolicy {
    match policy {
        api::EvictionPolicy::Noeviction => EvictionPolicy::NoEviction,
        api::EvictionPolicy::AllkeysLru => EvictionPolicy::AllkeysLru,
        api::EvictionPolicy::AllkeysLfu => EvictionPolicy::AllkeysLfu,
        api::EvictionPolicy::AllkeysRandom => EvictionPolicy::AllkeysRandom,
        api::EvictionPolicy::VolatileLru => EvictionPolicy::VolatileLru,
        api::EvictionPolicy::VolatileLfu => EvictionPolicy::VolatileLfu,
        api::EvictionPolicy::VolatileRandom => EvictionPolicy::VolatileRandom,
        api::EvictionPolicy::VolatileTtl => EvictionPolicy::VolatileTtl,
    }
}

fn key_type(kind: api::KeyType) -> KeyType {
    match kind {
        api::KeyType::String => KeyType::String,
        api::KeyType::List => KeyType::List,
        api::KeyType::Set => KeyType::Set,
        api::KeyType::Zset => KeyType::SortedSet,
        api::KeyType::Hash => KeyType::Hash,
        api::KeyType::Stream => KeyType::Stream,
    }
}

fn standing(duty: &CacheDuty, facts: &CacheFacts) -> Standing {
    let refused = facts
        .eviction_error
        .as_ref()
        .or(facts.sweep_error.as_ref())
        .or(facts.eviction_conflict.as_ref());
    if let Some(error) = refused {
        return Standing::invalid(Reason::Refused, error);
    }
    if duty.eviction.is_some() && !facts.eviction_in {
        return Standing::waiting(Reason::Configuring, "eviction is being set");
    }
    if duty.sweeps() && facts.sweep.is_none() {
        return Standing::waiting(Reason::Configuring, "the first pass over the keys is under way");
    }
    Standing::ready("eviction is in force and the keys have been looked at")
}

/// The counts of a family: what should have an expiry and has none, or must not have one and has.
fn counts(family: &FamilyFacts, never: bool) -> RuleCounts {
    let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    RuleCounts {
        matched: number(family.matched),
        without_ttl: number(if never { family.expiring } else { family.without_ttl }),
    }
}

fn show(object: &CachePolicy, facts: &CacheFacts, new: &mut CachePolicyStatus) {
    if let Some(sweep) = &facts.sweep {
        let never = |name: &str| {
            object
                .spec
                .rules
                .iter()
                .any(|rule| rule.name.as_str() == name && rule.expires.is_some())
        };
        new.rules = sweep
            .rules
            .iter()
            .map(|rule| RuleStatus {
                name: rule.name.to_string(),
                counts: counts(&rule.keys, never(rule.name.as_str())),
            })
            .collect();
        new.default_ttl = object
            .spec
            .default_ttl
            .as_ref()
            .map(|_| counts(&sweep.default_ttl, false));
        let all = || new.rules.iter().map(|rule| rule.counts).chain(new.default_ttl);
        let (matched, without_ttl) = (
            all().map(|counts| counts.matched).sum(),
            all().map(|counts| counts.without_ttl).sum(),
        );
        (new.matched, new.without_ttl) = (Some(matched), Some(without_ttl));
    }
    if let Some(at) = facts.last_change_sweep {
        new.last_change_sweep = Some(Time(at));
    }
    new.eviction = facts.eviction.as_ref().map(|eviction| EvictionStatus {
        max_memory: i64::try_from(eviction.max_memory).unwrap_or(i64::MAX),
        policy: eviction.policy.clone(),
        enforced_by: match eviction.enforced_by {
            EnforcedBy::Operator => "Operator".into(),
            EnforcedBy::Provider => "Provider".into(),
            EnforcedBy::Unverified => "Unverified".into(),
        },
    });
}

fn without_times(status: &CachePolicyStatus) -> CachePolicyStatus {
    CachePolicyStatus {
        as_of: None,
        last_change_sweep: None,
        ..status.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{controllers::policy::weight, engine::status::Weight};
    use serde_json::json;

    fn policy(spec: serde_json::Value) -> CachePolicy {
        serde_json::from_value(json!({"apiVersion": "amas.dev/v1alpha1", "kind": "CachePolicy", "metadata": {"name": "b", "namespace": "n", "generation": 3}, "spec": spec})).unwrap()
    }

    #[test]
    fn only_the_first_policy_sets_eviction() {
        let spec = json!({"databaseRef": {"name": "d"}, "eviction": {"maxMemory": "1Mi", "policy": "noeviction"}});
        assert!(validate(&policy(spec.clone()), Some("b")).is_ok());
        let standing = validate(&policy(spec), Some("a")).unwrap_err();
        assert_eq!(standing.reason, Reason::Conflicted);
        assert!(standing.message.contains("CachePolicy a already sets eviction"));
    }

    #[test]
    fn counts_alone_are_figures() {
        let status = |matched: i64| CachePolicyStatus {
            rules: vec![RuleStatus {
                name: "r".into(),
                counts: RuleCounts {
                    matched,
                    without_ttl: 0,
                },
            }],
            ..Default::default()
        };
        assert_eq!(weight::<CachePolicy>(&status(100), &status(110)), Weight::None);
        assert_eq!(weight::<CachePolicy>(&status(100), &status(130)), Weight::Figures);
        let other = CachePolicyStatus {
            observed_generation: Some(2),
            ..status(100)
        };
        assert_eq!(weight::<CachePolicy>(&status(100), &other), Weight::Progress);
    }
}
