//! Situations for the tests of the pure parts: an object, what was seen, and what follows.

mod servers;

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use serde_json::{Value, json};

use super::{
    observe::{Observed, Policy},
    plan::{self, Plan, Step},
    status::{Ground, Report, report},
    table::StoreKind,
    validate::{Valid, validate, wanted_secrets},
};
use crate::{
    api::{
        amas_database::{AmasDatabase, AmasDatabaseStatus},
        postgres::ManagedPostgres,
    },
    controllers::{
        Settings,
        credentials::{Entries, Known},
        sources::Files,
    },
    engine::{child::ChildKind, children::Children},
    migrate::{history::Run, source::Source},
    stores::{images::Images, revisions::Revisions, workload::Family},
};

pub use servers::loaded;

/// A small family, for tests that need no object.
pub fn family() -> Family {
    Family {
        namespace: "n".into(),
        database: "d".into(),
        uid: "u".into(),
        data_goes: false,
    }
}

/// The AMAS platform as it is shipped.
pub fn platform() -> AmasDatabase {
    let text = std::fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/manifests/platforms/amas/amasdatabase.yaml"
    ))
    .unwrap();
    let mut object: AmasDatabase = serde_saphyr::from_str(&text).unwrap();
    object.metadata.uid = Some("uid".into());
    object.metadata.generation = Some(1);
    object.metadata.creation_timestamp = Some(Time(at(0)));
    object.spec.seed = serde_json::from_value(
        json!({"profile": "development", "generate": [{"name": "admin_password", "hash": "Bcrypt"}]}),
    )
    .unwrap();
    object
}

pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).unwrap()
}

/// How many values there are in an object, empty ones aside.
pub fn leaves(value: &Value) -> usize {
    match value {
        Value::Object(map) => map.values().map(leaves).sum(),
        Value::Array(items) => items.iter().map(leaves).sum(),
        Value::Null => 0,
        _ => 1,
    }
}

/// An operator with rights in the whole cluster.
pub fn settings() -> Settings {
    Settings {
        images: Images::default(),
        revisions: Revisions::default(),
        own_image: "operator".into(),
        operator_namespace: "amas-system".into(),
        cluster_id: "c".into(),
        bundles: "migrations".into(),
        instance: "test".into(),
        namespaced: false,
        class: String::new(),
        watches_secrets: false,
    }
}

/// An object and everything that was seen of it.
pub struct Situation {
    pub object: AmasDatabase,
    pub observed: Observed,
    pub settings: Settings,
}

impl Situation {
    /// Reason and message of the condition Ready.
    pub fn ready(&self) -> (String, String) {
        let status = self.report().status;
        let ready = status.conditions.into_iter().find(|one| one.type_ == "Ready").unwrap();
        (ready.reason, ready.message)
    }

    /// The specification of the managed PostgreSQL, to be changed.
    pub fn managed_postgres(&mut self) -> &mut ManagedPostgres {
        let postgres = self.object.spec.postgres.as_mut().unwrap();
        postgres.managed.as_mut().unwrap()
    }

    /// Just created; nothing exists.
    pub fn new(object: AmasDatabase) -> Self {
        let source = Source::from_files(vec![("0001_a.sql".into(), b"SELECT 1".to_vec())]).unwrap();
        let mut object = object;
        if let Some(migrations) = &mut object.spec.migrations {
            migrations.target_version = None;
        }
        let observed = Observed {
            now: at(10),
            status: AmasDatabaseStatus::default(),
            children: Default::default(),
            taken: Vec::new(),
            growth_refused: BTreeMap::new(),
            secrets: BTreeMap::new(),
            secret_owners: BTreeMap::new(),
            former_secrets: Vec::new(),
            externals: BTreeMap::new(),
            given: BTreeMap::new(),
            sure: false,
            created: at(0),
            annotations: Default::default(),
            postgres: None,
            redis: None,
            neo4j: None,
            files: Some(Files::Read(Arc::new(source))),
            seed_files: None,
            same_generation: false,
            deposit: None,
            back_to: None,
            corrects_drift: false,
            plans: Arc::default(),
            issuance: None,
            policies: ["CachePolicy", "GraphSchema"]
                .map(|kind| Policy {
                    kind,
                    name: "amas".into(),
                    store: if kind == "CachePolicy" {
                        StoreKind::Redis
                    } else {
                        StoreKind::Neo4j
                    },
                    exists: true,
                    ready: false,
                    observed: false,
                })
                .into(),
        };
        let settings = settings();
        Self {
            object,
            observed,
            settings,
        }
    }

    /// Everything made, every server answering, all duties in, migrations applied, policies Ready.
    pub fn converged(object: AmasDatabase) -> Self {
        let mut situation = Self::new(object);
        let valid = situation.valid();
        for spec in wanted_secrets(&valid.family, &situation.object.spec) {
            let spec = valid.secrets.iter().find(|valid| valid.name == spec.name).unwrap();
            situation
                .observed
                .secrets
                .insert(spec.name.clone(), Known::Present(spec.entries(&Entries::new())));
        }
        let index = Children::default();
        for step in situation.plan().steps {
            if let Step::Create(kind, mut body) = step {
                body["metadata"]["uid"] = json!("child");
                index.wrote(kind, &body);
            }
        }
        situation.observed.children = index.of(&(valid.family.namespace.clone(), valid.family.database.clone()));
        situation.serve();
        for policy in &mut situation.observed.policies {
            (policy.ready, policy.observed) = (true, true);
        }
        situation
    }

    /// A child as the API shows it.
    pub fn see(&mut self, kind: ChildKind, object: &Value) {
        let index = Children::default();
        index.wrote(kind, object);
        let of = |field: &str| object["metadata"][field].as_str().unwrap().to_owned();
        let owner = (
            of("namespace"),
            object["metadata"]["labels"]["amas.dev/database"]
                .as_str()
                .unwrap()
                .to_owned(),
        );
        self.observed.children.extend(index.of(&owner));
    }

    /// Somebody edits a child by hand.
    pub fn touch(&mut self, kind: ChildKind, name: &str) {
        self.observed.children.get_mut(&(kind, name.to_owned())).unwrap().hash ^= 1;
    }

    /// What was reported becomes what is known, as after a status write.
    pub fn settle(&mut self) -> AmasDatabaseStatus {
        self.observed.status = self.report().status;
        self.observed.same_generation = true;
        self.observed.status.clone()
    }

    pub fn valid(&self) -> Valid {
        validate(&self.object, &self.settings, None, &self.observed.users()).unwrap()
    }

    pub fn plan(&self) -> Plan {
        plan::plan(&self.object.spec, &self.valid(), &self.observed, &self.settings, false)
    }

    pub fn report(&self) -> Report {
        report(
            &self.object,
            &self.observed,
            &Ground::Planned(&self.valid(), &self.plan()),
        )
    }
}

/// The run of a Job that failed at the last of three versions.
pub fn failed_run(job: &str, plan_hash: String) -> Run {
    let at = Timestamp::UNIX_EPOCH;
    Run {
        id: 1,
        plan_hash: Some(plan_hash),
        attempt: job.into(),
        direction: "up".into(),
        started_at: at,
        heartbeat_at: at,
        finished_at: Some(at),
        outcome: Some("failed".into()),
        from_version: 0,
        to_version: 3,
        current_version: 2,
        total: 3,
        done: 2,
        failed_version: Some(3),
        sqlstate: Some("42601".into()),
        file: Some("0003_m.sql".into()),
        line: Some(1),
        message: Some("syntax error".into()),
        error_position: None,
        error_column: Some(7),
        waiting: None,
    }
}
