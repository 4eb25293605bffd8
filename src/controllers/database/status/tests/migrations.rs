//! What a status says of migrations: plans that wait, who is in the way, Jobs that failed.

use std::sync::Arc;

use serde_json::json;

use super::{super::STATUS_BYTES, condition, kstatus};
use crate::{
    api::status::PlanStatement,
    controllers::{
        database::{
            fixtures::{Situation, at, failed_run, platform},
            plan::Step,
        },
        sources::Files,
    },
    engine::child::ChildKind,
    migrate::{
        history::{Applied, Run},
        plan::Estimate,
        source::{Checksum, Source},
    },
    stores::postgres::{PlanEstimates, PostgresFacts},
};

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
fn newer_migrations_wait_for_a_change_of_the_specification() {
    let mut situation = Situation::converged(platform());
    situation.settle();
    let files = vec![
        ("0001_a.sql".into(), b"SELECT 1".to_vec()),
        ("0002_b.sql".into(), b"SELECT 2".to_vec()),
    ];
    let source = Source::from_files(files).unwrap();
    situation.observed.files = Some(Files::Read(source.into()));
    let status = situation.settle();
    assert_eq!(kstatus(&status, 1), "Current");
    assert_eq!(condition(&status, "MigrationsApplied"), "True/NewerAvailable");
    assert_eq!(situation.plan().steps, []);
    situation.observed.same_generation = false;
    assert_eq!(situation.plan().steps.len(), 1, "the Job");
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
