//! The leader lease: one operator writes at a time. Taken and renewed by compare-and-swap on the Lease's resource version.
//!
//! The renewal is the operator's only periodic API request. A lost lease ends the process: nothing may be written by one who does not lead.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
    time::{Duration, Instant},
};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};
use tokio::sync::watch;

/// How long a lease is good for after its last renewal.
const DURATION: Duration = Duration::from_secs(15);
/// How often it is renewed.
const RENEWAL: Duration = Duration::from_secs(5);
/// How often a candidate looks at somebody else's lease.
const LOOK: Duration = Duration::from_secs(2);

/// Until when this process leads; `None` while it does not.
pub type Leading = watch::Receiver<Option<Instant>>;

/// A candidate for one Lease.
pub struct Candidate {
    api: Api<Lease>,
    name: String,
    holder: String,
    until: watch::Sender<Option<Instant>>,
    held: Option<Lease>,
}

/// Why leading ended.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    #[error("the leader lease was taken by {0:?}")]
    Taken(String),
    #[error("the leader lease could not be renewed in time: {0}")]
    Expired(String),
}

impl Candidate {
    /// `holder` is the Pod's name: a restarted container finds its own lease and goes on at once.
    pub fn new(client: Client, namespace: &str, name: &str, holder: &str) -> (Self, Leading) {
        let (until, leading) = watch::channel(None);
        (
            Self {
                api: Api::namespaced(client, namespace),
                name: name.into(),
                holder: holder.into(),
                until,
                held: None,
            },
            leading,
        )
    }

