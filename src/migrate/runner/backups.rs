//! Before the first statement: what the plan takes away is saved. If that fails, nothing runs, and there is nothing to take back.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use sqlx::Row;

use crate::migrate::{
    analysis::{TableName, keep_written},
    backup::{self, Before, Dump, Entry, Extent, Made, Settings, Task},
    history::State,
    plan::{Plan, Planned},
    progress,
    record::literal,
    report::Failure,
    session,
};

use super::{Event, Runner, Urgency, asked};

/// How often the run's row says how far it is, which also keeps the waiting session alive.
const SIGN: Duration = Duration::from_secs(5);
/// As many tables are asked for rows at once: each takes a lock, of which a server has no more than its table of locks holds.
const ASKED: usize = 200;

impl Runner<'_, '_> {
    /// Saves what the plan loses, as far as that is asked for and there is anything.
    pub(super) async fn back_up(&mut self, identity: &str, plan: &Plan, statements: &[Planned]) -> Result<(), Failure> {
        let Some(settings) = self.request.backup.clone() else {
            return Ok(());
        };
        let extent = match settings.before {
            Before::Never => return Ok(()),
            Before::Always if plan.is_empty() => return Ok(()),
            Before::Always => Extent::All,
            Before::Destructive => backup::lost(statements).map_err(|backup::OutOfReach(what)| {
                Failure::NotBackedUp(format!(
                    "{what}: another database is in no dump of this one; save it yourself"
                ))
            })?,
        };
        let schema = &self.request.options.schema;
        let entries = backup::entries(self.conn, schema, &extent).await?;
        if entries.is_empty() {
            return Ok(());
        }
        let started = Instant::now();
        let tables = entries.iter().filter(|entry| !entry.sequence).count();
        (self.tell)(Event::BackingUp { tables });
        let made = self.dump(identity, &settings, (&entries, statements)).await?;
        let rows = session::ask(self.conn, &backup::record(self.run, &made, &entries)).await?;
        let id = rows.first().map_or(Ok(0), |row| row.try_get(0))?;
        (self.tell)(Event::BackedUp {
            id,
            file: &made.file,
            bytes: made.bytes,
            took: started.elapsed(),
        });
        Ok(())
    }

    /// The tables that runs before this one have made whose rest it is, unless somebody else has filled them since.
    pub(super) async fn begun(&mut self, plan: &Plan, state: &State) -> Result<BTreeSet<TableName>, Failure> {
        let begun = plan.begun(&self.request.source, state);
        let (mut made, written) = (begun.made, begun.written);
        keep_written(&mut made);
        let asked: Vec<TableName> = made.difference(&written).cloned().collect();
        for group in asked.chunks(ASKED) {
            for name in self.filled(group).await? {
                made.remove(name);
            }
        }
        Ok(made)
    }

    /// Those of these that are tables and have rows; all of them where the server does not tell.
    async fn filled<'n>(&mut self, names: &'n [TableName]) -> Result<Vec<&'n TableName>, Failure> {
        let tables = session::ask(self.conn, &tables(names)).await?;
        let (mut found, mut each) = (Vec::<&TableName>::new(), Vec::new());
        for row in &tables {
            let at = usize::try_from(row.try_get::<i32, _>(0)?).unwrap_or_default();
            found.extend(names.get(at));
            each.push(row.try_get::<String, _>(1)?);
        }
        // whoever holds a table is not waited for
        let sql = format!(
            "SET lock_timeout = '1s'; SELECT ARRAY[{}]::pg_catalog.bool[]; RESET lock_timeout",
            each.join(", ")
        );
        let filled: Vec<bool> = match session::ask(self.conn, &sql).await {
            Ok(rows) => rows.first().map_or(Ok(Vec::new()), |row| row.try_get(0))?,
            Err(sqlx::Error::Database(_)) => return Ok(found),
            Err(problem) => return Err(problem.into()),
        };
        let both = found.into_iter().zip(filled);
        Ok(both.filter(|(_, filled)| *filled).map(|(name, _)| name).collect())
    }

    async fn dump(
        &mut self,
        identity: &str,
        settings: &Settings,
        (entries, statements): (&[Entry], &[Planned]),
    ) -> Result<Made, Failure> {
        let Some(folder) = settings.folder.clone() else {
            return Err(Failure::NotBackedUp(no_folder(statements)));
        };
        let request = self.request;
        let Some(login) = &request.login else {
            return Err(Failure::NotBackedUp("no login is known for pg_dump".to_owned()));
        };
        let task = Task {
            login,
            entries,
            folder,
            identity,
            major: self.conn.server_version_num().unwrap_or_default() / 10_000,
            lock_timeout: request.lock_timeout,
        };
        let (dump, tool) = Dump::prepare(task).await?;
        let made = self.accompany(&dump, &tool, entries.len()).await;
        // The session has rested meanwhile.
        session::ask(self.conn, &progress::waiting(self.id(), None)).await?;
        made
    }

    /// Waits for the dump, says how far it is, and ends it when told to stop: nothing is lost by that yet.
    async fn accompany(&mut self, dump: &Dump<'_>, tool: &backup::Tool, tables: usize) -> Result<Made, Failure> {
        let making = dump.make(tool);
        tokio::pin!(making);
        let mut signs = tokio::time::interval(SIGN);
        loop {
            tokio::select! {
                made = &mut making => return made,
                () = asked(&mut self.stop, Urgency::Soon) => return Err(Failure::Interrupted),
                _ = signs.tick() => {
                    let text = format!("backing up {tables} tables and sequences, {} KiB so far", dump.bytes() / 1024);
                    session::ask(self.conn, &progress::waiting(self.id(), Some(&text))).await?;
                }
            }
        }
    }
}

/// Those of these that are tables: where in the list, and whether they have rows, as an expression.
fn tables(names: &[TableName]) -> String {
    let name = |(at, name): (usize, &TableName)| format!("({at}, {})", literal(&name.to_string()));
    let names: Vec<String> = names.iter().enumerate().map(name).collect();
    format!(
        "SELECT k.at, CASE WHEN pg_catalog.has_table_privilege(c.oid, 'SELECT') \
         THEN pg_catalog.format('EXISTS (SELECT FROM %I.%I)', n.nspname, c.relname) ELSE 'true' END \
         FROM (VALUES {}) k (at, name) JOIN pg_catalog.pg_class c ON c.oid = pg_catalog.to_regclass(k.name) \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p') ORDER BY k.at",
        names.join(", ")
    )
}

/// Names the first loss, if there is one: `Always` asks for a folder without.
fn no_folder(statements: &[Planned]) -> String {
    let loss = statements.iter().find_map(|one| {
        let what = one.loses?;
        Some(format!("{}:{}: {what}: {}; ", one.file, one.line, one.statement))
    });
    format!(
        "{}no folder was named for the backup: --backup-dir DIR",
        loss.unwrap_or_default()
    )
}
