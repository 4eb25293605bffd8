//! The Jobs of a plan: how many there were, how the last one failed, which one is kept. Pure: a failure that was told stands, whether or not its
//! Job is still there, until the plan is another or a person asks for one more.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::{
    api::status::MigrationsStatus,
    engine::{child::ChildKind, children},
    migrate::{
        history::{Run, State},
        plan::hash8,
        report::{self, Termination},
    },
    stores::workload::{Family, digest},
};

use super::{Decision, Failure};

/// Jobs of one plan that are tried when they end without an outcome in the database (their pods were lost).
const ATTEMPTS: i64 = 3;

/// How long it may take to read from the database what a Job did that has ended well. After that it is done again: somebody may have put an older
/// state of the database back.
pub const READING: SignedDuration = SignedDuration::from_secs(10);

/// What was tried before.
#[derive(Clone, Copy)]
pub struct Tried<'a> {
    pub now: Timestamp,
    pub children: &'a children::Family,
    /// What the status says of it, which outlives the Jobs.
    pub told: Option<&'a MigrationsStatus>,
    /// A person asks for one more Job, although the last one failed.
    pub again: bool,
}

/// A migration Job as its name tells it: `<database>-migrate-<plan>-<history>-<attempt>`.
pub(super) struct Job<'a> {
    pub name: &'a str,
    plan: &'a str,
    attempt: i64,
    finished: Option<bool>,
    completed_at: Option<Timestamp>,
    stays: bool,
}

impl Job<'_> {
    /// So many migrations are pending as far as was read.
    pub fn at_work(&self, pending: usize, ended: bool) -> Decision {
        Decision::Running {
            plan: self.plan.to_owned(),
            pending,
            job: self.name.to_owned(),
            ended,
        }
    }
}

/// Kubernetes allows no more, and a name that is cut off could not be read again.
const NAME_BYTES: usize = 63;

/// What the names of a family's Jobs begin with: as all its children's, or shorter where the whole would be too long.
fn prefixes(family: &Family) -> [String; 2] {
    let database = &family.database;
    let short = database.get(..15).unwrap_or(database);
    [
        family.child_name("migrate-"),
        format!("{short}-{}-migrate-", &digest(database)[..8]),
    ]
}

/// Plan and attempt, if it is the name of a migration Job.
fn parse(name: &str) -> Option<(&str, i64)> {
    let mut parts = name.rsplitn(4, '-');
    let attempt = parts.next()?.parse().ok()?;
    let (_history, plan) = (parts.next()?, parts.next()?);
    parts.next()?.ends_with("-migrate").then_some((plan, attempt))
}

/// The highest number that a Job of a plan has, of those that are there. The plan by the first digits of its hash.
pub fn last_attempt(children: &children::Family, plan: &str) -> Option<i64> {
    let ours = jobs(children).filter(|job| job.plan == plan);
    ours.map(|job| job.attempt).max()
}

fn jobs(children: &children::Family) -> impl Iterator<Item = Job<'_>> {
    let all = children.iter().filter(|((kind, _), _)| *kind == ChildKind::Job);
    all.filter_map(|((_, name), seen)| {
        let (plan, attempt) = parse(name)?;
        Some(Job {
            name,
            plan,
            attempt,
            finished: seen.facts.finished,
            completed_at: seen.facts.completed_at,
            stays: seen.facts.stays,
        })
    })
}

/// The Job that is at work.
pub(super) fn running(children: &children::Family) -> Option<Job<'_>> {
    jobs(children).find(|job| job.finished.is_none())
}

/// The Job that has just ended well, while what it did was not read yet: Kubernetes may tell of its end first.
pub(super) fn unread<'a>(tried: Tried<'a>, state: Option<&State>) -> Option<Job<'a>> {
    let last = jobs(tried.children)
        .filter(|job| job.finished == Some(true))
        .max_by_key(|job| job.completed_at)?;
    let run = state.and_then(|state| state.latest_run.as_ref());
    let is_read = run.is_some_and(|run| run.attempt == last.name && run.outcome.is_some());
    let is_recent = last
        .completed_at
        .is_some_and(|at| tried.now.duration_since(at) < READING);
    (is_recent && !is_read).then_some(last)
}

/// What was tried of one plan.
pub(super) struct Attempts<'a> {
    family: &'a Family,
    children: &'a children::Family,
    hash: &'a str,
    last: Option<Job<'a>>,
    /// What the status says, where it is of this plan.
    told: Option<&'a MigrationsStatus>,
    again: bool,
}

impl<'a> Attempts<'a> {
    pub fn of(family: &'a Family, tried: Tried<'a>, hash: &'a str) -> Self {
        let ours = jobs(tried.children).filter(|job| job.plan == hash8(hash));
        Self {
            family,
            children: tried.children,
            hash,
            last: ours.max_by_key(|job| job.attempt),
            told: tried.told.filter(|told| told.plan.as_deref() == Some(hash8(hash))),
            again: tried.again,
        }
    }

    fn of_jobs(&self) -> i64 {
        self.last.as_ref().map_or(0, |job| job.attempt)
    }

    fn of_status(&self) -> i64 {
        self.told.map_or(0, |told| told.attempts)
    }

    /// The name of the next Job, of none that ever was.
    pub fn next(&self, history: i64) -> String {
        let number = self.of_jobs().max(self.of_status()) + 1;
        let rest = format!("{}-{history}-{number}", hash8(self.hash));
        let [whole, short] = prefixes(self.family);
        match whole.len() + rest.len() <= NAME_BYTES {
            true => whole + &rest,
            false => short + &rest,
        }
    }

