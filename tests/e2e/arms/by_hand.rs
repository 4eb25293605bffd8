//! Pods and volumes from plain manifests: how every floor arm begins.

use rand::RngExt;

use crate::{
    cluster::objects,
    harness::{Result, context::Ctx},
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

impl<'a> ByHand<'a> {
    pub fn new(ctx: &'a Ctx, namespace: &'a str) -> Self {
        let password = format!("{:032x}", rand::rng().random::<u128>());
        Self {
            ctx,
            namespace,
            password,
        }
    }

    pub async fn postgres(&self, parameters: &str) -> Result {
        self.apply(POSTGRES, &[("parameters", parameters)]).await
    }

    pub async fn redis(&self) -> Result {
        self.apply(REDIS, &[]).await
    }

    pub async fn neo4j(&self) -> Result {
        self.apply(NEO4J, &[]).await
    }

    async fn apply(&self, template: &str, values: &[(&str, &str)]) -> Result {
        let text = objects::fill(&objects::fill(template, values), &[("password", &self.password)]);
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
