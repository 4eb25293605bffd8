//! Runs scenarios one after the other, then those that mind no company side by side; says what failed and shows why; goes on.

use std::{
    cell::RefCell,
    cmp::Reverse,
    time::{Duration, Instant},
};

use futures::{StreamExt, future::LocalBoxFuture};

use super::{Result, context::Ctx, report::Report};
use crate::cluster::{diagnostics, namespaces, operator};

/// How many scenarios run side by side at most: all of them at once would be more servers than a small machine starts in time.
const AT_ONCE: usize = 4;

/// One thing to be shown.
pub struct Scenario {
    pub name: &'static str,
    /// One line for `--list`.
    pub about: &'static str,
    /// The scenario is failed when it takes longer.
    pub limit: Duration,
    /// Whether the operator must be running (checked before, so that the failure is plain).
    pub needs_operator: bool,
    /// Run only when a filter names it.
    pub on_request: bool,
    /// Measures nothing that others disturb, so it runs side by side with its like.
    pub sociable: bool,
    pub run: for<'a> fn(&'a Ctx) -> LocalBoxFuture<'a, Result>,
}

impl Scenario {
    /// A scenario of the usual kind: it needs the operator and always runs.
    pub const fn new(
        name: &'static str,
        about: &'static str,
        minutes: u64,
        run: for<'a> fn(&'a Ctx) -> LocalBoxFuture<'a, Result>,
    ) -> Self {
        let limit = Duration::from_secs(60 * minutes);
        Self {
            name,
            about,
            limit,
            needs_operator: true,
            on_request: false,
            sociable: false,
            run,
        }
    }

    /// A scenario that runs side by side with others: it counts only its own namespaces, and seconds do not matter to it.
    pub const fn sociable(self) -> Self {
        Self { sociable: true, ..self }
    }

    /// A scenario about the suite itself, for whoever asks for it.
    pub const fn without_operator(self) -> Self {
        Self {
            needs_operator: false,
            on_request: true,
            ..self
        }
    }
}

pub async fn run(ctx: Ctx, scenarios: &[&Scenario]) -> Report {
    let mut report = Report::default();
    let (mut sociable, alone): (Vec<&Scenario>, Vec<&Scenario>) =
        scenarios.iter().copied().partition(|scenario| scenario.sociable);
    for scenario in alone {
        told(&ctx.of(scenario.name, false), scenario, &mut report).await;
    }
    let report = RefCell::new(report);
    let side_by_side = sociable.len() > 1;
    // The longest first, so that it is not the last one all alone.
    sociable.sort_by_key(|scenario| Reverse(scenario.limit));
    let runs = sociable.into_iter().map(|scenario| {
        let (ctx, report) = (ctx.of(scenario.name, side_by_side), &report);
        async move {
            let mut own = Report::default();
            told(&ctx, scenario, &mut own).await;
            report.borrow_mut().extend(own);
        }
    });
    futures::stream::iter(runs)
        .buffer_unordered(AT_ONCE)
        .collect::<()>()
        .await;
    report.into_inner()
}

/// Runs one scenario, says how it went, and clears up after it.
async fn told(ctx: &Ctx, scenario: &Scenario, report: &mut Report) {
    println!("== {}: {}", scenario.name, scenario.about);
    let started = Instant::now();
    let outcome = one(ctx, scenario).await;
    let seconds = started.elapsed().as_secs_f64();
    match &outcome {
        Ok(()) => println!("ok  {} ({seconds:.1} s)", scenario.name),
        Err(error) => {
            println!("FAILED  {} ({seconds:.1} s)\n  {error}", scenario.name);
            diagnostics::print(ctx).await;
        }
    }
    report.scenario(scenario.name, &outcome);
    report.figures.extend(ctx.take_figures());
    if outcome.is_ok() || !ctx.settings.keep {
        namespaces::clear(ctx).await;
    }
}

async fn one(ctx: &Ctx, scenario: &Scenario) -> Result {
    if scenario.needs_operator {
        operator::check(ctx).await?;
    }
    match tokio::time::timeout(scenario.limit, (scenario.run)(ctx)).await {
        Ok(result) => result?,
        Err(_) => crate::fail!("not done within {} s", scenario.limit.as_secs()),
    }
    match ctx.missed().as_slice() {
        [] => Ok(()),
        missed => crate::fail!("targets missed: {}", missed.join("; ")),
    }
}
