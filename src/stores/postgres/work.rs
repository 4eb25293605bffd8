//! One slice of work: the admin's part when it is due, then history, rights and figures over the owner's own login.

mod admin;
mod owner;

use std::time::{Duration, Instant};

use super::{PostgresDuty, PostgresFacts, certificate, drift};
use crate::stores::{
    endpoint::{StoreError, refusal},
    keeper::Progress,
};

use admin::{follow_configuration, is_configured, is_moving, settle};
use owner::{Looked, look};

pub use admin::{connect_admin, drop_role, log_in};

/// The whole database is looked at again this often, for what was changed by hand.
const FULL_LOOK: Duration = Duration::from_secs(600);
/// How often somebody else's claim is looked at again: it may have been released; and a database that is gone: it may be back.
const CONFLICT_LOOK: Duration = Duration::from_secs(30);
/// Between two looks for a changed configuration file, which its node brings.
const FILE_ARRIVES: Duration = Duration::from_secs(1);
/// The same for a renewed certificate, which is not urgent.
pub const CERTIFICATE_ARRIVES: Duration = Duration::from_secs(10);
/// What is remembered between slices; no connection.
#[derive(Debug, Default)]
pub struct PostgresWorker {
    /// The duty whose admin part is in, and when that was last seen.
    settled: Option<(u64, Instant)>,
    /// The duty, the latest history and the number of applied migrations for which the rights are in.
    rights_for: Option<(u64, i64, usize)>,
    /// The database has been seen: log in to it directly.
    exists: bool,
    figures_at: Option<Instant>,
    drift: drift::Watched,
    /// The certificate that the server was last seen to show.
    pub(super) shown: Option<String>,
}

/// One slice; see the file's head.
pub async fn slice(
    worker: &mut PostgresWorker,
    duty: &PostgresDuty,
    facts: &mut PostgresFacts,
) -> Result<Progress, StoreError> {
    let fingerprint = duty.fingerprint();
    if facts.duty_in != Some(fingerprint) {
        facts.duty_in = None;
    }
    let outcome = towards(worker, duty, fingerprint, facts).await;
    facts.error = refusal(&outcome, facts.error.take());
    outcome
}

async fn towards(
    worker: &mut PostgresWorker,
    duty: &PostgresDuty,
    fingerprint: u64,
    facts: &mut PostgresFacts,
) -> Result<Progress, StoreError> {
    let asked = duty.take_over.is_some() && facts.take_over_seen != duty.take_over;
    let settled = !asked
        && worker
            .settled
            .is_some_and(|(seen, at)| seen == fingerprint && at.elapsed() < FULL_LOOK);
    if !settled {
        worker.settled = None;
        worker.rights_for = None;
        settle(worker, duty, facts).await?;
        facts.take_over_seen.clone_from(&duty.take_over);
        if facts.conflict.is_some() || facts.database_missing {
            return Ok(Progress::Done {
                again_in: Some(CONFLICT_LOOK),
            });
        }
        if !facts.unsure.is_empty() {
            return Ok(Progress::Done {
                again_in: Some(FULL_LOOK),
            });
        }
        worker.settled = Some((fingerprint, Instant::now()));
    } else if is_moving(duty, facts) {
        follow_configuration(worker, duty, facts).await?;
    }
    let drift = match look(worker, duty, fingerprint, facts).await {
        Ok(Looked::Settled(drift)) => drift,
        Ok(Looked::Moving(pause)) => return Ok(Progress::More { pause }),
        // No such database: somebody has dropped it since it was seen.
        Err(error) if settled && error.is("3D000") => {
            (worker.settled, worker.exists) = (None, false);
            return Ok(Progress::More { pause: Duration::ZERO });
        }
        Err(error) => return Err(error.into()),
    };
    if !is_configured(duty, facts) {
        return Ok(Progress::More { pause: FILE_ARRIVES });
    }
    facts.duty_in = Some(fingerprint);
    let again = match certificate::hold(worker, duty).await? {
        true => FULL_LOOK,
        false => CERTIFICATE_ARRIVES,
    };
    let again = drift.map_or(again, |drift| drift.min(again));
    Ok(Progress::Done { again_in: Some(again) })
}
