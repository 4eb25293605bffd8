//! The blocks that several resources or stores share: references, volumes, pods, network access, external endpoints.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{LocalObjectReference, ResourceRequirements, Toleration};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::{Quantity, Span};

/// The AmasDatabase an object belongs to, in the same namespace.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, JsonSchema)]
pub struct DatabaseRef {
    /// Name of the AmasDatabase in the same namespace. Immutable.
    #[schemars(regex(pattern = crate::api::names::OBJECT_NAME), length(min = 1, max = 40))]
    pub name: String,
}

/// What becomes of data when its object is deleted.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum DeletionPolicy {
    #[default]
    Retain,
    Delete,
}

/// A persistent volume of a managed store.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Storage {
    /// Size of the volume, such as `20Gi`. It can grow where the storage class allows it, never shrink.
    pub size: Quantity,
    /// Storage class. Default: the cluster's default class. Immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = crate::api::names::OBJECT_NAME), length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
}

/// CPU and memory of a container, as in a Pod.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// The least the container gets, by resource name (`cpu`, `memory`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 8))]
    pub requests: BTreeMap<String, Quantity>,
    /// The most the container may use, by resource name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 8))]
    pub limits: BTreeMap<String, Quantity>,
}

impl From<&Resources> for ResourceRequirements {
    fn from(resources: &Resources) -> Self {
        let quantities = |amounts: &BTreeMap<String, Quantity>| {
            let convert = |(name, amount): (&String, &Quantity)| {
                (
                    name.clone(),
                    k8s_openapi::apimachinery::pkg::api::resource::Quantity(amount.as_str().to_owned()),
                )
            };
            (!amounts.is_empty()).then(|| amounts.iter().map(convert).collect())
        };
        Self {
            requests: quantities(&resources.requests),
            limits: quantities(&resources.limits),
            claims: None,
        }
    }
}

/// What the pods of all managed stores and Jobs of one AmasDatabase have in common.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodSettings {
    /// Labels added to every pod. Keys under `amas.dev/` and `app.kubernetes.io/` are reserved.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub labels: BTreeMap<String, String>,
    /// Annotations added to every pod.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub annotations: BTreeMap<String, String>,
    /// Nodes the pods may run on, by label.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub node_selector: BTreeMap<String, String>,
    /// Taints the pods tolerate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub tolerations: Vec<Toleration>,
    /// Priority class of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = crate::api::names::OBJECT_NAME), length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
    /// Secrets to pull images with, in the same namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub image_pull_secrets: Vec<LocalObjectReference>,
}

/// A day of the week.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum Day {
    Monday,
    Tuesday,
    Wednesday,
    Thursday,
    Friday,
    Saturday,
    Sunday,
}

/// When managed servers may be restarted for an update that the operator brings: a newer image of the same version, newer pod templates.
/// It begins at `start` on each of the days and lasts for `duration`, also past midnight.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct MaintenanceWindow {
    /// Days on which it begins. Default: every day.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 7))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub days: Vec<Day>,
    /// Time of the day at which it begins, such as `02:30`.
    #[schemars(regex(pattern = "^([01][0-9]|2[0-3]):[0-5][0-9]$"))]
    pub start: String,
    /// How long it lasts, at most 24h. Default: 1h.
    #[serde(default = "one_hour")]
    pub duration: Span,
    /// Time zone of days and start, by its name in the IANA database, such as `Europe/Paris`. Default: UTC.
    #[serde(default = "utc")]
    #[schemars(regex(pattern = "^[A-Za-z0-9_/+-]+$"), length(max = 64))]
    pub time_zone: String,
}

fn one_hour() -> Span {
    Span::from_secs(3600)
}

pub(super) fn utc() -> String {
    "UTC".into()
}

/// What happens to a managed server when its node is drained.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum Disruption {
    #[default]
    Allow,
    Block,
}

/// Who may open connections to the managed stores.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum NetworkAccess {
    #[default]
    SameNamespace,
    Labelled,
    None,
}

/// The NetworkPolicy of the managed stores. The operator's own pods are always admitted.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, JsonSchema)]
pub struct NetworkSettings {
    /// `SameNamespace` (default): every pod of the namespace. `Labelled`: pods of the namespace that carry the label
    /// `amas.dev/client: <name of the AmasDatabase>`. `None`: no NetworkPolicy is made.
    #[serde(default)]
    pub mode: NetworkAccess,
}

