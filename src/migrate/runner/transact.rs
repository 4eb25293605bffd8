//! One transaction with the locks it needs: see [`ladder`](super::ladder) for when and how they are asked for.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use sqlx::Row;

use crate::migrate::{
    analysis::{LockMode, TableName},
    blockers::{self, Blocker, Wanted},
    plan::Step,
    progress,
    record::literal,
    report::Failure,
    session,
    units::{Needs, Span},
};

use super::{Event, Runner, ladder::Ladder, message::Message, send::Undelivered};

/// Waiting is told after this long, and then every so often.
const TOLD_AFTER: Duration = Duration::from_secs(1);
const TOLD_EVERY: Duration = Duration::from_secs(5);

/// A part of a file, or all of it, in a transaction.
pub(super) struct Work<'a> {
    pub step: &'a Step,
    pub span: Span,
    /// What opens the transaction.
    pub begin: &'a str,
    pub needs: &'a Needs,
    /// What parts before it have set in the session.
    pub settings: &'a [String],
    /// What records and commits it.
    pub tail: &'a str,
}

impl Runner<'_, '_> {
    /// Runs it, waiting for its locks as long as `--lock-timeout` allows.
    pub(super) async fn transact(&mut self, work: &Work<'_>) -> Result<(), Undelivered> {
        let wanted = self.resolve(work).await?;
        let mut ladder = Ladder::new(self.request.lock_timeout, work.needs.blocks(), work.needs.unlisted);
        let mut told = None;
        loop {
            let (locks, count) = ladder.lead(&wanted);
            let begin = format!("{}; {locks}\n", work.begin);
            let lead = (begin.as_str(), count + 1);
            let message = Message::inside(&work.step.file, &work.step.sql, work.span, lead, work.tail);
            let Err(undelivered) = self.deliver(&message, Some(work.step.version)).await else {
                return Ok(());
            };
            match undelivered.sqlstate() {
                Some("55P03") => {
                    let pause = self
                        .blocked(work, &wanted, &mut ladder, (&mut told, undelivered))
                        .await?;
                    self.rest(pause).await?;
                }
                Some("40P01" | "40001") if ladder.collided() => {}
                _ => return Err(undelivered),
            }
            if !work.settings.is_empty() {
                session::ask(self.conn, &work.settings.join(";")).await?;
            }
        }
    }

    /// A lock was not to be had: tells who is in the way and gives the pause before the next attempt.
    async fn blocked(
        &mut self,
        work: &Work<'_>,
        wanted: &[Wanted],
        ladder: &mut Ladder,
        (told, undelivered): (&mut Option<Instant>, Undelivered),
    ) -> Result<Duration, Undelivered> {
        let look = if ladder.wants_look() || ladder.is_over() {
            Some(blockers::holders(self.conn, wanted).await?)
        } else {
            None
        };
        if ladder.is_over() {
            return Err(given_up(undelivered, ladder.waited(), look.unwrap_or_default()));
        }
        let autovacuum = look.iter().flatten().any(|blocker| blocker.autovacuum);
        if let Some(by) = &look
            && !by.is_empty()
            && (autovacuum || ladder.waited() >= TOLD_AFTER)
            && told.is_none_or(|at| at.elapsed() >= TOLD_EVERY)
        {
            *told = Some(Instant::now());
            self.tell_blocked(&work.step.file, ladder.waited(), by).await?;
        }
        let deadlock_timeout = if autovacuum {
            self.deadlock_timeout().await?
        } else {
            Duration::ZERO
        };
        Ok(ladder.next(look.as_deref(), deadlock_timeout))
    }

    async fn tell_blocked(&mut self, file: &str, waited: Duration, by: &[Blocker]) -> Result<(), sqlx::Error> {
        (self.tell)(Event::Blocked { file, waited, by });
        let text = describe(file, by);
        session::ask(self.conn, &progress::waiting(self.id(), Some(&text))).await?;
        Ok(())
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
    async fn resolve(&mut self, work: &Work<'_>) -> Result<Vec<Wanted>, sqlx::Error> {
        if !work.needs.blocks() {
            return Ok(Vec::new());
        }
        let other_path = work.step.sql.contains("search_path");
        let findable = |(name, _): &(&TableName, &LockMode)| name.schema.is_some() || !other_path;
        let named = |names: &BTreeMap<TableName, LockMode>, index: bool| -> Vec<String> {
            let row = |(name, mode): (&TableName, &LockMode)| {
                format!("({}, {index}, {})", literal(&name.to_string()), *mode as u8)
            };
            names.iter().filter(findable).map(row).collect()
        };
        let names = [named(&work.needs.tables, false), named(&work.needs.indexes, true)].concat();
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

/// The end of patience.
pub(super) fn given_up(undelivered: Undelivered, waited: Duration, by: Vec<Blocker>) -> Undelivered {
    match undelivered {
        Undelivered::Answered(Failure::Statement(refusal)) => {
            Undelivered::Answered(Failure::Blocked { refusal, waited, by })
        }
        other => other,
    }
}
