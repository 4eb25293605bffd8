//! What the state of one store means: which condition it gives, and whether it keeps the object from being Ready. Pure.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::{
    api::{
        TAKE_OVER,
        conditions::{ConditionType, Reason, Wanted, is_true},
    },
    engine::child::ChildKind,
    stores::{
        health::{Reason as HealthReason, Verdict},
        postgres::{self, ConfigurationFacts, MissingExtension},
    },
};

use super::{losses, observe::Observed, plan::Plan, table::StoreKind, validate::Valid, volumes};

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

/// How PostgreSQL says that its data was made by another major version.
const OTHER_MAJOR: &str = "was initialized by PostgreSQL version";

/// Judges one store.
pub fn state(store: StoreKind, whose: (bool, bool), valid: &Valid, observed: &Observed, plan: &Plan) -> StoreState {
    let state = heard_of(store, whose, valid, observed, plan);
    // A full volume may be why a server is away: what becomes of it is told all the same.
    match (state, plan.volumes.get(store.component())) {
        (StoreState::Away { message, .. }, Some(volumes::State::Refused(reason, why))) => StoreState::Away {
            human: true,
            reason: *reason,
            message: format!("{why}; and {message}"),
        },
        (StoreState::Away { human, reason, message }, Some(volumes::State::Growing(what))) => StoreState::Away {
            human,
            reason,
            message: format!("{what}; {message}"),
        },
        (state, _) => state,
    }
}

fn heard_of(
    store: StoreKind,
    (managed, suspended): (bool, bool),
    valid: &Valid,
    observed: &Observed,
    plan: &Plan,
) -> StoreState {
    if let Some(Err(problem)) = observed.externals.get(&store) {
        return StoreState::Away {
            human: true,
            reason: Reason::CredentialsMissing,
            message: problem.clone(),
        };
    }
    let volume = plan.volumes.get(store.component()).unwrap_or(&volumes::State::Fits);
    if let volumes::State::Foreign(message) = volume {
        return StoreState::Away {
            human: true,
            reason: Reason::DataVersionMismatch,
            message: message.clone(),
        };
    }
    if let volumes::State::Missing(message) = volume {
        let (reason, message) = (Reason::VolumeMissing, message.clone());
        let up = observed.health(store).is_some_and(|health| health.is_up());
        return match up {
            true => StoreState::Refusing(reason, message),
            false => StoreState::Away {
                human: true,
                reason,
                message,
            },
        };
    }
    let prefix = valid.family.child_name(store.component());
    let trouble = observed.trouble(&format!("{prefix}-0")).filter(|_| managed);
    let provisioning = || {
        let (reason, message) = match trouble {
            Some((_, text)) if text.contains(OTHER_MAJOR) => (
                Reason::DataVersionMismatch,
                format!("the volume was filled by another version: {text}"),
            ),
            Some((word, text)) => (trouble_reason(word), format!("pod {prefix}-0: {word}: {text}")),
            None => (Reason::Provisioning, "the server is starting".to_owned()),
        };
        StoreState::Away {
            human: false,
            reason,
            message,
        }
    };
    let Some(health) = observed.health(store) else {
        return provisioning();
    };
    let before = observed
        .status
        .conditions
        .iter()
        .find(|condition| condition.type_ == format!("{:?}", store.condition()));
    match (health.verdict, before) {
        // The keepers of a suspended object never look.
        (Verdict::Up, Some(before)) if suspended && !observed.heard(store).is_some_and(|heard| heard.is_read) => {
            as_before(before)
        }
        // The Secret was read again just now; perhaps somebody has changed both.
        (Verdict::Up, Some(before))
            if before.status == "True" && observed.same_generation && just_refused(store, observed) =>
        {
            as_before(before)
        }
        (Verdict::Up, _) => match (serving(store, valid, observed, plan), volume) {
            // While passwords are replaced the server serves as before.
            (StoreState::Changing(_), _)
                if plan.rotating.contains(&store) && observed.same_generation && was_ready(observed) =>
            {
                StoreState::Serving
            }
            (StoreState::Serving, _) if managed && !rolled_out(&prefix, observed) => {
                StoreState::Changing(format!("pod {prefix}-0 is about to be replaced"))
            }
            (StoreState::Serving | StoreState::Changing(_), volumes::State::Refused(reason, message)) => {
                StoreState::Refusing(*reason, message.clone())
            }
            (StoreState::Serving, volumes::State::Growing(message)) => StoreState::Changing(message.clone()),
            (state, _) => state,
        },
        // The Secret was read again just now; perhaps somebody has changed both.
        (Verdict::Down, Some(before)) if before.status == "True" && just_refused(store, observed) => as_before(before),
        (Verdict::Unknown, Some(before)) => as_before(before),
        (Verdict::Unknown, None) => provisioning(),
        (Verdict::Down, before) => match health.reason {
            HealthReason::NeverSeen if managed && before.is_none_or(|before| before.reason == "Provisioning") => {
                provisioning()
            }
            _ if trouble.is_some() => provisioning(),
            // The one that answers is from before encryption was asked for.
            HealthReason::Untrusted if managed && !rolled_out(&prefix, observed) => StoreState::Away {
                human: false,
                reason: Reason::Configuring,
                message: format!("pod {prefix}-0 is about to be replaced"),
            },
            reason => StoreState::Away {
                human: reason.bars(),
                reason: lost_reason(reason),
                message: lost_message(reason, &health.message),
            },
        },
    }
}

