//! A file of several parts: each is recorded as it is through, and a rerun goes on with the one it stopped at.

use std::time::{Duration, Instant};

use crate::migrate::{
    analysis::Outside,
    plan::Step,
    progress::{self, Unfinished},
    record::{self, Committed},
    report::Failure,
    session,
    units::{Kind, Span, Unit},
};

use super::{
    Runner,
    leftovers::Standing,
    message::Message,
    send::Undelivered,
    transact::{Work, given_up},
};

/// Between two attempts of a statement that met a deadlock or a lock.
const PAUSE: Duration = Duration::from_millis(200);
/// After a refusal the removal of leftovers waits this long for those who use the table.
const TIDY: Duration = Duration::from_secs(5);
/// A statement outside of a transaction that would make others wait stands in a queue no longer.
const MOMENT: Duration = Duration::from_millis(100);

/// A part outside of a transaction.
struct Lone<'a> {
    step: &'a Step,
    span: Span,
    outside: Option<&'a Outside>,
    /// What it is recorded with, before and after.
    begin: String,
    advance: String,
    lock_timeout: Option<Duration>,
    settings: Vec<String>,
}

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
        let advance = progress::advance(step.version, done, progress::role(&step.sql, through));
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
                let time = if unit.needs.blocks() {
                    MOMENT
                } else {
                    self.request.lock_timeout
                };
                let lone = Lone {
                    step,
                    span: unit.span,
                    outside: outside.as_ref(),
                    begin: progress::begin(step.version, outside.as_ref(), role),
                    advance,
                    // the file knows better
                    lock_timeout: Some(time).filter(|_| !step.sql.contains("lock_timeout")),
                    settings,
                };
                self.lone(&lone, begun).await
            }
        }
    }

    /// A statement outside of a transaction. What it may have left behind is looked for before each attempt, and after
    /// the last.
    async fn lone(&mut self, lone: &Lone<'_>, begun: bool) -> Result<(), Undelivered> {
        let started = Instant::now();
        let mut standing = if begun {
            let patience = self.request.lock_timeout;
            self.standing(lone.step.version, lone.outside, patience).await?
        } else {
            self.sweep_before(lone.outside).await?;
            Standing::Open
        };
        loop {
            if standing == Standing::Through {
                session::ask(self.conn, &lone.advance).await?;
                return Ok(());
            }
            let timeout = lone
                .lock_timeout
                .map(|time| format!("; SET lock_timeout = '{}ms'", time.as_millis().max(1)));
            let before = format!("{}{}", lone.begin, timeout.unwrap_or_default());
            session::ask(self.conn, &before).await?;
            let finalize = standing.instead();
            let message = match &finalize {
                Some(sql) => Message::alone(&lone.step.file, sql, (0, sql.len())),
                None => Message::alone(&lone.step.file, &lone.step.sql, lone.span),
            };
            let Err(undelivered) = self.deliver(&message, Some(lone.step.version)).await else {
                let reset = if lone.lock_timeout.is_some() {
                    "RESET lock_timeout; "
                } else {
                    ""
                };
                session::ask(self.conn, &format!("{reset}{}", lone.advance)).await?;
                return Ok(());
            };
            if !matches!(undelivered, Undelivered::Answered(_)) {
                return Err(undelivered);
            }
            // what cannot be removed now is looked for by the next run
            let left = self.standing(lone.step.version, lone.outside, TIDY).await;
            let again = matches!(undelivered.sqlstate(), Some("40P01" | "55P03"));
            if !again || started.elapsed() >= self.request.lock_timeout {
                return Err(match undelivered.sqlstate() {
                    Some("55P03") => given_up(undelivered, started.elapsed(), Vec::new()),
                    _ => undelivered,
                });
            }
            standing = left?;
            self.rest(PAUSE).await?;
            // the refusal has taken them back
            if !lone.settings.is_empty() {
                session::ask(self.conn, &lone.settings.join(";")).await?;
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
