//! Arms of a measurement side by side: rounds in which each has its turn, in an order drawn anew, and a verdict on what they took.
//!
//! The first round warms up and does not count. No round begins while other work presses the processors. A ratio is taken within each round, and the
//! median of them judged; that of the best times stands beside it. Two arms that are the same tell how far chance goes.

use std::{
    cell::{Cell, RefCell},
    fs,
    process::ExitCode,
    time::{Duration, Instant},
};

use rand::seq::SliceRandom;
use tokio::time::sleep;

/// The pressure fades within seconds once nothing is done.
const FADING: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(300);
/// Where twins differ by more, nothing can be said.
const NOISE: f64 = 0.1;

/// What a figure has to keep to.
#[derive(Clone, Copy)]
pub enum Target {
    AtMost(f64),
    AtLeast(f64),
}

pub struct Rounds {
    count: usize,
    /// Percent of the last ten seconds in which something waited for a processor: above it no round begins.
    pressure: f64,
    /// What is measured now.
    name: RefCell<String>,
    /// Its twins differ.
    noisy: Cell<bool>,
    missed: Cell<usize>,
}

impl Rounds {
    /// `AMAS_BENCH_ROUNDS` and `AMAS_BENCH_PRESSURE`.
    pub fn from_env() -> Self {
        let number = |name: &str, default: f64| {
            std::env::var(name).map_or(default, |text| {
                text.parse().unwrap_or_else(|_| panic!("{name}: a number"))
            })
        };
        let rounds = Self {
            count: number("AMAS_BENCH_ROUNDS", 5.0) as usize,
            pressure: number("AMAS_BENCH_PRESSURE", 20.0),
            name: RefCell::default(),
            noisy: Cell::default(),
            missed: Cell::default(),
        };
        assert!(rounds.count > 0, "AMAS_BENCH_ROUNDS: at least 1");
        println!(
            "{} rounds and one to warm up, none while /proc/pressure/cpu is over {}. Ratios: the median of the rounds', and best by best",
            rounds.count, rounds.pressure
        );
        rounds
    }

    /// What each arm gave, in the rounds that count. Every line after it is about `name`.
    pub async fn of<A: Copy, T, const N: usize>(
        &self,
        name: &str,
        arms: [A; N],
        mut run: impl AsyncFnMut(A) -> T,
    ) -> [Vec<T>; N] {
        self.name.replace(name.to_owned());
        self.noisy.set(false);
        let mut seen = std::array::from_fn(|_| Vec::with_capacity(self.count));
        let mut order: [usize; N] = std::array::from_fn(|arm| arm);
        for round in 0..=self.count {
            self.quiet().await;
            order.shuffle(&mut rand::rng());
            for arm in order {
                let one = run(arms[arm]).await;
                if round > 0 {
                    seen[arm].push(one);
                }
            }
        }
        seen
    }

    /// Waits until the machine is; without a quiet machine there is no verdict.
    async fn quiet(&self) {
        let began = Instant::now();
        let mut told = false;
        while let Some(now) = pressure().filter(|now| *now > self.pressure) {
            let waited = began.elapsed();
            assert!(
                waited < PATIENCE,
                "no verdict: other work presses the processors, /proc/pressure/cpu says {now} (AMAS_BENCH_PRESSURE)"
            );
            if waited > FADING && !told {
                println!("round refused for now: /proc/pressure/cpu says {now}");
                told = true;
            }
            sleep(Duration::from_millis(500)).await;
        }
    }

    /// How far apart two arms are that are the same.
    pub fn twins(&self, one: &[Duration], other: &[Duration]) {
        self.noisy.set((ratios(one, other).0 - 1.0).abs() > NOISE);
        self.line("noise", &format!("ours to ours {}", compared(one, other)));
    }

    /// Judges one arm against another.
    pub fn ratio(&self, what: &str, one: &[Duration], other: &[Duration], target: Target) {
        let (within, _) = ratios(one, other);
        let (met, bound) = match target {
            Target::AtMost(most) => (within <= most, format!("at most {most}")),
            Target::AtLeast(least) => (within >= least, format!("at least {least}")),
        };
        self.verdict(met, &format!("{what} {}, {bound}", compared(one, other)));
    }

    /// Judges the longest of some times.
    pub fn longest(&self, what: &str, times: &[Duration], most: Duration) {
        let longest = times.iter().copied().max().unwrap_or_default();
        let middle = median(times);
        self.verdict(
            longest <= most,
            &format!("{what} {longest:.1?} (median {middle:.1?}), at most {most:?}"),
        );
    }

    pub fn verdict(&self, met: bool, what: &str) {
        let word = match (met, self.noisy.get()) {
            (_, true) => "unsure",
            (true, _) => "met",
            (false, _) => "missed",
        };
        if !met || self.noisy.get() {
            self.missed.set(self.missed.get() + 1);
        }
        self.line(word, what);
    }

    /// A ratio that is only told.
    pub fn tell(&self, what: &str, one: &[Duration], other: &[Duration]) {
        self.line("", &format!("{what} {}", compared(one, other)));
    }

    fn line(&self, word: &str, what: &str) {
        println!("{word:8}{}: {what}", self.name.borrow());
    }

    /// The last line.
    pub fn end(&self) -> ExitCode {
        match self.missed.get() {
            0 => println!("all targets met"),
            missed => println!("{missed} targets missed, or nothing can be said of them"),
        }
        ExitCode::from(u8::from(self.missed.get() > 0))
    }
}

fn compared(one: &[Duration], other: &[Duration]) -> String {
    let (within, best) = ratios(one, other);
    let (one, other) = (median(one), median(other));
    format!("{within:.3} (best by best {best:.3}; {one:.2?} to {other:.2?})")
}

/// The middle one.
fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort();
    times[times.len() / 2]
}

/// The median of the rounds' ratios, and that of the best times.
fn ratios(one: &[Duration], other: &[Duration]) -> (f64, f64) {
    let over = |one: Duration, other: Duration| one.as_secs_f64() / other.as_secs_f64();
    let mut within: Vec<f64> = one.iter().zip(other).map(|(one, other)| over(*one, *other)).collect();
    within.sort_by(f64::total_cmp);
    let best = |times: &[Duration]| times.iter().copied().min().unwrap();
    (within[within.len() / 2], over(best(one), best(other)))
}

/// The share of the last ten seconds in which something waited for a processor; None where the kernel does not tell.
fn pressure() -> Option<f64> {
    let text = fs::read_to_string("/proc/pressure/cpu").ok()?;
    let some = text.lines().find(|line| line.starts_with("some"))?;
    let value = some.split(' ').find_map(|part| part.strip_prefix("avg10="))?;
    value.parse().ok()
}
