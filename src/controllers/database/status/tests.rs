//! The status in every situation, against the rules of kstatus.

mod migrations;

use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::{
    controllers::{
        database::{
            change::{is_true_named, news, weight},
            fixtures::{Situation, at, platform},
            plan::Step,
        },
        sources::Files,
    },
    engine::status::Weight,
};

/// What kstatus makes of conditions, by its own rules: Stalled first, then Reconciling, then Ready.
fn kstatus(status: &AmasDatabaseStatus, generation: i64) -> &'static str {
    let is = |name: &str, value: &str| {
        status
            .conditions
            .iter()
            .any(|condition| condition.type_ == name && condition.status == value)
    };
    match () {
        () if status.observed_generation != Some(generation) => "InProgress",
        () if is("Stalled", "True") => "Failed",
        () if is("Reconciling", "True") => "InProgress",
        () if is("Ready", "False") => "InProgress",
        () if is("Ready", "True") => "Current",
        () => "Unknown",
    }
}

fn condition(status: &AmasDatabaseStatus, name: &str) -> String {
    let found = status.conditions.iter().find(|condition| condition.type_ == name);
    found.map_or("absent".into(), |condition| {
        format!("{}/{}", condition.status, condition.reason)
    })
}

#[test]
fn a_new_object_is_in_progress() {
    let mut situation = Situation::new(platform());
    let status = situation.settle();
    assert_eq!(kstatus(&status, 1), "InProgress");
    assert_eq!(condition(&status, "Ready"), "False/Provisioning");
    assert_eq!(condition(&status, "Available"), "False/WaitingForStore");
    assert_eq!(
        condition(&status, "Degraded"),
        "absent",
        "an optional store is awaited while it starts"
    );
}

#[test]
fn a_converged_object_is_current_and_stays_so_without_a_write() {
    let mut situation = Situation::converged(platform());
    let status = situation.settle();
    assert_eq!(kstatus(&status, 1), "Current", "{status:#?}");
    for name in [
        "Ready",
        "Available",
        "PostgresReady",
        "RedisReady",
        "Neo4jReady",
        "MigrationsApplied",
        "PoliciesReady",
    ] {
        assert!(
            condition(&status, name).starts_with("True/"),
            "{name}: {}",
            condition(&status, name)
        );
    }
    situation.observed.now = at(500);
    assert_eq!(weight(&status, &situation.report().status), Weight::None);
    let serialised = serde_json::to_string(&status).unwrap();
    assert!(serialised.len() < STATUS_BYTES);
}

#[test]
fn a_required_store_that_is_lost_is_news() {
    let mut situation = Situation::converged(platform());
    let before = situation.settle();
    situation.lose(StoreKind::Postgres);
    let after = situation.settle();
    assert_eq!(weight(&before, &after), Weight::News);
    assert_eq!(
        (condition(&after, "Ready"), condition(&after, "Available")),
        ("False/ConnectionLost".into(), "False/WaitingForStore".into())
    );
    assert_eq!(
        condition(&after, "MigrationsApplied"),
        "True/Applied",
        "what was applied stays applied"
    );
    assert_eq!(kstatus(&after, 1), "InProgress");
    assert_eq!(news(&before, &after).len(), 1);
}

#[test]
fn an_optional_store_that_is_lost_degrades() {
    let mut situation = Situation::converged(platform());
    let before = situation.settle();
    situation.lose(StoreKind::Neo4j);
    situation.observed.policies[1].ready = false;
    let after = situation.settle();
    assert_eq!(
        (condition(&after, "Ready"), condition(&after, "Neo4jReady")),
        ("True/Ready".into(), "False/ConnectionLost".into())
    );
    assert_eq!(condition(&after, "Degraded"), "True/OptionalStoreUnavailable");
    assert_eq!(weight(&before, &after), Weight::News);
}

