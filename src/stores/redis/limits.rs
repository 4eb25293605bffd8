//! What a server, or our login on it, does not allow: asked once for each connection.

use futures::future::join_all;
use redis::RedisError;

use super::session::{Connection, info, lane, refuses};
use crate::stores::{endpoint::StoreError, limits::Limit};

/// Each with the limit that its refusal means.
const PROBES: [(&[&str], Option<Limit>); 5] = [
    // So that a sweep makes no key look used; servers before 7.2 do not know it. The other keeps us connected when clients are too many.
    (&["CLIENT", "NO-TOUCH", "ON"], Some(Limit::NoTouchUnknown)),
    (&["CLIENT", "NO-EVICT", "ON"], None),
    (&["CONFIG", "GET", "maxmemory"], Some(Limit::NoConfig)),
    (&["ACL", "WHOAMI"], Some(Limit::NoAcl)),
    (&["SCAN", "0", "COUNT", "1"], Some(Limit::NoScan)),
];

/// Sets the connection up and tells what it cannot do.
pub async fn probe(connection: &mut Connection) -> Result<Vec<Limit>, StoreError> {
    // All at once over the one connection.
    let answers = join_all(PROBES.map(|(words, limit)| ask(connection.clone(), words, limit))).await;
    let mut limits = Vec::new();
    for answer in answers {
        limits.extend(answer?);
    }
    let (told, refused) = info(connection, Some("replication")).await?;
    if refused {
        limits.push(Limit::NoInfo);
    }
    if told.text("role") == "slave" && told.text("slave_read_only") != "0" {
        limits.push(Limit::ReadOnly);
    }
    limits.sort();
    Ok(limits)
}

async fn ask(mut connection: Connection, words: &[&str], limit: Option<Limit>) -> Result<Option<Limit>, StoreError> {
    let (name, rest) = words.split_at(1);
    let mut command = redis::cmd(name[0]);
    command.arg(rest);
    let told: Result<redis::Value, RedisError> = command.query_async(&mut connection).await;
    match told {
        Ok(_) => Ok(None),
        Err(error) if refuses(&error) => Ok(limit),
        Err(error) => match lane(error) {
            StoreError::Unreachable(text) => Err(StoreError::Unreachable(text)),
            // It knows the command, which is all that was asked.
            _ => Ok(None),
        },
    }
}
