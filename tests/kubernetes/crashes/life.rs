//! One life of one object, made and deleted as often as there is something to try, with an operator of its own and a proxy before everything that this
//! operator writes to.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::{cases::Case, settle::PATIENCE};
use crate::{
    lifecycle::{database, external},
    support::{
        fault::{Plan, Which, Write},
        kubernetes::{Kubernetes, Namespace},
        operator::Operator,
        postgres::Postgres,
        proxy::ApiProxy,
        redis::{PASSWORD, Program, RedisServer},
        store_proxy::{Protocol, StoreProxy},
    },
};

/// What belongs to an object.
pub const CHILDREN: [&str; 8] = [
    "StatefulSet",
    "Service",
    "ConfigMap",
    "PersistentVolumeClaim",
    "PodDisruptionBudget",
    "NetworkPolicy",
    "ServiceAccount",
    "Secret",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    Create,
    Change,
    Rotate,
    Delete,
}

impl Stage {
    /// What the specification asks for is made in it.
    pub fn makes(self) -> bool {
        matches!(self, Self::Create | Self::Change)
    }
}

/// Where a write goes; and what is read by its name, which is no write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Api,
    Reads,
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

    /// How many lives there are at once. They wait for most of their time.
    pub fn lives(self) -> usize {
        match self {
            Self::External => 12,
            Self::Managed => 5,
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

/// What a stage was like: what was written in it and what was read each time, how things stood at its end, and how many Events came in it.
pub struct Run {
    pub writes: Writes,
    pub reads: Vec<Write>,
    pub fingerprint: String,
    pub events: usize,
}

impl Run {
    /// How many writes went there.
    pub fn to(&self, place: Place) -> usize {
        self.writes.get(&place).map_or(0, Vec::len)
    }
}

/// In the order in which they came, the same in all lives: `{ns}` stands for the namespace, `{id}` for [`Life::id`].
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
    /// How long a stage may take.
    pub patience: Duration,
    pub to_api: ApiProxy,
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
        let operator = Operator::start(
            &ns,
            &to_api.kubeconfig,
            &[("POD_NAME", "operator"), ("AMAS_LOG", "info,amas_operator=debug")],
        );
        ns.wait("Lease", "amas-operator", "held", |_| true).await;
        Self {
            id: ns.name.replace('-', "_"),
            patience: PATIENCE,
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
        let mut all = vec![(Place::Api, &self.to_api.plan), (Place::Reads, &self.to_api.reads)];
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
        let of = |(place, plan): (Place, &Arc<Plan>)| {
            (place, plan.writes().iter().map(|write| self.common(write)).collect())
        };
        self.writing().map(of).collect()
    }

    /// What has been read by its name.
    pub fn reads(&self) -> Vec<Write> {
        let all = self.to_api.reads.writes();
        all.iter().map(|read| self.common(read)).collect()
    }

    fn writing(&self) -> impl Iterator<Item = (Place, &Arc<Plan>)> {
        self.plans().into_iter().filter(|(place, _)| *place != Place::Reads)
    }

    /// The same in all lives.
    fn common(&self, write: &str) -> Write {
        write.replace(&self.ns.name, "{ns}").replace(&self.id, "{id}")
    }

    /// As this life's own servers are told it.
    pub fn own(&self, write: &str) -> Write {
        write.replace("{ns}", &self.ns.name).replace("{id}", &self.id)
    }

    pub fn counted(&self) -> usize {
        self.writing().map(|(_, plan)| plan.counted()).sum()
    }

    pub async fn enter(&self, stage: Stage) {
        for (_, plan) in self.plans() {
            plan.begin(None);
        }
        self.do_enter(stage).await;
    }

    /// The same, with one write that is spoilt.
    pub async fn enter_spoilt(&self, case: &Case) {
        for (place, plan) in self.plans() {
            let which = Which::Of(self.own(&case.write), case.number);
            plan.begin((place == case.place).then_some((which, case.blow.fault())));
        }
        self.do_enter(case.stage).await;
    }

    async fn do_enter(&self, stage: Stage) {
        match stage {
            Stage::Delete => self.ns.delete("AmasDatabase", "a").await,
            stage => drop(self.ns.apply(self.object(stage)).await),
        }
    }

    /// The Secret whose password is replaced.
    pub fn rotated(&self) -> String {
        format!("a-role-{}-app", self.ns.name)
    }

    pub async fn events(&self) -> usize {
        let count = |event: &Value| event["count"].as_u64().unwrap_or(1) as usize;
        self.ns.list("Event").await.iter().map(count).sum()
    }

    /// What the garbage collector would do, which does not run here: children of an object that is gone go too.
    pub async fn collect(&self) {
        for kind in CHILDREN {
            for child in self.ns.list(kind).await {
                if child["metadata"]["labels"]["amas.dev/database"] != "a" {
                    continue;
                }
                let (api, name) = (self.ns.kind(kind), child["metadata"]["name"].as_str().unwrap());
                // Gone meanwhile, it is gone.
                let _ = api.delete(name, &DeleteParams::background()).await;
                let unheld = Patch::Merge(json!({"metadata": {"finalizers": null}}));
                let _ = api.patch(name, &PatchParams::default(), &unheld).await;
            }
        }
    }

    /// The end of the operator's log.
    pub async fn end(mut self) -> String {
        self.operator.kill();
        let drop = format!("DROP DATABASE IF EXISTS \"{}\" WITH (FORCE)", self.id);
        self.postgres.admin("postgres", &[&drop]).await;
        let log = self.operator.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(150)..].join("\n")
    }
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
