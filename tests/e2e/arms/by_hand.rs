//! Pods and volumes from plain manifests: how every floor arm begins. Configuration and resources are those of the operator's servers.

use amas_operator::{
    api::{
        amas_database::AmasDatabaseSpec,
        common::{Resources, Storage},
        postgres::PostgresSpec,
    },
    stores::{
        neo4j, postgres, redis,
        workload::{Config, Family, Image, ImageSource, Workload},
    },
};
use k8s_openapi::api::core::v1::ResourceRequirements;
use rand::RngExt;
use serde_json::{Value, json};

use crate::{
    cluster::objects,
    harness::{About, Result, context::Ctx},
};

const POSTGRES: &str = include_str!("../floor/postgres.yaml");
const REDIS: &str = include_str!("../floor/redis.yaml");
const NEO4J: &str = include_str!("../floor/neo4j.yaml");

/// A namespace with servers started by hand, and the one password of all of them.
pub struct ByHand<'a> {
    pub ctx: &'a Ctx,
    pub namespace: &'a str,
    pub password: String,
}

/// The manifests have their own.
fn no_image() -> Image {
    Image {
        name: String::new(),
        source: ImageSource::Table,
    }
}

impl<'a> ByHand<'a> {
    pub fn new(ctx: &'a Ctx, namespace: &'a str) -> Self {
        let password = format!("{:032x}", rand::rng().random::<u128>());
        Self {
            ctx,
            namespace,
            password,
        }
    }

    pub async fn postgres(&self, spec: &PostgresSpec) -> Result {
        let managed = spec.managed.as_ref().about("PostgreSQL is not managed")?;
        let workload = postgres::workload::workload(&self.family(), managed, &spec.extensions, no_image());
        self.apply(POSTGRES, &workload, &managed.storage, &managed.resources)
            .await
    }

    pub async fn redis(&self, spec: &AmasDatabaseSpec) -> Result {
        let managed = spec
            .redis
            .as_ref()
            .and_then(|redis| redis.managed.as_ref())
            .about("Redis is not managed")?;
        let workload = redis::workload::workload(&self.family(), managed, None, no_image());
        self.apply(REDIS, &workload, &managed.storage, &managed.resources).await
    }

    pub async fn neo4j(&self, spec: &AmasDatabaseSpec) -> Result {
        let managed = spec
            .neo4j
            .as_ref()
            .and_then(|neo4j| neo4j.managed.as_ref())
            .about("Neo4j is not managed")?;
        let workload = neo4j::workload::workload(&self.family(), managed, no_image());
        self.apply(NEO4J, &workload, &managed.storage, &managed.resources).await
    }

    fn family(&self) -> Family {
        Family {
            namespace: self.namespace.into(),
            database: "floor".into(),
            uid: String::new(),
            data_goes: false,
        }
    }

    async fn apply(&self, template: &str, workload: &Workload, storage: &Storage, resources: &Resources) -> Result {
        let config: Value = match &workload.config {
            Config::Files { files, .. } => json!(files),
            Config::Environment(variables) => json!(variables),
        };
        let values = [
            ("config", config.to_string()),
            ("size", storage.size.to_string()),
            (
                "resources",
                serde_json::to_string(&ResourceRequirements::from(resources))?,
            ),
            ("password", self.password.clone()),
        ];
        let text = values.iter().fold(template.to_owned(), |text, (key, value)| {
            objects::fill(&text, key, value)
        });
        objects::apply(&self.ctx.client, self.namespace, &objects::parse(&text)?).await
    }

    /// The Service of a store.
    pub fn host(&self, store: &str) -> String {
        format!("floor-{store}.{}.svc", self.namespace)
    }

    /// A PostgreSQL URL for a role with the password of the namespace.
    pub fn postgres_url(&self, role: &str, database: &str) -> String {
        format!(
            "postgresql://{role}:{}@{}:5432/{database}",
            self.password,
            self.host("postgres")
        )
    }

    pub fn redis_url(&self) -> String {
        format!("redis://:{}@{}:6379/0", self.password, self.host("redis"))
    }

    pub fn neo4j_uri(&self) -> String {
        format!("bolt://{}:7687", self.host("neo4j"))
    }
}
