//! The migration and seed blocks of an AmasDatabase.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{common::Resources, names::ItemName, units::Quantity};

/// The SQL schema: where its migrations come from and how far they run. They run as Jobs, as the owner role.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Migrations {
    /// Where the files come from.
    pub source: MigrationSource,
    /// Version to be at. Default: the newest known when this specification was first seen; newer files wait for a change of it, and nothing that is
    /// applied is taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 9007199254740991i64))]
    pub target_version: Option<i64>,
    /// `Automatic` (default): what is pending runs. `Manual`: it waits, with its plan in `status.migrations.pendingPlan` and in the ConfigMap
    /// that is named there, until the plan's hash is approved by the annotation `amas.dev/approve-plan` or by `approvedPlan`. Mutable.
    #[serde(default)]
    pub approval: Approval,
    /// Hash of the plan that may run, with `approval: Manual`. One that is not pending is reported and approves nothing. Default: none. Mutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 64, max = 64), regex(pattern = "^[0-9a-f]{64}$"))]
    pub approved_plan: Option<String>,
    /// Versions whose statements may lose data: drop a table, column, schema, sequence, type or extension, TRUNCATE, change a type to one that
    /// may hold less, DELETE or UPDATE without WHERE. On the way up and down. Without its version such a statement keeps the whole plan
    /// waiting (reason DestructiveNotAllowed). What the same plan has made itself does not count. Default: none. Mutable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), inner(range(min = 1, max = 9007199254740991i64)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub allow_destructive: Vec<i64>,
    /// Before which migrations tables are saved with pg_dump, up and down. `Destructive` (default): before a plan with statements that lose data (see
    /// `allowDestructive`), all tables that lose something. `Always`: before every plan, all tables. `Never`. If the backup fails, nothing of the plan
    /// runs. What is written to the tables between the backup and the statement is not in it. `amas-operator migrate backups` lists the backups,
    /// `restore-tables` puts them back. Mutable.
    #[serde(default)]
    pub backup_before: BackupBefore,
    /// Where the backups are kept.
    #[serde(default)]
    pub backup: BackupSettings,
    /// When a statement of a way up fails. `Stop` (default): the versions before it stay, and a corrected file goes on from there. `Rollback`: the
    /// versions that the same Job has applied are taken back by their down texts, newest first, to where it began; one without a way back, or a file
    /// of several parts that is half way, ends that, and the message says where. Either way nothing runs again until files or
    /// specification change, or the annotation `amas.dev/reread-sources`. Mutable.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// What a schema means that is not as the last run of migrations left it. Mutable.
    #[serde(default)]
    pub drift: DriftSettings,
    /// The Jobs' container.
    #[serde(default)]
    pub job: JobSettings,
}

/// Before which migrations tables are saved.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum BackupBefore {
    #[default]
    Destructive,
    Always,
    Never,
}

/// The volume `<name>-backups`, which is made before the first plan that needs it and kept like the volumes of stores. Nothing is ever deleted from it.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BackupSettings {
    /// Size of the volume. Default: `10Gi`. It can grow where the storage class allows it, never shrink. Mutable.
    #[serde(default = "BackupSettings::size")]
    pub size: Quantity,
    /// Its storage class, taken when it is made. Default: the cluster's default class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = crate::api::names::OBJECT_NAME), length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
    /// Image with the pg_dump of the server's major version or a later one in its PATH; Jobs that make a backup run in it. Default: that of the
    /// managed server; with an external one that of the newest version that the operator knows. Mutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = crate::api::names::IMAGE), length(min = 1, max = 512))]
    pub image: Option<String>,
}

impl BackupSettings {
    fn size() -> Quantity {
        Quantity::gibibytes(10)
    }
}

impl Default for BackupSettings {
    fn default() -> Self {
        Self {
            size: Self::size(),
            storage_class_name: None,
            image: None,
        }
    }
}

/// What becomes of the versions of a Job that fails.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum OnFailure {
    #[default]
    Stop,
    Rollback,
}

/// What is done about changes of the schema that no migration made. They are always told, by the condition Drifted and in
/// `status.migrations.drift`, within a minute; they never clear Available.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, JsonSchema)]
pub struct DriftSettings {
    /// `Report` (default): they are told, and nothing else. `Block`: Ready is False and pending migrations wait until they are undone or accepted
    /// (annotation `amas.dev/accept-drift`, a new value each time). `Correct`: indexes, views, functions, triggers and grants are put back
    /// as they were recorded, and grants that were added are taken back; everything that could lose something is told. Mutable.
    #[serde(default)]
    pub mode: DriftMode,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum DriftMode {
    #[default]
    Report,
    Block,
    Correct,
}

/// Whether pending migrations wait for a person.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum Approval {
    #[default]
    Automatic,
    Manual,
}

