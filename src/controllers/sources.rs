//! Migration files: the bundles in our image, read once, and ConfigMaps, read by name when there is a reason to.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::Value;

use crate::{
    api::migrations::{ImageSource, MigrationSource},
    engine::{
        child::ChildKind,
        writer::{WriteError, Writer},
    },
    migrate::{files, seed::Profile, source::Source},
    stores::postgres::Deposit,
};

/// What became of reading a source.
#[derive(Clone, Debug)]
pub enum Files {
    Read(Arc<Source>),
    /// A Job has to bring them first.
    Unread,
    /// It does not exist: what, and what to do.
    NotFound(String),
    /// Its files cannot be used: one problem each.
    Invalid(Vec<String>),
}

/// When ConfigMaps are read again: whenever any of this changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Reason {
    pub generation: i64,
    /// Value of the annotation `amas.dev/reread-sources`.
    pub asked: Option<String>,
    /// How many Jobs have failed, so that each new one starts from what is there now.
    pub failures: i64,
}

/// Annotation whose new value makes us read the source ConfigMaps again.
pub const REREAD: &str = "amas.dev/reread-sources";

/// Sources that were read.
pub struct Sources {
    bundles: PathBuf,
    read_bundles: Mutex<HashMap<String, Files>>,
    read_maps: Mutex<HashMap<String, (Reason, Files)>>,
    read_seeds: Mutex<HashMap<(String, String), SeedFiles>>,
    read_seed_maps: Mutex<HashMap<String, (Reason, SeedFiles)>>,
}

/// The seed folders of a profile in the order they run, or what is wrong with them.
pub type SeedFiles = Result<Arc<Vec<Profile>>, Vec<String>>;

impl Sources {
    /// `bundles` is the folder with one folder a bundle.
    pub fn new(bundles: PathBuf) -> Self {
        Self {
            bundles,
            read_bundles: Mutex::default(),
            read_maps: Mutex::default(),
            read_seeds: Mutex::default(),
            read_seed_maps: Mutex::default(),
        }
    }

    /// The files of a source of the object with this uid.
    pub async fn get(
        &self,
        writer: &Writer,
        uid: &str,
        namespace: &str,
        source: &MigrationSource,
        reason: Reason,
    ) -> Result<Files, WriteError> {
        if let Some(bundle) = &source.bundle {
            return Ok(self.bundle(bundle.as_str()));
        }
        if let Some((known, files)) = lock(&self.read_maps).get(uid)
            && *known == reason
            && matches!(files, Files::Read(_))
        {
            return Ok(files.clone());
        }
        let files = read_config_maps(writer, namespace, &source.config_maps).await?;
        lock(&self.read_maps).insert(uid.to_owned(), (reason, files.clone()));
        Ok(files)
    }

    pub fn forget(&self, uid: &str) {
        lock(&self.read_maps).remove(uid);
        lock(&self.read_seed_maps).remove(uid);
    }

    fn bundle(&self, name: &str) -> Files {
        let mut read = lock(&self.read_bundles);
        read.entry(name.to_owned())
            .or_insert_with(|| self.read_bundle(name))
            .clone()
    }

    fn read_bundle(&self, name: &str) -> Files {
        let folder = self.bundles.join(name);
        if !folder.is_dir() {
            let known = self.known_bundles().join(", ");
            return Files::NotFound(format!(
                "there is no bundle {name} in this operator's image; it has: {known}"
            ));
        }
        match Source::load(&[folder]) {
            Ok(source) => Files::Read(Arc::new(source)),
            Err(error) => Files::Invalid(error.problems),
        }
    }

    fn known_bundles(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.bundles).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries
            .filter(|entry| entry.path().is_dir())
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// The seed folders of a bundle's profile, in the order they run.
    pub fn seeds(&self, bundle: &str, profile: &str) -> SeedFiles {
        let key = (bundle.to_owned(), profile.to_owned());
        let folder = || self.bundles.join(bundle).join("seed");
        lock(&self.read_seeds)
            .entry(key)
            .or_insert_with(|| {
                Profile::load_named(&folder(), profile)
                    .map(Arc::new)
                    .map_err(|error| error.problems)
            })
            .clone()
    }

    /// The seed files of a profile from ConfigMaps, of the object with this uid.
    pub async fn seed_maps(
        &self,
        writer: &Writer,
        (uid, namespace): (&str, &str),
        (names, profile): (&[String], &str),
        reason: Reason,
    ) -> Result<SeedFiles, WriteError> {
        if let Some((known, files)) = lock(&self.read_seed_maps).get(uid)
            && *known == reason
            && files.is_ok()
        {
            return Ok(files.clone());
        }
        let files = match config_map_files(writer, namespace, names).await? {
            Err(missing) => Err(vec![missing]),
            Ok(files) => Profile::from_files(profile, files)
                .map(|profile| Arc::new(vec![profile]))
                .map_err(|error| error.problems),
        };
        lock(&self.read_seed_maps).insert(uid.to_owned(), (reason, files.clone()));
        Ok(files)
    }
}

/// The files of an image, as far as a Job has brought them.
pub fn of_image(image: &ImageSource, deposit: Option<&Deposit>) -> Files {
    match deposit
        .filter(|deposit| deposit.source == image.key())
        .map(|deposit| &deposit.files)
    {
        Some(Some(Ok(source))) => Files::Read(source.clone()),
        Some(Some(Err(problems))) => Files::Invalid(problems.clone()),
        Some(None) | None => Files::Unread,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn read_config_maps(writer: &Writer, namespace: &str, names: &[String]) -> Result<Files, WriteError> {
    let files = match config_map_files(writer, namespace, names).await? {
        Ok(files) => files,
        Err(missing) => return Ok(Files::NotFound(missing)),
    };
    Ok(match Source::from_files(files) {
        Ok(source) => Files::Read(Arc::new(source)),
        Err(error) => Files::Invalid(error.problems),
    })
}

/// The files in ConfigMaps, or which of them does not exist.
async fn config_map_files(
    writer: &Writer,
    namespace: &str,
    names: &[String],
) -> Result<Result<Vec<(String, Vec<u8>)>, String>, WriteError> {
    let mut files = Vec::new();
    for name in names {
        let Some(map) = writer.read(ChildKind::ConfigMap, namespace, name).await? else {
            return Ok(Err(format!(
                "ConfigMap {namespace}/{name} does not exist; create it, then set the annotation {REREAD} to a new value"
            )));
        };
        files.extend(sql_entries(&map));
    }
    Ok(Ok(files))
}

/// The files that a Job finds where the ConfigMap is mounted. kubectl puts what is no UTF-8 into `binaryData`: it is looked at too, to be refused.
fn sql_entries(map: &Value) -> Vec<(String, Vec<u8>)> {
    let entries = |part: &str| map[part].as_object().into_iter().flatten();
    let texts = entries("data").filter_map(|(name, value)| Some((name, value.as_str()?.as_bytes().to_vec())));
    let others =
        entries("binaryData").filter_map(|(name, value)| Some((name, BASE64_STANDARD.decode(value.as_str()?).ok()?)));
    let all = texts.chain(others).filter(|(name, _)| files::counts(name.as_bytes()));
    all.map(|(name, bytes)| (name.clone(), bytes)).collect()
}
