//! What a managed server is, the same for every engine: what differs is a [`Workload`], which each engine's folder makes. Pure.

mod templates;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub use self::templates::{Template, TemplateKind, add_pod_settings, claim_spec, pod_labels, security, templates};
use crate::api::common::{Disruption, NetworkAccess, PodSettings, Resources, Storage};

/// Sixteen hexadecimal digits that name a text, the same in every release of this program: what is compared with what an older one wrote.
pub fn digest(text: &str) -> String {
    hex::encode(&Sha256::digest(text)[..8])
}

/// The AmasDatabase that objects are made for.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    pub namespace: String,
    pub database: String,
    pub uid: String,
    /// Volumes and Secrets belong to the object too, so that Kubernetes deletes them with it.
    pub data_goes: bool,
}

impl Family {
    /// A child's name: `<database>-<suffix>`, shortened by a hash where Kubernetes allows no more than 63 characters.
    pub fn child_name(&self, suffix: &str) -> String {
        let name = format!("{}-{suffix}", self.database);
        if name.len() <= 63 {
            return name;
        }
        format!("{}-{}", name[..54].trim_end_matches('-'), &digest(&name)[..8])
    }

    /// The labels of every child.
    pub fn labels(&self, application: &str, component: &str) -> Value {
        json!({
            "amas.dev/database": self.database,
            "app.kubernetes.io/managed-by": "amas-operator",
            "app.kubernetes.io/name": application,
            "app.kubernetes.io/instance": self.database,
            "app.kubernetes.io/component": component,
        })
    }

    /// Metadata of a child. Volumes and Secrets outlive their object, so they have no owner (`owned: false`).
    pub fn metadata(&self, name: &str, application: &str, component: &str, owned: bool) -> Value {
        let mut metadata =
            json!({"name": name, "namespace": self.namespace, "labels": self.labels(application, component)});
        if owned || self.data_goes {
            metadata["ownerReferences"] = json!([{
                "apiVersion": "amas.dev/v1alpha1", "kind": "AmasDatabase", "name": self.database, "uid": self.uid,
                "controller": true, "blockOwnerDeletion": true,
            }]);
        }
        metadata
    }

    /// Where clients find a store of this database.
    pub fn host(&self, component: &str) -> String {
        format!("{}.{}.svc", self.child_name(component), self.namespace)
    }
}

/// A file or key of a Secret that the server's pod sees.
#[derive(Clone, Debug, PartialEq)]
pub struct SecretFile {
    pub secret: String,
    pub key: &'static str,
    /// Folder it is mounted in, under the key's name.
    pub folder: &'static str,
}

/// The key of the Secret with certificates that holds their authority.
pub const CA_CERTIFICATE: &str = "ca.crt";
/// Where a server finds `tls.crt` and `tls.key`.
pub const CERTIFICATES: &str = "/run/amas-tls";

/// The Secret with the certificates of all managed servers.
pub fn certificates_secret(family: &Family) -> String {
    family.child_name("tls")
}

/// The keys of that Secret which are one server's.
pub fn certificate_key(component: &str) -> String {
    format!("{component}.crt")
}

pub fn private_key(component: &str) -> String {
    format!("{component}.key")
}

/// There where a server only takes up another certificate at its start, and has been given one: names it.
pub fn renewed_key(component: &str) -> String {
    format!("{component}.renewed")
}

/// How the server gets its configuration.
#[derive(Clone, Debug, PartialEq)]
pub enum Config {
    /// Files in a folder.
    Files {
        folder: &'static str,
        files: BTreeMap<&'static str, String>,
    },
    /// Environment variables.
    Environment(BTreeMap<String, String>),
}

/// Who chose the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageSource {
    /// The specification.
    Specification,
    /// The operator's table, or the chart's overrides of it: a change of it restarts nothing by itself.
    Table,
}

/// An image and who chose it.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    pub name: String,
    pub source: ImageSource,
}

/// What a running server can take up of a changed configuration.
#[derive(Clone, Debug, PartialEq)]
pub enum Reload {
    /// All but this part of it: the pod is replaced when the text changes.
    AllBut(String),
    /// The server says itself, once it has read the files: the pod is replaced when it asks for a restart. Names the configuration.
    AsTheServerSays(String),
}

/// What one engine's server needs.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// `postgres`, `redis`, `neo4j`: the last part of names.
    pub component: &'static str,
    /// `app.kubernetes.io/name`.
    pub application: &'static str,
    /// The version of the server, as in the specification.
    pub version: String,
    pub image: String,
    pub image_source: ImageSource,
    /// User and group of the server in the public image.
    pub user: i64,
    pub command: Vec<String>,
    pub environment: Vec<(&'static str, String)>,
    pub config: Config,
    pub reload: Reload,
    pub secret: SecretFile,
    /// It has a certificate, in the folder [`CERTIFICATES`].
    pub encrypted: bool,
    /// The certificate that it has to be restarted for, if it was given another than its first.
    pub certificate: Option<String>,
    /// Runs before the server, with the data and the Secret's file: a shell script.
    pub prepare: Option<String>,
    pub data_folder: &'static str,
    /// Folders that must be writable and need not last.
    pub scratch: Vec<&'static str>,
    pub read_only_root: bool,
    /// (name, port); the first is probed.
    pub ports: Vec<(&'static str, u16)>,
    pub grace_seconds: i64,
    pub storage: Storage,
    pub resources: Resources,
}

impl Workload {
    /// What the volume holds: the server and its version.
    pub fn data(&self) -> String {
        format!("{} {}", self.application, self.version)
    }
}

/// Settings that all pods of a database share.
#[derive(Clone, Copy, Debug)]
pub struct Shared<'a> {
    pub pods: &'a PodSettings,
    pub access: NetworkAccess,
    pub disruption: Disruption,
    /// Labels of the operator's own pods and their namespace, always admitted.
    pub operator_namespace: &'a str,
}
