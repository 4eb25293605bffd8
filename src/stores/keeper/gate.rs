//! Whether this process may still change anything on a server. Asked before every step of work, so that one who was frozen, and is no longer the one
//! who leads, sends nothing of what was left.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
};

use crate::stores::endpoint::StoreError;

/// See the file's head.
#[derive(Clone)]
pub struct Gate(Arc<dyn Fn() -> bool + Send + Sync>);

impl Gate {
    /// Open as long as `may` says so.
    pub fn new(may: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(may))
    }

    /// Drives work while the gate is open.
    pub async fn through<T>(&self, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let mut work = pin!(work);
        poll_fn(|context| match (self.0)() {
            true => work.as_mut().poll(context),
            false => Poll::Ready(Err(StoreError::Unreachable(
                "left alone: this operator no longer leads".to_owned(),
            ))),
        })
        .await
    }
}

impl Default for Gate {
    /// Always open.
    fn default() -> Self {
        Self::new(|| true)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn nothing_is_sent_once_it_is_shut() {
        let sent = Arc::new(AtomicUsize::new(0));
        let seen = sent.clone();
        let gate = Gate::new(move || seen.load(Ordering::Relaxed) < 3);
        let work = async {
            loop {
                sent.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        };
        let outcome: Result<(), _> = gate.through(work).await;
        assert!(matches!(outcome, Err(StoreError::Unreachable(_))));
        assert_eq!(sent.load(Ordering::Relaxed), 3);
        assert_eq!(Gate::default().through(async { Ok(7) }).await, Ok(7));
    }
}
