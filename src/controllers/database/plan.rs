//! What has to be written, as a list of small steps. Pure: from valid values and what was seen.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::Value;

use crate::{
    api::{
        amas_database::AmasDatabaseSpec,
        common::{DeletionPolicy, NetworkSettings},
    },
    controllers::{
        Settings,
        credentials::{Entries, Known, SecretSpec, certificates::Trouble},
        sources::Files,
    },
    engine::{child::ChildKind, children::owner_of},
    migrate::{
        history::State,
        seed::{Profile, Recorded},
    },
    stores::{
        postgres::PostgresDuty,
        revisions::{self, Stamp},
        workload::{Reload, Shared, Template, TemplateKind, Workload},
    },
};

use super::{
    backups,
    configuration::{self, Judged, Writing},
    duties::{Duties, duties},
    issuance,
    jobs::{self, Decision, JobInput, Pending, Seeds, Tried},
    losses,
    observe::Observed,
    rollout::{self, Asked, Rollout},
    secrets,
    table::StoreKind,
    tried,
    validate::Valid,
    volumes,
    window::{self, Window},
};

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    AddFinalizer,
    /// Nothing is left that only we can undo.
    RemoveFinalizer,
    CreateSecret(SecretSpec),
    /// From what it was planned for: a Secret that is another by then is looked at first.
    UpdateSecret {
        spec: SecretSpec,
        from: Entries,
        to: Entries,
    },
    Create(ChildKind, Value),
    Update(ChildKind, Value),
    /// Changes what a server's pod is made of, which replaces it; with the reason.
    Replace(Value, String),
    /// Makes a volume larger, which its storage class may refuse.
    Grow(Value),
    /// Makes a pod's node bring a changed configuration at once.
    SendConfig {
        pod: String,
        config: String,
    },
    /// Deletes a server's pod, so that it is made anew; with the reason.
    Restart {
        pod: String,
        why: String,
    },
    Delete(ChildKind, String),
    /// Whether a finished Job stays, or is collected some time after its end.
    KeepJob {
        job: String,
        stays: bool,
    },
}

/// Everything to do. No steps: nothing is written.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub steps: Vec<Step>,
    pub duties: Duties,
    /// What holds for migrations; `None` while their database is not there, or when there are none.
    pub migrations: Option<Decision>,
    /// Secrets that are missing beside their data.
    pub missing: Vec<String>,
    /// What is wrong with Secrets that the user brings.
    pub unusable: Vec<String>,
    /// Stores whose passwords are just being replaced.
    pub rotating: Vec<StoreKind>,
    /// Why an issuer has not given all certificates.
    pub certificates: Option<Trouble>,
    /// A store cannot be made before its user's Secret is right.
    pub waits_for_secret: bool,
    /// Names that somebody else's objects have.
    pub taken: Vec<(ChildKind, String)>,
    /// How each managed server is rendered, by its component.
    pub rollouts: BTreeMap<&'static str, Rollout>,
    /// How the volume of each managed server is, by its component.
    pub volumes: BTreeMap<&'static str, volumes::State>,
    /// What the PostgreSQL server would not take of its configuration; it goes on with what it has.
    pub refused: Vec<String>,
    /// Steps that wait for the end of the suspension.
    pub held: usize,
    /// The clock may change something: the maintenance window opens.
    pub look_again: Option<Duration>,
}

impl Plan {
    /// Whether a server has everything that its keeper is to hold true.
    pub fn is_in(&self, store: StoreKind, observed: &Observed) -> bool {
        let wanted = self.duties.wanted(store);
        wanted.is_some() && observed.heard(store).and_then(|heard| heard.duty_in) == wanted
    }
}

/// Where the status keeps the last handled value of the annotation that asks for a restart.
pub const HANDLED_RESTART: &str = "restart";
/// The finalizer of objects whose data goes with them.
pub const FINALIZER: &str = "amas.dev/delete-data";

/// Plans. `finalized` says whether our finalizer is on the object.
pub fn plan(spec: &AmasDatabaseSpec, valid: &Valid, observed: &Observed, settings: &Settings, finalized: bool) -> Plan {
    let mut plan = Plan {
        steps: Vec::new(),
        duties: duties(spec, valid, observed, settings),
        migrations: None,
        missing: Vec::new(),
        unusable: Vec::new(),
        rotating: Vec::new(),
        certificates: None,
        waits_for_secret: false,
        taken: Vec::new(),
        rollouts: BTreeMap::new(),
        volumes: BTreeMap::new(),
        refused: Vec::new(),
        held: 0,
        look_again: None,
    };
    // Where the rights go with the namespace, so does everything else: by its owner.
    let needed = spec.deletion_policy == DeletionPolicy::Delete && !settings.namespaced;
    match (needed, finalized) {
        (true, false) => plan.steps.push(Step::AddFinalizer),
        (false, true) => plan.steps.push(Step::RemoveFinalizer),
        _ => {}
    }
    let finalizer = plan.steps.len();
    issuance::steps(spec, valid, observed, &mut plan);
    secrets::steps(spec, valid, observed, &mut plan);
    if spec.postgres.is_some() {
        plan.steps.extend(
            role_secrets(valid, observed)
                .cloned()
                .map(|name| Step::Delete(ChildKind::Secret, name)),
        );
    }
    if plan.missing.is_empty() && !plan.waits_for_secret {
        child_steps(spec, valid, observed, settings, &mut plan);
        migration_steps(spec, valid, observed, settings, &mut plan);
    }
    if spec.suspend {
        plan.held = plan.steps.split_off(finalizer).len();
    }
    plan
}

