//! The operator's metrics, in one place. Labels have few values: kinds, outcomes, verbs, and one series an object for its readiness.

use std::sync::Arc;

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct KindOutcome {
    pub kind: &'static str,
    pub outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Kind {
    pub kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Write {
    pub verb: &'static str,
    pub resource: String,
    pub outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Object {
    pub kind: &'static str,
    pub namespace: String,
    pub name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StoreOf {
    pub namespace: String,
    pub database: String,
    pub store: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Credential {
    pub namespace: String,
    pub database: String,
    pub credential: String,
}

/// Live figures of one store, taken when metrics are asked for.
#[derive(Clone, Debug, Default)]
pub struct StoreFigures {
    pub up: bool,
    pub ping_seconds: Option<f64>,
    pub figures: Vec<(&'static str, f64)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StoreFigure {
    pub namespace: String,
    pub database: String,
    pub store: &'static str,
    pub figure: &'static str,
}

/// All metrics. Cloning shares them.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    /// Reconciles by kind and outcome (`converged`, `waiting`, `invalid`, `error`).
    pub reconciles: Family<KindOutcome, Counter>,
    /// Time of one reconcile.
    pub reconcile_seconds: Family<Kind, Histogram>,
    /// Mutating API requests by verb, resource and outcome.
    pub writes: Family<Write, Counter>,
    /// 1 while an object is Ready.
    pub ready: Family<Object, Gauge>,
    /// New passwords that were published.
    pub rotations: Family<Credential, Counter>,
    /// Things that a deleted object should have taken along and did not.
    pub left_behind: Family<Kind, Counter>,
    store_up: Family<StoreOf, Gauge>,
    store_ping: Family<StoreOf, Gauge<f64, std::sync::atomic::AtomicU64>>,
    store_figure: Family<StoreFigure, Gauge<f64, std::sync::atomic::AtomicU64>>,
}

impl Default for Metrics {
    fn default() -> Self {
        let seconds = || Histogram::new(exponential_buckets(0.001, 4.0, 8));
        let mut metrics = Self {
            registry: Arc::default(),
            reconciles: Family::default(),
            reconcile_seconds: Family::new_with_constructor(seconds),
            writes: Family::default(),
            ready: Family::default(),
            rotations: Family::default(),
            left_behind: Family::default(),
            store_up: Family::default(),
            store_ping: Family::default(),
            store_figure: Family::default(),
        };
        let mut registry = Registry::with_prefix("amas");
        registry.register(
            "reconciles",
            "Reconciles by kind and outcome",
            metrics.reconciles.clone(),
        );
        registry.register(
            "reconcile_seconds",
            "Duration of a reconcile",
            metrics.reconcile_seconds.clone(),
        );
        registry.register("api_writes", "Mutating API requests", metrics.writes.clone());
        registry.register("object_ready", "1 while the object is Ready", metrics.ready.clone());
        registry.register(
            "credential_rotations",
            "New passwords that were published",
            metrics.rotations.clone(),
        );
        registry.register(
            "left_behind",
            "Things that a deleted object should have taken along and did not",
            metrics.left_behind.clone(),
        );
        registry.register(
            "store_up",
            "1 while the store answers its sentinel",
            metrics.store_up.clone(),
        );
        registry.register(
            "store_ping_seconds",
            "Duration of the last ping",
            metrics.store_ping.clone(),
        );
        registry.register(
            "store_figure",
            "Live figures of a store, by name",
            metrics.store_figure.clone(),
        );
        metrics.registry = Arc::new(registry);
        metrics
    }
}

impl Metrics {
    /// Takes in the present figures of one store.
    pub fn set_store(&self, store: StoreOf, now: &StoreFigures) {
        self.store_up.get_or_create(&store).set(now.up.into());
        if let Some(seconds) = now.ping_seconds {
            self.store_ping.get_or_create(&store).set(seconds);
        }
        for &(figure, value) in &now.figures {
            let StoreOf {
                namespace,
                database,
                store,
            } = store.clone();
            self.store_figure
                .get_or_create(&StoreFigure {
                    namespace,
                    database,
                    store,
                    figure,
                })
                .set(value);
        }
    }

    /// Forgets the series of stores before they are set again, so that deleted ones do not stay.
    pub fn clear_stores(&self) {
        self.store_up.clear();
        self.store_ping.clear();
        self.store_figure.clear();
    }

    /// The text that a scraper gets.
    pub fn text(&self) -> String {
        let mut text = String::new();
        if encode(&mut text, &self.registry).is_err() {
            text.clear();
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_written_and_deleted_stores_go() {
        let metrics = Metrics::default();
        let store = StoreOf {
            namespace: "n".into(),
            database: "d".into(),
            store: "redis",
        };
        metrics.set_store(
            store,
            &StoreFigures {
                up: true,
                ping_seconds: Some(0.5),
                figures: vec![("keys", 3.0)],
            },
        );
        let text = metrics.text();
        assert!(
            text.contains(r#"amas_store_up{namespace="n",database="d",store="redis"} 1"#),
            "{text}"
        );
        assert!(text.contains(r#"figure="keys"} 3.0"#), "{text}");
        metrics.clear_stores();
        assert!(!metrics.text().contains("store=\"redis\""));
    }
}
