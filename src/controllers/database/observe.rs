//! Everything a reconcile looks at, gathered once: watch caches, keepers' snapshots, and, when there is a reason to, a Secret or ConfigMap by name.

mod annotations;
mod files;
mod policies;
mod secrets;

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::jiff::Timestamp;
use kube::Resource;

use crate::{
    api::{
        amas_database::{AmasDatabase, AmasDatabaseStatus},
        migrations::{DriftMode, ImageSource},
    },
    controllers::{
        Context, GrowthKey,
        credentials::{Known, SecretSpec},
        sources::{self, Files, SeedFiles},
    },
    engine::{child::ChildKind, children, writer::WriteError},
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
    table::StoreKind,
    validate,
};

pub use self::{
    annotations::{Annotations, HANDLED_DRIFT, HANDLED_REREAD, HANDLED_TAKE_OVER},
    policies::{Policy, eviction_owner},
    secrets::forget_unusable,
};

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
    pub annotations: Annotations,
    pub postgres: Option<Arc<Snapshot<Postgres>>>,
    pub redis: Option<Arc<Snapshot<Redis>>>,
    pub neo4j: Option<Arc<Snapshot<Neo4j>>>,
    pub files: Option<Files>,
    /// The seed files of the profile that is asked for; `None` when none is.
    pub seed_files: Option<SeedFiles>,
    /// The status describes the present generation.
    pub same_generation: bool,
    pub policies: Vec<Policy>,
    /// The source whose files a Job has to bring into the database.
    pub deposit: Option<String>,
    /// The version that the specification asks for.
    pub back_to: Option<i64>,
    /// What the specification says of a schema that somebody has changed.
    pub corrects_drift: bool,
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
            renew: self.annotations.renew.as_ref(),
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
    let migrations = object.spec.migrations.as_ref();
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
        annotations: Annotations::of(object, &status),
        postgres: context.keepers.postgres.snapshot(&key),
        redis: context.keepers.redis.snapshot(&key),
        neo4j: context.keepers.neo4j.snapshot(&key),
        files: files::of_migrations(context, object, &status).await?,
        seed_files: files::of_seeds(context, object, &status).await?,
        same_generation: status.observed_generation == meta.generation,
        policies: policies::of(context, object),
        deposit: files::image(object).map(ImageSource::key),
        back_to: migrations.and_then(|migrations| migrations.target_version),
        corrects_drift: migrations.is_some_and(|migrations| migrations.drift.mode == DriftMode::Correct),
        issuance: None,
        plans: context.plans.clone(),
        status,
        children,
    };
    if let Some(image) = files::image(object) {
        let facts = observed.postgres.as_ref().map(|snapshot| &snapshot.facts);
        let files = sources::of_image(image, facts.and_then(|facts| facts.deposit.as_ref()));
        observed.files = Some(files);
    }
    secrets::forget(context, object, &mut observed, wanted);
    secrets::read(context, object, &mut observed, wanted).await?;
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

/// Forgets what was read of a ConfigMap or Secret; whether this object reads it.
pub fn forget_read(context: &Context, object: &AmasDatabase, kind: ChildKind, name: &str) -> bool {
    match kind {
        ChildKind::Secret => secrets::forget_read(context, object, name),
        _ => files::forget_read(context, object, name),
    }
}
