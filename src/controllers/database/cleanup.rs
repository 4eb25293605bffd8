//! The end of an AmasDatabase: what only we can take away is taken away, then the object is let go. Nothing is made, and nothing waits
//! longer than `deletionTimeout`.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::Resource;

use crate::{
    api::{
        amas_database::AmasDatabase,
        common::DeletionPolicy,
        conditions::{ConditionType, Reason, Wanted, merge},
    },
    controllers::Context,
    engine::{
        DATABASE_LABEL, Own,
        child::ChildKind,
        events::News,
        metrics::Kind,
        queue::{Next, ReconcileError, Verdict},
        writer::WriteError,
    },
    stores::{
        keeper::{Departure, Keepers, Key, Parting, Store},
        workload::Family,
    },
};

use super::{
    duties::{Duties, leaving},
    observe::observe,
    plan::FINALIZER,
    table::StoreKind,
    validate::{self, wanted_secrets},
};

/// How often something that refuses to go is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// What has not gone.
#[derive(Clone, Debug, PartialEq)]
enum Left {
    /// It may go yet; what, and why not so far.
    Pending(String),
    /// It stays, and this is why.
    ForGood(String),
}

/// Whether our finalizer is on the object.
pub fn is_finalized(object: &AmasDatabase) -> bool {
    let mut all = object.meta().finalizers.iter().flatten();
    all.any(|finalizer| finalizer == FINALIZER)
}

/// Takes our finalizer off.
pub async fn release(context: &Context, object: &AmasDatabase) -> Result<(), WriteError> {
    let finalizers = object.meta().finalizers.clone().unwrap_or_default();
    let rest: Vec<String> = finalizers
        .into_iter()
        .filter(|finalizer| finalizer != FINALIZER)
        .collect();
    context.writer.finalizers(object, &rest).await
}

/// One look at an object that is being deleted; woken by its keepers, or after a while.
pub async fn clean_up(context: &Context, object: &AmasDatabase, family: &Family) -> Result<Next, ReconcileError> {
    let key = super::key(family);
    let over = Next {
        verdict: Verdict::Converged,
        after: None,
    };
    if !is_finalized(object) || object.spec.deletion_policy != DeletionPolicy::Delete {
        context.keepers.let_go(&key);
        if is_finalized(object) {
            release(context, object).await?;
        }
        return Ok(over);
    }
    let patience = patience(object, Timestamp::now());
    let mut left = leave_stores(context, object, family, patience).await;
    left.extend(delete_data(context, object, family).await?);
    let pending = left.iter().any(|one| matches!(one, Left::Pending(_)));
    if pending && !patience.is_zero() {
        say_deleting(context, object, &left).await?;
        return Ok(Next {
            verdict: Verdict::Waiting,
            after: Some(patience.min(AGAIN)),
        });
    }
    if !left.is_empty() {
        tell(context, object, &left).await;
    }
    context.keepers.dismiss(&key);
    release(context, object).await?;
    Ok(over)
}

/// How long it may still take.
fn patience(object: &AmasDatabase, now: Timestamp) -> Duration {
    let since = object.meta().deletion_timestamp.as_ref().map_or(now, |time| time.0);
    let waited = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    object.spec.deletion_timeout.get().saturating_sub(waited)
}

/// Takes leave of the servers that are not ours.
async fn leave_stores(context: &Context, object: &AmasDatabase, family: &Family, within: Duration) -> Vec<Left> {
    let (keepers, key, spec) = (&context.keepers, super::key(family), &object.spec);
    let external = |store: StoreKind| store.declared(spec).is_some_and(|store| store.external.is_some());
    if !StoreKind::ALL.into_iter().any(external) {
        return Vec::new();
    }
    // Only the logins are needed; without the Secret that has one there is nothing to be done on its server.
    let (duties, why) = match logins(context, object, family).await {
        Ok(duties) => (duties, String::new()),
        Err(why) => (Duties::default(), why),
    };
    let mut left = Vec::new();
    for store in StoreKind::ALL.into_iter().filter(|store| external(*store)) {
        let state = match store {
            StoreKind::Postgres => leave(&keepers.postgres, &key, duties.postgres.clone(), within),
            StoreKind::Redis => leave(&keepers.redis, &key, duties.redis.clone(), within),
            StoreKind::Neo4j => leave(&keepers.neo4j, &key, duties.neo4j.clone(), within),
        };
        let name = match (&spec.postgres, store) {
            (Some(postgres), StoreKind::Postgres) => {
                format!("postgres database {} and its roles, if we made them", postgres.database)
            }
            _ => format!("the claim in {}", store.component()),
        };
        match state {
            None => left.push(Left::Pending(format!("{name}: its login is not known ({why})"))),
            Some(Departure::UnderWay(why)) => left.push(Left::Pending(format!(
                "{name}: {}",
                why.unwrap_or_else(|| "under way".into())
            ))),
            Some(Departure::Done(stays)) => {
                left.extend(stays.into_iter().map(|what| Left::ForGood(format!("{name}: {what}"))))
            }
        }
    }
    left
}

