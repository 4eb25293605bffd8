//! What is applied: the AMAS platform from its own manifests, and the smallest database there is.

use std::time::{Duration, Instant};

use amas_operator::api::{amas_database::AmasDatabase, cache_policy::CachePolicy, graph_schema::GraphSchema};
use kube::{ResourceExt, api::DynamicObject};
use serde_json::{Value, json};

use super::{
    conditions,
    objects::{self, api},
};
use crate::harness::{About, Result, context::Ctx};

/// What must be True on an AmasDatabase that has everything.
pub const GATES: [&str; 6] = [
    "Ready",
    "PostgresReady",
    "RedisReady",
    "Neo4jReady",
    "MigrationsApplied",
    "PoliciesReady",
];

/// The role that applications write with, and the one that only reads.
pub const WRITER: &str = "amas_app";
pub const READER: &str = "amas_report";

/// How long a platform may take before a scenario gives up. It only ends what hangs: seconds that matter are judged where they are.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// The AMAS platform.
pub struct Platform {
    pub objects: Vec<DynamicObject>,
    pub database: AmasDatabase,
    pub cache: CachePolicy,
    pub graph: GraphSchema,
}

impl Platform {
    pub fn load(ctx: &Ctx) -> Result<Self> {
        let objects = objects::folder(&ctx.settings.platform)?;
        let objects: Vec<_> = objects.into_iter().filter(is_ours).collect();
        Ok(Self {
            database: typed(&objects)?,
            cache: typed(&objects)?,
            graph: typed(&objects)?,
            objects,
        })
    }

    pub fn name(&self) -> String {
        self.database.name_any()
    }

    /// Changes the specification of its AmasDatabase before it is applied.
    pub fn change(&mut self, change: impl FnOnce(&mut Value) -> Result) -> Result {
        let is_database =
            |object: &&mut DynamicObject| object.types.as_ref().is_some_and(|types| types.kind == "AmasDatabase");
        let object = self
            .objects
            .iter_mut()
            .find(is_database)
            .about("the platform has no AmasDatabase")?;
        change(&mut object.data["spec"])?;
        self.database = typed(&self.objects)?;
        Ok(())
    }

    pub async fn apply(&self, ctx: &Ctx, namespace: &str) -> Result {
        objects::apply(&ctx.client, namespace, &self.objects).await
    }

    /// Waits until all gates are True on the database and Ready on its policies; says when each was.
    pub async fn wait_ready(&self, ctx: &Ctx, namespace: &str) -> Result {
        let databases = api::<AmasDatabase>(&ctx.client, namespace);
        let caches = api::<CachePolicy>(&ctx.client, namespace);
        let graphs = api::<GraphSchema>(&ctx.client, namespace);
        let (name, cache, graph) = (self.name(), self.cache.name_any(), self.graph.name_any());
        futures::try_join!(
            conditions::wait_true(&databases, &name, &GATES, PATIENCE),
            conditions::wait_true(&caches, &cache, &["Ready"], PATIENCE),
            conditions::wait_true(&graphs, &graph, &["Ready"], PATIENCE),
        )?;
        Ok(())
    }

    /// Applies it in a fresh namespace and waits until it is Ready; returns the namespace.
    pub async fn up(&self, ctx: &Ctx, purpose: &str) -> Result<String> {
        let namespace = ctx.namespace(purpose).await?;
        let start = Instant::now();
        self.apply(ctx, &namespace).await?;
        self.wait_ready(ctx, &namespace).await?;
        ctx.say(format!(
            "AMAS is Ready in {namespace} after {:.1} s",
            start.elapsed().as_secs_f64()
        ));
        Ok(namespace)
    }
}

fn is_ours(object: &DynamicObject) -> bool {
    object
        .types
        .as_ref()
        .is_some_and(|types| types.api_version.starts_with("amas.dev/"))
}

/// The first object of a kind, typed.
fn typed<K>(objects: &[DynamicObject]) -> Result<K>
where
    K: kube::Resource<DynamicType = ()> + serde::de::DeserializeOwned + Clone + std::fmt::Debug,
{
    let kind = K::kind(&());
    let same = |object: &&DynamicObject| object.types.as_ref().is_some_and(|types| types.kind == kind);
    let object = objects.iter().find(same).about(format!("the platform has no {kind}"))?;
    serde_json::from_value(serde_json::to_value(object)?).about(kind)
}

/// A managed PostgreSQL with one role, and nothing else.
pub fn postgres_only(name: &str) -> Result<Vec<DynamicObject>> {
    let postgres = json!({
        "managed": { "storage": { "size": "1Gi" } },
        "database": "app",
        "roles": [{ "name": "app_writer", "access": "ReadWrite" }],
    });
    Ok(vec![objects::ours(
        "AmasDatabase",
        name,
        json!({ "postgres": postgres }),
    )?])
}

/// Waits until databases of a namespace are Ready with their PostgreSQL.
pub async fn wait_postgres_only(ctx: &Ctx, namespace: &str, names: &[String]) -> Result {
    let databases = api::<AmasDatabase>(&ctx.client, namespace);
    let waits = names
        .iter()
        .map(|name| conditions::wait_true(&databases, name, &["Ready", "PostgresReady"], PATIENCE));
    futures::future::try_join_all(waits).await.map(|_| ())
}
