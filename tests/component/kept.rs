//! A keeper of PostgreSQL with the duty of the platform, and sessions beside it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use amas_operator::{
    api::{
        names::{ExtensionName, SqlName},
        sensitive::Sensitive,
    },
    stores::{
        endpoint::{Endpoint, Tls},
        health::Verdict,
        keeper::{Keepers, Key, Snapshot},
        postgres::{Access, Claim, ExtensionDuty, Postgres, PostgresDuty, RoleDuty, Session, Twin},
    },
};
use sqlx::{ConnectOptions, PgConnection, Row, postgres::PgConnectOptions};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

use crate::support::postmaster::Postmaster as Server;

pub const OWNER_PASSWORD: &str = "owner-pässword'\\1";
pub const APP_PASSWORD: &str = "app-password-2";
pub const REPORT_PASSWORD: &str = "report-password-3";

pub fn name(text: &str) -> SqlName {
    SqlName::parse(text).unwrap()
}

pub fn endpoint(server: &Server, user: &str, password: &str) -> Endpoint {
    Endpoint {
        host: "127.0.0.1".into(),
        port: server.port,
        tls: Tls::Disable,
        user: user.into(),
        password: Sensitive::new(password),
    }
}

pub fn role(role: &str, password: &str, access: Access, connection_limit: i32) -> RoleDuty {
    let session = Session {
        timezone: Some("UTC".into()),
        statement_timeout: Some(Duration::from_secs(30)),
        application_name: Some("it's amas".into()),
        search_path: vec![name("app"), name("public")],
    };
    RoleDuty {
        name: name(role),
        password: Sensitive::new(password),
        twin: Twin::default(),
        access,
        connection_limit,
        session,
    }
}

pub fn claim() -> Claim {
    Claim {
        cluster_id: "c".into(),
        namespace: "agents".into(),
        name: "amas".into(),
        uid: "u-1".into(),
    }
}

pub fn duty(server: &Server) -> PostgresDuty {
    let extension = |extension: &str, schema: &str| ExtensionDuty {
        name: ExtensionName::parse(extension).unwrap(),
        schema: name(schema),
    };
    PostgresDuty {
        admin: endpoint(server, "postgres", &server.password),
        owner_login: endpoint(server, "amas_owner", OWNER_PASSWORD),
        database: name("amas"),
        owner: name("amas_owner"),
        owner_twin: Twin::default(),
        admin_next: None,
        sure: true,
        extensions: vec![
            extension("uuid-ossp", "public"),
            extension("pg_trgm", "ext"),
            extension("nowhere", "public"),
        ],
        roles: vec![
            role("amas_app", APP_PASSWORD, Access::ReadWrite, 65),
            role("amas_report", REPORT_PASSWORD, Access::ReadOnly, 5),
        ],
        exclusive: true,
        claim: claim(),
        clients: None,
        serves: None,
        attention: Default::default(),
        take_over: None,
        configuration: None,
        kept: false,
        deposit: None,
        waiting_plan: None,
        back_to: None,
        drift: Default::default(),
        look_again: String::new(),
    }
}

/// A keeper with one AmasDatabase.
pub struct Kept {
    pub keepers: Keepers<Postgres>,
    pub key: Key,
    pub snapshots: watch::Receiver<Arc<Snapshot<Postgres>>>,
    wakes: mpsc::UnboundedReceiver<Key>,
}

impl Kept {
    /// A keeper that has this duty and has done it.
    pub async fn settled(duty: &PostgresDuty) -> Self {
        let mut kept = Self::new(duty.clone());
        kept.until_in(duty).await;
        kept
    }

    pub fn new(duty: PostgresDuty) -> Self {
        let (wake, wakes) = mpsc::unbounded_channel();
        let keepers = Keepers::new(wake);
        let key = Key {
            namespace: "agents".into(),
            database: "amas".into(),
        };
        keepers.assign_base(&key, duty);
        let snapshots = keepers.subscribe(&key).unwrap();
        Self {
            keepers,
            key,
            snapshots,
            wakes,
        }
    }

    /// Gives it another duty, waits until that is done, and tells how long it took.
    pub async fn settle(&mut self, duty: &PostgresDuty) -> Duration {
        self.keepers.assign_base(&self.key, duty.clone());
        self.until_in(duty).await
    }

    /// Waits for a snapshot and tells how long that took.
    pub async fn until(&mut self, limit: f64, wanted: impl FnMut(&Arc<Snapshot<Postgres>>) -> bool) -> Duration {
        let begun = Instant::now();
        let found = timeout(Duration::from_secs_f64(limit), self.snapshots.wait_for(wanted))
            .await
            .is_ok();
        assert!(found, "after {limit} s: {:#?}", self.snapshots.borrow());
        begun.elapsed()
    }

    pub async fn until_in(&mut self, duty: &PostgresDuty) -> Duration {
        let fingerprint = duty.fingerprint();
        self.until(60., |now| now.health.is_up() && now.facts.duty_in == Some(fingerprint))
            .await
    }

    pub async fn until_verdict(&mut self, limit: f64, verdict: Verdict) -> Duration {
        self.until(limit, |now| now.health.verdict == verdict).await
    }

    /// How often the object was woken since this was asked.
    pub fn wakes(&mut self) -> usize {
        std::iter::from_fn(|| self.wakes.try_recv().ok()).count()
    }
}

/// The same duty, for which the server is looked at again.
pub fn looked_at_again(duty: &PostgresDuty) -> PostgresDuty {
    PostgresDuty {
        look_again: "1".into(),
        ..duty.clone()
    }
}

pub async fn login(server: &Server, user: &str, password: &str) -> Result<PgConnection, sqlx::Error> {
    login_to(server, user, password, "amas").await
}

pub async fn login_to(
    server: &Server,
    user: &str,
    password: &str,
    database: &str,
) -> Result<PgConnection, sqlx::Error> {
    let options = PgConnectOptions::new_without_pgpass();
    options
        .host("127.0.0.1")
        .port(server.port)
        .username(user)
        .password(password)
        .database(database)
        .connect()
        .await
}

pub async fn run(connection: &mut PgConnection, sql: &'static str) -> Result<(), String> {
    sqlx::raw_sql(sql)
        .execute(connection)
        .await
        .map(|_| ())
        .map_err(|error| error.to_string())
}

pub async fn text(connection: &mut PgConnection, sql: &'static str) -> String {
    let row = sqlx::raw_sql(sql).fetch_one(connection).await.unwrap();
    row.try_get::<Option<String>, _>(0).unwrap().unwrap_or_default()
}

/// Statements of the operator that change something.
pub fn changes(server: &Server) -> Vec<String> {
    let words = ["CREATE", "ALTER", "GRANT", "REVOKE", "INSERT", "UPDATE", "DROP"];
    let of_ours = |line: &&str| line.starts_with("amas-operator|");
    let statement = |line: &str| line.split_once("statement: ").map(|(_, text)| text.to_owned());
    let log = server.log();
    log.lines()
        .filter(of_ours)
        .filter_map(statement)
        .filter(|text| words.iter().any(|word| text.starts_with(word)))
        .collect()
}
