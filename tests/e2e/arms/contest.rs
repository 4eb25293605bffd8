//! Rounds of a comparison: arms interleaved in random order, a second floor arm as control, ratios judged.

use std::time::Duration;

use rand::seq::SliceRandom;

use super::end_state::{self, Facts};
use crate::{
    cluster::namespaces,
    harness::{Result, context::Ctx},
};

/// Two floor arms of a round must not differ by more than this share.
const CONTROL: f64 = 0.15;
/// How many void rounds are repeated before all rounds are judged.
const REPEATS: usize = 3;
/// What the median of the ratios may be.
const TARGET: f64 = 1.5;

/// One arm's run.
pub struct Sample {
    pub took: Duration,
    pub facts: Facts,
    /// When its parts were done, in seconds.
    pub parts: String,
}

/// Something that the operator does, and that can be done by hand. Times run from just before the first object is applied.
pub trait Contest {
    fn name(&self) -> &'static str;
    async fn ours(&self, ctx: &Ctx, namespace: &str) -> Result<Sample>;
    async fn floor(&self, ctx: &Ctx, namespace: &str) -> Result<Sample>;
}

#[derive(Clone, Copy, PartialEq)]
enum Arm {
    Ours,
    Floor,
    Control,
}

/// Seconds of the arms of one round.
struct Round {
    ours: f64,
    floor: f64,
    control: f64,
}

impl Round {
    /// How far the two floor arms are apart.
    fn spread(&self) -> f64 {
        (self.floor - self.control).abs() / self.floor.min(self.control)
    }

    fn ratio(&self) -> f64 {
        self.ours / (self.floor * self.control).sqrt()
    }

    fn lowest_floor(&self) -> f64 {
        self.floor.min(self.control)
    }
}

/// Runs the rounds and records the ratio.
pub async fn run(ctx: &Ctx, contest: &impl Contest) -> Result {
    ctx.say(format!("{}: CPU pressure before: {}", contest.name(), pressure()));
    round(ctx, contest, &mut [Arm::Floor, Arm::Ours]).await?;
    let (mut valid, mut void) = (Vec::new(), Vec::new());
    while valid.len() < ctx.settings.rounds && void.len() <= REPEATS {
        let mut arms = [Arm::Ours, Arm::Floor, Arm::Control];
        arms.shuffle(&mut rand::rng());
        let result = round(ctx, contest, &mut arms).await?;
        ctx.say(format!(
            "round: ratio {:.2}, floors {:.0} % apart",
            result.ratio(),
            100.0 * result.spread()
        ));
        if result.spread() <= CONTROL {
            valid.push(result);
        } else {
            ctx.say(format!(
                "void: the machine is not quiet enough (CPU pressure {})",
                pressure()
            ));
            void.push(result);
        }
    }
    verdict(ctx, contest, valid, void);
    Ok(())
}

/// Runs only the floor arms, for looking at them without an operator.
pub async fn floors(ctx: &Ctx, contest: &impl Contest) -> Result {
    let mut rounds = Vec::new();
    for _ in 0..=ctx.settings.rounds {
        rounds.push(round(ctx, contest, &mut [Arm::Floor, Arm::Control]).await?);
    }
    let after_first = rounds.get(1..).unwrap_or_default();
    let spread = 100.0 * median(after_first.iter().map(Round::spread));
    let floor = median(after_first.iter().flat_map(|round| [round.floor, round.control]));
    let quiet = after_first.iter().filter(|round| round.spread() <= CONTROL).count();
    let value = format!(
        "median {floor:.2} s, floors apart by {spread:.0} % (median), {quiet} of {} rounds valid",
        after_first.len()
    );
    ctx.figure(format!("floor of {}", contest.name()), value, "printed", true);
    Ok(())
}

/// Every arm once, in its own namespace; end states must be equal.
async fn round(ctx: &Ctx, contest: &impl Contest, arms: &mut [Arm]) -> Result<Round> {
    let mut seconds = Round {
        ours: f64::NAN,
        floor: f64::NAN,
        control: f64::NAN,
    };
    let mut first: Option<(Arm, Facts)> = None;
    for arm in arms {
        let sample = run_arm(ctx, contest, *arm).await?;
        match arm {
            Arm::Ours => seconds.ours = sample.took.as_secs_f64(),
            Arm::Floor => seconds.floor = sample.took.as_secs_f64(),
            Arm::Control => seconds.control = sample.took.as_secs_f64(),
        }
        match &first {
            None => first = Some((*arm, sample.facts)),
            Some((Arm::Ours, facts)) => end_state::equal(facts, &sample.facts)?,
            Some((_, facts)) => end_state::equal(&sample.facts, facts)?,
        }
    }
    Ok(seconds)
}

async fn run_arm(ctx: &Ctx, contest: &impl Contest, arm: Arm) -> Result<Sample> {
    let (purpose, label) = match arm {
        Arm::Ours => ("ours", "operator"),
        Arm::Floor => ("floor", "floor"),
        Arm::Control => ("control", "floor (control)"),
    };
    let namespace = ctx.namespace(purpose).await?;
    let sample = match arm {
        Arm::Ours => contest.ours(ctx, &namespace).await?,
        Arm::Floor | Arm::Control => contest.floor(ctx, &namespace).await?,
    };
    let facts = sample.facts.len();
    ctx.say(format!(
        "{label}: {:.2} s ({}; {facts} facts)",
        sample.took.as_secs_f64(),
        sample.parts
    ));
    namespaces::discard(ctx, &namespace).await;
    Ok(sample)
}

/// Judges the valid rounds. On a machine that gave too few of them, all rounds are judged, and the figure says so: a product that is
/// slow fails either way.
fn verdict(ctx: &Ctx, contest: &impl Contest, valid: Vec<Round>, void: Vec<Round>) {
    let note = format!("{} valid rounds, {} void", valid.len(), void.len());
    let (rounds, note) = match valid.len() < ctx.settings.rounds {
        true => (
            valid.into_iter().chain(void).collect(),
            format!("not a quiet machine: {note}, all judged"),
        ),
        false => (valid, note),
    };
    let ratio = median(rounds.iter().map(Round::ratio));
    let ours = median(rounds.iter().map(|round| round.ours));
    let floor = median(rounds.iter().flat_map(|round| [round.floor, round.control]));
    let least = |values: Vec<f64>| values.into_iter().fold(f64::INFINITY, f64::min);
    let least_ratio = least(rounds.iter().map(|round| round.ours).collect())
        / least(rounds.iter().map(Round::lowest_floor).collect());
    let value = format!("{ratio:.2} ({ours:.1} s / {floor:.1} s; min/min {least_ratio:.2}; {note})");
    ctx.figure(
        format!("{}: apply to Ready / floor", contest.name()),
        value,
        format!("<= {TARGET}"),
        ratio <= TARGET,
    );
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match (values.len(), values.len() / 2) {
        (0, _) => f64::NAN,
        (length, middle) if length % 2 == 1 => values[middle],
        (_, middle) => (values[middle - 1] + values[middle]) / 2.0,
    }
}

/// The line `some` of the kernel's CPU pressure.
fn pressure() -> String {
    let text = std::fs::read_to_string("/proc/pressure/cpu").unwrap_or_default();
    text.lines().next().unwrap_or("not known").to_owned()
}
