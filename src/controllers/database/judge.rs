//! What the state of one store means: which condition it gives, and whether it keeps the object from being Ready. Pure.

mod away;
mod serving;

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::{
    api::conditions::{ConditionType, Reason, Wanted, is_true},
    engine::child::ChildKind,
    stores::health::{Health, Reason as HealthReason, Verdict},
};

use super::{observe::Observed, plan::Plan, table::StoreKind, validate::Valid, volumes};

/// How a store is.
#[derive(Clone, Debug, PartialEq)]
pub enum StoreState {
    /// Serves, and everything declared for it is in.
    Serving,
    /// Serves, while something declared is still being brought in.
    Changing(String),
    /// Serves, but something declared cannot be brought in.
    Refusing(Reason, String),
    /// Does not serve. `human`: and will not by itself.
    Away {
        human: bool,
        reason: Reason,
        message: String,
    },
    /// The operator has just started and has not heard of it: as it was before.
    AsBefore {
        served: bool,
        reason: String,
        message: String,
    },
}

impl StoreState {
    pub fn serves(&self) -> bool {
        match self {
            Self::Serving | Self::Changing(_) | Self::Refusing(..) => true,
            Self::AsBefore { served, .. } => *served,
            Self::Away { .. } => false,
        }
    }

    /// What keeps the object from being Ready: human, reason, message.
    pub fn blocker(&self) -> Option<(bool, Reason, String)> {
        match self {
            Self::Serving | Self::AsBefore { served: true, .. } => None,
            Self::Changing(what) => Some((false, Reason::Configuring, what.clone())),
            Self::Refusing(reason, message) => Some((true, *reason, message.clone())),
            Self::Away { human, reason, message } => Some((*human, *reason, message.clone())),
            Self::AsBefore { message, .. } => Some((false, Reason::Provisioning, message.clone())),
        }
    }

    pub fn condition(&self, store: StoreKind) -> Wanted {
        let (status, reason, message) = match self {
            Self::Serving | Self::Changing(_) => (true, Reason::Serving, "the server answers".to_owned()),
            Self::Refusing(reason, message) => (false, *reason, message.clone()),
            Self::Away { reason, message, .. } => (false, *reason, message.clone()),
            Self::AsBefore { served: true, .. } => (true, Reason::Serving, "the server answers".to_owned()),
            Self::AsBefore { message, .. } => (false, Reason::Provisioning, message.clone()),
        };
        Wanted::new(store.condition(), status, reason, message)
    }
}

/// What one store is judged by.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    pub store: StoreKind,
    pub managed: bool,
    /// The keepers of a suspended object never look.
    pub suspended: bool,
    pub valid: &'a Valid,
    pub observed: &'a Observed,
    pub plan: &'a Plan,
}

