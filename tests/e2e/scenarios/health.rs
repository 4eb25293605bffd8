//! A dead or stopped server is seen in time and recovers by itself; a connection closed by an idle timeout is no flip.

use std::time::{Duration, Instant};

use amas_operator::api::amas_database::AmasDatabase;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::DynamicObject};
use sqlx::PgConnection;

use crate::{
    cluster::{
        clients::{self, Values},
        conditions::{self, status},
        objects::api,
        platform::{GATES, PATIENCE, Platform},
        process,
        wait::{self, Watch},
    },
    ensure,
    harness::{About, Result, context::Ctx},
};

/// A store: its name in objects, its condition, and what its loss does to the whole.
struct Store {
    name: &'static str,
    condition: &'static str,
    required: bool,
}

const STORES: [Store; 3] = [
    Store {
        name: "postgres",
        condition: "PostgresReady",
        required: true,
    },
    Store {
        name: "redis",
        condition: "RedisReady",
        required: true,
    },
    Store {
        name: "neo4j",
        condition: "Neo4jReady",
        required: false,
    },
];

/// How soon a loss must be seen.
const KILLED: f64 = 2.0;
const STOPPED: f64 = 6.0;
/// How long a loss is waited for before it counts as unseen.
const UNSEEN: Duration = Duration::from_secs(30);
/// A second loss of one store within half a minute is another matter (Flapping).
const APART: Duration = Duration::from_secs(31);
/// How long a connection lives in the idle-timeout part, and how long that goes on.
const IDLE: Duration = Duration::from_secs(12);

/// How a killed server showed.
enum Loss {
    /// Its condition is False.
    Down,
    /// It was back before the operator could ask again: only its start is another.
    Restarted,
}

struct Scene<'a> {
    ctx: &'a Ctx,
    namespace: String,
    database: String,
    api: Api<DynamicObject>,
}

pub async fn run(ctx: &Ctx) -> Result {
    let platform = Platform::load(ctx)?;
    let namespace = platform.up(ctx, "amas").await?;
    let api = api::<AmasDatabase>(&ctx.client, &namespace);
    let scene = Scene {
        ctx,
        namespace,
        database: platform.name(),
        api,
    };
    let mut recovered = Vec::new();
    for store in &STORES {
        scene.stopped(store).await?;
        recovered.push(tokio::time::Instant::now());
    }
    // It takes about as long as the losses have to be apart.
    scene.idle_timeout().await?;
    for (store, recovered) in STORES.iter().zip(recovered) {
        tokio::time::sleep_until(recovered + APART).await;
        scene.killed(store).await?;
    }
    Ok(())
}

