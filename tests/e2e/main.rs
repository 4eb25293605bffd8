//! End to end: what the operator promises, shown on a real cluster, with figures.
//!
//! Run it inside the cluster's network: `dev/cluster exec cargo test --test e2e -- [--list] [--filter WORD]...`.
//! Scenarios that measure run one after the other, the rest side by side, each in fresh namespaces; a failed one is diagnosed and the
//! suite goes on.

mod arms;
mod cluster;
mod harness;
mod scenarios;

use std::process::ExitCode;

use harness::{context::Ctx, report::Report, runner, settings::Settings};

fn main() -> ExitCode {
    let settings = match Settings::read(std::env::args().skip(1)) {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    if settings.list {
        scenarios::ALL
            .iter()
            .for_each(|scenario| println!("{}: {}", scenario.name, scenario.about));
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map(|runtime| runtime.block_on(suite(settings))) {
        Ok(Ok(report)) => report.print(),
        Ok(Err(error)) => broken(&error.to_string()),
        Err(error) => broken(&error.to_string()),
    }
}

async fn suite(settings: Settings) -> harness::Result<Report> {
    let chosen = settings.choose(scenarios::ALL);
    let ctx = Ctx::connect(settings).await?;
    Ok(runner::run(ctx, &chosen).await)
}

fn broken(error: &str) -> ExitCode {
    eprintln!("error: the suite could not run: {error}");
    ExitCode::from(2)
}
