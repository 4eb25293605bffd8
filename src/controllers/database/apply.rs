//! Carries a plan out: the steps in waves, since data must not exist before the Secret that opens it, and the duties to the keepers.

use futures::{FutureExt, StreamExt, stream};
use kube::Resource;

use crate::{
    api::{CONFIG_SENT, amas_database::AmasDatabase},
    controllers::{
        Context,
        credentials::{Entries, Known, Rotation, SecretSpec, read_entries},
    },
    engine::{
        answers::Verdict,
        child::ChildKind,
        children::owner_of,
        events::News,
        metrics::Credential,
        writer::{Created, WriteError},
    },
    stores::{keeper::Key, workload::Family},
};

use super::{
    cleanup,
    duties::Duties,
    plan::{FINALIZER, Step},
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
        | Step::Delete(..) => 3,
    }
}

async fn apply_one(context: &Context, object: &AmasDatabase, family: &Family, step: &Step) -> Result<Done, WriteError> {
    let Family {
        namespace, database, ..
    } = family;
    if matches!(
        step,
        Step::Create(ChildKind::Certificate, _)
            | Step::Update(ChildKind::Certificate, _)
            | Step::Delete(ChildKind::Certificate, _)
    ) {
        context.issuance.forget(&family.uid);
    }
    match step {
        Step::AddFinalizer => {
            let mut finalizers = object.meta().finalizers.clone().unwrap_or_default();
            finalizers.push(FINALIZER.into());
            context.writer.finalizers(object, &finalizers).await?;
        }
        Step::RemoveFinalizer => cleanup::release(context, object).await?,
        Step::CreateSecret(spec) => return create_secret(context, family, spec).await,
        Step::UpdateSecret { spec, from, to } => update_secret(context, family, spec, (from, to)).await?,
        Step::Create(kind, body) => match context.writer.create(*kind, namespace, database, body).await? {
            Created::New(made) => {
                context.brought.to(namespace, *kind, body);
                take_answer(context, object, *kind, (body, &made)).await;
            }
            Created::Ours(found) => {
                context.brought.to(namespace, *kind, body);
                context.children.wrote(*kind, &found);
            }
            Created::Foreign => {
                let name = body["metadata"]["name"].as_str().unwrap_or_default();
                context.taken.remember(namespace, *kind, name);
                return Ok(Done::Taken);
            }
        },
        Step::Update(kind, body) => {
            let updated = context.writer.update(*kind, namespace, body).await?;
            let as_written = take_answer(context, object, *kind, (body, &updated)).await;
            if was_moved(context, object, *kind, body) && as_written {
                let name = body["metadata"]["name"].as_str().unwrap_or_default();
                let news = News {
                    warning: false,
                    reason: "Corrected".into(),
                    note: format!("{kind:?} {name} had been changed, and is as specified again"),
                };
                context.events.publish(object, &news).await;
            }
        }
        Step::Replace(body, why) => {
            let updated = context.writer.update(ChildKind::StatefulSet, namespace, body).await?;
            take_answer(context, object, ChildKind::StatefulSet, (body, &updated)).await;
            let name = body["metadata"]["name"].as_str().unwrap_or_default();
            let news = News {
                warning: false,
                reason: "Restarting".into(),
                note: format!("{name} restarts: {why}"),
            };
            context.events.publish(object, &news).await;
        }
        Step::Grow(body) => {
            let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
            let key = (
                text(&body["metadata"]["name"]),
                text(&body["spec"]["resources"]["requests"]["storage"]),
            );
            match context
                .writer
                .update(ChildKind::PersistentVolumeClaim, namespace, body)
                .await
            {
                Ok(updated) => context.children.wrote(ChildKind::PersistentVolumeClaim, &updated),
                // The server's pod goes on as it is, and so does everything else of this object.
                Err(error) => match error.refusal().map(str::to_owned) {
                    Some(why) => context.growth.refused(namespace, key, &why),
                    None => return Err(error),
                },
            }
        }
        Step::SendConfig { pod, config } => {
            let annotation = (CONFIG_SENT, config.as_str());
            let patched = context
                .writer
                .annotate(ChildKind::Pod, namespace, pod, annotation)
                .await?;
            if let Some(patched) = patched {
                context.children.wrote(ChildKind::Pod, &patched);
            }
        }
        Step::Restart { pod, why } => {
            context.writer.delete(ChildKind::Pod, namespace, pod).await?;
            let key = (namespace.clone(), database.clone());
            context.children.forget(&key, &(ChildKind::Pod, pod.clone()));
            let news = News {
                warning: false,
                reason: "Restarting".into(),
                note: format!("{pod} restarts: {why}"),
            };
            context.events.publish(object, &news).await;
        }
        Step::Delete(ChildKind::Secret, name) => {
            cleanup::delete_ours(context, family, ChildKind::Secret, name).await?;
            context.credentials.put(namespace, name, Known::Absent);
        }
        Step::Delete(kind, name) => {
            context.writer.delete(*kind, namespace, name).await?;
            context
                .children
                .forget(&(namespace.clone(), database.clone()), &(*kind, name.clone()));
        }
    }
    Ok(Done::Yes)
}

