//! What the pod of a managed server is made of, and when it is replaced: a pod is kept as it was rendered until the specification asks for
//! something that needs a restart, a person does, or the maintenance window is open. Pure.

use crate::{
    api::{IMAGE_OF_SPECIFICATION, RESTART},
    engine::child::PodTemplate,
    stores::{
        revisions::{Revisions, Stamp, config},
        workload::{ImageSource, Reload, Workload},
    },
};

/// What a person asks for, and the clock allows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Asked {
    /// The annotation [`RESTART`], if this value was not handled yet.
    pub restart: Option<String>,
    pub window_open: bool,
    pub has_window: bool,
    /// Settings that the server took note of and needs a restart for.
    pub settings: Vec<String>,
    /// The server does not start.
    pub broken: bool,
}

impl Asked {
    /// The value as far as it is meant for a store: `STORE/VALUE` is for one, any other for all.
    fn restart_of(&self, component: &str) -> Option<&String> {
        let value = self.restart.as_ref()?;
        let store = value.split_once('/').map(|(store, _)| store);
        let names_one = store.is_some_and(|store| ["postgres", "redis", "neo4j"].contains(&store));
        (!names_one || store == Some(component)).then_some(value)
    }
}

/// How a server's objects are rendered.
#[derive(Clone, Debug, PartialEq)]
pub enum Rollout {
    /// As the stamp says. `restart`: why the pod is replaced; `pending`: what waits for that.
    Render {
        stamp: Stamp,
        restart: Option<String>,
        pending: Option<String>,
    },
    /// Not at all: a newer operator made them, in a way this one does not know.
    Leave { pending: String },
}

impl Rollout {
    pub fn pending(&self) -> Option<&str> {
        match self {
            Self::Render { pending, .. } => pending.as_deref(),
            Self::Leave { pending } => Some(pending),
        }
    }
}

/// Decides. `render` gives the hash of the pod template for a stamp.
pub fn decide(
    workload: &Workload,
    live: Option<&PodTemplate>,
    asked: &Asked,
    revisions: Revisions,
    render: impl Fn(&Stamp) -> u64,
) -> Rollout {
    let mut newest = Stamp::newest(revisions, workload);
    let token = asked.restart_of(workload.component).cloned();
    let Some(live) = live else {
        newest.restart = token;
        return Rollout::Render {
            stamp: newest,
            restart: None,
            pending: None,
        };
    };
    let kept = kept(live, workload);
    newest.restart = token.clone().or(kept.restart.clone());
    newest.restarted_at.clone_from(&kept.restarted_at);
    let known = revisions.knows(&kept.revision);
    let waits = pending(&kept, &newest, known, revisions);
    if let Some(why) = reason(
        workload,
        &kept,
        &newest,
        asked,
        known && render(&kept) != live.hash,
        waits.is_some(),
    ) {
        // The new configuration comes with the restart; without one it is the server that says when it needs one.
        return Rollout::Render {
            stamp: newest,
            restart: Some(why),
            pending: None,
        };
    }
    match waits {
        Some(pending) if !known => Rollout::Leave { pending },
        pending => Rollout::Render {
            stamp: kept,
            restart: None,
            pending,
        },
    }
}

/// Of the pod that is there, as far as the specification leaves it.
fn kept(live: &PodTemplate, workload: &Workload) -> Stamp {
    let image = match (workload.image_source, live.image_note.as_deref()) {
        (ImageSource::Specification, _) | (_, Some(IMAGE_OF_SPECIFICATION)) => None,
        (ImageSource::Table, None) => live.image.as_ref(),
        (ImageSource::Table, Some(_)) => live.image_note.as_ref(),
    };
    let recorded = live
        .config
        .clone()
        .filter(|_| matches!(workload.reload, Reload::AsTheServerSays(_)));
    Stamp {
        revision: live.revision.clone().unwrap_or_default(),
        image: image.unwrap_or(&workload.image).clone(),
        config: recorded.unwrap_or_else(|| config(workload)),
        restart: live.restart.clone(),
        certificate: live.certificate.clone(),
        restarted_at: live.restarted_at.clone(),
    }
}

