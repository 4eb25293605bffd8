//! A file of several parts: each is recorded as it is through, and a rerun goes on with the one it stopped at.

use std::time::Instant;

use crate::migrate::{
    plan::Step,
    progress::{self, Unfinished},
    record::{self, Committed},
    report::Failure,
    session,
    units::{Kind, Unit},
};

use super::{Runner, lone::Lone, send::Undelivered, transact::Work};

impl Runner<'_, '_> {
    /// All parts that are not through yet, then the history rows.
    pub(super) async fn in_parts(&mut self, one: &Committed<'_>, step: &Step, units: &[Unit]) -> Result<(), Failure> {
        let started = Instant::now();
        let schema = self.request.options.schema.clone();
        let done = match &step.unfinished {
            Some(unfinished) => self.go_on(step, units, unfinished).await?,
            None => {
                session::ask(self.conn, &record::mark_unfinished(&schema, step, one.direction)).await?;
                0
            }
        };
        for index in done..units.len() {
            self.pause_point()?;
            let begun = index == done && step.unfinished.as_ref().is_some_and(|unfinished| unfinished.begun);
            let Err(undelivered) = self.part(step, units, index, begun).await else {
                continue;
            };
            if index == 0 && left_nothing(&units[0], &undelivered) {
                session::ask(self.conn, &record::unmark(&schema, step, one.direction)).await?;
            }
            return Err(undelivered.into_failure());
        }
        let finished = record::mark_finished(&schema, self.id(), one, started.elapsed());
        session::ask(self.conn, &finished).await?;
        Ok(())
    }

    /// How many parts are through, whose settings the session then has again. The file may have been corrected since,
    /// but not in those.
    async fn go_on(&mut self, step: &Step, units: &[Unit], half: &Unfinished) -> Result<usize, Failure> {
        let done = units
            .get(..half.done)
            .filter(|done| progress::digest(&step.sql, done) == half.digest);
        let Some(done) = done else {
            return Err(Failure::Changed {
                file: step.file.clone(),
                done: half.done,
            });
        };
        let settings = progress::settings(&step.sql, done);
        if !settings.is_empty() {
            session::ask(self.conn, &settings.join(";")).await?;
        }
        Ok(half.done)
    }

    async fn part(&mut self, step: &Step, units: &[Unit], index: usize, begun: bool) -> Result<(), Undelivered> {
        let (unit, through) = (&units[index], &units[..=index]);
        let digest = progress::digest(&step.sql, through);
        let done = (index + 1, digest.as_str());
        let advance = progress::advance(step.version, done, progress::role_within(&step.sql, through).as_deref());
        let settings = progress::settings(&step.sql, &units[..index]);
        match &unit.kind {
            Kind::Transaction(begin) => {
                let work = Work {
                    step,
                    span: unit.span,
                    begin: begin.map_or("BEGIN", |(start, end)| &step.sql[start..end]),
                    needs: &unit.needs,
                    settings: &settings,
                    tail: &format!("{advance}; COMMIT"),
                };
                self.transact(&work).await
            }
            Kind::Alone(outside) => {
                let role = progress::role(&step.sql, &units[..index]);
                let lone = Lone {
                    step,
                    span: unit.span,
                    outside: outside.as_ref(),
                    needs: &unit.needs,
                    begin: progress::begin(step.version, outside.as_ref(), role.as_deref()),
                    advance,
                    settings,
                    role: role.as_deref(),
                };
                self.lone(&lone, begun).await
            }
        }
    }
}

/// Whether a first part that failed has surely done nothing: a procedure may have committed something.
fn left_nothing(unit: &Unit, undelivered: &Undelivered) -> bool {
    let Undelivered::Answered(failure) = undelivered else {
        return false;
    };
    let within = failure.statement().is_some_and(|failure| failure.context.is_some());
    unit.kind != Kind::Alone(None) || !within
}
