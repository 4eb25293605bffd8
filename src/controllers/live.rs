//! Live figures for the metrics page, taken from the keepers when it is asked for.

use crate::{
    controllers::Context,
    engine::metrics::{StoreFigures, StoreOf},
    stores::keeper::{Keepers, Store},
};

/// Takes the live figures from the keepers.
pub fn refresh(context: &Context) {
    context.metrics.clear_stores();
    let keepers = &context.keepers;
    store_metrics(context, "postgres", &keepers.postgres, |facts| {
        vec![
            ("size_bytes", facts.figures.size_bytes as f64),
            ("tables", facts.figures.tables as f64),
            ("connections", facts.figures.connections as f64),
        ]
    });
    store_metrics(context, "redis", &keepers.redis, |facts| {
        let figures = &facts.figures;
        vec![
            ("used_memory_bytes", figures.used_memory as f64),
            ("connected_clients", figures.connected_clients as f64),
            ("keyspace_hits", figures.hits as f64),
            ("keyspace_misses", figures.misses as f64),
            (
                "hit_rate",
                figures.hits as f64 / (figures.hits + figures.misses).max(1) as f64,
            ),
            ("keys", figures.keys.values().sum::<u64>() as f64),
        ]
    });
    store_metrics(context, "neo4j", &keepers.neo4j, |facts| {
        vec![("nodes", facts.figures.nodes as f64)]
    });
}

fn store_metrics<S: Store>(
    context: &Context,
    store: &'static str,
    keepers: &Keepers<S>,
    figures: impl Fn(&S::Facts) -> Vec<(&'static str, f64)>,
) {
    for (key, live) in keepers.live() {
        let Some(snapshot) = keepers.snapshot(&key) else {
            continue;
        };
        let now = StoreFigures {
            up: snapshot.health.is_up(),
            ping_seconds: live.last_ping().map(|ping| ping.as_secs_f64()),
            figures: figures(&snapshot.facts),
        };
        context.metrics.set_store(
            StoreOf {
                namespace: key.namespace,
                database: key.database,
                store,
            },
            &now,
        );
    }
}
