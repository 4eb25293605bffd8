//! The only code that knows the Kubernetes client: watches, queue, writes, status, Events, backoff, leader lease, metrics.
//! It knows nothing of databases.

pub mod answers;
pub mod backoff;
pub mod child;
pub mod children;
pub mod definitions;
pub mod events;
pub mod http;
pub mod lease;
pub mod listing;
mod merge;
pub mod metrics;
pub mod queue;
pub mod selection;
pub mod status;
pub mod watch;
pub mod writer;

use std::fmt::Debug;

use kube::{Resource, core::NamespaceResourceScope};
use serde::de::DeserializeOwned;

/// One of our own kinds.
pub trait Own:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug + Send + Sync + 'static
{
    /// The kind's name, for logs and metrics.
    const KIND: &'static str;
    /// The class of operators that it is for; empty: the one without a class.
    fn class(&self) -> &str;
}

impl Own for crate::api::amas_database::AmasDatabase {
    const KIND: &'static str = "AmasDatabase";
    fn class(&self) -> &str {
        self.spec.controller_class.as_deref().unwrap_or_default()
    }
}
impl Own for crate::api::cache_policy::CachePolicy {
    const KIND: &'static str = "CachePolicy";
    fn class(&self) -> &str {
        self.spec.controller_class.as_deref().unwrap_or_default()
    }
}
impl Own for crate::api::graph_schema::GraphSchema {
    const KIND: &'static str = "GraphSchema";
    fn class(&self) -> &str {
        self.spec.controller_class.as_deref().unwrap_or_default()
    }
}

pub use crate::api::DATABASE_LABEL;

/// How we name ourselves as writer of fields and in API requests.
pub const MANAGER: &str = "amas-operator";
