//! What keeps Ready from being True, and what waits beside it.

use std::time::Duration;

use crate::api::{
    REISSUE, RESTART,
    conditions::{ConditionType, Reason},
};

use super::Draft;

/// Something that keeps Ready from being True.
#[derive(Clone, Debug, PartialEq)]
pub struct Blocker {
    /// A human has to act; nothing passes by itself.
    pub human: bool,
    pub reason: Reason,
    pub message: String,
}

/// A Secret that is missing or cannot be used is looked at again after this time.
const LOOK_FOR_SECRETS: Duration = Duration::from_secs(10);

impl Draft<'_> {
    pub fn block(&mut self, human: bool, reason: Reason, message: impl Into<String>) {
        let message = message.into();
        // What we would do waits for a person as long as the object is suspended.
        let held = self.object.spec.suspend && matches!(reason, Reason::Configuring | Reason::Migrating);
        self.blockers.push(match held {
            true => Blocker {
                human: true,
                reason: Reason::Suspended,
                message: format!("suspended: {message}"),
            },
            false => Blocker { human, reason, message },
        });
    }

    pub fn suspended(&mut self) {
        let held = self.plan.held;
        if held > 0 {
            let message = format!("suspended: {held} changes wait until spec.suspend is false");
            self.block(true, Reason::Suspended, message);
        }
    }

    /// Names that are not ours to use, Secrets that are gone.
    pub fn names(&mut self) {
        let list = |names: Vec<String>| names.join(", ");
        if !self.plan.taken.is_empty() {
            let names = list(
                self.plan
                    .taken
                    .iter()
                    .map(|(kind, name)| format!("{kind:?} {name}"))
                    .collect(),
            );
            self.block(true, Reason::NameTaken, format!("{names} exists and does not belong to this AmasDatabase; delete or rename it, or name the AmasDatabase otherwise"));
            self.look_again = Some(Duration::from_secs(60));
        }
        if !self.plan.missing.is_empty() {
            let names = list(self.plan.missing.clone());
            self.block(
                true,
                Reason::CredentialsMissing,
                format!("Secret {names} is missing or has no password, but its data exists; put the Secret back (it is then taken up by itself); a role may also get a new password: kubectl annotate amasdb {} {REISSUE}=ROLE/1", self.object.metadata.name.as_deref().unwrap_or_default()),
            );
            self.look_within(LOOK_FOR_SECRETS);
        }
        if let Some(trouble) = &self.plan.certificates {
            self.block(trouble.human, Reason::CertificatesMissing, trouble.message.clone());
        }
        if let Some(sight) = &self.observed.issuance {
            self.look_within(sight.holds(self.observed.now));
        }
        if !self.plan.unusable.is_empty() {
            self.block(true, Reason::CredentialsMissing, list(self.plan.unusable.clone()));
            self.look_within(LOOK_FOR_SECRETS);
        }
    }

    /// What waits for a restart of a server. Nothing is wrong with it, so it is told beside the readiness.
    pub fn updates(&mut self) {
        let waiting = self.waiting();
        if waiting.is_empty() {
            return;
        }
        let how = match &self.object.spec.maintenance_window {
            Some(window) => format!("in the maintenance window ({} {})", window.start, window.time_zone),
            None => "when the server is restarted anyway".to_owned(),
        };
        let message = format!(
            "{}; applied {how}, or at once after: kubectl annotate amasdb {} {RESTART}=\"$(date +%s)\" --overwrite",
            waiting.join("; "),
            self.object.metadata.name.as_deref().unwrap_or_default(),
        );
        self.set(ConditionType::UpdatePending, true, Reason::WaitingForRestart, message);
        if let Some(time) = self.plan.look_again {
            self.look_within(time);
        }
    }

    pub fn waiting(&self) -> Vec<String> {
        let all = self.plan.rollouts.iter();
        all.filter_map(|(component, rollout)| Some(format!("{component}: {}", rollout.pending()?)))
            .collect()
    }
}
