//! Carries a plan out: the steps in waves, since data must not exist before the Secret that opens it, and the duties to the keepers.

mod children;
mod secrets;

use futures::{FutureExt, StreamExt, stream};
use kube::Resource;

use self::{
    children::Children,
    secrets::{create_secret, update_secret},
};
use super::{
    cleanup,
    duties::Duties,
    plan::{FINALIZER, Step},
};
use crate::{
    api::amas_database::AmasDatabase,
    controllers::{Context, credentials::Known},
    engine::{child::ChildKind, writer::WriteError},
    stores::{keeper::Key, workload::Family},
};

/// Requests of one wave that are under way at the same time.
const PARALLEL: usize = 4;

/// Carries out the steps, a wave at a time. The first failure ends it, and so does a name that turns out to be taken: nothing may be
/// made that would use somebody else's object. What was done shows in the next observation.
pub async fn apply(
    context: &Context,
    object: &AmasDatabase,
    family: &Family,
    steps: &[Step],
) -> Result<(), WriteError> {
    for wave in 0..=3 {
        let due: Vec<_> = steps
            .iter()
            .filter(|step| wave_of(step) == wave)
            .map(|step| apply_one(context, object, family, step).boxed())
            .collect();
        let mut under_way = stream::iter(due).buffer_unordered(PARALLEL);
        let mut taken = false;
        while let Some(done) = under_way.next().await {
            taken |= done? == Done::Taken;
        }
        if taken {
            break;
        }
    }
    Ok(())
}

/// How a step ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    Yes,
    /// Somebody else's object has the name.
    Taken,
}

/// Finalizer, Secrets, what a pod mounts (one scheduled before its claim exists waits for the scheduler's next look), the rest.
fn wave_of(step: &Step) -> u8 {
    match step {
        Step::AddFinalizer | Step::RemoveFinalizer => 0,
        Step::CreateSecret(_) | Step::UpdateSecret { .. } | Step::Create(ChildKind::Certificate, _) => 1,
        Step::Create(ChildKind::PersistentVolumeClaim | ChildKind::ServiceAccount | ChildKind::ConfigMap, _)
        | Step::Update(ChildKind::ConfigMap, _) => 2,
        Step::Create(..)
        | Step::Update(..)
        | Step::Replace(..)
        | Step::Grow(..)
        | Step::SendConfig { .. }
        | Step::Restart { .. }
        | Step::KeepJob { .. }
        | Step::Delete(..) => 3,
    }
}

async fn apply_one(context: &Context, object: &AmasDatabase, family: &Family, step: &Step) -> Result<Done, WriteError> {
    if matches!(
        step,
        Step::Create(ChildKind::Certificate, _)
            | Step::Update(ChildKind::Certificate, _)
            | Step::Delete(ChildKind::Certificate, _)
    ) {
        context.issuance.forget(&family.uid);
    }
    let children = Children {
        context,
        object,
        family,
    };
    match step {
        Step::AddFinalizer => {
            let mut finalizers = object.meta().finalizers.clone().unwrap_or_default();
            finalizers.push(FINALIZER.into());
            context.writer.finalizers(object, &finalizers).await?;
        }
        Step::RemoveFinalizer => cleanup::release(context, object).await?,
        Step::CreateSecret(spec) => return create_secret(context, family, spec).await,
        Step::UpdateSecret { spec, from, to } => update_secret(context, family, spec, (from, to)).await?,
        Step::Create(kind, body) => return children.create(*kind, body).await,
        Step::Update(kind, body) => children.update(*kind, body).await?,
        Step::Replace(body, why) => children.replace(body, why).await?,
        Step::Grow(body) => children.grow(body).await?,
        Step::SendConfig { pod, config } => children.send_config(pod, config).await?,
        Step::Restart { pod, why } => children.restart(pod, why).await?,
        Step::Delete(ChildKind::Secret, name) => {
            cleanup::delete_ours(context, family, ChildKind::Secret, name).await?;
            context.credentials.put(&family.namespace, name, Known::Absent);
        }
        Step::KeepJob { job, stays } => children.keep_job(job, *stays).await?,
        Step::Delete(kind, name) => children.delete(*kind, name).await?,
    }
    Ok(Done::Yes)
}

/// Hands the duties to the keepers. Equal duties change nothing; a store that is no longer declared is let go.
pub fn hand_over(context: &Context, key: &Key, object: &AmasDatabase, duties: Duties) {
    let (keepers, spec) = (&context.keepers, &object.spec);
    // What brought this object here may have changed something on a server that nobody is watching.
    keepers.look(key);
    match (duties.postgres, &spec.postgres) {
        (Some(duty), _) => keepers.postgres.assign_base(key, duty),
        (None, None) => keepers.postgres.let_go(key),
        (None, Some(_)) => {}
    }
    match (duties.redis, &spec.redis) {
        (Some(duty), _) => keepers.redis.assign_base(key, duty),
        (None, None) => keepers.redis.let_go(key),
        (None, Some(_)) => {}
    }
    match (duties.neo4j, &spec.neo4j) {
        (Some(duty), _) => keepers.neo4j.assign_base(key, duty),
        (None, None) => keepers.neo4j.let_go(key),
        (None, Some(_)) => {}
    }
}
