//! The PostgreSQL block of an AmasDatabase.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    common::{Connection, External, Privileges, Resources, SecretRef, Storage},
    names::{ExtensionName, SqlName},
    units::Span,
};

/// A PostgreSQL database, its owner and its application roles, on a server that the operator runs (`managed`) or uses (`external`).
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, KubeSchema)]
#[x_kube(validation = ("has(self.managed) != has(self.external)", "postgres: set exactly one of managed and external"))]
#[x_kube(validation = ("!has(self.roles) || !has(self.owner) || self.roles.all(r, r.name != self.owner)", "postgres: the owner must not be listed under roles; migrations run as the owner, applications as a role"))]
#[serde(rename_all = "camelCase")]
pub struct PostgresSpec {
    /// Whether Ready and Available need this store. Default: true.
    #[serde(default = "super::yes")]
    pub required: bool,
    /// A server run by the operator. Exactly one of managed and external; changing from one to the other is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed: Option<ManagedPostgres>,
    /// An existing server. Exactly one of managed and external.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<External>,
    /// Name of the database. Created when absent. Immutable.
    pub database: SqlName,
    /// Role that owns the database and runs the migrations. Default: `<database>_owner`. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<SqlName>,
    /// Secret of yours with the owner's password, as in a role's `secretRef`. Default: the operator makes one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner_secret_ref: Option<SecretRef>,
    /// Extensions made before the migrations, in schema `public`. An extension taken off the list is reported, never dropped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub extensions: Vec<ExtensionName>,
    /// Settings of every new session of the application roles; the owner and the database keep the server's defaults.
    #[serde(default)]
    pub session: Session,
    /// The application roles, each with a Secret `<name>-role-<role>` (underscores written as hyphens).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub roles: Vec<Role>,
}

impl PostgresSpec {
    /// Whether the operator has no more than the rights of the database's owner.
    pub fn is_owners(&self) -> bool {
        let external = self.external.as_ref();
        external.is_some_and(|external| external.privileges == Privileges::Owner)
    }

    /// The owner's name, default applied.
    pub fn owner_name(&self) -> Result<SqlName, super::names::InvalidName> {
        self.owner
            .clone()
            .map_or_else(|| SqlName::parse(format!("{}_owner", self.database)), Ok)
    }
}

/// A PostgreSQL server run by the operator: one replica, one volume.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ManagedPostgres {
    /// Major version: 15, 16 or 17. Default: 17. It cannot be changed while there is no upgrade path.
    #[serde(default = "default_version")]
    #[schemars(regex(pattern = "^(15|16|17)$"))]
    pub version: String,
    /// The data volume, a PersistentVolumeClaim `<name>-postgres`.
    pub storage: Storage,
    /// CPU and memory of the server. Default: none requested, none limited.
    #[serde(default)]
    pub resources: Resources,
    /// Secret of yours with the superuser's password (user `postgres`), as in a role's `secretRef`. Default: the operator makes one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_secret_ref: Option<SecretRef>,
    /// Image to run instead of the operator's choice for the version; it must contain pgvector if that extension is wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = crate::api::names::IMAGE), length(min = 1, max = 512))]
    pub image: Option<String>,
    /// Server parameters, as in postgresql.conf. A change is loaded by the running server; what PostgreSQL can only change by a restart
    /// restarts it once. A value that the server would not take is refused, and the server goes on. Parameters that the operator owns (addresses, paths, preloaded libraries, archive commands) are refused.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 128))]
    pub parameters: BTreeMap<String, String>,
}

impl ManagedPostgres {
    /// The version that a server has when none is chosen.
    pub fn newest() -> String {
        default_version()
    }
}

fn default_version() -> String {
    "17".into()
}

/// Session settings of application roles (`ALTER ROLE ... IN DATABASE ... SET`).
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    /// `timezone`, such as UTC. Default: the server's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[A-Za-z0-9_/+-]+$"), length(max = 64))]
    pub timezone: Option<String>,
    /// `statement_timeout`. Default: the server's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statement_timeout: Option<Span>,
    /// `application_name`. Default: the client's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[A-Za-z0-9_.:/-]+$"), length(max = 63))]
    pub application_name: Option<String>,
    /// `search_path`, first schema first. Default: the server's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub search_path: Vec<SqlName>,
}

/// An application's login.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Role {
    /// Name of the role.
    pub name: SqlName,
    /// `ReadWrite`: select, insert, update, delete on every table and use of every sequence, present and future, in every schema but the operator's.
    /// `ReadOnly`: select only, without the columns marked secret by their comment. Neither may change the schema or see the migration history.
    pub access: Access,
    /// Most connections the role may hold at once. With `external.privileges: Owner` it is not set, since only an administrator may; a role that has
    /// another limit is told in `status.stores.postgres.limits` (OtherRoleLimits). Default: 10.
    #[serde(default = "default_connection_limit")]
    #[schemars(range(min = 1, max = 10000))]
    pub connection_limit: i32,
    /// Secret of yours in the same namespace with the role's password: key `password`, and optionally `username`, which must be the role's name
    /// (Kubernetes' type `kubernetes.io/basic-auth`). The role's own Secret is published all the same, with that password in it, and follows it.
    /// Default: the operator makes a password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
    /// How the role's Secret is written.
    #[serde(default)]
    pub connection: Connection,
}

fn default_connection_limit() -> i32 {
    10
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum Access {
    ReadWrite,
    ReadOnly,
}
