//! One transaction with the locks it needs: see [`ladder`](super::ladder) for when and how they are asked for.

use crate::migrate::{
    blockers,
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
        let blocks = work.needs.blocks();
        let wanted = match blocks {
            true => self.resolve(&work.step.sql, work.needs).await?,
            false => Vec::new(),
        };
        let ladder = Ladder::new(self.request.lock_timeout, blocks, work.needs.unlisted);
        let mut waiting = Waiting::new(&work.step.file, None, ladder);
        loop {
            let (locks, count) = waiting.ladder.lead(&wanted);
            let begin = format!("{}; {locks}\n", work.begin);
            let lead = (begin.as_str(), count + 1);
            let message = Message::inside(&work.step.file, &work.step.sql, work.span, lead, work.tail);
            let Err(undelivered) = self.deliver(&message, Some(work.step.version)).await else {
                return Ok(());
            };
            match undelivered.sqlstate() {
                Some("55P03") => {
                    let look = match waiting.ladder.wants_look() || waiting.ladder.is_over() {
                        true => Some(blockers::holders(self.conn, &wanted).await?),
                        false => None,
                    };
                    let Some(pause) = self.blocked(&mut waiting, look).await? else {
                        return Err(waiting.given_up(undelivered));
                    };
                    self.rest(pause).await?;
                }
                Some("40P01" | "40001") if waiting.ladder.collided() => {}
                _ => return Err(undelivered),
            }
            if !work.settings.is_empty() {
                session::ask(self.conn, &work.settings.join(";")).await?;
            }
        }
    }
}
