//! Policies and the sentinel against a real Redis, and the same against a real Valkey.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use amas_operator::{
    api::{
        names::{ItemName, KeyPattern, KeyPrefix},
        redis::RedisEngine,
        sensitive::Sensitive,
    },
    stores::{
        claim::Claim,
        endpoint::{Endpoint, StoreError, Tls},
        keeper::{Duty, Keepers, Key, Parting, Progress, Sentinel, Sign, Store},
        redis::{
            CLAIM_KEY, CacheDuty, DefaultTtl, EnforcedBy, Eviction, EvictionPolicy, Expires, FamilyFacts, Glob,
            KeyType, Mode, Redis, RedisDuty, RedisFacts, RedisSentinel, RedisWorker, Rule,
        },
    },
};
use redis::Commands;

use crate::support::{
    fault::{Fault, Which},
    process::eventually,
    redis::{PASSWORD, Program, RedisServer},
    store_proxy::{Protocol, StoreProxy},
};

/// Every test of the list, on one and on the other.
macro_rules! on_both {
    ($($test:ident)*) => {
        mod on_redis {
            $(#[tokio::test]
            async fn $test() {
                super::$test(crate::support::redis::Program::Redis).await;
            })*
        }
        mod on_valkey {
            $(#[tokio::test]
            async fn $test() {
                super::$test(crate::support::redis::Program::Valkey).await;
            })*
        }
    };
}

on_both! {
    audit_counts_and_changes_nothing
    enforce_gives_each_family_its_ttl
    what_a_sweep_asked_without_an_answer_is_asked_again
    a_family_that_never_expires_is_reported_and_left_alone
    without_a_prefix_only_listed_families_are_touched_and_never_the_claim
    eviction_is_set_read_back_and_decided_once
    without_the_config_right_eviction_is_verified_only
    a_rule_the_user_may_not_apply_is_that_policy_s_error
    a_foreign_claim_stops_everything
    a_claim_that_was_let_go_is_anybodys
    the_acl_file_lets_in_the_right_password_only
    tls_without_verification
    the_start_time_is_the_same_in_every_answer
    a_killed_server_is_seen_at_once
    a_stopped_server_does_not_answer_pings
    a_keeper_holds_the_policy_and_tells_of_the_death
    passwords_are_held_on_a_server_that_started_from_an_older_file
    globs_mean_what_they_mean_to_the_server
    facts_tell_the_program
}

const FIVE_MINUTES: Duration = Duration::from_secs(300);

fn claim(uid: &str) -> Claim {
    Claim {
        cluster_id: "c1".into(),
        namespace: "agents".into(),
        name: "amas".into(),
        uid: uid.into(),
    }
}

pub(crate) fn base(endpoint: Endpoint) -> RedisDuty {
    RedisDuty {
        // Of a managed server, this user's passwords are held, which takes a right that the others here lack.
        managed: endpoint.user == "default",
        endpoint,
        second: None,
        claim: claim("u1"),
        attention: Default::default(),
        parameters: Default::default(),
        serves: None,
        take_over: None,
    }
}

fn rule(name: &str, pattern: &str, expires: Expires, mode: Mode) -> Rule {
    Rule {
        name: ItemName::parse(name).unwrap(),
        pattern: KeyPattern::parse(pattern).unwrap(),
        expires,
        mode,
    }
}

/// The platform's own policy: everything below `amas:`.
fn policy(mode: Mode) -> CacheDuty {
    CacheDuty {
        generation: 1,
        prefix: Some(KeyPrefix::parse("amas").unwrap()),
        eviction: None,
        default_ttl: Some(DefaultTtl {
            ttl: FIVE_MINUTES,
            types: vec![KeyType::String],
            mode,
        }),
        rules: vec![
            rule("performance", "agent:performance:*", Expires::After(FIVE_MINUTES), mode),
            rule("feed", "tasks:recent_feed", Expires::Never, mode),
            rule("locks", "lock:*", Expires::After(Duration::from_secs(30)), mode),
        ],
        sweep_interval: CacheDuty::SWEEP_INTERVAL,
    }
}

