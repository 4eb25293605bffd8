//! The status of an AmasDatabase from what was seen and planned. Pure: no client, no clock of its own.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::{
    api::{
        amas_database::{AmasDatabase, AmasDatabaseStatus},
        conditions::{ConditionType, Reason, Wanted, is_true, merge},
        status::{AppliedMigration, MigrationFailure, MigrationsStatus},
    },
    controllers::sources::Files,
    engine::{child::ChildKind, events::News, queue::Verdict, status::Weight},
    migrate::plan::PlanError,
    stores::health::{Health, Verdict as HealthVerdict},
};

use super::{
    facts,
    jobs::{Decision, Failure},
    observe::{Observed, Policy, StoreKind},
    plan::{Duties, Plan, target},
    stores::{StoreState, state},
    validate::{Valid, source_name},
};

/// Something that keeps Ready from being True.
#[derive(Clone, Debug, PartialEq)]
struct Blocker {
    /// A human has to act; nothing passes by itself.
    human: bool,
    reason: Reason,
    message: String,
}

/// A status, and what it means for the queue.
pub struct Report {
    pub status: AmasDatabaseStatus,
    pub verdict: Verdict,
    /// When time alone may change something.
    pub look_again: Option<Duration>,
}

/// The result of the steps before: an invalid specification, a refused write, or a plan.
pub enum Ground<'a> {
    Invalid(&'a [String]),
    Refused(&'a Valid, &'a Plan, &'a str),
    Planned(&'a Valid, &'a Plan),
}

/// Builds the whole status.
pub fn report(object: &AmasDatabase, observed: &Observed, ground: &Ground<'_>) -> Report {
    let generation = object.metadata.generation.unwrap_or_default();
    let (valid, plan) = match ground {
        Ground::Invalid(problems) => return invalid(observed, generation, problems),
        Ground::Refused(valid, plan, _) | Ground::Planned(valid, plan) => (valid, plan),
    };
    if matches!(ground, Ground::Planned(..)) && unheard(observed, plan) {
        return as_before(observed);
    }
    let mut draft = Draft {
        object,
        observed,
        plan,
        conditions: Vec::new(),
        blockers: Vec::new(),
        look_again: None,
    };
    if let Ground::Refused(_, _, message) = ground {
        draft.block(
            true,
            Reason::Refused,
            format!("the API refuses what this object needs: {message}"),
        );
    }
    draft.names();
    let stores = draft.stores(valid);
    draft.migrations();
    draft.policies(&stores);
    let available = draft.available(&stores);
    draft.finish(generation, valid, available)
}

fn invalid(observed: &Observed, generation: i64, problems: &[String]) -> Report {
    let message = problems.join("; ");
    let old = &observed.status;
    let kept = old
        .conditions
        .iter()
        .filter(|condition| !matches!(condition.type_.as_str(), "Ready" | "Reconciling" | "Stalled"));
    let wanted = [
        Wanted::new(ConditionType::Ready, false, Reason::InvalidSpec, message.clone()),
        Wanted::new(ConditionType::Stalled, true, Reason::InvalidSpec, message),
    ];
    let conditions = merge(&old.conditions, &wanted, generation, observed.now)
        .into_iter()
        .chain(kept.cloned())
        .collect();
    let status = AmasDatabaseStatus {
        observed_generation: Some(generation),
        conditions,
        ..old.clone()
    };
    Report {
        status,
        verdict: Verdict::Invalid,
        look_again: None,
    }
}

/// After a start of the operator the servers have not all been heard of. What the status says of this generation stands until they have,
/// so that a restart writes nothing.
fn unheard(observed: &Observed, plan: &Plan) -> bool {
    let known = observed.same_generation && !observed.status.conditions.is_empty();
    let troubled = !plan.missing.is_empty() || !plan.taken.is_empty();
    let Duties { postgres, redis, neo4j } = &plan.duties;
    let silent = |store: StoreKind| {
        observed
            .health(store)
            .is_none_or(|health| health.verdict == HealthVerdict::Unknown)
    };
    let unread = |store: StoreKind| observed.health(store).is_some_and(Health::is_up) && !observed.is_read(store);
    let declared = [
        (StoreKind::Postgres, postgres.is_some()),
        (StoreKind::Redis, redis.is_some()),
        (StoreKind::Neo4j, neo4j.is_some()),
    ];
    known
        && !troubled
        && declared
            .iter()
            .any(|(store, declared)| *declared && (silent(*store) || unread(*store)))
}

fn as_before(observed: &Observed) -> Report {
    let ready = is_true(&observed.status.conditions, ConditionType::Ready);
    let verdict = if ready { Verdict::Converged } else { Verdict::Waiting };
    Report {
        status: observed.status.clone(),
        verdict,
        look_again: None,
    }
}

struct Draft<'a> {
    object: &'a AmasDatabase,
    observed: &'a Observed,
    plan: &'a Plan,
    conditions: Vec<Wanted>,
    blockers: Vec<Blocker>,
    look_again: Option<Duration>,
}

