//! The servers of a life, the ways to them, and what in them shall be the same at the end of a stage.

use std::sync::Arc;

use amas_operator::stores::redis::CLAIM_KEY;
use neo4rs::{Graph, query};
use serde_json::Value;

use super::life::{Place, Subject};
use crate::support::{
    fault::Plan,
    kubernetes::Namespace,
    neo4j::{self, Neo4jServer},
    postgres::Postgres,
    redis::{PASSWORD, Program, RedisServer},
    store_proxy::{Protocol, StoreProxy},
};

/// What Neo4j's part of an end is read from: a line each.
const GRAPH: [&str; 3] = [
    "SHOW CONSTRAINTS YIELD name, type, labelsOrTypes, properties \
     RETURN 'constraint ' + name + ' ' + type + ' ' + labelsOrTypes[0] + ' ' + properties[0] AS line ORDER BY name",
    "SHOW INDEXES YIELD name, type, state, labelsOrTypes, properties WHERE type <> 'LOOKUP' \
     RETURN 'index ' + name + ' ' + type + ' ' + state + ' ' + labelsOrTypes[0] + ' ' + properties[0] AS line ORDER BY name",
    "MATCH (c:__AmasClaim) RETURN c.record AS line",
];

/// Servers of a life's own, since each has one claim; of PostgreSQL it has a database in the common one.
#[derive(Default)]
pub struct Stores {
    pub redis: Option<RedisServer>,
    neo4j: Option<(Neo4jServer, Graph)>,
    ways: Vec<(Place, StoreProxy)>,
}

impl Stores {
    pub async fn start(subject: Subject, ns: &Namespace, postgres: &Postgres) -> Self {
        let mut stores = Self::default();
        match subject {
            Subject::Managed => {}
            Subject::External => {
                let way = StoreProxy::start(Protocol::Postgres, postgres.port).await;
                let uri = format!("postgres://postgres@127.0.0.1:{}/postgres", way.port);
                stores.leads(ns, Place::Postgres, ("postgres", &uri), way).await;
                stores.start_redis(ns).await;
            }
            Subject::Policies => {
                stores.start_redis(ns).await;
                stores.start_neo4j(ns).await;
            }
        }
        stores
    }

    async fn start_redis(&mut self, ns: &Namespace) {
        let server = RedisServer::start(Program::Redis, "").await;
        let way = StoreProxy::start(Protocol::Redis, server.port).await;
        let uri = format!("redis://default:{}@127.0.0.1:{}", in_uri(PASSWORD), way.port);
        self.leads(ns, Place::Redis, ("redis", &uri), way).await;
        self.redis = Some(server);
    }

    async fn start_neo4j(&mut self, ns: &Namespace) {
        let server = Neo4jServer::start().await.expect("AMAS_NEO4J_LIB is set");
        let way = StoreProxy::start(Protocol::Bolt, server.port).await;
        let uri = format!("bolt://neo4j:{}@127.0.0.1:{}", in_uri(neo4j::PASSWORD), way.port);
        self.leads(ns, Place::Neo4j, ("neo4j", &uri), way).await;
        let graph = Graph::new(format!("127.0.0.1:{}", server.port), "neo4j", neo4j::PASSWORD).unwrap();
        self.neo4j = Some((server, graph));
        // For what it has never been asked a server takes seconds, on a busy machine more than the operator waits: that is not what is tried here.
        self.clear().await;
    }

    /// The Secret of this name leads through the proxy.
    async fn leads(&mut self, ns: &Namespace, place: Place, (secret, uri): (&str, &str), way: StoreProxy) {
        ns.secret(secret, &[("uri", uri)]).await;
        self.ways.push((place, way));
    }

    pub fn plans(&self) -> impl Iterator<Item = (Place, &Arc<Plan>)> {
        self.ways.iter().map(|(place, way)| (*place, &way.plan))
    }

    /// What is in Redis and Neo4j, a line each.
    pub async fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(server) = &self.redis {
            lines.extend(redis_lines(server));
        }
        if let Some((_, graph)) = &self.neo4j {
            for text in GRAPH {
                lines.extend(rows(graph, text).await.into_iter().map(told));
            }
        }
        lines
    }

    /// Takes away what stays behind an object that is gone, and would be found by the next.
    pub async fn clear(&self) {
        if let Some(server) = &self.redis {
            let mut client = server.client();
            for (parameter, value) in [("maxmemory", "0"), ("maxmemory-policy", "noeviction")] {
                let mut set = redis::cmd("CONFIG");
                set.arg("SET").arg(parameter).arg(value);
                set.exec(&mut client).unwrap();
            }
        }
        let Some((_, graph)) = &self.neo4j else { return };
        for (kind, all) in [("CONSTRAINT", "CONSTRAINTS"), ("INDEX", "INDEXES")] {
            let names = format!("SHOW {all} YIELD name, type WHERE type <> 'LOOKUP' RETURN name AS line");
            for name in rows(graph, &names).await {
                run(graph, &format!("DROP {kind} {name}")).await;
            }
        }
        run(graph, "MATCH (c:__AmasClaim) DELETE c").await;
    }
}

fn in_uri(password: &str) -> String {
    password.replace(' ', "%20")
}

fn redis_lines(server: &RedisServer) -> Vec<String> {
    let mut client = server.client();
    let found: Option<String> = redis::cmd("GET").arg(CLAIM_KEY).query(&mut client).unwrap();
    let config = |parameter: &str| {
        let mut get = redis::cmd("CONFIG");
        let found: Vec<String> = get.arg("GET").arg(parameter).query(&mut server.client()).unwrap();
        format!("redis {}", found.join(" "))
    };
    vec![
        format!("redis {}", claim(&found.unwrap_or_default())),
        config("maxmemory"),
        config("maxmemory-policy"),
    ]
}

/// A claim's record has times; any other line stays as it is.
fn told(line: String) -> String {
    match line.starts_with('{') {
        true => format!("neo4j {}", claim(&line)),
        false => line,
    }
}

fn claim(record: &str) -> String {
    let claim: Value = serde_json::from_str(record).unwrap_or_default();
    let released = !claim["released"].is_null();
    format!(
        "claim {} {} {} {released}",
        claim["namespace"], claim["name"], claim["createdByUs"]
    )
}

async fn run(graph: &Graph, text: &str) {
    Box::pin(graph.run(query(text))).await.unwrap();
}

async fn rows(graph: &Graph, text: &str) -> Vec<String> {
    let mut stream = Box::pin(graph.execute(query(text))).await.unwrap();
    let mut lines = Vec::new();
    while let Some(row) = Box::pin(stream.next()).await.unwrap() {
        lines.push(row.get("line").unwrap());
    }
    lines
}
