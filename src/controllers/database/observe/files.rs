//! The files of migrations and seeds: a bundle's, or a ConfigMap's, read by name and remembered. Those of an image come with a Job.

use crate::{
    api::{
        amas_database::{AmasDatabase, AmasDatabaseStatus},
        migrations::ImageSource,
    },
    controllers::{
        Context,
        sources::{Files, REREAD, Reason, SeedFiles},
    },
    engine::writer::WriteError,
};

use super::annotations::annotation;

/// Those of the migrations; `None` where there are none, or an image has them.
pub async fn of_migrations(
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
pub fn image(object: &AmasDatabase) -> Option<&ImageSource> {
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

/// Those of the profile that is asked for; `None` when none is.
pub async fn of_seeds(
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

/// Forgets what was read of a ConfigMap; whether this object reads it.
pub fn forget_read(context: &Context, object: &AmasDatabase, name: &str) -> bool {
    let (migrations, seed) = (&object.spec.migrations, &object.spec.seed);
    let source = migrations.as_ref().map(|migrations| &migrations.source.config_maps);
    let seed = seed.as_ref().map(|seed| &seed.config_maps);
    let reads = source.into_iter().chain(seed).flatten().any(|other| other == name);
    if reads {
        let (uid, _) = address(object);
        context.sources.forget(uid);
    }
    reads
}
