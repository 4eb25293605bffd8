//! The children of managed servers: what is not as it should be, and what follows from that for the pods.

use serde_json::Value;

use crate::{
    api::{amas_database::AmasDatabaseSpec, common::NetworkSettings},
    controllers::{
        Settings,
        credentials::Known,
        database::{
            configuration::{self, Judged, Writing},
            jobs, losses,
            observe::Observed,
            rollout::{self, Asked, Rollout},
            tried,
            validate::Valid,
            volumes,
            window::{self, Window},
        },
    },
    engine::{
        child::ChildKind,
        children::{Seen, owner_of},
    },
    stores::{
        revisions::{self, Stamp},
        workload::{Reload, Shared, Template, TemplateKind, Workload},
    },
};

use super::{HANDLED_RESTART, Plan, Step};

/// Kind and name.
type Key = (ChildKind, String);

/// What the steps of every server are made from.
struct Servers<'a> {
    spec: &'a AmasDatabaseSpec,
    valid: &'a Valid,
    observed: &'a Observed,
    settings: &'a Settings,
    shared: Shared<'a>,
    asked: Asked,
    /// Of PostgreSQL's configuration.
    judged: Option<Judged>,
}

/// The steps of all servers, and of what is left of those that are no longer asked for.
pub fn steps(spec: &AmasDatabaseSpec, valid: &Valid, observed: &Observed, settings: &Settings, plan: &mut Plan) {
    let NetworkSettings { mode } = spec.network;
    let judge = |postgres| configuration::judge(postgres, valid, observed);
    let servers = Servers {
        spec,
        valid,
        observed,
        settings,
        shared: Shared {
            pods: &spec.pods,
            access: mode,
            disruption: spec.disruption,
            operator_namespace: &settings.operator_namespace,
        },
        asked: asked(spec, observed, plan),
        judged: spec.postgres.as_ref().and_then(judge),
    };
    let mut names = Vec::new();
    for workload in &valid.workloads {
        names.extend(servers.server(workload, plan));
    }
    if plan.rollouts.values().all(|rollout| rollout.pending().is_none()) {
        plan.look_again = None;
    }
    plan.steps.extend(stuck_pods(valid, observed));
    plan.steps.extend(left_over(valid, observed, &names));
}

