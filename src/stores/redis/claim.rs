//! The key that says whose server this is: held while we use it, let go when we no longer do.

use jiff::Timestamp;

use super::{
    CLAIM_KEY, RedisDuty,
    session::{Connection, lane},
};
use crate::stores::{
    claim::{ClaimRecord, ClaimVerdict},
    endpoint::StoreError,
};

async fn read(connection: &mut Connection) -> Result<Option<String>, StoreError> {
    redis::cmd("GET")
        .arg(CLAIM_KEY)
        .query_async(connection)
        .await
        .map_err(lane)
}

/// Writes our claim where it is to be ours; gives the text of somebody else's.
pub async fn hold(connection: &mut Connection, base: &RedisDuty) -> Result<Option<String>, StoreError> {
    let found = read(connection).await?;
    let verdict = base
        .claim
        .judge(found.as_deref(), base.managed, base.take_over.is_some());
    let record = match verdict {
        ClaimVerdict::Ours => return Ok(None),
        ClaimVerdict::Foreign(holder) => return Ok(Some(holder)),
        ClaimVerdict::Write { created_by_us, since } => {
            base.claim.record(created_by_us, since.unwrap_or_else(Timestamp::now))
        }
    };
    let mut set = redis::cmd("SET");
    set.arg(CLAIM_KEY).arg(text(&record)?);
    if found.is_none() {
        set.arg("NX");
    }
    // Nil: another operator was faster; the next slice sees whose it is.
    let written: Option<String> = set.query_async(connection).await.map_err(lane)?;
    Ok(written
        .is_none()
        .then(|| "claimed by another operator just now".to_owned()))
}

/// Marks our claim as released; somebody else's stays as it is.
pub async fn release(connection: &mut Connection, base: &RedisDuty) -> Result<(), StoreError> {
    let found = read(connection)
        .await?
        .and_then(|text| serde_json::from_str::<ClaimRecord>(&text).ok());
    let Some(record) = found.filter(|record| record.claim == base.claim) else {
        return Ok(());
    };
    let released = ClaimRecord {
        released: Some(Timestamp::now()),
        ..record
    };
    redis::cmd("SET")
        .arg(CLAIM_KEY)
        .arg(text(&released)?)
        .query_async(connection)
        .await
        .map_err(lane)
}

fn text(record: &ClaimRecord) -> Result<String, StoreError> {
    serde_json::to_string(record).map_err(|error| StoreError::Rejected(error.to_string()))
}
