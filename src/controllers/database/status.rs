//! The status of an AmasDatabase from what was seen and planned. Pure: no client, no clock of its own.

mod blockers;
mod credentials;
mod drift;
mod handled;
mod members;
mod migrations;

use std::time::Duration;

use crate::{
    api::{
        amas_database::{AmasDatabase, AmasDatabaseStatus},
        conditions::{ConditionType, Reason, Wanted, is_true, merge},
    },
    controllers::credentials::Known,
    engine::{child::ChildKind, events::News, queue::Verdict},
    stores::health::Verdict as HealthVerdict,
};

use super::{
    facts, issuance,
    jobs::Decision,
    observe::Observed,
    pins,
    plan::{Plan, role_secrets},
    table::StoreKind,
    validate::Valid,
};
use blockers::Blocker;
use members::Judged;

/// A status, and what it means for the queue.
pub struct Report {
    pub status: AmasDatabaseStatus,
    pub verdict: Verdict,
    /// When time alone may change something.
    pub look_again: Option<Duration>,
    /// What is to be told with it that no later look at the status would show.
    pub news: Vec<News>,
}

/// The result of the steps before: an invalid specification, a refused write, or a plan.
pub enum Ground<'a> {
    Invalid(&'a [String]),
    Refused(&'a Valid, &'a Plan, &'a str),
    Planned(&'a Valid, &'a Plan),
}

/// Builds the whole status.
pub fn report(object: &AmasDatabase, observed: &Observed, ground: &Ground<'_>) -> Report {
    let generation = object.metadata.generation.unwrap_or_default();
    let (valid, plan) = match ground {
        Ground::Invalid(problems) => return invalid(observed, generation, problems),
        Ground::Refused(valid, plan, _) | Ground::Planned(valid, plan) => (valid, plan),
    };
    if matches!(ground, Ground::Planned(..)) && unheard(object.spec.suspend, observed, plan) {
        return as_before(observed);
    }
    let mut draft = Draft {
        object,
        observed,
        plan,
        conditions: Vec::new(),
        blockers: Vec::new(),
        look_again: None,
    };
    if let Ground::Refused(_, _, message) = ground {
        draft.block(
            true,
            Reason::Refused,
            format!("the API refuses what this object needs: {message}"),
        );
    }
    draft.suspended();
    draft.names();
    let stores = draft.stores(valid);
    draft.migrations();
    draft.drift();
    draft.policies(&stores);
    draft.updates();
    let available = draft.available(&stores);
    draft.finish(generation, valid, available)
}

fn invalid(observed: &Observed, generation: i64, problems: &[String]) -> Report {
    let message = problems.join("; ");
    let old = &observed.status;
    let kept = old
        .conditions
        .iter()
        .filter(|condition| !matches!(condition.type_.as_str(), "Ready" | "Reconciling" | "Stalled"));
    let wanted = [
        Wanted::new(ConditionType::Ready, false, Reason::InvalidSpec, message.clone()),
        Wanted::new(ConditionType::Stalled, true, Reason::InvalidSpec, message),
    ];
    let conditions = merge(&old.conditions, &wanted, generation, observed.now)
        .into_iter()
        .chain(kept.cloned())
        .collect();
    let status = AmasDatabaseStatus {
        observed_generation: Some(generation),
        conditions,
        ..old.clone()
    };
    Report {
        status,
        verdict: Verdict::Invalid,
        look_again: None,
        news: Vec::new(),
    }
}

/// After a start of the operator the servers have not all been heard of. What the status says of this generation stands until they have,
/// so that a restart writes nothing.
fn unheard(suspended: bool, observed: &Observed, plan: &Plan) -> bool {
    // The keepers of a suspended object never look.
    let known = !suspended && observed.same_generation && !observed.status.conditions.is_empty();
    let troubled = !plan.missing.is_empty() || !plan.taken.is_empty();
    let silent = |store: StoreKind| {
        observed
            .health(store)
            .is_none_or(|health| health.verdict == HealthVerdict::Unknown)
    };
    let unread = |store: StoreKind| {
        let heard = observed.heard(store);
        heard.is_some_and(|heard| heard.health.is_up() && !heard.is_read)
    };
    let mut held = StoreKind::ALL.into_iter().filter(|store| plan.duties.has(*store));
    known && !troubled && held.any(|store| silent(store) || unread(store))
}

fn as_before(observed: &Observed) -> Report {
    let ready = is_true(&observed.status.conditions, ConditionType::Ready);
    let verdict = if ready { Verdict::Converged } else { Verdict::Waiting };
    Report {
        status: observed.status.clone(),
        verdict,
        look_again: None,
        news: Vec::new(),
    }
}

/// A status is no longer than this, serialised.
const STATUS_BYTES: usize = 32 * 1024;

/// Shows less of a pending plan until the status is short enough: everything else in it has its bound.
fn fit(status: &mut AmasDatabaseStatus) {
    let is_long = |status: &AmasDatabaseStatus| serde_json::to_vec(status).is_ok_and(|text| text.len() > STATUS_BYTES);
    let shows = |status: &mut AmasDatabaseStatus| {
        let plan = status.migrations.as_mut()?.pending_plan.as_mut()?;
        plan.statements.pop()
    };
    let has_plan = status.migrations.as_ref().is_some_and(|one| one.pending_plan.is_some());
    while has_plan && is_long(status) && shows(status).is_some() {}
}

struct Draft<'a> {
    object: &'a AmasDatabase,
    observed: &'a Observed,
    plan: &'a Plan,
    conditions: Vec<Wanted>,
    blockers: Vec<Blocker>,
    look_again: Option<Duration>,
}

