//! The work queue of one kind: wakes go in from anywhere, each object is reconciled by one slot at a time, failures wait their backoff.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{Stream, StreamExt, channel::mpsc};
use kube::{
    ResourceExt,
    runtime::{
        controller::{Action, Config, applier},
        reflector::{ObjectRef, Store},
    },
};

use super::{
    Own,
    backoff::Backoff,
    metrics::{Kind, KindOutcome, Metrics},
    writer::WriteError,
};

/// How many objects of one kind are reconciled at the same time.
const CONCURRENCY: u16 = 8;
/// The longest time one reconcile may take; its single requests have shorter deadlines.
const LIMIT: Duration = Duration::from_secs(60);

/// How a reconcile ended when nothing failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything declared is in.
    Converged,
    /// Something is on its way; a watch or a keeper wakes the object.
    Waiting,
    /// A human has to change something.
    Invalid,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Converged => "converged",
            Self::Waiting => "waiting",
            Self::Invalid => "invalid",
        }
    }
}

/// A verdict, and when to look again without being woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next {
    pub verdict: Verdict,
    pub after: Option<Duration>,
}

/// Why a reconcile could not finish: always worth another try.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("the reconcile did not end within {0:?}")]
    TooLong(Duration),
}

/// Puts objects into a queue by namespace and name.
pub struct Waker<K: Own>(mpsc::UnboundedSender<ObjectRef<K>>);

impl<K: Own> Clone for Waker<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K: Own> Waker<K> {
    pub fn wake(&self, namespace: &str, name: &str) {
        // The queue is gone only when the process ends.
        let _ = self.0.unbounded_send(ObjectRef::new(name).within(namespace));
    }
}

/// A queue's two ends.
pub fn channel<K: Own>() -> (Waker<K>, mpsc::UnboundedReceiver<ObjectRef<K>>) {
    let (sender, receiver) = mpsc::unbounded();
    (Waker(sender), receiver)
}

/// The reconcile of one kind.
pub trait Reconcile<K>: Send + Sync + 'static {
    fn reconcile(&self, object: Arc<K>) -> impl Future<Output = Result<Next, ReconcileError>> + Send;
    /// Lets go of everything that a reconcile has put down for an object.
    fn forget(&self, object: &K);
}

/// Runs the queue of one kind until `shutdown` ends, then lets the reconciles at work finish.
pub async fn run<K: Own, R: Reconcile<K>>(
    reconciler: Arc<R>,
    cache: Store<K>,
    queue: impl Stream<Item = ObjectRef<K>> + Send + 'static,
    metrics: Metrics,
    shutdown: impl Future<Output = ()> + Send + 'static,
) {
    struct Shared<R> {
        reconciler: Arc<R>,
        backoff: Backoff,
        metrics: Metrics,
    }
    let present = cache.clone();
    let shared = Arc::new(Shared {
        reconciler,
        backoff: Backoff::default(),
        metrics,
    });
    let key = |object: &K| format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any());
    let reconcile = move |object: Arc<K>,
                          shared: Arc<Shared<R>>|
          -> Pin<Box<dyn Future<Output = Result<Action, ReconcileError>> + Send>> {
        let present = present.clone();
        Box::pin(async move {
            let started = Instant::now();
            let result = tokio::time::timeout(LIMIT, shared.reconciler.reconcile(object.clone())).await;
            let result = result.unwrap_or(Err(ReconcileError::TooLong(LIMIT)));
            // It was forgotten when it went, which may have been before this reconcile put down what it had decided.
            let now = present.get(&ObjectRef::from_obj(&*object));
            let gone = now.is_none_or(|now| now.uid() != object.uid());
            if gone {
                shared.reconciler.forget(&object);
            }
            shared
                .metrics
                .reconcile_seconds
                .get_or_create(&Kind { kind: K::KIND })
                .observe(started.elapsed().as_secs_f64());
            let outcome = result.as_ref().map_or("error", |next| next.verdict.word());
            shared
                .metrics
                .reconciles
                .get_or_create(&KindOutcome { kind: K::KIND, outcome })
                .inc();
            let next = match result {
                // Nothing is left that it could have failed at.
                Err(_) if gone => return Ok(Action::await_change()),
                result => result?,
            };
            shared.backoff.succeeded(&key(&object));
            Ok(next.after.map_or_else(Action::await_change, Action::requeue))
        })
    };
    let on_error = move |object: Arc<K>, error: &ReconcileError, shared: Arc<Shared<R>>| {
        let wait = shared.backoff.failed(&key(&object));
        let asked = match error {
            ReconcileError::Write(error) => error.retry_after(),
            ReconcileError::TooLong(_) => None,
        };
        let wait = asked.map_or(wait, |asked| asked.max(wait));
        tracing::warn!(kind = K::KIND, object = key(&object), %error, retry_in_ms = wait.as_millis() as u64, "reconcile failed");
        Action::requeue(wait)
    };
    let queue = queue.map(Ok::<_, std::convert::Infallible>).take_until(shutdown);
    applier(
        reconcile,
        on_error,
        shared,
        cache,
        queue,
        Config::default().concurrency(CONCURRENCY),
    )
    // An object that is gone by its turn is the only other error.
    .for_each(|_| std::future::ready(()))
    .await;
}

