//! Secrets, read by name and remembered: those of ours, and those that the user brings.

use crate::{
    api::{REREAD_SECRETS, amas_database::AmasDatabase, common::External, sensitive::Sensitive},
    controllers::{
        Context,
        credentials::{self, Entries, Given, Known, SecretSpec, read_entries},
        database::{
            external, family, secrets,
            table::StoreKind,
            validate::{self, externals, given_names},
        },
    },
    engine::{DATABASE_LABEL, child::ChildKind, children::owner_of, writer::WriteError},
};

use super::{ExternalServer, Observed, annotations::annotation};

/// Reads those that are wanted, those that the user brings, and what the latter say of external servers.
pub async fn read(
    context: &Context,
    object: &AmasDatabase,
    observed: &mut Observed,
    wanted: &[SecretSpec],
) -> Result<(), WriteError> {
    let namespace = object.metadata.namespace.clone().unwrap_or_default();
    let database = object.metadata.name.clone().unwrap_or_default();
    for (store, external) in externals(&object.spec) {
        let server = external_server(context, object, store, external).await?;
        observed.externals.insert(store, server);
    }
    for name in given_names(&object.spec) {
        let known = users_secret(context, &namespace, &name).await?;
        observed.given.insert(name, known);
    }
    for spec in wanted {
        if let Some(known) = secret(context, observed, &namespace, &database, spec).await? {
            observed.secrets.insert(spec.name.clone(), known);
        }
        if let Some(owner) = context.credentials.owner(&namespace, &spec.name) {
            observed.secret_owners.insert(spec.name.clone(), owner);
        }
    }
    Ok(())
}

/// A Secret of ours: from memory, or read by name when it may exist: listed in the status, made by this process, or beside data. A new object's
/// Secrets are not looked for: making them tells.
async fn secret(
    context: &Context,
    observed: &Observed,
    namespace: &str,
    database: &str,
    spec: &SecretSpec,
) -> Result<Option<Known>, WriteError> {
    if let Some(known) = context.credentials.get(namespace, &spec.name) {
        return Ok(Some(known));
    }
    if observed.taken.contains(&(ChildKind::Secret, spec.name.clone())) {
        return Ok(Some(Known::Foreign));
    }
    let may_exist = observed.status.secrets.contains(&spec.name)
        || context.credentials.owner(namespace, &spec.name).is_some()
        || observed
            .children
            .keys()
            .any(|(kind, _)| *kind == ChildKind::PersistentVolumeClaim);
    if !may_exist {
        return Ok(None);
    }
    let known = match context.writer.read(ChildKind::Secret, namespace, &spec.name).await? {
        None => Known::Absent,
        Some(secret) if secret["metadata"]["labels"][DATABASE_LABEL] == *database => {
            context.credentials.put_owner(namespace, &spec.name, owner_of(&secret));
            Known::Present(read_entries(&secret))
        }
        Some(_) => Known::Foreign,
    };
    // What is missing, or has lost its password, is not remembered: it is looked for again until it is there. A taken name is, for a while.
    match &known {
        Known::Present(entries) if spec.is_whole(entries) => {
            context.credentials.put(namespace, &spec.name, known.clone());
        }
        Known::Foreign => context.taken.remember(namespace, ChildKind::Secret, &spec.name),
        Known::Present(_) | Known::Absent => {}
    }
    Ok(Some(known))
}

/// Secrets are read at start, after a change of the specification, when asked for by annotation, and when a server and a Secret disagree. Here it
/// is decided which are read again.
pub fn forget(context: &Context, object: &AmasDatabase, observed: &mut Observed, wanted: &[SecretSpec]) {
    let (namespace, name) = (
        object.metadata.namespace.clone().unwrap_or_default(),
        object.metadata.name.clone().unwrap_or_default(),
    );
    let reason = credentials::Reason {
        generation: object.metadata.generation.unwrap_or_default(),
        asked: annotation(object, REREAD_SECRETS),
    };
    let all = context.credentials.is_new(&namespace, &name, reason);
    let unsure = observed
        .postgres
        .as_ref()
        .is_some_and(|snapshot| !snapshot.facts.unsure.is_empty());
    observed.sure = unsure;
    let again =
        |store: StoreKind| all || observed.barred_since(store).is_some() || unsure && store == StoreKind::Postgres;
    for spec in wanted {
        if secrets::store_of(spec).map_or(all, again) {
            context.credentials.forget(&namespace, &spec.name);
        }
    }
    if again(StoreKind::Postgres) || again(StoreKind::Redis) || again(StoreKind::Neo4j) {
        for name in brought(object) {
            context.credentials.forget(&namespace, &remembered(&name));
        }
    }
}

