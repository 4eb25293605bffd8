//! A store that does not serve: why, in a word and a sentence.

use crate::{api::conditions::Reason, stores::health::Reason as HealthReason};

use super::{StoreState, Subject};

/// How PostgreSQL says that its data was made by another major version.
const OTHER_MAJOR: &str = "was initialized by PostgreSQL version";

impl Subject<'_> {
    /// Why its pod cannot run, if it says so.
    pub fn trouble(&self) -> Option<&(String, String)> {
        self.observed
            .trouble(&format!("{}-0", self.name()))
            .filter(|_| self.managed)
    }

    /// It has not been there yet, or is not there again.
    pub fn provisioning(&self) -> StoreState {
        let (reason, message) = match self.trouble() {
            Some((_, text)) if text.contains(OTHER_MAJOR) => (
                Reason::DataVersionMismatch,
                format!("the volume was filled by another version: {text}"),
            ),
            Some((word, text)) => (trouble_reason(word), format!("pod {}-0: {word}: {text}", self.name())),
            None => (Reason::Provisioning, "the server is starting".to_owned()),
        };
        StoreState::Away {
            human: false,
            reason,
            message,
        }
    }
}

/// It was there.
pub fn lost(reason: HealthReason, message: &str) -> StoreState {
    StoreState::Away {
        human: reason.bars(),
        reason: lost_reason(reason),
        message: lost_message(reason, message),
    }
}

fn trouble_reason(word: &str) -> Reason {
    match word {
        "ImagePullBackOff" | "ErrImagePull" | "ErrImageNeverPull" | "InvalidImageName" => Reason::ImagePullFailed,
        "Unschedulable" => Reason::Unschedulable,
        _ => Reason::CrashLoop,
    }
}

fn lost_reason(reason: HealthReason) -> Reason {
    match reason {
        HealthReason::Timeout => Reason::NotResponding,
        HealthReason::LoginRefused => Reason::LoginRefused,
        HealthReason::Untrusted => Reason::TlsFailed,
        HealthReason::Pooled => Reason::PooledConnection,
        HealthReason::Flapping => Reason::Flapping,
        _ => Reason::ConnectionLost,
    }
}

fn lost_message(reason: HealthReason, message: &str) -> String {
    match reason {
        HealthReason::LoginRefused => format!("the server refuses the login in the Secret: {message}"),
        HealthReason::Untrusted | HealthReason::Pooled => message.to_owned(),
        HealthReason::NeverSeen => format!("the server cannot be reached: {message}"),
        HealthReason::Flapping => format!("the server has come and gone several times within 30 s: {message}"),
        HealthReason::Timeout => format!("the server does not answer: {message}"),
        _ => format!("the connection is lost: {message}"),
    }
}
