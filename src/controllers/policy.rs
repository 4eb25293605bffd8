//! The controller of every kind that puts something onto a store of an AmasDatabase: observe, validate, plan, apply, report.
//! Its plan is one duty; the store's keeper carries it out. A kind says what it is by [`Policy`]; the five steps are the same for all.

mod report;
mod standing;

use std::sync::Arc;

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use kube::{core::object::HasStatus, runtime::reflector::Store as Cache};

#[cfg(test)]
pub use self::report::weight;
pub use self::standing::Standing;
use crate::{
    api::{
        amas_database::AmasDatabase,
        conditions::{ConditionType, Reason, is_true, merge},
    },
    controllers::{Context, database::StoreKind, wakes::Wakes},
    engine::{
        Own,
        metrics::Object,
        queue::{Next, Reconcile, ReconcileError, Verdict, Waker},
        status::Book,
    },
    stores::{
        health::{self, Health},
        keeper::{Keepers, Key, Snapshot, Store},
    },
};

/// What the status of every such kind has.
pub trait PolicyStatus: Clone + Default + PartialEq + serde::Serialize + Send + Sync {
    fn observed_generation(&self) -> Option<i64>;
    fn conditions(&self) -> &[Condition];
    fn observe(&mut self, generation: i64, conditions: Vec<Condition>);
}

/// A kind that puts something onto a store: where its things are kept, and what is its own in the five steps.
pub trait Policy: Own + HasStatus<Status: PolicyStatus> {
    type Engine: Store;
    /// What the keeper knows of one object.
    type Facts: Clone + Send + Sync;
    const STORE: StoreKind;

    /// The AmasDatabase it is for.
    fn database(&self) -> &str;
    /// Whether that AmasDatabase has the store.
    fn is_declared(database: &AmasDatabase) -> bool;
    fn cache(context: &Context) -> &Cache<Self>;
    fn book(context: &Context) -> &Book<Self::Status>;
    fn keepers(context: &Context) -> &Keepers<Self::Engine>;
    fn waker(wakes: &Wakes) -> &Waker<Self>;

    /// The duty that the specification means, or what is wrong with it. From the caches alone.
    fn validate(&self, context: &Context) -> Result<<Self::Engine as Store>::Policy, Standing>;
    /// What the keeper knows of the object of this name, whatever generation that is of.
    fn facts<'a>(all: &'a <Self::Engine as Store>::Facts, name: &str) -> Option<&'a Self::Facts>;
    /// The generation that these facts hold for.
    fn generation(facts: &Self::Facts) -> i64;
    /// Whose store it is, if not ours.
    fn conflict(all: &<Self::Engine as Store>::Facts) -> Option<&str>;
    /// How an object stands whose store answers and whose duty is taken up.
    fn standing(duty: &<Self::Engine as Store>::Policy, facts: &Self::Facts) -> Standing;
    /// Puts what is known into a status that has its generation and conditions already. `old` is what it was made from.
    fn show(&self, facts: &Self::Facts, old: &Self::Status, new: &mut Self::Status, now: Timestamp);

    /// The status without what moves by itself.
    fn without_figures(status: &Self::Status) -> Self::Status {
        status.clone()
    }
    /// Figures that are worth a write now and then when they have moved by a fifth.
    fn figures(_status: &Self::Status) -> Vec<i64> {
        Vec::new()
    }
    /// When the figures were taken that the status shows.
    fn figures_at(_status: &Self::Status) -> Option<&Time> {
        None
    }
}

/// Reconciles the objects of every such kind.
pub struct Policies(pub Arc<Context>);

impl<K: Policy> Reconcile<K> for Policies {
    async fn reconcile(&self, object: Arc<K>) -> Result<Next, ReconcileError> {
        let context = &*self.0;
        // Caches and the keeper's snapshot; no request.
        let seen = Seen::of(context, &*object);
        // Pure: the duty, or what is wrong.
        let duty = object.validate(context);
        // The duty to the keeper; nothing is written to Kubernetes.
        match &duty {
            Ok(duty) => K::keepers(context).assign_policy(&seen.key, &seen.name, duty.clone()),
            Err(_) => K::keepers(context).withdraw_policy(&seen.key, &seen.name),
        }
        // Pure: how it stands, and the status that says so.
        let standing = duty.map_or_else(|wrong| wrong, |duty| seen.standing(&duty));
        if seen.only_not_heard_of_yet(&standing) {
            return Ok(Next {
                verdict: Verdict::Converged,
                after: None,
            });
        }
        let new = seen.status(&*object, &standing, Timestamp::now());
        report::report(context, &*object, &seen, standing, new).await
    }