/// Forgets what was read of a Secret; whether this object reads it.
pub fn forget_read(context: &Context, object: &AmasDatabase, name: &str) -> bool {
    let namespace = object.metadata.namespace.clone().unwrap_or_default();
    let family = family(object, &context.settings);
    let ours = validate::wanted_secrets(&family, &object.spec)
        .iter()
        .any(|secret| secret.name == name);
    let theirs = brought(object).iter().any(|other| other == name);
    context.credentials.forget(&namespace, &remembered(name));
    if ours {
        context.credentials.forget(&namespace, name);
    }
    ours || theirs
}

/// Names of all Secrets that the user brings.
fn brought(object: &AmasDatabase) -> Vec<String> {
    let of_servers = externals(&object.spec).into_iter().flat_map(|(_, external)| {
        let ca = external.tls.ca_secret_ref.as_ref().map(|secret| secret.name.clone());
        [Some(external.secret_ref.name.clone()), ca]
    });
    of_servers.flatten().chain(given_names(&object.spec)).collect()
}

/// Of a user's Secret that cannot be used nothing is remembered: it is looked at again until it can.
pub fn forget_unusable(context: &Context, object: &AmasDatabase, secrets: &[SecretSpec]) {
    let namespace = object.metadata.namespace.clone().unwrap_or_default();
    let unusable = secrets.iter().any(|secret| matches!(secret.given, Given::Unusable(_)));
    for name in given_names(&object.spec).into_iter().filter(|_| unusable) {
        context.credentials.forget(&namespace, &remembered(&name));
    }
}

/// How a user's Secret is kept in memory, apart from one of ours that has the same name.
fn remembered(name: &str) -> String {
    format!("user:{name}")
}

async fn users_secret(context: &Context, namespace: &str, name: &str) -> Result<Known, WriteError> {
    if let Some(known) = context.credentials.get(namespace, &remembered(name)) {
        return Ok(known);
    }
    // Absence is not remembered: it is looked for again until it is there.
    let Some(secret) = context.writer.read(ChildKind::Secret, namespace, name).await? else {
        return Ok(Known::Absent);
    };
    let mut entries = read_entries(&secret);
    // One that is no text (DER) must not be taken for one that is not there.
    let certificates = ["ca.crt", "tls.crt", "tls.key"];
    for key in certificates.into_iter().filter(|key| secret["data"].get(key).is_some()) {
        entries.entry(key.to_owned()).or_insert_with(|| Sensitive::new(""));
    }
    let known = Known::Present(entries);
    context.credentials.put(namespace, &remembered(name), known.clone());
    Ok(known)
}

/// An external server, as the user's Secrets say.
async fn external_server(
    context: &Context,
    object: &AmasDatabase,
    store: StoreKind,
    external: &External,
) -> Result<ExternalServer, WriteError> {
    let namespace = object.metadata.namespace.clone().unwrap_or_default();
    let name = &external.secret_ref.name;
    let Known::Present(entries) = users_secret(context, &namespace, name).await? else {
        return Ok(Err(format!(
            "Secret {namespace}/{name} does not exist; create it with a key uri"
        )));
    };
    let ca: Option<Entries> = match &external.tls.ca_secret_ref {
        Some(other) => match users_secret(context, &namespace, &other.name).await? {
            Known::Present(entries) => Some(entries),
            _ => None,
        },
        None => None,
    };
    let given = external::Given {
        entries: &entries,
        ca: ca.as_ref(),
    };
    Ok(external::server(store, external, &given))
}
