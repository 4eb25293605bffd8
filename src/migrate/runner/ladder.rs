//! How a transaction comes to its locks without others standing behind it: when to ask again, and how. No I/O.
//!
//! All locks are taken at the start of the transaction that needs them, in one order, all or none. First without waiting
//! (NOWAIT), every 20 ms: nobody queues behind that. After a second, if those who are in the way come and go, by standing
//! in the queue of one table for a moment with nothing in hand: short readers back to back never leave a gap otherwise.
//! While somebody stays, queueing would stop everybody else for nothing, so it is asked without waiting. If only
//! autovacuum is in the way, one wait is long enough for the server to send it away.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::migrate::blockers::{Blocker, Wanted};

/// As long as this is waited without standing in any queue.
const POLITE: Duration = Duration::from_secs(1);
const EVERY: Duration = Duration::from_millis(20);
/// Who has been seen this long ago stays: the queue would not move.
const STAYS: Duration = Duration::from_millis(150);
/// Between two looks at who is in the way.
const LOOK: Duration = Duration::from_millis(200);
/// In the queue, or for a lock that no list had: as long as an application may well stand still, in ms.
const MOMENT: std::ops::RangeInclusive<u64> = 50..=100;
/// For a lock that no list had, when no strong one is known of: it may be a row's, which stops few.
const UNKNOWN: Duration = Duration::from_secs(1);
/// Beyond deadlock_timeout, after which an autovacuum worker in the way is cancelled.
const BEYOND: Duration = Duration::from_millis(200);
/// The longest pause while nobody is seen in the way.
const LONGEST: Duration = Duration::from_secs(2);
/// Deadlocks and serialization failures of one transaction.
const COLLISIONS: u32 = 5;

/// How the locks are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rung {
    /// All without waiting.
    NoWait,
    /// For this long in the queue of the table with this oid, the others without waiting.
    Queue(i64, Duration),
}

/// The attempts of one transaction.
pub(super) struct Ladder {
    started: Instant,
    patience: Duration,
    /// What no list had is waited for this long.
    unlisted: Patience,
    rung: Rung,
    /// When each transaction in the way was seen first.
    seen: HashMap<(i32, String), Instant>,
    looked: Option<Instant>,
    /// Autovacuum workers that were waited for.
    waited_for: Vec<i32>,
    /// Looks in a row that showed nobody: the lock that is missing is on no list.
    nobody: u32,
    collisions: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Patience {
    Moment,
    Second,
    Whole,
}

impl Ladder {
    /// `blocks`: others wait while it waits; `unlisted`: it may take locks that are not known before.
    pub fn new(patience: Duration, blocks: bool, unlisted: bool) -> Self {
        let unlisted = match (blocks, unlisted) {
            (true, _) => Patience::Moment,
            (false, true) => Patience::Second,
            (false, false) => Patience::Whole,
        };
        Self {
            started: Instant::now(),
            patience,
            unlisted,
            rung: Rung::NoWait,
            seen: HashMap::new(),
            looked: None,
            waited_for: Vec::new(),
            nobody: 0,
            collisions: 0,
        }
    }

    pub fn waited(&self) -> Duration {
        self.started.elapsed()
    }

    pub fn is_over(&self) -> bool {
        self.waited() >= self.patience
    }

    /// A deadlock or the like: whether to try again.
    pub fn collided(&mut self) -> bool {
        self.collisions += 1;
        self.collisions <= COLLISIONS && !self.is_over()
    }

    /// What comes after BEGIN, and how many statements that is.
    pub fn lead(&self, wanted: &[Wanted]) -> (String, usize) {
        let rest = match self.rung {
            // what comes and goes on this table may do so on what no list had
            Rung::Queue(_, time) if wanted.is_empty() => time,
            _ => self.beyond_the_list(),
        };
        let mut statements = Vec::new();
        if let Rung::Queue(table, time) = self.rung
            && let Some(first) = wanted.iter().find(|wanted| wanted.oid == table)
        {
            statements.push(timeout(time));
            statements.push(format!("LOCK TABLE {} IN {} MODE", first.name, first.mode));
        }
        let first = match self.rung {
            Rung::Queue(table, _) => Some(table),
            Rung::NoWait => None,
        };
        let others = wanted.iter().filter(|wanted| Some(wanted.oid) != first);
        statements.extend(others.map(|wanted| format!("LOCK TABLE {} IN {} MODE NOWAIT", wanted.name, wanted.mode)));
        statements.push(timeout(rest));
        let count = statements.len();
        (statements.iter().map(|sql| format!("{sql}; ")).collect(), count)
    }

