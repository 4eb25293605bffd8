//! What has to be written, as a list of small steps. Pure: from valid values and what was seen.

mod migrating;
mod servers;

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;

pub use self::migrating::target;
use crate::{
    api::{amas_database::AmasDatabaseSpec, common::DeletionPolicy},
    controllers::{
        Settings,
        credentials::{Entries, SecretSpec, certificates::Trouble},
    },
    engine::child::ChildKind,
};

use super::{
    duties::{Duties, duties},
    issuance,
    jobs::Decision,
    observe::Observed,
    rollout::Rollout,
    secrets,
    table::StoreKind,
    validate::Valid,
    volumes,
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
        servers::steps(spec, valid, observed, settings, &mut plan);
        migrating::steps(spec, valid, observed, settings, &mut plan);
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

#[cfg(test)]
mod tests {
    use super::super::fixtures::{Situation, platform};
    use super::*;
    use crate::{controllers::credentials::Known, engine::children::owner_of};

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

        situation.observed.annotations.restart = Some("redis/now".into());
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