impl Servers<'_> {
    /// The steps of one server. Gives the names of its children.
    fn server(&self, workload: &Workload, plan: &mut Plan) -> Vec<Key> {
        let (valid, observed) = (self.valid, self.observed);
        let judged = self
            .judged
            .as_ref()
            .filter(|_| matches!(workload.reload, Reload::AsTheServerSays(_)));
        let kept = self.kept(workload, judged);
        let rollout = self.roll_out(workload, &self.asked_of(workload, judged));
        let volume = losses::of_volume(self.spec, valid, workload, observed)
            .unwrap_or_else(|| volumes::judge(valid, workload, observed));
        let (mut names, mut written) = (Vec::new(), false);
        for mut template in self.templates(workload, &rollout) {
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
                Some(seen) if is_in(seen, kind, &template.body) || kept.contains(&kind) => {}
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
            plan.steps.extend(tried::step(self.spec, valid, workload, observed));
        }
        if let Some(judged) = judged {
            plan.steps.extend(self.send_config(workload, judged));
            if let Writing::Refused(refused) = &judged.writing {
                plan.refused.clone_from(refused);
            }
        }
        names
    }

    /// What stays as it is while a configuration must not be written.
    fn kept(&self, workload: &Workload, judged: Option<&Judged>) -> &'static [ChildKind] {
        let redis = self.spec.redis.as_ref().filter(|_| workload.component == "redis");
        let writing = match redis {
            Some(redis) => Some(configuration::judge_redis(redis, self.observed)),
            None => judged.map(|judged| judged.writing.clone()),
        };
        match (writing, judged) {
            (None | Some(Writing::Allowed), _) => &[],
            (_, Some(_)) => &[ChildKind::ConfigMap],
            // Redis' pod is made from what its file is made from.
            (_, None) => &[ChildKind::ConfigMap, ChildKind::StatefulSet],
        }
    }

    /// What is asked of all servers, with what this one says itself.
    fn asked_of(&self, workload: &Workload, judged: Option<&Judged>) -> Asked {
        let snapshot = self.observed.postgres.as_ref().filter(|_| judged.is_some());
        let loaded = snapshot.and_then(|snapshot| {
            let facts = snapshot.facts.configuration.as_ref()?;
            (facts.loaded == Some(revisions::config(workload))).then(|| facts.restart.clone())
        });
        let up = snapshot.is_some_and(|snapshot| snapshot.health.is_up());
        Asked {
            settings: loaded.filter(|_| up).unwrap_or_default(),
            broken: !up && self.observed.trouble(&self.pod(workload)).is_some(),
            ..self.asked.clone()
        }
    }

    fn pod(&self, workload: &Workload) -> String {
        format!("{}-0", self.valid.family.child_name(workload.component))
    }

    /// A file that was written and has not reached the server yet is sent for, once.
    fn send_config(&self, workload: &Workload, judged: &Judged) -> Option<Step> {
        let (children, pod) = (&self.observed.children, self.pod(workload));
        let config = revisions::config(workload);
        let facts = self.observed.postgres.as_ref()?.facts.configuration.as_ref()?;
        let map = self.valid.family.child_name(&format!("{}-config", workload.component));
        let written = children.get(&(ChildKind::ConfigMap, map))?.facts.config.as_ref() == Some(&config);
        let seen = children.get(&(ChildKind::Pod, pod.clone()))?;
        if tried::crashes(&seen.facts) {
            return None;
        }
        let sent = seen.facts.config.as_ref() == Some(&config);
        let arrived = facts.file.as_ref() == Some(&config);
        (judged.writing == Writing::Allowed && written && !sent && !arrived).then_some(Step::SendConfig { pod, config })
    }

    fn roll_out(&self, workload: &Workload, asked: &Asked) -> Rollout {
        let (family, revisions) = (&self.valid.family, self.settings.revisions);
        let key = (ChildKind::StatefulSet, family.child_name(workload.component));
        let seen = self.observed.children.get(&key);
        let live = seen.and_then(|seen| seen.facts.template.as_deref());
        let hash = |stamp: &Stamp| {
            let all = revisions.templates(family, workload, self.shared, stamp);
            let set = all.iter().find(|template| template.kind == TemplateKind::StatefulSet);
            set.map_or(0, |template| ChildKind::StatefulSet.pod_template_hash(&template.body))
        };
        rollout::decide(workload, live, asked, revisions, hash)
    }

    /// The templates of one server; without its pods while a name that they would use is somebody else's.
    fn templates(&self, workload: &Workload, rollout: &Rollout) -> Vec<Template> {
        let (observed, revisions) = (self.observed, self.settings.revisions);
        let newest = Stamp::newest(revisions, workload);
        let stamp = match rollout {
            Rollout::Render { stamp, .. } => stamp,
            Rollout::Leave { .. } => &newest,
        };
        let mut all = revisions.templates(&self.valid.family, workload, self.shared, stamp);
        let key = |template: &Template| (child_kind(template.kind), name_of(template).to_owned());
        let taken = |key: &Key| observed.taken.contains(key);
        let secret = &workload.secret.secret;
        let foreign =
            taken(&(ChildKind::Secret, secret.clone())) || observed.secrets.get(secret) == Some(&Known::Foreign);
        if foreign || all.iter().any(|template| taken(&key(template))) {
            all.retain(|template| {
                let pods = matches!(
                    template.kind,
                    TemplateKind::StatefulSet | TemplateKind::PersistentVolumeClaim
                );
                let key = key(template);
                // What is there already stays as it is, and a name that is taken is to be told.
                !pods || observed.children.contains_key(&key) || taken(&key)
            });
        }
        all
    }
}

/// Whether a child is as it should be, or goes anyway.
fn is_in(seen: &Seen, kind: ChildKind, wanted: &Value) -> bool {
    seen.deleting || (seen.hash == kind.hash(wanted) && seen.owner == owner_of(wanted))
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
        restart: observed
            .annotations
            .restart
            .clone()
            .filter(|value| Some(value) != handled),
        window_open: window == Some(Window::Open),
        has_window: window.is_some(),
        ..Asked::default()
    }
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

/// What a store that is no longer asked for has left: its workload goes, its volume stays. Plans are looked after by themselves.
fn left_over(valid: &Valid, observed: &Observed, names: &[Key]) -> Vec<Step> {
    let plans = valid.family.child_name(jobs::MAP);
    let stays = |kind: ChildKind| {
        matches!(
            kind,
            ChildKind::Job | ChildKind::Pod | ChildKind::PersistentVolumeClaim | ChildKind::Secret
        )
    };
    let left = observed
        .children
        .iter()
        .filter(|(key, seen)| !stays(key.0) && !seen.deleting && !names.contains(key) && !key.1.starts_with(&plans));
    left.map(|((kind, name), _)| Step::Delete(*kind, name.clone()))
        .collect()
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

fn name_of(template: &Template) -> &str {
    template.body["metadata"]["name"].as_str().unwrap_or_default()
}
