//! Where a server is and how to log in: the one description of a connection that every store uses.

use crate::api::sensitive::Sensitive;

/// Transport security of a connection. Verification of certificates comes with the lifecycle work; until then only these two exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tls {
    /// Clear text.
    Disable,
    /// Encrypted, server certificate not verified.
    Require,
}

/// One login on one server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    pub host: String,
    pub port: u16,
    pub tls: Tls,
    pub user: String,
    pub password: Sensitive,
}

/// Why a server could not do what was asked. The text is safe to show: it never contains a credential.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Refused, reset, silent, unresolvable: retried.
    #[error("{0}")]
    Unreachable(String),
    /// The login was refused: the credentials are re-read once, then it is a condition.
    #[error("login refused: {0}")]
    LoginRefused(String),
    /// The server understood and said no: waits for a change of the spec or of the data.
    #[error("{0}")]
    Rejected(String),
}
