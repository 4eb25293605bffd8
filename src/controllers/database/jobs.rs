//! Migration Jobs: whether one is due. Pure: the history in the database, never a Job, is the truth.

mod attempts;
mod encryption;
mod first;
mod manifest;
mod pending;

use std::sync::Arc;

use sha2::Digest;

use self::{
    attempts::{Attempts, running, unread},
    pending::Told,
};
pub use self::{
    attempts::{READING, Tried, keeping, last_attempt},
    manifest::{JobInput, job, lifetime},
    pending::{MAP, Pending, Plans},
};
use crate::{
    api::migrations::{Approval, BackupBefore, DriftMode, Migrations},
    migrate::{
        consent::{Consent, Unaccepted},
        drift::Drift,
        history::{Run, State},
        plan::{self, Direction, Options, Plan, PlanError},
        source::Source,
    },
    stores::{postgres::PlanEstimates, workload::Family},
};

/// What is known when migrations are decided on.
pub struct Known<'a> {
    pub source: &'a Source,
    /// What the database says; `None` before the first migration.
    pub state: Option<&'a State>,
    /// The digest of what `state` has applied, if it is whole.
    pub applied: Option<&'a str>,
    /// `<system identifier>/<database>`.
    pub identity: &'a str,
    /// Seed files that are not in yet, or have changed: their count, and a digest over all of them.
    pub seeds: Option<&'a Seeds>,
    pub target: Option<i64>,
    pub tried: Tried<'a>,
    /// What the specification says of approval and losses.
    pub migrations: &'a Migrations,
    /// What the schema differs in from what the last run left.
    pub drift: Option<&'a Drift>,
    /// The plan that the annotation approves.
    pub approved: Option<&'a str>,
    pub plans: &'a Plans,
    /// How large the tables of a plan are, once that was asked.
    pub estimates: Option<&'a PlanEstimates>,
}

/// The seed files of the profile that is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Seeds {
    /// Folders in the order they run.
    pub folders: Vec<String>,
    /// (profile folder, file, checksum) of each file.
    pub files: Vec<(String, String, String)>,
    pub pending: usize,
}

/// What is to be done about migrations.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// All are in, and the seeds.
    Done,
    /// A Job of this plan is at work.
    Running {
        plan: String,
        pending: usize,
        job: String,
        /// It has ended well, and what it did is being read.
        ended: bool,
    },
    /// A Job is due. `steps` is the hash that the runner checks: of the migrations alone.
    Start {
        plan: String,
        steps: String,
        direction: Direction,
        pending: usize,
        /// It saves tables first.
        saves: bool,
        job: String,
    },
    /// A Job has to bring the files first.
    Read { plan: String, job: String },
    /// A Job would be due, but a person has to say yes first.
    Held {
        plan: String,
        pending: Arc<Pending>,
        /// The ConfigMap that shows all of it, if that shall be one.
        map: Option<String>,
        why: Hold,
    },
    /// The last Job of this plan failed; it waits for a change of the files or the specification, or for a person who asks for one more.
    Failed {
        plan: String,
        pending: usize,
        failure: Failure,
        /// The Job that says so, if its name is known.
        job: Option<String>,
    },
    /// Files and history disagree.
    Impossible { problem: PlanError },
}

/// What a person has to say yes to.
#[derive(Clone, Debug, PartialEq)]
pub enum Hold {
    /// The plan. What was approved is another, if anything was.
    Approval { approved: Option<String> },
    /// Data that would be lost.
    Loss(Unaccepted),
    /// The schema is not the one that migrations made.
    Drift,
}

/// Why a Job failed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Failure {
    pub version: Option<i64>,
    pub file: Option<String>,
    pub line: Option<i64>,
    pub column: Option<i64>,
    pub sqlstate: Option<String>,
    pub message: String,
}