fn duty(server: &RedisServer, policies: &[(&str, CacheDuty)]) -> Duty<Redis> {
    let policies = policies.iter().map(|(name, duty)| ((*name).to_owned(), duty.clone()));
    Duty {
        base: base(server.endpoint()),
        policies: policies.collect(),
    }
}

/// Works as a keeper would, until the duty is in.
async fn settle(worker: &mut RedisWorker, duty: &Duty<Redis>, facts: &mut RedisFacts) -> usize {
    for slices in 1.. {
        match Redis::work(worker, duty, facts).await.unwrap() {
            Progress::Done { .. } => return slices,
            Progress::More { pause } => tokio::time::sleep(pause).await,
        }
    }
    unreachable!()
}

async fn settled(duty: &Duty<Redis>) -> RedisFacts {
    let mut facts = RedisFacts::default();
    settle(&mut RedisWorker::default(), duty, &mut facts).await;
    facts
}

fn family(facts: &RedisFacts, rule: &str) -> FamilyFacts {
    let sweep = facts.policies["amas"].sweep.as_ref().unwrap();
    sweep
        .rules
        .iter()
        .find(|facts| facts.name.as_str() == rule)
        .unwrap()
        .keys
}

/// 300 keys of one family: 100 without a TTL, 100 with a longer and 100 with a shorter one; and what must stay as it is.
fn fill(client: &mut redis::Connection) {
    let mut pipe = redis::pipe();
    for n in 0..100 {
        pipe.set(format!("amas:agent:performance:{n}"), "{}").ignore();
        pipe.set_ex(format!("amas:agent:performance:long-{n}"), "{}", 7200)
            .ignore();
        pipe.set_ex(format!("amas:agent:performance:short-{n}"), "{}", 60)
            .ignore();
        pipe.set(format!("amas:session:{n}"), "{}").ignore();
        pipe.set_ex(format!("amas:prediction:{n}"), "{}", 3600).ignore();
        pipe.set(format!("other:{n}"), "{}").ignore();
        pipe.set(format!("amasx:agent:performance:{n}"), "{}").ignore();
        pipe.hset(format!("amas:hash:{n}"), "a", 1).ignore();
    }
    pipe.set_ex("amas:lock:task:7", "1", 20).ignore();
    pipe.lpush("amas:tasks:recent_feed", "{}").ignore();
    pipe.query::<()>(client).unwrap();
}

fn ttl(client: &mut redis::Connection, key: &str) -> i64 {
    client.ttl::<_, redis::IntegerReplyOrNoOp>(key).unwrap().raw() as i64
}

fn writes(server: &RedisServer) -> u64 {
    server
        .info("persistence", "rdb_changes_since_last_save")
        .parse()
        .unwrap()
}

async fn facts_tell_the_program(program: Program) {
    let server = RedisServer::start(program, "").await;
    let duty = duty(&server, &[]);
    let (identity, facts) = (Redis::open(&duty.base).await.unwrap().1, settled(&duty).await);
    let (engine, option) = match program {
        Program::Redis => (RedisEngine::Redis, "redis_version"),
        Program::Valkey => (RedisEngine::Valkey, "valkey_version"),
    };
    let version = server.info("server", option);
    println!("{program:?}: version {version}");
    assert!(!version.is_empty());
    assert_eq!((facts.engine, &facts.version), (Some(engine), &version));
    assert_eq!(identity.version, facts.version);
}

