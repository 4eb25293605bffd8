//! Who is woken by what: a database by its children, its keepers and its policies; a policy by its database and by its siblings.

use std::sync::Arc;

use kube::runtime::reflector::ObjectRef;
use tokio::sync::mpsc;

use crate::{
    api::{amas_database::AmasDatabase, cache_policy::CachePolicy, graph_schema::GraphSchema},
    controllers::{
        Context, database,
        policy::{self, Policy},
    },
    engine::{
        Own,
        child::ChildKind,
        queue::{self, Waker},
        watch::Happened,
    },
    stores::keeper::Key,
};

type Queue<K> = futures::channel::mpsc::UnboundedReceiver<ObjectRef<K>>;

/// The ends of the three queues that the controllers take from.
pub struct Queues {
    pub databases: Queue<AmasDatabase>,
    pub cache_policies: Queue<CachePolicy>,
    pub graph_schemas: Queue<GraphSchema>,
}

/// Who is woken by what: a database by its children, its keepers and its policies; a policy by its database.
#[derive(Clone)]
pub struct Wakes {
    context: Arc<Context>,
    pub databases: Waker<AmasDatabase>,
    pub cache_policies: Waker<CachePolicy>,
    pub graph_schemas: Waker<GraphSchema>,
}

impl Wakes {
    pub fn new(context: Arc<Context>) -> (Self, Queues) {
        let ((databases, a), (cache_policies, b), (graph_schemas, c)) =
            (queue::channel(), queue::channel(), queue::channel());
        (
            Self {
                context,
                databases,
                cache_policies,
                graph_schemas,
            },
            Queues {
                databases: a,
                cache_policies: b,
                graph_schemas: c,
            },
        )
    }

    /// Passes on what keepers say, to the database and everything on it.
    pub async fn forward(self, mut wakes: mpsc::UnboundedReceiver<Key>) {
        while let Some(key) = wakes.recv().await {
            self.family(&key);
        }
    }

    pub fn policies_of(&self, key: &Key) {
        self.all_on::<CachePolicy>(key);
        self.all_on::<GraphSchema>(key);
    }

    fn all_on<K: Policy>(&self, key: &Key) {
        for object in K::cache(&self.context).state() {
            if policy::database_key(&*object) == *key {
                let (namespace, name) = address(&*object);
                K::waker(self).wake(&namespace, &name);
            }
        }
    }

    pub fn database(&self, event: Happened<AmasDatabase>) {
        let object = match &event {
            Happened::Seen(object) => object,
            Happened::Gone(object) => {
                database::forget(&self.context, object);
                object
            }
        };
        let (namespace, database) = address(&**object);
        self.family(&Key { namespace, database });
    }

    /// A ConfigMap or Secret of somebody's that is to be watched has changed: who reads it reads it again.
    pub fn brought(&self, kind: ChildKind, namespace: &str, name: &str) {
        for object in self.context.caches.databases.state() {
            let (of, database) = address(&*object);
            if of == namespace && database::forget_read(&self.context, &object, kind, name) {
                self.databases.wake(&of, &database);
            }
        }
    }

    pub fn policy<K: Policy>(&self, event: Happened<K>) {
        let object = match &event {
            Happened::Seen(object) => object,
            Happened::Gone(object) => {
                policy::forget(&self.context, &**object);
                object
            }
        };
        let (namespace, name) = address(&**object);
        K::waker(self).wake(&namespace, &name);
        self.family(&policy::database_key(&**object));
    }

    /// A database and everything on it: two policies may want what only one can have.
    pub fn family(&self, key: &Key) {
        self.databases.wake(&key.namespace, &key.database);
        self.policies_of(key);
    }
}

fn address<K: Own>(object: &K) -> (String, String) {
    let meta = object.meta();
    (
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    )
}
