//! The engine PostgreSQL and its keeper against a real server.

use std::time::{Duration, Instant};

use amas_operator::{
    api::{names::ExtensionName, sensitive::Sensitive},
    migrate::{
        consent::Consent,
        plan::Options,
        runner::{self, Goal, Request, Urgency},
        source::Source,
    },
    stores::{
        endpoint::Tls,
        health::{Reason, Verdict},
        postgres::ExtensionDuty,
    },
};
use sqlx::PgConnection;
use tokio::{sync::watch, time::sleep};

use super::kept::{
    APP_PASSWORD, OWNER_PASSWORD, REPORT_PASSWORD, changes, endpoint, login, login_to, looked_at_again, name, run, text,
};
pub(super) use super::kept::{Kept, duty};
use crate::support::{postmaster::Postmaster as Server, process::eventually};

#[tokio::test]
async fn a_fresh_server_gets_the_duty_once_and_no_password_in_clear() {
    let mut server = Server::prepare();
    let duty = duty(&server);
    let mut kept = Kept::new(duty.clone());
    sleep(Duration::from_millis(200)).await;
    server.launch();
    server.wait_until_ready().await;
    println!("ready to duty in: {:?}", kept.until_in(&duty).await);
    let facts = kept.snapshots.borrow().facts.clone();
    assert_eq!((facts.error, facts.conflict, facts.rights_at), (None, None, Some(0)));
    let missing: Vec<_> = facts
        .missing_extensions
        .iter()
        .map(|missing| missing.statement.as_str())
        .collect();
    assert_eq!(
        missing,
        ["CREATE EXTENSION IF NOT EXISTS \"nowhere\" SCHEMA \"public\" CASCADE;"]
    );
    if std::env::var_os("SHOW_LOG").is_some() {
        println!("{}", server.log());
    }
    assert!(facts.figures.size_bytes > 1_000_000 && facts.max_connections == Some(100));

    let mut app = login(&server, "amas_app", APP_PASSWORD).await.unwrap();
    let settings = "SELECT concat_ws('|', current_setting('TimeZone'), current_setting('statement_timeout'), \
                    current_setting('application_name'), current_setting('search_path'))";
    assert_eq!(text(&mut app, settings).await, "UTC|30s|it's amas|app, public");
    login(&server, "amas_owner", OWNER_PASSWORD).await.unwrap();

    let before = changes(&server).len();
    println!("wakes: {}, statements: {before}", kept.wakes());
    let again = looked_at_again(&duty);
    println!("second duty in: {:?}", kept.settle(&again).await);
    // As after an operator restart.
    kept.keepers.dismiss(&kept.key);
    let mut kept = Kept::new(duty.clone());
    println!("taken up by a new keeper in: {:?}", kept.until_in(&duty).await);
    assert_eq!(changes(&server)[before..], [""; 0]);

    // exactly one sentinel and no admin connection
    let sessions = "SELECT string_agg(usename || ' ' || datname, ',') FROM pg_stat_activity WHERE application_name = 'amas-operator'";
    told(&server, sessions, "amas_owner amas").await;

    let log = server.log();
    for password in [
        OWNER_PASSWORD,
        APP_PASSWORD,
        REPORT_PASSWORD,
        "pässword",
        &server.password,
    ] {
        assert!(!log.contains(password), "{password} in the server's log");
    }
}

/// Until the server answers a question so.
async fn told(server: &Server, question: &'static str, answer: &str) {
    eventually(&format!("{answer}: {question}"), Duration::from_secs(20), || async {
        let mut admin = login(server, "postgres", &server.password).await.unwrap();
        text(&mut admin, question).await == answer
    })
    .await;
}

