//! Everything a reconcile looks at, gathered once: watch caches, keepers' snapshots, and, when there is a reason to, a Secret or ConfigMap by name.

mod policies;

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::jiff::Timestamp;
use kube::Resource;

use crate::{
    api::{
        ACCEPT_DRIFT, ACCEPT_EMPTY, APPROVE_PLAN, REISSUE, RENEW, REREAD_SECRETS, RESTART, ROTATE, TAKE_OVER,
        amas_database::{AmasDatabase, AmasDatabaseStatus},
        common::External,
        conditions::shorten,
        migrations::{DriftMode, ImageSource},
        sensitive::Sensitive,
    },
    controllers::{
        Context, GrowthKey,
        credentials::{self, Entries, Given, Known, SecretSpec, read_entries},
        sources::{self, Files, REREAD, Reason, SeedFiles},
    },
    engine::{
        DATABASE_LABEL,
        child::ChildKind,
        children::{self, owner_of},
        writer::WriteError,
    },
    stores::{
        keeper::{Key, Snapshot},
        neo4j::Neo4j,
        postgres::{MigrationFacts, Postgres},
        redis::Redis,
    },
};

use super::{
    external,
    issuance::{self, Sight},
    jobs::Plans,
    losses, secrets,
    table::StoreKind,
    validate::{self, externals, given_names},
};

pub use self::policies::{Policy, eviction_owner};

/// Of a one-shot annotation's value, which may be as long as it likes, this much counts.
const HANDLED_LIMIT: usize = 253;
/// Where the status keeps the last handled value of the annotation that asks to take over.
pub const HANDLED_TAKE_OVER: &str = "take-over";
/// The same of the one that accepts a changed schema.
pub const HANDLED_DRIFT: &str = "accept-drift";
/// The same of the one by which sources are read again.
pub const HANDLED_REREAD: &str = "reread-sources";

/// An external server as its Secret describes it, or what is wrong with that.
pub type ExternalServer = Result<external::Server, String>;

/// What was seen.
pub struct Observed {
    pub now: Timestamp,
    /// The status as it was last written, by this process or before it.
    pub status: AmasDatabaseStatus,
    pub children: children::Family,
    /// Names that somebody else's objects have.
    pub taken: Vec<(ChildKind, String)>,
    /// Growths of volumes that were refused.
    pub growth_refused: BTreeMap<GrowthKey, String>,
    /// By the Secret's name; those that were never looked for are not in it.
    pub secrets: BTreeMap<String, Known>,
    /// The uid of the AmasDatabase that a Secret goes with, of those that were looked at.
    pub secret_owners: BTreeMap<String, Option<String>>,
    /// Secrets that the status lists and the specification does not, and that are not known to be gone.
    pub former_secrets: Vec<String>,
    pub externals: BTreeMap<StoreKind, ExternalServer>,
    /// Secrets that the user brings passwords in, by name.
    pub given: BTreeMap<String, Known>,
    /// The server has other passwords than the Secrets, which were therefore read again just now.
    pub sure: bool,
    pub created: Timestamp,
    /// The annotations that ask for new passwords.
    pub rotate: Option<String>,
    pub reissue: Option<String>,
    pub postgres: Option<Arc<Snapshot<Postgres>>>,
    pub redis: Option<Arc<Snapshot<Redis>>>,
    pub neo4j: Option<Arc<Snapshot<Neo4j>>>,
    pub files: Option<Files>,
    /// The seed files of the profile that is asked for; `None` when none is.
    pub seed_files: Option<SeedFiles>,
    /// The status describes the present generation.
    pub same_generation: bool,
    pub policies: Vec<Policy>,
    /// The annotation that asks for a restart of the managed servers.
    pub restart: Option<String>,
    /// The annotation that asks to take over what somebody else claims, until it is handled.
    pub take_over: Option<String>,
    /// The annotation that lets a store begin anew, empty, until it is handled.
    pub accept_empty: Option<String>,
    /// The source whose files a Job has to bring into the database.
    pub deposit: Option<String>,
    /// The version that the specification asks for.
    pub back_to: Option<i64>,
    /// What the specification says of a schema that somebody has changed.
    pub corrects_drift: bool,
    /// The annotation that accepts the schema as it is, until it is handled.
    pub accept_drift: Option<String>,
    /// The plan that the annotation approves.
    pub approved_plan: Option<String>,
    /// The annotation by which sources are read again, until it is handled: what failed is tried once more.
    pub try_again: Option<String>,
    /// The annotation that asks for new certificates.
    pub renew: Option<String>,
    /// What an issuer has given; `None` where none is asked.
    pub issuance: Option<Sight>,
    /// Plans that were read before.
    pub plans: Arc<Plans>,
}

