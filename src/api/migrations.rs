//! The migration and seed blocks of an AmasDatabase.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{common::Resources, names::ItemName};

/// The SQL schema: where its migrations come from and how far they run. They run as Jobs, as the owner role.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Migrations {
    /// Where the files come from.
    pub source: MigrationSource,
    /// Version to be at. Default: the newest known when this specification was first seen; newer files wait for a change of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 9007199254740991i64))]
    pub target_version: Option<i64>,
    /// The Jobs' container.
    #[serde(default)]
    pub job: JobSettings,
}

/// Exactly one source of migration files named `NNNN_name.up.sql` and `NNNN_name.down.sql`.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, KubeSchema)]
#[x_kube(validation = ("has(self.bundle) != has(self.configMaps)", "migrations.source: set exactly one of bundle and configMaps"))]
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
}

/// The container of a migration Job.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobSettings {
    /// CPU and memory of the runner. Default: none requested, none limited.
    #[serde(default)]
    pub resources: Resources,
}

/// First data: ordered, repeatable SQL that comes with the migration bundle, run after the migrations.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Seed {
    /// Which set to run. Default: none.
    #[serde(default)]
    pub profile: SeedProfile,
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
