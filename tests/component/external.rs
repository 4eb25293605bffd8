//! Servers that are not ours: what they do not allow, how they are watched without a connection, and where applications are sent.

use std::{sync::Arc, time::Duration};

use amas_operator::{
    api::sensitive::Sensitive,
    stores::{
        endpoint::Endpoint,
        health::{Attention, Verdict},
        keeper::{Duty, Keepers, Key, Snapshot, Store},
        limits::Limit,
        postgres::{Access, Clients, Postgres, PostgresDuty},
        redis::{Redis, RedisFacts, RedisSentinel, RedisWorker},
    },
};

use super::{
    kept::{Kept, duty, login_to, role, run},
    redis::base,
};
use crate::support::{
    pgbouncer::PgBouncer,
    postmaster::Postmaster,
    process::{connections, eventually},
    redis::{Program, RedisServer},
};

/// The duty with another login as its administrator.
fn as_login(duty: &PostgresDuty, user: &str) -> PostgresDuty {
    let mut duty = duty.clone();
    duty.admin.user = user.into();
    duty.admin.password = Sensitive::new("pw");
    duty
}

#[tokio::test]
async fn what_a_login_on_postgres_may_not_do_is_listed_and_explained() {
    let server = Postmaster::start().await;
    let mut superuser = login_to(&server, "postgres", &server.password, "postgres")
        .await
        .unwrap();
    for statement in [
        "CREATE ROLE plain LOGIN PASSWORD 'pw'",
        "CREATE ROLE makes_roles LOGIN CREATEROLE PASSWORD 'pw'",
        "CREATE ROLE cloud LOGIN CREATEROLE CREATEDB PASSWORD 'pw'",
        "GRANT pg_read_all_settings TO cloud",
        "CREATE ROLE standby LOGIN CREATEROLE CREATEDB PASSWORD 'pw'",
        "ALTER ROLE standby SET default_transaction_read_only = on",
    ] {
        run(&mut superuser, statement).await.unwrap();
    }
    let mut wanted = duty(&server);
    wanted.exclusive = false;
    wanted.extensions.clear();
    let mut kept = Kept::new(as_login(&wanted, "plain"));
    let common = [Limit::NoSuperuser, Limit::NoReadAllSettings];
    for (user, limits, told) in [
        (
            "plain",
            vec![Limit::NoCreateRole, Limit::NoCreateDatabase],
            "ALTER ROLE \"plain\" CREATEROLE",
        ),
        (
            "makes_roles",
            vec![Limit::NoCreateDatabase],
            "CREATE DATABASE \"amas\" OWNER \"amas_owner\"",
        ),
        (
            "standby",
            vec![Limit::ReadOnly],
            "read only; give the address of the primary",
        ),
    ] {
        kept.keepers.assign_base(&kept.key, as_login(&wanted, user));
        let said = |now: &Arc<Snapshot<Postgres>>| now.facts.error.as_ref().is_some_and(|error| error.contains(told));
        kept.until(10., said).await;
        let mut found = kept.snapshots.borrow().facts.limits.clone().unwrap();
        found.retain(|limit| !common.contains(limit));
        assert_eq!(found, limits, "{user}");
    }
    let cloud = as_login(&wanted, "cloud");
    kept.settle(&cloud).await;
    assert_eq!(kept.snapshots.borrow().facts.limits, Some(vec![Limit::NoSuperuser]));
}

/// What a slice of work finds on a server.
async fn found(server: &RedisServer, user: &str) -> RedisFacts {
    let mut endpoint = server.endpoint();
    if user != "default" {
        (endpoint.user, endpoint.password) = (user.into(), Sensitive::new("pw"));
    }
    let (_, identity) = RedisSentinel::open(&endpoint).await.unwrap();
    assert!(identity.version.contains('.'), "{identity:?}");
    let mut base = base(endpoint);
    base.managed = false;
    let duty = Duty {
        base,
        policies: Default::default(),
    };
    let mut facts = RedisFacts::default();
    let _ = Redis::work(&mut RedisWorker::default(), &duty, &mut facts).await;
    facts
}

