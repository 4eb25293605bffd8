//! The registry and the two tasks of a keeper, with an engine that does as it is told, in paused time.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use amas_operator::{
    api::sensitive::Sensitive,
    stores::{
        endpoint::{Endpoint, StoreError, Tls},
        health::{Reason, Verdict},
        keeper::{Departure, Duty, Keepers, Key, Parting, Progress, Sentinel, ServerIdentity, Sign, Snapshot, Store},
    },
};
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, sleep},
};

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Mood {
    #[default]
    Well,
    Gone,
    Silent,
    /// Half a second a login.
    Slow,
    Forbidding,
    /// Lets a stand-in in.
    Unfinished,
}

#[derive(Debug, Default)]
struct State {
    mood: Mood,
    logins: u32,
    open: u32,
    /// What the next slices end with; `None`: done.
    outcome: Option<Result<Progress, StoreError>>,
    stuck: bool,
    seen: Vec<BTreeSet<String>>,
    partings: Vec<Parting>,
}

/// The server and its engine's base at once.
#[derive(Clone, Debug)]
struct Puppet {
    state: Arc<Mutex<State>>,
    moved: Arc<Notify>,
    endpoint: Endpoint,
    revision: u32,
}

impl PartialEq for Puppet {
    fn eq(&self, other: &Self) -> bool {
        (&self.endpoint, self.revision) == (&other.endpoint, other.revision)
    }
}

impl Puppet {
    fn new(mood: Mood) -> Self {
        let password = Sensitive::new("");
        let endpoint = Endpoint {
            host: "h".into(),
            port: 1,
            tls: Tls::Disable,
            user: "u".into(),
            password,
        };
        let state = Arc::new(Mutex::new(State {
            mood,
            ..State::default()
        }));
        Self {
            state,
            moved: Arc::default(),
            endpoint,
            revision: 0,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn becomes(&self, mood: Mood) {
        self.state().mood = mood;
        self.moved.notify_waiters();
    }

    /// Logins so far, and open connections.
    fn logins(&self) -> (u32, u32) {
        let state = self.state();
        (state.logins, state.open)
    }

    fn slices(&self) -> usize {
        self.state().seen.len()
    }
}

struct Connection(Puppet, bool);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.state().open -= 1;
    }
}

impl Sentinel for Connection {
    async fn next_sign(&mut self) -> Sign {
        loop {
            let moved = self.0.moved.notified();
            if self.0.state().mood == Mood::Gone {
                return Sign::Lost("end of file".into());
            }
            moved.await;
        }
    }

    async fn ping(&mut self) -> Result<(), StoreError> {
        if self.0.state().mood == Mood::Silent {
            std::future::pending::<()>().await;
        }
        Ok(())
    }

