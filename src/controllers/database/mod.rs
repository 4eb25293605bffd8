//! The AmasDatabase controller: observe, validate, plan, apply, report.

mod apply;
mod backups;
mod change;
mod cleanup;
mod configuration;
mod duties;
mod external;
mod facts;
#[cfg(test)]
mod fixtures;
mod issuance;
mod jobs;
mod judge;
mod keys;
mod losses;
mod observe;
mod pins;
mod plan;
mod rollout;
mod secrets;
mod status;
mod table;
mod tried;
mod validate;
mod volumes;
mod window;

use std::{sync::Arc, time::Duration};

use kube::Resource;

pub use issuance::Sights;
pub use jobs::Plans;
pub use observe::{eviction_owner, forget_read};
pub use table::StoreKind;

use crate::{
    api::{amas_database::AmasDatabase, common::DeletionPolicy},
    controllers::{Context, Settings},
    engine::{
        Own,
        metrics::Object,
        queue::{Next, Reconcile, ReconcileError, Verdict},
        status::{Timing, timing},
        writer::WriteError,
    },
    stores::{keeper::Key, workload::Family},
};
use status::{Ground, Report};

/// How often a plan may lead to another within one reconcile: Secrets first, then what needs their content.
const PASSES: usize = 4;
/// How long a write that the API refuses for its content is left alone.
const REFUSED: Duration = Duration::from_secs(60);

/// Reconciles AmasDatabases.
pub struct Databases(pub Arc<Context>);

impl Reconcile<AmasDatabase> for Databases {
    async fn reconcile(&self, object: Arc<AmasDatabase>) -> Result<Next, ReconcileError> {
        let context = &*self.0;
        let family = family(&object, &context.settings);
        if object.meta().deletion_timestamp.is_some() {
            return cleanup::clean_up(context, &object, &family).await;
        }
        // Said first: what else is asked for may be invalid.
        context.keepers.pause(&key(&family), object.spec.suspend);
        for _ in 0..PASSES {
            // Caches, snapshots; a Secret or ConfigMap by name when there is a reason to (client).
            let wanted = validate::wanted_secrets(&family, &object.spec);
            let observed = observe::observe(context, &object, &wanted).await?;
            // Pure: values that need no further check, or what is wrong.
            let eviction = eviction_owner(context, &family.namespace, &family.database).map(|(_, eviction)| eviction);
            let valid = match validate::validate(&object, &context.settings, eviction.as_ref(), &observed.users())
                .and_then(|valid| pins::check(&object.spec, &observed).map(|()| valid))
            {
                Ok(valid) => valid,
                Err(problems) => return write_report(context, &object, &observed, &Ground::Invalid(&problems)).await,
            };
            observe::forget_unusable(context, &object, &valid.secrets);
            // Pure: what to write, and what the keepers hold.
            let plan = plan::plan(
                &object.spec,
                &valid,
                &observed,
                &context.settings,
                cleanup::is_finalized(&object),
            );
            apply::hand_over(context, &key(&family), &object, plan.duties.clone());
            if plan.steps.is_empty() {
                return write_report(context, &object, &observed, &Ground::Planned(&valid, &plan)).await;
            }
            // The steps, in waves (client).
            if let Err(error) = apply::apply(context, &object, &family, &plan.steps).await {
                let Some(refusal) = error.refusal().map(str::to_owned) else {
                    return Err(error.into());
                };
                let next = write_report(context, &object, &observed, &Ground::Refused(&valid, &plan, &refusal)).await?;
                // A status that waits to be written does not wait for that.
                let after = next.after.map_or(REFUSED, |after| after.min(REFUSED));
                return Ok(Next {
                    after: Some(after),
                    ..next
                });
            }
        }
        Ok(Next {
            verdict: Verdict::Waiting,
            after: Some(Duration::from_secs(1)),
        })
    }

    fn forget(&self, object: &AmasDatabase) {
        forget(&self.0, object);
    }
}

fn family(object: &AmasDatabase, settings: &Settings) -> Family {
    let meta = object.meta();
    Family {
        namespace: meta.namespace.clone().unwrap_or_default(),
        database: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        data_goes: settings.namespaced && object.spec.deletion_policy == DeletionPolicy::Delete,
    }
}

fn key(family: &Family) -> Key {
    Key {
        namespace: family.namespace.clone(),
        database: family.database.clone(),
    }
}

/// Writes the status if it is time to, and tells what is news (client).
async fn write_report(
    context: &Context,
    object: &AmasDatabase,
    observed: &observe::Observed,
    ground: &Ground<'_>,
) -> Result<Next, ReconcileError> {
    let Report {
        status,
        verdict,
        look_again,
        news,
    } = status::report(object, observed, ground);
    let uid = object.meta().uid.clone().unwrap_or_default();
    // Before the first write of this process: how old the figures are that the status shows.
    let written = context.books.databases.last(&uid).map(|(_, since)| since);
    let since = written.or_else(|| facts::age(&observed.status, observed.now));
    let weight = change::weight(&observed.status, &status);
    let mut after = look_again;
    match timing(weight, since) {
        Timing::Never => {}
        Timing::In(pause) => after = Some(after.map_or(pause, |other| other.min(pause))),
        Timing::Now => {
            write_status(context, object, &status).await?;
            for news in change::news(&observed.status, &status).into_iter().chain(news) {
                context.events.publish(object, &news).await;
            }
        }
    }
    let Family {
        namespace,
        database: name,
        ..
    } = family(object, &context.settings);
    context
        .metrics
        .ready
        .get_or_create(&Object {
            kind: "AmasDatabase",
            namespace,
            name,
        })
        .set(i64::from(verdict == Verdict::Converged));
    Ok(Next { verdict, after })
}

async fn write_status(
    context: &Context,
    object: &AmasDatabase,
    status: &crate::api::amas_database::AmasDatabaseStatus,
) -> Result<(), WriteError> {
    context.writer.status(object, status).await?;
    context
        .books
        .databases
        .wrote(object.meta().uid.as_deref().unwrap_or_default(), status.clone());
    Ok(())
}

/// Forgets everything about an object that is gone.
pub fn forget(context: &Context, object: &AmasDatabase) {
    let family = family(object, &context.settings);
    if object.class() == context.settings.class {
        context.keepers.let_go(&key(&family));
    } else {
        // Handed to another operator: it goes on with the same claims.
        context.keepers.dismiss(&key(&family));
    }
    context.books.databases.forget(&family.uid);
    context.sources.forget(&family.uid);
    context.plans.forget(&family.uid);
    context.issuance.forget(&family.uid);
    context.credentials.forget_reason(&family.namespace, &family.database);
    context.brought.forget(&family.namespace, &family.database);
    context.answers.forget(&family.namespace, &family.database);
    for secret in validate::wanted_secrets(&family, &object.spec) {
        context.credentials.forget(&family.namespace, &secret.name);
    }
    let Family {
        namespace,
        database: name,
        ..
    } = family;
    context.metrics.ready.remove(&Object {
        kind: "AmasDatabase",
        namespace,
        name,
    });
}