async fn audit_counts_and_changes_nothing(program: Program) {
    let server = RedisServer::start(program, "").await;
    let mut client = server.client();
    fill(&mut client);
    let before = writes(&server);
    let facts = settled(&duty(&server, &[("amas", policy(Mode::Audit))])).await;
    let expected = FamilyFacts {
        matched: 300,
        without_ttl: 100,
        too_long: 100,
        ..FamilyFacts::default()
    };
    assert_eq!(family(&facts, "performance"), expected);
    assert_eq!(
        family(&facts, "feed"),
        FamilyFacts {
            matched: 1,
            ..FamilyFacts::default()
        }
    );
    assert_eq!(
        family(&facts, "locks"),
        FamilyFacts {
            matched: 1,
            ..FamilyFacts::default()
        }
    );
    let sweep = facts.policies["amas"].sweep.as_ref().unwrap();
    assert_eq!(sweep.keys_seen, 602);
    assert_eq!(
        sweep.default_ttl,
        FamilyFacts {
            matched: 200,
            without_ttl: 100,
            ..FamilyFacts::default()
        }
    );
    assert_eq!(facts.policies["amas"].last_change_sweep, None);
    assert_eq!(writes(&server), before + 1, "the claim and nothing else");
}

async fn enforce_gives_each_family_its_ttl(program: Program) {
    let server = RedisServer::start(program, "").await;
    let mut client = server.client();
    fill(&mut client);
    let duty = duty(&server, &[("amas", policy(Mode::Enforce))]);
    let mut facts = RedisFacts::default();
    settle(&mut RedisWorker::default(), &duty, &mut facts).await;

    assert_eq!(
        family(&facts, "performance"),
        FamilyFacts {
            matched: 300,
            changed: 200,
            ..FamilyFacts::default()
        }
    );
    let sweep = facts.policies["amas"].sweep.clone().unwrap();
    assert_eq!(
        sweep.default_ttl,
        FamilyFacts {
            matched: 200,
            changed: 100,
            ..FamilyFacts::default()
        }
    );
    assert!(facts.policies["amas"].last_change_sweep.is_some());
    for (key, expected) in [
        ("amas:agent:performance:7", 290..=300),
        ("amas:agent:performance:long-7", 290..=300),
        ("amas:agent:performance:short-7", 1..=60),
        ("amas:session:7", 290..=300),
        ("amas:prediction:7", 3500..=3600),
        ("amas:lock:task:7", 1..=20),
        ("amas:hash:7", -1..=-1),
        ("amas:tasks:recent_feed", -1..=-1),
        ("other:7", -1..=-1),
        ("amasx:agent:performance:7", -1..=-1),
        (CLAIM_KEY, -1..=-1),
    ] {
        let ttl = ttl(&mut client, key);
        assert!(expected.contains(&ttl), "{key} has {ttl}");
    }

    let before = writes(&server);
    settle(&mut RedisWorker::default(), &duty, &mut facts).await;
    assert_eq!(family(&facts, "performance").changed, 0);
    assert_eq!(writes(&server), before, "a second sweep writes nothing");
}

/// The connection breaks in the middle of a page.
async fn what_a_sweep_asked_without_an_answer_is_asked_again(program: Program) {
    let server = RedisServer::start(program, "").await;
    let mut client = server.client();
    fill(&mut client);
    let proxy = StoreProxy::start(Protocol::Redis, server.port).await;
    proxy.plan.begin(Some((Which::Number(50), Fault::LostAnswer)));
    let mut duty = duty(&server, &[("amas", policy(Mode::Enforce))]);
    duty.base.endpoint.port = proxy.port;
    let (mut worker, mut facts, mut failures) = (RedisWorker::default(), RedisFacts::default(), 0);
    loop {
        match Redis::work(&mut worker, &duty, &mut facts).await {
            Ok(Progress::Done { .. }) => break,
            Ok(Progress::More { pause }) => tokio::time::sleep(pause).await,
            Err(_) => failures += 1,
        }
    }
    let words = proxy.plan.writes()[49].to_uppercase();
    assert!(
        words.starts_with("PEXPIRE") && failures == 1,
        "{words}, {failures} failures"
    );
    assert_eq!(family(&facts, "performance").matched, 300);
    for n in 0..100 {
        let key = format!("amas:agent:performance:{n}");
        assert!((1..=300).contains(&ttl(&mut client, &key)), "{key}");
    }
}

