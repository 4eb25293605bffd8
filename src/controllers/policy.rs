//! What CachePolicy and GraphSchema have in common: their database, their store, and how their status is written.

use std::time::Duration;

use crate::{
    api::{
        amas_database::AmasDatabase,
        conditions::{ConditionType, Reason, Wanted},
    },
    controllers::Context,
    engine::{
        Own,
        events::News,
        metrics::Object,
        queue::{Next, ReconcileError, Verdict},
        status::{Book, Timing, Weight, timing},
    },
    stores::{health::Health, keeper::Key},
};

/// How long a policy that waits says nothing, so that one that is Ready soon is written once.
const QUIET: Duration = Duration::from_secs(5);

/// How a policy stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    pub verdict: Verdict,
    pub reason: Reason,
    pub message: String,
}

impl Standing {
    pub fn ready(message: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Converged,
            reason: Reason::Ready,
            message: message.into(),
        }
    }

    pub fn waiting(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Waiting,
            reason,
            message: message.into(),
        }
    }

    pub fn invalid(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Invalid,
            reason,
            message: message.into(),
        }
    }

    /// Ready, and Reconciling or Stalled while it is not.
    pub fn conditions(&self) -> Vec<Wanted> {
        let (reason, message) = (self.reason, &self.message);
        let mut all = vec![Wanted::new(
            ConditionType::Ready,
            self.verdict == Verdict::Converged,
            reason,
            message,
        )];
        match self.verdict {
            Verdict::Converged => {}
            Verdict::Waiting => all.push(Wanted::new(ConditionType::Reconciling, true, reason, message)),
            Verdict::Invalid => all.push(Wanted::new(ConditionType::Stalled, true, reason, message)),
        }
        all
    }
}

/// The key of a policy's database.
pub fn database_key<K: Own>(object: &K, database: &str) -> Key {
    Key {
        namespace: object.meta().namespace.clone().unwrap_or_default(),
        database: database.to_owned(),
    }
}

/// The AmasDatabase a policy names, from the watch cache.
pub fn find_database(context: &Context, key: &Key) -> Option<std::sync::Arc<AmasDatabase>> {
    context.caches.databases.find(|database| {
        database.metadata.namespace.as_deref() == Some(&key.namespace)
            && database.metadata.name.as_deref() == Some(&key.database)
    })
}

/// The standing of a policy whose database or store is not there; `None` when its store answers.
pub fn store_missing(
    database: Option<&AmasDatabase>,
    declared: bool,
    store: &str,
    name: &str,
    health: Option<&Health>,
) -> Option<Standing> {
    match (database, declared, health) {
        (None, ..) => Some(Standing::waiting(
            Reason::DatabaseNotFound,
            format!("AmasDatabase {name} does not exist in this namespace"),
        )),
        (Some(_), false, _) => Some(Standing::invalid(
            Reason::DatabaseNotFound,
            format!("AmasDatabase {name} has no {store}; add spec.{store} to it, or delete this object"),
        )),
        (_, _, Some(health)) if health.is_up() => None,
        (_, _, Some(health))
            if !health.message.is_empty() && health.reason != crate::stores::health::Reason::NeverSeen =>
        {
            Some(Standing::waiting(
                Reason::WaitingForStore,
                format!("{store} of {name} does not serve: {}", health.message),
            ))
        }
        _ => Some(Standing::waiting(
            Reason::WaitingForStore,
            format!("waiting for {store} of {name}"),
        )),
    }
}

/// Whether a policy that was Ready at this generation is only not heard of yet, as after a start of the operator: its status stands.
pub fn stands(
    standing: &Standing,
    health: Option<&Health>,
    observed: Option<i64>,
    generation: Option<i64>,
    ready: bool,
) -> bool {
    let down = health.is_some_and(|health| health.verdict == crate::stores::health::Verdict::Down);
    let only_waiting = standing.verdict == Verdict::Waiting && standing.reason != Reason::DatabaseNotFound;
    only_waiting && !down && ready && observed == generation
}

/// A status as it would be, and what the change means.
pub struct Change<S> {
    pub new: S,
    pub weight: Weight,
    pub standing: Standing,
    /// A human was needed before this change too.
    pub was_stalled: bool,
    /// The object has had no status of this operator before.
    pub first: bool,
    /// How old the figures are that the status shows.
    pub age: Option<Duration>,
}

/// Writes the status if it is time to, and tells a human when one is needed.
pub async fn report<K: Own, S: Clone + serde::Serialize>(
    context: &Context,
    object: &K,
    book: &Book<S>,
    change: Change<S>,
) -> Result<Next, ReconcileError> {
    let meta = object.meta();
    let uid = meta.uid.clone().unwrap_or_default();
    let Change {
        new,
        weight,
        standing,
        first,
        age: change_age,
        was_stalled,
    } = change;
    let since = book.last(&uid).map(|(_, since)| since).or(change_age);
    let created = meta.creation_timestamp.as_ref().map(|time| time.0);
    let age = created
        .and_then(|created| Duration::try_from(k8s_openapi::jiff::Timestamp::now().duration_since(created)).ok())
        .unwrap_or(QUIET);
    let quiet = first && standing.verdict == Verdict::Waiting && age < QUIET;
    let mut after = None;
    match timing(weight, since) {
        Timing::Never => {}
        Timing::Now if quiet => after = Some(QUIET - age),
        Timing::In(pause) => after = Some(pause),
        Timing::Now => {
            context.writer.status(object, &new).await?;
            book.wrote(&uid, new);
            if standing.verdict == Verdict::Invalid && !was_stalled {
                let news = News {
                    warning: true,
                    reason: format!("{:?}", standing.reason),
                    note: standing.message.clone(),
                };
                context.events.publish(object, &news).await;
            }
        }
    }
    let (namespace, name) = (
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    );
    let ready = i64::from(standing.verdict == Verdict::Converged);
    context
        .metrics
        .ready
        .get_or_create(&Object {
            kind: K::KIND,
            namespace,
            name,
        })
        .set(ready);
    Ok(Next {
        verdict: standing.verdict,
        after,
    })
}
