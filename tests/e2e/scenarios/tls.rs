//! Encrypted managed stores in real pods: keys that the servers may read, clients that verify, clear text that ends where it is meant to, and
//! certificates that are renewed under running servers.

use std::{
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use amas_operator::{
    api::sensitive::Sensitive,
    stores::{
        endpoint::{Endpoint, Tls, Trust},
        tls::{self, fingerprint},
    },
};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use sqlx::{
    Connection, PgConnection,
    postgres::{PgConnectOptions, PgSslMode},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    cluster::{
        clients, conditions,
        database::{Database, NAME, pod_name},
        platform::PATIENCE,
        wait,
    },
    ensure,
    harness::{About, Result, context::Ctx},
};

/// A node brings changed files within a minute and a half, and Redis is asked once a minute.
const RENEWAL: Duration = Duration::from_secs(180);
/// How often a node is made to look.
const LOOK: Duration = Duration::from_secs(5);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(20);
const SERVERS: [(&str, u16); 3] = [("postgres", 5432), ("redis", 6380), ("neo4j", 7687)];

struct Scene<'a> {
    data: Database<'a>,
}

pub async fn run(ctx: &Ctx) -> Result {
    let data = Database::new(ctx, "tls").await?;
    let scene = Scene { data };
    scene.apply(json!({})).await?;
    scene.verified("tls: {}").await?;
    scene.clear_text(true).await?;
    scene.apply(json!({"required": true})).await?;
    scene.verified("tls: {required: true}").await?;
    scene.clear_text(false).await?;
    scene.renewed().await
}