fn invalid_parameters(store: &str, refused: &[String]) -> Option<StoreState> {
    let refused = Some(refused).filter(|refused| !refused.is_empty())?.join("; ");
    Some(StoreState::Refusing(
        Reason::InvalidParameter,
        format!("spec.{store}.managed.parameters: {refused}; the server goes on with the values it has"),
    ))
}

/// What is wrong with the server's configuration, or still on its way.
fn configuration_state(plan: &Plan, facts: Option<&ConfigurationFacts>) -> Option<StoreState> {
    if let Some(state) = invalid_parameters("postgres", &plan.refused) {
        return Some(state);
    }
    let (facts, wanted) = (facts?, plan.duties.postgres.as_ref()?.configuration.as_ref()?);
    if !facts.overridden.is_empty() {
        let names = facts.overridden.join(", ");
        let message = format!(
            "{names}: ALTER SYSTEM goes before the specification; run ALTER SYSTEM RESET as {}",
            postgres::workload::ADMIN
        );
        return Some(StoreState::Refusing(Reason::Refused, message));
    }
    if facts.loaded.as_ref() != Some(&wanted.written) {
        return Some(StoreState::Changing(
            "the changed configuration is on its way to the server".into(),
        ));
    }
    let restart = facts.restart.join(", ");
    (!restart.is_empty()).then(|| StoreState::Changing(format!("{restart}: the new value waits for a restart")))
}

fn as_before(before: &Condition) -> StoreState {
    StoreState::AsBefore {
        served: before.status == "True",
        reason: before.reason.clone(),
        message: before.message.clone(),
    }
}

/// Whether the pod that runs is made from what its StatefulSet says.
fn rolled_out(name: &str, observed: &Observed) -> bool {
    let seen = observed.children.get(&(ChildKind::StatefulSet, name.to_owned()));
    seen.and_then(|seen| seen.facts.template.as_ref())
        .is_none_or(|template| template.rolled_out)
}

fn was_ready(observed: &Observed) -> bool {
    is_true(&observed.status.conditions, ConditionType::Ready)
}

/// How long a login may be refused before it is a condition: the Secret is read again first, and the login tried with what it says.
pub const LOGIN_GRACE: Duration = Duration::from_secs(3);

fn just_refused(store: StoreKind, observed: &Observed) -> bool {
    let untrusted = observed
        .health(store)
        .is_some_and(|health| health.reason.bars() && health.reason != HealthReason::LoginRefused);
    !untrusted && barred_for(store, observed).is_some_and(|time| time < LOGIN_GRACE)
}

