//! One life of one object, made and deleted as often as there is something to try, with an operator of its own and a proxy before everything that this
//! operator writes to.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::{cases::Case, stores::Stores};
use crate::{
    lifecycle::{database, external},
    support::{
        fault::{Plan, Which, Write},
        kubernetes::{Kubernetes, Namespace},
        operator::Operator,
        postgres::Postgres,
        proxy::ApiProxy,
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
    Neo4j,
}

/// Whose life it is: external stores show what is written into servers, policies on them what is written of those, a managed one what a Delete takes
/// away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    External,
    Policies,
    Managed,
}

impl Subject {
    pub fn stages(self) -> &'static [Stage] {
        match self {
            Self::External => &[Stage::Create, Stage::Change, Stage::Rotate, Stage::Delete],
            // No role has a password of ours; nobody serves, so none can be replaced.
            Self::Policies | Self::Managed => &[Stage::Create, Stage::Change, Stage::Delete],
        }
    }

    /// How many lives there are at once. They wait for most of their time.
    pub fn lives(self) -> usize {
        match self {
            Self::External => 12,
            // Each has a Neo4j.
            Self::Policies => 3,
            Self::Managed => 8,
        }
    }

    /// Whether a write is spoilt. What is written to the API server of the stores themselves is so in another's life.
    pub fn spoils(self, place: Place, write: &str) -> bool {
        match place {
            Place::Api if self == Self::Policies => write.contains("schemas/") || write.contains("policies/"),
            Place::Reads => self != Self::Policies,
            _ => true,
        }
    }

    /// How long a stage may take, whatever was done to it. A statement that was left alone on a Neo4j is taken up after 30 s, with all that follows
    /// from it.
    pub fn patience(self) -> Duration {
        match self {
            Self::External | Self::Managed => Duration::from_secs(60),
            Self::Policies => Duration::from_secs(180),
        }
    }

    /// Whether its stores serve.
    pub fn serves(self) -> bool {
        self != Self::Managed
    }
}

/// What all lives of a subject stand on.
#[derive(Clone)]
pub struct Ground {
    pub api: Kubernetes,
    pub postgres: Arc<Postgres>,
    pub subject: Subject,
}

/// What a stage was like: what was written in it, what of that was written and what was read each time, how things stood at its end, and how many
/// Events came in it.
pub struct Run {
    pub writes: Writes,
    /// These can be waited for.
    pub sure: Writes,
    pub reads: Vec<Write>,
    pub fingerprint: String,
    pub events: usize,
}

impl Run {
    /// How many writes go there each time.
    pub fn to(&self, place: Place) -> usize {
        self.sure.get(&place).map_or(0, Vec::len)
    }
}

/// In the order in which they came, the same in all lives: `{ns}` stands for the namespace, `{id}` for [`Life::id`].
pub type Writes = BTreeMap<Place, Vec<Write>>;

pub struct Life {
    pub ns: Namespace,
    pub operator: Operator,
    pub postgres: Arc<Postgres>,
    pub stores: Stores,
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
        let stores = Stores::start(subject, &ns, &postgres).await;
        let operator = Operator::start(
            &ns,
            &to_api.kubeconfig,
            &[("POD_NAME", "operator"), ("AMAS_LOG", "info,amas_operator=debug")],
        );
        ns.wait("Lease", "amas-operator", "held", |_| true).await;
        Self {
            id: ns.name.replace('-', "_"),
            patience: subject.patience(),
            ns,
            operator,
            postgres,
            stores,
            subject,
            to_api,
        }
    }

    /// The objects as a stage wants them.
    fn objects(&self, stage: Stage) -> Vec<Value> {
        let changed = stage != Stage::Create;
        match self.subject {
            Subject::External => vec![self.external(stage, changed)],
            Subject::Policies => policies(changed),
            Subject::Managed => {
                let cpu = if changed { "200m" } else { "100m" };
                let managed = json!({"storage": {"size": "1Gi"}, "resources": {"limits": {"cpu": cpu}}});
                vec![database(
                    "a",
                    json!({"deletionPolicy": "Delete", "redis": {"managed": managed}}),
                )]
            }
        }
    }

    fn external(&self, stage: Stage, changed: bool) -> Value {
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
        all.extend(self.stores.plans());
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
            Stage::Delete => {
                for object in self.objects(stage) {
                    self.ns.delete(object["kind"].as_str().unwrap(), "a").await;
                }
            }
            stage => {
                for object in self.objects(stage) {
                    self.ns.apply(object).await;
                }
            }
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
        self.stores.clear().await;
    }

    /// How often the operator has taken a store for lost.
    pub fn outages(&self) -> usize {
        self.operator.log().matches("\"verdict\":\"Down\"").count()
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

/// External stores, and a policy of each kind.
fn policies(changed: bool) -> Vec<Value> {
    let stores = json!({"deletionPolicy": "Delete", "redis": {"external": external("redis")}, "neo4j": {"external": external("neo4j")}});
    let of = |kind: &str, mut spec: Value| {
        spec["databaseRef"] = json!({"name": "a"});
        json!({"apiVersion": "amas.dev/v1alpha1", "kind": kind, "metadata": {"name": "a"}, "spec": spec})
    };
    let unique = |name: &str| json!({"name": name, "label": "Task", "properties": [name], "type": "Unique"});
    let range = |name: &str| json!({"name": name, "label": "Task", "properties": [name], "type": "Range"});
    let (mut constraints, mut indexes) = (vec![unique("id")], vec![range("status")]);
    if changed {
        constraints.push(unique("number"));
        indexes.push(range("created"));
    }
    let policy = if changed { "volatile-ttl" } else { "volatile-lru" };
    vec![
        database("a", stores),
        of("GraphSchema", json!({"constraints": constraints, "indexes": indexes})),
        of(
            "CachePolicy",
            json!({"prefix": "a", "eviction": {"maxMemory": "100Mi", "policy": policy}}),
        ),
    ]
}
