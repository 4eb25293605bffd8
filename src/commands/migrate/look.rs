//! `current`, `history` and `show`: looking at one database, changing nothing.

use sqlx::Connection;

use crate::migrate::{
    history::{self, Entry, State},
    plan::{self, Estimates, Planned},
    report::Failure,
    source::Source,
};

use super::{
    args::{DatabaseArgs, Output},
    status::{self, seconds},
};

#[derive(Debug, clap::Args)]
pub(super) struct CurrentArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Debug, clap::Args)]
pub(super) struct HistoryArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    /// Show no more than this many.
    #[arg(short = 'n', long, default_value_t = 50)]
    limit: u32,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Debug, clap::Args)]
pub(super) struct ShowArgs {
    version: i64,
    /// Folders of the files: shows the statements too.
    #[arg(long = "dir", value_name = "DIR")]
    dirs: Vec<std::path::PathBuf>,
    #[command(flatten)]
    database: DatabaseArgs,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

/// The version, 0 when there is none.
pub(super) async fn current(args: &CurrentArgs) -> Result<(), Failure> {
    let state = status::read(&args.database).await?;
    match args.output {
        Output::Json => println!(
            "{:#}",
            serde_json::json!({"current": state.current(), "applied": state.applied.len(), "latestRun": state.latest_run})
        ),
        Output::Table => println!("{}", state.current()),
    }
    Ok(())
}

pub(super) async fn history(args: &HistoryArgs) -> Result<(), Failure> {
    let (_, entries) = read(&args.database, None, args.limit).await?;
    match args.output {
        Output::Json => println!("{:#}", serde_json::json!({ "history": entries })),
        Output::Table => print!("{}", table(&entries)),
    }
    Ok(())
}

pub(super) async fn show(args: &ShowArgs) -> Result<(), Failure> {
    let source = match args.dirs.as_slice() {
        [] => Source::default(),
        dirs => Source::load(dirs)?,
    };
    let (state, entries) = read(&args.database, Some(args.version), 100).await?;
    let known = source.get(args.version).is_some() || !entries.is_empty();
    if !known && state.applied.iter().all(|row| row.version != args.version) {
        plan::check_target(&source, &state.applied, Some(args.version))?;
    }
    let lines = status::compare(&source, &state);
    let line = lines.iter().find(|line| line.version == args.version);
    let statements = statements(&source, args.version)?;
    match args.output {
        Output::Json => println!(
            "{:#}",
            serde_json::json!({"migration": line, "history": entries, "statements": statements})
        ),
        Output::Table => {
            match line {
                Some(line) => println!("{}  {}  {}", line.version, line.description, line.state),
                None => println!("{}  not applied, no file", args.version),
            }
            print!("{}", table(&entries));
            for statement in &statements {
                print!("{}", statement.print(statement.text(), &Estimates::new()));
            }
            if let Some(down) = entries.iter().find_map(|entry| entry.down_sql.as_ref()) {
                println!("stored way back:\n{}", down.trim_end());
            }
        }
    }
    Ok(())
}

/// The statements of one file, as a plan of nothing but it.
fn statements(source: &Source, version: i64) -> Result<Vec<Planned>, Failure> {
    let Some(file) = source.get(version) else {
        return Ok(Vec::new());
    };
    let only = Source::of([file.clone()]);
    let plan = plan::plan(&only, &[], None)?;
    Ok(plan.statements(&only, &State::default())?)
}

async fn read(database: &DatabaseArgs, version: Option<i64>, limit: u32) -> Result<(State, Vec<Entry>), Failure> {
    let options = database.options();
    let mut conn = database.connect().await?;
    let state = history::read(&mut conn, &options.schema, None).await?;
    let entries = history::entries(&mut conn, version, limit).await?;
    conn.close().await?;
    Ok((state.unwrap_or_default(), entries))
}

fn table(entries: &[Entry]) -> String {
    let mut text = format!(
        "{:<20}  {:<20}  {:<5}  {:>9}  {:<20}  BY\n",
        "AT", "VERSION", "WHAT", "MS", "RUN"
    );
    for entry in entries {
        text.push_str(&format!(
            "{:<20}  {:<20}  {:<5}  {:>9}  {:<20}  {}\n",
            seconds(entry.at),
            entry.version,
            entry.direction,
            entry.took_ms.map_or("-".to_owned(), |ms| ms.to_string()),
            entry.attempt.as_deref().unwrap_or("-"),
            entry.by,
        ));
    }
    text
}