#[test]
fn an_optional_store_is_awaited_only_so_long() {
    let mut situation = Situation::converged(platform());
    situation.observed.neo4j = None;
    situation.observed.policies[1].ready = false;
    let early = situation.report();
    assert_eq!(condition(&early.status, "Ready"), "False/Provisioning");
    assert!(early.look_again.is_some_and(|wait| wait <= Duration::from_secs(120)));
    situation.observed.now = at(121);
    let late = situation.report().status;
    assert_eq!(
        (condition(&late, "Ready"), condition(&late, "Degraded")),
        ("True/Ready".into(), "True/OptionalStoreUnavailable".into())
    );
}

#[test]
fn what_a_human_must_do_stalls() {
    let mut missing = Situation::converged(platform());
    missing.settle();
    missing.observed.secrets.insert(
        "amas-postgres-admin".into(),
        crate::controllers::credentials::Known::Absent,
    );
    let mut taken = Situation::new(platform());
    taken.observed.taken.push((ChildKind::Service, "amas-redis".into()));
    let mut unknown = Situation::converged(platform());
    unknown.observed.files = Some(Files::NotFound("there is no bundle x".into()));
    for (situation, expected) in [
        (missing, "CredentialsMissing"),
        (taken, "NameTaken"),
        (unknown, "SourceNotFound"),
    ] {
        let status = situation.report().status;
        assert_eq!(kstatus(&status, 1), "Failed", "{expected}");
        assert_eq!(
            (condition(&status, "Ready"), condition(&status, "Stalled")),
            (format!("False/{expected}"), format!("True/{expected}"))
        );
    }
}

#[test]
fn a_lost_secret_stays_lost() {
    let mut situation = Situation::converged(platform());
    situation.settle();
    let lost = "amas-role-amas-app";
    situation
        .observed
        .secrets
        .insert(lost.into(), crate::controllers::credentials::Known::Absent);
    for _ in 0..2 {
        situation.observed.status = situation.report().status;
        assert!(situation.observed.status.secrets.contains(&lost.to_owned()));
        assert_eq!(situation.plan().missing, [lost]);
        assert_eq!(situation.plan().steps, []);
    }
}

#[test]
fn a_missing_policy_keeps_ready_false() {
    let mut situation = Situation::converged(platform());
    (
        situation.observed.policies[0].exists,
        situation.observed.policies[0].ready,
    ) = (false, false);
    let status = situation.report().status;
    assert_eq!(
        (condition(&status, "Ready"), condition(&status, "PoliciesReady")),
        ("False/PolicyNotReady".into(), "False/PolicyNotReady".into())
    );
    assert!(
        is_true_named(&status.conditions, "Available"),
        "a policy never clears Available"
    );
}

#[test]
fn an_invalid_specification_keeps_what_is_known() {
    let mut situation = Situation::converged(platform());
    situation.settle();
    let problems = ["spec.postgres: no".to_owned()];
    let status = report(&situation.object, &situation.observed, &Ground::Invalid(&problems)).status;
    assert_eq!(
        (condition(&status, "Ready"), condition(&status, "PostgresReady")),
        ("False/InvalidSpec".into(), "True/Serving".into())
    );
    assert_eq!(kstatus(&status, 1), "Failed");
}

#[test]
fn a_restarted_operator_lets_the_status_stand() {
    let mut situation = Situation::converged(platform());
    let before = situation.settle();
    situation.observed.postgres = None;
    assert_eq!(situation.report().status, before);
}

#[test]
fn an_update_that_waits_is_shown_and_keeps_ready_true() {
    let mut situation = Situation::converged(platform());
    situation.settle();
    situation.settings.images = crate::stores::images::Images::new(None, "redis:8=localhost/redis:8.1").unwrap();
    let status = situation.settle();
    assert_eq!(kstatus(&status, 1), "Current");
    assert_eq!(condition(&status, "UpdatePending"), "True/WaitingForRestart");
    let ready = status.conditions.iter().find(|one| one.type_ == "Ready").unwrap();
    assert!(
        ready.message.contains("redis: image localhost/redis:8.1"),
        "{}",
        ready.message
    );
    assert_eq!(situation.report().status, status, "and is not written again");

    // In the window it is done; the clock wakes the object for that.
    let window = json!({"start": "00:00", "timeZone": "UTC", "duration": "1h"});
    situation.object.spec.maintenance_window = serde_json::from_value(window).unwrap();
    let pause = situation.report().look_again.unwrap();
    situation.observed.now += k8s_openapi::jiff::SignedDuration::try_from(pause).unwrap();
    assert_eq!(situation.plan().steps.len(), 1);
}

