//! The cache policy: every key family with the TTL that its rule says, eviction, counts, expiry.

use std::{
    ops::RangeInclusive,
    time::{Duration, Instant},
};

use amas_operator::api::cache_policy::CachePolicy;
use kube::api::DynamicObject;
use serde_json::json;

use super::{
    book::Book,
    commands,
    families::{Cache, FAMILIES, Family, SWEEPS},
};
use crate::{
    cluster::{
        clients::{self, Values},
        conditions,
        objects::{self, api},
        platform::{PATIENCE, Platform},
    },
    ensure,
    harness::{About, Result, context::Ctx},
};

/// What a shorter TTL is, in seconds: below that of every family.
const SHORTER: i64 = 55;
/// How far the clocks of server and suite may be apart, in milliseconds.
const APART: i64 = 1_000;

/// The platform's policy object.
pub fn policy(platform: &mut Platform) -> Result<&mut DynamicObject> {
    let is_policy =
        |object: &&mut DynamicObject| object.types.as_ref().is_some_and(|types| types.kind == "CachePolicy");
    platform
        .objects
        .iter_mut()
        .find(is_policy)
        .about("the platform has no CachePolicy")
}

pub async fn run(ctx: &Ctx, platform: &mut Platform, namespace: &str, book: &mut Book) -> Result {
    let secret = Values::read(&ctx.client, namespace, &format!("{}-redis-connection", platform.name())).await?;
    let url = secret.get("REDIS_URL")?;
    let mut redis = Cache(clients::redis(url).await?);
    families(&mut redis, book).await?;
    eviction(ctx, platform, namespace, &mut redis, book).await?;
    counts(ctx, platform, namespace, &mut redis, book).await?;
    expiry(ctx, platform, namespace, &mut redis, book).await?;
    commands::run(&mut redis, url, book).await
}

/// The keys of a family that has a TTL, and between which moments they were written.
struct Keys {
    family: &'static Family,
    /// Milliseconds.
    ttl: i64,
    from: Instant,
    until: Instant,
}

impl Keys {
    /// One without an expiry, one with a longer and one with a shorter.
    async fn write(redis: &mut Cache, family: &'static Family) -> Result<Self> {
        let ttl = family.ttl.about("a family without a TTL")?;
        let from = Instant::now();
        redis.write(family).await?;
        expiring(redis, &format!("{}longer", family.key), ttl + 1000).await?;
        expiring(redis, &format!("{}shorter", family.key), SHORTER).await?;
        Ok(Self {
            family,
            ttl: 1000 * ttl,
            from,
            until: Instant::now(),
        })
    }

    /// What is left of the family's TTL, whenever since then a sweep gave it.
    fn swept(&self) -> RangeInclusive<i64> {
        (self.ttl - millis(self.from) - APART).max(1)..=self.ttl
    }

    /// What is left of the shorter TTL when nobody touched it.
    fn untouched(&self) -> RangeInclusive<i64> {
        1..=1000 * SHORTER - millis(self.until) + APART
    }

    async fn look(&self, redis: &mut Cache, book: &mut Book) {
        let (id, key) = (self.family.id, self.family.key);
        let given = redis.reaches(key, || self.swept()).await;
        let how = format!("a key without TTL is given {} s by the sweep", self.ttl / 1000);
        book.note(&[id], &how, given.err());
        let longer = format!("{key}longer");
        let (how, kept) = match self.family.rule {
            Some(_) => (
                "a longer TTL is cut to the family's",
                redis.reaches(&longer, || self.swept()).await,
            ),
            // The default is for keys without a TTL: one that was given stays.
            None => (
                "a TTL that was given stays",
                redis.reaches(&longer, || self.ttl + 1..=self.ttl + 1_000_000).await,
            ),
        };
        book.note(&[id], how, kept.err());
        let shorter = redis.reaches(&format!("{key}shorter"), || self.untouched()).await;
        book.note(&[id], "a shorter TTL is left as it is", shorter.err());
    }
}

fn millis(since: Instant) -> i64 {
    i64::try_from(since.elapsed().as_millis()).unwrap_or(i64::MAX)
}

async fn expiring(redis: &mut Cache, key: &str, seconds: i64) -> Result {
    redis
        .ask::<String>(&["SET", key, "1", "EX", &seconds.to_string()])
        .await
        .map(|_| ())
}

/// Every family one after the other; what must not be touched is there from the beginning.
async fn families(redis: &mut Cache, book: &mut Book) -> Result {
    for family in FAMILIES.iter().filter(|family| family.ttl.is_none()) {
        redis.write(family).await?;
    }
    // A lock that is held longer than others: still its holder's.
    redis
        .ask::<String>(&["SET", "amas:lock:long", "1", "NX", "EX", "5000"])
        .await?;
    for family in FAMILIES.iter().filter(|family| family.ttl.is_some()) {
        Keys::write(redis, family).await?.look(redis, book).await;
    }
    // Several sweeps more, and what must not be touched is as it was written.
    tokio::time::sleep(SWEEPS).await;
    for family in FAMILIES.iter().filter(|family| family.ttl.is_none()) {
        let seen = redis.pttl(family.key).await?;
        book.check(
            &[family.id],
            &format!("{} is left without TTL", family.key),
            seen == -1,
            || format!("PTTL {} is {seen}", family.key),
        );
    }
    // More than any family's.
    let lock = redis.pttl("amas:lock:long").await?;
    book.check(
        &["A-RD-K08"],
        "a lock's own TTL is not touched",
        lock > 4_000_000,
        || format!("PTTL {lock}"),
    );
    let ids = ["A-RD-03", "A-RD-04", "A-RD-05", "A-X-26"];
    book.note(
        &ids,
        "each family under amas: has its class (60 s, 300 s, 3600 s), strings without a rule 300 s, see A-RD-K01..K10",
        None,
    );
    Ok(())
}

