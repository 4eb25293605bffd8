//! How the connection of a migration Job is encrypted: which files of which Secrets it gets, and what it is told of them. Pure.

use serde_json::{Value, json};

use super::manifest::JobInput;
use crate::{
    controllers::database::external,
    stores::workload::{CA_CERTIFICATE, certificates_secret},
};

/// How much is verified, and where the certificates are.
pub fn environment(input: &JobInput<'_>) -> Vec<Value> {
    let variable = |name: &str, value: &str| json!({"name": name, "value": value});
    let mode = match is_encrypted(input) {
        true => Some("verify-full"),
        false => input.server.and_then(external::Server::sslmode),
    };
    let mode = mode.map(|mode| variable("PGSSLMODE", mode));
    let files = certificates(input)
        .into_iter()
        .map(|file| variable(file.variable, &file.path()));
    mode.into_iter().chain(files).collect()
}

/// A file of a Secret that the runner needs for an encrypted connection.
pub struct Certificate {
    pub volume: &'static str,
    pub secret: String,
    pub key: &'static str,
    variable: &'static str,
}

impl Certificate {
    /// Where its volume is mounted.
    pub fn folder(&self) -> String {
        format!("/run/amas/{}", self.volume)
    }

    fn path(&self) -> String {
        format!("{}/{}", self.folder(), self.key)
    }
}

/// A server of ours, with a certificate of ours.
fn is_encrypted(input: &JobInput<'_>) -> bool {
    let postgres = input.spec.postgres.as_ref();
    input.spec.tls.is_some() && postgres.is_some_and(|postgres| postgres.managed.is_some())
}

/// The files that the connection of this Job needs.
pub fn certificates(input: &JobInput<'_>) -> Vec<Certificate> {
    if is_encrypted(input) {
        return vec![Certificate {
            volume: "ca",
            secret: certificates_secret(input.family),
            key: CA_CERTIFICATE,
            variable: "PGSSLROOTCERT",
        }];
    }
    let external = input
        .spec
        .postgres
        .as_ref()
        .and_then(|postgres| postgres.external.as_ref());
    let trust = input.server.and_then(external::Server::trust);
    let (Some(external), Some(trust)) = (external, trust) else {
        return Vec::new();
    };
    let own = external.secret_ref.name.as_str();
    let ca = external
        .tls
        .ca_secret_ref
        .as_ref()
        .map_or(own, |other| other.name.as_str());
    let file = |volume, secret: &str, key, variable| Certificate {
        volume,
        secret: secret.to_owned(),
        key,
        variable,
    };
    let mut all = Vec::new();
    if trust.ca.is_some() {
        all.push(file("ca", ca, "ca.crt", "PGSSLROOTCERT"));
    }
    if trust.client.is_some() {
        all.push(file("client-certificate", own, "tls.crt", "PGSSLCERT"));
        all.push(file("client-key", own, "tls.key", "PGSSLKEY"));
    }
    all
}
