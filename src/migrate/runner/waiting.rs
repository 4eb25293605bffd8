//! Locks that others hold: which ones a part needs, who is in the way, how that is told, and the end of patience.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use sqlx::Row;

use crate::migrate::{
    analysis::{LockMode, TableName},
    blockers::{self, Blocker, Wanted},
    progress,
    record::literal,
    report::Failure,
    session, statements,
    units::Needs,
};

use super::{Event, Runner, ladder::Ladder, send::Undelivered};

/// Waiting is told after this long, and then every so often.
const TOLD_AFTER: Duration = Duration::from_secs(1);
const TOLD_EVERY: Duration = Duration::from_secs(5);

/// The wait of one part for its locks.
pub(super) struct Waiting<'a> {
    file: &'a str,
    /// That the file has set, and that the session may be in.
    role: Option<&'a str>,
    pub ladder: Ladder,
    told: Option<Instant>,
    /// Who was in the way at the last look.
    by: Vec<Blocker>,
}

impl<'a> Waiting<'a> {
    pub fn new(file: &'a str, role: Option<&'a str>, ladder: Ladder) -> Self {
        Self {
            file,
            role,
            ladder,
            told: None,
            by: Vec::new(),
        }
    }

    /// The end of patience.
    pub fn given_up(&mut self, undelivered: Undelivered) -> Undelivered {
        match undelivered {
            Undelivered::Answered(Failure::Statement(refusal)) => Undelivered::Answered(Failure::Blocked {
                refusal,
                waited: self.ladder.waited(),
                by: std::mem::take(&mut self.by),
            }),
            other => other,
        }
    }
}

impl Runner<'_, '_> {
    /// A lock is not to be had: tells who is in the way, if that was looked at, and gives the pause before the next
    /// attempt. None: patience is over.
    pub(super) async fn blocked(
        &mut self,
        waiting: &mut Waiting<'_>,
        look: Option<Vec<Blocker>>,
    ) -> Result<Option<Duration>, sqlx::Error> {
        if waiting.ladder.is_over() {
            waiting.by = look.unwrap_or_default();
            return Ok(None);
        }
        let autovacuum = look.iter().flatten().any(|blocker| blocker.autovacuum);
        if let Some(by) = &look
            && !by.is_empty()
            && (autovacuum || waiting.ladder.waited() >= TOLD_AFTER)
            && waiting.told.is_none_or(|at| at.elapsed() >= TOLD_EVERY)
        {
            waiting.told = Some(Instant::now());
            let (file, waited) = (waiting.file, waiting.ladder.waited());
            (self.tell)(Event::Blocked { file, waited, by });
            let record = progress::waiting(self.id(), Some(&describe(file, by)));
            session::ask(self.conn, &progress::as_login(&record, waiting.role)).await?;
        }
        let deadlock_timeout = if autovacuum {
            self.deadlock_timeout().await?
        } else {
            Duration::ZERO
        };
        Ok(Some(waiting.ladder.next(look.as_deref(), deadlock_timeout)))
    }

    async fn deadlock_timeout(&mut self) -> Result<Duration, sqlx::Error> {
        let sql = "SELECT setting::pg_catalog.int8 FROM pg_catalog.pg_settings WHERE name = 'deadlock_timeout'";
        let rows = session::ask(self.conn, sql).await?;
        let ms: i64 = rows.first().map_or(Ok(1000), |row| row.try_get(0))?;
        Ok(Duration::from_millis(ms.unsigned_abs()))
    }

    /// The tables that are there and that this role may lock, each with its strongest mode, in one order for everybody.
    /// What is left out (views, sequences, names that only a search_path of the file finds) the statements themselves
    /// lock, in the time that [`Ladder::lead`] gives them.
    pub(super) async fn resolve(&mut self, sql: &str, needs: &Needs) -> Result<Vec<Wanted>, sqlx::Error> {
        let other_path = statements::may_set(sql, "search_path");
        let findable = |(name, _): &(&TableName, &LockMode)| name.schema.is_some() || !other_path;
        let named = |names: &BTreeMap<TableName, LockMode>, index: bool| -> Vec<String> {
            let row = |(name, mode): (&TableName, &LockMode)| {
                format!("({}, {index}, {})", literal(&name.to_string()), *mode as u8)
            };
            names.iter().filter(findable).map(row).collect()
        };
        let names = [named(&needs.tables, false), named(&needs.indexes, true)].concat();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let sql = format!(
            "SELECT c.oid::pg_catalog.int8, pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname), \
             pg_catalog.max(x.mode)::pg_catalog.int4 FROM (VALUES {}) x (name, is_index, mode) \
             JOIN pg_catalog.pg_class c ON c.oid = CASE WHEN x.is_index \
                 THEN (SELECT i.indrelid FROM pg_catalog.pg_index i WHERE i.indexrelid = pg_catalog.to_regclass(x.name)) \
                 ELSE pg_catalog.to_regclass(x.name)::oid END \
             JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
             WHERE c.relkind IN ('r', 'p') AND pg_catalog.has_table_privilege(c.oid, 'UPDATE, DELETE, TRUNCATE') \
             GROUP BY c.oid, n.nspname, c.relname ORDER BY c.oid",
            names.join(", ")
        );
        let rows = session::ask(self.conn, &sql).await?;
        let wanted = rows.iter().map(|row| {
            let mode: i32 = row.try_get(2)?;
            Ok(Wanted {
                oid: row.try_get(0)?,
                name: row.try_get(1)?,
                mode: LockMode::numbered(mode),
            })
        });
        wanted.collect()
    }
}

/// What the run's row says while it waits.
pub(super) fn describe(file: &str, by: &[Blocker]) -> String {
    format!("{file} waits for {}", blockers::list(by))
}