async fn a_family_that_never_expires_is_reported_and_left_alone(program: Program) {
    let server = RedisServer::start(program, "").await;
    let mut client = server.client();
    client.lpush::<_, _, ()>("amas:tasks:recent_feed", "{}").unwrap();
    client.expire::<_, ()>("amas:tasks:recent_feed", 500).unwrap();
    let facts = settled(&duty(&server, &[("amas", policy(Mode::Enforce))])).await;
    assert_eq!(
        family(&facts, "feed"),
        FamilyFacts {
            matched: 1,
            expiring: 1,
            ..FamilyFacts::default()
        }
    );
    assert!(ttl(&mut client, "amas:tasks:recent_feed") > 490);
}

async fn without_a_prefix_only_listed_families_are_touched_and_never_the_claim(program: Program) {
    let server = RedisServer::start(program, "").await;
    let mut client = server.client();
    client.set::<_, _, ()>("queue:1", "x").unwrap();
    client.set::<_, _, ()>("free", "x").unwrap();
    let mut policy = policy(Mode::Enforce);
    policy.prefix = None;
    policy.rules = vec![rule("queue", "queue:*", Expires::After(FIVE_MINUTES), Mode::Enforce)];
    let mut everything = policy.clone();
    settled(&duty(&server, &[("amas", policy)])).await;
    assert!(ttl(&mut client, "queue:1") > 0);
    assert_eq!(ttl(&mut client, "free"), -1);

    everything.rules = vec![rule("all", "*", Expires::After(FIVE_MINUTES), Mode::Enforce)];
    settled(&duty(&server, &[("amas", everything)])).await;
    assert!(ttl(&mut client, "free") > 0);
    assert_eq!(ttl(&mut client, CLAIM_KEY), -1);
}

async fn eviction_is_set_read_back_and_decided_once(program: Program) {
    let server = RedisServer::start(program, "").await;
    let eviction = |megabytes: u64| {
        let eviction = Eviction {
            max_memory_bytes: megabytes << 20,
            policy: EvictionPolicy::VolatileLru,
        };
        CacheDuty {
            eviction: Some(eviction),
            ..policy(Mode::Audit)
        }
    };
    let duty = duty(&server, &[("a", eviction(200)), ("b", eviction(100))]);
    let facts = settled(&duty).await;
    let first = &facts.policies["a"];
    let found = first.eviction.as_ref().unwrap();
    assert!(first.eviction_in);
    assert_eq!((found.max_memory, found.policy.as_str()), (200 << 20, "volatile-lru"));
    assert_eq!(found.enforced_by, EnforcedBy::Operator);
    assert_eq!(facts.policies["b"].eviction_conflict.as_deref(), Some("a"));
    assert!(!facts.policies["b"].eviction_in);
    assert_eq!(facts.duty_in, Some(duty.base.fingerprint()));
    let memory: BTreeMap<String, String> = redis::cmd("CONFIG")
        .arg("GET")
        .arg("maxmemory")
        .query(&mut server.client())
        .unwrap();
    assert_eq!(memory["maxmemory"], (200u64 << 20).to_string());
}

