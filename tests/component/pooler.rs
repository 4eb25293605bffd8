//! A pooler in front of PostgreSQL: found out before the first statement, used by applications only.

use amas_operator::stores::health::{Reason, Verdict};
use sqlx::{ConnectOptions, postgres::PgConnectOptions};

use super::postgres::{Kept, duty};
use crate::support::{pgbouncer::PgBouncer, postmaster::Postmaster};

const APP: (&str, &str) = ("amas_app", "app-password-2");

#[tokio::test]
async fn a_pooler_is_found_out_before_the_first_statement() {
    let server = Postmaster::start().await;
    let direct = duty(&server);
    for (mode, ignore) in [
        ("transaction", ""),
        ("transaction", "options"),
        ("session", ""),
        ("session", "options"),
    ] {
        let users = [
            ("postgres", server.password.as_str()),
            ("amas_owner", direct.owner_login.password.reveal()),
        ];
        let Some(pooler) = PgBouncer::start(server.port, &users, mode, ignore).await else {
            return;
        };
        let before = server.log().len();
        let mut pooled = direct.clone();
        pooled.admin.port = pooler.port;
        pooled.owner_login.port = pooler.port;
        let mut kept = Kept::new(pooled.clone());
        kept.until_verdict(5., Verdict::Down).await;
        let health = kept.snapshots.borrow().health.clone();
        assert!(
            health.reason == Reason::Pooled && health.message.contains("directUri"),
            "{mode} {ignore}: {health:?}"
        );
        let statements = server.log()[before..].to_owned();
        // The pooler's own, and the one question that finds it out.
        let harmless = ["SHOW search_path", "SET application_name", "DISCARD ALL", "select 1"];
        let ours = statements
            .lines()
            .filter(|line| line.contains("statement:") && !harmless.iter().any(|word| line.contains(word)));
        assert_eq!(ours.count(), 0, "{mode} {ignore}: {statements}");
        println!("{mode}, ignoring {ignore:?}: {}", health.message);
        // With the server's own address the same keeper is well.
        kept.keepers.assign_base(&kept.key, direct.clone());
        kept.until_in(&direct).await;
    }
    // Set at the start of a session by many drivers, sqlx among them.
    let Some(pooler) = PgBouncer::start(server.port, &[APP], "transaction", "extra_float_digits").await else {
        return;
    };
    let through = PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(pooler.port)
        .username(APP.0)
        .password(APP.1)
        .database("amas")
        .statement_cache_capacity(0);
    let mut application = through.connect().await.unwrap();
    sqlx::raw_sql("SELECT 1").execute(&mut application).await.unwrap();
}
