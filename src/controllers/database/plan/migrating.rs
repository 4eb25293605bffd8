//! Migration Jobs, and the plans that wait for a person, once the roles and the files are there that they need.

use std::sync::Arc;

use crate::{
    api::{amas_database::AmasDatabaseSpec, migrations::Migrations},
    controllers::{
        Settings,
        database::{
            backups,
            jobs::{self, Decision, JobInput, Pending, Seeds, Tried},
            observe::Observed,
            table::StoreKind,
            validate::Valid,
        },
        sources::Files,
    },
    engine::child::ChildKind,
    migrate::{
        plan::Direction,
        seed::{Profile, Recorded},
        source::Source,
    },
    stores::postgres::PostgresDuty,
};

use super::{Plan, Step};

/// What a Job is made from.
struct Migrating<'a> {
    spec: &'a AmasDatabaseSpec,
    valid: &'a Valid,
    observed: &'a Observed,
    settings: &'a Settings,
    owner: &'a str,
}

/// The steps of migrations, as far as their files are known.
pub fn steps(spec: &AmasDatabaseSpec, valid: &Valid, observed: &Observed, settings: &Settings, plan: &mut Plan) {
    let Some(migrations) = &spec.migrations else {
        return plan_maps(valid, observed, None, plan);
    };
    let Some(owner) = &valid.owner else { return };
    let migrating = Migrating {
        spec,
        valid,
        observed,
        settings,
        owner: owner.as_str(),
    };
    match &observed.files {
        Some(Files::Read(source)) => migrating.run(source, migrations, plan),
        Some(Files::Unread) => migrating.bring(plan),
        _ => {}
    }
}

impl Migrating<'_> {
    fn run(&self, source: &Source, migrations: &Migrations, plan: &mut Plan) {
        let (spec, valid, observed) = (self.spec, self.valid, self.observed);
        let (Some(snapshot), Some(facts)) = (&observed.postgres, observed.migrations()) else {
            return;
        };
        let seeds = match &observed.seed_files {
            Some(Ok(files)) => Some(pending_seeds(files, &facts.seeds)),
            _ => None,
        };
        let current = facts.summary.current;
        let goes_back = migrations.target_version.is_some_and(|target| target < current);
        if goes_back && facts.back_to != migrations.target_version {
            // The texts that lead back there are being read.
            return;
        }
        let target = target(spec, observed, source.newest());
        let known = jobs::Known {
            source,
            state: facts.state.as_ref(),
            applied: facts.summary.digest.as_deref(),
            identity: &facts.identity,
            seeds: seeds.as_ref(),
            target: Some(target),
            tried: self.tried(),
            migrations,
            drift: snapshot.facts.drift.as_ref(),
            approved: observed.annotations.approved_plan.as_deref(),
            plans: &observed.plans,
            estimates: snapshot.facts.estimates.as_ref(),
        };
        let decision = jobs::decide(&valid.family, &known);
        let prepared = self.is_prepared(plan);
        let needed = prepared && matches!(decision, Decision::Start { saves: true, .. });
        if backups::steps(spec, valid, observed, needed, plan) && prepared {
            self.start(&decision, target, seeds.as_ref(), plan);
        }
        self.keep_jobs(&decision, plan);
        match &decision {
            Decision::Held { pending, map, .. } => {
                if let Some(duty) = &mut plan.duties.postgres {
                    duty.waiting_plan = Some(pending.asked());
                }
                plan_maps(valid, observed, map.as_ref().map(|name| (name, pending)), plan)
            }
            Decision::Done => plan_maps(valid, observed, None, plan),
            // the plan that was approved stays to be read
            _ => {}
        }
        plan.migrations = Some(decision);
    }

    /// The Job that brings the files of an image into the database, once it was looked whether they are there.
    fn bring(&self, plan: &mut Plan) {
        let (Some(snapshot), Some(source)) = (&self.observed.postgres, &self.observed.deposit) else {
            return;
        };
        let deposit = snapshot.facts.deposit.as_ref();
        if deposit.is_none_or(|deposit| deposit.source != *source) || !self.is_prepared(plan) {
            return;
        }
        let decision = jobs::read(&self.valid.family, source, self.tried());
        self.keep_jobs(&decision, plan);
        if let Decision::Read { job, .. } = &decision {
            let input = JobInput {
                brings: Some(source),
                ..self.input()
            };
            self.create(&input, job, plan);
        }
        plan.migrations = Some(decision);
    }

    /// A Job needs the roles and extensions; until they are in, it waits.
    fn is_prepared(&self, plan: &Plan) -> bool {
        let wanted = plan.duties.postgres.as_ref().map(PostgresDuty::fingerprint);
        let snapshot = self.observed.postgres.as_ref();
        snapshot.is_some_and(|snapshot| snapshot.health.is_up() && wanted.is_some() && snapshot.facts.duty_in == wanted)
    }

    /// The Job that is due, if one is.
    fn start(&self, decision: &Decision, target: i64, seeds: Option<&Seeds>, plan: &mut Plan) {
        let Decision::Start {
            job,
            steps,
            direction,
            saves,
            ..
        } = decision
        else {
            return;
        };
        let input = JobInput {
            target: Some(target),
            seeds,
            steps,
            direction: *direction,
            saves: saves.then(|| backups::image(self.spec, self.valid, self.settings)),
            ..self.input()
        };
        self.create(&input, job, plan);
    }

    fn create(&self, input: &JobInput<'_>, name: &str, plan: &mut Plan) {
        let key = (ChildKind::Job, name.to_owned());
        if self.observed.taken.contains(&key) {
            return plan.taken.push(key);
        }
        let postgres = self.spec.postgres.as_ref();
        let managed = postgres.is_some_and(|postgres| postgres.managed.is_some());
        plan.steps.push(Step::Create(key.0, jobs::job(input, name, managed)));
    }

    /// What every Job of this object has.
    fn input(&self) -> JobInput<'_> {
        let server = self.observed.externals.get(&StoreKind::Postgres);
        JobInput {
            family: &self.valid.family,
            spec: self.spec,
            owner: self.owner,
            server: server.and_then(|server| server.as_ref().ok()),
            image: &self.settings.own_image,
            target: None,
            seeds: None,
            steps: "",
            direction: Direction::Up,
            brings: None,
            saves: None,
        }
    }

    fn tried(&self) -> Tried<'_> {
        Tried {
            now: self.observed.now,
            children: &self.observed.children,
            told: self.observed.status.migrations.as_ref(),
            again: self.observed.annotations.try_again.is_some(),
        }
    }

    fn keep_jobs(&self, decision: &Decision, plan: &mut Plan) {
        let all = jobs::keeping(&self.observed.children, decision);
        plan.steps
            .extend(all.into_iter().map(|(job, stays)| Step::KeepJob { job, stays }));
    }
}

