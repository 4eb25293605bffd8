//! The keepers of one engine, by database: assigned and dismissed by controllers without waiting for any server.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, mpsc, watch},
    task::JoinSet,
};

use super::{
    Departure, Duty, Gate, Parting, RefusedLogins, Snapshot, Store,
    parting::Leave,
    shared::{Live, Shared},
    watch::watch_server,
    work::work_duty,
};

/// How long a claim is tried to be let go.
const RELEASE: Duration = Duration::from_secs(60);

/// Which AmasDatabase a keeper belongs to. Sent as the wake-up when its snapshot changed materially.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub namespace: String,
    pub database: String,
}

struct Running<S: Store> {
    shared: Arc<Shared<S>>,
    /// Aborted when dropped, which closes their connections.
    _tasks: JoinSet<()>,
}

/// One database's keeper; without a base there is nothing to connect to yet, and policies wait here.
struct Entry<S: Store> {
    policies: BTreeMap<String, S::Policy>,
    running: Option<Running<S>>,
    paused: bool,
    leave: Option<Leave>,
}

/// The keepers of one engine. Cheap to clone; every method returns at once. Assigning what is already assigned does nothing.
pub struct Keepers<S: Store> {
    entries: Arc<Mutex<HashMap<Key, Entry<S>>>>,
    wake: mpsc::UnboundedSender<Key>,
    gate: Gate,
}

impl<S: Store> Clone for Keepers<S> {
    fn clone(&self) -> Self {
        Self {
            entries: self.entries.clone(),
            wake: self.wake.clone(),
            gate: self.gate.clone(),
        }
    }
}

impl<S: Store> Keepers<S> {
    /// `wake` gets the key of a database each time its snapshot changed materially.
    pub fn new(wake: mpsc::UnboundedSender<Key>) -> Self {
        Self {
            entries: Arc::default(),
            wake,
            gate: Gate::default(),
        }
    }

    /// The same, changing anything only while the gate is open.
    pub fn behind(self, gate: &Gate) -> Self {
        Self {
            gate: gate.clone(),
            ..self
        }
    }

    /// Starts the keeper, or gives the running one a new base. Must be called within a tokio runtime.
    pub fn assign_base(&self, key: &Key, base: S::Base) {
        let mut entries = self.lock();
        let entry = entries.entry(key.clone()).or_default();
        entry.leave = None;
        match &entry.running {
            Some(running) => running.change(|duty| duty.base = base),
            None => {
                let duty = Duty {
                    base,
                    policies: entry.policies.clone(),
                };
                entry.running = Some(self.start(key, duty, entry.paused));
            }
        }
    }

    /// While paused, nothing is changed on the server; its health is still known. Told before the base, it holds from the start.
    pub fn pause(&self, key: &Key, paused: bool) {
        let mut entries = self.lock();
        if !paused && !entries.contains_key(key) {
            return;
        }
        let entry = entries.entry(key.clone()).or_default();
        entry.paused = paused;
        if let Some(running) = &entry.running {
            running.shared.paused.send_replace(paused);
        }
    }

    /// Adds or replaces the policy `name`. Before the base is assigned it is kept for it.
    pub fn assign_policy(&self, key: &Key, name: &str, policy: S::Policy) {
        let mut entries = self.lock();
        let entry = entries.entry(key.clone()).or_default();
        entry.policies.insert(name.to_owned(), policy);
        entry.pass_policies_on();
    }

    /// Takes the policy `name` back; what it did on the server stays unless the engine says otherwise.
    pub fn withdraw_policy(&self, key: &Key, name: &str) {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(key) else { return };
        entry.policies.remove(name);
        entry.pass_policies_on();
        if entry.is_idle() {
            entries.remove(key);
        }
    }

    /// Stops the keeper and closes its connections. Policies are kept for a later base: they belong to other objects.
    pub fn dismiss(&self, key: &Key) {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(key) else { return };
        (entry.running, entry.leave) = (None, None);
        if entry.is_idle() {
            entries.remove(key);
        }
    }

    /// Stops the keeper and takes leave of the server, trying for so long; asked again it goes on with what was begun. Must be
    /// called within a tokio runtime.
    pub fn part(&self, key: &Key, base: S::Base, how: Parting, within: Duration) {
        let mut entries = self.lock();
        let entry = entries.entry(key.clone()).or_default();
        entry.running = None;
        if entry.leave.as_ref().is_none_or(|leave| leave.how != how) {
            let telling = (self.gate.clone(), self.wake.clone());
            entry.leave = Some(Leave::begin::<S>(key.clone(), base, how, within, telling));
        }
    }

