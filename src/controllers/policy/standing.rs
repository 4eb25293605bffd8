//! How an object stands, and how that is said in conditions.

use crate::{
    api::{
        amas_database::AmasDatabase,
        conditions::{ConditionType, Reason, Wanted},
    },
    engine::queue::Verdict,
    stores::health::{self, Health},
};

/// How a policy stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    pub verdict: Verdict,
    pub reason: Reason,
    pub message: String,
}

impl Standing {
    pub fn ready(message: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Converged,
            reason: Reason::Ready,
            message: message.into(),
        }
    }

    pub fn waiting(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Waiting,
            reason,
            message: message.into(),
        }
    }

    pub fn invalid(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Invalid,
            reason,
            message: message.into(),
        }
    }

    /// Ready, and Reconciling or Stalled while it is not.
    pub fn conditions(&self) -> Vec<Wanted> {
        let (reason, message) = (self.reason, &self.message);
        let mut all = vec![Wanted::new(
            ConditionType::Ready,
            self.verdict == Verdict::Converged,
            reason,
            message,
        )];
        match self.verdict {
            Verdict::Converged => {}
            Verdict::Waiting => all.push(Wanted::new(ConditionType::Reconciling, true, reason, message)),
            Verdict::Invalid => all.push(Wanted::new(ConditionType::Stalled, true, reason, message)),
        }
        all
    }
}

/// The standing of a policy whose database or store is not there; `None` when its store answers.
pub fn store_missing(
    database: Option<&AmasDatabase>,
    declared: bool,
    store: &str,
    name: &str,
    health: Option<&Health>,
) -> Option<Standing> {
    match (database, declared, health) {
        (None, ..) => Some(Standing::waiting(
            Reason::DatabaseNotFound,
            format!("AmasDatabase {name} does not exist in this namespace"),
        )),
        (Some(_), false, _) => Some(Standing::invalid(
            Reason::DatabaseNotFound,
            format!("AmasDatabase {name} has no {store}; add spec.{store} to it, or delete this object"),
        )),
        (_, _, Some(health)) if health.is_up() => None,
        (_, _, Some(health)) if !health.message.is_empty() && health.reason != health::Reason::NeverSeen => {
            Some(Standing::waiting(
                Reason::WaitingForStore,
                format!("{store} of {name} does not serve: {}", health.message),
            ))
        }
        _ => Some(Standing::waiting(
            Reason::WaitingForStore,
            format!("waiting for {store} of {name}"),
        )),
    }
}
