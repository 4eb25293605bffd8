//! When a status is written: at most once a second an object, at once when it matters, later when it is only progress, never when nothing moved.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// The shortest time between two status writes of one object.
const LIMIT: Duration = Duration::from_secs(1);
/// How long progress that is no news by itself may wait, so that it is written together with what follows.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a change of mere figures waits after the last write.
const FIGURES: Duration = Duration::from_secs(600);

/// How much a change of status matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// Nothing moved.
    None,
    /// Figures moved, and enough to be worth a write now and then.
    Figures,
    /// A step on the way; somebody watching would like to see it.
    Progress,
    /// Readiness flipped, or a human is needed.
    News,
}

/// Whether to write now, or when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timing {
    Never,
    Now,
    In(Duration),
}

/// The rule. `since` is the time since the last write of this object by this process.
pub fn timing(weight: Weight, since: Option<Duration>) -> Timing {
    let pause = match weight {
        Weight::None => return Timing::Never,
        Weight::Figures => FIGURES,
        Weight::Progress => PATIENCE,
        Weight::News => LIMIT,
    };
    match since.map(|since| pause.saturating_sub(since)) {
        None | Some(Duration::ZERO) => Timing::Now,
        Some(left) => Timing::In(left),
    }
}

/// The last status of each object that this process wrote: newer than the watch cache right after a write.
pub struct Book<S>(Mutex<HashMap<String, (S, Instant)>>);

impl<S> Default for Book<S> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<S: Clone> Book<S> {
    /// What was last written to the object with this uid, and how long ago.
    pub fn last(&self, uid: &str) -> Option<(S, Duration)> {
        let book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        book.get(uid).map(|(status, at)| (status.clone(), at.elapsed()))
    }

    pub fn wrote(&self, uid: &str, status: S) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(uid.to_owned(), (status, Instant::now()));
    }

    pub fn forget(&self, uid: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_waits_a_second_progress_ten_figures_ten_minutes() {
        let seconds = |n| Some(Duration::from_secs(n));
        assert_eq!(timing(Weight::None, None), Timing::Never);
        assert_eq!(timing(Weight::Progress, None), Timing::Now);
        assert_eq!(timing(Weight::News, seconds(5)), Timing::Now);
        assert_eq!(timing(Weight::News, seconds(0)), Timing::In(LIMIT));
        assert_eq!(timing(Weight::Progress, seconds(1)), Timing::In(Duration::from_secs(9)));
        assert_eq!(
            timing(Weight::Figures, seconds(60)),
            Timing::In(Duration::from_secs(540))
        );
    }
}