async fn eviction(ctx: &Ctx, platform: &Platform, namespace: &str, redis: &mut Cache, book: &mut Book) -> Result {
    let wanted = platform
        .cache
        .spec
        .eviction
        .as_ref()
        .about("the policy sets no eviction")?;
    let mut seen = Vec::new();
    for setting in ["maxmemory", "maxmemory-policy"] {
        seen.push(
            redis
                .ask::<Vec<String>>(&["CONFIG", "GET", setting])
                .await?
                .pop()
                .unwrap_or_default(),
        );
    }
    let wanted = [wanted.max_memory.value().to_string(), wanted.policy.as_str().to_owned()];
    let status = &read(ctx, platform, namespace).await?.data["status"]["eviction"];
    let told = [
        status["maxMemory"].to_string(),
        status["policy"].as_str().unwrap_or_default().to_owned(),
    ];
    let ok = seen == wanted && told == wanted && status["enforcedBy"] == "Operator";
    book.check(
        &["A-RD-09"],
        "volatile-lru: keys without TTL are never evicted; memory limit and policy read back from server and status",
        ok,
        || format!("server {seen:?}, status {status}, expected {wanted:?}"),
    );
    Ok(())
}

async fn read(ctx: &Ctx, platform: &Platform, namespace: &str) -> Result<DynamicObject> {
    Ok(api::<CachePolicy>(&ctx.client, namespace)
        .get(&kube::ResourceExt::name_any(&platform.cache))
        .await?)
}

/// Applies the policy as it now is and waits until it is in.
async fn apply(ctx: &Ctx, platform: &mut Platform, namespace: &str) -> Result<DynamicObject> {
    let object = policy(platform)?.clone();
    let before = read(ctx, platform, namespace).await?.metadata.generation;
    objects::apply(&ctx.client, namespace, std::slice::from_ref(&object)).await?;
    let policies = api::<CachePolicy>(&ctx.client, namespace);
    let name = kube::ResourceExt::name_any(&object);
    ensure!(
        policies.get(&name).await?.metadata.generation > before,
        "the policy was not changed"
    );
    conditions::wait_true(&policies, &name, &["Ready"], PATIENCE).await
}

/// Counts are figures, so they are written with the next change of the policy.
async fn counts(ctx: &Ctx, platform: &mut Platform, namespace: &str, redis: &mut Cache, book: &mut Book) -> Result {
    // None of them expires before it is counted.
    for family in FAMILIES.iter().filter(|family| family.ttl.is_some()) {
        for suffix in ["", "longer", "shorter"] {
            expiring(redis, &format!("{}{suffix}", family.key), SHORTER).await?;
        }
    }
    policy(platform)?.data["spec"]["sweepInterval"] = json!("2s");
    let status = apply(ctx, platform, namespace).await?.data["status"].clone();
    let mut faults = Vec::new();
    for rule in status["rules"].as_array().into_iter().flatten() {
        let keys = FAMILIES
            .iter()
            .filter(|family| family.rule.is_some_and(|name| rule["name"] == name));
        let with_ttl = keys.clone().any(|family| family.ttl.is_some());
        let lock = rule["name"] == "lock";
        let matched = if with_ttl { 3 } else { 1 + usize::from(lock) };
        let wanted = json!({ "name": rule["name"], "matched": matched, "withoutTTL": usize::from(lock) });
        if *rule != wanted {
            faults.push(format!("{rule}, expected {wanted}"));
        }
    }
    // Two families of three strings each fall under the default.
    let default = json!({ "matched": 6, "withoutTTL": 0 });
    if status["defaultTTL"] != default {
        faults.push(format!("defaultTTL {}, expected {default}", status["defaultTTL"]));
    }
    let total = (status["matched"].as_i64(), status["withoutTTL"].as_i64());
    if total != (Some(27), Some(1)) {
        faults.push(format!("matched, withoutTTL {total:?}, expected 27 and 1"));
    }
    let fault = (!faults.is_empty()).then(|| faults.join("; "));
    book.note(
        &["A-RD-08", "A-RD-K08"],
        "status counts every family exactly, found by SCAN (the lock without TTL is counted, not changed)",
        fault,
    );
    Ok(())
}

/// The same policy in seconds: every family goes, what must stay stays.
async fn expiry(ctx: &Ctx, platform: &mut Platform, namespace: &str, redis: &mut Cache, book: &mut Book) -> Result {
    let spec = &mut policy(platform)?.data["spec"];
    spec["sweepInterval"] = json!("1s");
    spec["defaultTTL"]["ttl"] = json!("2s");
    for rule in spec["rules"].as_array_mut().into_iter().flatten() {
        if rule["mode"] == "Enforce" {
            rule["ttl"] = json!(if rule["name"] == "tasks-by-status" { "1s" } else { "3s" });
        }
    }
    apply(ctx, platform, namespace).await?;
    for family in &FAMILIES {
        redis.write(family).await?;
    }
    tokio::time::sleep(Duration::from_secs(6)).await;
    for family in &FAMILIES {
        let seen = redis.pttl(family.key).await?;
        match family.ttl {
            Some(_) => book.note(
                &[family.id],
                "with TTLs in seconds the key expires",
                redis.reaches(family.key, || -2..=-2).await.err(),
            ),
            None => book.check(&[family.id], "stays when all others have expired", seen == -1, || {
                format!("PTTL {} is {seen}", family.key)
            }),
        }
    }
    Ok(())
}
