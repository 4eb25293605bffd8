//! Passwords replaced on real servers, twice, by the steps that the operator takes; with an operator that dies after each of them, and clients of
//! which one reads the Secret for every login and one only once in each overlap. Nobody is ever refused.

#[path = "rotation/killed.rs"]
mod killed;

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use amas_operator::{
    api::{common::Connection, sensitive::Sensitive},
    controllers::credentials::{
        Entries, Given, Purpose, SecretSpec, State,
        rotation::{Moment, Request, is_in_place, next},
    },
    stores::{
        endpoint::Endpoint,
        keeper::{Keepers, Key, Store},
        neo4j::{Neo4j, Neo4jDuty, User},
        postgres::{Postgres, PostgresDuty, Twin, twin_name},
        redis::{Redis, RedisDuty},
    },
};
use futures::FutureExt;
use sqlx::{ConnectOptions, Connection as _, Row, postgres::PgConnectOptions};
use tokio::{sync::mpsc, time::sleep};

use crate::support::{
    fault::Plan,
    neo4j::{Neo4jServer, base},
    postmaster::Postmaster,
    process::eventually,
    redis::{Program, RedisServer},
};

/// A Secret, as the API server would keep it, and every password it has ever had.
#[derive(Clone)]
struct Secret {
    spec: SecretSpec,
    entries: Arc<Mutex<Entries>>,
    passwords: Arc<Mutex<BTreeSet<String>>>,
}

/// What a client takes from a Secret.
#[derive(Clone, PartialEq)]
struct Login {
    user: String,
    password: String,
}

impl Secret {
    fn new(purpose: Purpose, password: &str) -> Self {
        let spec = SecretSpec {
            name: "s".into(),
            purpose,
            host: "127.0.0.1".into(),
            encryption: Default::default(),
            connection: Connection::default(),
            initialises_data: true,
            given: Given::No,
        };
        let first = State {
            password: Sensitive::new(password),
            ..spec.fresh()
        };
        let secret = Self {
            entries: Arc::new(Mutex::new(spec.write(&first, &Entries::new()))),
            spec,
            passwords: Arc::default(),
        };
        secret.note();
        secret
    }

    fn state(&self) -> State {
        self.spec.state(&self.entries.lock().unwrap()).unwrap()
    }

    fn put(&self, state: &State) {
        let mut entries = self.entries.lock().unwrap();
        *entries = self.spec.write(state, &entries);
        drop(entries);
        self.note();
    }

    fn note(&self) {
        let state = self.state();
        let all = [Some(&state.password), state.rotation.second()];
        let texts = all.into_iter().flatten().map(|password| password.reveal().to_owned());
        self.passwords.lock().unwrap().extend(texts);
    }

    fn login(&self) -> Login {
        let entries = self.entries.lock().unwrap();
        let of = |suffixes: [&str; 2]| {
            let found = entries
                .iter()
                .find(|(key, _)| suffixes.iter().any(|suffix| key.ends_with(suffix)) && !key.starts_with("rotation"));
            found.map(|(_, value)| value.reveal().to_owned()).unwrap_or_default()
        };
        Login {
            user: of(["USER", "USERNAME"]),
            password: of(["PASSWORD", "PASSWORD"]),
        }
    }
}

/// The operator, which knows nothing but the Secret and dies after each write to it; how often it died of what was spoilt.
async fn rotate<S: Store>(secret: &Secret, value: &str, overlap: Duration, engine: &Engine<S>) -> usize {
    let key = Key {
        namespace: "agents".into(),
        database: "amas".into(),
    };
    let (mut writes, mut deaths) = (0, 0);
    let dies = || {
        let spoilt = engine.spoilt.as_ref();
        spoilt.is_some_and(|plan| plan.happened().now_or_never().is_some())
    };
    loop {
        let (wake, _wakes) = mpsc::unbounded_channel();
        let keepers = Keepers::<S>::new(wake);
        let wrote = loop {
            if dies() {
                break None;
            }
            let state = secret.state();
            let duty = (engine.duty)(&state);
            let wanted = (engine.fingerprint)(&duty);
            keepers.assign_base(&key, duty);
            let facts = keepers.snapshot(&key).unwrap().facts.clone();
            let moment = Moment {
                is_in: (engine.duty_in)(&facts) == Some(wanted),
                overlap,
                ..asked(value)
            };
            if let Some(next) = next(&secret.spec, &state, &moment) {
                secret.put(&next);
                break Some(true);
            }
            if moment.is_in && state.rotation.second().is_none() {
                break Some(false);
            }
            sleep(Duration::from_millis(10)).await;
        };
        match (wrote, &engine.spoilt) {
            (None, Some(plan)) => {
                plan.begin(None);
                deaths += 1;
            }
            (Some(true), _) => writes += 1,
            _ => break,
        }
    }
    assert_eq!(writes, 3, "recorded, published, ended");
    deaths
}