    fn beyond_the_list(&self) -> Duration {
        match self.unlisted {
            Patience::Moment => moment(),
            Patience::Second => UNKNOWN,
            Patience::Whole => self
                .patience
                .saturating_sub(self.waited())
                .max(Duration::from_millis(1)),
        }
    }

    /// The time in a queue, if the next attempt is to stand in one.
    pub fn queues(&self) -> Option<Duration> {
        match self.rung {
            Rung::NoWait => None,
            Rung::Queue(_, time) => Some(time),
        }
    }

    /// Whether it is time to see who is in the way.
    pub fn wants_look(&self) -> bool {
        self.looked.is_none_or(|at| at.elapsed() >= LOOK) || self.waited() >= POLITE
    }

    /// Chooses the next attempt by who is in the way, if that was looked at; gives the pause before it.
    pub fn next(&mut self, look: Option<&[Blocker]>, deadlock_timeout: Duration) -> Duration {
        let Some(blockers) = look else {
            self.rung = Rung::NoWait;
            return EVERY;
        };
        let now = Instant::now();
        self.looked = Some(now);
        let before = std::mem::take(&mut self.seen);
        for blocker in blockers {
            let key = (blocker.pid, blocker.transaction.clone());
            let first = before.get(&key).copied().unwrap_or(now);
            self.seen.insert(key, first);
        }
        self.rung = self.choose(blockers, now, deadlock_timeout);
        self.nobody = if blockers.is_empty() { self.nobody + 1 } else { 0 };
        match self.rung {
            _ if self.nobody > 0 => (EVERY * 2u32.pow(self.nobody.min(8) - 1)).min(LONGEST),
            Rung::Queue(..) => Duration::from_millis(rand::random_range(5..=25)),
            // a session that stays for minutes is not asked after fifty times a second
            Rung::NoWait => EVERY.max(self.waited() / 500).min(LOOK),
        }
    }