/// One migration by the engine, as a Job runs it.
async fn migrate(owner: &mut PgConnection, sql: &str) {
    let request = Request {
        source: Source::from_files(vec![("0001_batch.sql".into(), sql.into())]).unwrap(),
        goal: Goal::Up(None),
        options: Options::default(),
        plan_hash: None,
        consent: Consent::Everything,
        on_failure: Default::default(),
        backup: None,
        attempt: "test".into(),
        lock_timeout: Duration::from_secs(5),
        login: None,
        seeds: vec![],
        hashes: vec![],
    };
    let (_go_on, stop) = watch::channel(Urgency::No);
    let report = runner::run(owner, &request, stop, &mut |_| {}).await;
    assert!(report.failure.is_none(), "{:?}", report.failure);
}

#[tokio::test]
async fn rights_follow_the_migrations() {
    let server = Server::start().await;
    let duty = duty(&server);
    let mut kept = Kept::settled(&duty).await;
    let mut owner = login(&server, "amas_owner", OWNER_PASSWORD).await.unwrap();
    let batch = "CREATE SCHEMA app; CREATE TABLE app.agents (id bigserial PRIMARY KEY, name text, api_key text);
        COMMENT ON COLUMN app.agents.api_key IS 'of the provider; amas:secret';
        CREATE TABLE public.plain (id int GENERATED ALWAYS AS IDENTITY, v text);";
    migrate(&mut owner, batch).await;
    let took = kept.until(20., |now| now.facts.rights_at == Some(1)).await;
    println!("notify to rights in: {took:?}");

    let mut app = login(&server, "amas_app", APP_PASSWORD).await.unwrap();
    run(
        &mut app,
        "INSERT INTO app.agents (name, api_key) VALUES ('a', 'k'); UPDATE app.agents SET name = 'b'; \
                   INSERT INTO plain (v) VALUES ('v'); SELECT api_key FROM agents; DELETE FROM plain",
    )
    .await
    .unwrap();
    let mut report = login(&server, "amas_report", REPORT_PASSWORD).await.unwrap();
    run(&mut report, "SELECT id, name FROM app.agents; SELECT * FROM plain")
        .await
        .unwrap();
    let refused = [
        "SELECT * FROM public._sqlx_migrations",
        "SELECT * FROM amas_migrate.history",
        "SELECT * FROM amas_operator.claim",
        "CREATE TABLE public.mine ()",
        "TRUNCATE plain",
    ];
    for sql in refused {
        let error = run(&mut app, sql).await.unwrap_err();
        assert!(error.contains("permission denied"), "{sql}: {error}");
    }
    for sql in [
        "SELECT api_key FROM app.agents",
        "SELECT * FROM app.agents",
        "INSERT INTO plain (v) VALUES ('x')",
        "UPDATE app.agents SET name = 'x'",
        "DELETE FROM plain",
        "SELECT nextval('app.agents_id_seq')",
        "SELECT * FROM public._sqlx_migrations",
    ] {
        let error = run(&mut report, sql).await.unwrap_err();
        assert!(error.contains("permission denied"), "{sql}: {error}");
    }

    let before = changes(&server).len();
    let again = looked_at_again(&duty);
    kept.settle(&again).await;
    assert_eq!(changes(&server)[before..], [""; 0], "converged");

    // Changed by hand: more, less, and no longer secret.
    run(
        &mut owner,
        "GRANT TRUNCATE ON plain TO amas_app; REVOKE SELECT ON plain FROM amas_report; \
                     GRANT SELECT ON app.agents TO amas_report; GRANT ALL ON amas_migrate.history TO amas_app",
    )
    .await
    .unwrap();
    kept.settle(&duty).await;
    assert!(run(&mut app, "TRUNCATE plain").await.is_err());
    assert!(run(&mut app, "SELECT * FROM amas_migrate.history").await.is_err());
    run(&mut report, "SELECT * FROM plain; SELECT id, name FROM app.agents")
        .await
        .unwrap();
    assert!(run(&mut report, "SELECT api_key FROM app.agents").await.is_err());
    run(&mut owner, "COMMENT ON COLUMN app.agents.api_key IS NULL")
        .await
        .unwrap();
    kept.settle(&again).await;
    run(&mut report, "SELECT * FROM app.agents").await.unwrap();
    let last = changes(&server).len();
    kept.settle(&duty).await;
    assert_eq!(changes(&server)[last..], [""; 0], "converged again");
    assert!(kept.snapshots.borrow().facts.figures.tables == 2);
}

