//! Nothing to do, nothing written: waiting until the operator has said all that it owes, and watching that it says no more.

use std::time::Duration;

use super::{
    audit::{Mark, Requests},
    pulse::Pulse,
    wait::SETTLE,
};
use crate::harness::{Result, context::Ctx};

/// How often a busy machine may take `SETTLE` to get there.
const SETTLES: usize = 4;
/// An operator gives a server a second. Writes while one took nearly as long may be the truth about it: they are watched for again, this often.
const SLOW: Duration = Duration::from_millis(800);
const TRIES: usize = 3;

pub struct Quiet<'a> {
    ctx: &'a Ctx,
    /// Whose requests count; all of them when nobody else is at work.
    namespace: Option<&'a str>,
}

impl<'a> Quiet<'a> {
    pub fn everywhere(ctx: &'a Ctx) -> Self {
        Self { ctx, namespace: None }
    }

    pub fn within(ctx: &'a Ctx, namespace: &'a str) -> Self {
        Self {
            ctx,
            namespace: Some(namespace),
        }
    }

    /// Waits until the operator has written nothing for so long that no step on the way is owed any more. Whether it comes to that at all
    /// is for what follows to show.
    pub async fn settled(&self) -> Result {
        self.settle(async || pause(SETTLE).await).await
    }

    /// As [`settled`](Self::settled), doing something of that length meanwhile; returns what came of it the last time.
    pub async fn settle<T>(&self, mut work: impl AsyncFnMut() -> Result<T>) -> Result<T> {
        for _ in 1..SETTLES {
            let mark = self.ctx.audit()?;
            let done = work().await?;
            if self.since(&mark)?.writes().is_empty() {
                return Ok(done);
            }
        }
        work().await
    }

    /// Does something that is to make the operator write nothing; what it asked for meanwhile. Once things have settled.
    pub async fn watch<T>(&self, mut work: impl AsyncFnMut() -> Result<T>) -> Result<(T, Requests)> {
        let namespaces = self
            .namespace
            .map_or_else(|| self.ctx.namespaces(), |name| vec![name.to_owned()]);
        let mut tries = 0;
        loop {
            tries += 1;
            let mut pulse = Pulse::open(self.ctx, &namespaces).await?;
            let mark = self.ctx.audit()?;
            let (done, worst) = pulse.during(Box::pin(work())).await;
            let (done, requests) = (done?, self.since(&mark)?);
            if requests.writes().is_empty() || worst <= SLOW || tries == TRIES {
                return Ok((done, requests));
            }
            self.ctx.say(format!(
                "void: a store took {:.1} s to answer; written meanwhile: {}",
                worst.as_secs_f64(),
                requests.writes()
            ));
            self.settled().await?;
        }
    }

    /// What the operator writes within a time, once things have settled.
    pub async fn writes_within(&self, time: Duration) -> Result<Requests> {
        Ok(self.watch(async || pause(time).await).await?.1.writes())
    }

    fn since(&self, mark: &Mark) -> Result<Requests> {
        let all = mark.requests()?;
        Ok(match self.namespace {
            Some(namespace) => all.in_namespace(namespace),
            None => all,
        })
    }
}

async fn pause(time: Duration) -> Result {
    tokio::time::sleep(time).await;
    Ok(())
}
