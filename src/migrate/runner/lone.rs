//! A statement that no transaction holds. Its locks cannot be taken beforehand, so it is sent when nobody is seen in the
//! way of them; what an attempt may have left behind is looked for before the next, and after the last.

use std::time::Duration;

use crate::migrate::{
    analysis::{LockMode, Outside},
    blockers::{self, Wanted},
    plan::Step,
    progress, session, statements,
    units::{Needs, Span},
};

use super::{
    Runner,
    ladder::{self, Ladder},
    leftovers::Standing,
    message::Message,
    send::Undelivered,
    waiting::Waiting,
};

/// After a deadlock.
const PAUSE: Duration = Duration::from_millis(200);
/// After a refusal the removal of leftovers waits this long for those who use the table.
const TIDY: Duration = Duration::from_secs(5);
/// At the end of patience the server says no itself, with the place in the file, and nobody has queued behind that.
const LAST: Duration = Duration::from_millis(1);

/// A part outside of a transaction.
pub(super) struct Lone<'a> {
    pub step: &'a Step,
    pub span: Span,
    pub outside: Option<&'a Outside>,
    pub needs: &'a Needs,
    /// What it is recorded with, before and after.
    pub begin: String,
    pub advance: String,
    /// What parts before it have set in the session, and what of that sets the role.
    pub settings: Vec<String>,
    pub role: Option<&'a str>,
}

impl Lone<'_> {
    /// The file knows better how long its statements may wait.
    fn has_own_timeout(&self) -> bool {
        statements::may_set(&self.step.sql, "lock_timeout")
    }

    fn message<'m>(&'m self, instead: Option<&'m str>) -> Message<'m> {
        match instead {
            Some(sql) => Message::alone(&self.step.file, sql, (0, sql.len())),
            None => Message::alone(&self.step.file, &self.step.sql, self.span),
        }
    }
}

impl Runner<'_, '_> {
    /// Runs it, waiting for those in its way as long as `--lock-timeout` allows.
    pub(super) async fn lone(&mut self, lone: &Lone<'_>, begun: bool) -> Result<(), Undelivered> {
        let patience = self.request.lock_timeout;
        let mut standing = self.found(lone, begun).await?;
        let wanted = self.resolve(&lone.step.sql, lone.needs).await?;
        let awaited = awaited(lone.outside, &wanted);
        let ladder = Ladder::new(patience, lone.needs.blocks(), lone.needs.unlisted);
        let mut waiting = Waiting::new(&lone.step.file, lone.role, ladder);
        loop {
            if standing == Standing::Through {
                session::ask(self.conn, &lone.advance).await?;
                return Ok(());
            }
            let timeout = self.turn(lone, &wanted, &mut waiting).await?;
            let Err(undelivered) = self.attempt(lone, &standing, timeout).await else {
                return Ok(());
            };
            let pause = match undelivered.sqlstate() {
                Some("55P03") => {
                    let by = blockers::holders(self.conn, &awaited).await?;
                    self.blocked(&mut waiting, Some(by)).await?
                }
                Some("40P01") if !waiting.ladder.is_over() => Some(PAUSE),
                Some(_) => None,
                None => return Err(undelivered),
            };
            // what cannot be removed now is looked for by the next run
            let left = self.left_by_refused(lone.step.version, lone.outside, TIDY).await;
            let Some(pause) = pause else {
                return Err(match undelivered.sqlstate() {
                    Some("55P03") => waiting.given_up(undelivered),
                    _ => undelivered,
                });
            };
            standing = left?;
            self.rest(pause).await?;
            // the refusal has taken them back
            if !lone.settings.is_empty() {
                session::ask(self.conn, &lone.settings.join(";")).await?;
            }
        }
    }

    /// What there is of it before the first attempt, looked for as who logged in: the file's role may not read the records.
    async fn found(&mut self, lone: &Lone<'_>, begun: bool) -> Result<Standing, sqlx::Error> {
        if lone.role.is_some() {
            session::ask(self.conn, progress::RESET_ROLE).await?;
        }
        let standing = if begun {
            let patience = self.request.lock_timeout;
            self.standing(lone.step.version, lone.outside, patience).await?
        } else {
            self.sweep_before(lone.outside).await?;
            Standing::Open
        };
        if let Some(role) = lone.role {
            session::ask(self.conn, role).await?;
        }
        Ok(standing)
    }

    /// Waits until it may be sent, and gives the time that it may then stand in a queue. While somebody who stays is in
    /// the way of a strong lock, this only looks: everybody else would queue behind it.
    async fn turn(
        &mut self,
        lone: &Lone<'_>,
        wanted: &[Wanted],
        waiting: &mut Waiting<'_>,
    ) -> Result<Option<Duration>, Undelivered> {
        if lone.has_own_timeout() {
            return Ok(None);
        }
        if !lone.needs.blocks() {
            return Ok(Some(self.request.lock_timeout));
        }
        loop {
            let by = blockers::holders(self.conn, wanted).await?;
            if by.is_empty() {
                return Ok(Some(ladder::moment()));
            }
            let Some(pause) = self.blocked(waiting, Some(by)).await? else {
                return Ok(Some(LAST));
            };
            self.rest(pause).await?;
            if let Some(time) = waiting.ladder.queues() {
                return Ok(Some(time));
            }
        }
    }

    /// Sends it once, or what ends it, between its records.
    async fn attempt(
        &mut self,
        lone: &Lone<'_>,
        standing: &Standing,
        timeout: Option<Duration>,
    ) -> Result<(), Undelivered> {
        let (set, reset) = match timeout {
            Some(time) => (
                format!("; SET lock_timeout = '{}ms'", time.as_millis().max(1)),
                "RESET lock_timeout; ",
            ),
            None => (String::new(), ""),
        };
        session::ask(self.conn, &format!("{}{set}", lone.begin)).await?;
        let instead = standing.instead();
        self.deliver(&lone.message(instead.as_deref()), Some(lone.step.version))
            .await?;
        session::ask(self.conn, &format!("{reset}{}", lone.advance)).await?;
        Ok(())
    }
}

/// What it waits for: CONCURRENTLY also for those who use the table, without standing in a queue.
fn awaited(outside: Option<&Outside>, wanted: &[Wanted]) -> Vec<Wanted> {
    let least = match outside {
        Some(Outside::BuildsIndex { .. }) => LockMode::Share,
        Some(
            Outside::RebuildsIndex(_) | Outside::RebuildsTable(_) | Outside::DropsIndex(_) | Outside::Detaches { .. },
        ) => LockMode::AccessExclusive,
        Some(Outside::MakesDatabase(_) | Outside::DropsDatabase(_)) | None => LockMode::AccessShare,
    };
    let raised = |one: &Wanted| Wanted {
        mode: one.mode.max(least),
        ..one.clone()
    };
    wanted.iter().map(raised).collect()
}
