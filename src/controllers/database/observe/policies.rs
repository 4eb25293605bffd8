//! What other objects say about a database: its CachePolicies and GraphSchemas, from the watch caches.

use std::collections::BTreeSet;

use super::StoreKind;
use crate::{
    api::{
        amas_database::AmasDatabase,
        cache_policy::{CachePolicy, Eviction},
        conditions::{ConditionType, is_true},
        graph_schema::GraphSchema,
    },
    controllers::{
        Context,
        policy::{self, PolicyStatus},
    },
};

/// A CachePolicy or GraphSchema that belongs to the database, or that it requires.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    pub kind: &'static str,
    pub name: String,
    pub store: StoreKind,
    pub exists: bool,
    /// Ready, at its present generation.
    pub ready: bool,
    /// Seen by the operator at its present generation.
    pub observed: bool,
}

/// The eviction that the first policy of the database sets, the oldest and then by name: the one owner of the server's setting.
pub fn eviction_owner(context: &Context, namespace: &str, database: &str) -> Option<(String, Eviction)> {
    let policies = context.caches.cache_policies.state();
    let here = policies.iter().filter(|policy| {
        policy.metadata.namespace.as_deref() == Some(namespace)
            && policy.spec.database_ref.name == database
            && policy.spec.eviction.is_some()
    });
    let age = |policy: &CachePolicy| {
        (
            policy.metadata.creation_timestamp.as_ref().map(|time| time.0),
            policy.metadata.name.clone(),
        )
    };
    let first = here.min_by_key(|policy| age(policy))?;
    Some((first.metadata.name.clone()?, first.spec.eviction.clone()?))
}

/// The policies on this database, and those it requires, whether they exist or not; by kind and name.
pub fn of(context: &Context, object: &AmasDatabase) -> Vec<Policy> {
    let requires = &object.spec.requires;
    let mut all = of_kind::<CachePolicy>(context, object, &requires.cache_policies);
    all.extend(of_kind::<GraphSchema>(context, object, &requires.graph_schemas));
    all
}

fn of_kind<K: policy::Policy>(context: &Context, object: &AmasDatabase, required: &[String]) -> Vec<Policy> {
    let namespace = &object.metadata.namespace;
    let database = object.metadata.name.as_deref().unwrap_or_default();
    let mut missing: BTreeSet<&String> = required.iter().collect();
    let mut all = Vec::new();
    for policy in K::cache(context).state() {
        let meta = policy.meta();
        let name = meta.name.clone().unwrap_or_default();
        if meta.namespace != *namespace || (policy.database() != database && !required.contains(&name)) {
            continue;
        }
        let status = policy.status().cloned().unwrap_or_default();
        let observed = status.observed_generation() == meta.generation;
        missing.remove(&name);
        all.push(Policy {
            kind: K::KIND,
            name,
            store: K::STORE,
            exists: true,
            ready: observed && is_true(status.conditions(), ConditionType::Ready),
            observed,
        });
    }
    all.extend(missing.into_iter().map(|name| Policy {
        kind: K::KIND,
        name: name.clone(),
        store: K::STORE,
        exists: false,
        ready: false,
        observed: false,
    }));
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}