impl Known<'_> {
    /// What would run. That nothing would is told from two digests, however long the history is: it is what nearly every reconcile finds.
    fn plan(&self) -> Result<Plan, PlanError> {
        let newest = self.source.newest();
        if self.applied == Some(self.source.digest()) && self.target.is_none_or(|target| target == newest) {
            return Ok(Plan::nothing(newest));
        }
        let applied = self.state.map(|state| state.applied.as_slice()).unwrap_or_default();
        plan::plan(self.source, applied, self.target)
    }
}

/// Decides. While a Job is at work nothing else is started, since what it commits changes the plan under it.
pub fn decide(family: &Family, known: &Known<'_>) -> Decision {
    let plan = match known.plan() {
        Ok(plan) => plan,
        Err(problem) => return Decision::Impossible { problem },
    };
    let pending = plan.steps.len();
    if let Some(job) = running(known.tried.children) {
        return job.at_work(pending, false);
    }
    let seeds = known.seeds.filter(|seeds| seeds.pending > 0);
    if plan.is_empty() && seeds.is_none() {
        known.plans.forget(&family.uid);
        return Decision::Done;
    }
    if let Some(job) = unread(known.tried, known.state) {
        return job.at_work(pending, true);
    }
    let steps = plan.hash(known.identity, &Options::default());
    let read = match read_plan(family, known, &plan, &steps) {
        Ok(read) => read,
        Err(problem) => return Decision::Impossible { problem },
    };
    let saves = saves(known.migrations, read.as_deref());
    let hash = job_hash(&steps, seeds, known.migrations, saves);
    let attempts = Attempts::of(family, known.tried, &hash);
    let same_files =
        |run: &Run| run.failed_version.is_some() && run.plan_hash.is_some() && hash_before(known, run) == run.plan_hash;
    if let Some((failure, job)) = attempts.failure(known.state, same_files) {
        return Decision::Failed {
            plan: hash,
            pending,
            failure,
            job,
        };
    }
    if let Some(pending) = read
        && let Some(why) = hold(known, &pending, &steps)
    {
        let shown = known.migrations.approval == Approval::Manual || pending.is_long();
        return Decision::Held {
            plan: hash,
            map: shown.then(|| pending.map_name(family)),
            pending,
            why,
        };
    }
    let highest = known.state.map_or(0, |state| state.highest_history_id);
    Decision::Start {
        job: attempts.next(highest),
        plan: hash,
        steps,
        direction: plan.direction,
        pending,
        saves,
    }
}

/// What is to be done while the files of an image are not known: a Job brings them, three are tried.
pub fn read(family: &Family, source: &str, tried: Tried<'_>) -> Decision {
    let plan = hex::encode(sha2::Sha256::digest(source));
    if let Some(job) = running(tried.children) {
        return job.at_work(0, false);
    }
    if let Some(job) = unread(tried, None) {
        return job.at_work(0, true);
    }
    let attempts = Attempts::of(family, tried, &plan);
    if let Some((failure, job)) = attempts.failure(None, |_| false) {
        return Decision::Failed {
            plan,
            pending: 0,
            failure,
            job,
        };
    }
    let job = attempts.next(0);
    Decision::Read { plan, job }
}

/// What the plan does; None where there are only seeds.
fn read_plan(family: &Family, known: &Known<'_>, plan: &Plan, hash: &str) -> Result<Option<Arc<Pending>>, PlanError> {
    if plan.is_empty() {
        return Ok(None);
    }
    let nothing = State::default();
    let state = known.state.unwrap_or(&nothing);
    let estimates = known.estimates.filter(|estimates| estimates.hash == hash);
    let read = known.plans.get(&family.uid, hash, estimates.is_some(), || {
        let told = Told {
            hash,
            warning: plan.warning(known.source),
            estimates: estimates.map(|estimates| &estimates.tables),
        };
        Ok(Pending::new(plan, plan.statements(known.source, state)?, told))
    });
    read.map(Some)
}