#[tokio::test]
async fn what_was_changed_by_hand_is_put_right() {
    let server = Server::start().await;
    let duty = duty(&server);
    let mut kept = Kept::settled(&duty).await;
    let mut admin = login(&server, "postgres", &server.password).await.unwrap();
    run(
        &mut admin,
        "ALTER ROLE amas_app CREATEDB CONNECTION LIMIT 1 PASSWORD 'other'; ALTER ROLE amas_report NOLOGIN; \
                     ALTER ROLE amas_app IN DATABASE amas SET search_path = public; GRANT amas_owner TO amas_report; \
                     ALTER ROLE amas_owner PASSWORD 'stolen'; ALTER DATABASE amas OWNER TO postgres; \
                     GRANT CONNECT ON DATABASE amas TO PUBLIC",
    )
    .await
    .unwrap();
    let again = looked_at_again(&duty);
    kept.settle(&again).await;
    login(&server, "amas_owner", OWNER_PASSWORD).await.unwrap();
    login(&server, "amas_app", APP_PASSWORD).await.unwrap();
    login(&server, "amas_report", REPORT_PASSWORD).await.unwrap();
    let state = "SELECT concat_ws('|', r.rolcreatedb, r.rolconnlimit, pg_has_role('amas_report', 'amas_owner', 'member'), \
        pg_get_userbyid(d.datdba), d.datacl::text ~ '[{,]=[^/]*c') FROM pg_roles r, pg_database d WHERE r.rolname = 'amas_app' AND d.datname = 'amas'";
    assert_eq!(text(&mut admin, state).await, "f|65|f|amas_owner|f");

    // Another cluster's object finds the claim and leaves everything as it is.
    let mut stranger = duty.clone();
    stranger.claim.cluster_id = "other".into();
    stranger.roles[0].connection_limit = 3;
    let before = changes(&server).len();
    let mut other = Kept::new(stranger);
    other
        .until(20., |now| {
            let conflict = now.facts.conflict.as_deref().unwrap_or_default();
            conflict.starts_with("claimed by agents/amas of cluster c since ")
        })
        .await;
    assert_eq!(changes(&server)[before..], [""; 0]);
    // The same object made again takes over.
    let mut remade = duty.clone();
    remade.claim.uid = "u-2".into();
    kept.settle(&remade).await;
    let claim = "SELECT concat_ws('|', uid, created_by_us) FROM amas_operator.claim";
    assert_eq!(text(&mut admin, claim).await, "u-2|t");
}

#[tokio::test]
async fn a_wrong_admin_password_is_told_and_a_new_base_is_tried_at_once() {
    let server = Server::start().await;
    let right = duty(&server);
    let mut wrong = right.clone();
    wrong.admin.password = Sensitive::new("wrong");
    let mut kept = Kept::new(wrong);
    kept.until(20., |now| now.health.reason == Reason::LoginRefused).await;
    sleep(Duration::from_secs(1)).await;
    kept.keepers.assign_base(&kept.key, right.clone());
    // Without a new base the next attempt would come 5 s after the last.
    kept.until_verdict(3.5, Verdict::Up).await;
    kept.until_in(&right).await;
}

#[tokio::test]
async fn a_killed_server_is_down_within_two_seconds_and_comes_back() {
    let mut server = Server::start().await;
    let duty = duty(&server);
    let mut kept = Kept::settled(&duty).await;
    kept.wakes();
    server.kill();
    println!("killed to Down: {:?}", kept.until_verdict(2., Verdict::Down).await);
    sleep(Duration::from_secs(1)).await;
    server.launch();
    server.wait_until_ready().await;
    println!("ready to Up: {:?}", kept.until_verdict(30., Verdict::Up).await);
    assert_eq!(kept.wakes(), 2, "one change down and one up");
}

