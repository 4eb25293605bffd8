//! Verified connections to real servers: what gets in, and how what does not is told.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use amas_operator::{
    api::sensitive::Sensitive,
    controllers::credentials::{Certificates, Entries, certificates::Source},
    stores::{
        endpoint::{ClientCertificate, Endpoint, StoreError, Tls, Trust},
        health::Reason,
        keeper::{Duty, Sentinel, Store},
        postgres::Postgres,
        redis::{Redis, RedisFacts, RedisWorker},
        tls::{self, fingerprint},
        workload::Family,
    },
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    kept::{Kept, duty},
    redis::base,
};
use crate::support::{
    pki::{Authority, Issued, Years},
    postmaster::Postmaster,
    process::{Folder, eventually},
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
    kept.until(20., |now| now.health.reason == Reason::Untrusted).await;
    let message = kept.snapshots.borrow().health.message.clone();
    println!("{message}");
    message
}

#[tokio::test]
async fn postgres_is_verified_and_what_is_wrong_is_said() {
    let (ours, other) = (Authority::new(), Authority::new());
    let server = encrypted_postgres(&ours.issue("db", LOCAL, Years::NOW)).await;
    let mut good = duty(&server);
    good.admin.tls = verified(&ours, None);
    good.owner_login.tls = verified(&ours, None);
    let _kept = Kept::settled(&good).await;

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
    kept.until(20., |now| now.health.reason == Reason::LoginRefused).await;
    let message = kept.snapshots.borrow().health.message.clone();
    assert!(message.contains("client certificate"), "{message}");
    // The same keeper, once there is one.
    let right = with(Some(&ca.issue("operator", "DNS:operator", Years::NOW)));
    kept.settle(&right).await;
    let stranger = Authority::new().issue("operator", "DNS:operator", Years::NOW);
    let error = Postgres::open(&with(Some(&stranger))).await.map(drop).unwrap_err();
    println!("{error}");
    assert!(error.to_string().contains("client certificate"), "{error}");
}

/// As a node would bring them, and as our own authority signs them.
#[tokio::test]
async fn a_renewed_certificate_is_shown_without_a_restart() {
    let ca = Authority::new();
    let (old, new) = (ca.issue("old", LOCAL, Years::NOW), ca.issue("new", LOCAL, Years::NOW));
    let server = encrypted_postgres(&old).await;
    let mut wanted = duty(&server);
    wanted.admin.tls = verified(&ca, None);
    wanted.owner_login.tls = verified(&ca, None);
    wanted.serves = fingerprint(&old.certificate);
    let kept = Kept::settled(&wanted).await;
    let mut session = super::kept::login(&server, "postgres", &server.password).await.unwrap();
    let started = kept.snapshots.borrow().health.identity.started_at;
    assert!(!server.log().contains("received SIGHUP"), "it shows what it should");

    server.renew(&new.certificate, &new.key);
    wanted.serves = fingerprint(&new.certificate);
    kept.keepers.assign_base(&kept.key, wanted.clone());
    eventually("the new one is shown", Duration::from_secs(10), || async {
        shown_by_postgres(&server).await == fingerprint(&new.certificate)
    })
    .await;
    super::kept::run(&mut session, "SELECT 1").await.unwrap();
    let health = kept.snapshots.borrow().health.clone();
    assert!(health.is_up() && health.identity.started_at == started, "{health:?}");

    let server = RedisServer::start_verified(Program::Redis, &ca, &old).await;
    let mut base = base(Endpoint {
        tls: verified(&ca, Some(&ca.issue("operator", "DNS:operator", Years::NOW))),
        port: server.tls_port.unwrap(),
        ..server.endpoint()
    });
    let (mut worker, mut facts) = (RedisWorker::default(), RedisFacts::default());
    let mut client = server.client();
    for (issued, renewed) in [(&old, false), (&new, true)] {
        if renewed {
            server.renew(&issued.certificate, &issued.key);
        }
        base.serves = fingerprint(&issued.certificate);
        let duty = Duty {
            base: base.clone(),
            policies: BTreeMap::new(),
        };
        Redis::work(&mut worker, &duty, &mut facts).await.unwrap();
        let tcp = tls::open(&base.endpoint).await.unwrap();
        assert_eq!(tls::shown(&base.endpoint, tcp).await.unwrap(), base.serves);
    }
    redis::cmd("PING").exec(&mut client).unwrap();
}