/// Whether a plan saves tables first.
fn saves(migrations: &Migrations, plan: Option<&Pending>) -> bool {
    plan.is_some_and(|plan| match migrations.backup_before {
        BackupBefore::Destructive => !plan.losses.is_empty(),
        BackupBefore::Always => true,
        BackupBefore::Never => false,
    })
}

/// Whether a person has to say yes to a plan before it runs. Seeds alone need nobody.
fn hold(known: &Known<'_>, pending: &Pending, hash: &str) -> Option<Hold> {
    if known.migrations.drift.mode == DriftMode::Block && known.drift.is_some_and(|drift| drift.total > 0) {
        return Some(Hold::Drift);
    }
    let accepted = known.migrations.allow_destructive.iter().copied().collect();
    if let Some(refused) = Consent::Versions(accepted).refuse(&pending.losses) {
        return Some(Hold::Loss(refused));
    }
    if known.migrations.approval == Approval::Automatic {
        return None;
    }
    let approvals = [known.approved, known.migrations.approved_plan.as_deref()];
    if approvals
        .into_iter()
        .flatten()
        .any(|approved| is_approved(known, hash, approved))
    {
        return None;
    }
    let approved = approvals.into_iter().flatten().next().map(str::to_owned);
    Some(Hold::Approval { approved })
}

/// An approval holds for its plan, and for what a run that did not come to its end has left of it.
fn is_approved(known: &Known<'_>, hash: &str, approved: &str) -> bool {
    let last = known.state.and_then(|state| state.latest_run.as_ref());
    let unfinished = last.filter(|run| run.outcome.as_deref() != Some("succeeded"));
    approved == hash || unfinished.and_then(|run| hash_before(known, run)).as_deref() == Some(approved)
}

/// Hash of the plan as it was before a run, from the files as they are now. What that run has committed is no longer pending.
fn hash_before(known: &Known<'_>, run: &Run) -> Option<String> {
    let applied = known.state?.applied.iter();
    let before: Vec<_> = applied
        .filter(|applied| applied.version <= run.from_version)
        .cloned()
        .collect();
    let plan = plan::plan(known.source, &before, known.target).ok()?;
    Some(plan.hash(known.identity, &Options::default()))
}