    fn forget(&self, object: &K) {
        forget(&self.0, object);
    }
}

/// Forgets everything about an object that is gone.
pub fn forget<K: Policy>(context: &Context, object: &K) {
    let (key, name) = (database_key(object), name(object));
    K::keepers(context).withdraw_policy(&key, &name);
    K::book(context).forget(uid(object));
    context.metrics.ready.remove(&Object {
        kind: K::KIND,
        namespace: key.namespace,
        name,
    });
}

/// The key of a policy's database.
pub fn database_key<K: Policy>(object: &K) -> Key {
    Key {
        namespace: object.meta().namespace.clone().unwrap_or_default(),
        database: object.database().to_owned(),
    }
}

fn name<K: Own>(object: &K) -> String {
    object.meta().name.clone().unwrap_or_default()
}

fn uid<K: Own>(object: &K) -> &str {
    object.meta().uid.as_deref().unwrap_or_default()
}

/// What is known of an object before anything is decided.
struct Seen<K: Policy> {
    key: Key,
    name: String,
    generation: i64,
    database: Option<Arc<AmasDatabase>>,
    snapshot: Option<Arc<Snapshot<K::Engine>>>,
    /// The status that this process wrote last, or else the object's.
    old: K::Status,
    /// The object has had no status of this operator before.
    first: bool,
}

impl<K: Policy> Seen<K> {
    fn of(context: &Context, object: &K) -> Self {
        let key = database_key(object);
        let written = K::book(context).last(uid(object)).map(|(status, _)| status);
        let first = written.is_none() && object.status().is_none_or(|status| status.conditions().is_empty());
        Self {
            database: find_database(context, &key),
            snapshot: K::keepers(context).snapshot(&key),
            old: written.or_else(|| object.status().cloned()).unwrap_or_default(),
            first,
            generation: object.meta().generation.unwrap_or_default(),
            name: name(object),
            key,
        }
    }

    fn health(&self) -> Option<&Health> {
        self.snapshot.as_ref().map(|snapshot| &snapshot.health)
    }

    /// What the keeper knows of this generation.
    fn facts(&self) -> Option<&K::Facts> {
        let all = &self.snapshot.as_ref()?.facts;
        K::facts(all, &self.name).filter(|facts| K::generation(facts) == self.generation)
    }

    fn standing(&self, duty: &<K::Engine as Store>::Policy) -> Standing {
        let database = self.database.as_deref();
        let declared = database.is_some_and(K::is_declared);
        if let Some(missing) = standing::store_missing(
            database,
            declared,
            K::STORE.component(),
            &self.key.database,
            self.health(),
        ) {
            return missing;
        }
        let conflict = self.snapshot.as_ref().and_then(|snapshot| K::conflict(&snapshot.facts));
        if let Some(conflict) = conflict {
            return Standing::invalid(Reason::Conflicted, conflict);
        }
        self.facts().map_or_else(
            || match database.is_some_and(|database| database.spec.suspend) {
                true => Standing::invalid(
                    Reason::Suspended,
                    format!("AmasDatabase {} is suspended", self.key.database),
                ),
                false => Standing::waiting(Reason::Configuring, "the specification is being taken up"),
            },
            |facts| K::standing(duty, facts),
        )
    }

    /// Whether the object was Ready at this generation and is only not heard of yet, as after a start of the operator: its
    /// status stands.
    fn only_not_heard_of_yet(&self, standing: &Standing) -> bool {
        let down = self
            .health()
            .is_some_and(|health| health.verdict == health::Verdict::Down);
        let only_waiting = standing.verdict == Verdict::Waiting && standing.reason != Reason::DatabaseNotFound;
        let ready = is_true(self.old.conditions(), ConditionType::Ready);
        only_waiting && !down && ready && self.old.observed_generation() == Some(self.generation)
    }

    fn status(&self, object: &K, standing: &Standing, now: Timestamp) -> K::Status {
        let mut new = self.old.clone();
        let conditions = merge(self.old.conditions(), &standing.conditions(), self.generation, now);
        new.observe(self.generation, conditions);
        if let Some(facts) = self.facts() {
            object.show(facts, &self.old, &mut new, now);
        }
        new
    }
}

/// The AmasDatabase a policy names, from the watch cache.
fn find_database(context: &Context, key: &Key) -> Option<Arc<AmasDatabase>> {
    context.caches.databases.find(|database| {
        database.metadata.namespace.as_deref() == Some(&key.namespace)
            && database.metadata.name.as_deref() == Some(&key.database)
    })
}