/// What a keeper is told while the Secret says so.
type DutyOf<S> = Box<dyn Fn(&State) -> <S as Store>::Base + Send + Sync>;

struct Engine<S: Store> {
    duty: DutyOf<S>,
    fingerprint: fn(&S::Base) -> u64,
    duty_in: fn(&S::Facts) -> Option<u64>,
    /// What a proxy before the server may spoil: the operator dies of it.
    spoilt: Option<Arc<Plan>>,
}

/// How often clients logged in, and how often they were refused.
#[derive(Default)]
struct Count {
    logins: AtomicUsize,
    refused: AtomicUsize,
}

impl Count {
    fn so_far(&self) -> (usize, usize) {
        (
            self.logins.load(Ordering::Relaxed),
            self.refused.load(Ordering::Relaxed),
        )
    }
}

/// Two clients until dropped; `open` tells whether a login works.
fn clients<F>(
    secret: &Secret,
    overlap: Duration,
    open: impl Fn(Login) -> F + Clone + Send + Sync + 'static,
) -> (tokio::task::JoinSet<()>, Arc<Count>)
where
    F: Future<Output = bool> + Send,
{
    let count = Arc::new(Count::default());
    let mut tasks = tokio::task::JoinSet::new();
    let attempt = |count: &Count, works: bool| {
        count.logins.fetch_add(1, Ordering::Relaxed);
        count.refused.fetch_add(usize::from(!works), Ordering::Relaxed);
    };
    let (always, counted, opens) = (secret.clone(), count.clone(), open.clone());
    tasks.spawn(async move {
        loop {
            attempt(&counted, opens(always.login()).await);
            sleep(Duration::from_millis(5)).await;
        }
    });
    let (seldom, counted) = (secret.clone(), count.clone());
    tasks.spawn(async move {
        let mut held = seldom.login();
        loop {
            let published = seldom.login();
            if published != held {
                // The new one is there: goes on with the old one for half of the overlap.
                let until = tokio::time::Instant::now() + overlap / 2;
                while tokio::time::Instant::now() < until {
                    attempt(&counted, open(held.clone()).await);
                    sleep(Duration::from_millis(5)).await;
                }
                held = published;
            }
            attempt(&counted, open(held.clone()).await);
            sleep(Duration::from_millis(5)).await;
        }
    });
    (tasks, count)
}

async fn twice<S: Store, F>(
    secret: &Secret,
    overlap: Duration,
    engine: &Engine<S>,
    open: impl Fn(Login) -> F + Clone + Send + Sync + 'static,
) where
    F: Future<Output = bool> + Send,
{
    let first = secret.login();
    assert!(open(first.clone()).await, "the first password works");
    let (tasks, count) = clients(secret, overlap, open.clone());
    for value in ["one", "two"] {
        rotate(secret, value, overlap, engine).await;
    }
    drop(tasks);
    let (logins, refused) = count.so_far();
    println!("{logins} logins through two rotations, {refused} refused");
    assert!(logins > 50 && refused == 0, "{refused} of {logins} logins were refused");
    assert_eq!(secret.state().rotation.count, 2);
    assert!(!open(first).await, "the first password is over");
    assert!(open(secret.login()).await);
}

async fn sql(server_port: u16, login: Login, database: &str) -> Result<sqlx::PgConnection, sqlx::Error> {
    PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(server_port)
        .username(&login.user)
        .password(&login.password)
        .database(database)
        .connect()
        .await
}

fn role(name: &str, port: u16) -> Purpose {
    Purpose::PostgresRole {
        role: name.into(),
        database: "amas".into(),
        port,
    }
}