/// Encryption of the connections to the managed stores. Their certificates are signed by an authority that the operator makes for this
/// AmasDatabase, or by an issuer of cert-manager, and are renewed in time without a restart; that of Neo4j, whose Community edition needs one,
/// lasts as long as the operator's authority.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ManagedTls {
    /// `false` (default): clear text is served too, on PostgreSQL at the same port, on Redis at port 6379 beside 6380, on Neo4j at both of its ports, so that applications can move over
    /// one by one. `true`: encrypted connections only. A change restarts the servers.
    #[serde(default)]
    pub required: bool,
    /// The issuer of cert-manager that signs: one with an authority of its own (CA, Vault), which it gives under `ca.crt`. The operator makes a
    /// Certificate for each managed server and takes what cert-manager fills in; each renewed certificate restarts Neo4j (in the maintenance
    /// window, if there is one). Mutable, without downtime of PostgreSQL and Redis. Default: the operator's own authority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer_ref: Option<IssuerRef>,
}

/// An issuer of cert-manager.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IssuerRef {
    /// Name of the issuer; an Issuer is in the same namespace.
    #[schemars(regex(pattern = crate::api::names::OBJECT_NAME), length(min = 1, max = 253))]
    pub name: String,
    /// `Issuer` (default) or `ClusterIssuer`.
    #[serde(default)]
    pub kind: IssuerKind,
    /// API group of the issuer. Default: cert-manager.io; another one for an issuer that extends cert-manager.
    #[serde(default = "issuer_group")]
    #[schemars(regex(pattern = crate::api::names::OBJECT_NAME), length(min = 1, max = 253))]
    pub group: String,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum IssuerKind {
    #[default]
    Issuer,
    ClusterIssuer,
}

fn issuer_group() -> String {
    "cert-manager.io".into()
}

/// An existing server that the operator uses but does not run.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct External {
    /// Secret in the same namespace whose key `uri` holds the whole address with user and password, such as
    /// `postgresql://admin:...@db.example:5432/postgres`, `redis://default:...@cache.example:6379/0`, `bolt://neo4j:...@graph.example:7687`;
    /// or its parts under `host`, `port`, `username`, `password`. Further keys, all optional: `directUri`, the address of a PostgreSQL server
    /// behind a pooler, which the operator and migrations use while applications get `uri`; `ca.crt`, the authorities that sign the server's certificate;
    /// `tls.crt` and `tls.key`, a client certificate.
    pub secret_ref: SecretRef,
    /// Transport security of the connection. Default: verified in full.
    #[serde(default)]
    pub tls: ExternalTls,
    /// What the login may do on PostgreSQL. `Admin` (default): create roles, databases and extensions. `Owner`: nothing of these; it owns the
    /// existing database. Then `owner` must name that login, `uri` must lead to that database, each of `roles` must exist and be brought with its
    /// `secretRef` (it gets its rights and session settings; `connectionLimit` is not set), and extensions that are not trusted are made by an
    /// administrator.
    #[serde(default)]
    pub privileges: Privileges,
    /// How its health is known.
    #[serde(default)]
    pub health: ExternalHealth,
}

/// How the health of an external server is known.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExternalHealth {
    /// `Held` (default): one connection is kept open and pinged, so that a lost server is seen at once. `OnDemand`: no connection stays open, for
    /// services that sleep while nobody is connected; the server is asked when something changes and every `interval`, and the conditions
    /// say how it was when it was last asked.
    #[serde(default)]
    pub mode: HealthMode,
    /// The time between two pings (Held, 1s to 60s; default 2s) or two looks (OnDemand, 10s to 1d; default 10m).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Span>,
}

impl ExternalHealth {
    /// Between two looks on demand.
    pub const SELDOM: Span = Span::from_secs(600);
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum HealthMode {
    #[default]
    Held,
    OnDemand,
}

/// A Secret in the same namespace.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, JsonSchema)]
pub struct SecretRef {
    /// Name of the Secret.
    #[schemars(regex(pattern = crate::api::names::OBJECT_NAME), length(min = 1, max = 253))]
    pub name: String,
}

/// Transport security towards an external server.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExternalTls {
    /// `VerifyFull` (default): encrypted, and the server's certificate must be signed by a known authority, be in date and carry the host name.
    /// `Require`: encrypted, the server's certificate is not verified. `Disable`: clear text, for a network that is itself protected.
    #[serde(default)]
    pub mode: TlsMode,
    /// Secret in the same namespace whose key `ca.crt` holds the authorities that sign the server's certificate, as PEM.
    /// Default: the key `ca.crt` of `secretRef`; without that, the public authorities of the web.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretRef>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum TlsMode {
    #[default]
    VerifyFull,
    Require,
    Disable,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum Privileges {
    #[default]
    Admin,
    Owner,
}

/// How a connection Secret is written: names of its keys, and values a platform wants beside them.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Connection {
    /// Other names for the Secret's keys: from our name (`DATABASE_URL`, `PGHOST`, `REDIS_URL`, `NEO4J_URI`, ...) to the name wanted.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub keys: BTreeMap<String, String>,
    /// Further keys with fixed values, such as pool sizes and timeouts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub extra: BTreeMap<String, String>,
}