/// The Secrets of roles that are no longer listed.
pub fn role_secrets<'a>(valid: &Valid, observed: &'a Observed) -> impl Iterator<Item = &'a String> {
    let prefix = format!("{}-role-", valid.family.database);
    observed
        .former_secrets
        .iter()
        .filter(move |name| name.starts_with(&prefix))
}

fn child_kind(kind: TemplateKind) -> ChildKind {
    match kind {
        TemplateKind::ServiceAccount => ChildKind::ServiceAccount,
        TemplateKind::ConfigMap => ChildKind::ConfigMap,
        TemplateKind::Service => ChildKind::Service,
        TemplateKind::NetworkPolicy => ChildKind::NetworkPolicy,
        TemplateKind::PodDisruptionBudget => ChildKind::PodDisruptionBudget,
        TemplateKind::PersistentVolumeClaim => ChildKind::PersistentVolumeClaim,
        TemplateKind::StatefulSet => ChildKind::StatefulSet,
    }
}

fn child_steps(spec: &AmasDatabaseSpec, valid: &Valid, observed: &Observed, settings: &Settings, plan: &mut Plan) {
    let NetworkSettings { mode } = spec.network;
    let shared = Shared {
        pods: &spec.pods,
        access: mode,
        disruption: spec.disruption,
        operator_namespace: &settings.operator_namespace,
    };
    let asked = asked(spec, observed, plan);
    let judged = spec
        .postgres
        .as_ref()
        .and_then(|postgres| configuration::judge(postgres, valid, observed));
    let mut names = Vec::new();
    for workload in &valid.workloads {
        let judged = judged
            .as_ref()
            .filter(|_| matches!(workload.reload, Reload::AsTheServerSays(_)));
        let asked = asked_of(valid, workload, &asked, judged, observed);
        let writing = match workload.component {
            "redis" => spec
                .redis
                .as_ref()
                .map(|redis| configuration::judge_redis(redis, observed)),
            _ => judged.map(|judged| judged.writing.clone()),
        };
        let keeps_config = writing.is_some_and(|writing| writing != Writing::Allowed);
        let mut written = false;
        let rollout = roll_out(valid, workload, observed, settings, (&asked, shared));
        let volume = losses::of_volume(spec, valid, workload, observed)
            .unwrap_or_else(|| volumes::judge(valid, workload, observed));
        for mut template in server_templates(valid, workload, observed, settings, (&rollout, shared)) {
            let kind = child_kind(template.kind);
            let key = (kind, name_of(&template).to_owned());
            let seen = observed.children.get(&key);
            written |= kind == ChildKind::ConfigMap && seen.is_some_and(|seen| seen.hash == kind.hash(&template.body));
            if kind == ChildKind::PersistentVolumeClaim
                && let Some(size) = volumes::size(seen.and_then(|seen| seen.facts.volume.as_deref()), &volume)
            {
                template.body["spec"]["resources"]["requests"]["storage"] = size.into();
            }
            match seen {
                None if volume.keeps_out(kind) => {}
                None if observed.taken.contains(&key) => plan.taken.push(key.clone()),
                None => plan.steps.push(Step::Create(kind, template.body)),
                Some(seen)
                    if seen.deleting
                        || (seen.hash == kind.hash(&template.body) && seen.owner == owner_of(&template.body)) => {}
                // Redis' pod is made from what its file is made from.
                Some(_)
                    if keeps_config
                        && (kind == ChildKind::ConfigMap || (kind == ChildKind::StatefulSet && judged.is_none())) => {}
                Some(_) if kind == ChildKind::PersistentVolumeClaim && volume == volumes::State::Grows => {
                    plan.steps.push(Step::Grow(template.body))
                }
                Some(_) => plan.steps.extend(change(kind, template.body, &rollout)),
            }
            names.push(key);
        }
        plan.rollouts.insert(workload.component, rollout);
        plan.volumes.insert(workload.component, volume);
        if written {
            plan.steps.extend(tried::step(spec, valid, workload, observed));
        }
        if let Some(judged) = judged {
            plan.steps.extend(send_config(valid, workload, judged, observed));
            if let Writing::Refused(refused) = &judged.writing {
                plan.refused.clone_from(refused);
            }
        }
    }
    if plan.rollouts.values().all(|rollout| rollout.pending().is_none()) {
        plan.look_again = None;
    }
    plan.steps.extend(stuck_pods(valid, observed));
    // What a store that is no longer asked for has left: its workload goes, its volume stays. Plans are looked after by themselves.
    let plans = valid.family.child_name(jobs::MAP);
    let ours = |kind: ChildKind| {
        !matches!(
            kind,
            ChildKind::Job | ChildKind::Pod | ChildKind::PersistentVolumeClaim | ChildKind::Secret
        )
    };
    let left = observed
        .children
        .iter()
        .filter(|(key, seen)| ours(key.0) && !seen.deleting && !names.contains(key) && !key.1.starts_with(&plans));
    plan.steps
        .extend(left.map(|((kind, name), _)| Step::Delete(*kind, name.clone())));
}