impl Scene<'_> {
    /// Applies the database with these settings and waits until everything of them is in.
    async fn apply(&self, tls: Value) -> Result {
        let managed = json!({"managed": {"storage": {"size": "1Gi"}}});
        let roles = json!([{"name": "app", "access": "ReadWrite"}]);
        let postgres = json!({"database": "app", "roles": roles, "managed": {"storage": {"size": "1Gi"}}});
        self.data
            .apply(json!({"postgres": postgres, "redis": managed, "neo4j": managed, "tls": tls}))
            .await?;
        let all = ["Ready", "PostgresReady", "RedisReady", "Neo4jReady"];
        self.data.wait_true(&all).await.about(format!("tls: {tls}"))?;
        Ok(())
    }

    /// A server as a client of the connection Secrets calls it.
    async fn endpoint(&self, (store, port): (&str, u16)) -> Result<Endpoint> {
        let published = self.data.values("redis-connection").await?;
        Ok(Endpoint {
            host: format!("{NAME}-{store}.{}.svc", self.data.namespace),
            port,
            tls: Tls::Encrypt(Arc::new(Trust {
                verify: true,
                ca: Some(published.get("ca.crt")?.to_owned()),
                client: None,
            })),
            user: String::new(),
            password: Sensitive::new(""),
        })
    }

    async fn sql(&self) -> Result<PgConnectOptions> {
        let role = self.data.values("role-app").await?;
        let options = PgConnectOptions::from_str(role.get("DATABASE_URL")?)?;
        Ok(options.ssl_root_cert_from_pem(role.get("ca.crt")?.as_bytes().to_vec()))
    }

    /// Clients that verify in full get in under the published name, and not under another.
    async fn verified(&self, when: &str) -> Result {
        let mut session = PgConnection::connect_with(&self.sql().await?)
            .await
            .about("PostgreSQL by its Secret, verified")?;
        let encrypted = clients::value(
            &mut session,
            "SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
        )
        .await?;
        let cache = self.data.values("redis-connection").await?;
        ensure!(
            cache.get("REDIS_URL")?.starts_with("rediss://"),
            "the Redis Secret asks for TLS"
        );
        let mut stream = tls::connect(&self.endpoint(SERVERS[1]).await?).await.about("Redis")?;
        let login = format!("AUTH {}\r\nPING\r\n", cache.get("REDIS_PASSWORD")?);
        let pong = answer(&mut stream, login.as_bytes(), b"+OK\r\n+PONG\r\n".len()).await?;
        let graph = self.data.values("neo4j-connection").await?;
        ensure!(
            graph.get("NEO4J_URI")?.starts_with("bolt+s://"),
            "the Neo4j Secret asks for TLS"
        );
        let mut stream = tls::connect(&self.endpoint(SERVERS[2]).await?).await.about("Neo4j")?;
        let bolt = answer(&mut stream, &BOLT, 4).await?;
        self.data.ctx.figure(
            format!("{when}: verified clients of PostgreSQL, Redis, Neo4j"),
            format!(
                "{encrypted}, {:?}, Bolt {}.{}",
                String::from_utf8_lossy(&pong),
                bolt[3],
                bolt[2]
            ),
            "all get in",
            encrypted.starts_with("TLSv1") && pong == b"+OK\r\n+PONG\r\n" && bolt[3] == 5,
        );
        self.another_name().await
    }

    /// The same servers by their address, which is not in the certificates.
    async fn another_name(&self) -> Result {
        let services: Api<Service> = Api::namespaced(self.data.ctx.client.clone(), &self.data.namespace);
        for (store, port) in [SERVERS[1], SERVERS[2]] {
            let service = services.get(&format!("{NAME}-{store}")).await?;
            let address = service.spec.and_then(|spec| spec.cluster_ip).about("no address")?;
            let by_address = Endpoint {
                host: address,
                ..self.endpoint((store, port)).await?
            };
            let refused = tls::connect(&by_address)
                .await
                .map(drop)
                .err()
                .map(|error| error.to_string());
            let seen = refused.unwrap_or_else(|| "accepted".into());
            let ok = seen.contains("is not among those");
            self.data
                .ctx
                .figure(format!("{store} under another name"), seen, "refused by the client", ok);
        }
        Ok(())
    }

    /// Whether clear text is served.
    async fn clear_text(&self, served: bool) -> Result {
        let plain = self.sql().await?.ssl_mode(PgSslMode::Disable);
        let sql = PgConnection::connect_with(&plain).await;
        let cache = async {
            let host = format!("{NAME}-redis.{}.svc", self.data.namespace);
            let url = format!(
                "redis://default:{}@{host}:6379",
                self.data.values("redis-connection").await?.get("REDIS_PASSWORD")?
            );
            clients::redis(&url).await
        };
        let graph = self.data.values("neo4j-connection").await?;
        let uri = graph.get("NEO4J_URI")?.replace("bolt+s://", "bolt://");
        let graph = clients::neo4j(&uri, graph.get("NEO4J_USER")?, graph.get("NEO4J_PASSWORD")?).await;
        let seen = [sql.is_ok(), cache.await.is_ok(), graph.is_ok()];
        let word = if served { "served beside" } else { "refused" };
        self.data.ctx.figure(
            format!("clear text on PostgreSQL, Redis, Neo4j is {word}"),
            format!("logged in: {seen:?}"),
            format!("{served} for each"),
            seen == [served; 3],
        );
        Ok(())
    }

    async fn pods(&self) -> Result<Vec<String>> {
        let lives = SERVERS.map(|(store, _)| self.data.life(store));
        futures::future::try_join_all(lives).await
    }

    /// New certificates are shown to new connections of the servers that run; old connections go on.
    async fn renewed(&self) -> Result {
        let before = self.pods().await?;
        let mut session = PgConnection::connect_with(&self.sql().await?).await?;
        let mut ready = wait::Watch::open(&self.data.api(), NAME).await?;
        for store in ["postgres", "redis"] {
            let old = self.data.values("tls").await?.get(&format!("{store}.crt"))?.to_owned();
            let asked = json!({"amas.dev/renew-certificates": format!("{store}/e2e")});
            self.data.patch(json!({"metadata": {"annotations": asked}})).await?;
            let renewed = async || {
                let new = self.data.values("tls").await?.get(&format!("{store}.crt"))?.to_owned();
                ensure!(new != old, "{store} has its old certificate");
                Ok(new)
            };
            let wanted = fingerprint(&wait::retry(PATIENCE, renewed).await?);
            let begun = Instant::now();
            let shown = async || {
                self.hasten(store, begun.elapsed()).await?;
                let shown = self.shown(store).await?;
                ensure!(shown == wanted, "{store} shows {shown:?} instead of {wanted:?}");
                Ok(())
            };
            wait::retry(RENEWAL, shown).await?;
            let took = format!("{:.1} s", begun.elapsed().as_secs_f64());
            self.data.ctx.figure(
                format!("{store}: a renewed certificate is shown after"),
                took,
                "180 s",
                true,
            );
        }
        clients::value(&mut session, "SELECT 1::text")
            .await
            .about("the session from before")?;
        let after = self.pods().await?;
        let versions = ready.record(Duration::from_secs(1)).await?;
        // Renewals are not what makes a server slow to answer on a machine that others work on too.
        let never_unready = versions
            .iter()
            .filter(|version| conditions::reason(version, "Ready") != "NotResponding")
            .all(|version| conditions::all_true(version, &["Ready"]));
        self.data.ctx.figure(
            "pods and Ready during two renewals",
            format!("the same pods: {}, Ready throughout: {never_unready}", before == after),
            "the same, Ready",
            before == after && never_unready,
        );
        self.verified("after the renewals").await
    }

    /// A changed pod makes its node bring changed files at once; if it looked too early, it is to look again.
    async fn hasten(&self, store: &str, after: Duration) -> Result {
        let pods: Api<Pod> = Api::namespaced(self.data.ctx.client.clone(), &self.data.namespace);
        let look = (after.as_secs() / LOOK.as_secs()).to_string();
        let patch = Patch::Merge(json!({"metadata": {"annotations": {"e2e": look}}}));
        pods.patch(&pod_name(store), &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// The certificate that a new connection is shown.
    async fn shown(&self, store: &str) -> Result<Option<String>> {
        let server = SERVERS
            .into_iter()
            .find(|(name, _)| *name == store)
            .about("no such store")?;
        let endpoint = self.endpoint(server).await?;
        let mut tcp = tls::open(&endpoint).await?;
        if store == "postgres" {
            // The request for TLS, and its answer.
            tcp.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).await?;
            ensure!(tcp.read_u8().await? == b'S', "PostgreSQL speaks no TLS");
        }
        Ok(tls::shown(&endpoint, tcp).await?)
    }
}

/// Bolt's greeting: the versions 5.0 to 5.4, or none.
const BOLT: [u8; 20] = [0x60, 0x60, 0xb0, 0x17, 0, 4, 4, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

async fn answer(stream: &mut Box<dyn tls::Stream>, request: &[u8], length: usize) -> Result<Vec<u8>> {
    let mut answer = vec![0; length];
    stream.write_all(request).await?;
    stream.flush().await?;
    match tokio::time::timeout(ANSWER, stream.read_exact(&mut answer)).await {
        Ok(read) => read.about("an answer over TLS").map(|_| answer),
        Err(_) => crate::fail!("no answer over TLS within {} s", ANSWER.as_secs()),
    }
}
