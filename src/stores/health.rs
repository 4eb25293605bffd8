//! From pings, signs and refused connections to one verdict a store: pure, so that every rule is a table test.
//!
//! What goes in: events with the time they happened at. What comes out: a [`Health`] that changes seldom,
//! because every change of it costs a status write. The keeper does the waiting and the connecting.

use std::time::Duration;

use jiff::Timestamp;

use crate::stores::keeper::ServerIdentity;

/// Two losses within this time are flapping; flapping ends after this time without a loss.
pub const FLAP_WINDOW: Duration = Duration::from_secs(30);
/// A loss within this time after flapping ended is flapping again at once.
pub const FLAP_MEMORY: Duration = Duration::from_secs(60);
/// Between two pings of a server that is well.
pub const PING_INTERVAL: Duration = Duration::from_secs(2);
/// Between the first and the second good sign after an outage.
pub const CONFIRM_INTERVAL: Duration = Duration::from_millis(100);
/// Servers that tell an uptime in whole seconds seem to start up to a second earlier or later each time they are asked.
const START_TOLERANCE: Duration = Duration::from_millis(1_500);

/// How a server is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Attention {
    /// Over a connection that stays open and is pinged this often.
    Held(Duration),
    /// By looking this often, and when there is a reason to; no connection stays open.
    OnDemand(Duration),
}

impl Default for Attention {
    fn default() -> Self {
        Self::Held(PING_INTERVAL)
    }
}

/// Does the server serve?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing was heard yet since this operator started: keep what the status says.
    #[default]
    Unknown,
    Up,
    Down,
}

/// Why the verdict is what it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reason {
    /// The server was not reached yet since this operator started; the message says how the last attempt ended.
    #[default]
    NeverSeen,
    Serving,
    ConnectionRefused,
    ConnectionLost,
    /// The server takes connections or keeps them open, but does not answer.
    Timeout,
    /// The server serves but not us: read the credentials again.
    LoginRefused,
    /// A certificate, the server's or ours, is not accepted.
    Untrusted,
    /// A pooler answers that does not keep a session together.
    Pooled,
    /// Lost twice within 30 s; Up comes back after 30 s without a further loss.
    Flapping,
}

/// What the sentinel says of its server.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Health {
    pub verdict: Verdict,
    pub reason: Reason,
    /// How the last failed attempt ended; empty while Up. Never contains a credential. A new message alone is not material.
    pub message: String,
    /// Of the last login that counted; empty before the first.
    pub identity: ServerIdentity,
    /// When verdict or reason last changed; the epoch while Unknown.
    pub since: Timestamp,
}

impl Health {
    pub fn is_up(&self) -> bool {
        self.verdict == Verdict::Up
    }

    /// Whether an object that showed `before` has to show something else now.
    pub fn differs_materially(&self, before: &Health) -> bool {
        (self.verdict, self.reason, &self.identity, self.since)
            != (before.verdict, before.reason, &before.identity, before.since)
    }
}

/// What happened on the sentinel's side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Logged in: the first good sign of a connection.
    Up(ServerIdentity),
    PingOk,
    /// End of file or reset on an open connection, or in the middle of connecting.
    Lost(String),
    /// The server could not be reached or answered that it does not serve yet.
    Refused(String),
    /// No answer within the deadline.
    Silent,
    LoginRefused(String),
    /// No session can come about until something is changed: for the given reason.
    Barred(Reason, String),
}

impl Reason {
    /// Whether only a person can put it right; such a reason is shown whatever was said before.
    pub fn bars(self) -> bool {
        matches!(self, Self::LoginRefused | Self::Untrusted | Self::Pooled)
    }
}

/// The time of an event, on both clocks: windows are measured on the steady one, `since` is told on the wall's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Since any fixed start.
    pub steady: Duration,
    pub wall: Timestamp,
}

/// The state machine behind one [`Health`].
#[derive(Clone, Debug, Default)]
pub struct Monitor {
    health: Health,
    /// The connection was lost a moment ago and the one immediate reconnect is under way.
    doubtful: bool,
    /// A good sign has been seen since the flip; the next one counts.
    confirming: bool,
    seen: bool,
    /// Told at the last login; shown from the next Up on, so that a restart is one change and not two.
    identity: ServerIdentity,
    last_loss: Option<Duration>,
    flapping: bool,
    calm_since: Option<Duration>,
}

impl Monitor {
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Whether a login has succeeded since this monitor was made.
    pub fn seen(&self) -> bool {
        self.seen
    }

    /// How long to wait before the next ping of an open connection that is pinged this often.
    pub fn next_ping(&self, usual: Duration) -> Duration {
        if self.confirming && !self.flapping {
            CONFIRM_INTERVAL
        } else {
            usual
        }
    }