fn twin(state: &State) -> Twin {
    Twin {
        active: state.twin,
        other: state.rotation.second().cloned(),
    }
}

fn postgres(duty: impl Fn(&State) -> PostgresDuty + Send + Sync + 'static) -> Engine<Postgres> {
    Engine {
        duty: Box::new(duty),
        fingerprint: PostgresDuty::fingerprint,
        duty_in: |facts| facts.duty_in,
        spoilt: None,
    }
}

/// Duty in before anybody logs in.
async fn settle<S: Store>(secret: &Secret, engine: &Engine<S>) {
    let key = Key {
        namespace: "agents".into(),
        database: "amas".into(),
    };
    let (wake, _wakes) = mpsc::unbounded_channel();
    let keepers = Keepers::<S>::new(wake);
    let duty = (engine.duty)(&secret.state());
    let wanted = (engine.fingerprint)(&duty);
    keepers.assign_base(&key, duty);
    eventually("the duty is in", Duration::from_secs(30), || async {
        (engine.duty_in)(&keepers.snapshot(&key).unwrap().facts) == Some(wanted)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_roles_and_their_owner() {
    const OVERLAP: Duration = Duration::from_secs(2);
    let server = Postmaster::start().await;
    let (port, duty) = (server.port, crate::kept::duty(&server));

    let app = Secret::new(role("amas_app", port), duty.roles[0].password.reveal());
    let base = duty.clone();
    let engine = postgres(move |state| {
        let mut duty = base.clone();
        duty.roles[0].password = state.password.clone();
        duty.roles[0].twin = twin(state);
        duty.sure = false;
        duty
    });
    settle(&app, &engine).await;
    twice(&app, OVERLAP, &engine, move |login| async move {
        // Whoever logs in acts as the role, with the role's settings.
        let Ok(mut session) = sql(port, login, "amas").await else {
            return false;
        };
        let query = "SELECT concat_ws('|', current_user, current_setting('statement_timeout'))";
        let row = sqlx::raw_sql(query).fetch_one(&mut session).await.unwrap();
        assert_eq!(row.try_get::<String, _>(0).unwrap(), "amas_app|30s");
        session.close().await.is_ok()
    })
    .await;

    let owner = Secret::new(role("amas_owner", port), duty.owner_login.password.reveal());
    let (base, held) = (duty.clone(), app.state());
    let engine = postgres(move |state| {
        let mut duty = base.clone();
        duty.roles[0].password = held.password.clone();
        duty.roles[0].twin = twin(&held);
        duty.owner_twin = twin(state);
        duty.owner_login.password = state.password.clone();
        if state.twin {
            duty.owner_login.user = twin_name("amas_owner");
        }
        duty.sure = false;
        duty
    });
    let made = Arc::new(AtomicUsize::new(0));
    let tables = made.clone();
    twice(&owner, OVERLAP, &engine, move |login| {
        let tables = tables.clone();
        async move {
            let user = login.user.clone();
            let Ok(mut session) = sql(port, login, "amas").await else {
                return false;
            };
            let number = tables.fetch_add(1, Ordering::Relaxed);
            if number.is_multiple_of(10) {
                // What either login makes belongs to the role, and application roles may use it as before.
                let query = format!("CREATE TABLE public.made_{number} AS SELECT '{user}'::text AS by");
                sqlx::raw_sql(sqlx::AssertSqlSafe(query))
                    .execute(&mut session)
                    .await
                    .unwrap();
            }
            session.close().await.is_ok()
        }
    })
    .await;
    let admin = Login {
        user: "postgres".into(),
        password: server.password.clone(),
    };
    let mut admin = sql(port, admin, "amas").await.unwrap();
    let query = "SELECT string_agg(DISTINCT tableowner || ' ' || has_table_privilege('amas_app', 'public.' || tablename, 'INSERT'), ',') \
                 FROM pg_tables WHERE tablename LIKE 'made_%'";
    let row = sqlx::raw_sql(query).fetch_one(&mut admin).await.unwrap();
    assert_eq!(row.try_get::<String, _>(0).unwrap(), "amas_owner true");

    let log = server.log();
    let all = app
        .passwords
        .lock()
        .unwrap()
        .clone()
        .into_iter()
        .chain(owner.passwords.lock().unwrap().clone());
    let all: BTreeSet<String> = all.collect();
    assert!(all.len() >= 6, "two roles with three passwords each");
    assert!(
        log.contains("ALTER ROLE") && log.contains("amas_owner_twin"),
        "the log has the statements"
    );
    assert!(
        all.iter().all(|password| !log.contains(password)),
        "a password is in the server's log"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_superuser_in_place() {
    let server = Postmaster::start().await;
    let duty = crate::kept::duty(&server);
    let secret = Secret::new(Purpose::PostgresAdmin, &server.password);
    let engine = postgres(move |state| PostgresDuty {
        admin: Endpoint {
            password: state.password.clone(),
            ..duty.admin.clone()
        },
        admin_next: state.rotation.next.clone(),
        sure: false,
        ..duty.clone()
    });
    settle(&secret, &engine).await;
    // No overlap, since the operator alone logs in with it: recorded, published.
    let key = Key {
        namespace: "agents".into(),
        database: "amas".into(),
    };
    let mut seen = BTreeSet::from([secret.state().password.reveal().to_owned()]);
    for value in ["one", "two"] {
        for step in 0..2 {
            let (wake, _wakes) = mpsc::unbounded_channel();
            let keepers = Keepers::<Postgres>::new(wake);
            let before = secret.state();
            let duty = (engine.duty)(&before);
            let wanted = duty.fingerprint();
            keepers.assign_base(&key, duty);
            eventually("the duty is in", Duration::from_secs(20), || async {
                keepers.snapshot(&key).unwrap().facts.duty_in == Some(wanted)
            })
            .await;
            let after = next(&secret.spec, &before, &asked(value)).unwrap();
            assert!(is_in_place(&secret.spec, &after) && after.rotation.next.is_some() == (step == 0));
            secret.put(&after);
        }
        settle(&secret, &engine).await;
        seen.insert(secret.state().password.reveal().to_owned());
        let login = Login {
            user: "postgres".into(),
            ..secret.login()
        };
        sql(server.port, login, "postgres").await.unwrap();
    }
    assert_eq!(seen.len(), 3);
    let log = server.log();
    assert!(seen.iter().all(|password| !log.contains(password)));
}

fn redis_engine(endpoint: Endpoint) -> Engine<Redis> {
    Engine {
        duty: Box::new(move |state| RedisDuty {
            endpoint: Endpoint {
                password: state.password.clone(),
                ..endpoint.clone()
            },
            second: state.rotation.second().cloned(),
            claim: crate::kept::claim(),
            managed: true,
            attention: Default::default(),
            parameters: Default::default(),
            serves: None,
            take_over: None,
        }),
        fingerprint: RedisDuty::fingerprint,
        duty_in: |facts| facts.duty_in,
        spoilt: None,
    }
}

async fn opens_redis(port: u16, login: Login) -> bool {
    connect(port, &login.password).await.is_ok()
}

async fn redis_rotation(program: Program) {
    const OVERLAP: Duration = Duration::from_secs(2);
    let server = RedisServer::start(program, "").await;
    let (port, endpoint) = (server.port, server.endpoint());
    let secret = Secret::new(Purpose::Redis, endpoint.password.reveal());
    let engine = redis_engine(endpoint);
    let open = move |login| opens_redis(port, login);
    settle(&secret, &engine).await;
    twice(&secret, OVERLAP, &engine, open).await;
    agrees_with_its_file(&secret, port).await;

    // A container that starts again within the overlap may read a file from before it: only the old password is known then.
    let old = secret.state();
    let both = next(&secret.spec, &old, &asked("three")).unwrap();
    secret.put(&both);
    settle(&secret, &engine).await;
    let published = next(&secret.spec, &both, &asked("three")).unwrap();
    secret.put(&published);
    settle(&secret, &engine).await;
    let mut client = client(port, &old.password).await;
    redis::cmd("ACL")
        .arg(&["SETUSER", "default", "resetpass"])
        .arg(format!(">{}", old.password.reveal()))
        .exec_async(&mut client)
        .await
        .unwrap();
    assert!(!open(secret.login()).await, "only the old one is known");
    settle(&secret, &engine).await;
    assert!(open(secret.login()).await, "the operator lets the new one in again");
    agrees_with_its_file(&secret, port).await;
}

/// Just now, with everything in that was wanted before.
fn asked(value: &str) -> Moment {
    Moment {
        now: jiff::Timestamp::now(),
        is_in: true,
        every: None,
        calendar: None,
        overlap: Duration::from_secs(3600),
        created: jiff::Timestamp::now(),
        request: Some(Request::Rotate(value.into())),
    }
}

async fn connect(port: u16, password: &str) -> redis::RedisResult<redis::aio::MultiplexedConnection> {
    let settings = redis::RedisConnectionInfo::default().set_password(password);
    let address = redis::ConnectionAddr::Tcp("127.0.0.1".into(), port);
    let info = redis::IntoConnectionInfo::into_connection_info(address).unwrap();
    let client = redis::Client::open(info.set_redis_settings(settings)).unwrap();
    client.get_multiplexed_async_connection().await
}

async fn client(port: u16, password: &Sensitive) -> redis::aio::MultiplexedConnection {
    connect(port, password.reveal()).await.unwrap()
}

/// The file that a restarted server would read has the passwords that this one knows, as hashes.
async fn agrees_with_its_file(secret: &Secret, port: u16) {
    let mut client = client(port, &secret.state().password).await;
    let users: Vec<String> = redis::cmd("ACL").arg("LIST").query_async(&mut client).await.unwrap();
    let hashes = |text: &str| -> BTreeSet<String> {
        text.split_whitespace()
            .filter(|word| word.starts_with('#'))
            .map(str::to_owned)
            .collect()
    };
    let file = secret.entries.lock().unwrap()["users.acl"].reveal().to_owned();
    assert_eq!(hashes(&users.join(" ")), hashes(&file));
    assert!(!hashes(&file).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_user_of_redis() {
    redis_rotation(Program::Redis).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_user_of_valkey() {
    redis_rotation(Program::Valkey).await;
}

fn graph() -> Purpose {
    Purpose::Neo4j {
        database: "neo4j".into(),
    }
}

fn neo4j_engine(spec: SecretSpec, endpoint: Endpoint) -> Engine<Neo4j> {
    let first = base(endpoint);
    Engine {
        duty: Box::new(move |state| {
            let (user, other) = spec.pair(state).unwrap();
            let mut duty = first.clone();
            duty.endpoint.user = user;
            duty.endpoint.password = state.password.clone();
            duty.others = vec![User {
                first: other == "neo4j",
                name: other,
                password: state.rotation.second().cloned(),
            }];
            duty
        }),
        fingerprint: Neo4jDuty::fingerprint,
        duty_in: |facts| facts.duty_in,
        spoilt: None,
    }
}

async fn opens_neo4j(endpoint: Endpoint, Login { user, password }: Login) -> bool {
    let endpoint = Endpoint {
        user,
        password: Sensitive::new(password),
        ..endpoint
    };
    <Neo4j as Store>::open(&base(endpoint)).await.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_user_of_neo4j() {
    const OVERLAP: Duration = Duration::from_secs(4);
    let Some(mut server) = Neo4jServer::start().await else {
        return;
    };
    let endpoint = server.endpoint();
    let secret = Secret::new(graph(), endpoint.password.reveal());
    let engine = neo4j_engine(secret.spec.clone(), endpoint.clone());
    settle(&secret, &engine).await;
    let open = move |login| opens_neo4j(endpoint.clone(), login);
    twice(&secret, OVERLAP, &engine, open.clone()).await;

    // In the middle of a third, the server starts again: what is in its volume counts, not the file it began with.
    let both = next(&secret.spec, &secret.state(), &asked("three")).unwrap();
    secret.put(&both);
    settle(&secret, &engine).await;
    let published = next(&secret.spec, &both, &asked("three")).unwrap();
    secret.put(&published);
    let old = secret.state().rotation.previous.unwrap();
    server.restart().await;
    settle(&secret, &engine).await;
    assert!(open(secret.login()).await, "the new one");
    let before = Login {
        user: "neo4j".into(),
        password: old.reveal().to_owned(),
    };
    assert!(open(before).await, "the old one, in the overlap");
    let files = server.texts();
    assert!(files.len() > 1000, "the server writes logs");
    let all = secret.passwords.lock().unwrap().clone();
    assert!(all.len() >= 4 && all.iter().all(|password| !files.contains(password)));
}
