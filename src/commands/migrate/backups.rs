//! `backups` and `restore-tables`: what was saved before data was lost, and putting it back.

use std::{path::PathBuf, time::Duration};

use sqlx::Connection;

use crate::{
    api::names::SqlName,
    migrate::{
        backup::{
            self, Backup, Before, Settings, plain,
            restore::{self, Outcome, Wanted},
        },
        report::Failure,
    },
};

use super::{
    args::{DatabaseArgs, Output, duration},
    status::seconds,
};

/// What a run saves before it takes something away.
#[derive(Debug, Default, clap::Args)]
pub(super) struct BackupArgs {
    /// Before which migrations tables are saved by pg_dump: those that lose data (the tables that lose something), all (every table), or none.
    /// Default: destructive; for `down` and `redo`, which ask for the loss by their name, only with --backup-dir.
    #[arg(long, value_enum, value_name = "WHICH")]
    backup_before: Option<Before>,
    /// Folder for the backups. It is made if it is absent.
    #[arg(long, value_name = "DIR")]
    backup_dir: Option<PathBuf>,
}

impl BackupArgs {
    /// For a way up.
    pub(super) fn settings(&self) -> Option<Settings> {
        let before = self.backup_before.unwrap_or_default();
        (before != Before::Never).then(|| Settings {
            before,
            folder: self.backup_dir.clone(),
        })
    }

    /// For a way that somebody has asked for by its verb.
    pub(super) fn settings_by_hand(&self) -> Option<Settings> {
        let asked = self.backup_before.is_some() || self.backup_dir.is_some();
        asked.then(|| self.settings())?
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct BackupsArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    /// The folder of the backups: tells whether their files are there.
    #[arg(long, value_name = "DIR")]
    backup_dir: Option<PathBuf>,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Debug, clap::Args)]
pub(super) struct RestoreArgs {
    /// The number of the backup, as `backups` lists it.
    backup: i64,
    /// The folder of the backups.
    #[arg(long, value_name = "DIR")]
    backup_dir: PathBuf,
    #[command(flatten)]
    database: DatabaseArgs,
    /// Only this table, with the sequences of its columns; several may be named. Default: all in the backup.
    #[arg(long = "table", value_name = "SCHEMA.TABLE")]
    tables: Vec<String>,
    /// Put columns and rows into this schema, beside what is there; it is made if it is absent. Keys, indexes and rights are not made there.
    #[arg(long, value_name = "SCHEMA")]
    into_schema: Option<SqlName>,
    /// How long to wait for a migration to finish, and for the locks of tables.
    #[arg(long, default_value = "5m", value_parser = duration, value_name = "TIME")]
    lock_timeout: Duration,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

pub(super) async fn backups(args: &BackupsArgs) -> Result<(), Failure> {
    let mut conn = args.database.connect().await?;
    let all = backup::list(&mut conn).await?;
    conn.close().await?;
    let state = |one: &Backup| args.backup_dir.as_deref().map(|folder| backup::state(one, folder));
    match args.output {
        Output::Json => {
            let each = all.iter().map(|one| {
                let mut json = serde_json::json!(one);
                if let Some(state) = state(one) {
                    json["state"] = state.into();
                }
                json
            });
            println!("{:#}", serde_json::json!({ "backups": each.collect::<Vec<_>>() }));
        }
        Output::Table => print!("{}", table(&all, state)),
    }
    Ok(())
}

pub(super) async fn restore(args: &RestoreArgs) -> Result<(), Failure> {
    let mut conn = args.database.connect().await?;
    let found = backup::get(&mut conn, args.backup).await?;
    let Some(found) = found else {
        let all = backup::list(&mut conn).await?;
        let known: Vec<String> = all.iter().take(20).map(|one| one.id.to_string()).collect();
        return Err(Failure::NotRestored(format!(
            "there is no backup {}; known are: {}",
            args.backup,
            if known.is_empty() {
                "none".to_owned()
            } else {
                known.join(", ")
            }
        )));
    };
    let wanted = Wanted {
        tables: args.tables.clone(),
        into: args.into_schema.clone(),
    };
    let outcome = restore::restore(&mut conn, (&found, &args.backup_dir), &wanted, args.lock_timeout).await?;
    conn.close().await?;
    match args.output {
        Output::Json => println!("{:#}", serde_json::json!(outcome)),
        Output::Table => told(&outcome, &wanted),
    }
    Ok(())
}

fn told(outcome: &Outcome, wanted: &Wanted) {
    for warning in &outcome.warnings {
        eprintln!("warning: {warning}");
    }
    let place = wanted
        .into
        .as_ref()
        .map(|schema| format!(" in schema {schema}"))
        .unwrap_or_default();
    for one in &outcome.tables {
        let plural = if one.rows == 1 { "" } else { "s" };
        println!("{}: {}{place}, {} row{plural}", plain(&one.table), one.how, one.rows);
    }
}

fn table(all: &[Backup], state: impl Fn(&Backup) -> Option<&'static str>) -> String {
    let mut text = format!(
        "{:>6}  {:<20}  {:<24}  {:>10}  {:<8}  {:<20}  FILE, TABLES\n",
        "ID", "AT", "BEFORE", "KIB", "STATE", "RESTORED AT"
    );
    for one in all {
        let before = match (&one.direction, one.from, one.to) {
            (Some(direction), Some(from), Some(to)) => format!("{direction} {from} -> {to}"),
            _ => "-".to_owned(),
        };
        let names: Vec<String> = one.tables().map(plain).collect();
        text.push_str(&format!(
            "{:>6}  {:<20}  {:<24}  {:>10}  {:<8}  {:<20}  {}: {}\n",
            one.id,
            seconds(one.at),
            before,
            (one.bytes + 1023) / 1024,
            state(one).unwrap_or("-"),
            one.restored_at.map_or("-".to_owned(), seconds),
            one.file,
            names.join(", ")
        ));
    }
    text
}