/// What a restart would bring beside what the specification says.
fn pending(kept: &Stamp, newest: &Stamp, known: bool, revisions: Revisions) -> Option<String> {
    let mut all = Vec::new();
    if !known {
        all.push(format!(
            "its pod is of template revision {:?}, which a newer operator made: changes of this server wait for that operator",
            kept.revision
        ));
    } else if kept.revision != newest.revision {
        let brings = revisions.after(&kept.revision).join(", ");
        all.push(format!("template revision {} ({brings})", newest.revision));
    }
    if kept.certificate != newest.certificate {
        all.push("a renewed certificate".into());
    }
    if kept.image != newest.image {
        all.push(format!("image {} instead of {}", newest.image, kept.image));
    }
    (!all.is_empty()).then(|| all.join(" and "))
}

/// Why the pod is replaced now, if it is.
fn reason(
    workload: &Workload,
    kept: &Stamp,
    newest: &Stamp,
    asked: &Asked,
    changed: bool,
    waits: bool,
) -> Option<String> {
    if changed {
        return Some("the specification changed in a way that a running pod cannot take up".into());
    }
    // Once for each configuration: a server that still wants a restart after one is not restarted again.
    if !asked.settings.is_empty() && kept.config != config(workload) {
        return Some(format!(
            "{} can only be changed by a restart",
            asked.settings.join(", ")
        ));
    }
    if newest.restart != kept.restart {
        let value = newest.restart.as_deref().unwrap_or_default();
        return Some(format!("asked for by the annotation {RESTART}={value}"));
    }
    // The one that it has ends; a window comes at least once a week, which is in time.
    if newest.certificate != kept.certificate && !asked.has_window {
        return Some("its certificate was renewed, which it can only take up by a restart".into());
    }
    (waits && asked.window_open).then(|| "an update was waiting and the maintenance window is open".into())
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::family;
    use super::*;
    use crate::{
        api::redis::ManagedRedis,
        engine::child::ChildKind,
        stores::{
            redis,
            revisions::Revision,
            workload::{Image, Shared, Template, TemplateKind},
        },
    };
    use serde_json::{Value, json};

    /// What a later release might do: a further revision is a function and a line.
    const NEXT: Revisions = Revisions(&[
        Revision {
            name: "1",
            brings: "",
            amend: |_, _| {},
        },
        Revision {
            name: "2",
            brings: "a longer grace period",
            amend: |templates, _| {
                for template in templates.iter_mut().filter(|one| one.kind == TemplateKind::StatefulSet) {
                    template.body["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = json!(300);
                }
            },
        },
    ]);

    struct Case {
        revisions: Revisions,
        image: Image,
        spec: Value,
        asked: Asked,
        live: Option<PodTemplate>,
    }

    impl Case {
        /// A server that this release made and that runs.
        fn running() -> Self {
            let mut case = Self {
                revisions: Revisions::default(),
                image: table("redis:8.0"),
                spec: json!({"storage": {"size": "1Gi"}}),
                asked: Asked::default(),
                live: None,
            };
            case.live = Some(case.made());
            case
        }

        fn workload(&self) -> Workload {
            let spec: ManagedRedis = serde_json::from_value(self.spec.clone()).unwrap();
            redis::workload::workload(&family(), &spec, None, self.image.clone())
        }

        fn render(&self, stamp: &Stamp) -> Value {
            let pods = Default::default();
            let shared = Shared {
                pods: &pods,
                access: Default::default(),
                disruption: Default::default(),
                operator_namespace: "o",
            };
            let all = self.revisions.templates(&family(), &self.workload(), shared, stamp);
            let of = |template: Template| (template.kind == TemplateKind::StatefulSet).then_some(template.body);
            all.into_iter().find_map(of).unwrap()
        }

        fn decide(&self) -> Rollout {
            let hash = |stamp: &Stamp| ChildKind::StatefulSet.pod_template_hash(&self.render(stamp));
            decide(&self.workload(), self.live.as_ref(), &self.asked, self.revisions, hash)
        }

        fn made(&self) -> PodTemplate {
            let Rollout::Render { stamp, .. } = self.decide() else {
                panic!("nothing is made")
            };
            crate::engine::child::pod_template(&self.render(&stamp))
        }

        /// Decides, carries it out, and gives why the pod was replaced and what waits.
        fn step(&mut self) -> (Option<String>, Option<String>) {
            let decision = self.decide();
            if let Rollout::Render { .. } = decision {
                self.live = Some(self.made());
            }
            match decision {
                Rollout::Render { restart, pending, .. } => (restart, pending),
                Rollout::Leave { pending } => (None, Some(pending)),
            }
        }

        fn hash(&self) -> u64 {
            self.live.as_ref().unwrap().hash
        }
    }

    fn table(name: &str) -> Image {
        Image {
            name: name.into(),
            source: ImageSource::Table,
        }
    }

    #[test]
    fn a_newer_operator_restarts_nothing_until_asked() {
        let mut case = Case::running();
        let before = case.hash();
        assert_eq!(case.step(), (None, None));
        (case.revisions, case.image) = (NEXT, table("redis:8.1"));
        for _ in 0..2 {
            let (restart, pending) = case.step();
            assert_eq!((restart, case.hash()), (None, before));
            assert_eq!(
                pending.unwrap(),
                "template revision 2 (a longer grace period) and image redis:8.1 instead of redis:8.0"
            );
        }
        case.asked.restart = Some("1".into());
        assert_eq!(
            case.step(),
            (Some("asked for by the annotation amas.dev/restart=1".into()), None)
        );
        let after = case.hash();
        assert_ne!(after, before);
        assert_eq!(case.live.as_ref().unwrap().image.as_deref(), Some("redis:8.1"));
        // Not yet handled, then handled: nothing more either way.
        assert_eq!(case.step(), (None, None));
        case.asked.restart = None;
        assert_eq!((case.step(), case.hash()), ((None, None), after));
        case.asked.restart = Some("2".into());
        assert!(case.step().0.is_some());
    }

    #[test]
    fn an_update_comes_with_the_next_change_that_restarts_anyway() {
        let mut case = Case::running();
        (case.revisions, case.image) = (NEXT, table("redis:8.1"));
        case.step();
        case.spec = json!({"storage": {"size": "1Gi"}, "resources": {"limits": {"memory": "1Gi"}}});
        let (restart, pending) = case.step();
        assert!(restart.unwrap().contains("specification"));
        assert_eq!(pending, None);
        assert_eq!(case.live.as_ref().unwrap().revision.as_deref(), Some("2"));
        assert_eq!(case.step(), (None, None));
    }

    #[test]
    fn an_open_window_takes_an_update_in_and_restarts_nothing_without_one() {
        let mut case = Case::running();
        case.asked.window_open = true;
        assert_eq!(case.step(), (None, None));
        case.revisions = NEXT;
        assert!(case.step().0.unwrap().contains("window"));
        assert_eq!(case.step(), (None, None));
    }

    #[test]
    fn an_image_of_the_specification_is_taken_at_once_and_so_is_its_removal() {
        let mut case = Case::running();
        case.image = Image {
            name: "mine".into(),
            source: ImageSource::Specification,
        };
        assert!(case.step().0.is_some());
        assert_eq!(case.live.as_ref().unwrap().image.as_deref(), Some("mine"));
        assert_eq!(case.step(), (None, None));
        case.image = table("redis:8.1");
        assert!(case.step().0.is_some());
        assert_eq!(case.live.as_ref().unwrap().image.as_deref(), Some("redis:8.1"));
    }

    #[test]
    fn a_restart_may_be_for_one_store_and_one_by_kubectl_is_kept() {
        let mut case = Case::running();
        case.asked.restart = Some("postgres/1".into());
        assert_eq!(case.step(), (None, None));
        case.asked.restart = Some("redis/1".into());
        assert!(case.step().0.is_some());

        let mut live = case.render(&Stamp {
            restarted_at: Some("now".into()),
            ..kept(case.live.as_ref().unwrap(), &case.workload())
        });
        live["metadata"]["generation"] = json!(2);
        case.live = Some(crate::engine::child::pod_template(&live));
        let by_kubectl = case.hash();
        assert_eq!((case.step(), case.hash()), ((None, None), by_kubectl));
    }

    #[test]
    fn an_older_operator_leaves_alone_what_it_does_not_know() {
        let mut case = Case::running();
        case.revisions = NEXT;
        case.live = None;
        case.live = Some(case.made());
        case.revisions = Revisions::default();
        assert!(matches!(case.decide(), Rollout::Leave { pending } if pending.contains("revision \"2\"")));
        case.asked.restart = Some("back".into());
        assert!(case.step().0.is_some());
        assert_eq!(case.live.as_ref().unwrap().revision.as_deref(), Some("1"));
    }

    #[test]
    fn a_hand_edit_of_the_image_is_corrected() {
        let mut case = Case::running();
        let ours = case.hash();
        let live = case.live.as_mut().unwrap();
        (live.image, live.hash) = (Some("theirs".into()), 1);
        assert!(case.step().0.is_some());
        assert_eq!(case.hash(), ours);
    }
}