impl Draft<'_> {
    fn set(&mut self, kind: ConditionType, status: bool, reason: Reason, message: impl Into<String>) {
        self.conditions.push(Wanted::new(kind, status, reason, message));
    }

    fn look_within(&mut self, time: Duration) {
        self.look_again = Some(self.look_again.map_or(time, |other| other.min(time)));
    }

    /// Every required store serves at a schema that an application can use. What is pending never clears it.
    fn available(&mut self, stores: &[Judged]) -> bool {
        let away = stores.iter().find(|one| one.required && !one.state.serves());
        if let Some(one) = away {
            self.set(
                ConditionType::Available,
                false,
                Reason::WaitingForStore,
                format!("{} does not serve", one.store.component()),
            );
            return false;
        }
        let migrated = self.object.spec.migrations.is_none()
            || matches!(self.plan.migrations, Some(Decision::Done) if self.rights_in())
            || is_true(&self.observed.status.conditions, ConditionType::Available)
            || (self.current_version().is_some()
                && self
                    .observed
                    .status
                    .migrations
                    .as_ref()
                    .is_some_and(|migrations| migrations.pending == 0));
        let (reason, message) = match migrated {
            true => (Reason::Serving, "every required store serves"),
            false => (Reason::Migrating, "the schema was never complete yet"),
        };
        self.set(ConditionType::Available, migrated, reason, message);
        migrated
    }

    fn finish(mut self, generation: i64, valid: &Valid, available: bool) -> Report {
        if !self.plan.steps.is_empty() || !available {
            self.block(false, Reason::Provisioning, "objects are being made");
        }
        // What a human must do comes first; else the first in the order of the stores.
        let first = self
            .blockers
            .iter()
            .find(|blocker| blocker.human)
            .or(self.blockers.first())
            .cloned();
        let verdict = match &first {
            None => Verdict::Converged,
            Some(blocker) if blocker.human => Verdict::Invalid,
            Some(_) => Verdict::Waiting,
        };
        let (ready, reason, message) = match first {
            None if self.object.spec.suspend => (
                true,
                Reason::Suspended,
                "everything declared is in; nothing is changed until spec.suspend is false".to_owned(),
            ),
            None => (true, Reason::Ready, self.ready_message()),
            Some(blocker) => (false, blocker.reason, blocker.message),
        };
        let mut wanted = vec![Wanted::new(ConditionType::Ready, ready, reason, message.clone())];
        match verdict {
            Verdict::Converged => {}
            Verdict::Waiting => wanted.push(Wanted::new(ConditionType::Reconciling, true, reason, message)),
            Verdict::Invalid => wanted.push(Wanted::new(ConditionType::Stalled, true, reason, message)),
        }
        wanted.append(&mut self.conditions);
        wanted.sort_by_key(|condition| condition.kind);
        let old = &self.observed.status;
        let mut status = AmasDatabaseStatus {
            observed_generation: Some(generation),
            conditions: merge(&old.conditions, &wanted, generation, self.observed.now),
            stores: facts::stores(self.object, valid, self.observed),
            migrations: self.migrations_status(),
            secrets: self.secrets(valid),
            credentials: self.credentials(valid),
            handled: self.handled(valid),
            pinned: pins::next(&self.object.spec, self.observed),
            volumes: self.volumes(),
            issuer: issuance::asked(&self.object.spec, self.observed),
        };
        fit(&mut status);
        Report {
            news: self.unknown_credentials(valid, &status.handled),
            status,
            verdict,
            look_again: self.look_again,
        }
    }

    fn ready_message(&self) -> String {
        let mut message = "everything declared is in".to_owned();
        if self.conditions.iter().any(|one| one.kind == ConditionType::Drifted)
            && let Some(drift) = self.drift_status()
        {
            message += &format!("; {}", drift::summary(&drift));
        }
        let waiting = self.waiting();
        if !waiting.is_empty() {
            message += &format!("; waiting for a restart: {}", waiting.join("; "));
        }
        message
    }

    /// The Secrets that are ours and there, or were: a lost one stays lost until it is put back or made again on demand.
    fn secrets(&self, valid: &Valid) -> Vec<String> {
        let listed = |name: &&String| {
            matches!(self.observed.secrets.get(*name), Some(Known::Present(_)))
                || self.observed.status.secrets.contains(name)
        };
        let gone: Vec<&String> = match self.object.spec.postgres {
            Some(_) => role_secrets(valid, self.observed).collect(),
            None => Vec::new(),
        };
        // Those of a store that is not listed now stay with its volume.
        let former = self.observed.former_secrets.iter().filter(|name| !gone.contains(name));
        let wanted = valid.secrets.iter().map(|secret| &secret.name);
        wanted.filter(listed).chain(former).cloned().collect()
    }

    fn volumes(&self) -> Vec<String> {
        let claims = self
            .observed
            .children
            .keys()
            .filter(|(kind, _)| *kind == ChildKind::PersistentVolumeClaim);
        claims.map(|(_, name)| name.clone()).collect()
    }
}

#[cfg(test)]
mod tests;
