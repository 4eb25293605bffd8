//! One session on the server: connecting with patience, the runner's settings, the migration lock.

use std::{
    fmt,
    time::{Duration, Instant},
};

use futures::TryStreamExt;
use sqlx::{
    AssertSqlSafe, ConnectOptions, Either, PgConnection, Row,
    postgres::{PgConnectOptions, PgRow},
    raw_sql,
};
use tokio::time::{sleep, timeout};
use tokio_rustls::rustls;

use super::{
    plan::Options,
    report::{Failure, Holder, is_transient},
};

/// The application_name of every session of the engine.
pub const APPLICATION: &str = "amas-migrate";

const ATTEMPT: Duration = Duration::from_secs(5);
/// A setting of the session's start that only the server itself keeps.
const DIRECT: &str = "amas.direct";
const INTERRUPT_CHECK: &str = "client_connection_check_interval";

/// How to open another session with the same settings.
#[derive(Clone)]
pub struct Login(PgConnectOptions);

impl Login {
    pub fn new(login: &PgConnectOptions, options: &Options) -> Self {
        Self(with_settings(login, options))
    }

    pub fn options(&self) -> &PgConnectOptions {
        &self.0
    }
}

/// A password is in it.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login")
    }
}

/// Connects with the runner's settings, trying again within `patience` while the server is away or starting.
pub async fn connect(login: &PgConnectOptions, options: &Options, patience: Duration) -> Result<PgConnection, Failure> {
    let started = Instant::now();
    let mut pause = Duration::from_millis(100);
    let plain = with_settings(login, options);
    let mut login = plain.clone().options([(INTERRUPT_CHECK, "2s")]);
    let mut plain = Some(plain);
    loop {
        let error = match timeout(ATTEMPT, direct(&login)).await {
            Ok(Ok(conn)) => return conn.ok_or(Failure::Pooled),
            Ok(Err(error)) => error,
            Err(_) => sqlx::Error::Io(std::io::Error::from(std::io::ErrorKind::TimedOut)),
        };
        // not every platform has it; nothing but tidiness depends on it
        if let Some(plain) = plain.take_if(|_| error.to_string().contains(INTERRUPT_CHECK)) {
            login = plain;
            continue;
        }
        let failure = connect_failure(&error);
        if !matches!(failure, Failure::Unreachable(_)) || started.elapsed() + pause > patience {
            return Err(failure);
        }
        sleep(pause).await;
        pause = (pause * 3 / 2).min(Duration::from_secs(2));
    }
}

/// Settings of the session's start, so that RESET ALL comes back to them.
fn with_settings(login: &PgConnectOptions, options: &Options) -> PgConnectOptions {
    login
        .clone()
        .application_name(APPLICATION)
        .options([
            ("statement_timeout", "0"),
            ("lock_timeout", "0"),
            ("idle_in_transaction_session_timeout", "0"),
            ("standard_conforming_strings", "on"),
            ("synchronous_commit", "on"),
            ("search_path", options.search_path.as_str()),
            (DIRECT, "yes"),
        ])
        .disable_statement_logging()
}

/// A session with the server itself; None: a pooler lets us in, which gives each transaction another session, so that locks,
/// settings and what a file sets would go astray.
async fn direct(login: &PgConnectOptions) -> Result<Option<PgConnection>, sqlx::Error> {
    let mut conn = login.connect().await?;
    let sql = format!("SELECT pg_catalog.current_setting('{DIRECT}', true)");
    let kept: Option<String> = match ask(&mut conn, &sql).await?.first() {
        Some(row) => row.try_get(0)?,
        None => None,
    };
    Ok((kept.as_deref() == Some("yes")).then_some(conn))
}

/// Whether this is how PgBouncer refuses the settings of a session's start: a protocol violation that names them.
pub fn is_poolers(sqlstate: Option<&str>, message: &str) -> bool {
    sqlstate == Some("08P01") && message.contains("startup parameter")
}

fn connect_failure(error: &sqlx::Error) -> Failure {
    match error {
        sqlx::Error::Database(db) if is_poolers(db.code().as_deref(), db.message()) => Failure::Pooled,
        // A certificate does not become another one by waiting.
        sqlx::Error::Io(io) if is_about_a_certificate(io) => Failure::Refused(format!(
            "{io}: the server's certificate is not accepted; PGSSLROOTCERT must name a file with the certificate of its authority, and the host name must be one of \
             the certificate's"
        )),
        sqlx::Error::Io(_) => Failure::Unreachable(error.to_string()),
        sqlx::Error::Database(db) if db.code().is_some_and(|code| is_transient(&code)) => {
            Failure::Unreachable(db.message().to_owned())
        }
        sqlx::Error::Database(db) => Failure::Server {
            sqlstate: db.code().unwrap_or_default().into_owned(),
            message: db.message().to_owned(),
        },
        // a server that closes the connection while it starts or stops
        sqlx::Error::Protocol(_) => Failure::Unreachable(error.to_string()),
        _ => Failure::Refused(error.to_string()),
    }
}

