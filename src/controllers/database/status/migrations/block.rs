//! The block `status.migrations`: where the schema stands, which plan waits, and what failed. Pure.

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

use crate::{
    api::{
        conditions::shorten,
        status::{AppliedMigration, MigrationFailure, MigrationsStatus, PendingPlan},
    },
    controllers::{
        database::{
            jobs::{Decision, Failure, last_attempt},
            plan::target,
            status::Draft,
        },
        sources::Files,
    },
    migrate::plan::hash8,
};

/// Of the description of an applied migration, the status shows no more.
const DESCRIPTION_BYTES: usize = 200;

impl Draft<'_> {
    /// The plan that waits; the one that was approved is shown until it is in.
    fn pending_plan(&self) -> Option<PendingPlan> {
        match self.plan.migrations.as_ref()? {
            Decision::Held { pending, map, .. } => {
                // After a restart the sizes are asked again: what was told of the same plan stays until they are known.
                let told = self
                    .observed
                    .status
                    .migrations
                    .as_ref()
                    .and_then(|old| old.pending_plan.as_ref());
                let told = told.filter(|told| !pending.is_complete() && told.hash == pending.status.hash);
                Some(PendingPlan {
                    config_map: map.clone(),
                    ..told.unwrap_or(&pending.status).clone()
                })
            }
            Decision::Done | Decision::Impossible { .. } => None,
            Decision::Read { .. } | Decision::Start { .. } | Decision::Running { .. } | Decision::Failed { .. } => {
                self.observed.status.migrations.as_ref()?.pending_plan.clone()
            }
        }
    }

    pub(in super::super) fn migrations_status(&self) -> Option<MigrationsStatus> {
        self.object.spec.migrations.as_ref()?;
        let old = self.observed.status.migrations.clone();
        let Some(Files::Read(source)) = &self.observed.files else {
            // The newest version of other files is not known yet.
            let other = matches!(self.observed.files, Some(Files::Unread)) && !self.observed.same_generation;
            let plan = self.plan_hash();
            let old = old.or_else(|| plan.map(|_| MigrationsStatus::default()));
            return old.map(|old| MigrationsStatus {
                target: old.target.filter(|_| !other),
                attempts: self.attempts(plan.or(old.plan.as_deref()), &old),
                failure: self.failure(&old),
                plan: plan.map(str::to_owned).or_else(|| old.plan.clone()),
                ..old
            });
        };
        let Some(facts) = self.observed.migrations() else {
            return old;
        };
        let target = target(&self.object.spec, self.observed, source.newest());
        let applied = facts
            .state
            .as_ref()
            .map(|state| state.applied.as_slice())
            .unwrap_or_default();
        let known = source.count_to(target);
        let pending = match &self.plan.migrations {
            Some(
                Decision::Running { pending, .. } | Decision::Start { pending, .. } | Decision::Failed { pending, .. },
            ) => *pending,
            Some(Decision::Held { pending, .. }) => pending.status.migrations as usize,
            _ => 0,
        };
        let old = old.unwrap_or_default();
        let plan = self.plan_hash().or(old.plan.as_deref());
        let history = applied.iter().rev().take(10).map(|applied| AppliedMigration {
            version: applied.version,
            description: shorten(&applied.description, DESCRIPTION_BYTES),
            applied_at: Some(whole_seconds(applied.applied_at)),
        });
        Some(MigrationsStatus {
            current: self.current_version(),
            target: Some(target),
            pending: i64::try_from(pending).unwrap_or(i64::MAX),
            progress: format!("{}/{known}", facts.summary.whole),
            attempts: self.attempts(plan, &old),
            seeded: self
                .object
                .spec
                .seed
                .as_ref()
                .and_then(|seed| seed.profile.folder())
                .filter(|_| self.plan.migrations == Some(Decision::Done))
                .map(Into::into),
            pending_plan: self.pending_plan(),
            drift: self.drift_status(),
            failure: self.failure(&old),
            history: history.collect(),
            plan: plan.map(str::to_owned),
        })
    }

    /// The plan whose Job is at work, due or failed: the first digits of its hash.
    fn plan_hash(&self) -> Option<&str> {
        match self.plan.migrations.as_ref()? {
            Decision::Running { plan, .. }
            | Decision::Start { plan, .. }
            | Decision::Read { plan, .. }
            | Decision::Failed { plan, .. } => Some(hash8(plan)),
            Decision::Held { .. } | Decision::Done | Decision::Impossible { .. } => None,
        }
    }

    /// The highest number that a Job of a plan has had. The status remembers it, since Jobs go.
    fn attempts(&self, plan: Option<&str>, old: &MigrationsStatus) -> i64 {
        let of_jobs = plan.and_then(|plan| last_attempt(&self.observed.children, plan));
        let told = (old.plan.as_deref() == plan).then_some(old.attempts);
        of_jobs.max(told).unwrap_or_default()
    }

    /// Why the last Job failed. What was told of a plan stands until another Job of it is at work.
    fn failure(&self, old: &MigrationsStatus) -> Option<MigrationFailure> {
        let told = |plan: &str| old.failure.clone().filter(|_| old.plan.as_deref() == Some(hash8(plan)));
        match &self.plan.migrations {
            Some(Decision::Failed { failure, .. }) => Some(failure_status(failure)),
            Some(Decision::Start { plan, .. } | Decision::Read { plan, .. } | Decision::Held { plan, .. }) => {
                told(plan)
            }
            Some(Decision::Running { .. } | Decision::Done | Decision::Impossible { .. }) => None,
            None => old.failure.clone(),
        }
    }
}

/// A time as the API keeps it; a finer one would differ from what is read back after a restart.
fn whole_seconds(time: Timestamp) -> Time {
    Time(Timestamp::from_second(time.as_second()).unwrap_or(time))
}

fn failure_status(failure: &Failure) -> MigrationFailure {
    MigrationFailure {
        version: failure.version,
        file: failure.file.clone(),
        line: failure.line,
        column: failure.column,
        sqlstate: failure.sqlstate.clone(),
        message: shorten(&failure.message, 1024),
    }
}
