//! The task that knows whether the server serves: connects, reads, pings, and tells the monitor what happened.

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

use super::{Duty, Sentinel, ServerIdentity, Sign, Store, shared::Shared};
use crate::stores::{
    endpoint::{Endpoint, StoreError},
    health::{Attention, Event, Moment, Monitor, PING_INTERVAL, Reason, Verdict},
};

/// For a connection attempt while nothing depends on how fast it fails.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// For a ping, and for connecting while there is doubt about a server that counts as Up: that decides whether it is lost.
const PING_DEADLINE: Duration = Duration::from_secs(1);
/// For connecting anew where nothing is wrong, such as after a change of the login. Silence is still seen within six seconds.
const REOPEN_DEADLINE: Duration = Duration::from_secs(3);
/// A server that was never seen is tried this often for [`DENSE_TIME`]: its first readiness is what people wait for.
const DENSE_DELAY: Duration = Duration::from_millis(50);
const DENSE_TIME: Duration = Duration::from_secs(60);
const LONGEST_DELAY: Duration = Duration::from_secs(2);
/// The same for a server that is looked at on demand.
const LONGEST_DELAY_ON_DEMAND: Duration = Duration::from_secs(60);
/// A server that is looked at on demand is not looked at more often than this, whatever happens around it.
const LOOK_SPACING: Duration = Duration::from_secs(5);

/// Why a connected stretch ended.
enum End {
    /// Something is wrong with the connection.
    Doubt(Event),
    /// Nothing is wrong: the login changed, or the real one exists now.
    Reopen,
}

struct Watcher<S: Store> {
    shared: Arc<Shared<S>>,
    duty: watch::Receiver<Arc<Duty<S>>>,
    monitor: Monitor,
    /// What the present connection was opened with.
    opened: Option<(Endpoint, Attention)>,
    started: Instant,
}

/// Runs until aborted.
pub(super) async fn watch_server<S: Store>(shared: Arc<Shared<S>>) {
    let duty = shared.duty.subscribe();
    let mut watcher = Watcher {
        shared,
        duty,
        monitor: Monitor::default(),
        opened: None,
        started: Instant::now(),
    };
    let mut sentinel = watcher.connect().await;
    loop {
        let end = match watcher.attention() {
            Attention::Held(interval) => watcher.attend(&mut sentinel, interval).await,
            Attention::OnDemand(interval) => match watcher.confirm(&mut sentinel).await {
                Ok(()) => {
                    drop(sentinel);
                    watcher.rest(interval).await;
                    sentinel = watcher.connect().await;
                    continue;
                }
                Err(event) => End::Doubt(event),
            },
        };
        sentinel = watcher.reconnect(sentinel, end).await;
    }
}

impl<S: Store> Watcher<S> {
    fn attention(&self) -> Attention {
        S::attention(&self.duty.borrow().base)
    }

    /// Stays with a connection until what it says counts: after an outage one good sign is not enough.
    async fn confirm(&mut self, sentinel: &mut S::Sentinel) -> Result<(), Event> {
        while !self.monitor.health().is_up() {
            sleep(self.monitor.next_ping(PING_INTERVAL)).await;
            self.ping(sentinel).await?;
        }
        Ok(())
    }

    /// Lets the work be looked after, and waits without a connection until there is a reason to look again.
    async fn rest(&mut self, interval: Duration) {
        self.shared.nudge.notify_one();
        let looked = Instant::now();
        tokio::select! {
            () = sleep(interval) => {}
            () = self.shared.look.notified() => sleep_until(looked + LOOK_SPACING).await,
            Ok(()) = self.duty.changed() => {}
        }
    }

    /// Stays with an open connection until it ends.
    async fn attend(&mut self, sentinel: &mut S::Sentinel, interval: Duration) -> End {
        loop {
            let pause = sleep(self.monitor.next_ping(interval));
            tokio::pin!(pause);
            loop {
                tokio::select! {
                    () = &mut pause => break,
                    sign = sentinel.next_sign() => match sign {
                        Sign::Nudge => self.shared.nudge.notify_one(),
                        Sign::Lost(why) => return End::Doubt(Event::Lost(why)),
                    },
                    () = self.shared.worked.notified(), if sentinel.provisional() => return End::Reopen,
                    Ok(()) = self.duty.changed() => {
                        let wanted = opened_with::<S>(&self.duty.borrow_and_update().base);
                        if Some(wanted) != self.opened {
                            return End::Reopen;
                        }
                    }
                }
            }
            if let Err(event) = self.ping(sentinel).await {
                return End::Doubt(event);
            }
        }
    }

    async fn ping(&mut self, sentinel: &mut S::Sentinel) -> Result<(), Event> {
        let before = Instant::now();
        match timeout(PING_DEADLINE, sentinel.ping()).await {
            Ok(Ok(())) => {
                self.shared.live.pinged(before.elapsed());
                self.tell(Event::PingOk);
                Ok(())
            }
            Ok(Err(error)) => Err(Event::Lost(error.to_string())),
            Err(_) => Err(Event::Silent),
        }
    }

    /// The first attempt follows at once and decides between a lost connection and a lost server.
    async fn reconnect(&mut self, old: S::Sentinel, end: End) -> S::Sentinel {
        drop(old);
        if let End::Doubt(event) = end {
            self.shared.live.reconnects.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(store = %self.name(), ?event, "sentinel connection ended");
            self.tell(event);
        }
        let sentinel = self.connect().await;
        // What was announced in between was not heard.
        self.shared.nudge.notify_one();
        sentinel
    }

