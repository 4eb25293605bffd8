//! The certificate of a managed server: a renewed one reaches it as files, which its node brings in its own time, and is taken up by a reload.

use std::time::Duration;

use sqlx::Connection as _;
use tokio::time::sleep;

use super::{
    PostgresDuty, PostgresWorker,
    connect::{SqlError, execute},
    wire::certificate,
    work::log_in,
};
use crate::stores::endpoint::StoreError;

/// How long a server may take to read its files after it was told to.
const LOADING: Duration = Duration::from_millis(200);

/// Whether the server shows the certificate that it should, after it was told where it did not. Known to, it is not asked again.
pub async fn hold(worker: &mut PostgresWorker, duty: &PostgresDuty) -> Result<bool, StoreError> {
    if duty.serves.is_none() || worker.shown == duty.serves {
        return Ok(true);
    }
    worker.shown = certificate(&duty.admin).await?;
    if worker.shown != duty.serves {
        let mut connection = log_in(true, duty).await?;
        execute(&mut connection, &["SELECT pg_reload_conf()".to_owned()]).await?;
        connection.close().await.map_err(SqlError::from)?;
        sleep(LOADING).await;
        worker.shown = certificate(&duty.admin).await?;
        let renewed = worker.shown == duty.serves;
        tracing::info!(renewed, "the server was told to read its certificate again");
    }
    Ok(worker.shown == duty.serves)
}
