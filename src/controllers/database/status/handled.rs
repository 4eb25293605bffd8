//! One-shot annotations that have nothing left to ask for.

use std::collections::BTreeMap;

use crate::{
    api::{REISSUE, ROTATE, conditions::shorten},
    controllers::{
        credentials::SecretSpec,
        database::{
            jobs::Decision,
            losses,
            observe::{HANDLED_DRIFT, HANDLED_REREAD, HANDLED_TAKE_OVER},
            plan::HANDLED_RESTART,
            secrets,
            table::StoreKind,
            validate::Valid,
        },
    },
    engine::events::News,
    stores::health::Health,
};

use super::Draft;

/// Of an annotation's value an Event shows no more, in bytes.
const SHOWN: usize = 60;

impl Draft<'_> {
    /// A one-shot annotation is handled once nothing is left to write for it.
    pub fn handled(&self, valid: &Valid) -> BTreeMap<String, String> {
        let mut handled = self.observed.status.handled.clone();
        if self.plan.steps.is_empty()
            && self.plan.held == 0
            && self.plan.missing.is_empty()
            && let Some(value) = &self.observed.annotations.restart
        {
            handled.insert(HANDLED_RESTART.into(), value.clone());
        }
        let requests = secrets::handled(valid, self.observed);
        handled.extend(requests.into_iter().map(|(name, value)| (name.into(), value)));
        handled.extend(losses::handled(self.plan, self.observed).map(|value| (losses::HANDLED.into(), value)));
        if let Some(value) = &self.observed.annotations.accept_drift
            && (self.observed.postgres.as_ref()).is_some_and(|one| one.facts.drift_accepted.as_ref() == Some(value))
        {
            handled.insert(HANDLED_DRIFT.into(), value.clone());
        }
        // A failure that is told now has not been asked about yet, and one that was is tried again.
        if let (Some(value), Some(Decision::Running { .. } | Decision::Done | Decision::Failed { .. })) =
            (&self.observed.annotations.try_again, &self.plan.migrations)
        {
            handled.insert(HANDLED_REREAD.into(), value.clone());
        }
        if let Some(value) = self
            .observed
            .annotations
            .take_over
            .as_ref()
            .filter(|value| self.taken_over(value))
        {
            handled.insert(HANDLED_TAKE_OVER.into(), value.clone());
        }
        handled
    }

    /// Annotations that were handled just now without anything to do, since they name nothing that has a password of ours.
    pub fn unknown_credentials(&self, valid: &Valid, handled: &BTreeMap<String, String>) -> Vec<News> {
        let names = |roles_only: bool| -> Vec<&str> {
            let all = valid.secrets.iter();
            let of_kind = all.filter(|one| !roles_only || one.is_role());
            of_kind.filter_map(SecretSpec::credential).collect()
        };
        let told = |annotation: &str, key: &str, names: Vec<&str>, needs_name: bool| {
            let value = handled.get(key)?;
            let name = value.split_once('/').map(|(name, _)| name);
            let known = name.map_or(!needs_name, |name| names.contains(&name));
            let new = self.observed.status.handled.get(key) != Some(value);
            (new && !known).then(|| News {
                warning: true,
                reason: "NoSuchCredential".into(),
                note: format!(
                    "{annotation}={}: nothing was done; it has to be NAME/VALUE, with one of these as NAME: {}",
                    shorten(value, SHOWN),
                    names.join(", ")
                ),
            })
        };
        let rotate = told(ROTATE, secrets::HANDLED_ROTATE, names(false), false);
        let reissue = told(REISSUE, secrets::HANDLED_REISSUE, names(true), true);
        rotate.into_iter().chain(reissue).collect()
    }

    /// Every store that answers has been looked at under this word.
    fn taken_over(&self, word: &String) -> bool {
        let held = |store: &StoreKind| self.plan.duties.has(*store);
        let up = |store: &StoreKind| self.observed.health(*store).is_some_and(Health::is_up);
        let mut answering = StoreKind::ALL
            .into_iter()
            .filter(|store| held(store) && up(store))
            .peekable();
        answering.peek().is_some()
            && answering.all(|store| {
                let heard = self.observed.heard(store);
                heard.and_then(|heard| heard.take_over_seen) == Some(word)
            })
    }
}
