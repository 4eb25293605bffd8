//! How gently a sweep goes: as fast as it likes while the server answers at once, a quarter of the time when it does not.

use std::time::Duration;

/// Replies that keep the server busy for no longer than this are not worth a pause: other clients do not feel them.
const UNFELT: Duration = Duration::from_micros(500);
/// Pause per busy time: busy 1, idle 3 is a duty cycle of 25 %.
const IDLE_PER_BUSY: u32 = 3;
/// Timers are coarse, so short pauses are saved up to this.
const SHORTEST_PAUSE: Duration = Duration::from_millis(2);
/// A server that stalls once is not punished with a minute of silence.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// The pauses one sweep owes.
#[derive(Clone, Debug, Default)]
pub struct Pace {
    /// The network's share of a reply's time.
    round_trip: Duration,
    owed: Duration,
}

impl Pace {
    /// `round_trip` is the time of a command that costs the server nothing.
    pub fn new(round_trip: Duration) -> Self {
        Self {
            round_trip,
            owed: Duration::ZERO,
        }
    }

    /// Takes the time a page took; gives the pause that is due now.
    pub fn after(&mut self, page: Duration) -> Option<Duration> {
        let busy = page.saturating_sub(self.round_trip);
        if busy > UNFELT {
            self.owed = (self.owed + busy * IDLE_PER_BUSY).min(LONGEST_PAUSE);
        }
        (self.owed >= SHORTEST_PAUSE).then(|| std::mem::take(&mut self.owed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn micros(n: u64) -> Duration {
        Duration::from_micros(n)
    }

    #[test]
    fn pauses_only_when_the_server_is_felt() {
        let mut pace = Pace::new(micros(100));
        for (page, pause) in [
            (micros(300), None),
            (micros(600), None),
            (micros(700), None),
            (micros(700), Some(micros(3600))),
            (micros(1100), Some(micros(3000))),
            (Duration::from_secs(9), Some(LONGEST_PAUSE)),
            (micros(50), None),
        ] {
            assert_eq!(pace.after(page), pause, "{page:?}");
        }
    }

    #[test]
    fn a_slow_network_is_not_a_slow_server() {
        assert_eq!(Pace::new(micros(20_000)).after(micros(20_400)), None);
    }
}