    /// Waits until this process leads.
    pub async fn acquire(&mut self) {
        let mut rival: Option<(String, Instant)> = None;
        loop {
            match self.try_acquire(&mut rival).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%error, lease = self.name, "cannot read or take the leader lease; trying again")
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// One look. A rival's lease is free when its version has not moved for its duration by our own clock.
    async fn try_acquire(&mut self, rival: &mut Option<(String, Instant)>) -> Result<bool, kube::Error> {
        let asked = Instant::now();
        let taken = match self.api.get_opt(&self.name).await? {
            None => self.api.create(&PostParams::default(), &self.lease(None)).await?,
            Some(lease) => {
                let holder = lease
                    .spec
                    .as_ref()
                    .and_then(|spec| spec.holder_identity.clone())
                    .unwrap_or_default();
                let version = lease.metadata.resource_version.clone().unwrap_or_default();
                if !holder.is_empty() && holder != self.holder {
                    let since = rival.get_or_insert_with(|| (version.clone(), asked));
                    if since.0 != version {
                        tracing::info!(holder, "another operator leads; waiting");
                        *since = (version, asked);
                    }
                    if since.1.elapsed() < DURATION {
                        return Ok(false);
                    }
                }
                self.api
                    .replace(&self.name, &PostParams::default(), &self.lease(Some(&lease)))
                    .await?
            }
        };
        self.held = Some(taken);
        self.until.send_replace(Some(asked + DURATION));
        Ok(true)
    }

    /// Renews until that fails for good. Returns why.
    pub async fn keep(&mut self) -> LeaseError {
        loop {
            tokio::time::sleep(RENEWAL).await;
            if let Err(error) = self.renew().await {
                return error;
            }
        }
    }

    async fn renew(&mut self) -> Result<(), LeaseError> {
        let expiry = (*self.until.borrow()).unwrap_or_else(Instant::now);
        loop {
            let asked = Instant::now();
            let lease = self.lease(self.held.as_ref());
            let params = PostParams::default();
            let request = self.api.replace(&self.name, &params, &lease);
            let problem = match tokio::time::timeout(Duration::from_secs(3), request).await {
                Ok(Ok(renewed)) => {
                    self.held = Some(renewed);
                    self.until.send_replace(Some(asked + DURATION));
                    return Ok(());
                }
                Ok(Err(kube::Error::Api(status))) if status.is_conflict() => {
                    self.resolve_conflict().await?;
                    "conflict".to_owned()
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer within 3 s".to_owned(),
            };
            if Instant::now() + Duration::from_secs(1) > expiry {
                self.until.send_replace(None);
                return Err(LeaseError::Expired(problem));
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// A conflict is either an edit by somebody or the end of our leading.
    async fn resolve_conflict(&mut self) -> Result<(), LeaseError> {
        let Ok(lease) = self.api.get(&self.name).await else {
            return Ok(());
        };
        let holder = lease
            .spec
            .as_ref()
            .and_then(|spec| spec.holder_identity.clone())
            .unwrap_or_default();
        if holder != self.holder {
            self.until.send_replace(None);
            return Err(LeaseError::Taken(holder));
        }
        self.held = Some(lease);
        Ok(())
    }

    /// Gives the lease up, so that a successor need not wait for it to run out.
    pub async fn release(mut self) {
        self.until.send_replace(None);
        let Some(mut lease) = self.held.take() else { return };
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = Some(String::new());
        }
        let params = PostParams::default();
        let released = self.api.replace(&self.name, &params, &lease);
        if let Ok(Err(error)) = tokio::time::timeout(Duration::from_secs(3), released).await {
            tracing::warn!(%error, "the leader lease could not be given up; it runs out by itself");
        }
    }

    fn lease(&self, old: Option<&Lease>) -> Lease {
        let now = MicroTime(Timestamp::now());
        let ours = old
            .and_then(|old| old.spec.as_ref())
            .filter(|spec| spec.holder_identity.as_deref() == Some(&self.holder));
        let transitions = old
            .and_then(|old| old.spec.as_ref()?.lease_transitions)
            .unwrap_or_default();
        Lease {
            metadata: old.map_or_else(
                || ObjectMeta {
                    name: Some(self.name.clone()),
                    ..ObjectMeta::default()
                },
                |old| old.metadata.clone(),
            ),
            spec: Some(LeaseSpec {
                holder_identity: Some(self.holder.clone()),
                lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
                acquire_time: ours
                    .and_then(|spec| spec.acquire_time.clone())
                    .or_else(|| Some(now.clone())),
                renew_time: Some(now),
                lease_transitions: Some(transitions + i32::from(ours.is_none())),
                ..LeaseSpec::default()
            }),
        }
    }
}

/// Until when a write may be under way: 5 s, but 3 s before the lease would run out. `None`: nothing may be written.
pub fn write_deadline(leading: &Leading) -> Option<Instant> {
    let until = (*leading.borrow())?;
    let now = Instant::now();
    let last = until.checked_sub(Duration::from_secs(3)).filter(|last| *last > now)?;
    Some(last.min(now + Duration::from_secs(5)))
}

/// Drives a write until the deadline; `None` when it was not over by then. The clock is asked before every step, and not a timer beside it: a process
/// that was frozen must not send what is left before it notices.
pub async fn in_time<T>(deadline: Instant, write: impl Future<Output = T>) -> Option<T> {
    let (mut write, mut late) = (pin!(write), pin!(tokio::time::sleep_until(deadline.into())));
    poll_fn(|context| {
        if Instant::now() >= deadline || late.as_mut().poll(context).is_ready() {
            return Poll::Ready(None);
        }
        write.as_mut().poll(context).map(Some)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_ends_before_the_lease_does() {
        let seconds = |left: Option<u64>| {
            let until = left.map(|left| Instant::now() + Duration::from_secs(left));
            let (_sender, leading) = watch::channel(until);
            write_deadline(&leading)
                .map(|deadline| deadline.duration_since(Instant::now()).as_secs_f64().round() as u64)
        };
        assert_eq!(seconds(None), None, "not leading");
        assert_eq!([seconds(Some(15)), seconds(Some(6))], [Some(5), Some(3)]);
        assert_eq!([seconds(Some(3)), seconds(Some(0))], [None, None]);
    }

    #[tokio::test]
    async fn a_process_that_was_frozen_sends_nothing_more() {
        let mut sent = 0;
        let write = async {
            loop {
                sent += 1;
                // Frozen, as far as the clock can tell; and then the answer is there at once.
                std::thread::sleep(Duration::from_millis(30));
                tokio::task::yield_now().await;
            }
        };
        let outcome: Option<()> = in_time(Instant::now() + Duration::from_millis(20), write).await;
        assert_eq!((outcome, sent), (None, 1));
        assert_eq!(
            in_time(Instant::now() + Duration::from_secs(5), async { 7 }).await,
            Some(7)
        );
    }
}
