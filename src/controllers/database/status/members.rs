//! The part of the status that is about the stores and the policies on them: who counts, who is awaited, who is left out. Pure.

use std::time::Duration;

use crate::api::{
    common::{ExternalHealth, HealthMode},
    conditions::{ConditionType, Reason, is_true},
    units::Span,
};

use super::{
    super::{
        judge::{StoreState, Subject, reread_in},
        observe::Policy,
        table::Declared,
        table::StoreKind,
        validate::{Valid, externals},
    },
    Draft,
};

/// A store with what it means for the whole.
pub(super) struct Judged {
    pub(super) store: StoreKind,
    pub(super) state: StoreState,
    pub(super) required: bool,
    /// Optional, but still given time to start.
    awaited: bool,
}

impl Judged {
    fn counts(&self) -> bool {
        self.required || self.awaited
    }
}

impl Draft<'_> {
    pub(super) fn stores(&mut self, valid: &Valid) -> Vec<Judged> {
        let spec = &self.object.spec;
        let on_demand: Vec<(StoreKind, Span)> = externals(spec)
            .into_iter()
            .filter(|(_, external)| external.health.mode == HealthMode::OnDemand)
            .map(|(store, external)| (store, external.health.interval.unwrap_or(ExternalHealth::SELDOM)))
            .collect();
        let mut judged = Vec::new();
        for (store, Declared { required, managed, .. }) in StoreKind::all_of(spec) {
            let subject = Subject {
                store,
                managed,
                suspended: spec.suspend,
                valid,
                observed: self.observed,
                plan: self.plan,
            };
            let state = subject.state();
            if let Some(time) = reread_in(store, self.observed) {
                self.look_within(time);
            }
            let awaited = !required && managed && self.still_awaited(store);
            let mut condition = state.condition(store);
            if condition.status
                && let Some((_, asked)) = on_demand.iter().find(|(one, _)| *one == store)
            {
                condition.message =
                    format!("the server answered when it was last asked: every {asked}, and when something changes");
            }
            self.conditions.push(condition);
            let one = Judged {
                store,
                state,
                required,
                awaited,
            };
            if one.counts()
                && let Some((human, reason, message)) = one.state.blocker()
            {
                self.block(human, reason, format!("{}: {message}", store.component()));
            }
            judged.push(one);
        }
        let away: Vec<&str> = judged
            .iter()
            .filter(|one| !one.counts() && !one.state.serves())
            .map(|one| one.store.component())
            .collect();
        if !away.is_empty() {
            self.set(
                ConditionType::Degraded,
                true,
                Reason::OptionalStoreUnavailable,
                format!("not required and not available: {}", away.join(", ")),
            );
        }
        judged
    }

    /// An optional store that was never seen, on an object that is young.
    pub(super) fn still_awaited(&mut self, store: StoreKind) -> bool {
        let policies_ready = self
            .observed
            .policies
            .iter()
            .filter(|policy| policy.store == store)
            .all(|policy| policy.ready);
        if store.was_seen(&self.observed.status) && policies_ready {
            return false;
        }
        let ready_before = is_true(&self.observed.status.conditions, ConditionType::Ready);
        let created = self
            .object
            .metadata
            .creation_timestamp
            .as_ref()
            .map_or(self.observed.now, |time| time.0);
        let age = Duration::try_from(self.observed.now.duration_since(created)).unwrap_or_default();
        let patience = self.object.spec.optional_startup_timeout.get();
        let waits = age < patience && !ready_before;
        if waits {
            let left = patience - age;
            self.look_again = Some(self.look_again.map_or(left, |other| other.min(left)));
        }
        waits
    }

    pub(super) fn policies(&mut self, stores: &[Judged]) {
        let store_counts = |policy: &&Policy| {
            stores
                .iter()
                .find(|one| one.store == policy.store)
                .is_none_or(|one| one.counts() || one.state.serves())
        };
        let problem = |policy: &Policy| match policy {
            Policy {
                exists: false,
                kind,
                name,
                ..
            } => Some(format!("{kind} {name} does not exist")),
            Policy {
                ready: false,
                kind,
                name,
                ..
            } => Some(format!("{kind} {name} is not Ready")),
            _ => None,
        };
        let demanded = self.observed.policies.iter().filter(store_counts).filter_map(problem);
        // Of a policy on a store that is left out, only its existence is asked.
        let absent = self
            .observed
            .policies
            .iter()
            .filter(|policy| !store_counts(policy) && !policy.exists)
            .filter_map(problem);
        let problems: Vec<String> = demanded.chain(absent).collect();
        if problems.is_empty() {
            let message = match self.observed.policies.len() {
                0 => "no CachePolicy or GraphSchema names this database".to_owned(),
                1 => "1 policy or schema".to_owned(),
                count => format!("{count} policies and schemas"),
            };
            return self.set(ConditionType::PoliciesReady, true, Reason::Ready, message);
        }
        let message = problems.join(", ");
        self.block(false, Reason::PolicyNotReady, message.clone());
        self.set(ConditionType::PoliciesReady, false, Reason::PolicyNotReady, message);
    }
}
