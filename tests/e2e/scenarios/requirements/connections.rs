//! Connection values in the Secrets, which stores are required, and what status and metrics say of the stores.

use amas_operator::api::amas_database::AmasDatabase;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::book::Book;
use crate::{
    cluster::{
        clients::{Values, role_secret},
        objects::api,
        operator,
        platform::{Platform, WRITER},
    },
    harness::{About, Result, context::Ctx},
};

pub async fn run(ctx: &Ctx, platform: &Platform, namespace: &str, book: &mut Book) -> Result {
    let name = platform.name();
    let sql = Values::read(&ctx.client, namespace, &role_secret(&name, WRITER)).await?;
    let cache = Values::read(&ctx.client, namespace, &format!("{name}-redis-connection")).await?;
    let graph = Values::read(&ctx.client, namespace, &format!("{name}-neo4j-connection")).await?;
    values(&sql, &cache, &graph, namespace, book)?;
    required(platform, book);
    generated(ctx, namespace, [&sql, &cache, &graph], book).await?;
    facts(ctx, platform, namespace, book).await
}

/// The forms that the platform's configuration expects.
fn values(sql: &Values, cache: &Values, graph: &Values, namespace: &str, book: &mut Book) -> Result {
    let password = sql.get("PGPASSWORD")?;
    let url = format!("postgresql://{WRITER}:{password}@amas-postgres.{namespace}.svc:5432/amas");
    let ok = sql.get("DATABASE_URL")? == url && sql.get("PGDATABASE")? == "amas";
    book.check(&["A-PG-01"], "database amas, DATABASE_URL postgresql://<role>:<password>@<host>:5432/amas (the login is amas_app, see A-X-16)", ok, || "another form".into());
    let password = cache.get("REDIS_PASSWORD")?;
    let user = cache.get("REDIS_USERNAME")?;
    let url = format!("redis://{user}:{password}@amas-redis.{namespace}.svc:6379/0");
    book.check(
        &["A-RD-01"],
        "REDIS_URL redis://...@<host>:6379/0: database 0, with a password",
        cache.get("REDIS_URL")? == url,
        || "another form".into(),
    );
    let uri = format!("bolt://amas-neo4j.{namespace}.svc:7687");
    let seen = [
        graph.get("NEO4J_URI")?,
        graph.get("NEO4J_USER")?,
        graph.get("NEO4J_DATABASE")?,
    ];
    book.check(
        &["A-NJ-01"],
        "NEO4J_URI bolt://<host>:7687, NEO4J_USER, NEO4J_PASSWORD; database neo4j",
        seen == [uri.as_str(), "neo4j", "neo4j"],
        || format!("{seen:?}"),
    );
    pools(sql, cache, graph, book);
    Ok(())
}

/// The arguments of the application's pools, beside the connection values.
fn pools(sql: &Values, cache: &Values, graph: &Values, book: &mut Book) {
    let pools = [
        (
            "A-RD-02",
            cache,
            [
                ("REDIS_MAX_CONNECTIONS", "50"),
                ("REDIS_SOCKET_TIMEOUT", "5.0"),
                ("REDIS_SOCKET_CONNECT_TIMEOUT", "5.0"),
            ],
        ),
        (
            "A-RD-02",
            cache,
            [
                ("REDIS_CACHE_MAX_CONNECTIONS", "50"),
                ("REDIS_CACHE_KEY_PREFIX", "amas"),
                ("REDIS_CACHE_DEFAULT_TTL", "300"),
            ],
        ),
        (
            "A-NJ-02",
            graph,
            [
                ("NEO4J_MAX_CONNECTION_LIFETIME", "3600"),
                ("NEO4J_MAX_CONNECTION_POOL_SIZE", "50"),
                ("NEO4J_CONNECTION_ACQUISITION_TIMEOUT", "60"),
            ],
        ),
        (
            "A-PG-05",
            sql,
            [
                ("DATABASE_POOL_MIN_SIZE", "5"),
                ("DATABASE_POOL_MAX_SIZE", "20"),
                ("DATABASE_COMMAND_TIMEOUT", "30.0"),
            ],
        ),
        (
            "A-PG-05",
            sql,
            [
                ("DATABASE_MAX_QUERIES", "50000"),
                ("DATABASE_MAX_INACTIVE_CONNECTION_LIFETIME", "300.0"),
                ("PGPORT", "5432"),
            ],
        ),
    ];
    for (id, secret, wanted) in pools {
        let wrong: Vec<&str> = wanted
            .iter()
            .filter(|(key, value)| secret.get(key).ok() != Some(*value))
            .map(|(key, _)| *key)
            .collect();
        book.check(
            &[id],
            "the pool's settings are published beside the connection values",
            wrong.is_empty(),
            || format!("wrong or missing: {wrong:?}"),
        );
    }
}