fn is_about_a_certificate(error: &std::io::Error) -> bool {
    let error = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(error, Some(rustls::Error::InvalidCertificate(_)))
}

/// An error of a message, and how many of its statements were completed before.
#[derive(Debug)]
pub struct SendError {
    pub completed: usize,
    pub error: sqlx::Error,
}

/// Sends one simple-protocol message (any number of statements, one round trip) and drops its rows.
pub async fn send(conn: &mut PgConnection, sql: &str) -> Result<(), SendError> {
    exchange(conn, sql, |_| {}).await
}

/// The same, keeping the rows of all statements.
pub async fn ask(conn: &mut PgConnection, sql: &str) -> Result<Vec<PgRow>, sqlx::Error> {
    let mut rows = Vec::new();
    exchange(conn, sql, |row| rows.push(row))
        .await
        .map_err(|failed| failed.error)?;
    Ok(rows)
}

async fn exchange(conn: &mut PgConnection, sql: &str, mut keep: impl FnMut(PgRow)) -> Result<(), SendError> {
    let mut completed = 0;
    let mut stream = raw_sql(AssertSqlSafe(sql.to_owned())).fetch_many(conn);
    loop {
        match stream.try_next().await {
            Ok(None) => return Ok(()),
            Ok(Some(Either::Left(_))) => completed += 1,
            Ok(Some(Either::Right(row))) => keep(row),
            Err(error) => return Err(SendError { completed, error }),
        }
    }
}

/// The id of the advisory lock that sqlx takes for a database of this name.
pub fn lock_id(database: &str) -> i64 {
    0x3d32_ad9e * i64::from(crc32(database.as_bytes()))
}

/// CRC-32 (ISO-HDLC), bit by bit: a database's name is short.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| {
        if crc & 1 == 1 {
            (crc >> 1) ^ 0xedb8_8320
        } else {
            crc >> 1
        }
    };
    !bytes
        .iter()
        .fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), step))
}

/// Takes sqlx's lock without ever standing in its queue: a session blocked in pg_advisory_lock has an open snapshot,
/// which deadlocks with CREATE INDEX CONCURRENTLY. Tells who holds it after one second.
pub async fn lock(
    conn: &mut PgConnection,
    database: &str,
    patience: Duration,
    tell: &mut (dyn FnMut(Option<Holder>) + Send),
) -> Result<(), Failure> {
    let id = lock_id(database);
    let started = Instant::now();
    let mut told = false;
    loop {
        let rows = ask(conn, &format!("SELECT pg_catalog.pg_try_advisory_lock({id})")).await?;
        if rows.first().is_some_and(|row| row.try_get(0).unwrap_or(false)) {
            return Ok(());
        }
        let waited = started.elapsed();
        if waited >= patience {
            return Err(Failure::Locked {
                waited: patience,
                holder: holder(conn, id).await?,
            });
        }
        if !told && waited >= Duration::from_secs(1) {
            told = true;
            tell(holder(conn, id).await?);
        }
        sleep(Duration::from_millis(100)).await;
    }
}

pub async fn unlock(conn: &mut PgConnection, database: &str) -> Result<(), sqlx::Error> {
    ask(
        conn,
        &format!("SELECT pg_catalog.pg_advisory_unlock({})", lock_id(database)),
    )
    .await
    .map(drop)
}

async fn holder(conn: &mut PgConnection, id: i64) -> Result<Option<Holder>, sqlx::Error> {
    let (high, low) = ((id as u64) >> 32, (id as u64) & 0xffff_ffff);
    let sql = format!(
        "SELECT l.pid, a.application_name FROM pg_catalog.pg_locks l \
         LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid \
         WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND l.classid = {high} AND l.objid = {low} \
         AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())"
    );
    let rows = ask(conn, &sql).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    Ok(Some(Holder {
        pid: row.try_get(0)?,
        application: row.try_get(1)?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_id_is_sqlx_s() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(lock_id("123456789"), 0x3d32_ad9e * 0xcbf4_3926);
    }
}
