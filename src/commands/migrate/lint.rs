//! `migrate lint`: the files' risks, for a person and for a pipeline.

use crate::migrate::{
    lint, plan,
    report::Failure,
    source::{Migration, Source},
};

use super::args::{DirArgs, Output};

#[derive(Debug, clap::Args)]
pub(super) struct LintArgs {
    #[command(flatten)]
    dirs: DirArgs,
    /// Only the versions after this one.
    #[arg(long, value_name = "VERSION", default_value_t = 0)]
    after: i64,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

/// The exit code when there are findings.
const RISKY: u8 = 18;

/// Prints the findings; the exit code says whether there are any.
pub(super) fn lint(args: &LintArgs) -> Result<u8, Failure> {
    let source = Source::load(&args.dirs.dirs)?;
    let migrations: Vec<&Migration> = source
        .migrations()
        .filter(|migration| migration.version > args.after)
        .collect();
    for migration in &migrations {
        plan::check(migration)?;
    }
    let findings = lint::lint(&migrations)?;
    match args.output {
        Output::Json => println!("{:#}", serde_json::json!({ "findings": findings })),
        Output::Table if findings.is_empty() => println!("no risks found"),
        Output::Table => findings.iter().for_each(|finding| println!("{finding}")),
    }
    Ok(if findings.is_empty() { 0 } else { RISKY })
}
