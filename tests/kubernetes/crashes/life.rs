//! One life of one object, with an operator of its own and a proxy before everything that this operator writes to.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    lifecycle::{database, external},
    support::{
        fault::{Fault, Plan, Write},
        kubernetes::{Kubernetes, Namespace, condition_of},
        operator::Operator,
        postgres::Postgres,
        proxy::ApiProxy,
        redis::{PASSWORD, Program, RedisServer},
        store_proxy::{Protocol, StoreProxy},
    },
};

/// How long nothing may be written until a stage has come to its end. Longer than any pause that the operator makes while it still has
/// something to do and nobody spoils it.
const QUIET: Duration = Duration::from_millis(2500);
/// The same once the stage has written what an undisturbed one writes: that one was waited for.
const DONE: Duration = Duration::from_millis(150);
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Create,
    Change,
    Rotate,
    Delete,
}

/// Where a write goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Api,
    Postgres,
    Redis,
}

/// Whose life it is: external stores show what is written into servers, a managed one what a Delete takes away.
#[derive(Clone, Copy, Debug)]
pub enum Subject {
    External,
    Managed,
}

impl Subject {
    pub fn stages(self) -> &'static [Stage] {
        match self {
            Self::External => &[Stage::Create, Stage::Change, Stage::Rotate, Stage::Delete],
            // Nobody serves, so no password can be replaced.
            Self::Managed => &[Stage::Create, Stage::Change, Stage::Delete],
        }
    }
}

/// What all lives of a subject stand on.
#[derive(Clone)]
pub struct Ground {
    pub api: Kubernetes,
    pub postgres: Arc<Postgres>,
    pub subject: Subject,
}

/// What a stage was like.
pub struct Run {
    pub writes: Writes,
    pub fingerprint: String,
    pub events: usize,
}
pub type Writes = BTreeMap<Place, Vec<Write>>;

/// The servers of a life and the ways to them.
pub struct Stores {
    pub redis: RedisServer,
    to_postgres: StoreProxy,
    to_redis: StoreProxy,
}

pub struct Life {
    pub ns: Namespace,
    pub operator: Operator,
    pub postgres: Arc<Postgres>,
    pub stores: Option<Stores>,
    pub subject: Subject,
    /// In the names of the database and its roles.
    pub id: String,
    to_api: ApiProxy,
}

impl Life {
    pub async fn begin(ground: &Ground) -> Self {
        let Ground { api, postgres, subject } = ground.clone();
        let ns = api.namespace("crash").await;
        let to_api = ApiProxy::start(&api, &ns.name).await;
        let stores = match subject {
            Subject::External => Some(Stores::start(&ns, &postgres).await),
            Subject::Managed => None,
        };
        let operator = Operator::start(&ns, &to_api.kubeconfig, &[("POD_NAME", "operator")]);
        ns.wait("Lease", "amas-operator", "held", |_| true).await;
        Self {
            id: ns.name.replace('-', "_"),
            ns,
            operator,
            postgres,
            stores,
            subject,
            to_api,
        }
    }

    /// The object as a stage wants it.
    fn object(&self, stage: Stage) -> Value {
        let changed = stage != Stage::Create;
        let Subject::External = self.subject else {
            let cpu = if changed { "200m" } else { "100m" };
            let managed = json!({"storage": {"size": "1Gi"}, "resources": {"limits": {"cpu": cpu}}});
            return database("a", json!({"deletionPolicy": "Delete", "redis": {"managed": managed}}));
        };
        let (app, reader) = (format!("{}_app", self.id), format!("{}_reader", self.id));
        let extra = if changed { json!({"POOL": "20"}) } else { json!({}) };
        let mut roles = vec![json!({"name": app, "access": "ReadWrite", "connection": {"extra": extra}})];
        if changed {
            roles.push(json!({"name": reader, "access": "ReadOnly"}));
        }
        let sql = json!({"database": self.id, "owner": format!("{}_owner", self.id), "roles": roles, "external": external("postgres")});
        let mut object = database(
            "a",
            json!({"deletionPolicy": "Delete", "credentials": {"rotation": {"overlap": "1s"}},
                "postgres": sql, "redis": {"external": external("redis")}}),
        );
        if stage == Stage::Rotate {
            object["metadata"]["annotations"] = json!({"amas.dev/rotate-credentials": format!("{app}/1")});
        }
        object
    }

    fn plans(&self) -> Vec<(Place, &Arc<Plan>)> {
        let mut all = vec![(Place::Api, &self.to_api.plan)];
        if let Some(stores) = &self.stores {
            all.push((Place::Postgres, &stores.to_postgres.plan));
            all.push((Place::Redis, &stores.to_redis.plan));
        }
        all
    }