#[tokio::test]
async fn what_a_redis_does_not_allow_is_listed() {
    let users = "user tenant on >pw ~* &* +@all -@dangerous -acl -scan\nuser all on >pw ~* &* +@all\n";
    let server = RedisServer::start(Program::Redis, users).await;
    let touch = server_knows_no_touch(&server).await;
    let limits = |facts: &RedisFacts| {
        let mut all = facts.limits.clone().unwrap();
        all.retain(|limit| touch || *limit != Limit::NoTouchUnknown);
        all
    };
    let facts = found(&server, "all").await;
    assert!(limits(&facts).is_empty() && facts.duty_in.is_some(), "{facts:?}");
    let facts = found(&server, "tenant").await;
    let expected = [Limit::NoConfig, Limit::NoAcl, Limit::NoInfo, Limit::NoScan];
    assert_eq!(limits(&facts), expected);
    assert!(facts.duty_in.is_some(), "it is used all the same: {facts:?}");

    let renamed = RedisServer::start_with(
        Program::Redis,
        &["--rename-command", "CONFIG", "", "--rename-command", "ACL", ""],
    )
    .await;
    assert_eq!(
        limits(&found(&renamed, "default").await),
        [Limit::NoConfig, Limit::NoAcl]
    );
    let replica = RedisServer::start_with(Program::Redis, &["--replicaof", "127.0.0.1", "1"]).await;
    let facts = found(&replica, "default").await;
    assert_eq!(limits(&facts), [Limit::ReadOnly]);
    assert!(facts.duty_in.is_none() && facts.error.is_some(), "{facts:?}");
}

async fn server_knows_no_touch(server: &RedisServer) -> bool {
    let mut client = server.client();
    redis::cmd("CLIENT").arg("NO-TOUCH").arg("ON").exec(&mut client).is_ok()
}

#[tokio::test]
async fn no_connection_stays_open_to_a_server_that_is_watched_on_demand() {
    let mut server = Postmaster::start().await;
    let mut wanted = duty(&server);
    wanted.attention = Attention::OnDemand(Duration::from_secs(3600));
    let mut kept = Kept::settled(&wanted).await;
    eventually("no connection is left", Duration::from_secs(5), || async {
        connections(server.port) == 0
    })
    .await;
    let before = server.log().len();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(!server.log()[before..].contains("connection received"), "nobody asked");

    // Nobody has asked since, and that is what it says; then it is asked.
    server.kill();
    assert_eq!(kept.snapshots.borrow().health.verdict, Verdict::Up);
    let slept = std::time::Instant::now();
    kept.keepers.look(&kept.key);
    kept.until_verdict(10., Verdict::Down).await;
    println!("asked, it was known to be lost after {:?}", slept.elapsed());
    server.launch();
    server.wait_until_ready().await;
    kept.until_verdict(10., Verdict::Up).await;
    eventually("no connection is left", Duration::from_secs(5), || async {
        connections(server.port) == 0
    })
    .await;

    // By the clock alone.
    wanted.attention = Attention::OnDemand(Duration::from_millis(300));
    kept.settle(&wanted).await;
    server.kill();
    kept.until_verdict(5., Verdict::Down).await;
}

#[tokio::test]
async fn a_redis_that_is_watched_on_demand_is_left_alone() {
    let server = RedisServer::start(Program::Redis, "").await;
    let mut wanted = base(server.endpoint());
    wanted.attention = Attention::OnDemand(Duration::from_secs(3600));
    let (wake, _wakes) = tokio::sync::mpsc::unbounded_channel();
    let keepers = Keepers::<Redis>::new(wake);
    let key = Key {
        namespace: "n".into(),
        database: "d".into(),
    };
    keepers.assign_base(&key, wanted.clone());
    let in_now = || {
        keepers
            .snapshot(&key)
            .is_some_and(|now| now.facts.duty_in == Some(wanted.fingerprint()))
    };
    eventually("the duty is in", Duration::from_secs(10), || async { in_now() }).await;
    eventually("no connection is left", Duration::from_secs(5), || async {
        connections(server.port) == 0
    })
    .await;
    assert!(keepers.snapshot(&key).unwrap().health.is_up());
}

