//! The task that makes the duty true, slice by slice, and only while the server serves.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::FutureExt;
use jiff::Timestamp;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{Duty, Progress, Store, shared::Shared};
use crate::stores::{endpoint::StoreError, health::Attention};

/// A slice that takes this long is stuck.
const SLICE_DEADLINE: Duration = Duration::from_secs(30);
/// A burst of announcements costs one slice each this often.
const NUDGE_SPACING: Duration = Duration::from_millis(100);
const FIRST_RETRY: Duration = Duration::from_millis(250);
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// When to work next if nothing else happens.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Next {
    Never,
    In(Duration),
    /// When a login may be tried again.
    AfterRefusal,
}

struct Worker<S: Store> {
    shared: Arc<Shared<S>>,
    duty: watch::Receiver<Arc<Duty<S>>>,
    serving: watch::Receiver<bool>,
    paused: watch::Receiver<bool>,
    state: S::Worker,
    /// Slices in a row that could not reach the server.
    failures: u32,
}

/// Runs until aborted.
pub(super) async fn work_duty<S: Store>(shared: Arc<Shared<S>>) {
    let (duty, serving, paused) = (
        shared.duty.subscribe(),
        shared.serving.subscribe(),
        shared.paused.subscribe(),
    );
    let state = S::worker(&shared.gate);
    let mut worker = Worker {
        shared,
        duty,
        serving,
        paused,
        state,
        failures: 0,
    };
    loop {
        // Both ends live in `shared`, so waiting cannot fail.
        if worker.serving.wait_for(|serving| *serving).await.is_err()
            || worker.paused.wait_for(|paused| !paused).await.is_err()
        {
            return;
        }
        if !*worker.serving.borrow() {
            continue;
        }
        let begun = Instant::now();
        let next = worker.slice().await;
        worker.rest(begun, next).await;
    }
}

impl<S: Store> Worker<S> {
    /// One slice, cut off when it is stuck or the server is lost; publishes the facts whatever happened.
    async fn slice(&mut self) -> Next {
        self.shared.live.slices.fetch_add(1, Ordering::Relaxed);
        // What was announced so far is seen by this slice.
        let _announced = self.shared.nudge.notified().now_or_never();
        let duty = self.duty.borrow_and_update().clone();
        let mut facts = self.shared.snapshot.borrow().facts.clone();
        let work = self.shared.gate.through(S::work(&mut self.state, &duty, &mut facts));
        let outcome = tokio::select! {
            outcome = timeout(SLICE_DEADLINE, work) => outcome.ok(),
            _ = self.serving.wait_for(|serving| !serving) => None,
        };
        let refused = match &outcome {
            Some(Err(error)) if error.is_refused_login() => Some(true),
            // Not reached, or cut off: that says nothing about the login.
            None | Some(Err(StoreError::Unreachable(_))) => None,
            Some(_) => Some(false),
        };
        self.shared.publish(|snapshot| {
            snapshot.facts = facts;
            if let Some(refused) = refused {
                let since = snapshot.refused_since.unwrap_or_else(Timestamp::now);
                snapshot.refused_since = refused.then_some(since);
            }
        });
        match outcome {
            Some(Ok(progress)) => self.went_well(progress),
            Some(Err(error)) => self.failed(&error),
            None => {
                S::cut_off(&mut self.state, &self.shared.gate);
                self.failed(&StoreError::Unreachable("the slice of work was cut off".to_owned()))
            }
        }
    }

    fn went_well(&mut self, progress: Progress) -> Next {
        self.failures = 0;
        self.shared.refused_logins.forget();
        self.shared.worked.notify_one();
        match progress {
            // The watching task says when to look again.
            Progress::Done { .. } if self.on_demand() => {
                S::rest(&mut self.state);
                Next::Never
            }
            Progress::Done { again_in: None } => Next::Never,
            Progress::Done { again_in: Some(pause) } | Progress::More { pause } => Next::In(pause),
        }
    }

    fn failed(&mut self, error: &StoreError) -> Next {
        self.failures = match error {
            StoreError::Unreachable(_) => self.failures.saturating_add(1),
            _ => 0,
        };
        self.shared.live.failed_slices.fetch_add(1, Ordering::Relaxed);
        let key = &self.shared.key;
        tracing::debug!(namespace = %key.namespace, database = %key.database, %error, failures = self.failures, "slice failed");
        if self.on_demand() && !matches!(error, StoreError::Unreachable(_)) {
            S::rest(&mut self.state);
            return Next::Never;
        }
        match error {
            StoreError::LoginRefused(_) => self.shared.refused_logins.another(),
            StoreError::LockedOut(_) => self.shared.refused_logins.locked(),
            _ => return Next::In(retry_delay(error, self.failures, rand::random_range(0.8..1.2))),
        }
        Next::AfterRefusal
    }

    fn on_demand(&self) -> bool {
        matches!(S::attention(&self.duty.borrow().base), Attention::OnDemand(_))
    }

    /// Until there is a reason to work again. Returns at once when the server is lost: the caller waits for it.
    async fn rest(&mut self, begun: Instant, next: Next) {
        let due = async {
            match next {
                Next::Never => std::future::pending().await,
                Next::In(pause) => sleep(pause).await,
                Next::AfterRefusal => self.shared.refused_logins.pause().await,
            }
        };
        tokio::select! {
            () = due => {}
            _ = self.duty.changed() => {}
            _ = self.serving.wait_for(|serving| !serving) => S::rest(&mut self.state),
            () = async {
                self.shared.nudge.notified().await;
                sleep_until(begun + NUDGE_SPACING).await;
            } => {}
        }
    }
}

/// A no is said again slowly; what could not be reached is tried again with growing patience.
pub(super) fn retry_delay(error: &StoreError, failures: u32, jitter: f64) -> Duration {
    match error {
        StoreError::Unreachable(_) => {
            let doubled = FIRST_RETRY.saturating_mul(1 << failures.saturating_sub(1).min(10));
            doubled.mul_f64(jitter).min(LONGEST_RETRY)
        }
        _ => LONGEST_RETRY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_with_growing_patience() {
        let unreachable = StoreError::Unreachable(String::new());
        for (failures, millis) in [
            (1, 250),
            (2, 500),
            (3, 1_000),
            (7, 16_000),
            (8, 30_000),
            (4_000_000_000, 30_000),
        ] {
            let delay = retry_delay(&unreachable, failures, 1.0);
            assert_eq!(delay.as_millis(), millis, "after {failures}");
        }
        let rejected = StoreError::Rejected(String::new());
        assert_eq!(retry_delay(&rejected, 1, 1.0), LONGEST_RETRY);
    }
}
