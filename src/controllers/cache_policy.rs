//! The CachePolicy controller: observe, validate, plan, apply, report. Its plan is one duty; the Redis keeper carries it out.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::Resource;

use crate::{
    api::{
        cache_policy::{self as api, CachePolicy, CachePolicyStatus, EvictionStatus, RuleCounts, RuleStatus},
        conditions::{ConditionType, Reason, is_true, merge},
        names::KeyPattern,
    },
    controllers::{
        Context,
        database::eviction_owner,
        policy::{Change, Standing, database_key, find_database, report, stands, store_missing},
    },
    engine::{
        metrics::Object,
        queue::{Next, Reconcile, ReconcileError, Verdict},
        status::Weight,
    },
    stores::{
        keeper::Snapshot,
        redis::{
            CacheDuty, CacheFacts, DefaultTtl, EnforcedBy, Eviction, EvictionPolicy, Expires, FamilyFacts, KeyType,
            Mode, Redis, Rule,
        },
    },
};

/// Reconciles CachePolicies.
pub struct CachePolicies(pub Arc<Context>);

impl Reconcile<CachePolicy> for CachePolicies {
    async fn reconcile(&self, object: Arc<CachePolicy>) -> Result<Next, ReconcileError> {
        let context = &*self.0;
        let name = object.meta().name.clone().unwrap_or_default();
        // Caches and the keeper's snapshot; no request.
        let key = database_key(&*object, &object.spec.database_ref.name);
        let database = find_database(context, &key);
        let snapshot = context.keepers.redis.snapshot(&key);
        let owner = eviction_owner(context, &key.namespace, &key.database).map(|(owner, _)| owner);
        // Pure: the duty, or what is wrong.
        let duty = validate(&object, owner.as_deref());
        // The duty to the keeper; nothing is written to Kubernetes.
        match &duty {
            Ok(duty) => context.keepers.redis.assign_policy(&key, &name, duty.clone()),
            Err(_) => context.keepers.redis.withdraw_policy(&key, &name),
        }
        let declared = database.as_ref().is_some_and(|database| database.spec.redis.is_some());
        let missing = store_missing(
            database.as_deref(),
            declared,
            "redis",
            &key.database,
            snapshot.as_ref().map(|snapshot| &snapshot.health),
        );
        let facts = snapshot
            .as_deref()
            .and_then(|snapshot: &Snapshot<Redis>| snapshot.facts.policies.get(&name))
            .cloned();
        let standing = match (duty, missing) {
            (Err(standing), _) => standing,
            (_, Some(standing)) => standing,
            (Ok(duty), None) => standing(&duty, facts.as_ref(), snapshot.as_deref()),
        };
        let old = context
            .books
            .cache_policies
            .last(object.meta().uid.as_deref().unwrap_or_default())
            .map(|(status, _)| status);
        let first = old.is_none() && object.status.as_ref().is_none_or(|status| status.conditions.is_empty());
        let old = old.or_else(|| object.status.clone()).unwrap_or_default();
        let ready = is_true(&old.conditions, ConditionType::Ready);
        let health = snapshot.as_ref().map(|snapshot| &snapshot.health);
        if stands(
            &standing,
            health,
            old.observed_generation,
            object.meta().generation,
            ready,
        ) {
            return Ok(Next {
                verdict: Verdict::Converged,
                after: None,
            });
        }
        let new = status(&object, &old, &standing, facts.as_ref(), Timestamp::now());
        let weight = weight(&old, &new);
        let age = old
            .as_of
            .as_ref()
            .and_then(|time| Duration::try_from(Timestamp::now().duration_since(time.0)).ok());
        report(
            context,
            &*object,
            &context.books.cache_policies,
            Change {
                new,
                weight,
                standing,
                first,
                was_stalled: is_true(&old.conditions, ConditionType::Stalled),
                age,
            },
        )
        .await
    }
}