/// A store with what it means for the whole.
struct Judged {
    store: StoreKind,
    state: StoreState,
    required: bool,
    /// Optional, but still given time to start.
    awaited: bool,
}

impl Judged {
    fn counts(&self) -> bool {
        self.required || self.awaited
    }
}

impl Draft<'_> {
    fn block(&mut self, human: bool, reason: Reason, message: impl Into<String>) {
        self.blockers.push(Blocker {
            human,
            reason,
            message: message.into(),
        });
    }

    fn set(&mut self, kind: ConditionType, status: bool, reason: Reason, message: impl Into<String>) {
        self.conditions.push(Wanted::new(kind, status, reason, message));
    }

    /// Names that are not ours to use, Secrets that are gone.
    fn names(&mut self) {
        let list = |names: Vec<String>| names.join(", ");
        if !self.plan.taken.is_empty() {
            let names = list(
                self.plan
                    .taken
                    .iter()
                    .map(|(kind, name)| format!("{kind:?} {name}"))
                    .collect(),
            );
            self.block(true, Reason::NameTaken, format!("{names} exists and does not belong to this AmasDatabase; delete or rename it, or name the AmasDatabase otherwise"));
            self.look_again = Some(Duration::from_secs(60));
        }
        if !self.plan.missing.is_empty() {
            let names = list(self.plan.missing.clone());
            self.block(
                true,
                Reason::CredentialsMissing,
                format!("Secret {names} is missing or has no password, but its data exists; put the Secret back"),
            );
            self.look_again = Some(Duration::from_secs(30));
        }
    }

    fn stores(&mut self, valid: &Valid) -> Vec<Judged> {
        let spec = &self.object.spec;
        let declared = [
            (
                StoreKind::Postgres,
                spec.postgres
                    .as_ref()
                    .map(|store| (store.required, store.managed.is_some())),
            ),
            (
                StoreKind::Redis,
                spec.redis
                    .as_ref()
                    .map(|store| (store.required, store.managed.is_some())),
            ),
            (
                StoreKind::Neo4j,
                spec.neo4j
                    .as_ref()
                    .map(|store| (store.required, store.managed.is_some())),
            ),
        ];
        let mut judged = Vec::new();
        for (store, declared) in declared {
            let Some((required, managed)) = declared else { continue };
            let state = state(store, managed, valid, self.observed, self.plan);
            let awaited = !required && managed && self.still_awaited(store);
            self.conditions.push(state.condition(store));
            let one = Judged {
                store,
                state,
                required,
                awaited,
            };
            if one.counts()
                && let Some((human, reason, message)) = one.state.blocker()
            {
                self.block(human, reason, format!("{}: {message}", store.component()));
            }
            judged.push(one);
        }
        let away: Vec<&str> = judged
            .iter()
            .filter(|one| !one.counts() && !one.state.serves())
            .map(|one| one.store.component())
            .collect();
        if !away.is_empty() {
            self.set(
                ConditionType::Degraded,
                true,
                Reason::OptionalStoreUnavailable,
                format!("not required and not available: {}", away.join(", ")),
            );
        }
        judged
    }

    /// An optional store that was never seen, on an object that is young.
    fn still_awaited(&mut self, store: StoreKind) -> bool {
        let policies_ready = self
            .observed
            .policies
            .iter()
            .filter(|policy| policy.store == store)
            .all(|policy| policy.ready);
        if facts::was_seen(&self.observed.status, store) && policies_ready {
            return false;
        }
        let ready_before = is_true(&self.observed.status.conditions, ConditionType::Ready);
        let created = self
            .object
            .metadata
            .creation_timestamp
            .as_ref()
            .map_or(self.observed.now, |time| time.0);
        let age = Duration::try_from(self.observed.now.duration_since(created)).unwrap_or_default();
        let patience = self.object.spec.optional_startup_timeout.get();
        let waits = age < patience && !ready_before;
        if waits {
            let left = patience - age;
            self.look_again = Some(self.look_again.map_or(left, |other| other.min(left)));
        }
        waits
    }

    fn migrations(&mut self) {
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
        if !done {
            self.block(human, reason, message.clone());
        }
        self.set(ConditionType::MigrationsApplied, done, reason, message);
    }

    fn decided(&self, decision: &Decision) -> (bool, bool, Reason, String) {
        match decision {
            Decision::Done if !self.rights_in() => (
                false,
                false,
                Reason::Configuring,
                "the roles' rights are being set for the new schema".into(),
            ),
            Decision::Done => {
                let current = self.current_version().unwrap_or_default();
                (
                    true,
                    false,
                    Reason::Applied,
                    format!("the schema is at version {current}"),
                )
            }
            Decision::Running { pending, .. } | Decision::Start { pending, .. } => (
                false,
                false,
                Reason::Migrating,
                format!("{pending} migrations are pending or running, then seeds if any"),
            ),
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

    /// The app roles' rights have followed the last migration.
    fn rights_in(&self) -> bool {
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

    fn current_version(&self) -> Option<i64> {
        let snapshot = self.observed.postgres.as_ref()?;
        let state = snapshot.facts.migrations.as_ref()?.state.as_ref()?;
        Some(state.current()).filter(|current| *current > 0)
    }

    /// The database cannot be asked: what was true stays true.
    fn migrations_unknown(&mut self) {
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

    fn policies(&mut self, stores: &[Judged]) {
        let store_counts = |policy: &&Policy| {
            stores
                .iter()
                .find(|one| one.store == policy.store)
                .is_none_or(|one| one.counts() || one.state.serves())
        };
        let problem = |policy: &Policy| match policy {
            Policy {
                exists: false,
                kind,
                name,
                ..
            } => Some(format!("{kind} {name} does not exist")),
            Policy {
                ready: false,
                kind,
                name,
                ..
            } => Some(format!("{kind} {name} is not Ready")),
            _ => None,
        };
        let demanded = self.observed.policies.iter().filter(store_counts).filter_map(problem);
        // Of a policy on a store that is left out, only its existence is asked.
        let absent = self
            .observed
            .policies
            .iter()
            .filter(|policy| !store_counts(policy) && !policy.exists)
            .filter_map(problem);
        let problems: Vec<String> = demanded.chain(absent).collect();
        if problems.is_empty() {
            let count = self.observed.policies.len();
            return self.set(
                ConditionType::PoliciesReady,
                true,
                Reason::Ready,
                format!("{count} policies and schemas"),
            );
        }
        let message = problems.join(", ");
        self.block(false, Reason::PolicyNotReady, message.clone());
        self.set(ConditionType::PoliciesReady, false, Reason::PolicyNotReady, message);
    }

    /// Every required store serves at a schema that an application can use. What is pending never clears it.
    fn available(&mut self, stores: &[Judged]) -> bool {
        let away = stores.iter().find(|one| one.required && !one.state.serves());
        if let Some(one) = away {
            self.set(
                ConditionType::Available,
                false,
                Reason::WaitingForStore,
                format!("{} does not serve", one.store.component()),
            );
            return false;
        }
        let migrated = self.object.spec.migrations.is_none()
            || matches!(self.plan.migrations, Some(Decision::Done) if self.rights_in())
            || is_true(&self.observed.status.conditions, ConditionType::Available)
            || (self.current_version().is_some()
                && self
                    .observed
                    .status
                    .migrations
                    .as_ref()
                    .is_some_and(|migrations| migrations.pending == 0));
        let (reason, message) = match migrated {
            true => (Reason::Serving, "every required store serves"),
            false => (Reason::Migrating, "the schema was never complete yet"),
        };
        self.set(ConditionType::Available, migrated, reason, message);
        migrated
    }

    fn finish(mut self, generation: i64, valid: &Valid, available: bool) -> Report {
        if !self.plan.steps.is_empty() || !available {
            self.block(false, Reason::Provisioning, "objects are being made");
        }
        // What a human must do comes first; else the first in the order of the stores.
        let first = self
            .blockers
            .iter()
            .find(|blocker| blocker.human)
            .or(self.blockers.first())
            .cloned();
        let verdict = match &first {
            None => Verdict::Converged,
            Some(blocker) if blocker.human => Verdict::Invalid,
            Some(_) => Verdict::Waiting,
        };
        let (ready, reason, message) = match first {
            None => (true, Reason::Ready, "everything declared is in".to_owned()),
            Some(blocker) => (false, blocker.reason, blocker.message),
        };
        let mut wanted = vec![Wanted::new(ConditionType::Ready, ready, reason, message.clone())];
        match verdict {
            Verdict::Converged => {}
            Verdict::Waiting => wanted.push(Wanted::new(ConditionType::Reconciling, true, reason, message)),
            Verdict::Invalid => wanted.push(Wanted::new(ConditionType::Stalled, true, reason, message)),
        }
        wanted.append(&mut self.conditions);
        wanted.sort_by_key(|condition| condition.kind);
        let old = &self.observed.status;
        let status = AmasDatabaseStatus {
            observed_generation: Some(generation),
            conditions: merge(&old.conditions, &wanted, generation, self.observed.now),
            stores: facts::stores(self.object, valid, self.observed),
            migrations: self.migrations_status(),
            secrets: valid.secrets.iter().map(|secret| secret.name.clone()).collect(),
            volumes: self.volumes(),
        };
        Report {
            status,
            verdict,
            look_again: self.look_again,
        }
    }

    fn volumes(&self) -> Vec<String> {
        let claims = self
            .observed
            .children
            .keys()
            .filter(|(kind, _)| *kind == ChildKind::PersistentVolumeClaim);
        claims.map(|(_, name)| name.clone()).collect()
    }

    fn migrations_status(&self) -> Option<MigrationsStatus> {
        self.object.spec.migrations.as_ref()?;
        let old = self.observed.status.migrations.clone();
        let Some(Files::Read(source)) = &self.observed.files else {
            return old;
        };
        let Some(facts) = self
            .observed
            .postgres
            .as_ref()
            .and_then(|snapshot| snapshot.facts.migrations.as_ref())
        else {
            return old;
        };
        let target = target(&self.object.spec, self.observed, source.newest());
        let applied = facts
            .state
            .as_ref()
            .map(|state| state.applied.as_slice())
            .unwrap_or_default();
        let known = source
            .migrations()
            .filter(|migration| migration.version <= target)
            .count();
        let (plan, pending, failure) = match &self.plan.migrations {
            Some(Decision::Running { plan, pending, .. } | Decision::Start { plan, pending, .. }) => {
                (Some(plan), *pending, None)
            }
            Some(Decision::Failed { plan, pending, failure }) => (Some(plan), *pending, Some(failure)),
            _ => (None, 0, None),
        };
        let plan = plan
            .map(|plan| crate::migrate::plan::hash8(plan).to_owned())
            .or_else(|| old.as_ref()?.plan.clone());
        let history = applied.iter().rev().take(10).map(|applied| AppliedMigration {
            version: applied.version,
            description: applied.description.clone(),
            applied_at: Some(Time(applied.applied_at)),
        });
        let attempts = self.observed.children.keys().filter(|(kind, name)| {
            *kind == ChildKind::Job
                && plan
                    .as_ref()
                    .is_some_and(|plan| name.contains(&format!("-migrate-{plan}-")))
        });
        Some(MigrationsStatus {
            current: self.current_version(),
            target: Some(target),
            pending: i64::try_from(pending).unwrap_or(i64::MAX),
            progress: format!("{}/{known}", applied.iter().filter(|applied| applied.success).count()),
            attempts: i64::try_from(attempts.count()).unwrap_or_default().max(
                old.as_ref()
                    .filter(|old| old.plan == plan)
                    .map_or(0, |old| old.attempts),
            ),
            seeded: self
                .object
                .spec
                .seed
                .as_ref()
                .and_then(|seed| seed.profile.folder())
                .filter(|_| self.plan.migrations == Some(Decision::Done))
                .map(Into::into),
            failure: failure.map(failure_status),
            history: history.collect(),
            plan,
        })
    }
}

fn failure_status(failure: &Failure) -> MigrationFailure {
    MigrationFailure {
        version: failure.version,
        file: failure.file.clone(),
        line: failure.line,
        sqlstate: failure.sqlstate.clone(),
        message: crate::api::conditions::shorten(&failure.message, 1024),
    }
}

fn failure_text(failure: &Failure) -> String {
    let mut place = failure.file.clone().unwrap_or_else(|| "a migration".into());
    if let Some(line) = failure.line {
        place += &format!(" line {line}");
    }
    let code = failure
        .sqlstate
        .as_ref()
        .map(|code| format!(" (SQLSTATE {code})"))
        .unwrap_or_default();
    format!(
        "{place}: {}{code}; what ran before it stays; mend the file, then change the specification or the annotation amas.dev/reread-sources",
        failure.message
    )
}

/// How much it matters that the status changed.
pub fn weight(old: &AmasDatabaseStatus, new: &AmasDatabaseStatus) -> Weight {
    if old == new {
        return Weight::None;
    }
    if facts::differ_only_in_figures(old, new) {
        return if facts::figures_moved(old, new) {
            Weight::Figures
        } else {
            Weight::None
        };
    }
    let status = |conditions: &[Condition], name: &str| {
        conditions
            .iter()
            .find(|condition| condition.type_ == name)
            .map(|condition| condition.status.clone())
    };
    let flipped = |name: &str| status(&old.conditions, name) != status(&new.conditions, name);
    let lost = |name: &str| {
        status(&old.conditions, name).as_deref() == Some("True")
            && status(&new.conditions, name).as_deref() == Some("False")
    };
    let news = ["Ready", "Available", "Stalled", "Degraded"]
        .iter()
        .any(|name| flipped(name))
        || new.conditions.iter().any(|condition| lost(&condition.type_));
    if news { Weight::News } else { Weight::Progress }
}

/// What is worth an Event: Ready gained or lost, a human needed, migrations in.
pub fn news(old: &AmasDatabaseStatus, new: &AmasDatabaseStatus) -> Vec<News> {
    let find = |status: &AmasDatabaseStatus, name: &str| {
        status
            .conditions
            .iter()
            .find(|condition| condition.type_ == name)
            .cloned()
    };
    let was = |name: &str| is_true_named(&old.conditions, name);
    let is = |name: &str| is_true_named(&new.conditions, name);
    let tell = |name: &str, warning: bool| {
        find(new, name).map(|condition| News {
            warning,
            reason: condition.reason,
            note: condition.message,
        })
    };
    let mut all = Vec::new();
    if is("MigrationsApplied")
        && !was("MigrationsApplied")
        && new
            .migrations
            .as_ref()
            .is_some_and(|migrations| migrations.attempts > 0)
    {
        all.extend(tell("MigrationsApplied", false).map(|news| News {
            reason: "MigrationsApplied".into(),
            ..news
        }));
    }
    match (was("Ready"), is("Ready")) {
        (false, true) => all.extend(tell("Ready", false)),
        (true, false) if !is("Stalled") => all.extend(tell("Ready", true)),
        _ => {}
    }
    let stalled = |status| find(status, "Stalled").map(|condition| (condition.reason, condition.message));
    if is("Stalled") && stalled(old) != stalled(new) {
        all.extend(tell("Stalled", true));
    }
    all
}

fn is_true_named(conditions: &[Condition], name: &str) -> bool {
    conditions
        .iter()
        .any(|condition| condition.type_ == name && condition.status == "True")
}
