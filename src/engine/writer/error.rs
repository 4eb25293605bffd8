//! What went wrong with a request, and what follows from that.

use std::time::Duration;

/// What went wrong with a request; every case is worth another try.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("cannot {verb} {what}: {source}")]
    Api {
        verb: &'static str,
        what: String,
        source: Box<kube::Error>,
    },
    #[error("cannot {verb} {what}: no answer within {limit:?}")]
    Timeout {
        verb: &'static str,
        what: String,
        limit: Duration,
    },
    #[error("cannot {verb} {what}: this operator does not hold the leader lease")]
    NotLeading { verb: &'static str, what: String },
}

impl WriteError {
    /// The server's word on why a request was refused for its content (422, 403, 400): worth showing to the user.
    pub fn refusal(&self) -> Option<&str> {
        match self {
            Self::Api { source, .. } => match source.as_ref() {
                kube::Error::Api(status) if matches!(status.code, 400 | 403 | 422) => Some(&status.message),
                _ => None,
            },
            _ => None,
        }
    }

    /// The rights of this process are not enough.
    pub fn is_forbidden(&self) -> bool {
        self.code() == Some(403)
    }

    /// The number that the server answered with.
    pub(super) fn code(&self) -> Option<u16> {
        match self {
            Self::Api { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => Some(status.code),
                _ => None,
            },
            _ => None,
        }
    }

    /// How long the server asks to be left alone (429).
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Api { source, .. } => match source.as_ref() {
                kube::Error::Api(status) if status.code == 429 => {
                    let seconds = status
                        .details
                        .as_ref()
                        .map_or(1, |details| details.retry_after_seconds.max(1));
                    Some(Duration::from_secs(u64::from(seconds)))
                }
                _ => None,
            },
            _ => None,
        }
    }
}

pub(super) fn api_error(verb: &'static str, what: &str, source: kube::Error) -> WriteError {
    WriteError::Api {
        verb,
        what: what.into(),
        source: Box::new(source),
    }
}

pub(super) fn is_already_exists(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_already_exists())
}

pub(super) fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_not_found())
}