    fn choose(&mut self, blockers: &[Blocker], now: Instant, deadlock_timeout: Duration) -> Rung {
        let fresh = |blocker: &&Blocker| !self.waited_for.contains(&blocker.pid);
        if blockers.iter().all(|blocker| blocker.autovacuum)
            && let Some(worker) = blockers.iter().find(fresh)
        {
            self.waited_for.push(worker.pid);
            return Rung::Queue(worker.oid, deadlock_timeout + BEYOND);
        }
        let stays = self.seen.values().any(|&first| now.duration_since(first) >= STAYS);
        if self.waited() < POLITE || stays {
            return Rung::NoWait;
        }
        Rung::Queue(blockers.first().map_or(0, |blocker| blocker.oid), moment())
    }
}

/// In a queue, no longer than an application may stand still.
pub(super) fn moment() -> Duration {
    Duration::from_millis(rand::random_range(MOMENT))
}

/// As a statement. Zero would be for ever.
pub(super) fn timeout(time: Duration) -> String {
    format!(
        "SET LOCAL lock_timeout = '{}ms'",
        time.as_millis().clamp(1, i32::MAX as u128)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migrate::analysis::LockMode;

    const DEADLOCK: Duration = Duration::from_secs(1);

    fn wanted() -> Vec<Wanted> {
        let one = |oid, name: &str, mode| Wanted {
            oid,
            name: name.into(),
            mode,
        };
        vec![
            one(1, "a", LockMode::AccessExclusive),
            one(2, "b", LockMode::ShareRowExclusive),
        ]
    }

    fn blocker(pid: i32, transaction: &str, autovacuum: bool) -> Blocker {
        Blocker {
            pid,
            oid: 2,
            transaction: transaction.into(),
            table: "b".into(),
            autovacuum,
            application: None,
            user: None,
            state: None,
            seconds: None,
            query_seconds: None,
        }
    }

    /// A ladder that has waited for so long.
    fn after(ms: u64) -> Ladder {
        let mut ladder = Ladder::new(Duration::from_secs(60), true, false);
        ladder.started -= Duration::from_millis(ms);
        ladder
    }

    #[test]
    fn first_nobody_queues_behind_it() {
        let mut ladder = after(0);
        let (sql, count) = ladder.lead(&wanted());
        assert!(sql.starts_with("LOCK TABLE a IN ACCESS EXCLUSIVE MODE NOWAIT; LOCK TABLE b IN SHARE ROW EXCLUSIVE MODE NOWAIT; SET LOCAL lock_timeout"));
        assert_eq!(count, 3);
        assert_eq!(ladder.next(Some(&[blocker(1, "1/1", false)]), DEADLOCK), EVERY);
        assert_eq!(ladder.rung, Rung::NoWait);
        assert_eq!(ladder.next(None, DEADLOCK), EVERY);
    }

    #[test]
    fn behind_those_who_come_and_go_it_queues_with_nothing_in_hand() {
        let mut ladder = after(1100);
        ladder.next(Some(&[blocker(1, "1/1", false)]), DEADLOCK);
        let Rung::Queue(2, time) = ladder.rung else {
            panic!("{:?}", ladder.rung)
        };
        assert!((50..=100).contains(&time.as_millis()));
        let (sql, _) = ladder.lead(&wanted());
        let order = [
            "SET LOCAL lock_timeout",
            "LOCK TABLE b IN SHARE ROW EXCLUSIVE MODE; ",
            "LOCK TABLE a IN ACCESS EXCLUSIVE MODE NOWAIT",
        ];
        let places: Vec<usize> = order.iter().map(|part| sql.find(part).unwrap()).collect();
        assert!(places.is_sorted(), "{sql}");
        ladder.next(Some(&[blocker(1, "1/2", false)]), DEADLOCK);
        assert!(matches!(ladder.rung, Rung::Queue(2, _)), "another transaction");
    }

    #[test]
    fn behind_one_who_stays_it_does_not_queue() {
        let mut ladder = after(1100);
        let first = Instant::now() - STAYS;
        ladder.seen.insert((1, "1/1".into()), first);
        ladder.next(Some(&[blocker(1, "1/1", false), blocker(2, "2/1", false)]), DEADLOCK);
        assert_eq!(ladder.rung, Rung::NoWait);
    }

    #[test]
    fn autovacuum_is_waited_for_once() {
        let mut ladder = after(0);
        ladder.next(Some(&[blocker(1, "1/1", true), blocker(2, "2/1", false)]), DEADLOCK);
        assert_eq!(ladder.rung, Rung::NoWait, "not alone");
        ladder.next(Some(&[blocker(1, "1/1", true)]), DEADLOCK);
        assert_eq!(ladder.rung, Rung::Queue(2, DEADLOCK + BEYOND));
        ladder.next(Some(&[blocker(1, "1/1", true)]), DEADLOCK);
        assert_eq!(ladder.rung, Rung::NoWait, "it did not give way");
    }

    #[test]
    fn what_no_list_had_is_asked_for_less_and_less() {
        let mut ladder = after(1100);
        let pauses: Vec<_> = (0..9).map(|_| ladder.next(Some(&[]), DEADLOCK).as_millis()).collect();
        assert_eq!(pauses, [20, 40, 80, 160, 320, 640, 1280, 2000, 2000]);
    }

    #[test]
    fn who_blocks_nobody_may_wait() {
        for (blocks, unlisted, expected) in [
            (false, false, 59_000..=60_000),
            (false, true, 1000..=1000),
            (true, true, 50..=100),
        ] {
            let ladder = Ladder::new(Duration::from_secs(60), blocks, unlisted);
            let (sql, _) = ladder.lead(&[]);
            let ms: u128 = sql.split('\'').nth(1).unwrap().trim_end_matches("ms").parse().unwrap();
            assert!(expected.contains(&ms), "{sql}");
        }
    }
}
