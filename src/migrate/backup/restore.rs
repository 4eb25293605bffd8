//! Puts the tables of a backup back, in one transaction, and takes nothing away for that: a table that is gone is made anew, one that is
//! empty gets its rows, one that has rows is refused; with another schema all are put there, beside what is.
//!
//! pg_restore only reads the file here. What it prints is run in our own session, piece by piece, so that only what is chosen is touched.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Serialize;
use sqlx::PgConnection;
use tokio::sync::mpsc;

use super::{
    Backup, folder,
    script::{self, Item},
    tool::{self, Problem, Running},
};
use crate::{
    api::names::SqlName,
    migrate::{history, report::Failure, session},
};

mod choice;
mod filled;
mod words;

use choice::{Action, Choice, Place};

/// What of a backup is put back, and where.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Tables by name; none: all.
    pub tables: Vec<String>,
    /// Not to where they were, but all into this schema.
    pub into: Option<SqlName>,
}

/// A table that was put back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Restored {
    pub table: String,
    /// `made`, or `filled`: it was there and empty.
    pub how: &'static str,
    pub rows: u64,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Outcome {
    pub tables: Vec<Restored>,
    /// Rights that could not be given again, and partitions without their table.
    pub warnings: Vec<String>,
}

/// Puts back, under the migration lock. After a failure nothing has changed.
pub async fn restore(
    conn: &mut PgConnection,
    (backup, folder): (&Backup, &Path),
    wanted: &Wanted,
    patience: Duration,
) -> Result<Outcome, Failure> {
    let file = whole_file(backup, folder).await?;
    let tool = tool::find("pg_restore").await.map_err(Failure::NotRestored)?;
    let arguments = ["--file=-", "--no-owner", "--no-tablespaces"].map(String::from);
    let arguments = [arguments.as_slice(), &[file.display().to_string()]].concat();
    let identity = history::identity(conn).await?;
    let database = history::database(&identity).to_owned();
    session::lock(conn, &database, patience, &mut |_| {}).await?;
    let source = tool.start(&arguments).map_err(|problem| ended(problem, &tool.version));
    let result = match source {
        Ok(source) => locked(conn, (backup, source, tool.version.as_str()), wanted, patience).await,
        Err(failure) => Err(failure),
    };
    if result.is_err() {
        let _ = session::send(conn, "ROLLBACK").await;
    }
    let unlocked = session::unlock(conn, &database).await;
    let outcome = result?;
    unlocked?;
    Ok(outcome)
}

/// The file, if it is the one that was recorded.
async fn whole_file(backup: &Backup, folder: &Path) -> Result<PathBuf, Failure> {
    let problem = |what: String| Failure::NotRestored(format!("backup {}: {what}", backup.id));
    let path = folder::path(folder, &backup.file).ok_or_else(|| problem("its file has no name".to_owned()))?;
    let shown = path.display().to_string();
    let reading = path.clone();
    let read = tokio::task::spawn_blocking(move || folder::checksum(&reading)).await;
    let (bytes, sha256) = match read {
        Ok(Ok(read)) => read,
        Ok(Err(error)) => return Err(problem(format!("{shown} cannot be read: {error}"))),
        Err(error) => return Err(problem(format!("{shown} cannot be read: {error}"))),
    };
    if i64::try_from(bytes) != Ok(backup.bytes) || sha256 != backup.sha256 {
        return Err(problem(format!(
            "{shown} is not the file that was written: {bytes} bytes with SHA-256 {sha256}, recorded are {} with {}",
            backup.bytes, backup.sha256
        )));
    }
    Ok(path)
}

fn ended(problem: Problem, version: &str) -> Failure {
    match problem {
        Problem::Interrupted => Failure::Interrupted,
        Problem::Failed(words) => Failure::NotRestored(format!("{version}: {words}")),
    }
}

async fn locked(
    conn: &mut PgConnection,
    (backup, mut source, version): (&Backup, Running, &str),
    wanted: &Wanted,
    patience: Duration,
) -> Result<Outcome, Failure> {
    let wait = patience.as_millis();
    let begin = format!(
        "BEGIN; SET LOCAL lock_timeout = {wait}; SET LOCAL check_function_bodies = off; \
         SELECT pg_catalog.set_config('search_path', '', true)"
    );
    session::ask(conn, &begin).await?;
    let choice = choice::choose(conn, backup, wanted).await?;
    let put_back = filled::quiet(conn, &choice).await?;
    let (to, mut items) = mpsc::channel(16);
    let Some(stdout) = source.child.stdout.take() else {
        return Err(Failure::NotRestored("pg_restore says nothing".to_owned()));
    };
    let reading = tokio::task::spawn_blocking(move || script::read(stdout, &to));
    let mut work = Work {
        conn: &mut *conn,
        choice: &choice,
        attach: Vec::new(),
        rows: BTreeMap::new(),
        warnings: Vec::new(),
    };
    let applied = work.all(&mut items).await;
    drop(items);
    // A program that failed says more than the end of what it printed.
    if applied.is_ok() || is_broken(&applied) {
        source.end().await.map_err(|problem| ended(problem, version))?;
    }
    applied?;
    let _ = reading.await;
    work.attach().await?;
    let (rows, warnings) = (work.rows, work.warnings);
    let finish = format!(
        "SET CONSTRAINTS ALL IMMEDIATE; {put_back}UPDATE amas_migrate.backups SET restored_at = pg_catalog.clock_timestamp() WHERE id = {}; COMMIT",
        backup.id
    );
    session::ask(conn, &finish)
        .await
        .map_err(|error| refused("at its end", error))?;
    let tables = choice.tables().map(|(table, how)| Restored {
        table: table.to_owned(),
        how,
        rows: rows.get(table).copied().unwrap_or_default(),
    });
    Ok(Outcome {
        tables: tables.collect(),
        warnings,
    })
}

