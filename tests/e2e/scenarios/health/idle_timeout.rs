//! Sessions that end by the server's idle timeout, and all at once: no loss.

use std::time::{Duration, Instant};

use sqlx::PgConnection;

use super::Scene;
use crate::{
    cluster::{
        audit::Requests,
        clients::{self, Values},
        conditions,
        quiet::Quiet,
    },
    ensure,
    harness::{About, Result},
};

/// How long the server closes sessions that have been idle for a second.
const IDLE: Duration = Duration::from_secs(12);
/// The operator has a second for a login. What is said while one by hand takes half of it may be the truth: it is tried again, this often.
const SLOW: Duration = Duration::from_millis(500);
const TRIES: usize = 3;

const CLOSE_OTHERS: &str = "SELECT count(pg_terminate_backend(pid))::text FROM pg_stat_activity \
    WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";

/// What was seen meanwhile.
struct Seen {
    /// Changed conditions.
    flips: usize,
    writes: Requests,
    /// Sessions that were closed at once.
    closed: String,
    slowest_login: Duration,
}

impl Seen {
    fn ok(&self) -> bool {
        self.flips == 0 && self.writes.is_empty()
    }
}

impl Scene<'_> {
    /// The server closes idle sessions after a second, and every session at once: nobody flips, nothing is written.
    pub(super) async fn idle_timeout(&self) -> Result {
        let url = self.admin().await?;
        let mut admin = clients::postgres(&url).await?;
        // It is the one that must not be closed.
        clients::sql(&mut admin, "SET idle_session_timeout = 0").await?;
        let mut tries = 0;
        let seen = loop {
            tries += 1;
            Quiet::everywhere(self.ctx).settled().await?;
            let seen = self.closing(&mut admin, &url).await?;
            if seen.ok() || seen.slowest_login <= SLOW || tries == TRIES {
                break seen;
            }
            let took = seen.slowest_login.as_secs_f64();
            self.ctx.say(format!("void: a login by hand took {took:.1} s"));
        };
        let value = format!(
            "{} changed conditions, writes: {} ({} sessions closed)",
            seen.flips, seen.writes, seen.closed
        );
        self.ctx.figure(
            "connection closed by idle timeout or by the server",
            value,
            "no flip, no write",
            seen.ok(),
        );
        Ok(())
    }

    async fn closing(&self, admin: &mut PgConnection, url: &str) -> Result<Seen> {
        let mark = self.ctx.audit()?;
        let mut watch = self.watch().await?;
        let before = watch
            .current()
            .map(conditions::summary)
            .about("the database is absent")?;
        clients::sql(admin, "ALTER SYSTEM SET idle_session_timeout = '1s'").await?;
        clients::sql(admin, "SELECT pg_reload_conf()").await?;
        let closed = clients::value(admin, CLOSE_OTHERS).await?;
        ensure!(closed != "0", "no session of the operator was found to close");
        let (versions, slowest_login) = futures::try_join!(watch.record(IDLE), logins(url))?;
        clients::sql(admin, "ALTER SYSTEM RESET idle_session_timeout").await?;
        clients::sql(admin, "SELECT pg_reload_conf()").await?;
        let flips = versions
            .iter()
            .filter(|version| conditions::summary(version) != before)
            .count();
        Ok(Seen {
            flips,
            writes: mark.requests()?.writes(),
            closed,
            slowest_login,
        })
    }

    /// How the administrator logs in, by its Secret.
    async fn admin(&self) -> Result<String> {
        let secret = Values::read(
            &self.ctx.client,
            &self.namespace,
            &format!("{}-postgres-admin", self.database),
        )
        .await?;
        let password = secret.get("PGPASSWORD").or_else(|_| secret.get("password"))?;
        let user = secret.get("PGUSER").unwrap_or("postgres");
        let host = format!("{}-postgres.{}.svc", self.database, self.namespace);
        Ok(format!("postgresql://{user}:{password}@{host}:5432/postgres"))
    }
}

/// A login every second, as the operator has to; how long the slowest took.
async fn logins(url: &str) -> Result<Duration> {
    let end = Instant::now() + IDLE;
    let mut slowest = Duration::ZERO;
    while Instant::now() < end {
        let begun = Instant::now();
        clients::postgres(url).await?;
        slowest = slowest.max(begun.elapsed());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(slowest)
}