/// The plan's hash, and that of the seeds and of how tables are saved, when there are any: what the Job is for. A backup that failed is thus tried again
/// when its settings change.
fn job_hash(steps: &str, seeds: Option<&Seeds>, migrations: &Migrations, saves: bool) -> String {
    let seeds = seeds.map(|seeds| format!("\n{:?}", seeds.files)).unwrap_or_default();
    let backup = match saves {
        true => format!("\n{:?} {:?}", migrations.backup_before, migrations.backup),
        false => String::new(),
    };
    match seeds.is_empty() && backup.is_empty() {
        true => steps.to_owned(),
        false => hex::encode(sha2::Sha256::digest(format!("{steps}{seeds}{backup}"))),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::{SignedDuration, Timestamp};

    use super::super::fixtures::family;
    use super::*;
    use crate::{
        api::status::{MigrationFailure, MigrationsStatus},
        engine::{
            child::ChildKind,
            children::{self, Children},
        },
        migrate::{history::Applied, source::Checksum},
    };

    use serde_json::{Value, json};

    use crate::controllers::database::fixtures::failed_run;

    const IDENTITY: &str = "1/amas";
    const AT: Timestamp = Timestamp::UNIX_EPOCH;

    fn source(third: &str) -> Source {
        let file = |version: i64, sql: &str| (format!("000{version}_m.sql"), sql.as_bytes().to_vec());
        Source::from_files(vec![file(1, "SELECT 1"), file(2, "SELECT 2"), file(3, third)]).unwrap()
    }

    fn state(applied: &[(i64, &str)], run: Option<Run>) -> State {
        let one = |(version, sql): &(i64, &str)| Applied {
            version: *version,
            description: "m".into(),
            checksum: Checksum::of(sql.as_bytes()),
            success: true,
            unfinished: None,
            applied_at: AT,
            down: None,
        };
        State {
            applied: applied.iter().map(one).collect(),
            highest_history_id: applied.len() as i64,
            latest_run: run,
            began: None,
        }
    }

    /// A family with Jobs in the given states. They are collected a day after their end.
    fn children(jobs: &[(&str, Option<&str>)]) -> children::Family {
        let index = Children::default();
        for (name, condition) in jobs {
            let conditions: Vec<Value> = condition
                .iter()
                .map(|kind| json!({"type": kind, "status": "True"}))
                .collect();
            let metadata = json!({"name": name, "namespace": "n", "labels": {"amas.dev/database": "d"}});
            let mut job = lifetime(false);
            (job["metadata"], job["status"]) = (metadata, json!({"conditions": conditions}));
            index.wrote(ChildKind::Job, &job);
        }
        index.of(&("n".into(), "d".into()))
    }

    fn tried(children: &children::Family) -> Tried<'_> {
        Tried {
            now: AT,
            children,
            told: None,
            again: false,
        }
    }

    fn decide_with(source: &Source, state: Option<&State>, children: &children::Family, settings: Value) -> Decision {
        decide_after(source, state, tried(children), settings)
    }

    fn decide_after(source: &Source, state: Option<&State>, tried: Tried<'_>, settings: Value) -> Decision {
        let mut settings = settings;
        settings["source"] = json!({"bundle": "b"});
        decide(
            &family(),
            &Known {
                source,
                state,
                applied: state.and_then(|state| state.summary().digest).as_deref(),
                identity: IDENTITY,
                seeds: None,
                target: Some(3),
                tried,
                migrations: &serde_json::from_value(settings).unwrap(),
                drift: None,
                approved: None,
                plans: &Plans::default(),
                estimates: None,
            },
        )
    }

    fn decision(source: &Source, state: Option<&State>, children: &children::Family) -> Decision {
        decide_with(source, state, children, json!({}))
    }

    #[test]
    fn a_job_is_started_once_and_then_awaited() {
        let source = source("SELECT 3");
        let Decision::Start { job, pending, .. } = decision(&source, None, &children(&[])) else {
            panic!("start")
        };
        assert!(
            job.starts_with("d-migrate-") && job.ends_with("-0-1") && pending == 3,
            "{job}"
        );
        // It has committed the first: what is left is another plan, and still this Job's.
        let state = state(&[(1, "SELECT 1")], None);
        let now = decision(&source, Some(&state), &children(&[(&job, None)]));
        assert!(matches!(now, Decision::Running { pending: 2, .. }), "{now:?}");
    }

    #[test]
    fn a_job_that_has_just_ended_is_not_made_again_before_what_it_did_was_read() {
        let source = source("SELECT 3");
        let first = "d-migrate-01234567-0-1";
        let index = Children::default();
        let metadata = json!({"name": first, "namespace": "n", "labels": {"amas.dev/database": "d"}});
        let status = json!({"conditions": [{"type": "Complete", "status": "True"}], "completionTime": AT.to_string()});
        index.wrote(ChildKind::Job, &json!({"metadata": metadata, "status": status}));
        let children = index.of(&("n".into(), "d".into()));
        let decide = |state: &State, seconds| {
            let now = AT + SignedDuration::from_secs(seconds);
            let tried = Tried {
                now,
                ..tried(&children)
            };
            decide_after(&source, Some(state), tried, json!({}))
        };
        let run = |attempt: &str, outcome: Option<&str>| Run {
            outcome: outcome.map(Into::into),
            ..failed_run(attempt, String::new())
        };
        let applied = [(1, "SELECT 1"), (2, "SELECT 2")];
        let stale = state(&applied, Some(run(first, None)));
        let awaited = decide(&stale, 9);
        assert!(
            matches!(&awaited, Decision::Running { job, ended: true, .. } if job == first),
            "{awaited:?}"
        );
        // Somebody has put an older state of the database back.
        assert!(matches!(decide(&stale, 10), Decision::Start { .. }));
        // It was read, so what is pending is something else.
        let read = state(&applied, Some(run(first, Some("succeeded"))));
        assert!(matches!(decide(&read, 1), Decision::Start { .. }));
    }

    #[test]
    fn done_needs_no_job() {
        let source = source("SELECT 3");
        let state = state(&[(1, "SELECT 1"), (2, "SELECT 2"), (3, "SELECT 3")], None);
        assert_eq!(decision(&source, Some(&state), &children(&[])), Decision::Done);
    }

    #[test]
    fn a_failed_statement_waits_for_an_edit_of_its_files() {
        let broken = source("SELEC 3");
        let hash = plan::plan(&broken, &[], Some(3))
            .unwrap()
            .hash(IDENTITY, &Options::default());
        let job = format!("d-migrate-{}-0-1", plan::hash8(&hash));
        let state = state(&[(1, "SELECT 1"), (2, "SELECT 2")], Some(failed_run(&job, hash)));
        let ended = children(&[(&job, Some("Failed"))]);
        let Decision::Failed { failure, .. } = decision(&broken, Some(&state), &ended) else {
            panic!("failed")
        };
        assert_eq!(
            (
                failure.version,
                failure.line,
                failure.column,
                failure.sqlstate.as_deref()
            ),
            (Some(3), Some(1), Some(7), Some("42601"))
        );
        // The same after the Job is gone.
        assert!(matches!(
            decision(&broken, Some(&state), &children(&[])),
            Decision::Failed { .. }
        ));
        // An edit starts the rest.
        let mended = decision(&source("SELECT 3"), Some(&state), &ended);
        assert!(matches!(mended, Decision::Start { pending: 1, .. }), "{mended:?}");
    }

    #[test]
    fn lost_pods_are_tried_again_three_times() {
        let source = source("SELECT 3");
        let Decision::Start { job, .. } = decision(&source, None, &children(&[])) else {
            panic!("start")
        };
        let again = decision(&source, None, &children(&[(&job, Some("Failed"))]));
        assert!(
            matches!(&again, Decision::Start { job, .. } if job.ends_with("-0-2")),
            "{again:?}"
        );
        let third = job.replace("-0-1", "-0-3");
        assert!(matches!(
            decision(&source, None, &children(&[(&third, Some("Failed"))])),
            Decision::Failed { .. }
        ));
    }

    /// What a status tells of the plan of this Job.
    fn status(job: &str, attempts: i64, failure: Option<&str>) -> MigrationsStatus {
        MigrationsStatus {
            plan: job.split('-').nth(2).map(Into::into),
            attempts,
            failure: failure.map(|message| MigrationFailure {
                message: message.into(),
                ..MigrationFailure::default()
            }),
            ..MigrationsStatus::default()
        }
    }

    #[test]
    fn the_name_of_a_job_that_is_gone_is_not_used_again() {
        let source = source("SELECT 3");
        let next = |children: &children::Family, told: &MigrationsStatus| {
            let tried = Tried {
                told: Some(told),
                ..tried(children)
            };
            match decide_after(&source, None, tried, json!({})) {
                Decision::Start { job, .. } => job,
                other => panic!("{other:?}"),
            }
        };
        let first = next(&children(&[]), &MigrationsStatus::default());
        let numbered = |number: i64| first.replace("-0-1", &format!("-0-{number}"));
        assert_eq!(next(&children(&[]), &status(&first, 2, None)), numbered(3));
        let lost = children(&[(first.as_str(), Some("Failed"))]);
        assert_eq!(next(&lost, &status(&first, 0, None)), numbered(2), "the status may lag");
        assert_eq!(next(&lost, &status(&first, 4, None)), numbered(5));
        let other = status("d-migrate-01234567-0-1", 2, Some("no"));
        assert_eq!(next(&children(&[]), &other), first, "another plan's");
    }

    #[test]
    fn a_failure_stands_without_its_job_until_a_person_asks_for_one_more() {
        let source = source("SELECT 3");
        let Decision::Start { job: first, .. } = decision(&source, None, &children(&[])) else {
            panic!("start")
        };
        let told = status(&first, 3, Some("no way to the server"));
        let decide = |children: &children::Family, again| {
            let told = Some(&told);
            let tried = Tried {
                told,
                again,
                ..tried(children)
            };
            decide_after(&source, None, tried, json!({}))
        };
        let Decision::Failed { failure, job, .. } = decide(&children(&[]), false) else {
            panic!("failed")
        };
        assert_eq!((failure.message.as_str(), job), ("no way to the server", None));
        let fourth = first.replace("-0-1", "-0-4");
        assert!(matches!(decide(&children(&[]), true), Decision::Start { job, .. } if job == fourth));
        // Asked once, and the status does not say so yet: it is no request for a fifth.
        let ended = children(&[(fourth.as_str(), Some("Failed"))]);
        assert!(matches!(decide(&ended, true), Decision::Failed { job, .. } if job == Some(fourth)));
    }

    #[test]
    fn what_the_database_says_of_a_failure_can_be_tried_again_too() {
        let broken = source("SELEC 3");
        let hash = plan::plan(&broken, &[], Some(3)).unwrap();
        let hash = hash.hash(IDENTITY, &Options::default());
        let job = format!("d-migrate-{}-0-1", plan::hash8(&hash));
        let state = state(&[(1, "SELECT 1"), (2, "SELECT 2")], Some(failed_run(&job, hash)));
        let decide = |told: Option<&MigrationsStatus>, again| {
            let none = children(&[]);
            let tried = Tried {
                told,
                again,
                ..tried(&none)
            };
            decide_after(&broken, Some(&state), tried, json!({}))
        };
        let Decision::Failed { plan, job: said, .. } = decide(None, true) else {
            panic!("what was not told yet cannot be meant")
        };
        assert_eq!(said, Some(job));
        let told = status(&format!("d-migrate-{}", plan::hash8(&plan)), 0, Some("syntax error"));
        assert!(matches!(decide(Some(&told), false), Decision::Failed { .. }));
        let again = decide(Some(&told), true);
        assert!(
            matches!(&again, Decision::Start { job, pending: 1, .. } if job.ends_with("-2-1")),
            "{again:?}"
        );
    }

    #[test]
    fn the_job_of_a_failure_stays_until_another_is_at_work() {
        let source = source("SELECT 3");
        let Decision::Start { job: first, .. } = decision(&source, None, &children(&[])) else {
            panic!("start")
        };
        let [second, third] = [2, 3].map(|number| first.replace("-0-1", &format!("-0-{number}")));
        let mut jobs = children(&[(first.as_str(), Some("Failed")), (second.as_str(), Some("Failed"))]);
        let keeping = |jobs: &children::Family| keeping(jobs, &decision(&source, None, jobs));
        assert_eq!(keeping(&jobs), [], "they are tried again by themselves");
        jobs.extend(children(&[(third.as_str(), Some("Failed"))]));
        assert_eq!(keeping(&jobs), [(third.clone(), true)]);
        let key = (ChildKind::Job, third.clone());
        jobs.get_mut(&key).unwrap().facts.stays = true;
        assert_eq!(keeping(&jobs), []);
        let other = "d-migrate-01234567-0-1";
        jobs.extend(children(&[(other, None)]));
        assert_eq!(keeping(&jobs), [(third, false)]);
        jobs.get_mut(&key).unwrap().facts.stays = false;
        assert_eq!(keeping(&jobs), []);
    }

    #[test]
    fn a_plan_waits_until_its_hash_is_approved() {
        let source = source("SELECT 3");
        let manual = |approved: &str, state: Option<&State>| {
            let mut settings = json!({"approval": "Manual"});
            if !approved.is_empty() {
                settings["approvedPlan"] = approved.into();
            }
            decide_with(&source, state, &children(&[]), settings)
        };
        let Decision::Held { pending, why, .. } = manual("", None) else {
            panic!("held")
        };
        assert_eq!(why, Hold::Approval { approved: None });
        let hash = pending.status.hash.clone();
        let other = "0".repeat(64);
        let still = manual(&other, None);
        assert!(
            matches!(&still, Decision::Held { why: Hold::Approval { approved: Some(one) }, .. } if *one == other),
            "{still:?}"
        );
        assert!(matches!(manual(&hash, None), Decision::Start { steps, .. } if steps == hash));
        // A Job whose pods were lost has applied the first: what is left was approved too.
        let lost = |outcome: Option<&str>| {
            let mut run = failed_run("job", hash.clone());
            (run.outcome, run.failed_version) = (outcome.map(Into::into), None);
            state(&[(1, "SELECT 1")], Some(run))
        };
        assert!(matches!(
            manual(&hash, Some(&lost(None))),
            Decision::Start { pending: 2, .. }
        ));
        assert!(matches!(
            manual(&hash, Some(&lost(Some("succeeded")))),
            Decision::Held { .. }
        ));
    }

    #[test]
    fn a_loss_waits_for_its_version() {
        let source = source("SELECT 1;\nDROP TABLE t");
        let with = |allowed: Value| {
            let settings = json!({"approval": "Manual", "allowDestructive": allowed});
            decide_with(&source, None, &children(&[]), settings)
        };
        let Decision::Held {
            why: Hold::Loss(refused),
            ..
        } = with(json!([2]))
        else {
            panic!("held")
        };
        assert_eq!(refused.to_string(), "0003_m.sql:2: drops a table: DROP TABLE t");
        assert!(matches!(
            with(json!([3])),
            Decision::Held {
                why: Hold::Approval { .. },
                ..
            }
        ));
    }

    #[test]
    fn what_loses_data_is_saved_first_and_a_failed_backup_is_tried_again_with_other_settings() {
        let start = |third: &str, settings: Value, children: &children::Family, run: Option<Run>| {
            let state = state(&[(1, "SELECT 1"), (2, "SELECT 2")], run);
            decide_with(&source(third), Some(&state), children, settings)
        };
        let saved = |third: &str, before: &str| {
            let settings = json!({"allowDestructive": [3], "backupBefore": before});
            match start(third, settings, &children(&[]), None) {
                Decision::Start { saves, job, .. } => (saves, job),
                other => panic!("{other:?}"),
            }
        };
        for (third, before, expected) in [
            ("DROP TABLE t", "Destructive", true),
            ("DROP TABLE t", "Never", false),
            ("SELECT 3", "Destructive", false),
            ("SELECT 3", "Always", true),
        ] {
            assert_eq!(saved(third, before).0, expected, "{third} {before}");
        }
        let (_, job) = saved("DROP TABLE t", "Destructive");
        assert_ne!(job, saved("DROP TABLE t", "Never").1);
        let mut run = failed_run(&job, "x".into());
        (run.failed_version, run.sqlstate) = (None, None);
        let ended = children(&[(&job, Some("Failed"))]);
        let settings = json!({"allowDestructive": [3]});
        for jobs in [&ended, &children(&[])] {
            let failed = start("DROP TABLE t", settings.clone(), jobs, Some(run.clone()));
            assert!(matches!(failed, Decision::Failed { .. }), "{failed:?}");
        }
        let larger = json!({"allowDestructive": [3], "backup": {"size": "20Gi"}});
        let again = start("DROP TABLE t", larger, &ended, Some(run));
        assert!(matches!(again, Decision::Start { saves: true, .. }), "{again:?}");
    }

    #[test]
    fn two_digests_tell_what_the_whole_history_tells() {
        let migrations = serde_json::from_value(json!({"source": {"bundle": "b"}})).unwrap();
        let (source, plans, family) = (source("SELECT 3"), Plans::default(), children(&[]));
        let files = [(1, "SELECT 1"), (2, "SELECT 2"), (3, "SELECT 3")];
        let mut half = state(&files, None);
        half.applied[2].success = false;
        let edited = [(1, "SELECT 1"), (2, "SELECT 0"), (3, "SELECT 3")];
        let histories = [
            (state(&files, None), true),
            (state(&files[..2], None), false),
            (state(&edited, None), false),
            (half, false),
        ];
        for (state, alike) in histories {
            let digest = state.summary().digest;
            assert_eq!(digest.as_deref() == Some(source.digest()), alike, "{state:?}");
            for target in [None, Some(0), Some(2), Some(3), Some(4)] {
                let plan = |applied| {
                    let known = Known {
                        source: &source,
                        state: Some(&state),
                        applied,
                        identity: IDENTITY,
                        seeds: None,
                        target,
                        tried: tried(&family),
                        migrations: &migrations,
                        drift: None,
                        approved: None,
                        plans: &plans,
                        estimates: None,
                    };
                    known.plan()
                };
                assert_eq!(plan(digest.as_deref()), plan(None), "to {target:?}: {state:?}");
            }
        }
    }

    #[test]
    fn a_changed_schema_holds_back_only_where_it_is_asked_for() {
        let source = source("SELECT 1");
        for (mode, total, held) in [
            ("Report", 1, false),
            ("Correct", 1, false),
            ("Block", 0, false),
            ("Block", 1, true),
        ] {
            let settings = json!({"source": {"bundle": "b"}, "drift": {"mode": mode}});
            let decision = decide(
                &family(),
                &Known {
                    source: &source,
                    state: None,
                    applied: None,
                    identity: IDENTITY,
                    seeds: None,
                    target: Some(3),
                    tried: tried(&children(&[])),
                    migrations: &serde_json::from_value(settings).unwrap(),
                    drift: Some(&Drift {
                        total,
                        ..Drift::default()
                    }),
                    approved: None,
                    plans: &Plans::default(),
                    estimates: None,
                },
            );
            let holds = matches!(decision, Decision::Held { why: Hold::Drift, .. });
            assert_eq!(holds, held, "{mode} {total}: {decision:?}");
        }
    }

    #[test]
    fn the_files_of_an_image_are_brought_by_a_job_of_their_own() {
        let read = |jobs: &[(&str, Option<&str>)]| super::read(&family(), "image /migrations", tried(&children(jobs)));
        let Decision::Read { job, plan } = read(&[]) else {
            panic!("read")
        };
        assert_eq!(job, format!("d-migrate-{}-0-1", plan::hash8(&plan)));
        assert!(matches!(read(&[(&job, None)]), Decision::Running { .. }));
        // One that was lost is made again, three at most; so is one whose files somebody has removed.
        let next = |job: &str, ending| match read(&[(job, Some(ending))]) {
            Decision::Read { job, .. } => Some(job),
            Decision::Failed { .. } => None,
            other => panic!("{other:?}"),
        };
        let numbered = |number: usize| format!("d-migrate-{}-0-{number}", plan::hash8(&plan));
        assert_eq!(next(&numbered(1), "Failed"), Some(numbered(2)));
        assert_eq!(next(&numbered(3), "Failed"), None);
        assert_eq!(next(&numbered(3), "Complete"), Some(numbered(4)));
        assert_eq!(
            next("d-migrate-01234567-0-3", "Failed"),
            Some(numbered(1)),
            "another image's"
        );
    }

    #[test]
    fn an_edited_migration_is_impossible() {
        let state = state(&[(1, "SELECT 0")], None);
        let decision = decision(&source("SELECT 3"), Some(&state), &children(&[]));
        assert!(matches!(
            decision,
            Decision::Impossible {
                problem: PlanError::Edited { version: 1, .. }
            }
        ));
    }
}
