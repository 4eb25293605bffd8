//! The status in every situation, against the rules of kstatus.

use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::controllers::database::{
    fixtures::{Situation, at, failed_run, platform},
    plan::Step,
};
use crate::{
    api::amas_database::AmasDatabaseStatus,
    api::status::PlanStatement,
    controllers::{
        database::change::{is_true_named, news, weight},
        sources::Files,
    },
    engine::status::Weight,
    migrate::{
        history::{Applied, Run},
        plan::Estimate,
        source::{Checksum, Source},
    },
    stores::postgres::{PlanEstimates, PostgresFacts},
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
    let window = serde_json::json!({"start": "00:00", "timeZone": "UTC", "duration": "1h"});
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
        let crate::controllers::database::plan::Step::Replace(mut body, _) = step else {
            panic!("{step:?}")
        };
        body["metadata"]["uid"] = serde_json::json!("child");
        situation.see(ChildKind::StatefulSet, &body);
    }
    let status = situation.settle();
    assert_eq!(status.handled["restart"], "redis/7");
    assert_eq!(situation.plan().steps, []);
}

#[test]
fn newer_migrations_wait_for_a_change_of_the_specification() {
    let mut situation = Situation::converged(platform());
    situation.settle();
    let files = vec![
        ("0001_a.sql".into(), b"SELECT 1".to_vec()),
        ("0002_b.sql".into(), b"SELECT 2".to_vec()),
    ];
    let source = crate::migrate::source::Source::from_files(files).unwrap();
    situation.observed.files = Some(Files::Read(source.into()));
    let status = situation.settle();
    assert_eq!(kstatus(&status, 1), "Current");
    assert_eq!(condition(&status, "MigrationsApplied"), "True/NewerAvailable");
    assert_eq!(situation.plan().steps, []);
    situation.observed.same_generation = false;
    assert_eq!(situation.plan().steps.len(), 1, "the Job");
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
    situation.touch(crate::engine::child::ChildKind::Service, "amas-redis");
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
    std::sync::Arc::make_mut(situation.observed.postgres.as_mut().unwrap()).facts = Default::default();
    std::sync::Arc::make_mut(situation.observed.redis.as_mut().unwrap()).facts = Default::default();
    std::sync::Arc::make_mut(situation.observed.neo4j.as_mut().unwrap()).facts = Default::default();
    assert_eq!(weight(&before, &situation.report().status), Weight::None);
}

#[test]
fn a_claimed_store_names_the_holder_and_the_way_out() {
    let mut situation = Situation::converged(platform());
    let redis = std::sync::Arc::make_mut(situation.observed.redis.as_mut().unwrap());
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
    let redis = std::sync::Arc::make_mut(situation.observed.redis.as_mut().unwrap());
    (redis.facts.claim_conflict, redis.facts.take_over_seen) = (None, word.clone());
    std::sync::Arc::make_mut(situation.observed.neo4j.as_mut().unwrap())
        .facts
        .take_over_seen = word.clone();
    assert_eq!(situation.report().status.handled.get("take-over"), None);
    std::sync::Arc::make_mut(situation.observed.postgres.as_mut().unwrap())
        .facts
        .take_over_seen = word.clone();
    let status = situation.report().status;
    assert_eq!(
        (status.handled.get("take-over"), condition(&status, "Ready").as_str()),
        (word.as_ref(), "True/Ready")
    );
}

