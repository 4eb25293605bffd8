//! One watch a kind and namespace, for our three kinds and for their children, feeding the caches and waking objects.

use std::{collections::HashSet, fmt::Debug, sync::Arc};

use futures::{FutureExt, StreamExt};
use kube::{
    Api, Client, Resource, ResourceExt,
    core::NamespaceResourceScope,
    runtime::{
        WatchStreamExt,
        reflector::{ObjectRef, store::Writer as CacheWriter},
        watcher,
    },
};

use super::{
    DATABASE_LABEL, Own,
    child::{Child, ChildKind, Watched, kinds},
    children::{Children, Owner},
    listing::Listing,
    merge::Merge,
};

/// What marks a ConfigMap or Secret that somebody else makes and wants to be watched.
const WATCHED: &str = "amas.dev/watch=true";

/// Which namespaces are watched: all, or a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    namespaces: Vec<String>,
    /// Those among them that refused us at the start.
    closed: HashSet<String>,
    class: String,
}

impl Scope {
    /// An empty list means the whole cluster.
    pub fn new(namespaces: Vec<String>) -> Self {
        let namespaces = if namespaces.is_empty() {
            vec![String::new()]
        } else {
            namespaces
        };
        Self {
            namespaces,
            closed: HashSet::new(),
            class: String::new(),
        }
    }

    /// Of our kinds, only objects of this class; empty: those without one.
    pub fn of_class(self, class: &str) -> Self {
        Self {
            class: class.to_owned(),
            ..self
        }
    }

    /// These are watched as soon as they let us, and not waited for.
    pub fn without_waiting_for(self, closed: HashSet<String>) -> Self {
        Self { closed, ..self }
    }

    fn waited_for(&self) -> impl Iterator<Item = &String> {
        self.namespaces
            .iter()
            .filter(|namespace| !self.closed.contains(*namespace))
    }

    /// The namespaces, one empty name standing for all.
    pub fn namespaces(&self) -> &[String] {
        &self.namespaces
    }

    pub fn api<K>(&self, client: &Client, namespace: &str) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        match namespace {
            "" => Api::all(client.clone()),
            namespace => Api::namespaced(client.clone(), namespace),
        }
    }
}

/// Something that happened to one of our own resources.
pub enum Happened<K> {
    Seen(Arc<K>),
    Gone(Arc<K>),
}

/// Watches one of our kinds in all namespaces of the scope, each once its children are known, keeps `cache` and tells `on_event`. Runs for ever.
pub async fn resources<K: Own>(
    client: Client,
    scope: Scope,
    listing: Arc<Listing>,
    mut cache: CacheWriter<K>,
    on_event: impl Fn(Happened<K>) + Send,
) {
    let streams = scope.namespaces().iter().map(|namespace| {
        let namespace = namespace.clone();
        let config = watcher::Config::default().streaming_lists();
        let stream = watcher(scope.api::<K>(&client, &namespace), config)
            .default_backoff()
            .modify(forget_bulk);
        let (listing, of) = (listing.clone(), namespace.clone());
        let stream = async move {
            listing.over(&of).await;
            stream
        };
        let stream = stream.flatten_stream();
        stream.map(move |event| (namespace.clone(), event)).boxed()
    });
    let mut events = futures::stream::select_all(streams);
    let mut merge = Merge::new(scope.waited_for().cloned().collect());
    while let Some((namespace, event)) = events.next().await {
        match event {
            Ok(event) => {
                let Some(event) = of_class(event, &scope.class, &cache) else {
                    continue;
                };
                for event in merge.take(&namespace, event, &cache) {
                    cache.apply_watcher_event(&event);
                    match event {
                        watcher::Event::Apply(object) | watcher::Event::InitApply(object) => {
                            on_event(Happened::Seen(Arc::new(object)))
                        }
                        watcher::Event::Delete(object) => on_event(Happened::Gone(Arc::new(object))),
                        watcher::Event::Init | watcher::Event::InitDone => {}
                    }
                }
            }
            Err(error) => tracing::warn!(%error, kind = K::KIND, "watch interrupted; it resumes by itself"),
        }
    }
}

