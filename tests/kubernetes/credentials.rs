//! Passwords over the life of an object, through the operator's program and real servers: replaced by the operator without locking out an
//! application that reloads, and replaced by somebody else behind its back.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use amas_operator::{
    api::sensitive::Sensitive,
    stores::{
        endpoint::{Endpoint, Tls},
        keeper::Store,
        neo4j::Neo4j,
    },
};
use serde_json::{Value, json};
use sqlx::{ConnectOptions, postgres::PgConnectOptions};
use tokio::task::JoinSet;

use crate::{
    by_hand,
    jobs::name_of,
    lifecycle::{database, external, redis},
    support::{
        job::{self, Pod},
        kubernetes::{Kubernetes, Namespace, PATIENCE, condition_of},
        managed::{Node, entries},
        neo4j::{self, Neo4jServer, base},
        operator::Operator,
        postmaster::Postmaster,
        process::eventually,
        redis::PASSWORD,
        relay::Relay,
    },
};

/// How long the recovery from a password that somebody else has changed may take.
const RECOVERY: Duration = Duration::from_secs(5);
/// For this long both passwords are valid here; an application has half of it to reload.
const OVERLAP: Duration = Duration::from_secs(6);
/// How often each application logs in during a rotation, at least.
const LOGINS: usize = 20;

/// The extension that counts statements, and its view.
const STATEMENTS: &str = "pg_stat_statements";
const FILES: [(&str, &str); 1] = [("0001_a.sql", "CREATE TABLE a (id int);")];
/// What people may read who may not read Secrets.
const READABLE: [&str; 10] = [
    "AmasDatabase",
    "StatefulSet",
    "Job",
    "ConfigMap",
    "Service",
    "ServiceAccount",
    "NetworkPolicy",
    "PodDisruptionBudget",
    "PersistentVolumeClaim",
    "Event",
];

type Entries = BTreeMap<String, String>;

/// What became of a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Login {
    Accepted,
    /// The server said so.
    Refused,
    /// Nobody answered in time, or the connection broke: that says nothing of the password.
    Lost,
}

async fn postgres_login(secret: &Entries, host: &str) -> Login {
    let database = secret.get("PGDATABASE").map_or("postgres", String::as_str);
    let options = PgConnectOptions::new_without_pgpass()
        .host(host)
        .username(secret.get("PGUSER").map_or("postgres", String::as_str))
        .password(&secret["PGPASSWORD"])
        .database(database);
    match options.connect().await {
        Ok(_) => Login::Accepted,
        Err(sqlx::Error::Database(_)) => Login::Refused,
        Err(_) => Login::Lost,
    }
}

async fn redis_login(secret: &Entries, host: &str) -> Login {
    let settings = ::redis::RedisConnectionInfo::default().set_password(secret["REDIS_PASSWORD"].clone());
    let info = ::redis::IntoConnectionInfo::into_connection_info((host, 6379)).unwrap();
    let client = ::redis::Client::open(info.set_redis_settings(settings)).unwrap();
    match client.get_multiplexed_async_connection().await {
        Ok(_) => Login::Accepted,
        Err(error) if matches!(error.kind(), ::redis::ErrorKind::AuthenticationFailed) || error.code().is_some() => {
            Login::Refused
        }
        Err(_) => Login::Lost,
    }
}

async fn neo4j_login(secret: &Entries, host: &str) -> Login {
    let endpoint = Endpoint {
        host: host.to_owned(),
        port: 7687,
        tls: Tls::Disable,
        user: secret["NEO4J_USER"].clone(),
        password: Sensitive::new(secret["NEO4J_PASSWORD"].clone()),
    };
    match <Neo4j as Store>::open(&base(endpoint)).await {
        Ok(_) => Login::Accepted,
        Err(error) if error.is_refused_login() => Login::Refused,
        Err(_) => Login::Lost,
    }
}

async fn login(store: &str, secret: &Entries, host: &str) -> Login {
    match store {
        "redis-connection" => redis_login(secret, host).await,
        "neo4j-connection" => neo4j_login(secret, host).await,
        _ => postgres_login(secret, host).await,
    }
}

pub async fn opens(store: &str, secret: &Entries, host: &str) -> bool {
    login(store, secret, host).await == Login::Accepted
}

/// How many logins of an application were answered, and how many were refused though they had to be accepted.
#[derive(Default)]
struct Count {
    logins: AtomicUsize,
    refused: AtomicUsize,
}

