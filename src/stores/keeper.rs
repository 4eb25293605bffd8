//! One keeper a store: a task pair that owns the sentinel connection and does the store's work in slices,
//! publishing a snapshot. Reconcile slots read snapshots and never connect to a database themselves,
//! so a dead or black-holed server costs nobody else anything.
//!
//! This file is the contract between the keepers and the engines. `registry` is what controllers hold, `watch` is the
//! task that knows whether the server serves, `work` is the task that makes the duty true, `parting` is its end.

mod gate;
mod parting;
mod registry;
mod watch;
mod work;

use std::{
    collections::BTreeMap,
    fmt::Debug,
    future::Future,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

pub use gate::Gate;
pub use parting::Departure;
pub use registry::{Keepers, Key, Live};

use crate::stores::{
    endpoint::{Endpoint, StoreError},
    health::{Attention, Health},
};

/// A wrong password, or certificate, does not become right by itself, and servers lock accounts out: after the first retry wait longer. A new one is
/// tried at once. In seconds.
const LOGIN_DELAYS: [u64; 5] = [1, 5, 5, 15, 30];

/// The logins in a row that one server refused, whichever task tried: together they must stay below what locks an account out (Neo4j: three within
/// five seconds).
#[derive(Debug, Default)]
struct RefusedLogins(AtomicUsize);

impl RefusedLogins {
    /// Counts another one; the pause after it.
    fn another(&self) -> Duration {
        let before = self.0.fetch_add(1, Ordering::Relaxed);
        Duration::from_secs(LOGIN_DELAYS[before.min(LOGIN_DELAYS.len() - 1)])
    }

    /// One went through, or there is another password to try.
    fn forget(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// What a keeper is asked to hold true: the store's own part (from the AmasDatabase) and one part a policy or schema on it.
#[derive(Clone, Debug, PartialEq)]
pub struct Duty<S: Store> {
    /// The login of the sentinel, and whatever further logins the work needs.
    pub base: S::Base,
    /// By the name of the CachePolicy or GraphSchema that asks for it.
    pub policies: BTreeMap<String, S::Policy>,
}

/// What is known of a server: written only by its keeper, read by `observe`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot<S: Store> {
    pub health: Health,
    /// What was read from the server and which duty is in; see each store's `Facts`. Kept while the server is down.
    pub facts: S::Facts,
    /// Since when the server refuses a login that the work needs, although the sentinel's connection may be open.
    pub refused_since: Option<jiff::Timestamp>,
}

/// A sign from a sentinel's connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sign {
    /// End of file or reset: the connection is gone.
    Lost(String),
    /// The server announced something (a NOTIFY): the worker should look.
    Nudge,
}

/// What a server says of itself at login.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerIdentity {
    /// The version as the server writes it, e.g. `17.6`.
    pub version: String,
    /// When the server process started.
    pub started_at: Option<jiff::Timestamp>,
}

/// The sentinel side: one connection that reads (so that EOF and RST are seen at once) and is pinged.
pub trait Sentinel: Sized + Send + 'static {
    /// Waits for the next sign. Cancel-safe: dropped and called again between pings.
    fn next_sign(&mut self) -> impl Future<Output = Sign> + Send;
    /// One cheap round trip; the keeper puts the deadline around it.
    fn ping(&mut self) -> impl Future<Output = Result<(), StoreError>> + Send;
    /// Opened with a stand-in login because the real one does not exist before the first work:
    /// the keeper opens again, without any doubt about the server, after each finished slice.
    fn provisional(&self) -> bool {
        false
    }
}

/// How a slice of work ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The duty is in; look again on a nudge, a new duty, or after the given time (sweeps).
    Done { again_in: Option<Duration> },
    /// The slice's time is up, or something (an index population) is still running: come back after the given pause.
    More { pause: Duration },
}

/// How a keeper takes leave of its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parting {
    /// Everything stays; the claim is let go.
    Release,
    /// What the claim says we made is dropped; where it says that we made nothing, the claim is let go.
    Drop,
}

/// One engine's side of its keeper. The worker calls `work` on its own connections, never on the sentinel's.
pub trait Store: Sized + Send + Sync + Debug + Clone + PartialEq + Default + 'static {
    type Base: Clone + Debug + PartialEq + Send + Sync + 'static;
    type Policy: Clone + Debug + PartialEq + Send + Sync + 'static;
    type Facts: Clone + Debug + Default + PartialEq + Send + Sync + 'static;
    type Sentinel: Sentinel;
    /// What the worker keeps between slices (an open connection, a sweep's cursor). Thrown away when a slice is cut off.
    type Worker: Default + Send + 'static;

    /// The login whose success means "this server serves". A changed endpoint makes the sentinel connect anew.
    fn endpoint(base: &Self::Base) -> &Endpoint;
    /// How the server is watched.
    fn attention(_: &Self::Base) -> Attention {
        Attention::default()
    }
    /// Closes what a worker keeps open between slices: nothing is due for long.
    fn rest(_: &mut Self::Worker) {}
    /// Connects and logs in; the keeper puts the deadline (5 s) around it.
    fn open(base: &Self::Base) -> impl Future<Output = Result<(Self::Sentinel, ServerIdentity), StoreError>> + Send;
    /// One slice (at most 5 s, cut off at 10 s) towards the duty. Updates `facts` with what was seen and done, also when it fails half-way.
    fn work(
        worker: &mut Self::Worker,
        duty: &Duty<Self>,
        facts: &mut Self::Facts,
    ) -> impl Future<Output = Result<Progress, StoreError>> + Send;
    /// Whether the operator made this server, which then goes or stays with its volume.
    fn is_managed(base: &Self::Base) -> bool;
    /// Takes leave of the server; done a second time it finds nothing to do. Gives what should have gone and had to stay, in words.
    fn part(base: &Self::Base, how: Parting) -> impl Future<Output = Result<Vec<String>, StoreError>> + Send;
    /// Whether objects that showed `before` have to be woken for `after`. Engines leave out figures that move by themselves.
    fn differs_materially(before: &Self::Facts, after: &Self::Facts) -> bool {
        before != after
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_longer_for_every_refused_login_whoever_tried() {
        let refused = RefusedLogins::default();
        let pauses: Vec<u64> = (0..6).map(|_| refused.another().as_secs()).collect();
        assert_eq!(pauses, [1, 5, 5, 15, 30, 30]);
        refused.forget();
        assert_eq!(refused.another().as_secs(), 1);
    }
}