/// Objects of another operator's class are not there for us; one that was ours until now is gone.
fn of_class<K: Own>(event: watcher::Event<K>, class: &str, cache: &CacheWriter<K>) -> Option<watcher::Event<K>> {
    let known = |object: &K| cache.as_reader().get(&ObjectRef::from_obj(object)).is_some();
    match event {
        watcher::Event::Apply(object) if object.class() != class => {
            known(&object).then_some(watcher::Event::Delete(object))
        }
        watcher::Event::InitApply(object) if object.class() != class => None,
        event => Some(event),
    }
}

/// What other tools wrote into an object for themselves, and nobody here reads.
fn forget_bulk<K: ResourceExt>(object: &mut K) {
    object.managed_fields_mut().clear();
    object
        .annotations_mut()
        .remove("kubectl.kubernetes.io/last-applied-configuration");
}

/// Watches every kind of child by our label, keeps the index and calls `wake` for each owner with news. Returns once all have been listed
/// in the namespaces that are waited for; the tasks run on.
pub async fn children(
    client: &Client,
    scope: &Scope,
    index: &Arc<Children>,
    wake: impl Fn(Owner) + Clone + Send + Sync + 'static,
) -> Arc<Listing> {
    let listing = Listing::of(scope.namespaces(), ChildKind::WATCHED.len());
    for namespace in scope.namespaces() {
        macro_rules! spawn {
            ($($kind:ident),*) => { $( {
                let (api, index, listing, wake) = (scope.api::<Child<kinds::$kind>>(client, namespace), index.clone(), listing.clone(), wake.clone());
                tokio::spawn(watch_children(api, namespace.clone(), index, listing, wake));
            } )* };
        }
        spawn!(
            ServiceAccount,
            ConfigMap,
            Service,
            NetworkPolicy,
            PodDisruptionBudget,
            PersistentVolumeClaim,
            StatefulSet,
            Job,
            Pod
        );
    }
    for namespace in scope.waited_for() {
        listing.over(namespace).await;
    }
    listing
}

/// Watches the objects of one kind that people have marked, and tells namespace and name of each that has changed. Runs for ever.
pub async fn brought<K: Watched + Clone + Debug + Send + Sync>(
    client: Client,
    scope: Scope,
    changed: impl Fn(ChildKind, &str, &str) + Send,
) {
    let streams = scope.namespaces().iter().map(|namespace| {
        let config = watcher::Config::default().labels(WATCHED).streaming_lists();
        watcher(scope.api::<Child<K>>(&client, namespace), config)
            .default_backoff()
            .boxed()
    });
    let mut events = futures::stream::select_all(streams);
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object) | watcher::Event::Delete(object)) => {
                let (namespace, name) = (object.meta.namespace.as_deref(), object.meta.name.as_deref());
                changed(K::KIND, namespace.unwrap_or_default(), name.unwrap_or_default());
            }
            Ok(watcher::Event::Init | watcher::Event::InitDone) => {}
            Err(error) => tracing::warn!(%error, kind = ?K::KIND, "watch interrupted; it resumes by itself"),
        }
    }
}

async fn watch_children<K: Watched + Clone + Debug + Send + Sync>(
    api: Api<Child<K>>,
    namespace: String,
    index: Arc<Children>,
    listing: Arc<Listing>,
    wake: impl Fn(Owner),
) {
    let config = watcher::Config::default().labels(DATABASE_LABEL).streaming_lists();
    let mut events = watcher(api, config).default_backoff().boxed();
    let mut present = HashSet::new();
    let mut first = true;
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Init) => present.clear(),
            Ok(watcher::Event::InitApply(child)) => {
                let meta = &child.meta;
                present.insert((
                    meta.namespace.clone().unwrap_or_default(),
                    meta.name.clone().unwrap_or_default(),
                ));
                index.saw(&child).map(&wake);
            }
            Ok(watcher::Event::InitDone) => {
                index
                    .keep_only(K::KIND, &namespace, &present)
                    .into_iter()
                    .for_each(&wake);
                if std::mem::take(&mut first) {
                    listing.listed(&namespace);
                }
            }
            Ok(watcher::Event::Apply(child)) => {
                index.saw(&child).map(&wake);
            }
            Ok(watcher::Event::Delete(child)) => {
                index.gone(K::KIND, &child.meta).map(&wake);
            }
            Err(error) => tracing::warn!(%error, kind = ?K::KIND, "watch interrupted; it resumes by itself"),
        }
    }
}
