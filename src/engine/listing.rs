//! Of which namespaces all children are known. Nothing of a namespace is looked after before: who does not know a child would make it again. One that
//! refuses us, since its rights went with it, holds up no other.

use std::{collections::HashMap, sync::Arc};

use tokio::sync::watch;

/// How many kinds are still to be listed, a namespace each.
pub struct Listing(HashMap<String, watch::Sender<usize>>);

impl Listing {
    pub fn of(namespaces: &[String], kinds: usize) -> Arc<Self> {
        let all = namespaces
            .iter()
            .map(|namespace| (namespace.clone(), watch::Sender::new(kinds)));
        Arc::new(Self(all.collect()))
    }

    /// One more kind was listed.
    pub fn listed(&self, namespace: &str) {
        if let Some(left) = self.0.get(namespace) {
            left.send_modify(|left| *left = left.saturating_sub(1));
        }
    }

    /// Waits for the last.
    pub async fn over(&self, namespace: &str) {
        if let Some(left) = self.0.get(namespace) {
            // The sender is here as long as this waits.
            let _ = left.subscribe().wait_for(|left| *left == 0).await;
        }
    }
}
