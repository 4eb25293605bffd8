//! The running operator: caches, keepers, watches and the three controllers, put together and run until told to stop.

use std::{future::Future, sync::Arc};

use kube::{
    Client,
    runtime::reflector::{self, store::Writer as CacheWriter},
};
use tokio::sync::mpsc;

use crate::{
    api::{amas_database::AmasDatabase, cache_policy::CachePolicy, graph_schema::GraphSchema},
    controllers::{
        AllKeepers, Books, Caches, Context, Settings, Taken,
        cache_policy::CachePolicies,
        credentials,
        database::Databases,
        graph_schema::GraphSchemas,
        sources::Sources,
        wakes::{Queues, Wakes},
    },
    engine::{
        children::Children,
        events::Events,
        metrics::Metrics,
        queue,
        watch::{self, Scope},
        writer::Writer,
    },
    stores::keeper::{Keepers, Key},
};

/// Everything that runs while this process leads.
pub struct Operator {
    pub context: Arc<Context>,
    client: Client,
    scope: Scope,
    databases: CacheWriter<AmasDatabase>,
    cache_policies: CacheWriter<CachePolicy>,
    graph_schemas: CacheWriter<GraphSchema>,
    keepers_say: mpsc::UnboundedReceiver<Key>,
}

impl Operator {
    pub fn new(client: Client, scope: Scope, writer: Writer, metrics: Metrics, settings: Settings) -> Self {
        let (database_cache, databases) = reflector::store();
        let (cache_policy_cache, cache_policies) = reflector::store();
        let (graph_schema_cache, graph_schemas) = reflector::store();
        let (woken, keepers_say) = mpsc::unbounded_channel();
        let context = Context {
            children: Arc::new(Children::default()),
            caches: Caches {
                databases: database_cache,
                cache_policies: cache_policy_cache,
                graph_schemas: graph_schema_cache,
            },
            keepers: AllKeepers {
                postgres: Keepers::new(woken.clone()),
                redis: Keepers::new(woken.clone()),
                neo4j: Keepers::new(woken),
            },
            books: Books::default(),
            credentials: credentials::Memory::default(),
            sources: Sources::new(settings.bundles.clone()),
            taken: Taken::default(),
            events: Events::new(client.clone(), writer.clone(), &settings.instance),
            metrics,
            settings,
            writer,
        };
        Self {
            context: Arc::new(context),
            client,
            scope,
            databases,
            cache_policies,
            graph_schemas,
            keepers_say,
        }
    }

    /// Runs until `stop`, then lets the reconciles at work finish.
    pub async fn run(self, stop: impl Future<Output = ()> + Clone + Send + 'static) {
        let Self {
            context,
            client,
            scope,
            databases,
            cache_policies,
            graph_schemas,
            keepers_say,
        } = self;
        let (wakes, queues) = Wakes::new(context.clone());

        // Children first: a controller that does not know them would make them again.
        let of_child = wakes.clone();
        let wake_owner = move |owner: (String, String)| of_child.databases.wake(&owner.0, &owner.1);
        watch::children(&client, &scope, &context.children, wake_owner).await;
        tokio::spawn(wakes.clone().forward(keepers_say));
        let (a, b, c) = (wakes.clone(), wakes.clone(), wakes);
        let watch = |client: &Client| (client.clone(), scope.clone());
        let (one, two, three) = (watch(&client), watch(&client), watch(&client));
        tokio::spawn(watch::resources(one.0, one.1, databases, move |event| {
            a.database(event)
        }));
        tokio::spawn(watch::resources(two.0, two.1, cache_policies, move |event| {
            b.cache_policy(event)
        }));
        tokio::spawn(watch::resources(three.0, three.1, graph_schemas, move |event| {
            c.graph_schema(event)
        }));
        let caches = &context.caches;
        let _ = tokio::join!(
            caches.databases.wait_until_ready(),
            caches.cache_policies.wait_until_ready(),
            caches.graph_schemas.wait_until_ready()
        );
        run_queues(&context, queues, stop).await;
    }
}

async fn run_queues(context: &Arc<Context>, queues: Queues, stop: impl Future<Output = ()> + Clone + Send + 'static) {
    let Queues {
        databases,
        cache_policies,
        graph_schemas,
    } = queues;
    let (caches, metrics) = (&context.caches, &context.metrics);
    let one = Arc::new(Databases(context.clone()));
    let two = Arc::new(CachePolicies(context.clone()));
    let three = Arc::new(GraphSchemas(context.clone()));
    tokio::join!(
        queue::run(one, caches.databases.clone(), databases, metrics.clone(), stop.clone()),
        queue::run(
            two,
            caches.cache_policies.clone(),
            cache_policies,
            metrics.clone(),
            stop.clone()
        ),
        queue::run(
            three,
            caches.graph_schemas.clone(),
            graph_schemas,
            metrics.clone(),
            stop
        ),
    );
}