#[tokio::test]
async fn a_stopped_server_is_down_within_six_seconds_and_comes_back() {
    stop_and_continue(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn also_when_it_stops_while_the_sentinel_opens_again_as_the_owner() {
    stop_and_continue(Duration::ZERO).await;
}

async fn stop_and_continue(settle: Duration) {
    let server = Server::start().await;
    let duty = duty(&server);
    let mut kept = Kept::settled(&duty).await;
    sleep(settle).await;
    server.signal_all("STOP");
    println!("stopped to Down: {:?}", kept.until_verdict(6., Verdict::Down).await);
    assert_eq!(kept.snapshots.borrow().health.reason, Reason::Timeout);
    sleep(Duration::from_secs(1)).await;
    server.signal_all("CONT");
    println!("continued to Up: {:?}", kept.until_verdict(6., Verdict::Up).await);
}

/// An administrator as managed services give them.
#[tokio::test]
async fn an_admin_that_is_no_superuser_does_what_it_may() {
    let server = Server::start().await;
    let mut duty = duty(&server);
    duty.extensions = ["pg_trgm", "pg_stat_statements"]
        .map(|extension| ExtensionDuty {
            name: ExtensionName::parse(extension).unwrap(),
            schema: name("public"),
        })
        .into();
    let mut superuser = superuser(&server).await;
    run(
        &mut superuser,
        "CREATE ROLE dba LOGIN CREATEROLE CREATEDB PASSWORD 'dba-password'",
    )
    .await
    .unwrap();
    duty.admin = endpoint(&server, "dba", "dba-password");
    let mut kept = Kept::settled(&duty).await;
    let facts = kept.snapshots.borrow().facts.clone();
    let missing: Vec<_> = facts
        .missing_extensions
        .iter()
        .map(|missing| (missing.name.as_str(), missing.installed))
        .collect();
    assert_eq!(missing, [("pg_stat_statements", true)]);

    let before = changes(&server).len();
    let mut again = duty.clone();
    again.extensions.pop();
    kept.settle(&again).await;
    assert_eq!(
        changes(&server)[before..],
        [""; 0],
        "passwords are checked by logging in"
    );
    again.roles[0].password = Sensitive::new("new-password");
    kept.settle(&again).await;
    login(&server, "amas_app", "new-password").await.unwrap();
}

/// Where there is no database of ours yet.
async fn superuser(server: &Server) -> PgConnection {
    login_to(server, "postgres", &server.password, "postgres")
        .await
        .unwrap()
}

#[tokio::test]
async fn an_owner_without_any_other_right_is_enough() {
    let server = Server::start().await;
    let mut admin = superuser(&server).await;
    let create = r"CREATE ROLE amas_owner LOGIN PASSWORD 'owner-pässword''\1'";
    run(&mut admin, create).await.unwrap();
    let mut owners = duty(&server);
    owners.admin = owners.owner_login.clone();
    owners.roles.clear();
    owners
        .extensions
        .retain(|extension| extension.name.as_str() != "nowhere");
    owners.extensions[1].name = ExtensionName::parse("pg_stat_statements").unwrap();
    let mut kept = Kept::new(owners.clone());
    kept.until(10., |now| now.facts.error.is_some()).await;
    let error = kept.snapshots.borrow().facts.error.clone().unwrap();
    println!("{error}");
    assert!(
        error.contains("run: CREATE DATABASE \"amas\" OWNER \"amas_owner\";"),
        "{error}"
    );

    run(&mut admin, "CREATE DATABASE amas OWNER amas_owner").await.unwrap();
    run(&mut admin, "REVOKE CONNECT ON DATABASE postgres FROM PUBLIC")
        .await
        .unwrap();
    kept.keepers.nudge(&kept.key);
    kept.until_in(&owners).await;
    let missing = kept.snapshots.borrow().facts.missing_extensions.clone();
    println!("{missing:?}");
    // uuid-ossp is trusted: whoever may create in the database may make it. The other is not.
    assert_eq!(missing.len(), 1, "{missing:?}");
    assert!(
        missing[0].statement.starts_with("CREATE EXTENSION") && missing[0].installed,
        "{missing:?}"
    );
}

#[tokio::test]
async fn an_administrator_of_a_managed_service_is_no_superuser() {
    let server = Server::start().await;
    let mut admin = superuser(&server).await;
    run(
        &mut admin,
        "CREATE ROLE cloud_admin LOGIN CREATEROLE CREATEDB PASSWORD 'cloud'",
    )
    .await
    .unwrap();
    let mut cloud = duty(&server);
    cloud.admin = endpoint(&server, "cloud_admin", "cloud");
    cloud
        .extensions
        .retain(|extension| extension.name.as_str() != "nowhere");
    let _kept = Kept::settled(&cloud).await;
    login(&server, "amas_app", APP_PASSWORD).await.unwrap();
}

#[tokio::test]
async fn encrypted_connections() {
    let mut server = Server::prepare();
    server.encrypt();
    server.launch();
    server.wait_until_ready().await;
    let mut duty = duty(&server);
    duty.admin.tls = Tls::require();
    duty.owner_login.tls = Tls::require();
    let mut kept = Kept::settled(&duty).await;
    let encrypted = "SELECT string_agg(s.ssl::text, ',') FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) \
                     WHERE a.application_name = 'amas-operator'";
    told(&server, encrypted, "true").await;
    server.kill();
    kept.until_verdict(2., Verdict::Down).await;
}

fn reconnects(kept: &Kept) -> u64 {
    kept.keepers.live()[0].1.reconnects()
}

#[tokio::test]
async fn closed_idle_connections_are_no_outage() {
    let server = Server::start().await;
    let duty = duty(&server);
    let mut kept = Kept::settled(&duty).await;
    let mut admin = login(&server, "postgres", &server.password).await.unwrap();
    run(&mut admin, "ALTER ROLE amas_owner SET idle_session_timeout = '1s'")
        .await
        .unwrap();
    run(
        &mut admin,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'amas_owner'",
    )
    .await
    .unwrap();
    sleep(Duration::from_millis(100)).await;
    for rounds_left in (0..3).rev() {
        kept.until_verdict(60., Verdict::Up).await;
        kept.wakes();
        let (before, mut late) = (reconnects(&kept), false);
        // About one a second; fewer where the machine has other work.
        eventually("seven closed connections", Duration::from_secs(60), || {
            late |= kept.snapshots.borrow().health.reason == Reason::Timeout;
            let enough = reconnects(&kept) >= before + 7;
            async move { enough }
        })
        .await;
        let wakes = kept.wakes();
        // A machine that stands still for longer than a ping may take makes an outage of its own.
        if wakes == 0 || !late || rounds_left == 0 {
            assert_eq!(wakes, 0, "a closed connection is nothing to tell");
            break;
        }
    }
    assert!(kept.snapshots.borrow().health.is_up());
}

#[tokio::test]
async fn twenty_restarts_in_a_minute_are_at_most_four_changes() {
    let mut server = Server::start().await;
    let duty = duty(&server);
    let mut kept = Kept::settled(&duty).await;
    kept.wakes();
    let begun = Instant::now();
    for round in 0..20 {
        server.kill();
        sleep(Duration::from_millis(round % 4 * 200)).await;
        server.launch();
        sleep((begun + Duration::from_secs(3) * (round as u32 + 1)).saturating_duration_since(Instant::now())).await;
    }
    println!("20 restarts took {:?}", begun.elapsed());
    kept.until_verdict(100., Verdict::Up).await;
    let wakes = kept.wakes();
    println!("wakes: {wakes}");
    assert!(wakes <= 4, "{wakes} material changes");
    kept.until_in(&duty).await;
}
