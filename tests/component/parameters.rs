//! Parameters of a PostgreSQL server: judged before they are written, loaded without a restart, and said to wait for one where it takes that.

use std::time::Duration;

use amas_operator::stores::{
    endpoint::StoreError,
    postgres::{Configuration, ConfigurationFacts, PostgresDuty, workload::marked},
};
use sqlx::{ConnectOptions, PgConnection, Row, postgres::PgConnectOptions};

use super::kept::{Kept, duty, looked_at_again};
use crate::support::postmaster::Postmaster as Server;

/// The file for some parameters and its mark.
fn file(parameters: &[(&str, &str)]) -> (String, String) {
    let lines: String = parameters
        .iter()
        .map(|(name, value)| format!("{name} = '{value}'\n"))
        .collect();
    marked(&lines)
}

fn asked(duty: &PostgresDuty, parameters: &[(&str, &str)], written: &str) -> PostgresDuty {
    let pairs = parameters
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    PostgresDuty {
        configuration: Some(Configuration {
            parameters: pairs.collect(),
            memory: Some(2 << 30),
            huge_pages: false,
            written: written.to_owned(),
        }),
        ..duty.clone()
    }
}

fn facts(kept: &Kept) -> ConfigurationFacts {
    kept.snapshots.borrow().facts.configuration.clone().unwrap()
}

async fn admin(server: &Server) -> PgConnection {
    let options = PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(server.port);
    options
        .username("postgres")
        .password(&server.password)
        .database("postgres")
        .connect()
        .await
        .unwrap()
}

async fn ask(connection: &mut PgConnection, query: &str) -> String {
    let row = sqlx::raw_sql(sqlx::AssertSqlSafe(query.to_owned()))
        .fetch_one(connection)
        .await
        .unwrap();
    row.get::<String, _>(0)
}

const STARTED: &str = "SELECT pg_postmaster_start_time()::text";

#[tokio::test]
async fn a_change_is_loaded_without_a_restart_and_a_restart_is_asked_for_where_it_takes_one() -> Result<(), StoreError>
{
    let mut server = Server::prepare();
    let (text, first) = file(&[("work_mem", "5MB")]);
    server.configure(&text);
    server.launch();
    server.wait_until_ready().await;
    let duty = duty(&server);
    let start = asked(&duty, &[("work_mem", "5MB")], &first);
    let mut kept = Kept::settled(&start).await;
    assert_eq!(
        (facts(&kept).loaded, facts(&kept).restart),
        (Some(first.clone()), vec![])
    );
    let mut session = admin(&server).await;
    let started = ask(&mut session, STARTED).await;

    // Asked for and not written yet: judged, and as it was.
    let reloadable = [("work_mem", "6MB"), ("checkpoint_timeout", "10min")];
    let waiting = asked(&duty, &reloadable, &first);
    kept.settle(&waiting).await;
    assert_eq!(facts(&kept).refused, [""; 0]);
    assert_eq!(ask(&mut session, "SHOW work_mem").await, "5MB");

    // Written, and not yet where the server sees it; then it is.
    let (text, second) = file(&reloadable);
    let written = asked(&duty, &reloadable, &second);
    kept.keepers.assign_base(&kept.key, written.clone());
    kept.until(20., |now| now.facts.duty_in.is_none()).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_ne!(
        kept.snapshots.borrow().facts.duty_in,
        Some(written.fingerprint()),
        "not said to be in before it is"
    );
    server.configure(&text);
    let took = kept.until_in(&written).await;
    println!("a changed file was loaded {took:?} after it was there");
    assert_eq!(ask(&mut session, "SHOW work_mem").await, "6MB");
    assert_eq!(ask(&mut session, "SHOW checkpoint_timeout").await, "10min");
    assert_eq!(
        ask(&mut session, STARTED).await,
        started,
        "no restart, and not a session lost"
    );

    // One that takes a restart says so, and no longer once it has had one.
    let (text, third) = file(&[("work_mem", "6MB"), ("max_connections", "80")]);
    server.configure(&text);
    let restart = asked(&duty, &[("work_mem", "6MB"), ("max_connections", "80")], &third);
    kept.settle(&restart).await;
    assert_eq!(facts(&kept).restart, ["max_connections"]);
    drop(session);
    server.kill();
    server.launch();
    server.wait_until_ready().await;
    kept.until(15., |now| {
        now.facts
            .configuration
            .as_ref()
            .is_some_and(|facts| facts.restart.is_empty())
    })
    .await;
    assert_eq!(ask(&mut admin(&server).await, "SHOW max_connections").await, "80");

    // A hand on the server that goes before the file is seen.
    let mut session = admin(&server).await;
    sqlx::raw_sql("ALTER SYSTEM SET work_mem = '9MB'")
        .execute(&mut session)
        .await
        .unwrap();
    let again = looked_at_again(&restart);
    kept.settle(&again).await;
    assert_eq!(facts(&kept).overridden, ["work_mem"]);
    Ok(())
}

/// What a server does not take is refused, before it is written, exactly where the server itself would refuse to start with it.
#[tokio::test]
async fn a_value_that_keeps_a_server_from_starting_is_refused() {
    let server = Server::start().await;
    let duty = duty(&server);
    let mut kept = Kept::settled(&duty).await;
    let bad: [(&str, &str); 14] = [
        ("work_mem", "1kB"),
        ("work_mem", "lots"),
        ("shared_buffers", "8TB"),
        ("max_connections", "0"),
        ("max_connections", "3"),
        ("max_locks_per_transaction", "100000000"),
        ("wal_level", "minimal"),
        ("wal_level", "everything"),
        ("huge_pages", "on"),
        ("min_wal_size", "16MB"),
        ("datestyle", "sometimes"),
        ("timezone", "Mars/Base"),
        ("log_timezone", "Mars/Base"),
        ("no_such_parameter", "1"),
    ];
    for (name, value) in bad {
        let wanted = asked(&duty, &[(name, value)], "none");
        let case = wanted.configuration.as_ref().unwrap().case();
        kept.keepers.assign_base(&kept.key, wanted);
        kept.until(15., |now| {
            now.facts
                .configuration
                .as_ref()
                .is_some_and(|facts| facts.judged.as_ref() == Some(&case))
        })
        .await;
        let refused = facts(&kept).refused;
        assert!(
            refused.len() == 1 && refused[0].contains(name),
            "{name} = {value}: {refused:?}"
        );
    }
}

/// The judge and the server agree on what is taken: each value is tried by starting a server with it.
#[tokio::test]
async fn what_is_let_through_starts() {
    let good: [(&str, &str); 12] = [
        ("work_mem", "1.5MB"),
        ("shared_buffers", "256 MB"),
        ("max_connections", "0x40"),
        ("wal_level", "LOGICAL"),
        ("huge_pages", "false"),
        ("autovacuum", "of"),
        ("random_page_cost", "1.1e0"),
        ("datestyle", "iso, dmy"),
        ("timezone", "Europe/Paris"),
        ("log_timezone", "Europe/Paris"),
        ("log_destination", "stderr, jsonlog"),
        ("pg_stat_statements.max", "5000"),
    ];
    let mut server = Server::prepare();
    let (text, mark) = file(&good);
    server.configure(&text);
    server.launch();
    server.wait_until_ready().await;
    let wanted = asked(&duty(&server), &good, &mark);
    let kept = Kept::settled(&wanted).await;
    assert_eq!(facts(&kept).refused, [""; 0]);
    let mut session = admin(&server).await;
    assert_eq!(ask(&mut session, "SHOW max_connections").await, "64");
}