fn refused(what: &str, error: sqlx::Error) -> Failure {
    match error.as_database_error() {
        Some(db) => {
            let code = db.code().unwrap_or_default().into_owned();
            Failure::NotRestored(format!("{what}: {} (SQLSTATE {code})", db.message()))
        }
        None => error.into(),
    }
}

/// The beginning of a statement, for messages.
fn short(statement: &str) -> String {
    statement
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .take(100)
        .collect()
}

struct Work<'a> {
    conn: &'a mut PgConnection,
    choice: &'a Choice,
    /// What makes partitions of tables, with the tables that they are to be part of.
    attach: Vec<(String, String)>,
    rows: BTreeMap<String, u64>,
    warnings: Vec<String>,
}

impl Work<'_> {
    async fn all(&mut self, items: &mut mpsc::Receiver<Item>) -> Result<(), Failure> {
        for schema in &self.choice.schemas {
            session::ask(self.conn, &format!("CREATE SCHEMA {schema}"))
                .await
                .map_err(|error| refused(&format!("schema {schema}"), error))?;
        }
        while let Some(item) = items.recv().await {
            match item {
                Item::Statement(statement) => self.statement(&statement).await?,
                Item::Copy(copy) => self.copy(&copy, items).await?,
                Item::Broken(what) => return Err(Failure::NotRestored(format!("{BROKEN}{what}"))),
                Item::Rows(_) | Item::EndOfRows => {}
            }
        }
        Ok(())
    }

    async fn statement(&mut self, statement: &str) -> Result<(), Failure> {
        let action = self.choice.action(statement)?;
        if !self.attach.is_empty() && self.choice.looks_at_partitions(statement) {
            self.attach().await?;
        }
        match action {
            Action::Skip => Ok(()),
            Action::Run(sql) => self.run(&sql).await,
            Action::Try(sql) => self.attempt(&sql).await,
            Action::Attach { whole, sql } => {
                self.attach.push((whole, sql));
                Ok(())
            }
        }
    }

    async fn run(&mut self, sql: &str) -> Result<(), Failure> {
        session::ask(self.conn, sql)
            .await
            .map(drop)
            .map_err(|error| refused(&short(sql), error))
    }

    async fn attempt(&mut self, sql: &str) -> Result<(), Failure> {
        let tried = format!("SAVEPOINT amas_try; {sql}; RELEASE SAVEPOINT amas_try");
        match session::ask(self.conn, &tried)
            .await
            .map_err(|error| refused(&short(sql), error))
        {
            Ok(_) => {}
            Err(Failure::NotRestored(why)) => {
                self.warnings.push(why);
                session::ask(self.conn, "ROLLBACK TO SAVEPOINT amas_try").await?;
            }
            Err(lost) => return Err(lost),
        }
        Ok(())
    }

    /// Tables become partitions when their rows, keys and indexes are in, not as soon as the file says so: the server would give them the indexes
    /// that the file makes too, and the rows would go through the triggers of the table that they are part of. The server takes what it finds
    /// for the parts of that table's indexes.
    async fn attach(&mut self) -> Result<(), Failure> {
        for (whole, sql) in std::mem::take(&mut self.attach) {
            let there = filled::present(self.conn, &BTreeSet::from([whole.clone()])).await?;
            match there.is_empty() {
                false => self.run(&sql).await?,
                true => self.warnings.push(format!(
                    "{}: {whole} is not there, so its partition is a table of its own now",
                    short(&sql)
                )),
            }
        }
        Ok(())
    }

    async fn copy(&mut self, copy: &str, items: &mut mpsc::Receiver<Item>) -> Result<(), Failure> {
        let Some(Place { table, sql }) = self.choice.copy(copy) else {
            // its rows are passed over
            while let Some(Item::Rows(_)) = items.recv().await {}
            return Ok(());
        };
        let what = format!("rows of {table}");
        let mut stream = self
            .conn
            .copy_in_raw(&sql)
            .await
            .map_err(|error| refused(&what, error))?;
        loop {
            match items.recv().await {
                Some(Item::Rows(rows)) => {
                    stream.send(rows).await.map_err(|error| refused(&what, error))?;
                }
                Some(Item::EndOfRows) => break,
                other => {
                    let why = format!("{BROKEN}the rows of {table} do not end");
                    let _ = stream.abort(why.as_str()).await;
                    return Err(Failure::NotRestored(match other {
                        Some(Item::Broken(what)) => format!("{BROKEN}{what}"),
                        _ => why,
                    }));
                }
            }
        }
        let rows = stream.finish().await.map_err(|error| refused(&what, error))?;
        *self.rows.entry(table).or_default() += rows;
        Ok(())
    }
}

const BROKEN: &str = "the dump cannot be read: ";

/// The failure is about the script, not about the server.
fn is_broken(applied: &Result<(), Failure>) -> bool {
    matches!(applied, Err(Failure::NotRestored(what)) if what.starts_with(BROKEN))
}