    /// Takes one event in.
    pub fn on(&mut self, event: Event, at: Moment) {
        match event {
            Event::Up(identity) => self.logged_in(identity, at),
            Event::PingOk => self.good_sign(at),
            Event::Lost(why) => self.bad_sign(Reason::ConnectionLost, why, at),
            Event::Refused(why) => self.failed(Reason::ConnectionRefused, why, at),
            Event::Silent => self.bad_sign(Reason::Timeout, "no answer in time".to_owned(), at),
            Event::LoginRefused(why) => self.failed(Reason::LoginRefused, why, at),
            Event::Barred(reason, why) => self.failed(reason, why, at),
        }
    }

    fn logged_in(&mut self, identity: ServerIdentity, at: Moment) {
        self.doubtful = false;
        let restarted = restarted(&self.identity, &identity);
        if restarted {
            self.identity = identity;
        }
        if self.health.is_up() && restarted {
            // Restarted faster than our reconnect: one such is only a new start time, a second loss is flapping.
            self.lose(at);
            if self.flapping {
                return self.set(Verdict::Down, Reason::Flapping, "restarted repeatedly".to_owned(), at);
            }
            self.health.identity = self.identity.clone();
        }
        // A first login needs no second opinion; after an outage it is the first of two good signs.
        if std::mem::replace(&mut self.seen, true) {
            self.good_sign(at)
        } else {
            self.serve(at)
        }
    }

    fn good_sign(&mut self, at: Moment) {
        self.doubtful = false;
        if self.health.is_up() {
            return;
        }
        if !std::mem::replace(&mut self.confirming, true) || self.held(at) {
            return;
        }
        self.serve(at);
    }

    fn serve(&mut self, at: Moment) {
        self.confirming = false;
        if std::mem::take(&mut self.flapping) {
            self.calm_since = Some(at.steady);
        }
        self.health.identity = self.identity.clone();
        self.set(Verdict::Up, Reason::Serving, String::new(), at);
    }

    /// Whether the next attempt decides if the server is lost.
    pub fn is_doubtful(&self) -> bool {
        self.doubtful
    }

    /// The first bad sign of an open connection only casts doubt: the keeper reconnects at once, and that decides. So does the first silence after a
    /// start of the operator, as long as the status says what was before.
    fn bad_sign(&mut self, reason: Reason, why: String, at: Moment) {
        let stands = match self.health.verdict {
            Verdict::Up => true,
            Verdict::Unknown => reason == Reason::Timeout,
            Verdict::Down => false,
        };
        if stands && !std::mem::replace(&mut self.doubtful, true) {
            return;
        }
        self.failed(reason, why, at);
    }

    fn failed(&mut self, reason: Reason, why: String, at: Moment) {
        self.doubtful = false;
        let was_confirming = std::mem::take(&mut self.confirming);
        match self.health.verdict {
            Verdict::Up => {
                self.lose(at);
                let reason = if self.flapping && !reason.bars() {
                    Reason::Flapping
                } else {
                    reason
                };
                self.set(Verdict::Down, reason, why, at);
            }
            Verdict::Unknown => self.set(Verdict::Down, first_reason(reason), why, at),
            // One reason stays for the whole outage, or a restarting server would write status at each attempt.
            Verdict::Down if reason.bars() => self.set(Verdict::Down, reason, why, at),
            Verdict::Down => {
                if was_confirming && self.flapping {
                    self.last_loss = Some(at.steady);
                }
                // Each restart fails in its own words; told, they would be as many status writes.
                if !self.flapping {
                    self.health.message = why;
                }
            }
        }
    }

    fn lose(&mut self, at: Moment) {
        let within = |mark: Option<Duration>, window| mark.is_some_and(|then| at.steady.saturating_sub(then) < window);
        self.flapping |= within(self.last_loss, FLAP_WINDOW) || within(self.calm_since, FLAP_MEMORY);
        self.last_loss = Some(at.steady);
    }

    fn held(&self, at: Moment) -> bool {
        self.flapping
            && self
                .last_loss
                .is_some_and(|loss| at.steady.saturating_sub(loss) < FLAP_WINDOW)
    }

    fn set(&mut self, verdict: Verdict, reason: Reason, message: String, at: Moment) {
        if (self.health.verdict, self.health.reason) != (verdict, reason) {
            self.health.since = at.wall;
        }
        self.health = Health {
            verdict,
            reason,
            message,
            ..std::mem::take(&mut self.health)
        };
    }
}

fn first_reason(reason: Reason) -> Reason {
    if reason.bars() { reason } else { Reason::NeverSeen }
}

