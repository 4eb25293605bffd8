//! Where a server is and how to log in: the one description of a connection that every store uses.

use std::sync::Arc;

use crate::api::sensitive::Sensitive;

/// Transport security of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Tls {
    /// Clear text.
    Disable,
    Encrypt(Arc<Trust>),
}

impl Tls {
    /// Encrypted, the server's certificate not verified.
    pub fn require() -> Self {
        Self::Encrypt(Arc::default())
    }
}

/// Whom an encrypted connection trusts, and who we are to the server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Trust {
    /// Whether chain, dates and host name of the server's certificate are verified.
    pub verify: bool,
    /// PEM of the authorities to verify against; `None`: the public ones.
    pub ca: Option<String>,
    pub client: Option<ClientCertificate>,
}

/// A client's certificate with its chain and its key, as PEM.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientCertificate {
    pub certificate: String,
    pub key: Sensitive,
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

impl Endpoint {
    /// Where and as whom, whatever the password is.
    pub fn without_password(&self) -> Self {
        Self {
            password: Sensitive::new(""),
            ..self.clone()
        }
    }
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
    /// After some refused logins the server looks at no password of this account for a while.
    #[error("login refused for a while: {0}")]
    LockedOut(String),
    /// A certificate, the server's or ours, is not accepted: waits for another one.
    #[error("{0}")]
    Untrusted(String),
    /// Between us and the server is a pooler that does not keep a session together.
    #[error("{0}")]
    Pooled(String),
    /// The server understood and said no: waits for a change of the spec or of the data.
    #[error("{0}")]
    Rejected(String),
}

impl StoreError {
    /// Nobody gets in by this login now, whether its password was looked at or not.
    pub fn is_refused_login(&self) -> bool {
        matches!(self, Self::LoginRefused(_) | Self::LockedOut(_))
    }

    /// The server has said it. What was not reached, or went away, says nothing of what is in it.
    pub fn is_answer(&self) -> bool {
        !matches!(self, Self::Unreachable(_))
    }
}

/// What a server has refused, after a piece of work: one that went away has refused nothing, and takes nothing back that it refused before.
pub fn refusal<T>(outcome: &Result<T, StoreError>, before: Option<String>) -> Option<String> {
    match outcome {
        Ok(_) => None,
        Err(error) if error.is_answer() => Some(error.to_string()),
        Err(_) => before,
    }
}
