//! What `OnFailure::Rollback` means: after a failed statement the versions of this run are taken back by their stored down texts.
//!
//! It is the way down of the same engine, under the same lock, to the version at which the run began; for a Job whose earlier pod did a part, at which
//! that one began. A file that is half way is no version yet and cannot be taken back: then all stays as it is.

use crate::migrate::{
    history,
    plan::{self, PlanError},
    report::Failure,
};

use super::{Goal, OnFailure, Runner, half_up};

impl Runner<'_, '_> {
    /// Takes back what this run has applied, if that is wanted and the failure is one that no repetition helps; the failure as it is to be told.
    pub(super) async fn take_back(&mut self, failure: Failure, began_at: i64) -> Failure {
        let wanted = matches!(self.request.goal, Goal::Up(_)) && self.request.on_failure == OnFailure::Rollback;
        match failure {
            Failure::Statement(cause) if wanted && !cause.is_transient() => {
                let to = self.went_down(began_at).await;
                Failure::RolledBack {
                    cause,
                    stands_at: self.report.current,
                    problem: to.err().map(Box::new),
                }
            }
            other => other,
        }
    }

    async fn went_down(&mut self, began_at: i64) -> Result<(), Failure> {
        // whatever the failed statement has left open
        self.rollback().await;
        let began_at = match &self.request.plan_hash {
            Some(plan) => history::began_at(self.conn, &self.request.attempt, plan)
                .await?
                .unwrap_or(began_at),
            None => began_at,
        };
        let (schema, source) = (&self.request.options.schema, &self.request.source);
        let state = history::read(self.conn, schema, Some(began_at))
            .await?
            .unwrap_or_default();
        if let Some(half) = state.applied.last().filter(|_| half_up(&state.applied)) {
            return Err(Failure::Refused(format!(
                "version {} is half way, and has no way back until it is finished",
                half.version
            )));
        }
        if state.current() <= began_at {
            return Ok(());
        }
        let (mut target, mut barred) = (began_at, None);
        let back = loop {
            match plan::plan(source, &state.applied, Some(target)) {
                Ok(back) => break back,
                // it stays, and so does what is below it; what is above goes
                Err(problem @ PlanError::NoWayBack { version, .. }) if version > target => {
                    (target, barred) = (version, Some(problem));
                }
                Err(problem) => return Err(problem.into()),
            }
        };
        self.steps(&back).await?;
        barred.map_or(Ok(()), |problem| Err(problem.into()))
    }
}
