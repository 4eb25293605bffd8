//! Passwords replaced on real servers, twice, by the steps that the operator takes; with an operator that dies after each of them, and clients of
//! which one reads the Secret for every login and one only once in each overlap, which ends when it has. Nobody is ever refused.

#[path = "rotation/killed.rs"]
mod killed;

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use amas_operator::{
    api::{common::Connection, sensitive::Sensitive},
    controllers::credentials::{
        Entries, Given, Purpose, SecretSpec, State,
        rotation::{Moment, Request, ends_at, is_in_place, next},
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
use tokio::{sync::mpsc, task::JoinSet, time::sleep};

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

/// Longer than any test: what ends it is that the clients need it no more.
const OVERLAP: Duration = Duration::from_secs(3600);

/// The operator, which knows nothing but the Secret and dies after each write to it; how often it died of what was spoilt. The overlap lasts until
/// the server has what was published, and it may be over.
async fn rotate<S: Store>(secret: &Secret, value: &str, engine: &Engine<S>, over: impl Fn() -> bool) -> usize {
    let begun = Instant::now();
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
            assert!(begun.elapsed() < Duration::from_secs(180), "{value}: no end");
            let state = secret.state();
            let duty = (engine.duty)(&state);
            let wanted = (engine.fingerprint)(&duty);
            keepers.assign_base(&key, duty);
            let facts = keepers.snapshot(&key).unwrap().facts.clone();
            let mut moment = Moment {
                is_in: (engine.duty_in)(&facts) == Some(wanted),
                ..asked(value)
            };
            if let Some(end) = ends_at(&state, OVERLAP).filter(|_| moment.is_in && over()) {
                moment.now = end;
            }
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

/// Whether the server lets somebody in; or why it did not answer, which is no refusal.
type Answer = Result<bool, String>;

/// The same, asked until there is an answer.
async fn works<F>(open: &impl Fn(Login) -> F, login: &Login) -> bool
where
    F: Future<Output = Answer>,
{
    let begun = Instant::now();
    loop {
        match open(login.clone()).await {
            Ok(works) => return works,
            Err(why) => assert!(begun.elapsed() < Duration::from_secs(60), "no answer: {why}"),
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// How many logins more a client holds on to what it has when something else is published.
const HELD_ON: usize = 10;

/// Two clients at a server; `open` tells whether a login works.
struct Clients {
    tasks: JoinSet<()>,
    count: Arc<Count>,
}

#[derive(Default)]
struct Count {
    logins: AtomicUsize,
    refused: AtomicUsize,
    /// What each of them goes on with.
    uses: Mutex<[Option<Login>; 2]>,
    end: AtomicBool,
}

impl Count {
    fn login(&self, works: bool) {
        self.logins.fetch_add(1, Ordering::Relaxed);
        self.refused.fetch_add(usize::from(!works), Ordering::Relaxed);
    }

    fn goes_on(&self, client: usize, login: &Login) {
        self.uses.lock().unwrap()[client] = Some(login.clone());
    }

    fn ends(&self) -> bool {
        self.end.load(Ordering::Relaxed)
    }
}

impl Clients {
    fn start<F>(secret: &Secret, open: impl Fn(Login) -> F + Clone + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Answer> + Send,
    {
        let count = Arc::new(Count::default());
        let mut tasks = JoinSet::new();
        let (always, counted, opens) = (secret.clone(), count.clone(), open.clone());
        tasks.spawn(async move {
            while !counted.ends() {
                let login = always.login();
                counted.login(works(&opens, &login).await);
                counted.goes_on(0, &login);
                sleep(Duration::from_millis(5)).await;
            }
        });
        let (seldom, counted) = (secret.clone(), count.clone());
        tasks.spawn(async move {
            let mut held = seldom.login();
            while !counted.ends() {
                let published = seldom.login();
                if published != held {
                    for _ in 0..HELD_ON {
                        counted.login(works(&open, &held).await);
                        sleep(Duration::from_millis(5)).await;
                    }
                    held = published;
                }
                counted.login(works(&open, &held).await);
                counted.goes_on(1, &held);
                sleep(Duration::from_millis(5)).await;
            }
        });
        Self { tasks, count }
    }

    /// Whether none of them needs another login than the published one.
    fn have_moved(&self, secret: &Secret) -> bool {
        let published = Some(secret.login());
        self.count.uses.lock().unwrap().iter().all(|used| *used == published)
    }

    /// Ends them when they have logged in often enough; how often that was. None was ever refused.
    async fn end(mut self) -> usize {
        let logins = || self.count.logins.load(Ordering::Relaxed);
        eventually("fifty logins", Duration::from_secs(60), || async { logins() > 50 }).await;
        self.count.end.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        let (logins, refused) = (logins(), self.count.refused.load(Ordering::Relaxed));
        assert_eq!(refused, 0, "of {logins} logins were refused");
        logins
    }
}

async fn twice<S: Store, F>(
    secret: &Secret,
    engine: &Engine<S>,
    open: impl Fn(Login) -> F + Clone + Send + Sync + 'static,
) where
    F: Future<Output = Answer> + Send,
{
    let first = secret.login();
    assert!(works(&open, &first).await, "the first password works");
    let clients = Clients::start(secret, open.clone());
    for value in ["one", "two"] {
        rotate(secret, value, engine, || clients.have_moved(secret)).await;
    }
    let logins = clients.end().await;
    println!("{logins} logins through two rotations, none refused");
    assert_eq!(secret.state().rotation.count, 2);
    assert!(!works(&open, &first).await, "the first password is over");
    assert!(works(&open, &secret.login()).await);
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

/// A session; none where the server refuses the login.
async fn session(port: u16, login: Login) -> Result<Option<sqlx::PgConnection>, String> {
    match sql(port, login, "amas").await {
        Ok(session) => Ok(Some(session)),
        Err(sqlx::Error::Database(error)) if error.code().is_some_and(|code| code.starts_with("28")) => Ok(None),
        Err(error) => Err(error.to_string()),
    }
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
    eventually("the duty is in", Duration::from_secs(60), || async {
        (engine.duty_in)(&keepers.snapshot(&key).unwrap().facts) == Some(wanted)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_roles_and_their_owner() {
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
    twice(&app, &engine, move |login| async move {
        // Whoever logs in acts as the role, with the role's settings.
        let Some(mut session) = session(port, login).await? else {
            return Ok(false);
        };
        let query = "SELECT concat_ws('|', current_user, current_setting('statement_timeout'))";
        let row = sqlx::raw_sql(query).fetch_one(&mut session).await.unwrap();
        assert_eq!(row.try_get::<String, _>(0).unwrap(), "amas_app|30s");
        Ok::<_, String>(session.close().await.is_ok())
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
    twice(&owner, &engine, move |login| {
        let tables = tables.clone();
        async move {
            let user = login.user.clone();
            let Some(mut session) = session(port, login).await? else {
                return Ok(false);
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
            Ok::<_, String>(session.close().await.is_ok())
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

async fn opens_redis(port: u16, login: Login) -> Answer {
    match connect(port, &login.password).await {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == redis::ErrorKind::AuthenticationFailed => Ok(false),
        Err(error) if error.code() == Some("WRONGPASS") => Ok(false),
        Err(error) => Err(error.to_string()),
    }
}

async fn redis_rotation(program: Program) {
    let server = RedisServer::start(program, "").await;
    let (port, endpoint) = (server.port, server.endpoint());
    let secret = Secret::new(Purpose::Redis, endpoint.password.reveal());
    let engine = redis_engine(endpoint);
    let open = move |login| opens_redis(port, login);
    settle(&secret, &engine).await;
    twice(&secret, &engine, open).await;
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
    assert!(!works(&open, &secret.login()).await, "only the old one is known");
    settle(&secret, &engine).await;
    assert!(
        works(&open, &secret.login()).await,
        "the operator lets the new one in again"
    );
    agrees_with_its_file(&secret, port).await;
}

/// Just now, with everything in that was wanted before.
fn asked(value: &str) -> Moment {
    Moment {
        now: jiff::Timestamp::now(),
        is_in: true,
        every: None,
        calendar: None,
        overlap: OVERLAP,
        created: jiff::Timestamp::now(),
        request: Some(Request::Rotate(value.into())),
    }
}

async fn connect(port: u16, password: &str) -> redis::RedisResult<redis::aio::MultiplexedConnection> {
    let settings = redis::RedisConnectionInfo::default().set_password(password);
    let address = redis::ConnectionAddr::Tcp("127.0.0.1".into(), port);
    let info = redis::IntoConnectionInfo::into_connection_info(address).unwrap();
    let client = redis::Client::open(info.set_redis_settings(settings)).unwrap();
    let long = Some(Duration::from_secs(30));
    let config = redis::AsyncConnectionConfig::new()
        .set_connection_timeout(long)
        .set_response_timeout(long);
    client.get_multiplexed_async_connection_with_config(&config).await
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

async fn opens_neo4j(endpoint: Endpoint, Login { user, password }: Login) -> Answer {
    let endpoint = Endpoint {
        user,
        password: Sensitive::new(password),
        ..endpoint
    };
    match <Neo4j as Store>::open(&base(endpoint)).await {
        Ok(_) => Ok(true),
        Err(error) if error.is_refused_login() => Ok(false),
        Err(error) => Err(error.to_string()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_user_of_neo4j() {
    let Some(mut server) = Neo4jServer::start().await else {
        return;
    };
    let endpoint = server.endpoint();
    let secret = Secret::new(graph(), endpoint.password.reveal());
    let engine = neo4j_engine(secret.spec.clone(), endpoint.clone());
    settle(&secret, &engine).await;
    let open = move |login| opens_neo4j(endpoint.clone(), login);
    twice(&secret, &engine, open.clone()).await;

    // In the middle of a third, the server starts again: what is in its volume counts, not the file it began with.
    let both = next(&secret.spec, &secret.state(), &asked("three")).unwrap();
    secret.put(&both);
    settle(&secret, &engine).await;
    let published = next(&secret.spec, &both, &asked("three")).unwrap();
    secret.put(&published);
    let old = secret.state().rotation.previous.unwrap();
    server.restart().await;
    settle(&secret, &engine).await;
    assert!(works(&open, &secret.login()).await, "the new one");
    let before = Login {
        user: "neo4j".into(),
        password: old.reveal().to_owned(),
    };
    assert!(works(&open, &before).await, "the old one, in the overlap");
    let files = server.texts();
    assert!(files.len() > 1000, "the server writes logs");
    let all = secret.passwords.lock().unwrap().clone();
    assert!(all.len() >= 4 && all.iter().all(|password| !files.contains(password)));
}