async fn without_the_config_right_eviction_is_verified_only(program: Program) {
    let server = RedisServer::start(program, "user tenant on >pw ~* &* +@all -config\n").await;
    let mut duty = duty(&server, &[("amas", policy(Mode::Audit))]);
    duty.base.endpoint.user = "tenant".into();
    duty.base.endpoint.password = Sensitive::new("pw");
    let eviction = Eviction {
        max_memory_bytes: 64 << 20,
        policy: EvictionPolicy::AllkeysLfu,
    };
    duty.policies.get_mut("amas").unwrap().eviction = Some(eviction);
    let facts = settled(&duty).await;
    let policy = &facts.policies["amas"];
    assert_eq!(policy.eviction.as_ref().unwrap().enforced_by, EnforcedBy::Provider);
    assert!(!policy.eviction_in);

    for (parameter, value) in [("maxmemory", "67108864"), ("maxmemory-policy", "allkeys-lfu")] {
        redis::cmd("CONFIG")
            .arg("SET")
            .arg(parameter)
            .arg(value)
            .exec(&mut server.client())
            .unwrap();
    }
    assert!(settled(&duty).await.policies["amas"].eviction_in);
}

async fn a_rule_the_user_may_not_apply_is_that_policy_s_error(program: Program) {
    let server = RedisServer::start(program, "user tenant on >pw ~* &* +@all -pexpire\n").await;
    let mut client = server.client();
    fill(&mut client);
    let mut duty = duty(
        &server,
        &[("amas", policy(Mode::Enforce)), ("audit", policy(Mode::Audit))],
    );
    duty.base.endpoint.user = "tenant".into();
    duty.base.endpoint.password = Sensitive::new("pw");
    let facts = settled(&duty).await;
    let error = facts.policies["amas"].sweep_error.as_deref().unwrap();
    assert!(error.contains("pexpire"), "{error}");
    assert!(facts.policies["audit"].sweep.is_some(), "the other policy went on");
}

async fn a_foreign_claim_stops_everything(program: Program) {
    let server = RedisServer::start(program, "").await;
    let mut client = server.client();
    fill(&mut client);
    let mut duty = duty(&server, &[("amas", policy(Mode::Audit))]);
    settled(&duty).await;
    let written: String = client.get(CLAIM_KEY).unwrap();
    assert!(
        written.contains("\"uid\":\"u1\"") && written.contains("\"createdByUs\":true"),
        "{written}"
    );

    duty.base.claim = claim("u2");
    settled(&duty).await;
    let adopted: String = client.get(CLAIM_KEY).unwrap();
    assert_eq!(
        adopted,
        written.replace("u1", "u2"),
        "the same name with a new uid is an adoption"
    );

    duty.base.claim.cluster_id = "c2".into();
    duty.policies.insert("amas".into(), policy(Mode::Enforce));
    let before = writes(&server);
    let facts = settled(&duty).await;
    assert!(
        facts
            .claim_conflict
            .unwrap()
            .starts_with("claimed by agents/amas of cluster c1")
    );
    assert_eq!((facts.duty_in, writes(&server)), (None, before));

    // A person says so, once.
    let before = writes(&server);
    duty.base.take_over = Some("yes".into());
    let facts = settled(&duty).await;
    assert_eq!(
        (facts.claim_conflict, facts.take_over_seen.as_deref()),
        (None, Some("yes"))
    );
    assert!(writes(&server) > before);
    let taken: String = client.get(CLAIM_KEY).unwrap();
    assert!(
        taken.contains("\"cluster\":\"c2\"") && taken.contains("\"createdByUs\":false"),
        "{taken}"
    );
}

async fn a_claim_that_was_let_go_is_anybodys(program: Program) {
    let server = RedisServer::start(program, "").await;
    let mut client = server.client();
    let mut duty = duty(&server, &[]);
    duty.base.managed = false;
    settled(&duty).await;
    let left = Redis::part(&duty.base, Parting::Drop).await.unwrap();
    assert_eq!(left, [""; 0], "nothing there is of our making");
    let released: String = client.get(CLAIM_KEY).unwrap();
    assert!(released.contains("\"released\":"), "{released}");
    let mut other = duty.clone();
    other.base.claim.name = "other".into();
    assert_eq!(settled(&other).await.claim_conflict, None);
    let held: String = client.get(CLAIM_KEY).unwrap();
    assert!(
        held.contains("\"name\":\"other\"") && !held.contains("released"),
        "{held}"
    );
    // Whoever lets go lets go of his own only.
    Redis::part(&duty.base, Parting::Release).await.unwrap();
    assert_eq!(client.get::<_, String>(CLAIM_KEY).unwrap(), held);
}

