//! The revisions of the templates, as data. An operator upgrade restarts no database: what a StatefulSet was rendered from is stamped on
//! it, and a newer operator goes on rendering the same until there is a reason to replace the pod.
//!
//! To change what a pod is made of: leave `workload.rs` as it is, add a function that changes its templates, and a line to [`REVISIONS`].
//! `revisions/` holds what each revision renders; a test compares.

use super::workload::{Family, ImageSource, Reload, Shared, Template, Workload, digest, templates};
use crate::api::IMAGE_OF_SPECIFICATION;

/// One revision: a change of the templates of the one before.
#[derive(Clone, Copy, Debug)]
pub struct Revision {
    /// As it is stamped on StatefulSets.
    pub name: &'static str,
    /// What it brings, for the people whose pods wait for it.
    pub brings: &'static str,
    pub amend: fn(&mut Vec<Template>, &Workload),
}

const REVISIONS: &[Revision] = &[Revision {
    name: "1",
    brings: "",
    amend: |_, _| {},
}];

/// The revisions that this program can render, oldest first.
#[derive(Clone, Copy, Debug)]
pub struct Revisions(pub &'static [Revision]);

impl Default for Revisions {
    fn default() -> Self {
        Self(REVISIONS)
    }
}

impl Revisions {
    pub fn newest(self) -> &'static str {
        self.0.last().map_or("", |revision| revision.name)
    }

    pub fn knows(self, name: &str) -> bool {
        self.0.iter().any(|revision| revision.name == name)
    }

    /// What the revisions after `name` bring.
    pub fn after(self, name: &str) -> Vec<&'static str> {
        let later = self.0.iter().skip_while(|revision| revision.name != name).skip(1);
        later.map(|revision| revision.brings).collect()
    }

    /// The objects of a server as its stamp says.
    pub fn templates(self, family: &Family, workload: &Workload, shared: Shared<'_>, stamp: &Stamp) -> Vec<Template> {
        let mut all = templates(family, workload, shared, stamp);
        let last = self.0.iter().position(|revision| revision.name == stamp.revision);
        for revision in self.0.iter().take(last.map_or(self.0.len(), |last| last + 1)) {
            (revision.amend)(&mut all, workload);
        }
        all
    }
}

/// What decides, beside the specification, on what a pod is made of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stamp {
    pub revision: String,
    pub image: String,
    /// The configuration that the pod was started for.
    pub config: String,
    /// The value of the annotation [`crate::api::RESTART`] that it was last restarted for.
    pub restart: Option<String>,
    /// The certificate that it was last restarted for.
    pub certificate: Option<String>,
    /// What `kubectl rollout restart` left.
    pub restarted_at: Option<String>,
}

impl Stamp {
    /// Of a pod that is made now.
    pub fn newest(revisions: Revisions, workload: &Workload) -> Self {
        Self {
            revision: revisions.newest().into(),
            image: workload.image.clone(),
            config: config(workload),
            restart: None,
            certificate: workload.certificate.clone(),
            restarted_at: None,
        }
    }

    /// What is written down of the image, so that a change of the table is told from a hand edit.
    pub fn image_note(&self, source: ImageSource) -> &str {
        match source {
            ImageSource::Table => &self.image,
            ImageSource::Specification => IMAGE_OF_SPECIFICATION,
        }
    }
}

/// Names the configuration of a pod that starts now.
pub fn config(workload: &Workload) -> String {
    match &workload.reload {
        Reload::AllBut(text) => digest(text),
        Reload::AsTheServerSays(mark) => mark.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::{
            common::PodSettings,
            redis::{ManagedRedis, RedisEngine},
        },
        stores::{neo4j, postgres, redis, workload::Image},
    };
    use serde_json::{Value, json};

    fn image(name: &str) -> Image {
        Image {
            name: name.into(),
            source: ImageSource::Table,
        }
    }

    /// A server of each engine, with what most people write.
    fn workloads(family: &Family) -> Vec<Workload> {
        fn spec<T: serde::de::DeserializeOwned>() -> T {
            let spec = json!({"storage": {"size": "1Gi"}, "resources": {"limits": {"memory": "1Gi"}}});
            serde_json::from_value(spec).unwrap()
        }
        let valkey = ManagedRedis {
            engine: RedisEngine::Valkey,
            ..spec()
        };
        vec![
            postgres::workload::workload(family, &spec(), &[], image("postgres")),
            redis::workload::workload(family, &spec(), None, image("redis")),
            neo4j::workload::workload(family, &spec(), image("neo4j")),
            redis::workload::workload(family, &valkey, None, image("valkey")),
        ]
    }

    /// What a revision renders never changes again once it was released: it would restart the databases of everybody who upgrades.
    /// A mistake here shows as a difference from `revisions/<name>.json`; a new revision's file is written by running this with AMAS_BLESS=1.
    #[test]
    fn revisions_render_what_they_always_rendered() {
        let family = Family {
            namespace: "agents".into(),
            database: "amas".into(),
            uid: "uid".into(),
            data_goes: false,
        };
        let pods = PodSettings::default();
        let shared = Shared {
            pods: &pods,
            access: Default::default(),
            disruption: Default::default(),
            operator_namespace: "amas-system",
        };
        for revision in REVISIONS {
            let render = |workload: Workload| {
                let stamp = Stamp {
                    revision: revision.name.into(),
                    ..Stamp::newest(Revisions::default(), &workload)
                };
                let all = Revisions::default().templates(&family, &workload, shared, &stamp);
                all.into_iter().map(|template| template.body).collect::<Vec<_>>()
            };
            let now: Value = workloads(&family).into_iter().flat_map(render).collect();
            let path = format!(
                "{}/src/stores/revisions/{}.json",
                env!("CARGO_MANIFEST_DIR"),
                revision.name
            );
            if std::env::var_os("AMAS_BLESS").is_some() {
                std::fs::write(&path, serde_json::to_string_pretty(&now).unwrap() + "\n").unwrap();
            }
            let then: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
            for (now, then) in now.as_array().unwrap().iter().zip(then.as_array().unwrap()) {
                assert_eq!(now, then, "revision {}", revision.name);
            }
            assert_eq!(now, then, "revision {}", revision.name);
        }
    }
}
