//! `status` and `validate`: look, change nothing.

use std::path::PathBuf;

use serde::Serialize;
use sqlx::Connection;

use crate::migrate::{
    history::{self, State},
    plan,
    report::Failure,
    source::{Source, gap_warning},
};

use super::{
    args::{DatabaseArgs, DirArgs, Output},
    load_profiles,
};

#[derive(Debug, clap::Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    dirs: DirArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Debug, clap::Args)]
pub(super) struct ValidateArgs {
    #[command(flatten)]
    dirs: DirArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    /// Seed folders to check too.
    #[arg(long = "seed-dir", value_name = "DIR")]
    seed_dirs: Vec<PathBuf>,
    /// Seed profile to check too.
    #[arg(long, value_name = "NAME")]
    seed_profile: Option<String>,
}

/// One version, seen from both sides.
#[derive(Debug, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub(super) struct Line {
    pub(super) version: i64,
    pub(super) description: String,
    /// applied, pending, edited, missing (no file) or unfinished.
    pub(super) state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    applied_at: Option<String>,
}

pub(super) async fn status(args: &StatusArgs) -> Result<(), Failure> {
    let source = Source::load(&args.dirs.dirs)?;
    let state = read(&args.database).await?;
    let lines = compare(&source, &state);
    match args.output {
        Output::Json => {
            let json = serde_json::json!({
                "current": state.current(),
                "newest": source.newest(),
                "pending": lines.iter().filter(|line| line.state == "pending").count(),
                "migrations": lines,
                "latestRun": state.latest_run,
            });
            println!("{json:#}");
        }
        Output::Table => print!("{}", table(&lines)),
    }
    Ok(())
}

pub(super) async fn validate(args: &ValidateArgs) -> Result<(), Failure> {
    let source = Source::load(&args.dirs.dirs)?;
    load_profiles(&args.seed_dirs, args.seed_profile.as_deref(), &args.dirs.dirs)?;
    for migration in source.migrations() {
        plan::check(migration)?;
    }
    if let Some(warning) = gap_warning(source.gaps()) {
        eprintln!("warning: {warning}");
    }
    let count = source.migrations().count();
    if !args.database.given() {
        println!("{count} migrations, newest {}: the files are valid", source.newest());
        return Ok(());
    }
    let state = read(&args.database).await?;
    let plan = plan::plan(&source, &state.applied, None)?;
    println!(
        "{count} migrations, newest {}: valid, {} pending on the database",
        source.newest(),
        plan.steps.len()
    );
    Ok(())
}

pub(super) async fn read(database: &DatabaseArgs) -> Result<State, Failure> {
    let options = database.options();
    let mut conn = database.connect().await?;
    let state = history::read(&mut conn, &options.schema, None).await?;
    conn.close().await?;
    Ok(state.unwrap_or_default())
}

pub(super) fn compare(source: &Source, state: &State) -> Vec<Line> {
    let applied = state.applied.iter().map(|applied| {
        let file = source.get(applied.version);
        let state = match file {
            _ if !applied.success => "unfinished",
            None => "missing",
            Some(file) if file.up.checksum != applied.checksum => "edited",
            Some(_) => "applied",
        };
        let description = file.map_or(&applied.description, |file| &file.description).clone();
        Line {
            version: applied.version,
            description,
            state,
            applied_at: Some(seconds(applied.applied_at)),
        }
    });
    let pending = source
        .migrations()
        .filter(|m| !state.applied.iter().any(|applied| applied.version == m.version));
    let pending = pending.map(|m| Line {
        version: m.version,
        description: m.description.clone(),
        state: "pending",
        applied_at: None,
    });
    let mut lines: Vec<Line> = applied.chain(pending).collect();
    lines.sort_by_key(|line| line.version);
    lines
}

pub(super) fn seconds(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn table(lines: &[Line]) -> String {
    let width = lines
        .iter()
        .map(|line| line.description.chars().count())
        .max()
        .unwrap_or(0)
        .max(11);
    let mut text = format!(
        "{:<20}  {:<width$}  {:<10}  APPLIED AT\n",
        "VERSION", "DESCRIPTION", "STATE"
    );
    for line in lines {
        let at = line.applied_at.as_deref().unwrap_or("-");
        text.push_str(&format!(
            "{:<20}  {:<width$}  {:<10}  {at}\n",
            line.version, line.description, line.state
        ));
    }
    text
}