fn required(platform: &Platform, book: &mut Book) {
    let spec = &platform.database.spec;
    let required = (
        spec.postgres.as_ref().map(|store| store.required),
        spec.redis.as_ref().map(|store| store.required),
        spec.neo4j.as_ref().map(|store| store.required),
    );
    let how = "PostgreSQL and Redis are required, Neo4j is not; the scenario health shows what their loss does";
    book.check(
        &["A-PG-02", "A-NJ-03"],
        how,
        required == (Some(true), Some(true), Some(false)),
        || format!("{required:?}"),
    );
}

/// Passwords are made, differ, and stand in one Secret a store and role.
async fn generated(ctx: &Ctx, namespace: &str, secrets: [&Values; 3], book: &mut Book) -> Result {
    let mut passwords = Vec::new();
    for (secret, key) in secrets.iter().zip(["PGPASSWORD", "REDIS_PASSWORD", "NEO4J_PASSWORD"]) {
        passwords.push(secret.get(key)?.to_owned());
    }
    let seed = Values::read(&ctx.client, namespace, "amas-seed").await?;
    passwords.push(seed.get("admin_password")?.to_owned());
    let mut distinct = passwords.clone();
    distinct.sort();
    distinct.dedup();
    let long = passwords.iter().all(|password| password.len() >= 32);
    book.check(
        &["A-X-20"],
        "four generated passwords, all different, at least 32 characters",
        distinct.len() == 4 && long,
        || {
            format!(
                "lengths {:?}, {} different",
                passwords.iter().map(String::len).collect::<Vec<_>>(),
                distinct.len()
            )
        },
    );
    let stores = |values: &Values| {
        let has = |prefix: &str| values.iter().any(|(key, _)| key.starts_with(prefix));
        [has("PG"), has("REDIS_"), has("NEO4J_")]
            .into_iter()
            .filter(|has| *has)
            .count()
    };
    let mixed = secrets.iter().filter(|secret| stores(secret) != 1).count();
    book.check(
        &["A-X-21"],
        "one set of connection values, a Secret for each store and role; the policy is about keys under amas: alone",
        mixed == 0,
        || format!("{mixed} Secrets of several stores"),
    );
    Ok(())
}

/// What the operator tells of each store.
async fn facts(ctx: &Ctx, platform: &Platform, namespace: &str, book: &mut Book) -> Result {
    let object = api::<AmasDatabase>(&ctx.client, namespace)
        .get(&platform.name())
        .await?;
    let metrics = metrics(ctx).await?;
    let live = |store: &str, name: &str| {
        let labels = format!(
            "namespace=\"{namespace}\",database=\"{}\",store=\"{store}\"",
            platform.name()
        );
        metrics
            .lines()
            .any(|line| line.starts_with(name) && line.contains(&labels))
    };
    for (id, store, figure) in [
        ("A-OP-01", "postgres", "size_bytes"),
        ("A-OP-03", "redis", "used_memory_bytes"),
        ("A-OP-05", "neo4j", "nodes"),
    ] {
        let fields = &object.data["status"]["stores"][store];
        let mut missing: Vec<&str> = ["version", "endpoint", "startedAt", "asOf"]
            .into_iter()
            .filter(|field| fields[field].is_null())
            .collect();
        missing.extend(
            ["amas_store_up", "amas_store_ping_seconds", "amas_store_figure"]
                .into_iter()
                .filter(|name| !live(store, name)),
        );
        if !metrics
            .lines()
            .any(|line| line.contains(&format!("store=\"{store}\",figure=\"{figure}\"")))
        {
            missing.push(figure);
        }
        book.check(
            &[id],
            "version and start in status; up, latency and figures as metrics",
            missing.is_empty(),
            || format!("missing: {missing:?}"),
        );
    }
    Ok(())
}

/// The operator's metrics page.
async fn metrics(ctx: &Ctx) -> Result<String> {
    let pod = operator::pod(ctx).await?;
    let address = pod
        .status
        .and_then(|status| status.pod_ip)
        .about("the operator's pod has no address")?;
    let mut stream = tokio::net::TcpStream::connect((address, 8080))
        .await
        .about("the operator's metrics")?;
    stream
        .write_all(b"GET /metrics HTTP/1.0\r\nHost: operator\r\n\r\n")
        .await?;
    let mut page = String::new();
    stream.read_to_string(&mut page).await?;
    Ok(page)
}
