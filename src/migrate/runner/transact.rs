//! One transaction with the locks it needs: see [`ladder`](super::ladder) for when and how they are asked for.

use crate::migrate::{
    blockers::{self, Wanted},
    plan::Step,
    session,
    units::{Needs, Span},
};

use super::{Runner, ladder::Ladder, message::Message, send::Undelivered, waiting::Waiting};

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
        let wanted = self.beforehand(&work.step.sql, work.needs).await?;
        let ladder = Ladder::new(self.request.lock_timeout, work.needs.blocks(), work.needs.unlisted);
        let mut waiting = Waiting::new(&work.step.file, None, ladder);
        loop {
            let (locks, count) = waiting.ladder.lead(&wanted);
            let begin = format!("{}; {locks}\n", work.begin);
            let lead = (begin.as_str(), count + 1);
            let message = Message::inside(&work.step.file, &work.step.sql, work.span, lead, work.tail);
            let Err(refused) = self.deliver(&message, Some(work.step.version)).await else {
                return Ok(());
            };
            self.again(&mut waiting, &wanted, refused).await?;
            if !work.settings.is_empty() {
                session::ask(self.conn, &work.settings.join(";")).await?;
            }
        }
    }

    /// The locks that are taken before anything else; none where nobody waits for who waits.
    pub(super) async fn beforehand(&mut self, sql: &str, needs: &Needs) -> Result<Vec<Wanted>, sqlx::Error> {
        match needs.blocks() {
            true => self.resolve(sql, needs).await,
            false => Ok(Vec::new()),
        }
    }

    /// After a refusal: waits until the next attempt, if there is to be one.
    pub(super) async fn again(
        &mut self,
        waiting: &mut Waiting<'_>,
        wanted: &[Wanted],
        refused: Undelivered,
    ) -> Result<(), Undelivered> {
        match refused.sqlstate() {
            Some("55P03") => {
                let look = match waiting.ladder.wants_look() || waiting.ladder.is_over() {
                    true => Some(blockers::holders(self.conn, wanted).await?),
                    false => None,
                };
                let Some(pause) = self.blocked(waiting, look).await? else {
                    return Err(waiting.given_up(refused));
                };
                self.rest(pause).await?;
                Ok(())
            }
            Some("40P01" | "40001") if waiting.ladder.collided() => Ok(()),
            _ => Err(refused),
        }
    }
}
