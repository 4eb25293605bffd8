//! The end of a keeper: taking leave of the server in the background, tried until it is done or its time is up.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

use super::{Gate, Key, Parting, Store, work::retry_delay};
use crate::stores::endpoint::StoreError;

/// One try; dropping a large database takes its time.
const ATTEMPT: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How a leave stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Departure {
    /// Still at it; why the last try failed.
    UnderWay(Option<String>),
    /// Done, with what had to stay.
    Done(Vec<String>),
}

/// A leave under way. Dropping it ends it.
pub(super) struct Leave {
    pub how: Parting,
    state: Arc<Mutex<Departure>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Leave {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Leave {
    /// Wakes the object when it is done, and when it first fails.
    pub fn begin<S: Store>(
        key: Key,
        base: S::Base,
        how: Parting,
        within: Duration,
        (gate, wake): (Gate, mpsc::UnboundedSender<Key>),
    ) -> Self {
        let state = Arc::new(Mutex::new(Departure::UnderWay(None)));
        let tell = state.clone();
        let task = tokio::spawn(async move {
            let give_up = Instant::now() + within;
            for failures in 1.. {
                let error = match attempt::<S>(&gate, &base, how).await {
                    Ok(left) => {
                        set(&tell, Departure::Done(left));
                        let _ = wake.send(key);
                        return;
                    }
                    Err(error) => error,
                };
                set(&tell, Departure::UnderWay(Some(error.to_string())));
                if failures == 1 {
                    let _ = wake.send(key.clone());
                }
                if Instant::now() >= give_up {
                    let Key { namespace, database } = &key;
                    tracing::warn!(namespace, database, ?how, %error, "leaving a store was given up");
                    return;
                }
                sleep(retry_delay(&error, failures, rand::random_range(0.8..1.2)).min(LONGEST_PAUSE)).await;
            }
        });
        Self { how, state, task }
    }

    /// Done or given up.
    pub fn is_over(&self) -> bool {
        self.task.is_finished()
    }

    pub fn state(&self) -> Departure {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn set(state: &Mutex<Departure>, now: Departure) {
    *state.lock().unwrap_or_else(PoisonError::into_inner) = now;
}

async fn attempt<S: Store>(gate: &Gate, base: &S::Base, how: Parting) -> Result<Vec<String>, StoreError> {
    match timeout(ATTEMPT, gate.through(S::part(base, how))).await {
        Ok(outcome) => outcome,
        Err(_) => Err(StoreError::Unreachable(format!(
            "no end within {} s",
            ATTEMPT.as_secs()
        ))),
    }
}