    /// The store is no longer ours to look after: like [`Keepers::dismiss`], and on a server that we did not make the claim is let go.
    pub fn let_go(&self, key: &Key) {
        self.lock().retain(|_, entry| !entry.has_left());
        match self.base(key) {
            Some(base) if !S::is_managed(&base) => self.part(key, base, Parting::Release, RELEASE),
            Some(_) => self.dismiss(key),
            None => {}
        }
    }

    /// What the keeper is asked to hold.
    pub fn base(&self, key: &Key) -> Option<S::Base> {
        self.with_running(key, |shared| shared.duty.borrow().base.clone())
    }

    /// How the leave stands that was begun with [`Keepers::part`].
    pub fn departure(&self, key: &Key) -> Option<Departure> {
        Some(self.lock().get(key)?.leave.as_ref()?.state())
    }

    /// What is known of the server; `None` without a base.
    pub fn snapshot(&self, key: &Key) -> Option<Arc<Snapshot<S>>> {
        self.with_running(key, |shared| shared.snapshot.borrow().clone())
    }

    /// The snapshot as a stream of values, for who waits for one without being a controller.
    pub fn subscribe(&self, key: &Key) -> Option<watch::Receiver<Arc<Snapshot<S>>>> {
        self.with_running(key, |shared| shared.snapshot.subscribe())
    }

    /// Makes the worker look at the server soon, as a NOTIFY would.
    pub fn nudge(&self, key: &Key) {
        self.with_running(key, |shared| shared.nudge.notify_one());
    }

    /// Something has happened around a server that may be watched on demand: it is looked at soon.
    pub fn look(&self, key: &Key) {
        self.with_running(key, |shared| shared.look.notify_one());
    }

    /// The live figures of all running keepers.
    pub fn live(&self) -> Vec<(Key, Arc<Live>)> {
        let running =
            |(key, entry): (&Key, &Entry<S>)| Some((key.clone(), entry.running.as_ref()?.shared.live.clone()));
        self.lock().iter().filter_map(running).collect()
    }

    fn with_running<T>(&self, key: &Key, read: impl FnOnce(&Shared<S>) -> T) -> Option<T> {
        let entries = self.lock();
        Some(read(&entries.get(key)?.running.as_ref()?.shared))
    }

    fn start(&self, key: &Key, duty: Duty<S>, paused: bool) -> Running<S> {
        let shared = Arc::new(Shared {
            key: key.clone(),
            duty: watch::Sender::new(Arc::new(duty)),
            snapshot: watch::Sender::default(),
            serving: watch::Sender::new(false),
            paused: watch::Sender::new(paused),
            nudge: Notify::new(),
            look: Notify::new(),
            worked: Notify::new(),
            live: Arc::default(),
            gate: self.gate.clone(),
            refused_logins: RefusedLogins::default(),
            wake: self.wake.clone(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(watch_server(shared.clone()));
        tasks.spawn(work_duty(shared.clone()));
        Running { shared, _tasks: tasks }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Entry<S>>> {
        // Nothing in here can be left half-way by a panic.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Store> Default for Entry<S> {
    fn default() -> Self {
        Self {
            policies: BTreeMap::new(),
            running: None,
            paused: false,
            leave: None,
        }
    }
}

impl<S: Store> Entry<S> {
    fn is_idle(&self) -> bool {
        self.running.is_none() && self.policies.is_empty() && self.leave.is_none()
    }

    /// Only the memory of a leave is left.
    fn has_left(&self) -> bool {
        let over = self.leave.as_ref().is_some_and(Leave::is_over);
        over && self.running.is_none() && self.policies.is_empty()
    }

    fn pass_policies_on(&self) {
        if let Some(running) = &self.running {
            running.change(|duty| duty.policies = self.policies.clone());
        }
    }
}

impl<S: Store> Running<S> {
    fn change(&self, change: impl FnOnce(&mut Duty<S>)) {
        self.shared.duty.send_if_modified(|current| {
            let mut next = Duty::clone(current);
            change(&mut next);
            let modified = next != **current;
            if modified {
                // Perhaps another password. Once, before the tasks hear of it: each on its own would forget what the other was just told.
                self.shared.refused_logins.forget();
                *current = Arc::new(next);
            }
            modified
        });
    }
}
