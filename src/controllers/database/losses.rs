//! Data that was there and is gone: somebody has deleted a volume or dropped a database. Nothing empty takes its place before a person says so,
//! by annotation, or by making the AmasDatabase anew. Pure.

use crate::{
    api::{ACCEPT_EMPTY, amas_database::AmasDatabaseSpec, conditions::Reason, redis::Persistence},
    engine::child::ChildKind,
    stores::workload::Workload,
};

use super::{observe::Observed, plan::Plan, table::StoreKind, validate::Valid, volumes::State};

/// Where the status keeps the last handled value of the annotation.
pub const HANDLED: &str = "accept-empty";

/// Whether a store was seen with its data, and nobody has said that it may begin anew.
pub fn is_kept(store: StoreKind, observed: &Observed) -> bool {
    store.was_seen(&observed.status) && !begins_anew(store, observed)
}

/// Whether a person has said so, and it is not done yet.
pub fn begins_anew(store: StoreKind, observed: &Observed) -> bool {
    accepted(observed) == Some(store)
}

/// The store that a person lets begin anew.
fn accepted(observed: &Observed) -> Option<StoreKind> {
    let (name, _) = observed.annotations.accept_empty.as_ref()?.split_once('/')?;
    StoreKind::ALL.into_iter().find(|store| store.component() == name)
}

/// What to say where the volume of a managed server is gone, or about to go.
pub fn of_volume(spec: &AmasDatabaseSpec, valid: &Valid, workload: &Workload, observed: &Observed) -> Option<State> {
    let store = StoreKind::ALL
        .into_iter()
        .find(|store| store.component() == workload.component)?;
    let lasts = |redis: &crate::api::redis::RedisSpec| {
        let managed = redis.managed.as_ref();
        managed.is_none_or(|managed| managed.persistence != Persistence::None)
    };
    if store == StoreKind::Redis && !spec.redis.as_ref().is_none_or(lasts) || !is_kept(store, observed) {
        return None;
    }
    let name = valid.family.child_name(workload.component);
    match observed.children.get(&(ChildKind::PersistentVolumeClaim, name.clone())) {
        Some(seen) if seen.deleting => Some(State::Refused(
            Reason::VolumeMissing,
            format!(
                "PersistentVolumeClaim {name} is being deleted: its data goes when the pod next ends; take a copy of it before"
            ),
        )),
        Some(_) => None,
        None => Some(State::Missing(format!(
            "PersistentVolumeClaim {name} is gone, or has lost its label amas.dev/database, and with it the data; put it back, or {}",
            remedy(store, valid)
        ))),
    }
}

/// What to say where the database is gone that a server had.
pub fn of_database(database: &str, valid: &Valid) -> String {
    format!(
        "the server has no database {database} any more; restore it, or {}",
        remedy(StoreKind::Postgres, valid)
    )
}

fn remedy(store: StoreKind, valid: &Valid) -> String {
    let (object, store) = (&valid.family.database, store.component());
    format!(
        "begin anew without data: kubectl annotate amasdb {object} {ACCEPT_EMPTY}={store}/\"$(date +%s)\" --overwrite"
    )
}

/// The annotation's value once nothing is left to do for it.
pub fn handled(plan: &Plan, observed: &Observed) -> Option<String> {
    let value = observed.annotations.accept_empty.clone()?;
    let Some(store) = accepted(observed) else {
        // It names none.
        return Some(value);
    };
    let serves = observed.health(store).is_some_and(|health| health.is_up()) && plan.is_in(store, observed);
    (serves && plan.steps.is_empty() && plan.held == 0).then_some(value)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{
        fixtures::{Situation, platform},
        plan::Step,
    };
    use super::*;

    const CLAIM: &str = "amas-postgres";

    /// A platform that was Ready, and whose claim somebody has deleted since.
    fn without_volume() -> Situation {
        let mut situation = Situation::converged(platform());
        situation.settle();
        let claim = (ChildKind::PersistentVolumeClaim, CLAIM.to_owned());
        situation.observed.children.remove(&claim).unwrap();
        situation
    }

    fn creates(situation: &Situation) -> Vec<ChildKind> {
        let kind = |step: &Step| match step {
            Step::Create(kind, _) => Some(*kind),
            _ => None,
        };
        situation.plan().steps.iter().filter_map(kind).collect()
    }

    #[test]
    fn a_volume_that_is_gone_is_made_again_when_a_person_says_so() {
        let mut situation = without_volume();
        assert_eq!(creates(&situation), []);
        let (reason, message) = situation.ready();
        assert_eq!(reason, "VolumeMissing");
        assert!(
            message.contains(CLAIM) && message.contains("accept-empty=postgres/"),
            "{message}"
        );
        let set = (ChildKind::StatefulSet, CLAIM.to_owned());
        situation.observed.children.remove(&set).unwrap();
        assert_eq!(creates(&situation), [], "no server either");

        situation.observed.annotations.accept_empty = Some("redis/1".into());
        assert_eq!(creates(&situation), [], "of another store");
        situation.observed.annotations.accept_empty = Some("postgres/1".into());
        assert_eq!(
            creates(&situation),
            [ChildKind::PersistentVolumeClaim, ChildKind::StatefulSet]
        );
    }

    #[test]
    fn a_store_that_was_never_seen_gets_its_volume() {
        let mut situation = without_volume();
        situation.observed.status = Default::default();
        assert!(creates(&situation).contains(&ChildKind::PersistentVolumeClaim));
    }

    #[test]
    fn a_cache_that_keeps_nothing_loses_nothing() {
        let mut situation = Situation::converged(platform());
        situation.settle();
        let managed = situation.object.spec.redis.as_mut().unwrap().managed.as_mut().unwrap();
        managed.persistence = Persistence::None;
        let claim = (ChildKind::PersistentVolumeClaim, "amas-redis".to_owned());
        situation.observed.children.remove(&claim).unwrap();
        assert_eq!(creates(&situation), [ChildKind::PersistentVolumeClaim]);
    }

    #[test]
    fn a_database_that_is_gone_is_said_and_its_annotation_handled_when_it_is_back() {
        let mut situation = Situation::converged(platform());
        situation.settle();
        assert!(situation.plan().duties.postgres.unwrap().kept);
        let facts = |situation: &mut Situation, missing: bool| {
            let duty = situation.plan().duties.postgres.unwrap().fingerprint();
            let postgres = Arc::make_mut(situation.observed.postgres.as_mut().unwrap());
            postgres.facts.database_missing = missing;
            postgres.facts.duty_in = (!missing).then_some(duty);
        };
        facts(&mut situation, true);
        let (reason, message) = situation.ready();
        assert_eq!(reason, "DatabaseMissing");
        assert!(message.contains("accept-empty=postgres/"), "{message}");
        let available = situation.report().status.conditions;
        assert!(
            available
                .iter()
                .any(|one| one.type_ == "Available" && one.status == "False")
        );

        situation.observed.annotations.accept_empty = Some("postgres/1".into());
        assert!(!situation.plan().duties.postgres.unwrap().kept);
        assert_eq!(
            situation.report().status.handled.get(HANDLED),
            None,
            "it is not back yet"
        );
        facts(&mut situation, false);
        assert_eq!(situation.settle().handled[HANDLED], "postgres/1");
        situation.observed.annotations.accept_empty = None;
        assert!(situation.plan().duties.postgres.unwrap().kept);
    }
}
