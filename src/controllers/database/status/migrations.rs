//! The condition MigrationsApplied: whether the schema is as asked, or what it waits for. Pure.

mod block;

use crate::{
    api::{
        APPROVE_PLAN,
        conditions::{ConditionType, Reason, shorten},
    },
    controllers::sources::{Files, REREAD},
    migrate::{plan::PlanError, report},
};

use super::{
    super::{
        jobs::{self, Decision, Failure, Hold, Pending},
        plan::target,
        validate::source_name,
    },
    Draft,
};

impl Draft<'_> {
    pub(super) fn migrations(&mut self) {
        let Some(migrations) = &self.object.spec.migrations else {
            return;
        };
        let source = source_name(&migrations.source);
        let (done, human, reason, message) =
            match (&self.observed.files, &self.observed.seed_files, &self.plan.migrations) {
                (Some(Files::NotFound(message)), ..) => (false, true, Reason::SourceNotFound, message.clone()),
                (Some(Files::Invalid(problems)), ..) => (
                    false,
                    true,
                    Reason::InvalidSpec,
                    format!("{source}: {}", problems.join("; ")),
                ),
                (_, Some(Err(problems)), _) => (false, true, Reason::SourceNotFound, problems.join("; ")),
                (_, _, None) => return self.migrations_unknown(),
                (_, _, Some(decision)) => self.decided(decision),
            };
        if let Some(Decision::Running { ended: true, .. }) = self.plan.migrations {
            self.look_within(jobs::READING.unsigned_abs());
        }
        if !done {
            self.block(human, reason, message.clone());
        }
        self.set(ConditionType::MigrationsApplied, done, reason, message);
    }

    pub(super) fn decided(&self, decision: &Decision) -> (bool, bool, Reason, String) {
        match decision {
            Decision::Done if !self.rights_in() => (
                false,
                false,
                Reason::Configuring,
                "the roles' rights are being set for the new schema".into(),
            ),
            Decision::Done => {
                let current = self.current_version().unwrap_or_default();
                let at = format!("the schema is at version {current}");
                match self.newer() {
                    None => (true, false, Reason::Applied, at),
                    Some(newest) => (
                        true,
                        false,
                        Reason::NewerAvailable,
                        format!(
                            "{at}; the source has up to {newest}, which is applied when the specification changes or asks for it"
                        ),
                    ),
                }
            }
            Decision::Running { pending, .. } | Decision::Start { pending, .. } => (
                false,
                false,
                Reason::Migrating,
                format!(
                    "{pending} migrations are pending or running, then seeds if any{}",
                    self.in_the_way()
                ),
            ),
            Decision::Read { .. } => (
                false,
                false,
                Reason::Migrating,
                "a Job brings the files of the image".into(),
            ),
            Decision::Held { pending, map, why, .. } => {
                let (reason, message) = self.held(pending, map.as_deref(), why);
                (false, true, reason, message)
            }
            Decision::Failed { failure, .. } => (false, true, Reason::MigrationFailed, failure_text(failure)),
            Decision::Impossible { problem } => {
                let reason = if matches!(problem, PlanError::DatabaseAhead { .. }) {
                    Reason::DatabaseAhead
                } else {
                    Reason::HistoryMismatch
                };
                (false, true, reason, problem.to_string())
            }
        }
    }

    /// Who the run that goes on is waiting for, as the end of a sentence.
    fn in_the_way(&self) -> String {
        let state = self.observed.migrations().and_then(|facts| facts.state.as_ref());
        let run = state
            .and_then(|state| state.latest_run.as_ref())
            .filter(|run| run.outcome.is_none());
        let waiting = run.and_then(|run| run.waiting.as_ref());
        waiting.map_or_else(String::new, |text| format!("; {text}"))
    }

    /// Whom a plan waits for, and what to do.
    fn held(&self, pending: &Pending, map: Option<&str>, why: &Hold) -> (Reason, String) {
        let plan = &pending.status;
        let name = self.object.metadata.name.as_deref().unwrap_or_default();
        match why {
            Hold::Drift => {
                let told = self.drift_status().map(|drift| self.drift_message(&drift));
                let text = format!("{} migrations wait: {}", plan.migrations, told.unwrap_or_default());
                (Reason::Drifted, text)
            }
            Hold::Loss(refused) => (
                Reason::DestructiveNotAllowed,
                format!(
                    "{refused}; nothing of the plan was run; if the data may be lost, add to spec.migrations.allowDestructive: [{}]",
                    refused.list(", ")
                ),
            ),
            Hold::Approval { approved } => {
                let other = approved.as_ref().map(|approved| {
                    format!(
                        "what was approved ({}) is not the plan that is pending; ",
                        shorten(approved, 64)
                    )
                });
                let hash = &plan.hash;
                let text = format!(
                    "{}plan {hash} waits: {} from version {} to {}, {} migrations, {} statements, {} of which lose data{}; read it \
                     (kubectl get configmap {} -o yaml), then: kubectl annotate amasdb {name} {APPROVE_PLAN}={hash} --overwrite",
                    other.unwrap_or_default(),
                    plan.direction,
                    plan.from,
                    plan.to,
                    plan.migrations,
                    plan.statement_count,
                    pending.losses.len(),
                    pending
                        .warning
                        .as_ref()
                        .map_or_else(String::new, |warning| format!(" (warning: {warning})")),
                    map.unwrap_or_default(),
                );
                (Reason::WaitingForApproval, text)
            }
        }
    }

    /// The newest version of the source, where that is beyond the one asked for.
    fn newer(&self) -> Option<i64> {
        let Some(Files::Read(source)) = &self.observed.files else {
            return None;
        };
        let newest = source.newest();
        (newest > target(&self.object.spec, self.observed, newest)).then_some(newest)
    }

    /// The app roles' rights have followed the last migration.
    pub(super) fn rights_in(&self) -> bool {
        self.observed.postgres.as_ref().is_some_and(|snapshot| {
            let latest = snapshot
                .facts
                .migrations
                .as_ref()
                .and_then(|facts| facts.state.as_ref())
                .map_or(0, |state| state.highest_history_id);
            snapshot.facts.rights_at == Some(latest)
        })
    }

    pub(super) fn current_version(&self) -> Option<i64> {
        let current = self.observed.migrations()?.summary.current;
        Some(current).filter(|current| *current > 0)
    }

    /// The database cannot be asked: what was true stays true.
    pub(super) fn migrations_unknown(&mut self) {
        let old = self
            .observed
            .status
            .conditions
            .iter()
            .find(|condition| condition.type_ == "MigrationsApplied");
        match old.filter(|_| self.observed.same_generation) {
            Some(condition) if condition.status == "True" => {
                let message = condition.message.clone();
                self.set(ConditionType::MigrationsApplied, true, Reason::Applied, message);
            }
            _ => {
                self.block(false, Reason::WaitingForStore, "migrations wait for the database");
                self.set(
                    ConditionType::MigrationsApplied,
                    false,
                    Reason::WaitingForStore,
                    "waiting for the database",
                );
            }
        }
    }
}