/// A converged database whose source has these files beside those that are applied.
fn with_pending(settings: serde_json::Value, applied: i64, pending: &[&str]) -> Situation {
    let mut situation = Situation::converged(platform());
    situation.settle();
    let file = |version: i64, sql: &str| (format!("{version:06}_m.sql"), sql.as_bytes().to_vec());
    let old = (1..=applied).map(|version| file(version, "SELECT 1"));
    let new = pending
        .iter()
        .zip(applied + 1..)
        .map(|(sql, version)| file(version, sql));
    let source = Source::from_files(old.chain(new).collect()).unwrap();
    situation.observed.files = Some(Files::Read(Arc::new(source)));
    let row = |version| Applied {
        version,
        description: "ä".repeat(250),
        checksum: Checksum::of(b"SELECT 1"),
        success: true,
        unfinished: None,
        applied_at: at(5),
        down: None,
    };
    let facts = &mut Arc::make_mut(situation.observed.postgres.as_mut().unwrap()).facts;
    now_applied(facts, |all| *all = (1..=applied).map(row).collect());
    let migrations = situation.object.spec.migrations.as_mut().unwrap();
    let mut settings = settings;
    settings["source"] = json!({"bundle": "amas"});
    *migrations = serde_json::from_value(settings).unwrap();
    // The specification has changed.
    situation.object.metadata.generation = Some(2);
    situation.observed.same_generation = false;
    situation
}

/// Changes what the database has applied.
fn now_applied(facts: &mut PostgresFacts, change: impl FnOnce(&mut Vec<Applied>)) {
    let migrations = facts.migrations.as_mut().unwrap();
    let state = migrations.state.as_mut().unwrap();
    change(&mut state.applied);
    migrations.summary = state.summary();
}

/// The steps about ConfigMaps of plans.
fn plan_maps(situation: &Situation) -> Vec<Step> {
    let name = |step: &Step| match step {
        Step::Create(ChildKind::ConfigMap, body) => body["metadata"]["name"].as_str().unwrap().to_owned(),
        Step::Delete(ChildKind::ConfigMap, name) => name.clone(),
        _ => String::new(),
    };
    let steps = situation.plan().steps.into_iter();
    steps.filter(|step| name(step).starts_with("amas-plan-")).collect()
}

#[test]
fn a_plan_waits_to_be_approved_and_is_shown() {
    let mut situation = with_pending(
        json!({"approval": "Manual"}),
        1,
        &["CREATE TABLE t (id int);\nSELECT 1"],
    );
    let [Step::Create(kind, map)] = &plan_maps(&situation)[..] else {
        panic!("the plan's ConfigMap is made")
    };
    situation.see(*kind, map);
    let status = situation.settle();
    assert_eq!(condition(&status, "Ready"), "False/WaitingForApproval");
    assert_eq!(
        (kstatus(&status, 2), condition(&status, "Available").as_str()),
        ("Failed", "True/Serving")
    );
    let plan = status.migrations.unwrap().pending_plan.unwrap();
    assert_eq!((plan.from, plan.to, plan.statement_count), (1, 2, 2));
    assert_eq!(plan.statements[1].place, "000002_m.sql:2");
    assert_eq!(plan.config_map.as_deref(), map["metadata"]["name"].as_str());
    let stalled = situation.report().status.conditions;
    let message = &stalled.iter().find(|one| one.type_ == "Stalled").unwrap().message;
    assert!(
        message.contains(&format!("amas.dev/approve-plan={}", plan.hash)),
        "{message}"
    );
    // Another hash is reported; the right one starts the Job, and the plan stays to be read until it is in.
    situation.observed.annotations.approved_plan = Some("f".repeat(64));
    let (reason, message) = situation.ready();
    assert!(reason == "WaitingForApproval" && message.contains("(fff"), "{message}");
    situation.observed.annotations.approved_plan = Some(plan.hash);
    let job = |step: &Step| matches!(step, Step::Create(ChildKind::Job, _));
    assert!(situation.plan().steps.iter().any(job) && plan_maps(&situation).is_empty());
    let facts = &mut Arc::make_mut(situation.observed.postgres.as_mut().unwrap()).facts;
    now_applied(facts, |all| {
        all.push(Applied {
            version: 2,
            checksum: Checksum::of(b"CREATE TABLE t (id int);\nSELECT 1"),
            ..all[0].clone()
        })
    });
    assert!(matches!(plan_maps(&situation)[..], [Step::Delete(..)]));
}