/// What a person asks for, and the clock allows.
fn asked(spec: &AmasDatabaseSpec, observed: &Observed, plan: &mut Plan) -> Asked {
    let handled = observed.status.handled.get(HANDLED_RESTART);
    let window = spec
        .maintenance_window
        .as_ref()
        .and_then(|window| window::at(window, observed.now).ok());
    if let Some(Window::OpensIn(time)) = window {
        plan.look_again = Some(time);
    }
    Asked {
        restart: observed.restart.clone().filter(|value| Some(value) != handled),
        window_open: window == Some(Window::Open),
        has_window: window.is_some(),
        ..Asked::default()
    }
}

/// The same for one server, with what that says itself.
fn asked_of(valid: &Valid, workload: &Workload, asked: &Asked, judged: Option<&Judged>, observed: &Observed) -> Asked {
    let snapshot = observed.postgres.as_ref().filter(|_| judged.is_some());
    let loaded = snapshot.and_then(|snapshot| {
        let facts = snapshot.facts.configuration.as_ref()?;
        (facts.loaded == Some(revisions::config(workload))).then(|| facts.restart.clone())
    });
    let up = snapshot.is_some_and(|snapshot| snapshot.health.is_up());
    let pod = format!("{}-0", valid.family.child_name(workload.component));
    Asked {
        settings: loaded.filter(|_| up).unwrap_or_default(),
        broken: !up && observed.trouble(&pod).is_some(),
        ..asked.clone()
    }
}

/// A file that was written and has not reached the server yet is sent for, once.
fn send_config(valid: &Valid, workload: &Workload, judged: &Judged, observed: &Observed) -> Option<Step> {
    let config = revisions::config(workload);
    let facts = observed.postgres.as_ref()?.facts.configuration.as_ref()?;
    let map = valid.family.child_name(&format!("{}-config", workload.component));
    let written = observed
        .children
        .get(&(ChildKind::ConfigMap, map))?
        .facts
        .config
        .as_ref()
        == Some(&config);
    let pod = format!("{}-0", valid.family.child_name(workload.component));
    let seen = observed.children.get(&(ChildKind::Pod, pod.clone()))?;
    if tried::crashes(&seen.facts) {
        return None;
    }
    let sent = seen.facts.config.as_ref() == Some(&config);
    let arrived = facts.file.as_ref() == Some(&config);
    (judged.writing == Writing::Allowed && written && !sent && !arrived).then_some(Step::SendConfig { pod, config })
}