/// Forgets everything about an object that is gone.
pub fn forget(context: &Context, object: &CachePolicy) {
    let meta = object.meta();
    let key = database_key(object, &object.spec.database_ref.name);
    let name = meta.name.clone().unwrap_or_default();
    context.keepers.redis.withdraw_policy(&key, &name);
    context
        .books
        .cache_policies
        .forget(meta.uid.as_deref().unwrap_or_default());
    context.metrics.ready.remove(&Object {
        kind: "CachePolicy",
        namespace: key.namespace,
        name,
    });
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

/// How a policy stands whose store answers.
fn standing(duty: &CacheDuty, facts: Option<&CacheFacts>, snapshot: Option<&Snapshot<Redis>>) -> Standing {
    if let Some(conflict) = snapshot.and_then(|snapshot| snapshot.facts.claim_conflict.as_ref()) {
        return Standing::invalid(Reason::Conflicted, conflict);
    }
    let Some(facts) = facts.filter(|facts| facts.generation == duty.generation) else {
        return Standing::waiting(Reason::Configuring, "the policy is being taken up");
    };
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

fn status(
    object: &CachePolicy,
    old: &CachePolicyStatus,
    standing: &Standing,
    facts: Option<&CacheFacts>,
    now: Timestamp,
) -> CachePolicyStatus {
    let generation = object.meta().generation.unwrap_or_default();
    let mut new = CachePolicyStatus {
        observed_generation: Some(generation),
        conditions: merge(&old.conditions, &standing.conditions(), generation, now),
        ..old.clone()
    };
    let Some(facts) = facts.filter(|facts| facts.generation == generation) else {
        return new;
    };
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
    new.last_change_sweep = facts.last_change_sweep.map(Time).or(new.last_change_sweep);
    new.eviction = facts.eviction.as_ref().map(|eviction| EvictionStatus {
        max_memory: i64::try_from(eviction.max_memory).unwrap_or(i64::MAX),
        policy: eviction.policy.clone(),
        enforced_by: match eviction.enforced_by {
            EnforcedBy::Operator => "Operator".into(),
            EnforcedBy::Provider => "Provider".into(),
            EnforcedBy::Unverified => "Unverified".into(),
        },
    });
    if without_times(old) != without_times(&new) {
        new.as_of = Some(Time(now));
    }
    new
}

fn without_times(status: &CachePolicyStatus) -> CachePolicyStatus {
    CachePolicyStatus {
        as_of: None,
        last_change_sweep: None,
        ..status.clone()
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

/// Counts are figures; they matter when they moved by a fifth.
fn weight(old: &CachePolicyStatus, new: &CachePolicyStatus) -> Weight {
    if without_figures(old) != without_figures(new) {
        let ready = |status: &CachePolicyStatus| is_true(&status.conditions, ConditionType::Ready);
        let stalled = |status: &CachePolicyStatus| is_true(&status.conditions, ConditionType::Stalled);
        return if (ready(old), stalled(old)) != (ready(new), stalled(new)) {
            Weight::News
        } else {
            Weight::Progress
        };
    }
    let moved = |old: i64, new: i64| (new - old).unsigned_abs() * 5 >= old.unsigned_abs().max(5);
    let figures = |status: &CachePolicyStatus| -> Vec<i64> {
        let rules = status.rules.iter().map(|rule| rule.counts).chain(status.default_ttl);
        rules.flat_map(|counts| [counts.matched, counts.without_ttl]).collect()
    };
    let (old, new) = (figures(old), figures(new));
    if old.len() != new.len() || old.iter().zip(&new).any(|(old, new)| moved(*old, *new)) {
        return Weight::Figures;
    }
    Weight::None
}

#[cfg(test)]
mod tests {
    use super::*;
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
        assert_eq!(weight(&status(100), &status(110)), Weight::None);
        assert_eq!(weight(&status(100), &status(130)), Weight::Figures);
        let other = CachePolicyStatus {
            observed_generation: Some(2),
            ..status(100)
        };
        assert_eq!(weight(&status(100), &other), Weight::Progress);
    }
}