#[test]
fn the_annotation_is_handled_once_it_is_carried_out() {
    let mut situation = Situation::converged(platform());
    situation.observed.annotations.restart = Some("redis/7".into());
    assert_eq!(
        situation.settle().handled.get("restart"),
        None,
        "there is something to write yet"
    );
    for step in situation.plan().steps {
        let Step::Replace(mut body, _) = step else {
            panic!("{step:?}")
        };
        body["metadata"]["uid"] = json!("child");
        situation.see(ChildKind::StatefulSet, &body);
    }
    let status = situation.settle();
    assert_eq!(status.handled["restart"], "redis/7");
    assert_eq!(situation.plan().steps, []);
}

#[test]
fn a_suspended_object_says_whether_something_waits() {
    let mut situation = Situation::converged(platform());
    situation.settle();
    situation.object.spec.suspend = true;
    let status = situation.settle();
    assert_eq!(
        (condition(&status, "Ready"), kstatus(&status, 1)),
        ("True/Suspended".into(), "Current")
    );
    situation.touch(ChildKind::Service, "amas-redis");
    let status = situation.settle();
    assert_eq!(
        (
            condition(&status, "Ready"),
            condition(&status, "Available"),
            kstatus(&status, 1)
        ),
        ("False/Suspended".into(), "True/Serving".into(), "Failed")
    );
    // Health goes on.
    situation.lose(StoreKind::Redis);
    assert_eq!(condition(&situation.settle(), "RedisReady"), "False/ConnectionLost");
}

#[test]
fn a_suspended_object_stands_after_a_start_of_the_operator() {
    let mut situation = Situation::converged(platform());
    situation.object.spec.suspend = true;
    let before = situation.settle();
    // The sentinels answer; the keepers never look.
    Arc::make_mut(situation.observed.postgres.as_mut().unwrap()).facts = Default::default();
    Arc::make_mut(situation.observed.redis.as_mut().unwrap()).facts = Default::default();
    Arc::make_mut(situation.observed.neo4j.as_mut().unwrap()).facts = Default::default();
    assert_eq!(weight(&before, &situation.report().status), Weight::None);
}

#[test]
fn a_claimed_store_names_the_holder_and_the_way_out() {
    let mut situation = Situation::converged(platform());
    let redis = Arc::make_mut(situation.observed.redis.as_mut().unwrap());
    redis.facts.claim_conflict = Some("claimed by other/db of cluster c".into());
    let status = situation.report().status;
    assert_eq!(
        (
            condition(&status, "Ready"),
            condition(&status, "Available"),
            kstatus(&status, 1)
        ),
        ("False/Conflicted".into(), "False/WaitingForStore".into(), "Failed")
    );
    let ready = &status.conditions[0].message;
    assert!(
        ready.contains("claimed by other/db of cluster c")
            && ready.contains("kubectl annotate amasdb amas amas.dev/take-over="),
        "{ready}"
    );
    // The word is handled once every store that answers has been looked at under it.
    situation.observed.annotations.take_over = Some("1".into());
    assert_eq!(situation.report().status.handled.get("take-over"), None);
    let word = Some("1".to_owned());
    let redis = Arc::make_mut(situation.observed.redis.as_mut().unwrap());
    (redis.facts.claim_conflict, redis.facts.take_over_seen) = (None, word.clone());
    Arc::make_mut(situation.observed.neo4j.as_mut().unwrap())
        .facts
        .take_over_seen = word.clone();
    assert_eq!(situation.report().status.handled.get("take-over"), None);
    Arc::make_mut(situation.observed.postgres.as_mut().unwrap())
        .facts
        .take_over_seen = word.clone();
    let status = situation.report().status;
    assert_eq!(
        (status.handled.get("take-over"), condition(&status, "Ready").as_str()),
        (word.as_ref(), "True/Ready")
    );
}