impl Subject<'_> {
    /// Judges it.
    pub fn state(self) -> StoreState {
        let state = self.unusable().unwrap_or_else(|| self.heard());
        // A full volume may be why a server is away: what becomes of it is told all the same.
        match (state, self.volume()) {
            (StoreState::Away { message, .. }, volumes::State::Refused(reason, why)) => StoreState::Away {
                human: true,
                reason: *reason,
                message: format!("{why}; and {message}"),
            },
            (StoreState::Away { human, reason, message }, volumes::State::Growing(what)) => StoreState::Away {
                human,
                reason,
                message: format!("{what}; {message}"),
            },
            (state, _) => state,
        }
    }

    fn volume(&self) -> &volumes::State {
        self.plan
            .volumes
            .get(self.store.component())
            .unwrap_or(&volumes::State::Fits)
    }

    fn name(&self) -> String {
        self.valid.family.child_name(self.store.component())
    }

    /// What has to be mended by hand before its server counts.
    fn unusable(&self) -> Option<StoreState> {
        let away = |reason, message: &String| StoreState::Away {
            human: true,
            reason,
            message: message.clone(),
        };
        if let Some(Err(problem)) = self.observed.externals.get(&self.store) {
            return Some(away(Reason::CredentialsMissing, problem));
        }
        match self.volume() {
            volumes::State::Foreign(message) => Some(away(Reason::DataVersionMismatch, message)),
            volumes::State::Missing(message) if self.observed.health(self.store).is_some_and(Health::is_up) => {
                Some(StoreState::Refusing(Reason::VolumeMissing, message.clone()))
            }
            volumes::State::Missing(message) => Some(away(Reason::VolumeMissing, message)),
            _ => None,
        }
    }

    /// What was heard of its server.
    fn heard(self) -> StoreState {
        let Some(health) = self.observed.health(self.store) else {
            return self.provisioning();
        };
        let before = self
            .observed
            .status
            .conditions
            .iter()
            .find(|condition| condition.type_ == format!("{:?}", self.store.condition()));
        match (health.verdict, before) {
            (Verdict::Up, Some(before)) if self.suspended && !self.is_read() => as_before(before),
            // The Secret was read again just now; perhaps somebody has changed both.
            (Verdict::Up, Some(before))
                if before.status == "True" && self.observed.same_generation && self.just_refused() =>
            {
                as_before(before)
            }
            (Verdict::Up, _) => self.up(),
            (Verdict::Down, Some(before)) if before.status == "True" && self.just_refused() => as_before(before),
            (Verdict::Unknown, Some(before)) => as_before(before),
            (Verdict::Unknown, None) => self.provisioning(),
            (Verdict::Down, before) => self.down(health, before),
        }
    }

    fn up(self) -> StoreState {
        let rotating = self.plan.rotating.contains(&self.store) && self.observed.same_generation;
        match (self.serving(), self.volume()) {
            // While passwords are replaced the server serves as before.
            (StoreState::Changing(_), _) if rotating && was_ready(self.observed) => StoreState::Serving,
            (StoreState::Serving, _) if self.is_replaced() => StoreState::Changing(self.replaced()),
            (StoreState::Serving | StoreState::Changing(_), volumes::State::Refused(reason, message)) => {
                StoreState::Refusing(*reason, message.clone())
            }
            (StoreState::Serving, volumes::State::Growing(message)) => StoreState::Changing(message.clone()),
            (state, _) => state,
        }
    }

    fn down(self, health: &Health, before: Option<&Condition>) -> StoreState {
        match health.reason {
            HealthReason::NeverSeen if self.managed && before.is_none_or(|before| before.reason == "Provisioning") => {
                self.provisioning()
            }
            _ if self.trouble().is_some() => self.provisioning(),
            // The one that answers is from before encryption was asked for.
            HealthReason::Untrusted if self.is_replaced() => StoreState::Away {
                human: false,
                reason: Reason::Configuring,
                message: self.replaced(),
            },
            reason => away::lost(reason, &health.message),
        }
    }

    fn is_read(&self) -> bool {
        self.observed.heard(self.store).is_some_and(|heard| heard.is_read)
    }

    /// Whether the pod that runs is not yet made from what its StatefulSet says.
    fn is_replaced(&self) -> bool {
        let seen = self.observed.children.get(&(ChildKind::StatefulSet, self.name()));
        let template = seen.and_then(|seen| seen.facts.template.as_ref());
        self.managed && template.is_some_and(|template| !template.rolled_out)
    }

    fn replaced(&self) -> String {
        format!("pod {}-0 is about to be replaced", self.name())
    }

    fn just_refused(&self) -> bool {
        let health = self.observed.health(self.store);
        let untrusted =
            health.is_some_and(|health| health.reason.bars() && health.reason != HealthReason::LoginRefused);
        !untrusted && barred_for(self.store, self.observed).is_some_and(|time| time < LOGIN_GRACE)
    }
}

fn as_before(before: &Condition) -> StoreState {
    StoreState::AsBefore {
        served: before.status == "True",
        reason: before.reason.clone(),
        message: before.message.clone(),
    }
}

fn was_ready(observed: &Observed) -> bool {
    is_true(&observed.status.conditions, ConditionType::Ready)
}

/// How long a login may be refused before it is a condition: the Secret is read again first, and the login tried with what it says.
const LOGIN_GRACE: Duration = Duration::from_secs(3);

fn barred_for(store: StoreKind, observed: &Observed) -> Option<Duration> {
    let since = observed.barred_since(store)?;
    Some(Duration::try_from(observed.now.duration_since(since)).unwrap_or_default())
}

/// How soon a Secret whose login is refused is read again: soon at first, seldom in the end, since reading it does not help by itself.
pub fn reread_in(store: StoreKind, observed: &Observed) -> Option<Duration> {
    let since = barred_for(store, observed)?;
    Some((since / 8).clamp(Duration::from_secs(2), Duration::from_secs(60)))
}