fn restarted(before: &ServerIdentity, now: &ServerIdentity) -> bool {
    let moved = match (before.started_at, now.started_at) {
        (Some(a), Some(b)) => a.duration_since(b).unsigned_abs() > START_TOLERANCE,
        (a, b) => a != b,
    };
    moved || before.version != now.version
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> Moment {
        let steady = Duration::from_secs_f64(seconds);
        Moment {
            steady,
            wall: Timestamp::from_second(1_700_000_000).unwrap() + steady,
        }
    }

    fn server(started: i64) -> ServerIdentity {
        ServerIdentity {
            version: "17.6".into(),
            started_at: Some(Timestamp::from_second(started).unwrap()),
        }
    }

    fn up() -> Event {
        Event::Up(server(0))
    }

    fn lost() -> Event {
        Event::Lost("eof".into())
    }

    fn refused() -> Event {
        Event::Refused("refused".into())
    }

    fn no_login() -> Event {
        Event::LoginRefused("wrong password".into())
    }

    /// Feeds events and tells verdict and reason after the last.
    fn after(events: impl IntoIterator<Item = (f64, Event)>) -> (Verdict, Reason) {
        let mut monitor = Monitor::default();
        for (seconds, event) in events {
            monitor.on(event, at(seconds));
        }
        (monitor.health.verdict, monitor.health.reason)
    }

    #[test]
    fn verdicts() {
        use Event::{PingOk, Silent};
        let serving = (Verdict::Up, Reason::Serving);
        let down = |reason| (Verdict::Down, reason);
        let table = [
            ("nothing heard", vec![], (Verdict::Unknown, Reason::NeverSeen)),
            ("the first good sign is enough", vec![(0., up())], serving),
            (
                "never seen",
                vec![(0., refused()), (1., Silent), (2., refused())],
                down(Reason::NeverSeen),
            ),
            ("first seen", vec![(0., refused()), (1., up())], serving),
            (
                "one silence after a start",
                vec![(0., Silent)],
                (Verdict::Unknown, Reason::NeverSeen),
            ),
            (
                "silent from the start",
                vec![(0., Silent), (5., Silent)],
                down(Reason::NeverSeen),
            ),
            ("never let in", vec![(0., no_login())], down(Reason::LoginRefused)),
            ("let in at last", vec![(0., no_login()), (5., up())], serving),
            (
                "a closed idle connection",
                vec![(0., up()), (9., lost()), (9., up())],
                serving,
            ),
            (
                "a lost server",
                vec![(0., up()), (9., lost()), (9., refused())],
                down(Reason::ConnectionRefused),
            ),
            (
                "reset twice",
                vec![(0., up()), (9., lost()), (9., lost())],
                down(Reason::ConnectionLost),
            ),
            ("one unanswered ping", vec![(0., up()), (9., Silent)], serving),
            (
                "silent",
                vec![(0., up()), (9., Silent), (10., Silent)],
                down(Reason::Timeout),
            ),
            (
                "one reason an outage",
                vec![(0., up()), (9., Silent), (10., Silent), (11., refused())],
                down(Reason::Timeout),
            ),
            (
                "two good signs",
                vec![(0., up()), (9., lost()), (9., refused()), (10., up())],
                down(Reason::ConnectionRefused),
            ),
            (
                "back",
                vec![(0., up()), (9., lost()), (9., refused()), (10., up()), (10.1, PingOk)],
                serving,
            ),
            (
                "lost again before the second sign",
                vec![
                    (0., up()),
                    (9., lost()),
                    (9., refused()),
                    (10., up()),
                    (10.1, lost()),
                    (11., up()),
                ],
                down(Reason::ConnectionRefused),
            ),
            (
                "password changed",
                vec![(0., up()), (9., lost()), (9., no_login())],
                down(Reason::LoginRefused),
            ),
            (
                "password changed in the outage",
                vec![
                    (0., up()),
                    (9., lost()),
                    (9., refused()),
                    (10., no_login()),
                    (11., refused()),
                ],
                down(Reason::LoginRefused),
            ),
        ];
        for (name, events, expected) in table {
            assert_eq!(after(events), expected, "{name}");
        }
    }

    fn blip(seconds: f64) -> Vec<(f64, Event)> {
        vec![
            (seconds, lost()),
            (seconds, refused()),
            (seconds + 0.2, up()),
            (seconds + 0.3, Event::PingOk),
        ]
    }

    #[test]
    fn two_losses_in_30_s_flap_until_30_s_are_calm() {
        let mut events = vec![(0., up())];
        events.extend(blip(10.));
        events.extend(blip(20.));
        assert_eq!(after(events.clone()), (Verdict::Down, Reason::Flapping));
        events.push((49., Event::PingOk));
        assert_eq!(after(events.clone()), (Verdict::Down, Reason::Flapping));
        events.push((50.5, Event::PingOk));
        assert_eq!(after(events.clone()), (Verdict::Up, Reason::Serving));
        events.extend([(100., lost()), (100., refused())]);
        assert_eq!(
            after(events),
            (Verdict::Down, Reason::Flapping),
            "flapping is remembered for a minute"
        );

        let mut events = vec![(0., up())];
        events.extend(blip(10.));
        events.extend(blip(41.));
        assert_eq!(after(events), (Verdict::Up, Reason::Serving), "two blips far apart");
    }

    #[test]
    fn while_it_flaps_each_failure_in_its_own_words_changes_nothing() {
        let mut monitor = Monitor::default();
        let mut events = vec![(0., up())];
        events.extend(blip(10.));
        events.extend(blip(20.));
        for (seconds, event) in events {
            monitor.on(event, at(seconds));
        }
        let told = monitor.health.clone();
        for (seconds, event) in [(22., lost()), (23., Event::Refused("starting up".into())), (24., up())] {
            monitor.on(event, at(seconds));
            assert_eq!(monitor.health, told);
        }
    }

    #[test]
    fn a_fast_restart_is_a_new_start_time_and_the_second_is_flapping() {
        let mut monitor = Monitor::default();
        monitor.on(Event::Up(server(0)), at(0.));
        let first = monitor.health.clone();
        monitor.on(lost(), at(5.));
        monitor.on(Event::Up(server(1)), at(5.));
        assert_eq!(monitor.health, first, "an uptime counted in whole seconds");
        monitor.on(lost(), at(9.));
        monitor.on(Event::Up(server(9)), at(9.));
        assert!(monitor.health.is_up() && monitor.health.differs_materially(&first));
        monitor.on(lost(), at(15.));
        monitor.on(Event::Up(server(15)), at(15.));
        assert_eq!(
            (monitor.health.verdict, monitor.health.reason),
            (Verdict::Down, Reason::Flapping)
        );
        assert_eq!(monitor.health.identity, server(9), "a restart is one change");
    }

    #[test]
    fn a_message_alone_wakes_nobody() {
        let mut monitor = Monitor::default();
        monitor.on(refused(), at(0.));
        let before = monitor.health.clone();
        monitor.on(Event::Refused("no such host".into()), at(1.));
        assert_ne!(monitor.health, before);
        assert!(!monitor.health.differs_materially(&before));
    }

    /// Plays a server that is down for `outage` at the end of every `period`, as the keeper's watcher would see it,
    /// and counts the material changes after the first verdict.
    fn changes_while_restarting(times: u32, period: f64, outage: f64) -> u32 {
        let mut monitor = Monitor::default();
        let (mut now, mut connected, mut changes) = (0.0, None::<u32>, 0);
        let end = f64::from(times) * period;
        let life = |t: f64| ((t.min(end) / period) as u32, t >= end || t % period < period - outage);
        let mut lost_at = 0.0;
        while now < end + 100.0 {
            let (round, alive) = life(now);
            let before = monitor.health.clone();
            let up = Event::Up(server(i64::from(round) * 10));
            let wait = match connected {
                Some(since) if since == round && alive => {
                    monitor.on(Event::PingOk, at(now));
                    monitor.next_ping(PING_INTERVAL).as_secs_f64()
                }
                Some(_) => {
                    lost_at = now;
                    monitor.on(lost(), at(now));
                    monitor.on(if alive { up } else { refused() }, at(now));
                    connected = alive.then_some(round);
                    0.05
                }
                None => {
                    monitor.on(if alive { up } else { refused() }, at(now));
                    connected = alive.then_some(round);
                    ((now - lost_at) / 8.0).clamp(0.05, 2.0)
                }
            };
            changes += u32::from(monitor.health.differs_materially(&before) && before.verdict != Verdict::Unknown);
            // An end of file is seen at once, whatever ping was planned.
            let death = f64::from(round + 1) * period - outage;
            let seen_death = connected.is_some() && now < death && death < end && now + wait > death;
            now = if seen_death { death + 1e-6 } else { now + wait };
        }
        assert!(monitor.health.is_up(), "calm at last");
        changes
    }

    #[test]
    fn twenty_restarts_in_a_minute_are_at_most_four_changes() {
        for outage in [0.0, 0.001, 0.05, 0.1, 0.3, 0.5, 1.0, 1.5, 2.0, 2.5, 2.9] {
            let changes = changes_while_restarting(20, 3.0, outage);
            assert!(
                (1..=4).contains(&changes),
                "{changes} changes with outages of {outage} s"
            );
        }
    }

    #[test]
    fn one_restart_is_two_changes_and_a_fast_one_is_one() {
        assert_eq!(changes_while_restarting(1, 40.0, 1.0), 2);
        assert_eq!(changes_while_restarting(1, 40.0, 0.0), 1);
    }
}
