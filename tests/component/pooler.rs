//! A pooler in front of PostgreSQL: found out before the first statement, used by applications only.

use std::time::Duration;

use amas_operator::{
    migrate::{plan::Options, session},
    stores::health::Reason,
};
use sqlx::{
    ConnectOptions,
    postgres::{PgConnectOptions, PgSslMode},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::postgres::{Kept, duty};
use crate::support::{pgbouncer::PgBouncer, postmaster::Postmaster};

const APP: (&str, &str) = ("amas_app", "app-password-2");

/// It lets us in and then falls silent: that is no connection either, and nobody waits for it for ever.
#[tokio::test]
async fn a_server_that_says_nothing_after_the_login_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let silent = tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut startup = vec![0; client.read_u32().await.unwrap() as usize - 4];
        client.read_exact(&mut startup).await.unwrap();
        // authentication is over, ready for a query
        client.write_all(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I").await.unwrap();
        let mut asked = [0; 1024];
        while client.read(&mut asked).await.unwrap_or(0) > 0 {}
    });
    let login = PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(port)
        .username("somebody")
        .ssl_mode(PgSslMode::Disable);
    let options = Options::default();
    let connecting = session::connect(&login, &options, Duration::ZERO);
    let given_up = tokio::time::timeout(Duration::from_secs(60), connecting).await;
    let failure = given_up.expect("it ends by itself").unwrap_err();
    assert_eq!(failure.exit_code(), 20, "{failure}");
    silent.await.unwrap();
}

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
        kept.until(20., |now| now.health.reason == Reason::Pooled).await;
        let message = kept.snapshots.borrow().health.message.clone();
        assert!(message.contains("directUri"), "{mode} {ignore}: {message}");
        let statements = server.log()[before..].to_owned();
        // The pooler's own, and the one question that finds it out.
        let harmless = ["SHOW search_path", "SET application_name", "DISCARD ALL", "select 1"];
        let ours = statements
            .lines()
            .filter(|line| line.contains("statement:") && !harmless.iter().any(|word| line.contains(word)));
        assert_eq!(ours.count(), 0, "{mode} {ignore}: {statements}");
        println!("{mode}, ignoring {ignore:?}: {message}");
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