#[cfg(test)]
mod tests {
    use kube::runtime::{reflector, watcher::Event};
    use serde_json::json;
    use tokio::sync::{Notify, mpsc::UnboundedSender};

    use super::*;
    use crate::api::cache_policy::CachePolicy;

    fn policy(uid: &str) -> CachePolicy {
        let metadata = json!({"name": "p", "namespace": "n", "uid": uid});
        let object = json!({"apiVersion": "amas.dev/v1alpha1", "kind": "CachePolicy", "metadata": metadata, "spec": {"databaseRef": {"name": "d"}}});
        serde_json::from_value(object).unwrap()
    }

    /// Says what it does, and goes on when it is told to.
    struct Told {
        said: UnboundedSender<String>,
        go_on: Notify,
    }

    impl Reconcile<CachePolicy> for Told {
        async fn reconcile(&self, object: Arc<CachePolicy>) -> Result<Next, ReconcileError> {
            let _ = self
                .said
                .send(format!("reconcile {}", object.uid().unwrap_or_default()));
            self.go_on.notified().await;
            Ok(Next {
                verdict: Verdict::Converged,
                after: None,
            })
        }

        fn forget(&self, object: &CachePolicy) {
            let _ = self.said.send(format!("forget {}", object.uid().unwrap_or_default()));
        }
    }

    #[tokio::test]
    async fn what_goes_or_is_replaced_during_its_reconcile_is_forgotten_after_it() {
        let (said, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let go_on = Notify::new();
        let reconciler = Arc::new(Told { said, go_on });
        let (cache, mut watched) = reflector::store();
        for event in [Event::Init, Event::InitApply(policy("one")), Event::InitDone] {
            watched.apply_watcher_event(&event);
        }
        let (waker, queue) = channel();
        let running = tokio::spawn(run(
            reconciler.clone(),
            cache,
            queue,
            Metrics::default(),
            std::future::pending(),
        ));
        waker.wake("n", "p");
        assert_eq!(heard.recv().await.unwrap(), "reconcile one");
        watched.apply_watcher_event(&Event::Delete(policy("one")));
        watched.apply_watcher_event(&Event::Apply(policy("two")));
        waker.wake("n", "p");
        reconciler.go_on.notify_one();
        assert_eq!(heard.recv().await.unwrap(), "forget one");
        // Its successor's turn comes after that, and what stays is not forgotten.
        assert_eq!(heard.recv().await.unwrap(), "reconcile two");
        reconciler.go_on.notify_one();
        waker.wake("n", "p");
        assert_eq!(heard.recv().await.unwrap(), "reconcile two");
        watched.apply_watcher_event(&Event::Delete(policy("two")));
        reconciler.go_on.notify_one();
        assert_eq!(heard.recv().await.unwrap(), "forget two");
        running.abort();
    }
}