#[tokio::test]
async fn applications_must_be_sent_to_the_same_server() {
    let (server, other) = (Postmaster::start().await, Postmaster::start().await);
    let at = |port: u16, password: &str| Clients {
        login: Endpoint {
            port,
            password: Sensitive::new(password),
            ..duty(&server).admin
        },
        database: None,
    };
    let with = |clients: Clients| {
        let mut duty = duty(&server);
        duty.roles = vec![role("amas_app", "app-password-2", Access::ReadWrite, 5)];
        duty.clients = Some(clients);
        duty
    };
    let mut kept = Kept::new(with(at(other.port, &other.password)));
    kept.until(10., |now| now.facts.error.is_some()).await;
    let error = kept.snapshots.borrow().facts.error.clone().unwrap();
    println!("{error}");
    assert!(error.contains("lead to different servers"), "{error}");
    for untouched in [&server, &other] {
        assert!(!untouched.log().contains("CREATE"), "{}", untouched.log());
    }
    let same = with(at(server.port, &server.password));
    kept.settle(&same).await;
    let limits = |kept: &Kept| kept.snapshots.borrow().facts.limits.clone().unwrap();
    assert!(limits(&kept).is_empty());

    let locked = with(at(server.port, "wrong"));
    kept.settle(&locked).await;
    assert_eq!(limits(&kept), [Limit::UriNotChecked]);

    let users = [("postgres", server.password.as_str())];
    let Some(pooler) = PgBouncer::start(server.port, &users, "transaction", "").await else {
        return;
    };
    let through = with(at(pooler.port, &server.password));
    kept.settle(&through).await;
    assert!(limits(&kept).is_empty());
}

#[tokio::test]
async fn credentials_of_another_database_change_nothing() {
    let server = Postmaster::start().await;
    let mut superuser = login_to(&server, "postgres", &server.password, "postgres")
        .await
        .unwrap();
    for statement in [
        "CREATE ROLE tenant LOGIN PASSWORD 'pw'",
        "CREATE ROLE somebody NOLOGIN",
        "CREATE DATABASE other OWNER tenant",
        "CREATE DATABASE amas OWNER somebody",
    ] {
        run(&mut superuser, statement).await.unwrap();
    }
    // As an owner, of a database that is another's.
    let mut wanted = as_login(&duty(&server), "tenant");
    wanted.owner_login = wanted.admin.clone();
    wanted.owner = super::kept::name("tenant");
    wanted.exclusive = false;
    (wanted.roles, wanted.extensions) = (Vec::new(), Vec::new());
    let before = super::kept::changes(&server).len();
    let mut kept = Kept::new(wanted.clone());
    kept.until(10., |now| now.facts.error.is_some()).await;
    let facts = kept.snapshots.borrow().facts.clone();
    println!("{:?}", facts.error);
    assert!(facts.error.unwrap().contains("owner of database amas") && facts.duty_in.is_none());
    let left = login_to(&server, "postgres", &server.password, "amas").await;
    let schemas = "SELECT count(*)::text FROM pg_namespace WHERE nspname = 'amas_operator'";
    assert_eq!(super::kept::text(&mut left.unwrap(), schemas).await, "0");
    let tried = super::kept::changes(&server).split_off(before);
    println!("{tried:?}");
}

/// The owner of one database, and roles that an administrator has made.
async fn owned(server: &Postmaster) -> PostgresDuty {
    let mut superuser = login_to(server, "postgres", &server.password, "postgres")
        .await
        .unwrap();
    for statement in [
        "CREATE ROLE tenant LOGIN PASSWORD 'pw'",
        "CREATE ROLE writes LOGIN PASSWORD 'brought'",
        "CREATE ROLE reads LOGIN PASSWORD 'brought'",
        "CREATE DATABASE amas OWNER tenant",
    ] {
        run(&mut superuser, statement).await.unwrap();
    }
    let mut wanted = as_login(&duty(server), "tenant");
    wanted.owner_login = wanted.admin.clone();
    wanted.owner = super::kept::name("tenant");
    wanted.exclusive = false;
    wanted.extensions.clear();
    wanted.roles = vec![
        role("writes", "brought", Access::ReadWrite, 5),
        role("reads", "brought", Access::ReadOnly, 5),
    ];
    wanted.roles[0].session.statement_timeout = Some(Duration::from_secs(7));
    wanted
}

