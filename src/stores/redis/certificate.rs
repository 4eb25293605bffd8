//! The certificate of a managed server: a renewed one reaches it as files, which its node brings in its own time, and is taken up when
//! the server is told of them again.

use std::collections::BTreeMap;

use super::{
    duty::RedisDuty,
    session::{Connection, lane},
};
use crate::stores::{endpoint::StoreError, tls};

/// Where the files are. Given anew, the same names make the server read them anew.
const DIRECTIVES: [&str; 2] = ["tls-cert-file", "tls-key-file"];

/// Whether the server shows the certificate that it should, after it was told where it did not. Known to, it is not asked again.
pub async fn hold(
    connection: &mut Connection,
    duty: &RedisDuty,
    shown: &mut Option<String>,
) -> Result<bool, StoreError> {
    if duty.serves.is_none() || *shown == duty.serves {
        return Ok(true);
    }
    *shown = look(duty).await?;
    if *shown != duty.serves {
        read_again(connection).await?;
        *shown = look(duty).await?;
        let renewed = *shown == duty.serves;
        tracing::info!(renewed, "the server was told to read its certificate again");
    }
    Ok(*shown == duty.serves)
}

/// Certificate and key at once: one without the other is refused. So are halves of both, while the files are being replaced.
async fn read_again(connection: &mut Connection) -> Result<(), StoreError> {
    let mut get = redis::cmd("CONFIG");
    get.arg("GET").arg(&DIRECTIVES);
    let files: BTreeMap<String, String> = get.query_async(connection).await.map_err(lane)?;
    let mut set = redis::cmd("CONFIG");
    set.arg("SET");
    for (directive, file) in files {
        set.arg(directive).arg(file);
    }
    match set.query_async::<()>(connection).await.map_err(lane) {
        Err(StoreError::Rejected(text)) => {
            tracing::warn!(text, "the server does not take its certificate");
            Ok(())
        }
        outcome => outcome,
    }
}

async fn look(duty: &RedisDuty) -> Result<Option<String>, StoreError> {
    tls::shown(&duty.endpoint, tls::open(&duty.endpoint).await?).await
}