/// An application that takes up a changed Secret after half of the overlap, and logs in all the time.
async fn application(ns: Namespace, store: &'static str, host: String, count: Arc<Count>) {
    let read = || async { entries(&ns.get("Secret", &format!("a-{store}")).await.unwrap()) };
    // When what it holds was certainly still what is published.
    let mut fresh = Instant::now();
    let mut held = read().await;
    let mut changed: Option<Instant> = None;
    loop {
        if changed.is_none() {
            let asked = Instant::now();
            if read().await == held {
                fresh = asked;
            } else {
                changed = Some(Instant::now());
            }
        }
        if changed.is_some_and(|since| since.elapsed() > OVERLAP / 2) {
            (fresh, changed) = (Instant::now(), None);
            held = read().await;
        }
        let outcome = login(store, &held, &host).await;
        // One that a busy machine held up until the overlap was over is refused rightly.
        let is_wrong = outcome == Login::Refused && fresh.elapsed() < OVERLAP;
        count
            .logins
            .fetch_add(usize::from(outcome != Login::Lost), Ordering::Relaxed);
        count.refused.fetch_add(usize::from(is_wrong), Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
}

fn ready_since(object: &Value) -> (Value, Value) {
    let ready = condition_of(object, "Ready").cloned().unwrap_or_default();
    (ready["status"].clone(), ready["lastTransitionTime"].clone())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_that_reloads_is_never_locked_out_by_a_rotation() {
    let api = Kubernetes::shared().await;
    let ns = api.namespace("rotation").await;
    let mut node = Node::new(&ns, "a");
    let operator = node.operator(&[("AMAS_LOG", "debug")]);
    let managed = json!({"managed": {"storage": {"size": "1Gi"}}});
    let mut spec = json!({"postgres": managed, "redis": managed, "credentials": {"rotation": {"overlap": "6s"}}});
    spec["postgres"]["database"] = json!("amas");
    spec["postgres"]["roles"] = json!([{"name": "app", "access": "ReadWrite"}]);
    spec["postgres"]["extensions"] = json!([STATEMENTS]);
    spec["migrations"] = json!({"source": {"configMaps": ["files"]}});
    spec["disruption"] = json!("Block");
    let mut stores = vec!["postgres", "redis"];
    let mut secrets = vec!["role-app", "redis-connection"];
    if neo4j::jars().is_some() {
        spec["neo4j"] = managed;
        stores.push("neo4j");
        secrets.push("neo4j-connection");
    }
    ns.config_map("files", &FILES).await;
    ns.apply(database("a", spec)).await;
    node.run(&stores).await;
    let job_log = migrate(&node).await;
    let ready = ready_since(&ns.wait_condition("AmasDatabase", "a", "Ready", "True").await);

    let first: Vec<Entries> = futures::future::join_all(secrets.iter().map(|store| node.secret(store))).await;
    let mut passwords = passwords_of_all(&ns).await;
    let mut applications = JoinSet::new();
    let counts: Vec<_> = secrets
        .iter()
        .map(|store| (*store, Arc::new(Count::default())))
        .collect();
    for (store, count) in &counts {
        applications.spawn(application(ns.clone(), store, node.address.clone(), count.clone()));
    }
    ns.annotate("a", "amas.dev/rotate-credentials", "once").await;
    let over = |object: &Value| {
        let all = object.pointer("/status/credentials").and_then(Value::as_array).cloned();
        let all = all.unwrap_or_default();
        let ended =
            |one: &Value| one["rotations"] == 1 && one["previousValidUntil"].is_null() && one["preparing"].is_null();
        all.len() >= secrets.len() + 2 && all.iter().all(ended)
    };
    let rotated = ns.wait("AmasDatabase", "a", "rotated", over).await;
    let all_refused = || async {
        let tries = secrets
            .iter()
            .zip(&first)
            .map(|(store, old)| login(store, old, &node.address));
        let outcomes = futures::future::join_all(tries).await;
        outcomes.iter().all(|outcome| *outcome == Login::Refused)
    };
    eventually("the first passwords are over", PATIENCE, all_refused).await;
    let logins = |count: &Count| count.logins.load(Ordering::Relaxed);
    eventually("every application has logged in often", PATIENCE, || async {
        counts.iter().all(|(_, count)| logins(count) > LOGINS)
    })
    .await;
    drop(applications);
    assert_eq!(ready_since(&rotated), ready, "Ready the whole time");
    let before = passwords.len();
    passwords.append(&mut passwords_of_all(&ns).await);
    // Those of the superuser and the owner beside the applications'.
    assert_eq!((before, passwords.len()), (secrets.len() + 2, 2 * secrets.len() + 4));
    seen_nowhere(&node, &operator, job_log, &passwords).await;
    for (store, count) in counts {
        let (logins, refused) = (logins(&count), count.refused.load(Ordering::Relaxed));
        println!("{store}: {logins} logins during a rotation, {refused} refused");
        assert_eq!(refused, 0, "{store}: {refused} of {logins} logins were refused");
        eventually(&format!("{store} opens"), PATIENCE, || async {
            opens(store, &node.secret(store).await, &node.address).await
        })
        .await;
    }
}

/// Runs the migrations; what their Job said.
async fn migrate(node: &Node) -> String {
    let job = by_hand::job(&node.ns, "").await;
    let pod = Pod::new(&node.ns, &job, &FILES).await.knowing(&node.hosts());
    let (code, log) = pod.run().await;
    assert_eq!(code, Some(0), "{log}");
    // Read before the Job is known to have ended: there is no second one.
    by_hand::at_version(&node.ns, 1).await;
    job::complete(&node.ns, name_of(&job)).await;
    log
}

/// The passwords in every Secret of ours.
async fn passwords_of_all(ns: &Namespace) -> BTreeSet<String> {
    let all = ns.list("Secret").await.into_iter();
    let ours = all.filter(|secret| secret["metadata"]["labels"]["amas.dev/database"] == "a");
    let words = ours.flat_map(|secret| entries(&secret));
    words
        .filter(|(key, value)| key.to_lowercase().ends_with("password") && !value.is_empty())
        .map(|(_, password)| password)
        .collect()
}

/// Every statement that the server has counted since its start.
async fn counted(node: &Node) -> String {
    let admin = PgConnectOptions::new_without_pgpass()
        .host(&node.address)
        .username("postgres")
        .password(&node.secret("postgres-admin").await["PGPASSWORD"])
        .database("amas");
    let mut admin = admin.connect().await.unwrap();
    let dropped: i64 = sqlx::query_scalar("SELECT dealloc FROM pg_stat_statements_info")
        .fetch_one(&mut admin)
        .await
        .unwrap();
    assert_eq!(dropped, 0, "all are there");
    let all: Vec<String> = sqlx::query_scalar("SELECT query FROM pg_stat_statements")
        .fetch_all(&mut admin)
        .await
        .unwrap();
    let all = all.join("\n");
    for first in ["CREATE DATABASE", "SCRAM-SHA-256$"] {
        assert!(all.contains(first), "counted from the first statement on: {first}");
    }
    all
}

/// Looks for passwords in what the operator, the servers and Jobs say, and in what everybody may read.
async fn seen_nowhere(node: &Node, operator: &Operator, job_log: String, passwords: &BTreeSet<String>) {
    let mut places = vec![
        ("operator", operator.log()),
        ("Job's log", job_log),
        (STATEMENTS, counted(node).await),
    ];
    places.extend(node.redis.iter().map(|server| ("Redis", server.log())));
    places.extend(
        node.postgres
            .iter()
            .map(|server| ("PostgreSQL, every statement", server.log())),
    );
    places.extend(
        node.neo4j
            .iter()
            .map(|server| ("Neo4j, logs and volume", server.texts())),
    );
    for kind in READABLE {
        let all: Vec<String> = node.ns.list(kind).await.iter().map(Value::to_string).collect();
        places.push((kind, all.concat()));
    }
    for (place, text) in places {
        assert!(text.len() > 100, "{place} says something");
        let found = passwords.iter().filter(|password| text.contains(*password)).count();
        assert_eq!(found, 0, "{place} has passwords");
    }
    println!("{} passwords in none of the places", passwords.len());
}

/// Waits until a login of the operator has gone through since `begun`; how long that took.
async fn recovered(relay: &Relay, begun: Instant, store: &str) -> Duration {
    const ACCEPTED: Duration = Duration::from_millis(500);
    eventually(&format!("{store} is recovered"), PATIENCE, || async {
        relay.lasting(ACCEPTED).is_some()
    })
    .await;
    let took = relay
        .lasting(ACCEPTED)
        .unwrap_or(begun)
        .saturating_duration_since(begun);
    println!(
        "{store}: a password changed on the server and in the Secret was taken up {took:?} after the first refused login"
    );
    took
}

/// Waits until applications are told the password that somebody else has set; how long that took. An owner's own login is not published.
async fn published(ns: &Namespace, (object, store): (&str, &str), password: &str, begun: Instant) -> Duration {
    if store == "owner" {
        return Duration::ZERO;
    }
    let secret = format!("{object}-{store}-connection");
    let told = |secret: &Value| {
        let mut all = entries(secret).into_iter();
        all.any(|(key, value)| key.ends_with("_PASSWORD") && value == password)
    };
    ns.wait("Secret", &secret, "published", told).await;
    let took = begun.elapsed();
    println!("{store}: Secret {secret} had the new password {took:?} after it was changed");
    took
}

/// Changes a password until the recovery takes no longer than it may. On a busy machine the operator may try once too early, and its next try comes
/// as late by itself as a recovery may be.
async fn in_time(what: &str, passwords: [&'static str; 3], change: impl AsyncFn(&'static str) -> Duration) {
    let mut fastest = Duration::MAX;
    for password in passwords {
        fastest = fastest.min(change(password).await);
        if fastest < RECOVERY {
            return;
        }
    }
    panic!("{what}: recovered after {fastest:?} at best");
}

/// An external store, the way to it, and how its password is changed by somebody else.
async fn outside(
    ns: &Namespace,
    (object, store): (&str, &str),
    relay: &Relay,
    change: impl AsyncFn(&'static str) -> String,
) {
    let followed = async |password: &'static str| {
        let begun = Instant::now();
        let (recovered, published) = tokio::join!(
            recovered(relay, begun, store),
            published(ns, (object, store), password, begun)
        );
        recovered.max(published)
    };
    // Server and Secret, then a connection ends.
    in_time(
        store,
        ["changed once", "changed twice", "changed thrice"],
        async |password| {
            let ready = ready_since(&ns.wait_condition("AmasDatabase", object, "Ready", "True").await);
            let uri = change(password).await;
            ns.secret(store, &[("uri", &uri)]).await;
            relay.cut();
            let took = followed(password).await;
            let now = ready_since(&ns.wait_condition("AmasDatabase", object, "Ready", "True").await);
            assert!(took >= RECOVERY || now == ready, "{store}: Ready the whole time");
            took
        },
    )
    .await;
    // The Secret follows when the operator was already refused.
    in_time(store, ["late once", "late twice", "late thrice"], async |password| {
        let uri = change(password).await;
        relay.cut();
        tokio::time::sleep(Duration::from_millis(1500)).await;
        ns.secret(store, &[("uri", &uri)]).await;
        let took = followed(password).await;
        ns.wait_condition("AmasDatabase", object, "Ready", "True").await;
        took
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_changed_on_redis_and_in_the_secret_is_taken_up() {
    let api = Kubernetes::shared().await;
    let ns = api.namespace("outside").await;
    let server = redis(&ns).await;
    let relay = Relay::to(server.port).await;
    let uri = |password: &str| {
        format!(
            "redis://default:{}@127.0.0.1:{}",
            password.replace(' ', "%20"),
            relay.port
        )
    };
    ns.secret("redis", &[("uri", &uri(PASSWORD))]).await;
    let _operator = ns.operator(&[]).await;
    ns.apply(database("a", json!({"redis": {"external": external("redis")}})))
        .await;
    let client = std::sync::Mutex::new(server.client());
    outside(&ns, ("a", "redis"), &relay, async |password| {
        let rules = ["SETUSER", "default", "resetpass", &format!(">{password}")];
        ::redis::cmd("ACL")
            .arg(&rules)
            .exec(&mut *client.lock().unwrap())
            .unwrap();
        uri(password)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_changed_on_neo4j_and_in_the_secret_is_taken_up() {
    let Some(server) = Neo4jServer::start().await else {
        return;
    };
    let api = Kubernetes::shared().await;
    let ns = api.namespace("outside").await;
    let relay = Relay::to(server.port).await;
    let uri = |password: &str| format!("bolt://neo4j:{}@127.0.0.1:{}", password.replace(' ', "%20"), relay.port);
    ns.secret("neo4j", &[("uri", &uri(neo4j::PASSWORD))]).await;
    let _operator = ns.operator(&[]).await;
    ns.apply(database("a", json!({"neo4j": {"external": external("neo4j")}})))
        .await;
    let address = format!("bolt://127.0.0.1:{}", server.port);
    let graph = neo4rs::Graph::new(address, "neo4j", neo4j::PASSWORD).unwrap();
    outside(&ns, ("a", "neo4j"), &relay, async |password| {
        let change = "ALTER USER neo4j SET PLAINTEXT PASSWORD $password CHANGE NOT REQUIRED";
        let query = neo4rs::query(change).param("password", password);
        graph.run_on("system", query).await.unwrap();
        uri(password)
    })
    .await;
}

async fn alter(server: &Postmaster, role: &str, password: &str) {
    let admin = PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(server.port)
        .username("postgres")
        .password(&server.password)
        .database("postgres");
    let mut admin = admin.connect().await.unwrap();
    let statement = format!("ALTER ROLE {role} SUPERUSER LOGIN PASSWORD '{password}'");
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement))
        .execute(&mut admin)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_changed_on_postgres_and_in_the_secret_is_taken_up() {
    let api = Kubernetes::shared().await;
    let ns = api.namespace("outside").await;
    let server = Postmaster::start().await;
    let admin = PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(server.port)
        .username("postgres")
        .password(&server.password);
    let mut admin = admin.database("postgres").connect().await.unwrap();
    for statement in [
        "CREATE ROLE owned LOGIN",
        "CREATE DATABASE owned OWNER owned",
        "CREATE ROLE dba",
    ] {
        sqlx::raw_sql(statement).execute(&mut admin).await.unwrap();
    }
    let relay = Relay::to(server.port).await;
    let uri = |user: &str, database: &str, password: &str| {
        format!(
            "postgresql://{user}:{}@127.0.0.1:{}/{database}",
            password.replace(' ', "%20"),
            relay.port
        )
    };
    // As the owner, who also holds the sentinel's connection.
    alter(&server, "owned", "first").await;
    alter(&server, "dba", "first").await;
    ns.secret("owner", &[("uri", &uri("owned", "owned", "first"))]).await;
    ns.secret("dba", &[("uri", &uri("dba", "postgres", "first"))]).await;
    let _operator = ns.operator(&[]).await;
    let mut owner = external("owner");
    owner["privileges"] = json!("Owner");
    ns.apply(database(
        "a",
        json!({"postgres": {"database": "owned", "owner": "owned", "external": owner}}),
    ))
    .await;
    outside(&ns, ("a", "owner"), &relay, async |password| {
        alter(&server, "owned", password).await;
        uri("owned", "owned", password)
    })
    .await;
    ns.delete("AmasDatabase", "a").await;

    // As an administrator, whose login is needed only when there is something to do.
    let roles = json!([{"name": "app", "access": "ReadWrite"}]);
    let sql = json!({"database": "made", "roles": roles, "external": external("dba")});
    let rotation = json!({"rotation": {"overlap": "1s"}});
    ns.apply(database("b", json!({"postgres": sql, "credentials": rotation})))
        .await;
    in_time("administrator", ["1", "2", "3"], async |turn| {
        let ready = ready_since(&ns.wait_condition("AmasDatabase", "b", "Ready", "True").await);
        let before = entries(&ns.get("Secret", "b-role-app").await.unwrap());
        let twin = if before["PGUSER"] == "app" { "app_twin" } else { "app" };
        alter(&server, "dba", turn).await;
        ns.secret("dba", &[("uri", &uri("dba", "postgres", turn))]).await;
        let begun = Instant::now();
        ns.annotate("b", "amas.dev/rotate-credentials", &format!("app/{turn}"))
            .await;
        let published = |secret: &Value| entries(secret)["PGUSER"] == twin;
        ns.wait("Secret", "b-role-app", "published anew", published).await;
        let took = begun.elapsed();
        println!(
            "administrator: a rotation with a password that was changed on the server and in the Secret took {took:?}"
        );
        // Another rotation would wait for the end of this one.
        let over = |object: &Value| {
            let all = object["status"]["credentials"].as_array();
            all.is_some_and(|all| {
                all.iter().any(|one| {
                    one["name"] == "app"
                        && one["rotations"].as_u64() == turn.parse().ok()
                        && one["previousValidUntil"].is_null()
                })
            })
        };
        let object = ns.wait("AmasDatabase", "b", "rotated", over).await;
        assert!(
            took >= RECOVERY || ready_since(&object) == ready,
            "Ready the whole time"
        );
        took
    })
    .await;
}
