//! One keeper a store: a task pair that owns the sentinel connection and does the store's work in slices,
//! publishing a snapshot. Reconcile slots read snapshots and never connect to a database themselves,
//! so a dead or black-holed server costs nobody else anything.
//!
//! This file is the contract between the keepers and the engines. `registry` is what controllers hold, `shared` what it has in common with
//! the two tasks of each keeper: `watch`, which knows whether the server serves, and `work`, which makes the duty true. `parting` is its end.

mod gate;
mod parting;
mod registry;
mod shared;
mod watch;
mod work;

use std::{
    collections::BTreeMap,
    fmt::Debug,
    future::Future,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

pub use gate::Gate;
pub use parting::Departure;
pub use registry::{Keepers, Key};
pub use shared::Live;
use tokio::time::{Instant, sleep_until};

use crate::stores::{
    endpoint::{Endpoint, StoreError},
    health::{Attention, Health},
};

/// A wrong password, or certificate, does not become right by itself, and servers lock accounts out: after the first retry wait longer. A new one is
/// tried at once. In seconds.
const LOGIN_DELAYS: [u64; 5] = [1, 5, 5, 15, 30];

/// A server that locks an account for a time says so to every login, with the right password too: it is asked again soon, and that counts for nothing.
const LOCKED_DELAY: Duration = Duration::from_secs(1);

/// The logins in a row that one server refused, whichever task tried. Servers count them an account, however far apart they are (Neo4j lets nobody in for
/// five seconds after the third and each further one), so the two tasks keep one pause: neither tries while the other was refused just now.
#[derive(Debug, Default)]
struct RefusedLogins(Mutex<Refused>);

#[derive(Debug, Default)]
struct Refused {
    count: usize,
    until: Option<Instant>,
}

impl RefusedLogins {
    /// Counts another one, and makes the pause longer.
    fn another(&self) {
        let mut refused = self.lock();
        let delay = LOGIN_DELAYS[refused.count.min(LOGIN_DELAYS.len() - 1)];
        refused.count += 1;
        refused.wait(Duration::from_secs(delay));
    }

    /// The password was not even looked at.
    fn locked(&self) {
        self.lock().wait(LOCKED_DELAY);
    }

    /// One went through, or there is another password to try.
    fn forget(&self) {
        *self.lock() = Refused::default();
    }

    /// Waits until somebody may try again.
    async fn pause(&self) {
        loop {
            let until = self.lock().until;
            match until {
                Some(until) if until > Instant::now() => sleep_until(until).await,
                _ => return,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Refused> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Refused {
    fn wait(&mut self, delay: Duration) {
        self.until = self.until.max(Some(Instant::now() + delay));
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
    /// What the worker keeps between slices (an open connection, a sweep's cursor).
    type Worker: Default + Send + 'static;

    /// The login whose success means "this server serves". A changed endpoint makes the sentinel connect anew.
    fn endpoint(base: &Self::Base) -> &Endpoint;
    /// How the server is watched.
    fn attention(_: &Self::Base) -> Attention {
        Attention::default()
    }
    /// A worker that has kept nothing yet. What it does beside the slices has to go through the gate as they do.
    fn worker(_: &Gate) -> Self::Worker {
        Self::Worker::default()
    }
    /// Closes what a worker keeps open between slices: nothing is due for long, or the server went away.
    fn rest(_: &mut Self::Worker) {}
    /// What a worker keeps of a slice that was cut off in its middle: nothing, unless the engine knows better.
    fn cut_off(worker: &mut Self::Worker, gate: &Gate) {
        *worker = Self::worker(gate);
    }
    /// Connects and logs in; the keeper puts the deadline (5 s) around it.
    fn open(base: &Self::Base) -> impl Future<Output = Result<(Self::Sentinel, ServerIdentity), StoreError>> + Send;
    /// One slice (at most 5 s, cut off at 30 s) towards the duty. Updates `facts` with what was seen and done, also when it fails half-way.
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

    /// How long the pause is now, in milliseconds.
    async fn paused(refused: &RefusedLogins) -> u128 {
        let begun = Instant::now();
        refused.pause().await;
        begun.elapsed().as_millis()
    }

    #[tokio::test(start_paused = true)]
    async fn waits_longer_for_every_refused_login_whoever_tried() {
        let refused = RefusedLogins::default();
        let mut pauses = vec![paused(&refused).await];
        for _ in 0..6 {
            refused.another();
            pauses.push(paused(&refused).await);
        }
        assert_eq!(pauses, [0, 1_000, 5_000, 5_000, 15_000, 30_000, 30_000]);
        refused.forget();
        // Both tasks at once: together they wait as long as for two.
        refused.another();
        refused.another();
        assert_eq!(paused(&refused).await, 5_000);
    }

    #[tokio::test(start_paused = true)]
    async fn an_account_that_is_locked_is_asked_for_every_second_and_a_pause_never_gets_shorter() {
        let refused = RefusedLogins::default();
        for _ in 0..9 {
            refused.locked();
            assert_eq!(paused(&refused).await, 1_000);
        }
        refused.another();
        refused.another();
        refused.locked();
        assert_eq!(paused(&refused).await, 5_000);
    }
}
