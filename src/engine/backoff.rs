//! How long to wait before the next try of one object: doubling with jitter, forgotten after a success.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(60);

/// The delay before try `attempt` (counted from 0), where `jitter` in 0..1 takes away up to a quarter.
pub fn delay(attempt: u32, jitter: f64) -> Duration {
    let full = FIRST
        .saturating_mul(1u32.checked_shl(attempt).unwrap_or(u32::MAX))
        .min(LONGEST);
    full.mul_f64(1.0 - 0.25 * jitter.clamp(0.0, 1.0))
}

/// Attempts in a row that failed, an object each.
#[derive(Default)]
pub struct Backoff(Mutex<HashMap<String, u32>>);

impl Backoff {
    /// Counts a failure of `key` and gives the time to wait.
    pub fn failed(&self, key: &str) -> Duration {
        let mut attempts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let attempt = attempts.entry(key.to_owned()).or_default();
        let wait = delay(*attempt, rand::random());
        *attempt = attempt.saturating_add(1);
        wait
    }

    /// Forgets the failures of `key`.
    pub fn succeeded(&self, key: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_a_minute() {
        assert_eq!(delay(0, 0.0), FIRST);
        assert_eq!(delay(3, 0.0), FIRST * 8);
        assert_eq!(delay(40, 0.0), LONGEST);
        assert_eq!(delay(40, 1.0), LONGEST * 3 / 4);
    }

    #[test]
    fn is_kept_an_object_each_and_reset_by_success() {
        let backoff = Backoff::default();
        for _ in 0..20 {
            backoff.failed("a");
        }
        assert!(backoff.failed("a") >= LONGEST * 3 / 4);
        assert!(backoff.failed("b") <= FIRST);
        backoff.succeeded("a");
        assert!(backoff.failed("a") <= FIRST);
    }
}
