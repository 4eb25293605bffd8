//! The running operator: caches, keepers, watches and the three controllers, put together and run until told to stop.

use std::{fmt::Debug, future::Future, sync::Arc};

use kube::{
    Client,
    runtime::reflector::{self, store::Writer as CacheWriter},
};
use tokio::sync::mpsc;

use crate::{
    api::{amas_database::AmasDatabase, cache_policy::CachePolicy, graph_schema::GraphSchema},
    controllers::{
        AllKeepers, Books, Brought, Caches, Context, Growth, Settings, Taken, credentials,
        database::Databases,
        policy::Policies,
        sources::Sources,
        wakes::{Queues, Wakes},
    },
    engine::{
        Own,
        answers::Answers,
        child::{Watched, kinds},
        children::Children,
        events::Events,
        listing::Listing,
        metrics::Metrics,
        queue,
        watch::{self, Happened, Scope},
        writer::Writer,
    },
    stores::keeper::{Gate, Keepers, Key},
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
        let leads = writer.clone();
        let gate = Gate::new(move || leads.may_write());
        let context = Context {
            children: Arc::new(Children::default()),
            caches: Caches {
                databases: database_cache,
                cache_policies: cache_policy_cache,
                graph_schemas: graph_schema_cache,
            },
            keepers: AllKeepers {
                postgres: Keepers::new(woken.clone()).behind(&gate),
                redis: Keepers::new(woken.clone()).behind(&gate),
                neo4j: Keepers::new(woken).behind(&gate),
            },
            books: Books::default(),
            credentials: credentials::Memory::default(),
            sources: Sources::new(settings.bundles.clone()),
            plans: Arc::default(),
            taken: Taken::default(),
            brought: Brought::default(),
            answers: Answers::default(),
            issuance: crate::controllers::database::Sights::default(),
            growth: Growth::default(),
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
        let listing = watch::children(&client, &scope, &context.children, wake_owner).await;
        tokio::spawn(wakes.clone().forward(keepers_say));
        let watch = Watching {
            client,
            scope,
            listing,
            wakes,
        };
        watch.kind(databases, Wakes::database);
        watch.kind(cache_policies, Wakes::policy);
        watch.kind(graph_schemas, Wakes::policy);
        watch.brought::<kinds::ConfigMap>();
        if context.settings.watches_secrets {
            watch.brought::<kinds::Secret>();
        }
        let caches = &context.caches;
        let _ = tokio::join!(
            caches.databases.wait_until_ready(),
            caches.cache_policies.wait_until_ready(),
            caches.graph_schemas.wait_until_ready()
        );
        run_queues(&context, queues, stop).await;
    }
}

/// What it takes to watch one of our kinds.
struct Watching {
    client: Client,
    scope: Scope,
    listing: Arc<Listing>,
    wakes: Wakes,
}

impl Watching {
    /// Fills the cache of one kind for as long as the process runs, and wakes who has to know.
    fn kind<K: Own>(&self, cache: CacheWriter<K>, happened: fn(&Wakes, Happened<K>)) {
        let wakes = self.wakes.clone();
        let on_event = move |event| happened(&wakes, event);
        tokio::spawn(watch::resources(
            self.client.clone(),
            self.scope.clone(),
            self.listing.clone(),
            cache,
            on_event,
        ));
    }

    /// Wakes whoever reads what people have marked to be watched.
    fn brought<K: Watched + Clone + Debug + Send + Sync>(&self) {
        let wakes = self.wakes.clone();
        let changed = move |kind, namespace: &str, name: &str| wakes.brought(kind, namespace, name);
        tokio::spawn(watch::brought::<K>(self.client.clone(), self.scope.clone(), changed));
    }
}

async fn run_queues(context: &Arc<Context>, queues: Queues, stop: impl Future<Output = ()> + Clone + Send + 'static) {
    let (caches, metrics) = (&context.caches, || context.metrics.clone());
    let databases = Arc::new(Databases(context.clone()));
    let policies = Arc::new(Policies(context.clone()));
    tokio::join!(
        queue::run(
            databases,
            caches.databases.clone(),
            queues.databases,
            metrics(),
            stop.clone()
        ),
        queue::run(
            policies.clone(),
            caches.cache_policies.clone(),
            queues.cache_policies,
            metrics(),
            stop.clone()
        ),
        queue::run(
            policies,
            caches.graph_schemas.clone(),
            queues.graph_schemas,
            metrics(),
            stop
        ),
    );
}