impl Observed {
    /// What users' Secrets hold.
    pub fn users(&self) -> validate::Secrets<'_> {
        validate::Secrets {
            externals: &self.externals,
            given: &self.given,
            own: &self.secrets,
            issuance: self.issuance.as_ref(),
            renew: self.renew.as_ref(),
            now: self.now,
        }
    }

    /// What is known of the migrations of the database.
    pub fn migrations(&self) -> Option<&MigrationFacts> {
        self.postgres.as_ref()?.facts.migrations.as_ref()
    }

    /// Why pods of one component cannot run, if they say so.
    pub fn trouble(&self, prefix: &str) -> Option<&(String, String)> {
        let pods = self
            .children
            .iter()
            .filter(|((kind, name), _)| *kind == ChildKind::Pod && name.starts_with(prefix));
        pods.filter_map(|(_, seen)| seen.facts.trouble.as_ref()).next()
    }
}

/// Gathers everything.
pub async fn observe(context: &Context, object: &AmasDatabase, wanted: &[SecretSpec]) -> Result<Observed, WriteError> {
    let meta = object.meta();
    let (namespace, name) = (
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    );
    let uid = meta.uid.clone().unwrap_or_default();
    let key = Key {
        namespace: namespace.clone(),
        database: name.clone(),
    };
    let written = context.books.databases.last(&uid).map(|(status, _)| status);
    let status = written.or_else(|| object.status.clone()).unwrap_or_default();
    let mut children = context.children.of(&(namespace.clone(), name.clone()));
    context.answers.read(&namespace, &mut children);
    let mut observed = Observed {
        now: Timestamp::now(),
        taken: taken(context, &namespace, &children),
        growth_refused: context.growth.of(&namespace),
        secrets: BTreeMap::new(),
        secret_owners: BTreeMap::new(),
        former_secrets: Vec::new(),
        externals: BTreeMap::new(),
        given: BTreeMap::new(),
        sure: false,
        created: meta
            .creation_timestamp
            .as_ref()
            .map_or_else(Timestamp::now, |time| time.0),
        rotate: one_shot(object, ROTATE),
        reissue: one_shot(object, REISSUE),
        postgres: context.keepers.postgres.snapshot(&key),
        redis: context.keepers.redis.snapshot(&key),
        neo4j: context.keepers.neo4j.snapshot(&key),
        files: files(context, object, &status).await?,
        seed_files: seed_files(context, object, &status).await?,
        same_generation: status.observed_generation == meta.generation,
        policies: policies::of(context, object),
        restart: one_shot(object, RESTART),
        approved_plan: one_shot(object, APPROVE_PLAN),
        try_again: one_shot(object, REREAD).filter(|value| status.handled.get(HANDLED_REREAD) != Some(value)),
        plans: context.plans.clone(),
        issuance: None,
        renew: one_shot(object, RENEW),
        take_over: one_shot(object, TAKE_OVER).filter(|value| status.handled.get(HANDLED_TAKE_OVER) != Some(value)),
        deposit: image(object).map(ImageSource::key),
        back_to: (object.spec.migrations.as_ref()).and_then(|migrations| migrations.target_version),
        corrects_drift: (object.spec.migrations.as_ref())
            .is_some_and(|migrations| migrations.drift.mode == DriftMode::Correct),
        accept_drift: one_shot(object, ACCEPT_DRIFT).filter(|value| status.handled.get(HANDLED_DRIFT) != Some(value)),
        accept_empty: one_shot(object, ACCEPT_EMPTY).filter(|value| status.handled.get(losses::HANDLED) != Some(value)),
        status,
        children,
    };
    if let Some(image) = image(object) {
        let facts = observed.postgres.as_ref().map(|snapshot| &snapshot.facts);
        let files = sources::of_image(image, facts.and_then(|facts| facts.deposit.as_ref()));
        observed.files = Some(files);
    }
    forget_secrets(context, object, &mut observed, wanted);
    for (store, external) in externals(&object.spec) {
        let server = external_server(context, object, store, external).await?;
        observed.externals.insert(store, server);
    }
    for name in given_names(&object.spec) {
        let known = users_secret(context, &namespace, &name).await?;
        observed.given.insert(name, known);
    }
    for spec in wanted {
        if let Some(known) = secret(context, &observed, &namespace, &name, spec).await? {
            observed.secrets.insert(spec.name.clone(), known);
        }
        if let Some(owner) = context.credentials.owner(&namespace, &spec.name) {
            observed.secret_owners.insert(spec.name.clone(), owner);
        }
    }
    observed.issuance = issuance::look(context, object, &observed).await?;
    let former = |name: &&String| {
        wanted.iter().all(|spec| spec.name != **name)
            && context.credentials.get(&namespace, name) != Some(Known::Absent)
    };
    observed.former_secrets = observed.status.secrets.iter().filter(former).cloned().collect();
    Ok(observed)
}