    /// Tries until it works.
    async fn connect(&mut self) -> S::Sentinel {
        let since = Instant::now();
        // Asked for before, it is done now.
        let _asked = self.shared.look.notified().now_or_never();
        loop {
            let delay = match self.attempt().await {
                Ok(sentinel) => return sentinel,
                Err(StoreError::LoginRefused(_) | StoreError::Untrusted(_) | StoreError::Pooled(_)) => {
                    self.shared.refused_logins.another();
                    None
                }
                Err(StoreError::LockedOut(_)) => {
                    self.shared.refused_logins.locked();
                    None
                }
                Err(_) => {
                    let jitter = rand::random_range(0.8..1.2);
                    let delay = retry_delay(since.elapsed(), self.monitor.seen(), self.longest_delay());
                    Some(delay.mul_f64(jitter))
                }
            };
            let pause = async {
                match delay {
                    Some(delay) => sleep(delay).await,
                    None => self.shared.refused_logins.pause().await,
                }
            };
            tokio::select! {
                () = pause => {}
                Ok(()) = self.duty.changed() => {}
            }
        }
    }

    fn longest_delay(&self) -> Duration {
        match self.attention() {
            Attention::Held(_) => LONGEST_DELAY,
            Attention::OnDemand(interval) => interval.min(LONGEST_DELAY_ON_DEMAND),
        }
    }

    async fn attempt(&mut self) -> Result<S::Sentinel, StoreError> {
        let deadline = match self.attention() {
            Attention::Held(_) if self.monitor.health().is_up() && self.monitor.is_doubtful() => PING_DEADLINE,
            Attention::Held(_) if self.monitor.health().is_up() => REOPEN_DEADLINE,
            // One that sleeps takes its time to wake up.
            _ => CONNECT_DEADLINE,
        };
        let duty = self.duty.borrow_and_update().clone();
        let outcome = timeout(deadline, S::open(&duty.base)).await;
        let (event, result) = match outcome {
            Ok(Ok((sentinel, identity))) => {
                self.opened = Some(opened_with::<S>(&duty.base));
                return Ok(self.logged_in(sentinel, identity));
            }
            Ok(Err(error)) => (failure(&error), Err(error)),
            Err(_) => (
                Event::Silent,
                Err(StoreError::Unreachable("no answer in time".to_owned())),
            ),
        };
        self.tell(event);
        result
    }

    fn logged_in(&mut self, sentinel: S::Sentinel, identity: ServerIdentity) -> S::Sentinel {
        // A slice that ended before this login says nothing about it.
        let _stale = self.shared.worked.notified().now_or_never();
        self.shared.refused_logins.forget();
        self.tell(Event::Up(identity));
        sentinel
    }

    /// Tells the monitor, publishes its verdict, and lets the worker go or stops it.
    fn tell(&mut self, event: Event) {
        let connected = matches!(event, Event::Up(_) | Event::PingOk);
        let before = self.monitor.health().clone();
        self.monitor.on(
            event,
            Moment {
                steady: self.started.elapsed(),
                wall: Timestamp::now(),
            },
        );
        let health = self.monitor.health();
        if health != &before {
            if health.verdict != before.verdict {
                tracing::info!(store = %self.name(), verdict = ?health.verdict, reason = ?health.reason, message = %health.message, "verdict");
            }
            self.shared.publish(|snapshot| snapshot.health = health.clone());
        }
        // Held back as Flapping, the server can be worked on all the same: it answers.
        let serving = connected || health.verdict == Verdict::Up;
        self.shared
            .serving
            .send_if_modified(|now| std::mem::replace(now, serving) != serving);
    }

    fn name(&self) -> String {
        format!("{}/{}", self.shared.key.namespace, self.shared.key.database)
    }
}

fn opened_with<S: Store>(base: &S::Base) -> (Endpoint, Attention) {
    (S::endpoint(base).clone(), S::attention(base))
}

fn failure(error: &StoreError) -> Event {
    match error {
        StoreError::Unreachable(why) | StoreError::Rejected(why) => Event::Refused(why.clone()),
        StoreError::LoginRefused(why) | StoreError::LockedOut(why) => Event::LoginRefused(why.clone()),
        StoreError::Untrusted(why) => Event::Barred(Reason::Untrusted, why.clone()),
        StoreError::Pooled(why) => Event::Barred(Reason::Pooled, why.clone()),
    }
}

/// Grows with the outage (an eighth of it, so waiting adds at most that), after the dense time of a server never seen.
fn retry_delay(outage: Duration, seen: bool, longest: Duration) -> Duration {
    let dense = if seen { Duration::ZERO } else { DENSE_TIME };
    let delay = outage.saturating_sub(dense) / 8;
    delay.clamp(DENSE_DELAY, longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_an_eighth_of_the_outage() {
        let table = [
            (0, false, 50),
            (59_000, false, 50),
            (64_000, false, 500),
            (600_000, false, 2_000),
            (0, true, 50),
            (4_000, true, 500),
            (60_000, true, 2_000),
        ];
        for (outage, seen, delay) in table {
            let got = retry_delay(Duration::from_millis(outage), seen, LONGEST_DELAY);
            assert_eq!(got.as_millis(), delay, "after {outage} ms");
        }
    }
}
