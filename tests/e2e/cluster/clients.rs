//! Clients of the stores, opened by the published Secrets exactly as they are written.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use redis::aio::MultiplexedConnection;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

use crate::harness::{About, Result};

/// How long any client waits for a server.
const PATIENCE: Duration = Duration::from_secs(20);

/// The values of a Secret.
#[derive(Clone, Debug)]
pub struct Values {
    name: String,
    values: BTreeMap<String, String>,
}

impl Values {
    pub async fn read(client: &Client, namespace: &str, name: &str) -> Result<Self> {
        let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
        let secret = api.get(name).await.about(format!("Secret {name}"))?;
        Ok(Self::of(name, &secret))
    }

    pub fn of(name: &str, secret: &Secret) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let values = secret
            .data
            .iter()
            .flatten()
            .map(|(key, value)| (key.clone(), text(&value.0)))
            .collect();
        Self {
            name: name.to_owned(),
            values,
        }
    }

    pub fn get(&self, key: &str) -> Result<&str> {
        self.values
            .get(key)
            .map(String::as_str)
            .about(format!("Secret {} has no key {key}", self.name))
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

/// The Secret of a PostgreSQL role.
pub fn role_secret(database: &str, role: &str) -> String {
    format!("{database}-role-{}", role.replace('_', "-"))
}

async fn patiently<T, E>(what: &str, work: impl Future<Output = std::result::Result<T, E>>) -> Result<T>
where
    E: Into<crate::harness::Failure>,
{
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(result) => result.about(what),
        Err(_) => crate::fail!("{what}: no answer within {} s", PATIENCE.as_secs()),
    }
}

/// A PostgreSQL session by its URL.
pub async fn postgres(url: &str) -> Result<PgConnection> {
    patiently("connect to PostgreSQL", PgConnection::connect(url)).await
}

/// Statements without parameters, any number, as psql sends them.
pub async fn sql(connection: &mut PgConnection, text: &str) -> Result {
    sqlx::raw_sql(AssertSqlSafe(text.to_owned()))
        .execute(connection)
        .await
        .about(first_line(text))
        .map(|_| ())
}

/// The first column of the first row, as text.
pub async fn value(connection: &mut PgConnection, text: &str) -> Result<String> {
    let row = sqlx::raw_sql(AssertSqlSafe(text.to_owned()))
        .fetch_one(connection)
        .await
        .about(first_line(text))?;
    Ok(row.try_get_unchecked::<String, _>(0)?)
}

/// The SQLSTATE with which a statement is refused; `None` when it is not.
pub async fn refusal(connection: &mut PgConnection, text: &str) -> Option<String> {
    let outcome = sqlx::raw_sql(AssertSqlSafe(text.to_owned())).execute(connection).await;
    let error = outcome.err()?;
    let code = error
        .as_database_error()
        .and_then(|database| database.code().map(|code| code.into_owned()));
    code.or_else(|| Some(error.to_string()))
}

fn first_line(text: &str) -> &str {
    text.trim().lines().next().unwrap_or_default()
}

/// A Redis connection by its URL.
pub async fn redis(url: &str) -> Result<MultiplexedConnection> {
    let client = redis::Client::open(url)?;
    // Its own patience is half a second, which a machine that starts three servers at once does not keep to.
    let config = redis::AsyncConnectionConfig::new()
        .set_connection_timeout(Some(PATIENCE))
        .set_response_timeout(Some(PATIENCE));
    patiently(
        "connect to Redis",
        client.get_multiplexed_async_connection_with_config(&config),
    )
    .await
}

/// A Neo4j client that has logged in.
pub async fn neo4j(uri: &str, user: &str, password: &str) -> Result<neo4rs::Graph> {
    let graph = neo4rs::Graph::new(uri, user, password)?;
    patiently("log in to Neo4j", run(&graph, neo4rs::query("RETURN 1"))).await?;
    Ok(graph)
}

/// A Cypher statement whose rows do not matter.
pub async fn run(graph: &neo4rs::Graph, query: neo4rs::Query) -> Result {
    // The driver's future is large.
    Box::pin(graph.run(query)).await.map(|_| ()).about("Cypher")
}

/// The rows of a Cypher query whose one column `row` is text.
pub async fn cypher(graph: &neo4rs::Graph, text: &str) -> Result<Vec<String>> {
    let mut stream = Box::pin(graph.execute(neo4rs::query(text)))
        .await
        .about(first_line(text))?;
    let mut rows = Vec::new();
    while let Some(row) = stream.next().await.about(first_line(text))? {
        rows.push(row.get::<String>("row")?);
    }
    Ok(rows)
}

/// Sessions on all three stores of a database, by its Secrets.
pub struct Stores {
    pub postgres: PgConnection,
    pub redis: MultiplexedConnection,
    pub neo4j: neo4rs::Graph,
}

impl Stores {
    /// Opens them; `role` is the PostgreSQL role.
    pub async fn open(client: &Client, namespace: &str, database: &str, role: &str) -> Result<Self> {
        let sql = Values::read(client, namespace, &role_secret(database, role)).await?;
        let cache = Values::read(client, namespace, &format!("{database}-redis-connection")).await?;
        let graph = Values::read(client, namespace, &format!("{database}-neo4j-connection")).await?;
        Ok(Self {
            postgres: postgres(sql.get("DATABASE_URL")?).await?,
            redis: redis(cache.get("REDIS_URL")?).await?,
            neo4j: neo4j(
                graph.get("NEO4J_URI")?,
                graph.get("NEO4J_USER")?,
                graph.get("NEO4J_PASSWORD")?,
            )
            .await?,
        })
    }
}
