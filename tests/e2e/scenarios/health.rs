//! A dead or stopped server is seen in time and recovers by itself; a connection closed by an idle timeout is no flip.

mod idle_timeout;

use std::time::{Duration, Instant};

use amas_operator::api::amas_database::AmasDatabase;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::DynamicObject};

use crate::{
    cluster::{
        conditions::{self, status},
        objects::api,
        platform::{GATES, PATIENCE, Platform},
        process,
        wait::Watch,
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
/// How long the whole may take to follow its store: a stall of the machine may be between two statuses.
const FOLLOWS: Duration = Duration::from_secs(10);

/// How a killed server showed.
enum Loss {
    /// Its condition is False.
    Down,
    /// It was back before the operator could ask again: only its start is another.
    Restarted,
}

/// A loss that was seen.
struct Seen {
    /// How the server was lost, and what its condition said then.
    told: (&'static str, &'static str),
    seconds: f64,
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
        scene
            .in_time(store, STOPPED, async || scene.stopped(store).await)
            .await?;
        recovered.push(tokio::time::Instant::now());
    }
    // It takes about as long as the losses have to be apart.
    scene.idle_timeout().await?;
    for (store, recovered) in STORES.iter().zip(recovered) {
        tokio::time::sleep_until(recovered + APART).await;
        scene.in_time(store, KILLED, async || scene.killed(store).await).await?;
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

    /// Loses a store. What was seen late is tried once more: a stall of the machine is not the operator's, and the second time must do.
    async fn in_time(&self, store: &Store, target: f64, lose: impl AsyncFn() -> Result<Seen>) -> Result {
        let mut seen = lose().await?;
        let mut value = format!("{:.2} s", seen.seconds);
        if seen.seconds > target {
            tokio::time::sleep(APART).await;
            seen = lose().await?;
            value = format!("{value}, once more: {:.2} s", seen.seconds);
        }
        let (what, shown) = seen.told;
        let topic = format!("{} {what}: {} {shown}", store.name, store.condition);
        self.ctx
            .figure(topic, value, format!("<= {target} s"), seen.seconds <= target);
        Ok(())
    }

    async fn killed(&self, store: &Store) -> Result<Seen> {
        let main = process::of_pod(&self.pod(store).await?)?.main;
        let mut watch = self.watch().await?;
        let start = Instant::now();
        process::signal("KILL", &[main]).await?;
        let loss = self.loss(&mut watch, store, start).await;
        let (loss, seconds) = loss.about(format!("{} killed", store.name))?;
        let told = match loss {
            Loss::Down => {
                self.recovery(&mut watch, store, "killed", Instant::now()).await?;
                ("killed", "False")
            }
            Loss::Restarted => ("killed, back at once", "stays True, startedAt is another"),
        };
        Ok(Seen { told, seconds })
    }

    async fn stopped(&self, store: &Store) -> Result<Seen> {
        let pod = self.pod(store).await?;
        let mut watch = self.watch().await?;
        let stopped = process::stop_all(&pod).await?;
        // Finding all processes takes its time, and until the last is stopped the server may answer.
        let start = Instant::now();
        let seen = self.loss(&mut watch, store, start).await;
        process::signal("CONT", &stopped).await?;
        let (loss, seconds) = seen.about(format!("{} stopped", store.name))?;
        ensure!(
            matches!(loss, Loss::Down),
            "{}: a stopped server does not start anew",
            store.name
        );
        self.recovery(&mut watch, store, "continued", Instant::now()).await?;
        Ok(Seen {
            told: ("stopped (SIGSTOP)", "False"),
            seconds,
        })
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
            .until(FOLLOWS, "Ready, Available and Degraded to follow", whole)
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
}

/// When the store's server was started, as the status says.
fn started_at(object: &DynamicObject, store: &Store) -> String {
    object.data["status"]["stores"][store.name]["startedAt"].to_string()
}

/// A lost required store clears Ready and Available; a lost optional one only degrades.
fn consistent(object: &DynamicObject, store: &Store) -> bool {
    let is = |kind: &str, wanted: &str| status(object, kind) == Some(wanted);
    match store.required {
        true => is("Ready", "False") && is("Available", "False"),
        false => is("Ready", "True") && is("Available", "True") && is("Degraded", "True"),
    }
}
