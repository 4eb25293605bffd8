//! The binary: picks the command.

use std::process::ExitCode;

use amas_operator::commands::{crds, migrate, run};
use clap::{Parser, Subcommand};

/// The operator for the data layer of agent platforms, and its tools.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the operator in a cluster.
    Run(Box<run::Args>),
    /// Write the CustomResourceDefinitions.
    Crds(crds::Args),
    /// Run, take back and check PostgreSQL migrations.
    Migrate(Box<migrate::Args>),
}

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match Cli::parse().command {
        Command::Run(args) => runtime.block_on(run::run(*args)),
        Command::Crds(args) => crds::run(&args),
        Command::Migrate(args) => runtime.block_on(migrate::run(*args)),
    }
}