/// Names that somebody else's objects have. One that is ours again is not taken, however short a time ago it was.
fn taken(context: &Context, namespace: &str, children: &children::Family) -> Vec<(ChildKind, String)> {
    let mut taken = context.taken.of(namespace);
    taken.retain(|key| !children.contains_key(key));
    taken
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
fn forget_secrets(context: &Context, object: &AmasDatabase, observed: &mut Observed, wanted: &[SecretSpec]) {
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

/// Forgets what was read of a ConfigMap or Secret; whether this object reads it.
pub fn forget_read(context: &Context, object: &AmasDatabase, kind: ChildKind, name: &str) -> bool {
    let (namespace, uid) = (
        object.metadata.namespace.clone().unwrap_or_default(),
        object.metadata.uid.clone().unwrap_or_default(),
    );
    let spec = &object.spec;
    let is_it = |other: &String| other == name;
    if kind == ChildKind::Secret {
        let family = super::family(object, &context.settings);
        let ours = validate::wanted_secrets(&family, spec)
            .iter()
            .any(|secret| secret.name == name);
        let theirs = brought(object).iter().any(is_it);
        context.credentials.forget(&namespace, &remembered(name));
        if ours {
            context.credentials.forget(&namespace, name);
        }
        return ours || theirs;
    }
    let source = spec
        .migrations
        .as_ref()
        .map(|migrations| &migrations.source.config_maps);
    let seed = spec.seed.as_ref().map(|seed| &seed.config_maps);
    let reads = source.into_iter().chain(seed).flatten().any(is_it);
    if reads {
        context.sources.forget(&uid);
    }
    reads
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

async fn files(
    context: &Context,
    object: &AmasDatabase,
    status: &AmasDatabaseStatus,
) -> Result<Option<Files>, WriteError> {
    let Some(migrations) = &object.spec.migrations else {
        return Ok(None);
    };
    if migrations.source.image.is_some() {
        return Ok(None);
    }
    let (uid, namespace) = address(object);
    let reason = reading(object, status);
    context
        .sources
        .get(&context.writer, uid, namespace, &migrations.source, reason)
        .await
        .map(Some)
}

/// The image that the migrations come from, which only a Job can look into.
fn image(object: &AmasDatabase) -> Option<&ImageSource> {
    object.spec.migrations.as_ref()?.source.image.as_ref()
}

fn address(object: &AmasDatabase) -> (&str, &str) {
    let meta = &object.metadata;
    (
        meta.uid.as_deref().unwrap_or_default(),
        meta.namespace.as_deref().unwrap_or_default(),
    )
}

/// Why ConfigMaps would be read again.
fn reading(object: &AmasDatabase, status: &AmasDatabaseStatus) -> Reason {
    Reason {
        generation: object.metadata.generation.unwrap_or_default(),
        asked: annotation(object, REREAD),
        failures: status.migrations.as_ref().map_or(0, |migrations| migrations.attempts),
    }
}

async fn seed_files(
    context: &Context,
    object: &AmasDatabase,
    status: &AmasDatabaseStatus,
) -> Result<Option<SeedFiles>, WriteError> {
    let spec = &object.spec;
    let (Some(seed), Some(migrations)) = (&spec.seed, &spec.migrations) else {
        return Ok(None);
    };
    let Some(profile) = seed.profile.folder() else {
        return Ok(None);
    };
    if seed.config_maps.is_empty() {
        let bundle = migrations.source.bundle.as_ref();
        return Ok(bundle.map(|bundle| context.sources.seeds(bundle.as_str(), profile)));
    }
    let files = (seed.config_maps.as_slice(), profile);
    context
        .sources
        .seed_maps(&context.writer, address(object), files, reading(object, status))
        .await
        .map(Some)
}

fn annotation(object: &AmasDatabase, name: &str) -> Option<String> {
    object.metadata.annotations.as_ref()?.get(name).cloned()
}

/// An annotation that asks for something once, as its handled value is kept.
fn one_shot(object: &AmasDatabase, name: &str) -> Option<String> {
    annotation(object, name).map(|value| shorten(&value, HANDLED_LIMIT))
}
