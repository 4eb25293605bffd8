//! Servers of somebody else through the operator: what their logins may not do stands in the status, those that are watched on demand are left
//! alone, a pooler in the way is told, and the mere owner of a database gets what it may have.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::{
    AssertSqlSafe, ConnectOptions, PgConnection,
    postgres::{PgConnectOptions, PgSslMode},
};

use crate::{
    deletion::reason,
    encryption::entry,
    lifecycle::{database, external},
    support::{
        kubernetes::{Kubernetes, Namespace, PATIENCE, condition_of},
        neo4j::{self, Neo4jServer},
        pgbouncer::PgBouncer,
        postmaster::Postmaster,
        process::{connections, eventually},
        redis::{Program, RedisServer},
    },
};

/// For this long nobody may log in to a server that is left alone.
const IDLE: Duration = Duration::from_secs(3);
/// Until then what was begun may still be looked at: a status that waits to be written, and the look that follows from it.
const SETTLED: Duration = Duration::from_secs(40);

fn login(server: &Postmaster, user: &str, password: &str, database: &str) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(server.port)
        .username(user)
        .password(password)
        .database(database)
}

async fn administrator(server: &Postmaster) -> PgConnection {
    let login = login(server, "postgres", &server.password, "postgres");
    login.connect().await.unwrap()
}

async fn run(connection: &mut PgConnection, statements: &[&str]) {
    for statement in statements {
        let statement = AssertSqlSafe(statement.to_string());
        sqlx::raw_sql(statement).execute(&mut *connection).await.unwrap();
    }
}

fn uri(user: &str, password: &str, port: u16, database: &str) -> String {
    format!("postgresql://{user}:{password}@127.0.0.1:{port}/{database}")
}

/// The names of what a store's login may not do, each with what follows from it.
fn limits(object: &Value, store: &str) -> Vec<String> {
    let all = object["status"]["stores"][store]["limits"].as_array();
    let name = |limit: &Value| {
        assert!(limit["consequence"].as_str().unwrap().len() > 20, "{limit}");
        limit["name"].as_str().unwrap().to_owned()
    };
    all.into_iter().flatten().map(name).collect()
}

/// The servers of one object.
struct Servers {
    postgres: Postmaster,
    redis: RedisServer,
    neo4j: Option<Neo4jServer>,
}

impl Servers {
    async fn start(ns: &Namespace) -> Self {
        let servers = Self {
            postgres: Postmaster::start().await,
            // A provider's usual rights.
            redis: RedisServer::start(Program::Redis, "user tenant on >pw ~* &* +@all -config\n").await,
            neo4j: Neo4jServer::start().await,
        };
        let Self { postgres, redis, .. } = &servers;
        let sql = uri("postgres", &postgres.password, postgres.port, "postgres");
        ns.secret("postgres", &[("uri", &sql)]).await;
        let cache = format!("redis://tenant:pw@127.0.0.1:{}", redis.port);
        ns.secret("redis", &[("uri", &cache)]).await;
        if let Some(server) = &servers.neo4j {
            let password = neo4j::PASSWORD.replace(' ', "%20");
            let graph = format!("bolt://neo4j:{password}@127.0.0.1:{}", server.port);
            ns.secret("neo4j", &[("uri", &graph)]).await;
        }
        servers
    }

    fn ports(&self) -> Vec<u16> {
        let graph = self.neo4j.iter().map(|server| server.port);
        [self.postgres.port, self.redis.port].into_iter().chain(graph).collect()
    }

    /// Everything on them, watched like this.
    fn object(&self, health: Value) -> Value {
        let external = |secret: &str| {
            let mut external = external(secret);
            external["health"] = health.clone();
            external
        };
        let roles = json!([{"name": "app", "access": "ReadWrite"}]);
        let sql = json!({"database": "made", "roles": roles, "external": external("postgres")});
        let mut spec = json!({"postgres": sql, "redis": {"external": external("redis")}});
        if self.neo4j.is_some() {
            spec["neo4j"] = json!({"external": external("neo4j")});
        }
        database("a", spec)
    }