fn failure_text(failure: &Failure) -> String {
    let place = failure.file.as_ref();
    let place = place.map(|file| report::place(file, failure.line, failure.column) + ": ");
    let mut text = place.unwrap_or_default() + &failure.message;
    if let Some(code) = &failure.sqlstate {
        text += &format!(" (SQLSTATE {code})");
    }
    let remedy = failure.sqlstate.as_deref().and_then(report::remedy);
    let mend = match failure.file {
        Some(_) => "mend the file",
        None => "mend that",
    };
    format!(
        "{text}; {}, then give the annotation {REREAD} a new value",
        remedy.unwrap_or(mend)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_where_what_and_what_to_do() {
        let syntax = Failure {
            file: Some("0003_m.up.sql".into()),
            line: Some(4),
            column: Some(8),
            sqlstate: Some("42601".into()),
            message: "syntax error".into(),
            ..Failure::default()
        };
        let text = failure_text(&syntax);
        assert!(
            text.starts_with(
                "0003_m.up.sql:4:8: syntax error (SQLSTATE 42601); mend the file, then give the annotation"
            ),
            "{text}"
        );
        let standby = Failure {
            sqlstate: Some("25006".into()),
            message: "cannot execute CREATE TABLE".into(),
            ..Failure::default()
        };
        let text = failure_text(&standby);
        assert!(
            text.starts_with("cannot execute CREATE TABLE (SQLSTATE 25006); the server takes no writes"),
            "{text}"
        );
    }
}
