//! The controllers: one folder or file a kind, each the same five verbs: observe, validate, plan, apply, report.

pub mod cache_policy;
pub mod credentials;
pub mod database;
pub mod graph_schema;
pub mod live;
pub mod operator;
pub mod policy;
pub mod sources;
pub mod wakes;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use kube::runtime::reflector::Store as Cache;

use crate::{
    api::{
        amas_database::{AmasDatabase, AmasDatabaseStatus},
        cache_policy::{CachePolicy, CachePolicyStatus},
        graph_schema::{GraphSchema, GraphSchemaStatus},
    },
    engine::{answers::Answers, child::ChildKind, children::Children, metrics::Metrics, status::Book, writer::Writer},
    stores::{
        images::Images,
        keeper::{Keepers, Key},
        neo4j::Neo4j,
        postgres::Postgres,
        redis::Redis,
        revisions::Revisions,
    },
};

/// What does not change while the operator runs.
#[derive(Clone, Debug)]
pub struct Settings {
    pub images: Images,
    /// The templates that this program can render.
    pub revisions: Revisions,
    /// Our own image, for migration Jobs.
    pub own_image: String,
    /// Where the operator's pods run; their traffic is always admitted.
    pub operator_namespace: String,
    /// Names this cluster in claims.
    pub cluster_id: String,
    /// Folder with one folder a migration bundle.
    pub bundles: PathBuf,
    /// Names this process in Events.
    pub instance: String,
    /// The rights end with each namespace: nothing of ours may stand in the way of its deletion.
    pub namespaced: bool,
    /// The `spec.controllerClass` of the objects that are ours; empty: those without one.
    pub class: String,
    /// Secrets that are marked so are watched, which takes the right to watch all of them.
    pub watches_secrets: bool,
}

/// The three kinds as they were last seen.
pub struct Caches {
    pub databases: Cache<AmasDatabase>,
    pub cache_policies: Cache<CachePolicy>,
    pub graph_schemas: Cache<GraphSchema>,
}

/// The last status that was written, of each kind.
#[derive(Default)]
pub struct Books {
    pub databases: Book<AmasDatabaseStatus>,
    pub cache_policies: Book<CachePolicyStatus>,
    pub graph_schemas: Book<GraphSchemaStatus>,
}

/// One registry of keepers an engine. A new store is a field here.
pub struct AllKeepers {
    pub postgres: Keepers<Postgres>,
    pub redis: Keepers<Redis>,
    pub neo4j: Keepers<Neo4j>,
}

impl AllKeepers {
    /// While paused, nothing is changed on any server of one AmasDatabase.
    pub fn pause(&self, key: &Key, paused: bool) {
        self.postgres.pause(key, paused);
        self.redis.pause(key, paused);
        self.neo4j.pause(key, paused);
    }

    /// Something has happened around one AmasDatabase: its servers that are watched on demand are looked at.
    pub fn look(&self, key: &Key) {
        self.postgres.look(key);
        self.redis.look(key);
        self.neo4j.look(key);
    }

    /// The AmasDatabase is gone, or about to be: the same, and claims on servers that are not ours are let go.
    pub fn let_go(&self, key: &Key) {
        self.postgres.let_go(key);
        self.redis.let_go(key);
        self.neo4j.let_go(key);
    }

    /// Stops everything that is held for one AmasDatabase.
    pub fn dismiss(&self, key: &Key) {
        self.postgres.dismiss(key);
        self.redis.dismiss(key);
        self.neo4j.dismiss(key);
    }
}

/// Everything a reconcile may use.
pub struct Context {
    pub writer: Writer,
    pub children: Arc<Children>,
    pub caches: Caches,
    pub keepers: AllKeepers,
    pub books: Books,
    pub credentials: credentials::Memory,
    pub sources: sources::Sources,
    pub plans: Arc<database::Plans>,
    pub issuance: database::Sights,
    pub taken: Taken,
    pub brought: Brought,
    pub answers: Answers,
    pub growth: Growth,
    pub events: crate::engine::events::Events,
    pub metrics: Metrics,
    pub settings: Settings,
}

/// How long a refused growth of a volume is left alone: its storage class may be changed meanwhile.
const GROWTH_AGAIN: Duration = Duration::from_secs(600);

/// Claim and size of a growth that was refused.
pub type GrowthKey = (String, String);

/// Growths of volumes that were refused, by namespace, with the reason.
#[derive(Default)]
pub struct Growth(Mutex<HashMap<(String, GrowthKey), (Instant, String)>>);

impl Growth {
    pub fn refused(&self, namespace: &str, key: GrowthKey, why: &str) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert((namespace.into(), key), (Instant::now(), why.into()));
    }

    /// Those of a namespace, forgetting what is due for another try.
    pub fn of(&self, namespace: &str) -> std::collections::BTreeMap<GrowthKey, String> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, (at, _)| at.elapsed() < GROWTH_AGAIN);
        let here = all.iter().filter(|((of, _), _)| of == namespace);
        here.map(|((_, key), (_, why))| (key.clone(), why.clone())).collect()
    }
}

/// How long a name that was found taken is left alone before it is tried again.
const LEAVE_ALONE: Duration = Duration::from_secs(60);

/// What each child was last brought to by this process: whether it is a person who has moved it away from there.
#[derive(Default)]
pub struct Brought(Mutex<HashMap<(String, ChildKind, String), u64>>);

impl Brought {
    /// Takes in what a child is brought to; gives what it was brought to before.
    pub fn to(&self, namespace: &str, kind: ChildKind, body: &serde_json::Value) -> Option<u64> {
        let name = body["metadata"]["name"].as_str().unwrap_or_default();
        let mut brought = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        brought.insert((namespace.into(), kind, name.into()), kind.hash(body))
    }

    /// Forgets the children of a database that is gone.
    pub fn forget(&self, namespace: &str, database: &str) {
        let prefix = format!("{database}-");
        let mut brought = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        brought.retain(|(of, _, name), _| of != namespace || !name.starts_with(&prefix));
    }
}

/// Names that somebody else's objects have, so that they are not asked for at every reconcile.
#[derive(Default)]
pub struct Taken(Mutex<HashMap<(String, ChildKind, String), Instant>>);

impl Taken {
    pub fn remember(&self, namespace: &str, kind: ChildKind, name: &str) {
        self.lock()
            .insert((namespace.into(), kind, name.into()), Instant::now());
    }

    /// The taken names in a namespace, forgetting those that are due for another try.
    pub fn of(&self, namespace: &str) -> Vec<(ChildKind, String)> {
        let mut taken = self.lock();
        taken.retain(|_, at| at.elapsed() < LEAVE_ALONE);
        taken
            .keys()
            .filter(|(of, ..)| of == namespace)
            .map(|(_, kind, name)| (*kind, name.clone()))
            .collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(String, ChildKind, String), Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