fn roll_out(
    valid: &Valid,
    workload: &Workload,
    observed: &Observed,
    settings: &Settings,
    (asked, shared): (&Asked, Shared<'_>),
) -> Rollout {
    let key = (ChildKind::StatefulSet, valid.family.child_name(workload.component));
    let live = observed
        .children
        .get(&key)
        .and_then(|seen| seen.facts.template.as_deref());
    let hash = |stamp: &Stamp| {
        let all = settings.revisions.templates(&valid.family, workload, shared, stamp);
        let set = all.iter().find(|template| template.kind == TemplateKind::StatefulSet);
        set.map_or(0, |template| ChildKind::StatefulSet.pod_template_hash(&template.body))
    };
    rollout::decide(workload, live, asked, settings.revisions, hash)
}

/// Pods that cannot run and are made from what their StatefulSet said before: Kubernetes waits for ever until such a pod is ready, so a
/// corrected image would never be tried.
fn stuck_pods(valid: &Valid, observed: &Observed) -> Vec<Step> {
    let stuck = |workload: &Workload| {
        let name = valid.family.child_name(workload.component);
        let set = observed.children.get(&(ChildKind::StatefulSet, name.clone()))?;
        let wanted = set.facts.template.as_ref()?.wanted.as_ref()?;
        let pod = (ChildKind::Pod, format!("{name}-0"));
        let seen = observed.children.get(&pod)?;
        let old = seen
            .facts
            .made_from
            .as_ref()
            .is_some_and(|made_from| made_from != wanted);
        (old && seen.facts.trouble.is_some() && !seen.deleting).then_some(Step::Delete(pod.0, pod.1))
    };
    valid.workloads.iter().filter_map(stuck).collect()
}

/// The step for a child that is not as it should be.
fn change(kind: ChildKind, body: Value, rollout: &Rollout) -> Option<Step> {
    match rollout {
        Rollout::Render { restart: Some(why), .. } if kind == ChildKind::StatefulSet => {
            Some(Step::Replace(body, why.clone()))
        }
        Rollout::Leave { .. } if matches!(kind, ChildKind::StatefulSet | ChildKind::ConfigMap) => None,
        _ => Some(Step::Update(kind, body)),
    }
}

fn name_of(template: &Template) -> &str {
    template.body["metadata"]["name"].as_str().unwrap_or_default()
}

/// The templates of one server; without its pods while a name that they would use is somebody else's.
fn server_templates(
    valid: &Valid,
    workload: &Workload,
    observed: &Observed,
    settings: &Settings,
    (rollout, shared): (&Rollout, Shared<'_>),
) -> Vec<Template> {
    let newest = Stamp::newest(settings.revisions, workload);
    let stamp = match rollout {
        Rollout::Render { stamp, .. } => stamp,
        Rollout::Leave { .. } => &newest,
    };
    let mut all = settings.revisions.templates(&valid.family, workload, shared, stamp);
    let name = |template: &Template| name_of(template).to_owned();
    let taken = |key: (ChildKind, String)| observed.taken.contains(&key);
    let secret = &workload.secret.secret;
    let foreign = taken((ChildKind::Secret, secret.clone())) || observed.secrets.get(secret) == Some(&Known::Foreign);
    if foreign
        || all
            .iter()
            .any(|template| taken((child_kind(template.kind), name(template))))
    {
        all.retain(|template| {
            let pods = matches!(
                template.kind,
                TemplateKind::StatefulSet | TemplateKind::PersistentVolumeClaim
            );
            let key = (child_kind(template.kind), name(template));
            // What is there already stays as it is, and a name that is taken is to be told.
            !pods || observed.children.contains_key(&key) || taken(key)
        });
    }
    all
}

fn migration_steps(spec: &AmasDatabaseSpec, valid: &Valid, observed: &Observed, settings: &Settings, plan: &mut Plan) {
    let Some(migrations) = &spec.migrations else {
        return plan_maps(valid, observed, None, plan);
    };
    if let (Some(Files::Unread), Some(owner)) = (&observed.files, &valid.owner) {
        return read_step(spec, valid, observed, (settings, owner.as_str()), plan);
    }
    let (Some(Files::Read(source)), Some(owner)) = (&observed.files, &valid.owner) else {
        return;
    };
    let (Some(snapshot), Some(facts)) = (&observed.postgres, observed.migrations()) else {
        return;
    };
    let duty_in = plan.duties.postgres.as_ref().map(PostgresDuty::fingerprint);
    let seeds = match &observed.seed_files {
        Some(Ok(files)) => Some(pending_seeds(files, &facts.seeds)),
        _ => None,
    };
    let current = facts.state.as_ref().map_or(0, State::current);
    if migrations.target_version.is_some_and(|target| target < current) && facts.back_to != migrations.target_version {
        // The texts that lead back there are being read.
        return;
    }
    let target = target(spec, observed, source.newest());
    let known = jobs::Known {
        source,
        state: facts.state.as_ref(),
        applied: facts.applied.as_deref(),
        identity: &facts.identity,
        seeds: seeds.as_ref(),
        target: Some(target),
        tried: tried(observed),
        migrations,
        drift: snapshot.facts.drift.as_ref(),
        approved: observed.approved_plan.as_deref(),
        plans: &observed.plans,
        estimates: snapshot.facts.estimates.as_ref(),
    };
    let decision = jobs::decide(&valid.family, &known);
    // A Job needs the roles and extensions; until they are in, it waits.
    let prepared = snapshot.health.is_up() && duty_in.is_some() && snapshot.facts.duty_in == duty_in;
    let needed = prepared && matches!(decision, Decision::Start { saves: true, .. });
    let may_start = backups::steps(spec, valid, observed, needed, plan);
    if let (
        Decision::Start {
            job,
            steps,
            direction,
            saves,
            ..
        },
        true,
    ) = (&decision, prepared && may_start)
    {
        let input = JobInput {
            family: &valid.family,
            spec,
            owner: owner.as_str(),
            server: observed
                .externals
                .get(&StoreKind::Postgres)
                .and_then(|server| server.as_ref().ok()),
            image: &settings.own_image,
            target: Some(target),
            seeds: seeds.as_ref(),
            steps,
            direction: *direction,
            brings: None,
            saves: saves.then(|| backups::image(spec, valid, settings)),
        };
        plan.steps
            .push(Step::Create(ChildKind::Job, jobs::job(&input, job, is_managed(spec))));
    }
    keep_jobs(valid, observed, &decision, plan);
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

fn tried(observed: &Observed) -> Tried<'_> {
    Tried {
        now: observed.now,
        children: &observed.children,
        told: observed.status.migrations.as_ref(),
        again: observed.try_again.is_some(),
    }
}

fn keep_jobs(valid: &Valid, observed: &Observed, decision: &Decision, plan: &mut Plan) {
    let all = jobs::keeping(&valid.family, &observed.children, decision);
    plan.steps
        .extend(all.into_iter().map(|(job, stays)| Step::KeepJob { job, stays }));
}

fn is_managed(spec: &AmasDatabaseSpec) -> bool {
    spec.postgres
        .as_ref()
        .is_some_and(|postgres| postgres.managed.is_some())
}

/// The Job that brings the files of an image into the database, once it was looked whether they are there.
fn read_step(
    spec: &AmasDatabaseSpec,
    valid: &Valid,
    observed: &Observed,
    (settings, owner): (&Settings, &str),
    plan: &mut Plan,
) {
    let duty_in = plan.duties.postgres.as_ref().map(PostgresDuty::fingerprint);
    let (Some(snapshot), Some(source)) = (&observed.postgres, &observed.deposit) else {
        return;
    };
    let looked = snapshot
        .facts
        .deposit
        .as_ref()
        .is_some_and(|deposit| deposit.source == *source);
    if !looked || !snapshot.health.is_up() || duty_in.is_none() || snapshot.facts.duty_in != duty_in {
        return;
    }
    let decision = jobs::read(&valid.family, source, tried(observed));
    keep_jobs(valid, observed, &decision, plan);
    if let Decision::Read { job, .. } = &decision {
        let server = observed.externals.get(&StoreKind::Postgres);
        let input = JobInput {
            family: &valid.family,
            spec,
            owner,
            server: server.and_then(|server| server.as_ref().ok()),
            image: &settings.own_image,
            target: None,
            seeds: None,
            steps: "",
            direction: crate::migrate::plan::Direction::Up,
            brings: Some(source),
            saves: None,
        };
        let body = jobs::job(&input, job, is_managed(spec));
        plan.steps.push(Step::Create(ChildKind::Job, body));
    }
    plan.migrations = Some(decision);
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
    let state = observed.migrations().and_then(|facts| facts.state.as_ref());
    let current = state.map_or(0, State::current);
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

#[cfg(test)]
mod tests {
    use super::super::fixtures::{Situation, platform};
    use super::*;

    #[test]
    fn a_new_object_gets_secrets_and_children_and_no_job() {
        let plan = Situation::new(platform()).plan();
        let count = |wanted: fn(&Step) -> bool| plan.steps.iter().filter(|step| wanted(step)).count();
        assert_eq!(count(|step| matches!(step, Step::CreateSecret(_))), 7);
        assert_eq!(
            count(|step| matches!(step, Step::Create(ChildKind::PersistentVolumeClaim, _))),
            3
        );
        assert_eq!(count(|step| matches!(step, Step::Create(ChildKind::StatefulSet, _))), 3);
        assert_eq!(count(|step| matches!(step, Step::Create(ChildKind::Job, _))), 0);
        assert_eq!(plan.duties, Duties::default(), "no password is known yet");
    }

    #[test]
    fn nothing_is_taken_back_that_nobody_asks_for() {
        let mut situation = Situation::converged(platform());
        situation.observed.same_generation = false;
        let target = |situation: &Situation, newest| target(&situation.object.spec, &situation.observed, newest);
        assert_eq!(
            (target(&situation, 4), target(&situation, 0)),
            (4, 1),
            "it is at version 1"
        );
        situation.object.spec.migrations.as_mut().unwrap().target_version = Some(0);
        assert_eq!(target(&situation, 4), 0);
    }

    #[test]
    fn a_converged_object_gets_nothing() {
        let situation = Situation::converged(platform());
        assert_eq!(situation.plan().steps, []);
    }

    #[test]
    fn every_field_that_a_template_writes_is_known_as_ours() {
        for step in Situation::new(platform()).plan().steps {
            let Step::Create(kind, mut body) = step else { continue };
            if let Some(body) = body.as_object_mut() {
                body.remove("metadata");
            }
            let ours = kind.project(&body);
            assert_eq!(
                super::super::fixtures::leaves(&ours),
                super::super::fixtures::leaves(&body),
                "{kind:?}"
            );
        }
    }

    #[test]
    fn a_hand_edit_is_put_right_and_a_removed_store_leaves_its_volume() {
        let mut situation = Situation::converged(platform());
        situation.touch(ChildKind::Service, "amas-redis");
        let steps = situation.plan().steps;
        assert!(matches!(&steps[..], [Step::Update(ChildKind::Service, _)]), "{steps:?}");

        let mut without = Situation::converged(platform());
        without.object.spec.redis = None;
        let steps = without.plan().steps;
        let deleted: Vec<ChildKind> = steps
            .iter()
            .filter_map(|step| {
                if let Step::Delete(kind, _) = step {
                    Some(*kind)
                } else {
                    None
                }
            })
            .collect();
        assert!(
            deleted.contains(&ChildKind::StatefulSet) && !deleted.contains(&ChildKind::PersistentVolumeClaim),
            "{steps:?}"
        );
    }

    #[test]
    fn an_upgrade_of_the_operator_gives_nothing_to_do() {
        let mut situation = Situation::converged(platform());
        situation.settle();
        situation.settings.images =
            crate::stores::images::Images::new(None, "redis:8=localhost/redis:8.1,postgres:17=localhost/postgres")
                .unwrap();
        let plan = situation.plan();
        assert_eq!(plan.steps, []);
        assert!(
            plan.rollouts["redis"]
                .pending()
                .unwrap()
                .contains("localhost/redis:8.1")
        );

        situation.observed.restart = Some("redis/now".into());
        let steps = situation.plan().steps;
        assert!(
            matches!(&steps[..], [Step::Replace(body, _)] if body["metadata"]["name"] == "amas-redis"),
            "{steps:?}"
        );
    }

    #[test]
    fn a_pod_that_cannot_run_makes_way_for_its_correction() {
        let mut situation = Situation::converged(platform());
        let set = (ChildKind::StatefulSet, "amas-redis".to_owned());
        let template = situation
            .observed
            .children
            .get_mut(&set)
            .unwrap()
            .facts
            .template
            .as_mut();
        template.unwrap().wanted = Some("new".into());
        let pod = |revision: &str, trouble: Option<&str>| {
            let waiting = trouble.map(|reason| serde_json::json!({"reason": reason}));
            serde_json::json!({
                "metadata": {"name": "amas-redis-0", "namespace": "amas", "uid": revision, "labels": {
                    "amas.dev/database": "amas", "controller-revision-hash": revision}},
                "status": {"containerStatuses": [{"state": {"waiting": waiting}}]},
            })
        };
        for (revision, trouble, stuck) in [
            ("old", Some("ImagePullBackOff"), true),
            ("old", None, false),
            ("new", Some("ImagePullBackOff"), false),
        ] {
            situation.see(ChildKind::Pod, &pod(revision, trouble));
            let expected = [Step::Delete(ChildKind::Pod, "amas-redis-0".into())];
            assert_eq!(situation.plan().steps == expected, stuck, "{revision} {trouble:?}");
        }
    }

    #[test]
    fn drains_are_blocked_only_where_that_is_asked_for() {
        let mut situation = Situation::converged(platform());
        situation.object.spec.disruption = crate::api::common::Disruption::Block;
        let steps = situation.plan().steps;
        let budget = |step: &Step| matches!(step, Step::Create(ChildKind::PodDisruptionBudget, body) if body["spec"]["maxUnavailable"] == 0);
        assert!(steps.len() == 3 && steps.iter().all(budget), "{steps:?}");
        for step in steps {
            let Step::Create(kind, mut body) = step else { continue };
            body["metadata"]["uid"] = serde_json::json!("b");
            situation.see(kind, &body);
        }
        assert_eq!(situation.plan().steps, []);
        situation.object.spec.disruption = Default::default();
        let steps = situation.plan().steps;
        let deletes = |step: &Step| matches!(step, Step::Delete(ChildKind::PodDisruptionBudget, _));
        assert!(steps.len() == 3 && steps.iter().all(deletes), "{steps:?}");
    }

    #[test]
    fn a_secret_missing_beside_its_data_stops_everything() {
        let mut situation = Situation::converged(platform());
        situation
            .observed
            .secrets
            .insert("amas-postgres-admin".into(), Known::Absent);
        let plan = situation.plan();
        assert_eq!(plan.missing, ["amas-postgres-admin"]);
        assert_eq!(plan.steps, []);
    }

    #[test]
    fn a_taken_name_is_reported_and_not_asked_for_again() {
        for (kind, name) in [
            (ChildKind::ConfigMap, "amas-redis-config"),
            (ChildKind::Service, "amas-redis"),
            (ChildKind::PersistentVolumeClaim, "amas-redis"),
            (ChildKind::StatefulSet, "amas-redis"),
        ] {
            let mut situation = Situation::new(platform());
            situation.observed.taken.push((kind, name.into()));
            let plan = situation.plan();
            assert_eq!(plan.taken, [(kind, name.to_owned())]);
            let made = |of: ChildKind, step: &Step| matches!(step, Step::Create(kind, body) if *kind == of && body["metadata"]["name"] == name);
            assert!(!plan.steps.iter().any(|step| made(kind, step)), "{kind:?}");
            assert!(
                !plan
                    .steps
                    .iter()
                    .any(|step| made(ChildKind::StatefulSet, step) && name == "amas-redis"),
                "no server runs on what is somebody else's: {kind:?}"
            );
        }
    }

    #[test]
    fn a_finalizer_is_there_while_only_we_can_undo_something() {
        let mut situation = Situation::converged(platform());
        let steps = |situation: &Situation, finalized| {
            plan(
                &situation.object.spec,
                &situation.valid(),
                &situation.observed,
                &situation.settings,
                finalized,
            )
            .steps
        };
        assert_eq!(steps(&situation, true), [Step::RemoveFinalizer], "Retain needs none");
        situation.object.spec.deletion_policy = DeletionPolicy::Delete;
        assert_eq!(steps(&situation, false), [Step::AddFinalizer]);
        assert_eq!(steps(&situation, true), []);
    }

    #[test]
    fn with_namespaced_rights_data_goes_by_its_owner() {
        let mut situation = Situation::converged(platform());
        situation.object.spec.deletion_policy = DeletionPolicy::Delete;
        situation.settings.namespaced = true;
        for name in situation.observed.secrets.keys().cloned().collect::<Vec<_>>() {
            situation.observed.secret_owners.insert(name, None);
        }
        let owner = |body: &Value| owner_of(body).is_some();
        let (mut volumes, mut secrets) = (0, 0);
        for step in situation.plan().steps {
            match step {
                Step::Update(ChildKind::PersistentVolumeClaim, body) if owner(&body) => volumes += 1,
                Step::UpdateSecret { spec, to: entries, .. }
                    if owner(&spec.object(&situation.valid().family, &entries)) =>
                {
                    secrets += 1
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((volumes, secrets), (3, situation.observed.secrets.len()));

        // Back to Retain: they are nobody's again.
        let mut back = Situation::converged(situation.object.clone());
        back.settings.namespaced = true;
        let claim = |situation: &Situation| {
            let templates = situation.plan().steps.into_iter();
            templates
                .filter_map(|step| match step {
                    Step::Update(ChildKind::PersistentVolumeClaim, body) => Some(owner_of(&body)),
                    _ => None,
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(claim(&back).len(), 3);
        for ((kind, _), seen) in &mut back.observed.children {
            if *kind == ChildKind::PersistentVolumeClaim {
                seen.owner = Some("uid".into());
            }
        }
        assert_eq!(claim(&back), []);
        back.object.spec.deletion_policy = DeletionPolicy::Retain;
        assert_eq!(claim(&back), [None, None, None]);
    }

    #[test]
    fn a_store_that_is_added_later_gets_its_secret() {
        let mut situation = Situation::converged(platform());
        situation
            .observed
            .children
            .retain(|(_, name), _| !name.starts_with("amas-neo4j"));
        situation
            .observed
            .secrets
            .insert("amas-neo4j-connection".into(), Known::Absent);
        let plan = situation.plan();
        assert_eq!(plan.missing, [""; 0]);
        assert!(matches!(&plan.steps[0], Step::CreateSecret(spec) if spec.name == "amas-neo4j-connection"));
    }

    #[test]
    fn suspended_nothing_is_done() {
        let mut situation = Situation::converged(platform());
        situation.object.spec.suspend = true;
        situation.touch(ChildKind::Service, "amas-redis");
        let plan = situation.plan();
        assert_eq!((plan.steps, plan.held), (vec![], 1));
        situation.object.spec.deletion_policy = DeletionPolicy::Delete;
        assert_eq!(
            situation.plan().steps,
            [Step::AddFinalizer],
            "a deletion is carried out all the same"
        );
    }

    #[test]
    fn the_secret_of_a_role_that_is_off_the_list_goes_and_those_of_a_store_stay() {
        let mut situation = Situation::converged(platform());
        let all = situation.settle().secrets;
        situation.observed.former_secrets = vec!["amas-role-gone".into(), "amas-neo4j-connection".into()];
        let gone = Step::Delete(ChildKind::Secret, "amas-role-gone".into());
        assert_eq!(situation.plan().steps, [gone]);
        let listed = situation.settle().secrets;
        assert!(
            listed.contains(&"amas-neo4j-connection".to_owned()) && listed.len() == all.len() + 1,
            "{listed:?}"
        );
        // Without the store its roles are not off the list: they come back with it.
        situation.object.spec.migrations = None;
        situation.object.spec.seed = None;
        situation.object.spec.postgres = None;
        let steps = situation.plan().steps;
        assert!(
            !steps
                .iter()
                .any(|step| matches!(step, Step::Delete(ChildKind::Secret, _))),
            "{steps:?}"
        );
    }

    /// The platform with TLS, and what was planned first.
    fn encrypted(required: bool) -> (Situation, Plan) {
        let mut object = platform();
        object.spec.tls = Some(crate::api::common::ManagedTls {
            required,
            issuer_ref: None,
        });
        let mut situation = Situation::new(object);
        let first = situation.plan();
        let Some(Step::CreateSecret(secret)) = first.steps.first() else {
            panic!("{:?}", first.steps)
        };
        let entries = secret.entries(&Entries::new());
        situation
            .observed
            .secrets
            .insert(secret.name.clone(), Known::Present(entries));
        (situation, first)
    }

    #[test]
    fn the_authority_comes_first_and_everything_trusts_it() {
        let (mut situation, first) = encrypted(false);
        assert_eq!(first.steps.len(), 1, "{:?}", first.steps);
        assert_eq!((&first.duties.postgres, &first.duties.redis), (&None, &None));
        let Known::Present(certificates) = situation.observed.secrets["amas-tls"].clone() else {
            panic!("absent")
        };
        let steps = situation.plan().steps;
        let secret = |name: &str| {
            let one = steps.iter().find_map(|step| match step {
                Step::CreateSecret(secret) if secret.name == name => Some(secret.entries(&Entries::new())),
                _ => None,
            });
            one.unwrap_or_else(|| panic!("{name}: {steps:?}"))
        };
        let (role, redis) = (secret("amas-role-amas-owner"), secret("amas-redis-connection"));
        for published in [&role, &redis] {
            assert_eq!(published["ca.crt"], certificates["ca.crt"]);
        }
        assert!(role["DATABASE_URL"].reveal().ends_with("?sslmode=verify-full"));
        assert!(redis["REDIS_URL"].reveal().starts_with("rediss://") && redis["REDIS_PORT"].reveal() == "6380");
        for (name, entries) in [("amas-redis-connection", redis), ("amas-role-amas-owner", role)] {
            situation.observed.secrets.insert(name.into(), Known::Present(entries));
        }
        let duty = situation.plan().duties.redis.unwrap();
        assert_eq!(duty.endpoint.port, 6380);
        let graph = secret("amas-neo4j-connection");
        assert!(graph["NEO4J_URI"].reveal().starts_with("bolt+s://") && graph.contains_key("ca.crt"));
        assert_eq!(
            duty.serves,
            crate::stores::tls::fingerprint(certificates["redis.crt"].reveal())
        );
        let set = steps.iter().find_map(|step| match step {
            Step::Create(ChildKind::StatefulSet, body) if body["metadata"]["name"] == "amas-redis" => Some(body),
            _ => None,
        });
        let pod = set.unwrap()["spec"]["template"]["spec"].to_string();
        assert!(
            pod.contains("redis.key") && !pod.contains("ca.key") && !pod.contains("postgres.key"),
            "{pod}"
        );
        let files = steps.iter().filter_map(|step| match step {
            Step::Create(ChildKind::ConfigMap, body) => Some(body["data"].to_string()),
            _ => None,
        });
        let files = files.collect::<String>();
        assert!(
            files.contains("ssl = 'on'") && files.contains("tls-port 6380"),
            "{files}"
        );
        assert!(
            !files.contains("hostssl") && !files.contains("port 0\\n"),
            "clear text goes on"
        );
    }

    #[test]
    fn clear_text_ends_where_encryption_is_required() {
        let (situation, _) = encrypted(true);
        let bodies: String = situation
            .plan()
            .steps
            .iter()
            .filter_map(|step| match step {
                Step::Create(ChildKind::ConfigMap | ChildKind::Service, body) => Some(body.to_string()),
                _ => None,
            })
            .collect();
        assert!(bodies.contains("\"NEO4J_server_bolt_tls__level\":\"REQUIRED\"") && !bodies.contains("7474"));
        assert!(
            bodies.contains("hostssl all all all scram-sha-256") && bodies.contains("hba_file = "),
            "{bodies}"
        );
        assert!(
            bodies.contains("\\nport 0\\n") && !bodies.contains("\"port\":6379"),
            "{bodies}"
        );
    }
}
