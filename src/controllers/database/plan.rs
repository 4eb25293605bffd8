//! What has to be written, as a list of small steps. Pure: from valid values and what was seen.

use serde_json::Value;

use crate::{
    api::{
        amas_database::AmasDatabaseSpec,
        common::{DeletionPolicy, NetworkSettings},
    },
    controllers::{
        Settings,
        credentials::{Entries, Known, Purpose, SecretSpec},
        sources::Files,
    },
    engine::child::ChildKind,
    stores::{
        postgres::PostgresDuty,
        workload::{Shared, Template, TemplateKind, Workload, templates},
    },
};

use super::{
    duties::{Duties, duties},
    jobs::{self, Decision, JobInput, Seeds},
    observe::Observed,
    validate::Valid,
};

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    AddFinalizer,
    CreateSecret(SecretSpec),
    UpdateSecret(SecretSpec, Entries),
    Create(ChildKind, Value),
    Update(ChildKind, Value),
    Delete(ChildKind, String),
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
    /// Names that somebody else's objects have.
    pub taken: Vec<(ChildKind, String)>,
}

/// The finalizer of objects whose data goes with them.
pub const FINALIZER: &str = "amas.dev/delete-data";

/// Plans. `finalized` says whether our finalizer is on the object.
pub fn plan(spec: &AmasDatabaseSpec, valid: &Valid, observed: &Observed, settings: &Settings, finalized: bool) -> Plan {
    let mut plan = Plan {
        steps: Vec::new(),
        duties: duties(spec, valid, observed, settings),
        migrations: None,
        missing: Vec::new(),
        taken: Vec::new(),
    };
    if spec.deletion_policy == DeletionPolicy::Delete && !finalized {
        plan.steps.push(Step::AddFinalizer);
    }
    secret_steps(valid, observed, &mut plan);
    if plan.missing.is_empty() {
        child_steps(spec, valid, observed, settings, &mut plan);
        migration_steps(spec, valid, observed, settings, &mut plan);
    }
    plan
}

fn secret_steps(valid: &Valid, observed: &Observed, plan: &mut Plan) {
    for spec in &valid.secrets {
        let name = spec.name.clone();
        match observed.secrets.get(&name) {
            _ if observed.taken.contains(&(ChildKind::Secret, name.clone())) => {
                plan.taken.push((ChildKind::Secret, name))
            }
            Some(Known::Foreign) => plan.taken.push((ChildKind::Secret, name)),
            Some(Known::Present(entries)) => {
                let wanted = spec.entries(entries);
                let lacks_password = !matches!(spec.purpose, Purpose::Seed { .. }) && spec.password(entries).is_none();
                if lacks_password && (spec.initialises_data || observed.status.secrets.contains(&name)) {
                    plan.missing.push(name);
                } else if wanted.iter().any(|(key, value)| entries.get(key) != Some(value)) {
                    plan.steps.push(Step::UpdateSecret(spec.clone(), wanted));
                }
            }
            Some(Known::Absent) if spec.initialises_data || observed.status.secrets.contains(&name) => {
                plan.missing.push(name)
            }
            Some(Known::Absent) | None => plan.steps.push(Step::CreateSecret(spec.clone())),
        }
    }
}

fn child_kind(kind: TemplateKind) -> ChildKind {
    match kind {
        TemplateKind::ServiceAccount => ChildKind::ServiceAccount,
        TemplateKind::ConfigMap => ChildKind::ConfigMap,
        TemplateKind::Service => ChildKind::Service,
        TemplateKind::NetworkPolicy => ChildKind::NetworkPolicy,
        TemplateKind::PersistentVolumeClaim => ChildKind::PersistentVolumeClaim,
        TemplateKind::StatefulSet => ChildKind::StatefulSet,
    }
}