/// Exactly one source of migration files named `NNNN_name.up.sql` and `NNNN_name.down.sql`.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, KubeSchema)]
#[x_kube(validation = ("[has(self.bundle), has(self.configMaps), has(self.image)].filter(one, one).size() == 1", "migrations.source: set exactly one of bundle, configMaps and image"))]
#[serde(rename_all = "camelCase")]
pub struct MigrationSource {
    /// A set that comes with the operator's image, such as `amas`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<ItemName>,
    /// ConfigMaps in the same namespace, each key a file name. Several are read as one set, because one holds at most 1 MiB.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(regex(pattern = crate::api::names::OBJECT_NAME), length(min = 1, max = 253)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub config_maps: Vec<String>,
    /// A folder of an image, of which nothing but the files is needed (`FROM scratch`, `COPY *.sql /migrations/`). Jobs mount it as an image
    /// volume, which takes Kubernetes 1.36, or an older one with the feature gate ImageVolume; or copy the files out of it (`image.mount: Copy`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageSource>,
}

/// Migration files in an image. Its registry is logged in to with `spec.pods.imagePullSecrets`.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, KubeSchema)]
#[x_kube(validation = ("!has(self.path) || !self.path.contains('..')", "migrations.source.image.path: without '..'"))]
#[serde(rename_all = "camelCase")]
pub struct ImageSource {
    /// The image by its digest, so that it always has the same files: `registry.example.com/app/migrations@sha256:...`.
    #[schemars(
        length(max = 512),
        regex(pattern = r"^[a-zA-Z0-9][a-zA-Z0-9._:/-]*@sha256:[0-9a-f]{64}$")
    )]
    pub reference: String,
    /// The folder in the image that has the files. Default: `/migrations`.
    #[serde(default = "ImageSource::folder")]
    #[schemars(length(max = 256), regex(pattern = r"^/[A-Za-z0-9._/-]*$"))]
    pub path: String,
    /// When the image is pulled. Default: `IfNotPresent`, since a digest never means another image.
    #[serde(default)]
    pub pull_policy: PullPolicy,
    /// How Jobs get at the files. `Volume` (default): the image is mounted. `Copy`: a container of the image, in which nothing but the operator's
    /// program runs, copies them; for clusters without image volumes. The files must be readable by everybody (mode 0644). Mutable.
    #[serde(default)]
    pub mount: ImageMount,
}

/// How the files of an image come to where a Job reads them.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum ImageMount {
    #[default]
    Volume,
    Copy,
}

impl ImageSource {
    fn folder() -> String {
        "/migrations".to_owned()
    }

    /// What its files are stored under.
    pub fn key(&self) -> String {
        format!("{} {}", self.reference, self.path)
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum PullPolicy {
    #[default]
    IfNotPresent,
    Always,
    Never,
}

/// The container of a migration Job.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobSettings {
    /// CPU and memory of the runner. Default: none requested, none limited.
    #[serde(default)]
    pub resources: Resources,
    /// ServiceAccount of the pods, in the same namespace; for admission rules and cloud identities. No token is mounted from it. Default: that of the
    /// managed server, which has no rights; with an external one the namespace's `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = crate::api::names::OBJECT_NAME), length(min = 1, max = 253))]
    pub service_account_name: Option<String>,
}

/// First data: ordered, repeatable SQL, run after the migrations, each file in one transaction with its record. A file that has not changed is not
/// run again; one that has is, so that it must be written to be repeated. What another profile has put in stays.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Seed {
    /// Which set to run. Default: none.
    #[serde(default)]
    pub profile: SeedProfile,
    /// ConfigMaps in the same namespace with the profile's files (`NNNN_name.sql`), each key a file name, instead of those that come with the
    /// bundle. Read as the source's ConfigMaps are. Default: those of the bundle. Mutable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(regex(pattern = crate::api::names::OBJECT_NAME), length(min = 1, max = 253)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub config_maps: Vec<String>,
    /// Values made once and kept in the Secret `<name>-seed`; seed SQL sees only their hash, as the setting `amas.seed.<name>_hash`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub generate: Vec<SeedValue>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum SeedProfile {
    #[default]
    None,
    Development,
    Test,
    Production,
}

impl SeedProfile {
    /// The folder of the profile in a bundle; `None` when nothing is seeded.
    pub fn folder(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Development => Some("development"),
            Self::Test => Some("test"),
            Self::Production => Some("production"),
        }
    }
}

/// A generated secret value for seed SQL.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, JsonSchema)]
pub struct SeedValue {
    /// Name of the value: the key in the Secret, and the middle of the setting's name.
    pub name: super::names::SqlName,
    /// How the value is hashed before SQL sees it. `Bcrypt`: cost 12.
    pub hash: SeedHash,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum SeedHash {
    Bcrypt,
}