#[test]
fn a_plan_that_waits_tells_rules_and_the_sizes_that_the_catalog_gives_once() {
    let mut situation = with_pending(
        json!({"approval": "Manual"}),
        1,
        &["ALTER TABLE users ADD CHECK (id > 0)"],
    );
    let [Step::Create(kind, map)] = &plan_maps(&situation)[..] else {
        panic!("the plan's ConfigMap is made")
    };
    situation.see(*kind, map);
    let told = |situation: &mut Situation| {
        let plan = situation.settle().migrations.unwrap().pending_plan.unwrap();
        (plan.hash, plan.statements[0].clone())
    };
    let (hash, statement) = told(&mut situation);
    assert_eq!(
        (statement.lint.as_deref(), statement.tables),
        (Some("check-not-deferred"), None)
    );
    let asked = situation.plan().duties.postgres.unwrap().waiting_plan.unwrap();
    assert_eq!((&asked.hash, asked.tables), (&hash, vec!["\"users\"".to_owned()]));

    let answer = |situation: &mut Situation, hash: &str, rows| {
        let facts = &mut Arc::make_mut(situation.observed.postgres.as_mut().unwrap()).facts;
        let (rows, bytes) = (Some(rows), Some(98_304));
        facts.estimates = Some(PlanEstimates {
            hash: hash.to_owned(),
            tables: [("\"users\"".to_owned(), Estimate { rows, bytes })].into(),
        });
    };
    let written = |situation: &Situation| {
        let steps = situation.plan().steps.into_iter();
        let mut texts = steps.filter_map(|step| match step {
            Step::Update(ChildKind::ConfigMap, body) => Some(body["data"]["plan.txt"].as_str()?.to_owned()),
            _ => None,
        });
        texts.next()
    };
    answer(&mut situation, "of another plan", 1);
    assert_eq!((told(&mut situation).1.tables, written(&situation)), (None, None));
    answer(&mut situation, &hash, 1200);
    let text = written(&situation).expect("the ConfigMap is written again");
    assert!(
        text.contains("ACCESS EXCLUSIVE on \"users\" (about 1200 rows, 96 KiB)")
            && text.contains("check-not-deferred: readers and writers wait"),
        "{text}"
    );
    let sizes = Some("\"users\": about 1200 rows, 96 KiB".to_owned());
    assert_eq!(
        told(&mut situation),
        (
            hash.clone(),
            PlanStatement {
                tables: sizes.clone(),
                ..statement
            }
        )
    );
    let waiting = situation.plan().duties.postgres.unwrap().waiting_plan;
    assert_eq!(
        waiting.unwrap().hash,
        hash,
        "the question stays the same, so nobody is woken"
    );

    // A restart: what was told stays until it is known again.
    situation.observed.plans = Arc::default();
    Arc::make_mut(situation.observed.postgres.as_mut().unwrap())
        .facts
        .estimates = None;
    assert_eq!((told(&mut situation).1.tables, written(&situation)), (sizes, None));
}

#[test]
fn a_loss_waits_for_its_version_and_says_what_to_write() {
    let mut situation = with_pending(json!({}), 1, &["SELECT 1", "SELECT 1;\n\nDROP TABLE users"]);
    assert!(plan_maps(&situation).is_empty(), "the status shows all of it");
    let (reason, message) = situation.ready();
    assert_eq!(reason, "DestructiveNotAllowed");
    for part in [
        "000003_m.sql:3: drops a table: DROP TABLE users",
        "allowDestructive: [3]",
    ] {
        assert!(message.contains(part), "{message}");
    }
    let migrations = situation.object.spec.migrations.as_mut().unwrap();
    migrations.allow_destructive = vec![3];
    let job = |step: &Step| matches!(step, Step::Create(ChildKind::Job, _));
    assert!(situation.plan().steps.iter().any(job));
}

/// The name of the Job that would be made now.
fn due(situation: &Situation) -> Option<String> {
    let name = |step: &Step| match step {
        Step::Create(ChildKind::Job, body) => body["metadata"]["name"].as_str().map(str::to_owned),
        _ => None,
    };
    situation.plan().steps.iter().find_map(name)
}

