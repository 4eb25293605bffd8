//! Verified connections to real servers: what gets in, and how what does not is told.

use std::{collections::BTreeMap, sync::Arc};

use amas_operator::{
    api::sensitive::Sensitive,
    stores::{
        endpoint::{ClientCertificate, Endpoint, StoreError, Tls, Trust},
        health::{Reason, Verdict},
        keeper::{Duty, Sentinel, Store},
        postgres::Postgres,
        redis::{Redis, RedisFacts, RedisWorker},
    },
};

use super::{
    postgres::{Kept, duty},
    redis::base,
};
use crate::support::{
    pki::{Authority, Issued, Years},
    postmaster::Postmaster,
    redis::{Program, RedisServer},
};

const LOCAL: &str = "DNS:localhost,IP:127.0.0.1";

fn verified(ca: &Authority, client: Option<&Issued>) -> Tls {
    Tls::Encrypt(Arc::new(Trust {
        verify: true,
        ca: Some(ca.pem()),
        client: client.map(identity),
    }))
}

fn identity(issued: &Issued) -> ClientCertificate {
    ClientCertificate {
        certificate: issued.certificate.clone(),
        key: Sensitive::new(issued.key.clone()),
    }
}

async fn encrypted_postgres(certificate: &Issued) -> Postmaster {
    let mut server = Postmaster::prepare();
    server.encrypt_as(&certificate.certificate, &certificate.key);
    server.launch();
    server.wait_until_ready().await;
    server
}

/// What a keeper says of a PostgreSQL server that it may not trust.
async fn told(server: &Postmaster, tls: Tls) -> String {
    let mut duty = duty(server);
    duty.admin.tls = tls.clone();
    duty.owner_login.tls = tls;
    let mut kept = Kept::new(duty);
    kept.until_verdict(5., Verdict::Down).await;
    let health = kept.snapshots.borrow().health.clone();
    assert_eq!(health.reason, Reason::Untrusted, "{health:?}");
    println!("{}", health.message);
    health.message
}

#[tokio::test]
async fn postgres_is_verified_and_what_is_wrong_is_said() {
    let (ours, other) = (Authority::new(), Authority::new());
    let server = encrypted_postgres(&ours.issue("db", LOCAL, Years::NOW)).await;
    let mut good = duty(&server);
    good.admin.tls = verified(&ours, None);
    good.owner_login.tls = verified(&ours, None);
    let mut kept = Kept::new(good.clone());
    kept.until_in(&good).await;

    let message = told(&server, verified(&other, None)).await;
    assert!(
        message.contains("unknown authority") && message.contains("ca.crt"),
        "{message}"
    );
    assert!(
        message.contains("another key"),
        "both are called CN=authority: {message}"
    );
    let public = Tls::Encrypt(Arc::new(Trust {
        verify: true,
        ..Trust::default()
    }));
    assert!(told(&server, public).await.contains("unknown authority"));

    let expired = encrypted_postgres(&ours.issue("old", LOCAL, Years::PAST)).await;
    assert!(
        told(&expired, verified(&ours, None))
            .await
            .contains("expired on 2020-01-01")
    );
    let elsewhere = encrypted_postgres(&ours.issue("elsewhere", "DNS:db.example,DNS:db2.example", Years::NOW)).await;
    let message = told(&elsewhere, verified(&ours, None)).await;
    assert!(
        message.contains("host name 127.0.0.1 is not among those") && message.contains("(db.example, db2.example)"),
        "{message}"
    );
    let plain = Postmaster::start().await;
    assert!(told(&plain, verified(&ours, None)).await.contains("does not offer TLS"));
    assert!(
        !plain.log().contains("connection authorized"),
        "no password went over it"
    );
}

#[tokio::test]
async fn postgres_asks_for_a_client_certificate() {
    let ca = Authority::new();
    let mut server = Postmaster::prepare();
    let own = ca.issue("db", LOCAL, Years::NOW);
    server.encrypt_as(&own.certificate, &own.key);
    server.ask_clients_for_certificates(&ca.pem());
    server.launch();
    server.wait_until_ready().await;
    let with = |client: Option<&Issued>| {
        let mut duty = duty(&server);
        duty.admin.tls = verified(&ca, client);
        duty.owner_login.tls = verified(&ca, client);
        duty
    };
    let mut kept = Kept::new(with(None));
    kept.until_verdict(5., Verdict::Down).await;
    let health = kept.snapshots.borrow().health.clone();
    println!("{}", health.message);
    assert!(
        health.reason == Reason::LoginRefused && health.message.contains("client certificate"),
        "{health:?}"
    );
    // The same keeper, once there is one.
    let right = with(Some(&ca.issue("operator", "DNS:operator", Years::NOW)));
    kept.keepers.assign_base(&kept.key, right.clone());
    kept.until_in(&right).await;
    let stranger = Authority::new().issue("operator", "DNS:operator", Years::NOW);
    let error = Postgres::open(&with(Some(&stranger))).await.map(drop).unwrap_err();
    println!("{error}");
    assert!(error.to_string().contains("client certificate"), "{error}");
}

async fn opened(endpoint: Endpoint) -> Result<(), StoreError> {
    let (mut sentinel, _) = Redis::open(&base(endpoint)).await?;
    sentinel.ping().await
}

#[tokio::test]
async fn redis_is_verified_and_asks_for_a_client_certificate() {
    let (ours, other) = (Authority::new(), Authority::new());
    let client = ours.issue("operator", "DNS:operator", Years::NOW);
    let server = RedisServer::start_verified(Program::Redis, &ours, &ours.issue("cache", LOCAL, Years::NOW)).await;
    let endpoint = |tls| Endpoint {
        tls,
        port: server.tls_port.unwrap(),
        ..server.endpoint()
    };
    let duty = Duty {
        base: base(endpoint(verified(&ours, Some(&client)))),
        policies: BTreeMap::new(),
    };
    let mut facts = RedisFacts::default();
    Redis::work(&mut RedisWorker::default(), &duty, &mut facts)
        .await
        .unwrap();
    assert!(facts.duty_in.is_some());
    opened(endpoint(verified(&ours, Some(&client)))).await.unwrap();

    let error = opened(endpoint(verified(&other, Some(&client)))).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Untrusted(text) if text.contains("unknown authority")),
        "{error}"
    );
    let error = opened(endpoint(verified(&ours, None))).await.unwrap_err();
    println!("{error}");
    assert!(error.to_string().contains("client certificate"), "{error}");
    let plain = Endpoint {
        tls: verified(&ours, None),
        ..server.endpoint()
    };
    // It waits for the end of what it takes for a command.
    let error = opened(plain).await.unwrap_err();
    println!("{error}");
    assert!(error.to_string().contains("TLS port"), "{error}");
}