/// Our own certificates as they were and are at a time, for a server at this address.
fn own(days_ago: i64, before: &Entries) -> Entries {
    let family = Family {
        namespace: "n".into(),
        database: "d".into(),
        uid: "u".into(),
        data_goes: false,
    };
    let now = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(24 * days_ago);
    let mut certificates = Certificates::of(&family, ["postgres"].into_iter(), (Source::Own, None, now));
    certificates.servers[0].1.push("127.0.0.1".into());
    certificates.entries(before)
}

/// A year before the end of an authority the next is published, and signs a month later.
#[tokio::test]
async fn an_authority_is_replaced_under_a_running_server() {
    let first = own(3325, &Entries::new());
    let both = own(31, &first);
    let after = own(0, &both);
    assert_ne!(both["postgres.crt"], after["postgres.crt"]);
    let issued = |entries: &Entries| Issued {
        certificate: entries["postgres.crt"].reveal().into(),
        key: entries["postgres.key"].reveal().into(),
    };
    let trusting = |entries: &Entries| {
        Tls::Encrypt(Arc::new(Trust {
            verify: true,
            ca: Some(entries["ca.crt"].reveal().into()),
            client: None,
        }))
    };
    let server = encrypted_postgres(&issued(&both)).await;
    let wanted = |entries: &Entries| {
        let mut duty = duty(&server);
        duty.admin.tls = trusting(entries);
        duty.owner_login.tls = trusting(entries);
        duty.serves = fingerprint(&issued(entries).certificate);
        duty
    };
    let mut kept = Kept::settled(&wanted(&both)).await;
    let before = kept.snapshots.borrow().health.clone();

    let new = issued(&after);
    server.renew(&new.certificate, &new.key);
    kept.settle(&wanted(&after)).await;
    eventually("the new one is shown", Duration::from_secs(15), || async {
        shown_by_postgres(&server).await == fingerprint(&new.certificate)
    })
    .await;
    let health = kept.snapshots.borrow().health.clone();
    assert!(health.is_up() && health.since == before.since, "{before:?} {health:?}");
    // A client that has not looked for a month gets in, one that has not looked for years does not.
    for (known, accepted) in [(&both, true), (&after, true), (&first, false)] {
        let mut duty = wanted(known);
        duty.serves = None;
        assert_eq!(Postgres::open(&duty).await.is_ok(), accepted);
    }
}

async fn shown_by_postgres(server: &Postmaster) -> Option<String> {
    // The request for TLS, and its answer.
    let mut endpoint = duty(server).admin;
    endpoint.tls = Tls::require();
    let mut tcp = tls::open(&endpoint).await.ok()?;
    tcp.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).await.ok()?;
    assert_eq!(tcp.read_u8().await.ok()?, b'S');
    tls::shown(&endpoint, tcp).await.ok()?
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

/// The runner as a Job starts it: its login in a file, the authority in another.
async fn migrate(server: &Postmaster, folder: &Folder, authority: &str) -> (Option<i32>, String) {
    let url = format!(
        "postgresql://postgres:{}@127.0.0.1:{}/postgres?sslmode=verify-full",
        server.password, server.port
    );
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_amas-operator"));
    command
        .args(["migrate", "up", "--attempt", "test", "--dir"])
        .arg(folder.path().join("source"))
        .arg("--database-url-file")
        .arg(folder.write("DATABASE_URL", &url))
        .env("PGSSLMODE", "verify-full")
        .env("PGSSLROOTCERT", folder.write("ca.crt", authority));
    let output = command.output().await.unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

#[tokio::test]
async fn the_runner_verifies_the_server() {
    let (ours, other) = (Authority::new(), Authority::new());
    let server = encrypted_postgres(&ours.issue("db", LOCAL, Years::NOW)).await;
    let folder = Folder::new("runner");
    std::fs::create_dir(folder.path().join("source")).unwrap();
    folder.write("source/0001_a.sql", "CREATE TABLE a (id int);");
    let (code, text) = migrate(&server, &folder, &other.pem()).await;
    println!("{code:?} {text}");
    let code = code.unwrap();
    assert!((10..20).contains(&code), "no Job would try that again: {code} {text}");
    assert!(
        text.contains("certificate is not accepted") && text.contains("PGSSLROOTCERT"),
        "{text}"
    );
    assert!(!text.contains(&server.password), "{text}");
    assert!(!server.log().contains("CREATE TABLE"), "nothing was done");
    let (code, text) = migrate(&server, &folder, &ours.pem()).await;
    assert_eq!(code, Some(0), "{text}");
    assert!(server.log().contains("CREATE TABLE a"));
}