    pub fn plan(&self, place: Place) -> Arc<Plan> {
        let (_, plan) = self.plans().into_iter().find(|(of, _)| *of == place).unwrap();
        plan.clone()
    }

    /// What has been written since the stage was entered.
    pub fn writes(&self) -> Writes {
        self.plans()
            .into_iter()
            .map(|(place, plan)| (place, plan.writes()))
            .collect()
    }

    fn counted(&self) -> usize {
        self.plans().into_iter().map(|(_, plan)| plan.counted()).sum()
    }

    pub async fn enter(&self, stage: Stage) {
        for (_, plan) in self.plans() {
            plan.begin(None);
        }
        self.do_enter(stage).await;
    }

    /// The same, with one write that is spoilt.
    pub async fn enter_spoilt(&self, stage: Stage, spoilt: Place, fault: (usize, Fault)) {
        for (place, plan) in self.plans() {
            plan.begin((place == spoilt).then_some(fault));
        }
        self.do_enter(stage).await;
    }

    async fn do_enter(&self, stage: Stage) {
        match stage {
            Stage::Delete => self.ns.delete("AmasDatabase", "a").await,
            stage => drop(self.ns.apply(self.object(stage)).await),
        }
    }

    /// Waits until the stage is over: the object stands as it should, and nothing is written any more. With what an undisturbed run was like this is
    /// known as soon as the same has been written.
    pub async fn settle(&self, stage: Stage, run: Option<&Run>) -> Result<(), String> {
        let begun = Instant::now();
        let (mut seen, mut since) = (self.counted(), Instant::now());
        while begun.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let now = self.counted();
            if now != seen {
                (seen, since) = (now, Instant::now());
            }
            let all = run.is_some_and(|run| sorted(&run.writes) == sorted(&self.writes()));
            if since.elapsed() >= if all { DONE } else { QUIET } && self.stands(stage).await {
                return Ok(());
            }
        }
        Err(format!(
            "{stage:?} did not come to its end: {:#?}",
            self.ns.get("AmasDatabase", "a").await
        ))
    }

    async fn stands(&self, stage: Stage) -> bool {
        let Some(object) = self.ns.get("AmasDatabase", "a").await else {
            return stage == Stage::Delete;
        };
        let ready = match self.subject {
            Subject::External => "True",
            Subject::Managed => "False",
        };
        let observed = object.pointer("/status/observedGeneration") == object.pointer("/metadata/generation");
        stage != Stage::Delete
            && observed
            && condition_of(&object, "Ready").is_some_and(|found| found["status"] == ready)
            && (stage != Stage::Rotate || self.is_rotated().await)
    }

    /// One password has come after the first, and nothing of a rotation is left to do.
    async fn is_rotated(&self) -> bool {
        let secret = self.ns.get("Secret", &self.rotated()).await.unwrap_or_default();
        secret["data"]["rotation.count"] == encoded("1")
            && ["next", "previous"]
                .iter()
                .all(|which| secret["data"][format!("rotation.{which}-password")].is_null())
    }

    /// The Secret whose password is replaced.
    pub fn rotated(&self) -> String {
        format!("a-role-{}-app", self.ns.name)
    }

    pub async fn events(&self) -> usize {
        let count = |event: &Value| event["count"].as_u64().unwrap_or(1) as usize;
        self.ns.list("Event").await.iter().map(count).sum()
    }

    /// The end of the operator's log.
    pub async fn end(mut self) -> String {
        self.operator.kill();
        let drop = format!("DROP DATABASE IF EXISTS \"{}\" WITH (FORCE)", self.id);
        self.postgres.admin("postgres", &[&drop]).await;
        let log = self.operator.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

/// Some go out at the same time, so their order is anybody's.
fn sorted(writes: &Writes) -> Writes {
    let mut writes = writes.clone();
    writes.values_mut().for_each(|all| all.sort());
    writes
}

impl Stores {
    /// A Redis of its own, since a server has one claim; a database of its own in the common PostgreSQL.
    async fn start(ns: &Namespace, postgres: &Postgres) -> Self {
        let redis = RedisServer::start(Program::Redis, "").await;
        let to_postgres = StoreProxy::start(Protocol::Postgres, postgres.port).await;
        let to_redis = StoreProxy::start(Protocol::Redis, redis.port).await;
        let uri = format!("postgres://postgres@127.0.0.1:{}/postgres", to_postgres.port);
        ns.secret("postgres", &[("uri", &uri)]).await;
        let password = PASSWORD.replace(' ', "%20");
        let uri = format!("redis://default:{password}@127.0.0.1:{}", to_redis.port);
        ns.secret("redis", &[("uri", &uri)]).await;
        Self {
            redis,
            to_postgres,
            to_redis,
        }
    }
}

fn encoded(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}