async fn the_acl_file_lets_in_the_right_password_only(program: Program) {
    let server = RedisServer::start(program, "").await;
    let right = base(server.endpoint());
    assert!(Redis::open(&right).await.is_ok());
    let wrong = base(Endpoint {
        password: Sensitive::new("wrong"),
        ..server.endpoint()
    });
    let error = Redis::open(&wrong).await.map(|_| ()).unwrap_err();
    assert!(
        matches!(&error, StoreError::LoginRefused(text) if !text.contains("wrong")),
        "{error}"
    );
    let duty = Duty {
        base: wrong,
        policies: BTreeMap::new(),
    };
    let outcome = Redis::work(&mut RedisWorker::default(), &duty, &mut RedisFacts::default()).await;
    assert!(matches!(outcome, Err(StoreError::LoginRefused(_))), "{outcome:?}");
    let mut nobody = right;
    nobody.endpoint.port = crate::support::process::free_port();
    let error = Redis::open(&nobody).await.map(|_| ()).unwrap_err();
    assert!(matches!(error, StoreError::Unreachable(_)), "{error}");
}

async fn tls_without_verification(program: Program) {
    let server = RedisServer::start_with_tls(program).await;
    let endpoint = Endpoint {
        tls: Tls::require(),
        port: server.tls_port.unwrap(),
        ..server.endpoint()
    };
    let duty = Duty {
        base: base(endpoint),
        policies: BTreeMap::from([("amas".into(), policy(Mode::Audit))]),
    };
    let (mut sentinel, identity) = Redis::open(&duty.base).await.unwrap();
    sentinel.ping().await.unwrap();
    assert!(identity.version.starts_with(char::is_numeric), "{identity:?}");
    assert!(settled(&duty).await.policies["amas"].sweep.is_some());
}

async fn the_start_time_is_the_same_in_every_answer(program: Program) {
    let server = RedisServer::start(program, "").await;
    let base = base(server.endpoint());
    let first = Redis::open(&base).await.unwrap().1;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(130)).await;
        assert_eq!(Redis::open(&base).await.unwrap().1, first);
    }
}

async fn a_killed_server_is_seen_at_once(program: Program) {
    let mut server = RedisServer::start(program, "").await;
    let (mut sentinel, _) = Redis::open(&base(server.endpoint())).await.unwrap();
    let quiet = tokio::time::timeout(Duration::from_millis(100), sentinel.next_sign()).await;
    assert!(quiet.is_err(), "no sign from a healthy server");
    sentinel.ping().await.unwrap();
    server.process.kill();
    let killed = Instant::now();
    let sign = tokio::time::timeout(Duration::from_secs(20), sentinel.next_sign())
        .await
        .unwrap();
    println!("redis: SIGKILL seen after {:?}", killed.elapsed());
    assert!(matches!(sign, Sign::Lost(_)));
    assert!(matches!(sentinel.ping().await, Err(StoreError::Unreachable(_))));
}

async fn a_stopped_server_does_not_answer_pings(program: Program) {
    let server = RedisServer::start(program, "").await;
    let (mut sentinel, _) = Redis::open(&base(server.endpoint())).await.unwrap();
    server.process.signal("STOP");
    let silent = tokio::time::timeout(Duration::from_secs(1), sentinel.ping()).await;
    assert!(silent.is_err(), "the keeper's deadline decides");
    server.process.signal("CONT");
    tokio::time::timeout(Duration::from_secs(20), sentinel.ping())
        .await
        .unwrap()
        .unwrap();
}

