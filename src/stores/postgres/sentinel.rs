//! The connection that watches: logged in as the owner, listening for migrations; before the owner exists, as the admin.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::{
    PostgresDuty,
    wire::{Wire, WireError},
};
use crate::{
    migrate::drift::SIGNAL,
    stores::{
        endpoint::StoreError,
        keeper::{Sentinel, ServerIdentity, Sign},
    },
};

/// Where an admin logs in when the database itself may not be there yet.
pub const MAINTENANCE_DATABASE: &str = "postgres";
const LISTEN: &str = "LISTEN amas_migrate; SELECT extract(epoch FROM pg_postmaster_start_time())::text";
/// How often the server is asked for the hint, in place of a ping. The server's counts are up to ten seconds late.
const HINT_EVERY: Duration = Duration::from_secs(20);
/// Unknown database, wrong password or unknown role, login not allowed, no right to connect: what work may put right.
const NOT_THERE_YET: [&str; 4] = ["3D000", "28P01", "28000", "42501"];

/// See the file's head.
pub struct PostgresSentinel {
    wire: Wire,
    provisional: bool,
    /// The server's hint that the schema has changed, and when it was last asked for it.
    hint: (String, Instant),
    /// It has moved, which was not told yet.
    moved: bool,
}

/// Logs in as the owner; as the admin while the owner or the database is not there yet.
pub async fn open(duty: &PostgresDuty) -> Result<(PostgresSentinel, ServerIdentity), StoreError> {
    match Wire::login(&duty.owner_login, duty.database.as_str()).await {
        Ok(wire) => greet(wire, false).await,
        Err(error) if not_there_yet(&error) => greet(log_in_as_admin(duty).await?, true).await,
        Err(error) => Err(error.into()),
    }
}

/// While the admin's password is being replaced, either may be in.
async fn log_in_as_admin(duty: &PostgresDuty) -> Result<Wire, WireError> {
    match (
        Wire::login(&duty.admin, MAINTENANCE_DATABASE).await,
        duty.admin_with_next(),
    ) {
        (Err(error), Some(next)) if error.sqlstate.as_deref() == Some("28P01") => {
            Wire::login(&next, MAINTENANCE_DATABASE).await
        }
        (outcome, _) => outcome,
    }
}

fn not_there_yet(error: &WireError) -> bool {
    error
        .sqlstate
        .as_deref()
        .is_some_and(|state| NOT_THERE_YET.contains(&state))
}

async fn greet(mut wire: Wire, provisional: bool) -> Result<(PostgresSentinel, ServerIdentity), StoreError> {
    let started = wire.query(LISTEN).await?;
    let identity = ServerIdentity {
        version: wire.server_version.split(' ').next().unwrap_or_default().to_owned(),
        started_at: started.first().and_then(|epoch| timestamp(epoch)),
    };
    // What happens from now on is noticed; what happened before, the work begins with.
    let hint = match provisional {
        true => String::new(),
        false => wire.query(SIGNAL).await.unwrap_or_default().concat(),
    };
    let sentinel = PostgresSentinel {
        wire,
        provisional,
        hint: (hint, Instant::now()),
        moved: false,
    };
    Ok((sentinel, identity))
}

fn timestamp(epoch: &str) -> Option<Timestamp> {
    let (seconds, fraction) = epoch.split_once('.').unwrap_or((epoch, "0"));
    let micros = format!("{fraction:0<6}");
    let micros = seconds
        .parse::<i64>()
        .ok()?
        .checked_mul(1_000_000)?
        .checked_add(micros.get(..6)?.parse().ok()?)?;
    Timestamp::from_microsecond(micros).ok()
}

impl Sentinel for PostgresSentinel {
    async fn next_sign(&mut self) -> Sign {
        if std::mem::take(&mut self.moved) {
            return Sign::Nudge;
        }
        loop {
            match self.wire.next().await {
                Ok(message) if message.tag == b'A' => return Sign::Nudge,
                Ok(_) => {}
                Err(error) => return Sign::Lost(error.text),
            }
        }
    }

    async fn ping(&mut self) -> Result<(), StoreError> {
        if !self.hint.0.is_empty() && self.hint.1.elapsed() >= HINT_EVERY {
            let hint = self.wire.query(SIGNAL).await?.concat();
            self.moved = hint != self.hint.0;
            self.hint = (hint, Instant::now());
            return Ok(());
        }
        // An empty query is the cheapest round trip through the server process and leaves no trace in its statistics.
        self.wire.query("").await?;
        Ok(())
    }

    fn provisional(&self) -> bool {
        self.provisional
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_times_keep_their_microseconds() {
        assert_eq!(
            timestamp("1700000000.5").unwrap().as_microsecond(),
            1_700_000_000_500_000
        );
        assert_eq!(
            timestamp("1700000000.000012").unwrap().as_microsecond(),
            1_700_000_000_000_012
        );
        assert_eq!(timestamp("1700000000").unwrap().as_microsecond(), 1_700_000_000_000_000);
        assert_eq!(timestamp("soon"), None);
    }
}