/// The ConfigMap with the plan that waits for a person, and none of another plan.
fn plan_maps(valid: &Valid, observed: &Observed, wanted: Option<(&String, &Arc<Pending>)>, plan: &mut Plan) {
    let prefix = valid.family.child_name(jobs::MAP);
    let others = observed.children.iter().filter(|((kind, name), seen)| {
        *kind == ChildKind::ConfigMap
            && name.starts_with(&prefix)
            && !seen.deleting
            && wanted.is_none_or(|(wanted, _)| wanted != name)
    });
    plan.steps
        .extend(others.map(|((kind, name), _)| Step::Delete(*kind, name.clone())));
    let Some((name, pending)) = wanted else { return };
    let body = pending.map(&valid.family);
    let key = (ChildKind::ConfigMap, name.clone());
    match observed.children.get(&key) {
        None if observed.taken.contains(&key) => plan.taken.push(key),
        None => plan.steps.push(Step::Create(key.0, body)),
        Some(seen) if seen.deleting || seen.hash == key.0.hash(&body) => {}
        // after a restart the sizes are not known yet that were written
        Some(_) if !pending.is_complete() => {}
        Some(_) => plan.steps.push(Step::Update(key.0, body)),
    }
}

/// The version asked for. Without one: the newest known when this generation was first seen, so that an upgrade of the operator starts nothing; and
/// none below what is applied, since nothing is taken back that nobody asks to.
pub fn target(spec: &AmasDatabaseSpec, observed: &Observed, newest: i64) -> i64 {
    let asked = spec
        .migrations
        .as_ref()
        .and_then(|migrations| migrations.target_version);
    let recorded = observed
        .status
        .migrations
        .as_ref()
        .and_then(|migrations| migrations.target);
    let current = observed.migrations().map_or(0, |facts| facts.summary.current);
    let unasked = || recorded.filter(|_| observed.same_generation).unwrap_or(newest);
    asked.unwrap_or_else(|| unasked().max(current))
}

/// The seed files of the profile with how many are not in.
pub fn pending_seeds(all: &[Profile], recorded: &Recorded) -> Seeds {
    let files = all
        .iter()
        .flat_map(|profile| profile.files.iter().map(move |script| (&profile.label, script)));
    let pending = files
        .clone()
        .filter(|(label, script)| recorded.get(&((*label).clone(), script.file.clone())) != Some(&script.checksum))
        .count();
    Seeds {
        folders: all.iter().map(|profile| profile.label.clone()).collect(),
        files: files
            .map(|(label, script)| (label.clone(), script.file.clone(), script.checksum.to_string()))
            .collect(),
        pending,
    }
}