    /// Connections that are open, by the servers' own word where they give it: of PostgreSQL, of Redis, of Neo4j.
    async fn held(&self, admin: &mut PgConnection, client: &mut ::redis::Connection) -> [usize; 3] {
        let query =
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
        let of_postgres: i64 = sqlx::query_scalar(query).fetch_one(&mut *admin).await.unwrap();
        let list: String = ::redis::cmd("CLIENT").arg("LIST").query(client).unwrap();
        let of_neo4j = self.neo4j.as_ref().map_or(0, |server| connections(server.port));
        [
            usize::try_from(of_postgres).unwrap(),
            list.lines().count() - 1,
            of_neo4j,
        ]
    }

    /// How often somebody has logged in to the two that tell.
    fn logins(&self) -> (usize, String) {
        let received = self.postgres.log().matches("connection received").count();
        (received, self.redis.info("stats", "total_connections_received"))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_logins_may_not_do_is_shown_and_servers_watched_on_demand_are_left_alone() {
    let api = Kubernetes::shared().await;
    let ns = api.namespace("limits").await;
    let servers = Servers::start(&ns).await;
    let _operator = ns.operator(&[]).await;
    ns.apply(servers.object(json!({"mode": "Held"}))).await;
    let object = ns.wait_condition("AmasDatabase", "a", "Ready", "True").await;
    assert_eq!(limits(&object, "postgres"), [""; 0], "a superuser may do everything");
    // An old Redis does not know NO-TOUCH either.
    let mut cache = limits(&object, "redis");
    cache.retain(|limit| limit != "NoTouchUnknown");
    assert_eq!(cache, ["NoConfig"]);
    if servers.neo4j.is_some() {
        assert_eq!(limits(&object, "neo4j"), ["NoRoles"]);
    }
    for port in servers.ports() {
        let is_held = async || connections(port) > 0;
        eventually(&format!("a connection is held to {port}"), PATIENCE, is_held).await;
    }

    ns.apply(servers.object(json!({"mode": "OnDemand", "interval": "1h"})))
        .await;
    ns.wait_condition("AmasDatabase", "a", "Ready", "True").await;
    let (mut admin, mut client) = (administrator(&servers.postgres).await, servers.redis.client());
    let mut idle = async || {
        if servers.held(&mut admin, &mut client).await != [0; 3] {
            return false;
        }
        // The question itself is a login to Redis.
        let before = servers.logins();
        tokio::time::sleep(IDLE).await;
        let (received, answered) = servers.logins();
        let asked = |count: &str| count.parse::<u64>().unwrap();
        (received, asked(&answered)) == (before.0, asked(&before.1) + 1)
    };
    let begun = std::time::Instant::now();
    while !idle().await {
        assert!(begun.elapsed() < SETTLED, "still visited after {SETTLED:?}");
    }
    println!(
        "on demand: no connection and no login for {IDLE:?}, {:?} after the change",
        begun.elapsed()
    );
    let object = ns.wait_condition("AmasDatabase", "a", "Ready", "True").await;
    assert!(!limits(&object, "redis").is_empty(), "what is known stays");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_in_the_way_is_told_until_the_server_itself_is_named() {
    let api = Kubernetes::shared().await;
    let ns = api.namespace("pooled").await;
    let server = Postmaster::start().await;
    let users = [("postgres", server.password.as_str())];
    let Some(pooler) = PgBouncer::start(server.port, &users, "transaction", "").await else {
        return;
    };
    let pooled = uri("postgres", &server.password, pooler.port, "postgres");
    ns.secret("postgres", &[("uri", &pooled)]).await;
    let _operator = ns.operator(&[]).await;
    ns.apply(database(
        "a",
        json!({"postgres": {"database": "made", "external": external("postgres")}}),
    ))
    .await;
    let told = |object: &Value| reason(object) == "PooledConnection";
    let object = ns.wait("AmasDatabase", "a", "PooledConnection", told).await;
    for (condition, status) in [("PostgresReady", "False"), ("Stalled", "True")] {
        let found = condition_of(&object, condition).unwrap();
        assert_eq!(
            (&found["status"], &found["reason"]),
            (&json!(status), &json!("PooledConnection"))
        );
        assert!(found["message"].as_str().unwrap().contains("directUri"), "{found}");
    }
    assert!(!server.log().contains("CREATE "), "nothing was made");

    let direct = uri("postgres", &server.password, server.port, "postgres");
    ns.secret("postgres", &[("uri", &pooled), ("directUri", &direct)]).await;
    ns.wait_condition("AmasDatabase", "a", "Ready", "True").await;
    // Migrations go past the pooler.
    let owner = ns.get("Secret", "a-role-made-owner").await.unwrap();
    assert_eq!(entry(&owner, "PGPORT"), server.port.to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_mere_owner_of_a_database_gives_rights_to_roles_that_are_there() {
    let api = Kubernetes::shared().await;
    let ns = api.namespace("owned").await;
    let server = Postmaster::start().await;
    let mut admin = administrator(&server).await;
    run(
        &mut admin,
        &[
            "CREATE ROLE tenant LOGIN PASSWORD 'pw'",
            "CREATE ROLE writes LOGIN PASSWORD 'brought'",
            "CREATE DATABASE mine OWNER tenant",
        ],
    )
    .await;
    let mut tenant = login(&server, "tenant", "pw", "mine").connect().await.unwrap();
    run(&mut tenant, &["CREATE TABLE things (id int)"]).await;
    let before = server.log().len();
    ns.secret("tenant", &[("uri", &uri("tenant", "pw", server.port, "mine"))])
        .await;
    ns.secret("writes", &[("password", "brought")]).await;
    let _operator = ns.operator(&[]).await;
    let object = |roles: &[&str]| {
        let role = |name: &&str| json!({"name": name, "access": "ReadWrite", "secretRef": {"name": "writes"}});
        let roles: Vec<Value> = roles.iter().map(role).collect();
        let mut external = external("tenant");
        external["privileges"] = json!("Owner");
        database(
            "a",
            json!({"postgres": {"database": "mine", "owner": "tenant", "roles": roles, "external": external}}),
        )
    };
    ns.apply(object(&["writes"])).await;
    let ready = ns.wait_condition("AmasDatabase", "a", "Ready", "True").await;
    let found = limits(&ready, "postgres");
    for limit in ["NoSuperuser", "NoCreateRole", "OtherRoleLimits"] {
        assert!(found.iter().any(|found| found == limit), "{limit}: {found:?}");
    }
    let secret = ns.get("Secret", "a-role-writes").await.unwrap();
    let login: PgConnectOptions = entry(&secret, "DATABASE_URL").parse().unwrap();
    let mut writer = login.ssl_mode(PgSslMode::Disable).connect().await.unwrap();
    run(&mut writer, &["INSERT INTO things VALUES (1)"]).await;
    assert!(
        ns.get("Secret", "a-role-tenant").await.is_none(),
        "the owner's is the user's own"
    );

    // One that is not there is an administrator's to make, and taken up then.
    ns.apply(object(&["writes", "later"])).await;
    let told = |object: &Value| {
        let message = condition_of(object, "Ready").map(|ready| ready["message"].to_string());
        reason(object) == "Refused" && message.is_some_and(|text| text.contains("CREATE ROLE \\\"later\\\" LOGIN"))
    };
    ns.wait("AmasDatabase", "a", "what is to be run is told", told).await;
    let log = server.log();
    for never in ["CREATE ROLE \"", "ALTER ROLE \"writes\" PASSWORD", "COMMENT ON ROLE"] {
        assert!(!log[before..].contains(never), "{never}");
    }
    run(&mut admin, &["CREATE ROLE later LOGIN PASSWORD 'brought'"]).await;
    ns.wait_condition("AmasDatabase", "a", "Ready", "True").await;
}
