//! Writes Secrets: each once, and never over what somebody else has put there.

use super::Done;
use crate::{
    controllers::{
        Context,
        credentials::{Entries, Known, Rotation, SecretSpec, read_entries},
    },
    engine::{
        child::ChildKind,
        children::owner_of,
        metrics::Credential,
        writer::{Created, WriteError},
    },
    stores::workload::Family,
};

pub(super) async fn create_secret(context: &Context, family: &Family, spec: &SecretSpec) -> Result<Done, WriteError> {
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
pub(super) async fn update_secret(
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