/// Takes in what became of a write. False where the cluster has made something else of it, which is told once.
async fn take_answer(
    context: &Context,
    object: &AmasDatabase,
    kind: ChildKind,
    (body, answer): (&serde_json::Value, &serde_json::Value),
) -> bool {
    let namespace = object.meta().namespace.as_deref().unwrap_or_default();
    let verdict = context.answers.take(namespace, kind, body, answer);
    context.children.wrote(kind, answer);
    if let Verdict::Changed(fields) = &verdict {
        let name = body["metadata"]["name"].as_str().unwrap_or_default();
        tracing::warn!(
            namespace,
            ?kind,
            name,
            fields,
            "a webhook or policy of the cluster changes what is written"
        );
        let news = News {
            warning: true,
            reason: "ChildMutated".into(),
            note: format!(
                "{kind:?} {name}: a webhook or policy of the cluster changes {fields}; it is left so until that or the specification changes"
            ),
        };
        context.events.publish(object, &news).await;
    }
    verdict == Verdict::AsWritten
}

/// Whether somebody else has changed a child that we now put right: we had brought it to the same before. Of what a process before
/// this one did only the generation tells, and for a ConfigMap not even that, since policies have their part in it.
fn was_moved(context: &Context, object: &AmasDatabase, kind: ChildKind, body: &serde_json::Value) -> bool {
    let namespace = object.meta().namespace.as_deref().unwrap_or_default();
    let observed = object.status.as_ref().and_then(|status| status.observed_generation);
    match context.brought.to(namespace, kind, body) {
        Some(before) => before == kind.hash(body),
        None => kind != ChildKind::ConfigMap && observed == object.meta().generation,
    }
}

async fn create_secret(context: &Context, family: &Family, spec: &SecretSpec) -> Result<Done, WriteError> {
    let Family {
        namespace, database, ..
    } = family;
    let entries = spec.entries(&Entries::new());
    let object = spec.object(family, &entries);
    let known = match context
        .writer
        .create(ChildKind::Secret, namespace, database, &object)
        .await?
    {
        Created::New(made) => {
            context.credentials.put_owner(namespace, &spec.name, owner_of(&made));
            Known::Present(entries)
        }
        Created::Ours(found) => {
            context.credentials.put_owner(namespace, &spec.name, owner_of(&found));
            Known::Present(read_entries(&found))
        }
        Created::Foreign => {
            context.taken.remember(namespace, ChildKind::Secret, &spec.name);
            return Ok(Done::Taken);
        }
    };
    context.credentials.put(namespace, &spec.name, known);
    Ok(Done::Yes)
}

/// Changes a Secret from what it was taken for. Is it another by now, then that is looked at first: somebody may have put a password there.
async fn update_secret(
    context: &Context,
    family: &Family,
    spec: &SecretSpec,
    (from, to): (&Entries, &Entries),
) -> Result<(), WriteError> {
    let namespace = &family.namespace;
    let Some(live) = context.writer.read(ChildKind::Secret, namespace, &spec.name).await? else {
        context.credentials.forget(namespace, &spec.name);
        return Ok(());
    };
    let found = read_entries(&live);
    if found != *from {
        context.credentials.put(namespace, &spec.name, Known::Present(found));
        return Ok(());
    }
    context
        .writer
        .replace(ChildKind::Secret, namespace, live, &spec.object(family, to))
        .await?;
    context
        .credentials
        .put(namespace, &spec.name, Known::Present(to.clone()));
    let owner = owner_of(&spec.object(family, to));
    context.credentials.put_owner(namespace, &spec.name, owner);
    if Rotation::read(to).count > Rotation::read(from).count {
        let credential = spec.credential().unwrap_or_default().to_owned();
        tracing::info!(namespace, secret = spec.name, credential, "a new password is published");
        let series = Credential {
            namespace: namespace.clone(),
            database: family.database.clone(),
            credential,
        };
        context.metrics.rotations.get_or_create(&series).inc();
    }
    Ok(())
}

/// Hands the duties to the keepers. Equal duties change nothing; a store that is no longer declared is let go.
pub fn hand_over(context: &Context, key: &Key, object: &AmasDatabase, duties: Duties) {
    let (keepers, spec) = (&context.keepers, &object.spec);
    keepers.pause(key, spec.suspend);
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