    fn provisional(&self) -> bool {
        self.1
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Engine;

/// Material, and not.
#[derive(Clone, Debug, Default, PartialEq)]
struct Facts {
    slices: usize,
    figure: usize,
}

impl Store for Engine {
    type Base = Puppet;
    type Policy = u32;
    type Facts = Facts;
    type Sentinel = Connection;
    type Worker = ();

    fn endpoint(base: &Puppet) -> &Endpoint {
        &base.endpoint
    }

    async fn open(base: &Puppet) -> Result<(Connection, ServerIdentity), StoreError> {
        let mood = base.state().mood;
        base.state().logins += 1;
        match mood {
            Mood::Gone => return Err(StoreError::Unreachable("refused".into())),
            Mood::Forbidding => return Err(StoreError::LoginRefused("wrong password".into())),
            Mood::Silent => std::future::pending().await,
            Mood::Slow => sleep(Duration::from_millis(500)).await,
            Mood::Well | Mood::Unfinished => {}
        }
        base.state().open += 1;
        Ok((
            Connection(base.clone(), mood == Mood::Unfinished),
            ServerIdentity::default(),
        ))
    }

    fn is_managed(_: &Puppet) -> bool {
        false
    }

    async fn part(base: &Puppet, how: Parting) -> Result<Vec<String>, StoreError> {
        base.state().partings.push(how);
        match base.state().mood {
            Mood::Gone => Err(StoreError::Unreachable("refused".into())),
            _ => Ok(vec!["a table".into()]),
        }
    }

    async fn work(_: &mut (), duty: &Duty<Self>, facts: &mut Facts) -> Result<Progress, StoreError> {
        let stuck = {
            let mut state = duty.base.state();
            state.seen.push(duty.policies.keys().cloned().collect());
            if state.mood == Mood::Unfinished {
                state.mood = Mood::Well;
            }
            facts.figure = state.seen.len();
            state.stuck
        };
        if stuck {
            std::future::pending::<()>().await;
        }
        facts.slices = facts.figure / 100;
        let outcome = duty.base.state().outcome.clone();
        outcome.unwrap_or(Ok(Progress::Done { again_in: None }))
    }

    fn differs_materially(before: &Facts, after: &Facts) -> bool {
        before.slices != after.slices
    }
}

struct Stage {
    keepers: Keepers<Engine>,
    key: Key,
    wakes: mpsc::UnboundedReceiver<Key>,
}

impl Stage {
    fn new() -> Self {
        let (wake, wakes) = mpsc::unbounded_channel();
        let key = Key {
            namespace: "n".into(),
            database: "d".into(),
        };
        Self {
            keepers: Keepers::new(wake),
            key,
            wakes,
        }
    }

    /// With a base assigned.
    fn with(puppet: &Puppet) -> Self {
        let stage = Self::new();
        stage.keepers.assign_base(&stage.key, puppet.clone());
        stage
    }

    fn snapshot(&self) -> Arc<Snapshot<Engine>> {
        self.keepers.snapshot(&self.key).unwrap()
    }

    fn wakes(&mut self) -> usize {
        std::iter::from_fn(|| self.wakes.try_recv().ok()).count()
    }
}

async fn seconds(seconds: f64) {
    sleep(Duration::from_secs_f64(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn duties_come_in_any_order_and_equal_ones_do_nothing() {
    let puppet = Puppet::new(Mood::Well);
    let mut stage = Stage::new();
    stage.keepers.assign_policy(&stage.key, "a", 1);
    assert!(stage.keepers.snapshot(&stage.key).is_none());
    stage.keepers.assign_base(&stage.key, puppet.clone());
    seconds(1.).await;
    stage.keepers.assign_policy(&stage.key, "a", 1);
    stage.keepers.assign_base(&stage.key, puppet.clone());
    seconds(1.).await;
    assert_eq!(puppet.slices(), 1);
    stage.keepers.assign_policy(&stage.key, "b", 2);
    seconds(1.).await;
    stage.keepers.withdraw_policy(&stage.key, "a");
    seconds(1.).await;
    let seen: Vec<String> = puppet
        .state()
        .seen
        .iter()
        .map(|set| set.iter().cloned().collect())
        .collect();
    assert_eq!(seen, ["a", "ab", "b"]);
    assert_eq!(stage.wakes(), 1, "Up; figures wake nobody");

    stage.keepers.dismiss(&stage.key);
    seconds(0.1).await;
    assert_eq!(puppet.state().open, 0, "the connection is closed");
    assert!(stage.keepers.snapshot(&stage.key).is_none());
    stage.keepers.assign_base(&stage.key, puppet.clone());
    seconds(1.).await;
    assert_eq!(
        puppet.state().seen.last(),
        Some(&["b".to_owned()].into()),
        "policies outlive the base"
    );
    assert_eq!(puppet.state().logins, 2);
}

#[tokio::test(start_paused = true)]
async fn leaving_is_tried_until_it_is_done_or_its_time_is_up() {
    let puppet = Puppet::new(Mood::Gone);
    let mut stage = Stage::new();
    let patience = Duration::from_secs(20);
    stage.keepers.part(&stage.key, puppet.clone(), Parting::Drop, patience);
    stage.keepers.part(&stage.key, puppet.clone(), Parting::Drop, patience);
    seconds(3.).await;
    let refused = Some(Departure::UnderWay(Some("refused".into())));
    assert_eq!(stage.keepers.departure(&stage.key), refused);
    let tries = puppet.state().partings.len();
    assert!((3..=6).contains(&tries), "{tries} tries in 3 s");
    assert_eq!(stage.wakes(), 1, "the first failure is told");
    puppet.becomes(Mood::Well);
    seconds(6.).await;
    let done = Some(Departure::Done(vec!["a table".into()]));
    assert_eq!((stage.keepers.departure(&stage.key), stage.wakes()), (done, 1));

    puppet.becomes(Mood::Gone);
    stage
        .keepers
        .part(&stage.key, puppet.clone(), Parting::Release, patience);
    seconds(60.).await;
    let tries = puppet.state().partings.len();
    seconds(60.).await;
    assert_eq!(puppet.state().partings.len(), tries, "given up");
    assert_eq!(stage.keepers.departure(&stage.key), refused);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_not_ours_is_told_when_we_go() {
    let puppet = Puppet::new(Mood::Well);
    let stage = Stage::with(&puppet);
    seconds(1.).await;
    stage.keepers.let_go(&stage.key);
    stage.keepers.let_go(&stage.key);
    seconds(1.).await;
    assert_eq!(puppet.state().partings, [Parting::Release]);
    assert!(stage.keepers.snapshot(&stage.key).is_none());
    // Made again, it is kept as before.
    stage.keepers.assign_base(&stage.key, puppet.clone());
    seconds(1.).await;
    assert_eq!((stage.keepers.departure(&stage.key), puppet.slices()), (None, 2));
}

#[tokio::test(start_paused = true)]
async fn paused_nothing_is_done_and_health_goes_on() {
    let puppet = Puppet::new(Mood::Well);
    let stage = Stage::new();
    stage.keepers.pause(&stage.key, true);
    stage.keepers.assign_base(&stage.key, puppet.clone());
    seconds(5.).await;
    assert_eq!((stage.snapshot().health.is_up(), puppet.slices()), (true, 0));
    puppet.becomes(Mood::Gone);
    seconds(5.).await;
    assert!(!stage.snapshot().health.is_up());
    puppet.becomes(Mood::Well);
    stage.keepers.pause(&stage.key, false);
    seconds(40.).await;
    assert!(stage.snapshot().health.is_up() && puppet.slices() > 0);
}

#[tokio::test(start_paused = true)]
async fn a_server_is_found_fast_and_not_worked_on_before() {
    let puppet = Puppet::new(Mood::Gone);
    let stage = Stage::with(&puppet);
    seconds(20.).await;
    assert_eq!(
        (puppet.slices(), stage.snapshot().health.reason),
        (0, Reason::NeverSeen)
    );
    puppet.becomes(Mood::Well);
    seconds(0.06).await;
    assert!(stage.snapshot().health.is_up());
    assert_eq!(puppet.slices(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refused_login_is_not_hammered_and_a_new_base_is_tried_at_once() {
    let puppet = Puppet::new(Mood::Forbidding);
    let stage = Stage::with(&puppet);
    seconds(30.).await;
    assert_eq!(stage.snapshot().health.reason, Reason::LoginRefused);
    let logins = puppet.state().logins;
    assert!((5..=8).contains(&logins), "{logins}");
    seconds(1.5).await;
    puppet.state().mood = Mood::Well;
    stage.keepers.assign_base(
        &stage.key,
        Puppet {
            revision: 1,
            ..puppet.clone()
        },
    );
    seconds(0.01).await;
    assert!(stage.snapshot().health.is_up());
}

/// Servers count them an account: two tasks must not get there twice as fast.
#[tokio::test(start_paused = true)]
async fn after_refused_logins_both_tasks_keep_one_pause() {
    let puppet = Puppet::new(Mood::Well);
    let stage = Stage::with(&puppet);
    seconds(3.).await;
    let tried = || puppet.logins().0 as usize + puppet.slices();
    let before = tried();
    puppet.state().mood = Mood::Forbidding;
    puppet.state().outcome = Some(Err(StoreError::LoginRefused("wrong password".into())));
    let mut other = puppet.clone();
    other.endpoint.password = Sensitive::new("other");
    stage.keepers.assign_base(&stage.key, other);
    seconds(4.9).await;
    assert_eq!(tried() - before, 2, "never three within five seconds");
    // One second and five after the first, or five after both at once.
    seconds(1.2).await;
    assert_eq!(tried() - before, 3);
}

#[tokio::test(start_paused = true)]
async fn silence_flips_in_time_whenever_it_begins() {
    for offset in [0.0, 0.3, 1.0, 1.9, 2.0, 2.1] {
        let puppet = Puppet::new(Mood::Well);
        let mut stage = Stage::with(&puppet);
        seconds(5. + offset).await;
        stage.wakes();
        puppet.becomes(Mood::Silent);
        let begun = Instant::now();
        while stage.snapshot().health.is_up() {
            seconds(0.01).await;
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        assert_eq!(stage.snapshot().health.reason, Reason::Timeout);
        puppet.becomes(Mood::Well);
        seconds(6.).await;
        assert_eq!(stage.wakes(), 2, "one change down and one up");
    }
}

#[tokio::test(start_paused = true)]
async fn a_changed_login_opens_again_without_a_flip() {
    let puppet = Puppet::new(Mood::Well);
    let mut stage = Stage::with(&puppet);
    seconds(3.).await;
    stage.wakes();
    let mut other = puppet.clone();
    other.endpoint.user = "other".into();
    stage.keepers.assign_base(&stage.key, other);
    seconds(3.).await;
    assert_eq!((puppet.logins(), stage.wakes()), ((2, 1), 0));
}

#[tokio::test(start_paused = true)]
async fn a_login_that_changes_during_a_login_is_used_too() {
    let puppet = Puppet::new(Mood::Slow);
    let stage = Stage::with(&puppet);
    seconds(0.2).await;
    let mut other = puppet.clone();
    other.endpoint.user = "other".into();
    stage.keepers.assign_base(&stage.key, other);
    seconds(3.).await;
    assert_eq!(puppet.logins(), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_stand_in_is_replaced_after_the_first_work() {
    let puppet = Puppet::new(Mood::Unfinished);
    let mut stage = Stage::with(&puppet);
    seconds(10.).await;
    assert_eq!(
        (puppet.logins(), puppet.slices(), stage.wakes()),
        ((2, 1), 2, 1),
        "looked at again once the real login listens"
    );
}

#[tokio::test(start_paused = true)]
async fn failed_slices_are_retried_with_patience() {
    let puppet = Puppet::new(Mood::Well);
    puppet.state().outcome = Some(Err(StoreError::Rejected("no".into())));
    let stage = Stage::with(&puppet);
    seconds(20.).await;
    assert_eq!(puppet.slices(), 1);
    stage.keepers.nudge(&stage.key);
    seconds(0.2).await;
    stage.keepers.assign_policy(&stage.key, "a", 1);
    seconds(0.2).await;
    assert_eq!(puppet.slices(), 3, "a nudge and a new duty are tried at once");
    puppet.state().outcome = Some(Err(StoreError::Unreachable("reset".into())));
    seconds(29.).await;
    let before = puppet.slices();
    seconds(5.).await;
    assert!(
        (4..=6).contains(&(puppet.slices() - before)),
        "250 ms, 500 ms, 1 s, 2 s"
    );
}

#[tokio::test(start_paused = true)]
async fn stuck_slices_are_cut_off_and_a_lost_server_is_left_alone() {
    let puppet = Puppet::new(Mood::Well);
    puppet.state().stuck = true;
    let stage = Stage::with(&puppet);
    seconds(31.).await;
    assert_eq!(puppet.slices(), 2, "cut off after 30 s and begun again");
    assert_eq!(stage.snapshot().facts.figure, 1, "what was seen is told");
    puppet.becomes(Mood::Gone);
    seconds(5.).await;
    assert_eq!(stage.snapshot().health.verdict, Verdict::Down);
    assert_eq!(puppet.slices(), 2);
    puppet.state().stuck = false;
    puppet.becomes(Mood::Well);
    seconds(3.).await;
    assert_eq!(puppet.slices(), 3);
}

#[tokio::test(start_paused = true)]
async fn slices_follow_each_other_as_they_ask_to() {
    let puppet = Puppet::new(Mood::Well);
    puppet.state().outcome = Some(Ok(Progress::More {
        pause: Duration::from_millis(100),
    }));
    let mut stage = Stage::with(&puppet);
    seconds(1.05).await;
    assert_eq!(puppet.slices(), 11);
    puppet.state().outcome = Some(Ok(Progress::Done {
        again_in: Some(Duration::from_secs(60)),
    }));
    seconds(119.).await;
    assert_eq!(puppet.slices(), 13);
    assert_eq!(stage.wakes(), 1);
    // A burst of nudges is one slice every 100 ms.
    for _ in 0..100 {
        stage.keepers.nudge(&stage.key);
        seconds(0.01).await;
    }
    assert!((10..=13).contains(&(puppet.slices() - 13)), "{}", puppet.slices() - 13);
}