fn child_steps(spec: &AmasDatabaseSpec, valid: &Valid, observed: &Observed, settings: &Settings, plan: &mut Plan) {
    let NetworkSettings { mode } = spec.network;
    let shared = Shared {
        pods: &spec.pods,
        access: mode,
        operator_namespace: &settings.operator_namespace,
    };
    let wanted = valid
        .workloads
        .iter()
        .flat_map(|workload| server_templates(valid, workload, observed, shared));
    let mut names = Vec::new();
    for template in wanted {
        let kind = child_kind(template.kind);
        let name = template.body["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let key = (kind, name);
        match observed.children.get(&key) {
            None if observed.taken.contains(&key) => plan.taken.push(key.clone()),
            None => plan.steps.push(Step::Create(kind, template.body)),
            Some(seen) if seen.deleting || seen.hash == kind.hash(&template.body) => {}
            Some(_) => plan.steps.push(Step::Update(kind, template.body)),
        }
        names.push(key);
    }
    // What a store that is no longer asked for has left: its workload goes, its volume stays.
    let ours = |kind: ChildKind| {
        !matches!(
            kind,
            ChildKind::Job | ChildKind::Pod | ChildKind::PersistentVolumeClaim | ChildKind::Secret
        )
    };
    let left = observed
        .children
        .iter()
        .filter(|(key, seen)| ours(key.0) && !seen.deleting && !names.contains(key));
    plan.steps
        .extend(left.map(|((kind, name), _)| Step::Delete(*kind, name.clone())));
}

/// The templates of one server; without its pods while a name that they would use is somebody else's.
fn server_templates(valid: &Valid, workload: &Workload, observed: &Observed, shared: Shared<'_>) -> Vec<Template> {
    let mut all = templates(&valid.family, workload, shared);
    let name = |template: &Template| {
        template.body["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
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
            // What is there already stays as it is.
            !pods
                || observed
                    .children
                    .contains_key(&(child_kind(template.kind), name(template)))
        });
    }
    all
}

fn migration_steps(spec: &AmasDatabaseSpec, valid: &Valid, observed: &Observed, settings: &Settings, plan: &mut Plan) {
    let (Some(Files::Read(source)), Some(owner)) = (&observed.files, &valid.owner) else {
        return;
    };
    let Some((snapshot, facts)) = observed
        .postgres
        .as_ref()
        .and_then(|snapshot| Some((snapshot, snapshot.facts.migrations.as_ref()?)))
    else {
        return;
    };
    let duty_in = plan.duties.postgres.as_ref().map(PostgresDuty::fingerprint);
    let seeds = match &observed.seed_files {
        Some(Ok(files)) => Some(pending_seeds(files, &facts.seeds)),
        _ => None,
    };
    let target = target(spec, observed, source.newest());
    let known = jobs::Known {
        source,
        state: facts.state.as_ref(),
        identity: &facts.identity,
        seeds: seeds.as_ref(),
        target: Some(target),
        children: &observed.children,
    };
    let decision = jobs::decide(&valid.family, &known);
    // A Job needs the roles and extensions; until they are in, it waits.
    let prepared = snapshot.health.is_up() && duty_in.is_some() && snapshot.facts.duty_in == duty_in;
    if let (
        Decision::Start {
            job, steps, direction, ..
        },
        true,
    ) = (&decision, prepared)
    {
        let input = JobInput {
            family: &valid.family,
            spec,
            owner: owner.as_str(),
            image: &settings.own_image,
            target: Some(target),
            seeds: seeds.as_ref(),
            steps,
            direction: *direction,
        };
        let managed = spec
            .postgres
            .as_ref()
            .is_some_and(|postgres| postgres.managed.is_some());
        plan.steps
            .push(Step::Create(ChildKind::Job, jobs::job(&input, job, managed)));
    }
    plan.migrations = Some(decision);
}

/// The version asked for. Without one: the newest known when this generation was first seen, so that an upgrade of the operator starts nothing.
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
    asked
        .or(recorded.filter(|_| observed.same_generation))
        .unwrap_or(newest)
}

/// The seed files of the profile with how many are not in.
pub fn pending_seeds(
    all: &[(String, crate::migrate::seed::Profile)],
    recorded: &std::collections::BTreeMap<(String, String), crate::migrate::source::Checksum>,
) -> Seeds {
    let files = all
        .iter()
        .flat_map(|(folder, profile)| profile.files.iter().map(move |script| (folder, script)));
    let pending = files
        .clone()
        .filter(|(folder, script)| recorded.get(&((*folder).clone(), script.file.clone())) != Some(&script.checksum))
        .count();
    Seeds {
        folders: all.iter().map(|(folder, _)| folder.clone()).collect(),
        files: files
            .map(|(folder, script)| (folder.clone(), script.file.clone(), script.checksum.to_string()))
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
        let mut situation = Situation::new(platform());
        situation
            .observed
            .taken
            .push((ChildKind::ConfigMap, "amas-redis-config".into()));
        let plan = situation.plan();
        assert_eq!(plan.taken, [(ChildKind::ConfigMap, "amas-redis-config".to_owned())]);
        assert!(!plan.steps.iter().any(|step| matches!(step, Step::Create(ChildKind::ConfigMap, body) if body["metadata"]["name"] == "amas-redis-config")));
    }

    #[test]
    fn data_that_goes_with_its_object_needs_a_finalizer() {
        let mut situation = Situation::converged(platform());
        situation.object.spec.deletion_policy = DeletionPolicy::Delete;
        assert_eq!(situation.plan().steps, [Step::AddFinalizer]);
    }
}