#[test]
fn who_is_in_the_way_of_a_migration_is_told_while_it_waits() {
    let mut situation = with_pending(json!({}), 1, &["SELECT 2"]);
    let text = "0002_m.sql waits for 3 s: process 4711 (report, app_writer), in a transaction for 12 s";
    let wait = |situation: &mut Situation, outcome: Option<&str>| {
        let facts = &mut Arc::make_mut(situation.observed.postgres.as_mut().unwrap()).facts;
        let state = facts.migrations.as_mut().unwrap().state.as_mut().unwrap();
        state.latest_run = Some(Run {
            outcome: outcome.map(str::to_owned),
            waiting: Some(text.into()),
            ..failed_run("job", "plan".into())
        });
    };
    wait(&mut situation, None);
    let message = |situation: &Situation| situation.ready().1;
    assert!(
        message(&situation).ends_with(&format!("; {text}")),
        "{}",
        message(&situation)
    );
    wait(&mut situation, Some("interrupted"));
    assert!(!message(&situation).contains("4711"), "{}", message(&situation));
}

#[test]
fn a_job_that_is_somebody_elses_is_told_and_not_asked_for_again() {
    let mut situation = with_pending(json!({}), 1, &["SELECT 2"]);
    let name = due(&situation).expect("a Job is due");
    situation.observed.taken.push((ChildKind::Job, name.clone()));
    assert_eq!(due(&situation), None);
    let (reason, message) = situation.ready();
    assert!(
        reason == "NameTaken" && message.starts_with(&format!("Job {name} ")),
        "{reason}: {message}"
    );
}

#[test]
fn a_failure_that_was_told_is_tried_again_once_when_somebody_asks() {
    let mut situation = with_pending(json!({}), 1, &["SELECT 2"]);
    let see = |situation: &mut Situation, name: &str, conditions: serde_json::Value| {
        let metadata = json!({"name": name, "namespace": "amas", "uid": "j", "labels": {"amas.dev/database": "amas"}});
        let spec = json!({"ttlSecondsAfterFinished": 86400});
        let job = json!({"metadata": metadata, "spec": spec, "status": {"conditions": conditions}});
        situation.see(ChildKind::Job, &job);
    };
    let first = due(&situation).unwrap();
    let numbered = |number: u8| format!("{}-{number}", first.strip_suffix("-1").unwrap());
    see(
        &mut situation,
        &numbered(3),
        json!([{"type": "Failed", "status": "True"}]),
    );
    let keep = Step::KeepJob {
        job: numbered(3),
        stays: true,
    };
    assert_eq!(situation.plan().steps, [keep]);
    let told = situation.settle().migrations.unwrap();
    assert_eq!((situation.ready().0.as_str(), told.attempts), ("MigrationFailed", 3));
    situation.observed.children.remove(&(ChildKind::Job, numbered(3)));
    assert_eq!(due(&situation), None, "it is told still");

    situation.observed.annotations.try_again = Some("please".into());
    assert_eq!(due(&situation), Some(numbered(4)));
    // As long as it could not be made, the request stands.
    let waits = situation.settle();
    assert!(waits.handled.is_empty() && waits.migrations.unwrap().failure.is_some());
    see(&mut situation, &numbered(4), json!([]));
    let runs = situation.settle();
    assert_eq!(runs.handled["reread-sources"], "please");
    let migrations = runs.migrations.unwrap();
    assert_eq!((migrations.attempts, migrations.failure), (4, None));
}

#[test]
fn a_status_is_bounded_whatever_is_applied_or_pending() {
    let long = format!("SELECT '{}'", "\u{1F600}\"".repeat(300));
    let mut situation = with_pending(json!({"approval": "Manual"}), 10_000, &vec![long.as_str(); 5_000]);
    let status = situation.settle();
    let length = serde_json::to_vec(&status).unwrap().len();
    assert!(length <= STATUS_BYTES, "{length}");
    let migrations = status.migrations.unwrap();
    assert_eq!((migrations.pending, migrations.history.len()), (5_000, 10));
    let plan = migrations.pending_plan.unwrap();
    assert!(
        plan.statement_count == 5_000 && plan.statements.len() > 10,
        "{}",
        plan.statements.len()
    );
    assert_eq!(plan.statements[0].statement.chars().count(), 200);
}