fn leave<S: Store>(keepers: &Keepers<S>, key: &Key, base: Option<S::Base>, within: Duration) -> Option<Departure> {
    if keepers.departure(key).is_none() {
        let base = keepers.base(key).or(base)?;
        keepers.part(key, base, Parting::Drop, within);
    }
    keepers.departure(key)
}

async fn logins(context: &Context, object: &AmasDatabase, family: &Family) -> Result<Duties, String> {
    let observed = observe(context, object, &[]).await.map_err(|error| error.to_string())?;
    let valid = validate::validate(object, &context.settings, None, &observed.users())
        .map_err(|problems| problems.join("; "))?;
    let problems: Vec<&str> = observed
        .externals
        .values()
        .filter_map(|endpoint| endpoint.as_ref().err().map(String::as_str))
        .collect();
    let duties = leaving(&object.spec, &valid, &observed, &context.settings);
    tracing::debug!(
        database = family.database,
        problems = problems.join("; "),
        "logins for leaving"
    );
    match problems.is_empty() || duties != Duties::default() {
        true => Ok(duties),
        false => Err(problems.join("; ")),
    }
}

/// Deletes volumes and Secrets. One that is gone already, or that is somebody else's, is done.
async fn delete_data(context: &Context, object: &AmasDatabase, family: &Family) -> Result<Vec<Left>, WriteError> {
    let status = object.status.clone().unwrap_or_default();
    let children = context
        .children
        .of(&(family.namespace.clone(), family.database.clone()));
    let claims = children
        .keys()
        .filter(|(kind, _)| *kind == ChildKind::PersistentVolumeClaim)
        .map(|(_, name)| name.clone());
    let mut volumes: Vec<String> = claims.chain(status.volumes).collect();
    let wanted = wanted_secrets(family, &object.spec);
    let mut secrets: Vec<String> = wanted
        .into_iter()
        .map(|secret| secret.name)
        .chain(status.secrets)
        .collect();
    let mut left = Vec::new();
    for (kind, names) in [
        (ChildKind::PersistentVolumeClaim, &mut volumes),
        (ChildKind::Secret, &mut secrets),
    ] {
        names.sort();
        names.dedup();
        for name in names.iter() {
            match delete_ours(context, family, kind, name).await {
                Ok(()) => {}
                Err(error) => match error.refusal() {
                    Some(refusal) => left.push(Left::Pending(format!("{kind:?} {name}: {refusal}"))),
                    None => return Err(error),
                },
            }
        }
    }
    Ok(left)
}

/// Deletes by name, but never somebody else's object.
pub async fn delete_ours(context: &Context, family: &Family, kind: ChildKind, name: &str) -> Result<(), WriteError> {
    match context.writer.read(kind, &family.namespace, name).await? {
        Some(found) if found["metadata"]["labels"][DATABASE_LABEL] == *family.database => {
            context.credentials.forget(&family.namespace, name);
            context.writer.delete(kind, &family.namespace, name).await
        }
        _ => Ok(()),
    }
}

/// What the deletion waits for, in the status.
async fn say_deleting(context: &Context, object: &AmasDatabase, left: &[Left]) -> Result<(), WriteError> {
    let uid = object.meta().uid.clone().unwrap_or_default();
    let written = context.books.databases.last(&uid).map(|(status, _)| status);
    let old = written.or_else(|| object.status.clone()).unwrap_or_default();
    let message = format!("waiting at most {}: {}", object.spec.deletion_timeout, words(left));
    let wanted = [ConditionType::Ready, ConditionType::Reconciling].map(|kind| {
        Wanted::new(
            kind,
            kind == ConditionType::Reconciling,
            Reason::Deleting,
            message.clone(),
        )
    });
    let generation = object.meta().generation.unwrap_or_default();
    let mut new = old.clone();
    new.conditions = merge(&old.conditions, &wanted, generation, Timestamp::now());
    if new == old {
        return Ok(());
    }
    super::write_status(context, object, &new).await
}

fn words(left: &[Left]) -> String {
    let all = left
        .iter()
        .map(|(Left::Pending(what) | Left::ForGood(what))| what.as_str());
    all.collect::<Vec<_>>().join("; ")
}

/// An Event, a log line and a counter for what stays.
async fn tell(context: &Context, object: &AmasDatabase, left: &[Left]) {
    let what = words(left);
    let meta = object.meta();
    tracing::warn!(
        namespace = meta.namespace,
        name = meta.name,
        left = what,
        "deleted, and not everything went along"
    );
    let counter = context.metrics.left_behind.get_or_create_owned(&Kind {
        kind: AmasDatabase::KIND,
    });
    counter.inc_by(left.len() as u64);
    let news = News {
        warning: true,
        reason: "LeftBehind".into(),
        note: format!("deleted, but left behind: {what}"),
    };
    context.events.publish(object, &news).await;
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::controllers::database::fixtures::{at, platform};

    #[test]
    fn patience_ends_with_the_timeout() {
        let mut object = platform();
        object.metadata.deletion_timestamp = Some(Time(at(100)));
        let left = |second| patience(&object, at(second)).as_secs();
        assert_eq!([left(100), left(130), left(160), left(500)], [60, 30, 0, 0]);
    }
}