async fn a_keeper_holds_the_policy_and_tells_of_the_death(program: Program) {
    let mut server = RedisServer::start(program, "").await;
    fill(&mut server.client());
    let (wake, mut woken) = tokio::sync::mpsc::unbounded_channel();
    let keepers: Keepers<Redis> = Keepers::new(wake);
    let key = Key {
        namespace: "agents".into(),
        database: "amas".into(),
    };
    keepers.assign_policy(&key, "amas", policy(Mode::Enforce));
    keepers.assign_base(&key, base(server.endpoint()));
    let snapshot = || keepers.snapshot(&key).unwrap();
    eventually("the first sweep is through", Duration::from_secs(20), async || {
        snapshot()
            .facts
            .policies
            .get("amas")
            .is_some_and(|policy| policy.sweep.is_some())
    })
    .await;
    assert!(snapshot().health.is_up());
    while woken.try_recv().is_ok() {}
    server.process.kill();
    let killed = Instant::now();
    tokio::time::timeout(Duration::from_secs(3), woken.recv())
        .await
        .unwrap();
    println!(
        "redis: the object of a killed server is woken after {:?}",
        killed.elapsed()
    );
    eventually("down", Duration::from_secs(3), async || !snapshot().health.is_up()).await;

    // Away for longer than a status write waits for the next: what held before counts until the server says otherwise.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let mut told = keepers.subscribe(&key).unwrap();
    server.again().await;
    let up_for_a_second = async {
        eventually("up again", Duration::from_secs(20), async || snapshot().health.is_up()).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    tokio::select! {
        doubted = told.wait_for(|snapshot| snapshot.facts.duty_in.is_none()) => panic!("{doubted:?}"),
        () = up_for_a_second => {}
    }
    keepers.dismiss(&key);
}

async fn passwords_are_held_on_a_server_that_started_from_an_older_file(program: Program) {
    let mut server = RedisServer::start(program, "").await;
    let (wake, _woken) = tokio::sync::mpsc::unbounded_channel();
    let keepers: Keepers<Redis> = Keepers::new(wake);
    let key = Key {
        namespace: "agents".into(),
        database: "amas".into(),
    };
    let next = Endpoint {
        password: Sensitive::new("next"),
        ..server.endpoint()
    };
    let rotating = RedisDuty {
        second: Some(Sensitive::new(PASSWORD)),
        ..base(next.clone())
    };
    keepers.assign_base(&key, base(server.endpoint()));
    keepers.assign_base(&key, rotating);
    let opens = async || RedisSentinel::open(&next).await.is_ok();
    let patience = Duration::from_secs(20);
    eventually("the next password gets in", patience, opens).await;

    server.process.kill();
    let down = async || !keepers.snapshot(&key).unwrap().health.is_up();
    eventually("down", patience, down).await;
    // Its file has the first password only.
    server.again().await;
    eventually("the next password gets in again", patience, opens).await;
    keepers.dismiss(&key);
}

async fn globs_mean_what_they_mean_to_the_server(program: Program) {
    let server = RedisServer::start(program, "").await;
    let mut client = server.client();
    let mut seed = 7u64;
    let mut pick = |alphabet: &[u8], longest: u64| -> String {
        let mut next = || {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            seed >> 33
        };
        let length = next() % longest + 1;
        (0..length)
            .map(|_| char::from(alphabet[(next() % alphabet.len() as u64) as usize]))
            .collect()
    };
    let keys: Vec<String> = (0..150).map(|_| pick(b"abc-]^", 6)).collect();
    keys.iter().for_each(|key| client.set(key, 1).unwrap());
    for _ in 0..3000 {
        let pattern = pick(br"abc*?[]^-\", 9);
        let mut theirs: Vec<String> = client.keys(&pattern).unwrap();
        theirs.sort();
        let glob = Glob::new(&pattern);
        let mut ours: Vec<String> = keys
            .iter()
            .filter(|key| glob.matches(key.as_bytes()))
            .cloned()
            .collect();
        ours.sort();
        ours.dedup();
        assert_eq!(ours, theirs, "{pattern:?}");
    }
}

/// GETs at 200 Hz until told to stop; gives the latencies, sorted.
fn probe(server: &RedisServer, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<Vec<Duration>> {
    let mut client = server.client();
    std::thread::spawn(move || {
        let started = Instant::now();
        let mut latencies = Vec::new();
        for n in 0.. {
            let due = started + Duration::from_millis(5) * n;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let _: Option<String> = client.get("amas:session:1").unwrap();
            latencies.push(due.elapsed());
        }
        latencies.sort();
        latencies
    })
}

/// The server's own account of the time it spent in these commands.
fn busy(server: &RedisServer, commands: &[&str]) -> Duration {
    let spent = |command: &&str| -> u64 {
        let all = server.info("commandstats", &format!("cmdstat_{command}"));
        let spent = all.split(',').find_map(|field| field.strip_prefix("usec="));
        spent.unwrap().parse().unwrap()
    };
    Duration::from_micros(commands.iter().map(spent).sum())
}

fn percentile(sorted: &[Duration], share: f64) -> Duration {
    sorted[((sorted.len() - 1) as f64 * share) as usize]
}

/// What another client waits for its answers, without a sweep and beside one: 99 of 100 are no longer.
async fn waits_beside_a_sweep() -> [Duration; 2] {
    let server = RedisServer::start(Program::Redis, "").await;
    let mut client = server.client();
    for chunk in 0..100 {
        let mut pipe = redis::pipe();
        for n in 0..1000 {
            pipe.set(format!("amas:agent:performance:{chunk}-{n}"), "x".repeat(100))
                .ignore();
        }
        pipe.query::<()>(&mut client).unwrap();
    }
    let measure = |stop: &Arc<AtomicBool>| probe(&server, Arc::clone(stop));
    let stop = Arc::new(AtomicBool::new(false));
    let idle = measure(&stop);
    tokio::time::sleep(Duration::from_secs(2)).await;
    stop.store(true, Ordering::Relaxed);
    let idle = idle.join().unwrap();

    stop.store(false, Ordering::Relaxed);
    let probed = measure(&stop);
    let duty = duty(&server, &[("amas", policy(Mode::Enforce))]);
    let started = Instant::now();
    let mut facts = RedisFacts::default();
    let slices = settle(&mut RedisWorker::default(), &duty, &mut facts).await;
    let took = started.elapsed();
    println!(
        "redis: the sweep kept the server busy for {:?} in all",
        busy(&server, &["scan", "pexpire"])
    );
    // Sweeps of nothing to do, until there are enough probes for a percentile.
    while started.elapsed() < Duration::from_secs(2) {
        settle(&mut RedisWorker::default(), &duty, &mut RedisFacts::default()).await;
    }
    stop.store(true, Ordering::Relaxed);
    let swept = probed.join().unwrap();
    assert_eq!(family(&facts, "performance").changed, 100_000);
    println!(
        "redis: 100,000 keys got a TTL in {took:?} and {slices} slice(s); another client's GET: idle p50 {:?} p99 {:?}, \
         sweeping p50 {:?} p99 {:?} max {:?}",
        percentile(&idle, 0.5),
        percentile(&idle, 0.99),
        percentile(&swept, 0.5),
        percentile(&swept, 0.99),
        percentile(&swept, 1.0),
    );
    [percentile(&idle, 0.99), percentile(&swept, 0.99)]
}

#[tokio::test]
async fn other_clients_hardly_feel_a_sweep() {
    // They feel what else this machine does, too, but a sweep that they feel they would feel each time.
    let (mut least, mut all) = (Duration::MAX, Vec::new());
    for _ in 0..5 {
        let [idle, swept] = waits_beside_a_sweep().await;
        least = least.min(idle);
        if swept < least + Duration::from_millis(100) {
            return;
        }
        all.push((idle, swept));
    }
    panic!("without and beside a sweep: {all:?}");
}
