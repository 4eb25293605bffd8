//! Which sessions stand in the way of a lock: asked of `pg_locks`, told to people.

use std::fmt;

use sqlx::{PgConnection, Row, postgres::PgRow};

use super::{analysis::LockMode, session};

/// A table that a transaction locks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub oid: i64,
    /// Quoted, with its schema.
    pub name: String,
    pub mode: LockMode,
}

/// A session that holds what is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocker {
    pub pid: i32,
    /// The wanted table that it is in the way of, 0 if that is unknown.
    pub oid: i64,
    /// Its transaction, which another one of the same session is not.
    pub transaction: String,
    /// The table as the server names it; empty if it is not a table that it is waited for.
    pub table: String,
    /// An autovacuum worker, which gives way to whoever waits for long enough.
    pub autovacuum: bool,
    pub application: Option<String>,
    pub user: Option<String>,
    /// `active`, `idle in transaction`; hidden by the server from roles that may not see it, as is the age.
    pub state: Option<String>,
    /// How long its transaction has been going on.
    pub seconds: Option<i64>,
    /// How long ago its query began, which may be over.
    pub query_seconds: Option<i64>,
}

impl Blocker {
    /// What it does and for how long, the query told apart where it is not as old as the transaction.
    fn age(&self) -> Option<String> {
        let seconds = self.seconds.or(self.query_seconds);
        let age = match (&self.state, seconds) {
            (Some(state), Some(seconds)) => format!("{state}, for {seconds} s"),
            (Some(state), None) => state.clone(),
            (None, Some(seconds)) => format!("for {seconds} s"),
            (None, None) => return None,
        };
        let query = self.query_seconds.filter(|query| Some(*query) != seconds);
        Some(match (query, self.state.as_deref()) {
            (Some(query), Some("active")) => format!("{age}, its query for {query} s"),
            (Some(query), _) => format!("{age}, its last query began {query} s ago"),
            (None, _) => age,
        })
    }
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {}", self.pid)?;
        let mut details = Vec::new();
        if self.autovacuum {
            details.push("autovacuum".to_owned());
        }
        details.extend(self.application.clone().filter(|name| !name.is_empty()));
        details.extend(self.user.as_ref().map(|user| format!("user {user}")));
        details.extend(self.age());
        if !details.is_empty() {
            write!(f, " ({})", details.join(", "))?;
        }
        if !self.table.is_empty() {
            write!(f, " on {}", self.table)?;
        }
        Ok(())
    }
}

/// The first few of them as one line.
pub fn list(blockers: &[Blocker]) -> String {
    const SHOWN: usize = 5;
    let mut text: Vec<String> = blockers.iter().take(SHOWN).map(Blocker::to_string).collect();
    if blockers.len() > SHOWN {
        text.push(format!("{} more", blockers.len() - SHOWN));
    }
    text.join("; ")
}

/// What is the same in every question: who it is. An owner that is no superuser does not see what kind of process an
/// autovacuum worker is, but it is the only one with a database and without a user.
const WHO: &str = "a.application_name, a.usename::text, a.state, \
    COALESCE(a.usesysid IS NULL AND a.datid IS NOT NULL, false) AS autovacuum, \
    (EXTRACT(epoch FROM pg_catalog.clock_timestamp() - a.xact_start))::pg_catalog.int8 AS seconds, \
    (EXTRACT(epoch FROM pg_catalog.clock_timestamp() - a.query_start))::pg_catalog.int8 AS query_seconds";