#[tokio::test]
async fn an_owner_gives_rights_to_roles_that_it_may_not_make() {
    let server = Postmaster::start().await;
    let wanted = owned(&server).await;
    let mut owner = login_to(&server, "tenant", "pw", "amas").await.unwrap();
    run(&mut owner, "CREATE TABLE things (id int)").await.unwrap();
    let mut kept = Kept::new(wanted.clone());
    kept.until_in(&wanted).await;
    let limits = kept.snapshots.borrow().facts.limits.clone().unwrap();
    assert!(limits.contains(&Limit::NoCreateRole), "{limits:?}");
    // Theirs is none, ours would be five.
    assert!(limits.contains(&Limit::OtherRoleLimits), "{limits:?}");

    let mut writer = login_to(&server, "writes", "brought", "amas").await.unwrap();
    run(&mut writer, "INSERT INTO things VALUES (1)").await.unwrap();
    run(&mut writer, "CREATE TABLE mine (id int)").await.unwrap_err();
    assert_eq!(super::kept::text(&mut writer, "SHOW statement_timeout").await, "7s");
    let mut reader = login_to(&server, "reads", "brought", "amas").await.unwrap();
    assert_eq!(
        super::kept::text(&mut reader, "SELECT count(*)::text FROM things").await,
        "1"
    );
    run(&mut reader, "INSERT INTO things VALUES (2)").await.unwrap_err();
    // What comes later too.
    run(&mut owner, "CREATE TABLE later (id int)").await.unwrap();
    run(&mut writer, "INSERT INTO later VALUES (1)").await.unwrap();

    // Nothing of the roles is changed: not their limits, passwords or comments.
    let log = server.log();
    for never in [
        "CREATE ROLE \"",
        "CONNECTION LIMIT",
        "COMMENT ON ROLE",
        "SCRAM-SHA-256$",
    ] {
        assert!(!log.contains(never), "{never}");
    }
}

#[tokio::test]
async fn what_a_role_lacks_that_an_owner_was_brought_is_told() {
    let server = Postmaster::start().await;
    let wanted = owned(&server).await;
    let mut superuser = login_to(&server, "postgres", &server.password, "postgres")
        .await
        .unwrap();
    let mut kept = Kept::settled(&wanted).await;
    let with = |name: &str, password: &str| {
        let mut duty = wanted.clone();
        // The Secret was read again: nobody has changed both.
        duty.sure = true;
        duty.roles = vec![role(name, password, Access::ReadOnly, 5)];
        duty
    };
    for (change, duty, told) in [
        (
            "SELECT 1",
            with("absent", "brought"),
            "CREATE ROLE \"absent\" LOGIN PASSWORD",
        ),
        (
            "SELECT 1",
            with("reads", "another"),
            "does not get in with the password of its secretRef",
        ),
        (
            "GRANT tenant TO reads",
            with("reads", "brought"),
            "REVOKE \"tenant\" FROM \"reads\"",
        ),
        ("ALTER ROLE reads CREATEDB", with("reads", "brought"), "NOCREATEDB"),
        (
            "ALTER ROLE reads NOLOGIN",
            with("reads", "brought"),
            "ALTER ROLE \"reads\" LOGIN",
        ),
    ] {
        run(&mut superuser, change).await.unwrap();
        kept.keepers.assign_base(&kept.key, wanted.clone());
        let mut duty = duty;
        duty.look_again = change.into();
        kept.keepers.assign_base(&kept.key, duty);
        let said = |now: &Arc<Snapshot<Postgres>>| now.facts.error.as_ref().is_some_and(|error| error.contains(told));
        kept.until(10., said).await;
        println!("{:?}", kept.snapshots.borrow().facts.error);
    }
}
