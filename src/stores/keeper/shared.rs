//! What the two tasks of a keeper share with each other and with the registry.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::{Notify, mpsc, watch};

use super::{Duty, Gate, Key, RefusedLogins, Snapshot, Store};

/// Live figures of one keeper, for metrics: they move all the time and wake nobody.
#[derive(Debug, Default)]
pub struct Live {
    last_ping_micros: AtomicU64,
    pub(super) reconnects: AtomicU64,
    pub(super) slices: AtomicU64,
    pub(super) failed_slices: AtomicU64,
}

impl Live {
    /// The round trip of the last good ping; `None` before the first.
    pub fn last_ping(&self) -> Option<Duration> {
        let micros = self.last_ping_micros.load(Ordering::Relaxed);
        (micros > 0).then(|| Duration::from_micros(micros))
    }

    /// How often the sentinel's connection was lost.
    pub fn reconnects(&self) -> u64 {
        self.reconnects.load(Ordering::Relaxed)
    }

    /// Slices of work begun.
    pub fn slices(&self) -> u64 {
        self.slices.load(Ordering::Relaxed)
    }

    /// Slices of work that failed or were cut off.
    pub fn failed_slices(&self) -> u64 {
        self.failed_slices.load(Ordering::Relaxed)
    }

    pub(super) fn pinged(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        self.last_ping_micros.store(micros, Ordering::Relaxed);
    }
}

/// What the two tasks of a keeper and the registry share.
pub(super) struct Shared<S: Store> {
    pub key: Key,
    pub duty: watch::Sender<Arc<Duty<S>>>,
    pub snapshot: watch::Sender<Arc<Snapshot<S>>>,
    /// Whether the worker may talk to the server: set by the watching task at each flip.
    pub serving: watch::Sender<bool>,
    /// The worker shall do nothing; the watching goes on.
    pub paused: watch::Sender<bool>,
    /// The worker should look at the server.
    pub nudge: Notify,
    /// A server that is watched on demand should be looked at.
    pub look: Notify,
    /// A slice ended well: a provisional sentinel opens again.
    pub worked: Notify,
    pub live: Arc<Live>,
    pub gate: Gate,
    pub refused_logins: RefusedLogins,
    pub wake: mpsc::UnboundedSender<Key>,
}

impl<S: Store> Shared<S> {
    /// Publishes a changed snapshot; wakes the object if the change is material.
    pub fn publish(&self, change: impl FnOnce(&mut Snapshot<S>)) {
        let mut material = false;
        self.snapshot.send_if_modified(|current| {
            let mut next = Snapshot::clone(current);
            change(&mut next);
            material = next.health.differs_materially(&current.health)
                || next.refused_since != current.refused_since
                || S::differs_materially(&current.facts, &next.facts);
            let modified = next != **current;
            if modified {
                *current = Arc::new(next);
            }
            modified
        });
        if material {
            // Nobody listens only while the operator stops.
            let _ = self.wake.send(self.key.clone());
        }
    }
}