fn barred_for(store: StoreKind, observed: &Observed) -> Option<Duration> {
    let since = observed.barred_since(store)?;
    Some(Duration::try_from(observed.now.duration_since(since)).unwrap_or_default())
}

/// How soon a Secret whose login is refused is read again: soon at first, seldom in the end, since reading it does not help by itself.
pub fn reread_in(store: StoreKind, observed: &Observed) -> Option<Duration> {
    let since = barred_for(store, observed)?;
    Some((since / 8).clamp(Duration::from_secs(2), Duration::from_secs(60)))
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

/// A store that somebody else claims: of no use to this object unless it was its own before.
fn conflicted(store: StoreKind, holder: &str, observed: &Observed, name: &str) -> StoreState {
    let message = format!(
        "{holder}; release it there (delete that object), or take it over: kubectl annotate amasdb {name} {TAKE_OVER}=\"$(date +%s)\" --overwrite"
    );
    if store.was_seen(&observed.status) {
        return StoreState::Refusing(Reason::Conflicted, message);
    }
    StoreState::Away {
        human: true,
        reason: Reason::Conflicted,
        message,
    }
}

/// What the facts of a server that answers say.
fn serving(store: StoreKind, valid: &Valid, observed: &Observed, plan: &Plan) -> StoreState {
    let changing = || StoreState::Changing("being brought to the specification".into());
    let Some(heard) = observed.heard(store) else {
        return changing();
    };
    if let Some(conflict) = heard.conflict {
        return conflicted(store, conflict, observed, &valid.family.database);
    }
    if let Some(state) = of_its_own(store, valid, observed, plan) {
        return state;
    }
    match (heard.error, heard.duty_in, plan.duties.wanted(store)) {
        (Some(error), ..) if observed.barred_since(store).is_some() => {
            StoreState::Refusing(Reason::LoginRefused, error.clone())
        }
        (Some(error), ..) => StoreState::Refusing(Reason::Refused, error.clone()),
        (None, Some(duty_in), Some(wanted)) if duty_in == wanted => StoreState::Serving,
        // Never configured yet: roles and database may be missing, so nobody could use it.
        (None, None, _) if !store.was_seen(&observed.status) => StoreState::Away {
            human: false,
            reason: Reason::Provisioning,
            message: "the server is starting".into(),
        },
        _ => changing(),
    }
}

/// What only one of the stores can lack: its database, an extension, or a parameter that the server takes.
fn of_its_own(store: StoreKind, valid: &Valid, observed: &Observed, plan: &Plan) -> Option<StoreState> {
    match store {
        StoreKind::Postgres => {
            let facts = &observed.postgres.as_ref()?.facts;
            if let Some(duty) = plan.duties.postgres.as_ref().filter(|_| facts.database_missing) {
                return Some(StoreState::Away {
                    human: true,
                    reason: Reason::DatabaseMissing,
                    message: losses::of_database(duty.database.as_str(), valid),
                });
            }
            let extension = facts.missing_extensions.first().map(missing);
            extension.or_else(|| configuration_state(plan, facts.configuration.as_ref()))
        }
        StoreKind::Redis => {
            let facts = observed.redis.as_ref()?.facts.parameters.as_ref()?;
            let asked = &plan.duties.redis.as_ref()?.parameters;
            (*asked == facts.asked).then(|| invalid_parameters("redis", &facts.refused))?
        }
        StoreKind::Neo4j => None,
    }
}

fn missing(extension: &MissingExtension) -> StoreState {
    let message = match extension.installed {
        true => format!(
            "extension {} cannot be created with our rights; as an administrator run: {}",
            extension.name, extension.statement
        ),
        false => format!(
            "extension {} is not installed on the server; use an image or service that has it",
            extension.name
        ),
    };
    StoreState::Refusing(Reason::ExtensionMissing, message)
}
