//! `maxmemory` and `maxmemory-policy`: set where they differ, then read back; where CONFIG is refused, verified by INFO.

use std::collections::BTreeMap;

use redis::RedisError;

use crate::stores::{
    endpoint::StoreError,
    redis::{
        duty::{CacheDuty, Eviction},
        facts::{CacheFacts, EnforcedBy, EvictionFacts, RedisFacts},
        session::{Connection, Info, lane, refuses},
    },
};

/// Brings the eviction of the first policy (by name) that asks for one in, and notes it in the facts of all policies.
/// When none asks any more, the server keeps what it has.
pub async fn hold(
    connection: &mut Connection,
    info: &Info,
    policies: &BTreeMap<String, CacheDuty>,
    facts: &mut RedisFacts,
) -> Result<(), StoreError> {
    let winner = winner(policies);
    for (name, duty) in policies {
        // What was known stands until the server has answered.
        let mut next = CacheFacts {
            eviction: None,
            eviction_conflict: None,
            eviction_error: None,
            eviction_in: duty.eviction.is_none(),
            ..facts.policies.get(name).cloned().unwrap_or_default()
        };
        match (&duty.eviction, winner) {
            (Some(wanted), Some(first)) if first == name => bring_in(connection, info, wanted, &mut next).await?,
            (Some(_), first) => next.eviction_conflict = first.map(str::to_owned),
            (None, _) => {}
        }
        facts.policies.insert(name.clone(), next);
    }
    Ok(())
}

/// One server has one eviction; the lexicographically first policy sets it, so that every operator decides alike.
fn winner(policies: &BTreeMap<String, CacheDuty>) -> Option<&str> {
    policies
        .iter()
        .find(|(_, duty)| duty.eviction.is_some())
        .map(|(name, _)| name.as_str())
}

async fn bring_in(
    connection: &mut Connection,
    info: &Info,
    wanted: &Eviction,
    facts: &mut CacheFacts,
) -> Result<(), StoreError> {
    let found = match set_and_read_back(connection, wanted).await {
        Ok(found) => found,
        Err(error) if refuses(&error) => reported(info),
        Err(error) => match lane(error) {
            StoreError::Rejected(text) => {
                facts.eviction_error = Some(text);
                reported(info)
            }
            other => return Err(other),
        },
    };
    facts.eviction_in = found.enforced_by != EnforcedBy::Unverified && agrees(wanted, &found);
    facts.eviction = Some(found);
    Ok(())
}

async fn set_and_read_back(connection: &mut Connection, wanted: &Eviction) -> Result<EvictionFacts, RedisError> {
    let found = read(connection).await?;
    if agrees(wanted, &found) {
        return Ok(found);
    }
    // The policy first: a smaller limit then never meets a policy that refuses writes.
    if found.policy != wanted.policy.as_str() {
        set(connection, "maxmemory-policy", wanted.policy.as_str()).await?;
    }
    if found.max_memory != wanted.max_memory_bytes {
        set(connection, "maxmemory", &wanted.max_memory_bytes.to_string()).await?;
    }
    read(connection).await
}

async fn set(connection: &mut Connection, parameter: &str, value: &str) -> Result<(), RedisError> {
    tracing::info!(parameter, value, "setting the server's eviction");
    redis::cmd("CONFIG")
        .arg("SET")
        .arg(parameter)
        .arg(value)
        .query_async(connection)
        .await
}

async fn read(connection: &mut Connection) -> Result<EvictionFacts, RedisError> {
    let mut pipe = redis::pipe();
    pipe.cmd("CONFIG")
        .arg("GET")
        .arg("maxmemory")
        .cmd("CONFIG")
        .arg("GET")
        .arg("maxmemory-policy");
    let (memory, policy): (BTreeMap<String, u64>, BTreeMap<String, String>) = pipe.query_async(connection).await?;
    Ok(EvictionFacts {
        max_memory: memory.values().next().copied().unwrap_or_default(),
        policy: policy.into_values().next().unwrap_or_default(),
        enforced_by: EnforcedBy::Operator,
    })
}

fn reported(info: &Info) -> EvictionFacts {
    let max_memory = info.number("maxmemory");
    let policy = info.text("maxmemory_policy").to_owned();
    let tells = max_memory.is_some() && !policy.is_empty();
    EvictionFacts {
        max_memory: max_memory.unwrap_or_default(),
        policy,
        enforced_by: if tells {
            EnforcedBy::Provider
        } else {
            EnforcedBy::Unverified
        },
    }
}

fn agrees(wanted: &Eviction, found: &EvictionFacts) -> bool {
    found.max_memory == wanted.max_memory_bytes && found.policy == wanted.policy.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stores::redis::duty::EvictionPolicy;

    fn duty(evicts: bool) -> CacheDuty {
        let eviction = evicts.then_some(Eviction {
            max_memory_bytes: 1 << 20,
            policy: EvictionPolicy::VolatileLru,
        });
        CacheDuty {
            generation: 1,
            prefix: None,
            eviction,
            default_ttl: None,
            rules: vec![],
            sweep_interval: CacheDuty::SWEEP_INTERVAL,
        }
    }

    #[test]
    fn the_first_name_that_asks_wins() {
        let policies = BTreeMap::from([
            ("a".to_owned(), duty(false)),
            ("c".to_owned(), duty(true)),
            ("b".to_owned(), duty(true)),
        ]);
        assert_eq!(winner(&policies), Some("b"));
        assert_eq!(winner(&BTreeMap::from([("a".to_owned(), duty(false))])), None);
    }

    #[test]
    fn verifies_by_info_where_config_is_refused() {
        let wanted = Eviction {
            max_memory_bytes: 1048576,
            policy: EvictionPolicy::VolatileLru,
        };
        let found = reported(&Info::parse("maxmemory:1048576\r\nmaxmemory_policy:volatile-lru\r\n"));
        assert_eq!(found.enforced_by, EnforcedBy::Provider);
        assert!(agrees(&wanted, &found));
        assert_eq!(
            reported(&Info::parse("used_memory:1\r\n")).enforced_by,
            EnforcedBy::Unverified
        );
    }

    #[test]
    fn knows_a_refusal() {
        let error = |code: &str, text: &str| redis::make_extension_error(code.into(), Some(text.into()));
        assert!(refuses(&error("ERR", "unknown command 'CONFIG'")));
        assert!(refuses(&error("NOPERM", "this user has no permissions")));
        assert!(!refuses(&error("OOM", "command not executed")));
    }
}
