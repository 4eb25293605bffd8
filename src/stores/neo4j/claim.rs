//! The node that says whose database this is: held while we use it, let go when we no longer do.

use jiff::Timestamp;
use neo4rs::query;

use crate::stores::{
    claim::{ClaimRecord, ClaimVerdict},
    endpoint::StoreError,
    neo4j::{
        cypher,
        duty::Neo4jDuty,
        session::{Session, get},
    },
};

/// The records that are there, usually one. Nothing keeps two writers from making two nodes, so each is judged.
async fn read(session: &Session) -> Result<Vec<Option<String>>, StoreError> {
    let rows = session.rows(&cypher::read_claim()).await?;
    rows.iter().map(|row| get::<Option<String>>(row, "record")).collect()
}

async fn write(session: &Session, record: &ClaimRecord) -> Result<(), StoreError> {
    let text = serde_json::to_string(record).map_err(|error| StoreError::Rejected(error.to_string()))?;
    session.write(query(&cypher::write_claim()).param("record", text)).await
}

/// Writes our claim where it is to be ours; gives the text of somebody else's.
pub async fn hold(session: &Session, base: &Neo4jDuty) -> Result<Option<String>, StoreError> {
    let mut found = read(session).await?;
    if found.is_empty() {
        found.push(None);
    }
    for text in found {
        match base
            .claim
            .judge(text.as_deref(), base.managed, base.take_over.is_some())
        {
            ClaimVerdict::Ours => {}
            ClaimVerdict::Foreign(holder) => return Ok(Some(holder)),
            ClaimVerdict::Write { created_by_us, since } => {
                let since = since.unwrap_or_else(Timestamp::now);
                write(session, &base.claim.record(created_by_us, since)).await?;
            }
        }
    }
    Ok(None)
}

/// Marks our claim as released; somebody else's stays as it is.
pub async fn release(session: &Session, base: &Neo4jDuty) -> Result<(), StoreError> {
    let found = read(session).await?.into_iter().flatten();
    let ours = found
        .filter_map(|text| serde_json::from_str::<ClaimRecord>(&text).ok())
        .find(|record| record.claim == base.claim);
    let Some(record) = ours else { return Ok(()) };
    let released = ClaimRecord {
        released: Some(Timestamp::now()),
        ..record
    };
    write(session, &released).await
}