impl Scene<'_> {
    async fn pod(&self, store: &Store) -> Result<Pod> {
        let pods: Api<Pod> = Api::namespaced(self.ctx.client.clone(), &self.namespace);
        Ok(pods.get(&format!("{}-{}-0", self.database, store.name)).await?)
    }

    async fn watch(&self) -> Result<Watch> {
        Watch::open(&self.api, &self.database).await
    }

    async fn killed(&self, store: &Store) -> Result {
        let main = process::of_pod(&self.pod(store).await?)?.main;
        let mut watch = self.watch().await?;
        let start = Instant::now();
        process::signal("KILL", &[main]).await?;
        let loss = self.loss(&mut watch, store, start).await;
        match loss.about(format!("{} killed", store.name))? {
            (Loss::Down, seen) => {
                self.figure(store, ("killed", "False"), seen, KILLED);
                self.recovery(&mut watch, store, "killed", Instant::now()).await
            }
            (Loss::Restarted, seen) => {
                self.figure(
                    store,
                    ("killed, back at once", "stays True, startedAt is another"),
                    seen,
                    KILLED,
                );
                Ok(())
            }
        }
    }

    async fn stopped(&self, store: &Store) -> Result {
        let pod = self.pod(store).await?;
        let mut watch = self.watch().await?;
        let start = Instant::now();
        let stopped = process::stop_all(&pod).await?;
        let seen = self.loss(&mut watch, store, start).await;
        process::signal("CONT", &stopped).await?;
        let (loss, seen) = seen.about(format!("{} stopped", store.name))?;
        ensure!(
            matches!(loss, Loss::Down),
            "{}: a stopped server does not start anew",
            store.name
        );
        self.figure(store, ("stopped (SIGSTOP)", "False"), seen, STOPPED);
        self.recovery(&mut watch, store, "continued", Instant::now()).await
    }

    fn figure(&self, store: &Store, (what, shown): (&str, &str), seen: f64, target: f64) {
        let topic = format!("{} {what}: {} {shown}", store.name, store.condition);
        self.ctx
            .figure(topic, format!("{seen:.2} s"), format!("<= {target} s"), seen <= target);
    }

    /// Seconds until the loss shows; then what a store that is down means for the whole must be said as well.
    async fn loss(&self, watch: &mut Watch, store: &Store, start: Instant) -> Result<(Loss, f64)> {
        let before = watch.current().map(|object| started_at(object, store));
        let down = |object: &DynamicObject| status(object, store.condition) == Some("False");
        let shows = |object: Option<&DynamicObject>| {
            object.is_some_and(|object| down(object) || Some(started_at(object, store)) != before)
        };
        let what = format!("{}=False, or another startedAt", store.condition);
        let seconds = watch
            .until(UNSEEN, &what, shows)
            .await?
            .duration_since(start)
            .as_secs_f64();
        if !watch.current().is_some_and(down) {
            return Ok((Loss::Restarted, seconds));
        }
        if let Some(object) = watch.current() {
            self.ctx.say(format!(
                "{}: {}",
                conditions::reason(object, store.condition),
                conditions::message(object, store.condition)
            ));
        }
        let whole = |object: Option<&DynamicObject>| object.is_some_and(|object| consistent(object, store));
        watch
            .until(Duration::from_secs(2), "Ready, Available and Degraded to follow", whole)
            .await?;
        Ok((Loss::Down, seconds))
    }

    async fn recovery(&self, watch: &mut Watch, store: &Store, what: &str, from: Instant) -> Result {
        let back = |object: Option<&DynamicObject>| {
            object.is_some_and(|object| {
                conditions::all_true(object, &GATES)
                    && status(object, "Available") == Some("True")
                    && status(object, "Degraded") != Some("True")
            })
        };
        let seen = watch
            .until(PATIENCE, "recovered by itself: all True, not Degraded", back)
            .await?;
        let seconds = seen.duration_since(from).as_secs_f64();
        self.ctx.figure(
            format!("{} {what}: recovered by itself", store.name),
            format!("{seconds:.1} s"),
            "yes",
            true,
        );
        Ok(())
    }

    /// The server closes idle sessions after a second, and every session at once: nobody flips, nothing is written.
    async fn idle_timeout(&self) -> Result {
        let mut admin = self.admin().await?;
        tokio::time::sleep(wait::SETTLE).await;
        let mark = self.ctx.audit()?;
        let mut watch = self.watch().await?;
        let before = watch
            .current()
            .map(conditions::summary)
            .about("the database is absent")?;
        clients::sql(&mut admin, "ALTER SYSTEM SET idle_session_timeout = '1s'").await?;
        clients::sql(&mut admin, "SELECT pg_reload_conf()").await?;
        let closed = clients::value(&mut admin, CLOSE_OTHERS).await?;
        // Our own session must not be idle for long either.
        let (versions, ()) = futures::try_join!(watch.record(IDLE), busy(&mut admin))?;
        clients::sql(&mut admin, "ALTER SYSTEM RESET idle_session_timeout").await?;
        clients::sql(&mut admin, "SELECT pg_reload_conf()").await?;
        let flips = versions
            .iter()
            .filter(|version| conditions::summary(version) != before)
            .count();
        let writes = mark.requests()?.writes();
        ensure!(closed != "0", "no session of the operator was found to close");
        let value = format!("{flips} changed conditions, writes: {writes} ({closed} sessions closed)");
        let ok = flips == 0 && writes.is_empty();
        self.ctx.figure(
            "connection closed by idle timeout or by the server",
            value,
            "no flip, no write",
            ok,
        );
        Ok(())
    }

    /// A session of the administrator, by its Secret.
    async fn admin(&self) -> Result<PgConnection> {
        let secret = Values::read(
            &self.ctx.client,
            &self.namespace,
            &format!("{}-postgres-admin", self.database),
        )
        .await?;
        let password = secret.get("PGPASSWORD").or_else(|_| secret.get("password"))?;
        let user = secret.get("PGUSER").unwrap_or("postgres");
        let host = format!("{}-postgres.{}.svc", self.database, self.namespace);
        clients::postgres(&format!("postgresql://{user}:{password}@{host}:5432/postgres")).await
    }
}

const CLOSE_OTHERS: &str = "SELECT count(pg_terminate_backend(pid))::text FROM pg_stat_activity \
    WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";

/// When the store's server was started, as the status says.
fn started_at(object: &DynamicObject, store: &Store) -> String {
    object.data["status"]["stores"][store.name]["startedAt"].to_string()
}

/// A statement every half second.
async fn busy(session: &mut PgConnection) -> Result {
    let end = Instant::now() + IDLE;
    while Instant::now() < end {
        clients::sql(session, "SELECT 1").await?;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Ok(())
}

/// A lost required store clears Ready and Available; a lost optional one only degrades.
fn consistent(object: &DynamicObject, store: &Store) -> bool {
    let is = |kind: &str, wanted: &str| status(object, kind) == Some(wanted);
    match store.required {
        true => is("Ready", "False") && is("Available", "False"),
        false => is("Ready", "True") && is("Available", "True") && is("Degraded", "True"),
    }
}
