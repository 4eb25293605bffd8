//! When a status is written, and what is said beside it.

use std::time::Duration;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

use super::{Policy, PolicyStatus, Seen, Standing, uid};
use crate::{
    api::conditions::{ConditionType, is_true},
    controllers::Context,
    engine::{
        events::News,
        metrics::Object,
        queue::{Next, ReconcileError, Verdict},
        status::{Timing, Weight, timing},
    },
};

/// How long a policy that waits says nothing, so that one that is Ready soon is written once.
const QUIET: Duration = Duration::from_secs(5);

/// How much the change of a status matters.
pub fn weight<K: Policy>(old: &K::Status, new: &K::Status) -> Weight {
    if K::without_figures(old) != K::without_figures(new) {
        let flags = |status: &K::Status| {
            [ConditionType::Ready, ConditionType::Stalled].map(|kind| is_true(status.conditions(), kind))
        };
        return if flags(old) == flags(new) {
            Weight::Progress
        } else {
            Weight::News
        };
    }
    let moved = |(old, new): (&i64, &i64)| (new - old).unsigned_abs() * 5 >= old.unsigned_abs().max(5);
    let (old, new) = (K::figures(old), K::figures(new));
    if old.len() != new.len() || old.iter().zip(&new).any(moved) {
        Weight::Figures
    } else {
        Weight::None
    }
}

/// How long ago it was, nothing if that is not known or still to come.
fn elapsed(since: Option<&Time>) -> Option<Duration> {
    Duration::try_from(Timestamp::now().duration_since(since?.0)).ok()
}

/// Writes the status if it is time to, and tells a human when one is needed.
pub async fn report<K: Policy>(
    context: &Context,
    object: &K,
    seen: &Seen<K>,
    standing: Standing,
    new: K::Status,
) -> Result<Next, ReconcileError> {
    let (meta, book) = (object.meta(), K::book(context));
    let written = book.last(uid(object)).map(|(_, since)| since);
    // Before the first write of this process: how old the figures are that the status shows.
    let since = written.or_else(|| elapsed(K::figures_at(&seen.old)));
    let age = elapsed(meta.creation_timestamp.as_ref()).unwrap_or(QUIET);
    let quiet = seen.first && standing.verdict == Verdict::Waiting && age < QUIET;
    let mut after = None;
    match timing(weight::<K>(&seen.old, &new), since) {
        Timing::Never => {}
        Timing::Now if quiet => after = Some(QUIET - age),
        Timing::In(pause) => after = Some(pause),
        Timing::Now => {
            context.writer.status(object, &new).await?;
            book.wrote(uid(object), new);
            if standing.verdict == Verdict::Invalid && !is_true(seen.old.conditions(), ConditionType::Stalled) {
                let news = News {
                    warning: true,
                    reason: format!("{:?}", standing.reason),
                    note: standing.message.clone(),
                };
                context.events.publish(object, &news).await;
            }
        }
    }
    let gauge = context.metrics.ready.get_or_create(&Object {
        kind: K::KIND,
        namespace: seen.key.namespace.clone(),
        name: seen.name.clone(),
    });
    gauge.set(i64::from(standing.verdict == Verdict::Converged));
    drop(gauge);
    Ok(Next {
        verdict: standing.verdict,
        after,
    })
}