    /// Why no other Job is tried, and which Job says so. `same_files`: the last run failed at exactly what is pending.
    pub fn failure(
        &self,
        state: Option<&State>,
        same_files: impl Fn(&Run) -> bool,
    ) -> Option<(Failure, Option<String>)> {
        let told = self.told_failure();
        if self.again && told.is_some() {
            return None;
        }
        self.recorded(state, same_files).or_else(|| self.lost()).or(told)
    }

    /// The failure that the database has recorded, if it was of this plan or of exactly these files: then only an edit can help.
    fn recorded(&self, state: Option<&State>, same_files: impl Fn(&Run) -> bool) -> Option<(Failure, Option<String>)> {
        let run = state?.latest_run.as_ref();
        let run = run.filter(|run| run.outcome.as_deref() == Some("failed") && !is_transient(run))?;
        let ours = parse(&run.attempt).is_some_and(|(plan, _)| plan == hash8(self.hash));
        (ours || same_files(run)).then(|| (run_failure(run), Some(run.attempt.clone())))
    }

    /// A Job that ended badly without a word in the database: its pod's last words, or the end of patience.
    fn lost(&self) -> Option<(Failure, Option<String>)> {
        let last = self.last.as_ref().filter(|job| job.finished == Some(false))?;
        let failure = match last_message(self.children, last.name) {
            Some(message) if message.is_final || last.attempt >= ATTEMPTS => message.failure,
            None if last.attempt >= ATTEMPTS => Failure {
                message: format!(
                    "Job {} failed without an outcome in the database; see its pods",
                    last.name
                ),
                ..Failure::default()
            },
            _ => return None,
        };
        Some((failure, Some(last.name.to_owned())))
    }

    /// What the status says, as long as no Job has been made since.
    fn told_failure(&self) -> Option<(Failure, Option<String>)> {
        let told = self.told.filter(|told| self.of_jobs() <= told.attempts)?;
        let failure = told.failure.as_ref()?;
        let failure = Failure {
            version: failure.version,
            file: failure.file.clone(),
            line: failure.line,
            column: failure.column,
            sqlstate: failure.sqlstate.clone(),
            message: failure.message.clone(),
        };
        Some((failure, self.last.as_ref().map(|job| job.name.to_owned())))
    }
}

/// Failed Jobs that are to stay (true) or may be collected (false), where that is not so already. The one that a failure is told of stays, with
/// the log of its pods, until another Job runs or nothing is left to do.
pub fn keeping(children: &children::Family, decision: &Decision) -> Vec<(String, bool)> {
    let kept = match decision {
        Decision::Failed { job, .. } => job.as_deref(),
        Decision::Running { .. } | Decision::Done => None,
        _ => return Vec::new(),
    };
    jobs(children)
        .filter(|job| job.finished == Some(false) && job.stays != (kept == Some(job.name)))
        .map(|job| (job.name.to_owned(), !job.stays))
        .collect()
}

struct LastMessage {
    failure: Failure,
    is_final: bool,
}

/// What the Job's pod wrote when it ended: the only word there is when the runner never reached the database.
fn last_message(children: &children::Family, job: &str) -> Option<LastMessage> {
    let is_pod = |name: &str| name.strip_prefix(job).is_some_and(|rest| rest.starts_with('-'));
    let pods = children
        .iter()
        .filter(|((kind, name), _)| *kind == ChildKind::Pod && is_pod(name));
    let text = pods
        .filter_map(|(_, seen)| seen.facts.termination_message.as_deref())
        .next_back()?;
    let ended: Termination = serde_json::from_str(text).ok()?;
    Some(LastMessage {
        is_final: report::final_codes().any(|code| code == ended.code),
        failure: Failure {
            version: ended.version,
            file: ended.file,
            line: ended.line.and_then(|line| i64::try_from(line).ok()),
            column: ended.column.and_then(|column| i64::try_from(column).ok()),
            sqlstate: ended.sqlstate,
            message: ended.message.unwrap_or_default(),
        },
    })
}

fn is_transient(run: &Run) -> bool {
    run.sqlstate.as_deref().is_some_and(report::is_transient)
}

fn run_failure(run: &Run) -> Failure {
    Failure {
        version: run.failed_version,
        file: run.file.clone(),
        line: run.line.map(i64::from),
        column: run.error_column.map(i64::from),
        sqlstate: run.sqlstate.clone(),
        message: run.message.clone().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::fixtures::family;
    use super::*;

    #[test]
    fn a_job_is_known_by_its_name_however_long_it_would_be() {
        let hash = "0123456789abcdef";
        for (database, history, length) in [
            ("d".to_owned(), 7, "d-migrate-01234567-7-3".len()),
            ("d".repeat(40), 99, 62),
            ("d".repeat(40), 1_000_000, 51),
        ] {
            let family = Family { database, ..family() };
            let told = MigrationsStatus {
                plan: Some(hash[..8].into()),
                attempts: 2,
                ..MigrationsStatus::default()
            };
            let tried = Tried {
                now: Timestamp::UNIX_EPOCH,
                children: &children::Family::new(),
                told: Some(&told),
                again: false,
            };
            let name = Attempts::of(&family, tried, hash).next(history);
            assert_eq!(name.len(), length, "{name}");
            assert_eq!(parse(&name), Some(("01234567", 3)), "{name}");
        }
    }
}
