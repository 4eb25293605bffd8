//! Who is woken by what: a database by its children, its keepers and its policies; a policy by its database and by its siblings.

use std::sync::Arc;

use kube::runtime::reflector;
use tokio::sync::mpsc;

use crate::{
    api::{amas_database::AmasDatabase, cache_policy::CachePolicy, graph_schema::GraphSchema},
    controllers::{Context, cache_policy, database, graph_schema, policy},
    engine::{
        Own,
        queue::{self, Waker},
        watch::Happened,
    },
    stores::keeper::Key,
};

/// The ends of the three queues that the controllers take from.
pub struct Queues {
    pub databases: futures::channel::mpsc::UnboundedReceiver<reflector::ObjectRef<AmasDatabase>>,
    pub cache_policies: futures::channel::mpsc::UnboundedReceiver<reflector::ObjectRef<CachePolicy>>,
    pub graph_schemas: futures::channel::mpsc::UnboundedReceiver<reflector::ObjectRef<GraphSchema>>,
}

/// Who is woken by what: a database by its children, its keepers and its policies; a policy by its database.
#[derive(Clone)]
pub struct Wakes {
    context: Arc<Context>,
    pub databases: Waker<AmasDatabase>,
    cache_policies: Waker<CachePolicy>,
    graph_schemas: Waker<GraphSchema>,
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
        let here = |meta: &kube::core::ObjectMeta, database: &str| {
            meta.namespace.as_deref() == Some(&key.namespace) && database == key.database
        };
        for policy in self.context.caches.cache_policies.state() {
            if here(&policy.metadata, &policy.spec.database_ref.name) {
                self.cache_policies
                    .wake(&key.namespace, policy.metadata.name.as_deref().unwrap_or_default());
            }
        }
        for schema in self.context.caches.graph_schemas.state() {
            if here(&schema.metadata, &schema.spec.database_ref.name) {
                self.graph_schemas
                    .wake(&key.namespace, schema.metadata.name.as_deref().unwrap_or_default());
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

    pub fn cache_policy(&self, event: Happened<CachePolicy>) {
        let object = match &event {
            Happened::Seen(object) => object,
            Happened::Gone(object) => {
                cache_policy::forget(&self.context, object);
                object
            }
        };
        let (namespace, name) = address(&**object);
        self.cache_policies.wake(&namespace, &name);
        self.family(&policy::database_key(&**object, &object.spec.database_ref.name));
    }

    pub fn graph_schema(&self, event: Happened<GraphSchema>) {
        let object = match &event {
            Happened::Seen(object) => object,
            Happened::Gone(object) => {
                graph_schema::forget(&self.context, object);
                object
            }
        };
        let (namespace, name) = address(&**object);
        self.graph_schemas.wake(&namespace, &name);
        self.family(&policy::database_key(&**object, &object.spec.database_ref.name));
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