/// Who holds what conflicts with any of these locks, on the tables and on those below them.
pub async fn holders(conn: &mut PgConnection, wanted: &[Wanted]) -> Result<Vec<Blocker>, sqlx::Error> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let pairs = wanted.iter().flat_map(|wanted| {
        let conflicts = wanted.mode.conflicts().iter();
        conflicts.map(move |mode| {
            let oid = wanted.oid;
            format!("({oid}::oid, {oid}::oid, '{}')", mode.in_pg_locks())
        })
    });
    let pairs: Vec<String> = pairs.collect();
    let sql = format!(
        "WITH RECURSIVE w (root, oid, mode) AS (VALUES {pairs} UNION \
             SELECT w.root, i.inhrelid, w.mode FROM w JOIN pg_catalog.pg_inherits i ON i.inhparent = w.oid) \
         SELECT DISTINCT ON (l.pid) l.pid, w.root::pg_catalog.int8 AS root, l.virtualtransaction, w.oid::pg_catalog.regclass::text AS relation, {WHO} \
         FROM w JOIN pg_catalog.pg_locks l ON l.locktype = 'relation' AND l.relation = w.oid AND l.mode = w.mode AND l.granted \
         AND l.pid <> pg_catalog.pg_backend_pid() \
         AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()) \
         LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid ORDER BY l.pid",
        pairs = pairs.join(", ")
    );
    session::ask(conn, &sql).await?.iter().map(blocker).collect()
}

/// Who another session of ours is waiting for in this moment.
pub async fn of_session(conn: &mut PgConnection, pid: i32) -> Result<Vec<Blocker>, sqlx::Error> {
    let sql = format!(
        "SELECT DISTINCT ON (b.pid) b.pid, 0::pg_catalog.int8 AS root, COALESCE(l.virtualtransaction, '') AS virtualtransaction, \
         COALESCE(t.relation::pg_catalog.regclass::text, '') AS relation, {WHO} \
         FROM pg_catalog.unnest(pg_catalog.pg_blocking_pids({pid})) b (pid) \
         LEFT JOIN pg_catalog.pg_locks l ON l.pid = b.pid AND l.locktype = 'virtualxid' \
         LEFT JOIN pg_catalog.pg_locks t ON t.pid = {pid} AND NOT t.granted AND t.locktype = 'relation' \
         LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = b.pid ORDER BY b.pid"
    );
    session::ask(conn, &sql).await?.iter().map(blocker).collect()
}

fn blocker(row: &PgRow) -> Result<Blocker, sqlx::Error> {
    Ok(Blocker {
        pid: row.try_get("pid")?,
        oid: row.try_get("root")?,
        transaction: row.try_get("virtualtransaction")?,
        table: row.try_get("relation")?,
        autovacuum: row.try_get("autovacuum")?,
        application: row.try_get("application_name")?,
        user: row.try_get("usename")?,
        state: row.try_get("state")?,
        seconds: row.try_get("seconds")?,
        query_seconds: row.try_get("query_seconds")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blockers_are_told_with_what_is_known() {
        let mut blocker = Blocker {
            pid: 7,
            oid: 1,
            transaction: "3/4".into(),
            table: "public.t".into(),
            autovacuum: false,
            application: Some("web".into()),
            user: Some("app".into()),
            state: Some("idle in transaction".into()),
            seconds: Some(12),
            query_seconds: Some(12),
        };
        assert_eq!(
            blocker.to_string(),
            "pid 7 (web, user app, idle in transaction, for 12 s) on public.t"
        );
        blocker.query_seconds = Some(3);
        assert!(
            blocker
                .to_string()
                .contains("idle in transaction, for 12 s, its last query began 3 s ago)")
        );
        blocker.state = Some("active".into());
        assert!(blocker.to_string().contains("active, for 12 s, its query for 3 s)"));
        (blocker.state, blocker.seconds, blocker.user) = (None, None, None);
        assert_eq!(blocker.to_string(), "pid 7 (web, for 3 s) on public.t");
        blocker.query_seconds = None;
        (blocker.autovacuum, blocker.application) = (true, Some(String::new()));
        assert_eq!(blocker.to_string(), "pid 7 (autovacuum) on public.t");
        assert!(list(&vec![blocker; 8]).ends_with("; 3 more"));
    }
}
