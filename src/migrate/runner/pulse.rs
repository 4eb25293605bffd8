//! A second connection that shows signs of life while a statement of the first one goes on for long, and says who that
//! one is waiting for. It is opened only when it is needed.

use std::time::{Duration, Instant};

use sqlx::{ConnectOptions, PgConnection};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::migrate::{
    blockers::{self, Blocker},
    progress,
    session::{self, Login},
};

use super::waiting::describe;

/// A statement that takes longer is watched.
const LONG: Duration = Duration::from_secs(2);
const EVERY: Duration = Duration::from_secs(2);
/// The record is written this often if nothing has changed.
const SIGN: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(5);

/// Who is in the way, and since when the statement is.
type News = (Duration, Vec<Blocker>);

pub(super) struct Pulse {
    /// The file whose text the server has, and since when.
    flight: watch::Sender<Option<(String, Instant)>>,
    news: mpsc::Receiver<News>,
    task: JoinHandle<()>,
}

impl Pulse {
    /// For a run, and the server process that does its work.
    pub fn start(login: Login, run: i64, pid: i32) -> Self {
        let (flight, watched) = watch::channel(None);
        let (tell, news) = mpsc::channel(1);
        let beat = Beat {
            login,
            run,
            pid,
            watched,
            tell,
        };
        Self {
            flight,
            news,
            task: tokio::spawn(beat.run()),
        }
    }

    pub fn begins(&self, file: &str) {
        self.flight.send_replace(Some((file.to_owned(), Instant::now())));
    }

    pub fn ends(&self) {
        self.flight.send_replace(None);
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The next news; never if there is no pulse.
pub(super) async fn next(pulse: &mut Option<Pulse>) -> News {
    if let Some(pulse) = pulse
        && let Some(news) = pulse.news.recv().await
    {
        return news;
    }
    std::future::pending().await
}

struct Beat {
    login: Login,
    run: i64,
    pid: i32,
    watched: watch::Receiver<Option<(String, Instant)>>,
    tell: mpsc::Sender<News>,
}

impl Beat {
    async fn run(mut self) {
        let mut conn = None;
        loop {
            let Ok(flying) = self
                .watched
                .wait_for(Option::is_some)
                .await
                .map(|flight| flight.clone())
            else {
                return;
            };
            let Some((file, since)) = flying else { continue };
            tokio::select! {
                () = sleep(LONG.saturating_sub(since.elapsed())) => {}
                changed = self.watched.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                },
            }
            if conn.is_none() {
                conn = self.connect().await;
            }
            // a connection that fails is opened anew for the next statement, or in a while
            if let Some(open) = &mut conn
                && self.accompany(open, &file, since).await.is_err()
            {
                conn = None;
            }
            sleep(EVERY).await;
        }
    }

    async fn connect(&self) -> Option<PgConnection> {
        let mut conn = timeout(PATIENCE, self.login.options().connect()).await.ok()?.ok()?;
        session::ask(&mut conn, "SET synchronous_commit = off; SET statement_timeout = '5s'")
            .await
            .ok()?;
        Some(conn)
    }

    /// One statement, until its end.
    async fn accompany(&self, conn: &mut PgConnection, file: &str, since: Instant) -> Result<(), sqlx::Error> {
        let (mut written, mut last) = (None::<Instant>, Vec::<i32>::new());
        while self.watched.borrow().as_ref().is_some_and(|(_, at)| *at == since) {
            let by = blockers::of_session(conn, self.pid).await?;
            let pids: Vec<i32> = by.iter().map(|blocker| blocker.pid).collect();
            let news = pids != last;
            if news || written.is_none_or(|at| at.elapsed() >= SIGN) {
                let text = (!by.is_empty()).then(|| describe(file, &by));
                session::ask(conn, &progress::waiting(self.run, text.as_deref())).await?;
                written = Some(Instant::now());
            }
            if news && !by.is_empty() {
                // who does not listen will hear of the next
                let _ = self.tell.try_send((since.elapsed(), by));
            }
            last = pids;
            sleep(EVERY).await;
        }
        Ok(())
    }
}
