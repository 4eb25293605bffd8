//! Whether the schema is still as the last run of migrations left it. The sentinel hears the server's hint that something in the
//! catalogs was written; then, and with every full look, the schema is compared over the owner's own login; what was found may be
//! accepted, or put back by a task of its own, since an index takes the time it takes.

use std::time::{Duration, Instant};

use sqlx::{PgConnection, Row};
use tokio::task::JoinSet;

use super::{
    PostgresDuty, PostgresFacts,
    connect::{SqlError, connect},
    duty::twin_of,
    sql::ident,
};
use crate::{
    api::names::SqlName,
    migrate::{
        drift::{
            self, Difference, Drift,
            correct::{self, Outcome},
        },
        report::Failure,
        session,
    },
};

/// The schema is compared this often without a hint: a server need not count, and an administrator may count out.
const WITHOUT_HINT: Duration = Duration::from_secs(600);
/// A comparison takes at most this part of the time, where temporary tables come and go all the time.
const SHARE: u32 = 100;
const LONGEST_REST: Duration = Duration::from_secs(30);
/// While something is being put back.
const CORRECTING: Duration = Duration::from_secs(2);
/// After it could not be begun.
const BUSY: Duration = Duration::from_secs(30);

/// What a schema that is not as it was recorded means.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct DriftDuty {
    /// What loses nothing is put back.
    pub correct: bool,
    /// A person's word, by its value, that the schema is right as it is.
    pub accept: Option<String>,
}

/// What is remembered between slices.
#[derive(Debug, Default)]
pub struct Watched {
    hint: Option<String>,
    looked: Option<Instant>,
    cost: Duration,
    /// One at most; it ends with this. The migration lock keeps it from doing what somebody else does.
    correcting: JoinSet<Result<Vec<Outcome>, Failure>>,
    /// Nothing is put back before this: a migration, or another operator, was at work.
    not_before: Option<Instant>,
    /// What could not be put back; it is tried again with the next look without a hint.
    refused: Vec<Difference>,
}

/// Looks if there is a reason to. Gives the pause after which there may be another.
pub async fn see(
    watched: &mut Watched,
    duty: &PostgresDuty,
    facts: &mut PostgresFacts,
    owner: &mut PgConnection,
) -> Result<Option<Duration>, SqlError> {
    let asked = duty.drift.accept.is_some() && facts.drift_accepted != duty.drift.accept;
    let corrected = collect(watched);
    let hint = match hint(owner).await {
        // The clock says then when to look.
        Err(error) if error.sqlstate.is_some() => watched.hint.clone().unwrap_or_default(),
        hint => hint?,
    };
    let overdue = watched.looked.is_none_or(|at| at.elapsed() >= WITHOUT_HINT);
    let moved = watched.hint.as_ref() != Some(&hint);
    let rest = (watched.cost * SHARE).min(LONGEST_REST);
    let rested = watched.looked.is_none_or(|at| at.elapsed() >= rest);
    if asked || corrected || overdue || (moved && rested) {
        if overdue {
            watched.refused.clear();
        }
        let begun = Instant::now();
        match compare(duty, asked, owner).await {
            Ok(found) => {
                facts.drift = Some(found);
                facts.drift_accepted.clone_from(&duty.drift.accept);
                watched.hint = Some(hint);
            }
            // Something that the server cannot describe just now; the database is no worse for it.
            Err(error) if error.sqlstate.is_some() => tracing::debug!(%error, "the schema could not be compared"),
            Err(error) => return Err(error),
        }
        (watched.looked, watched.cost) = (Some(Instant::now()), begun.elapsed());
    } else if moved {
        return Ok(Some(rest));
    }
    Ok(put_back(watched, duty, facts))
}

async fn hint(owner: &mut PgConnection) -> Result<String, SqlError> {
    let row = sqlx::raw_sql(drift::SIGNAL).fetch_one(owner).await?;
    Ok(row.try_get(0)?)
}

/// What differs, but for what is the operator's own work: extensions that are asked for, and rights of its roles.
async fn compare(duty: &PostgresDuty, accept: bool, owner: &mut PgConnection) -> Result<Drift, SqlError> {
    let schema = SqlName::public();
    let Some(mut found) = drift::look(owner, &schema).await? else {
        return Ok(Drift {
            unknown: Some("no schema was recorded yet"),
            ..Drift::default()
        });
    };
    if accept {
        drift::accept(owner, &schema).await?;
        found = drift::look(owner, &schema).await?.unwrap_or_default();
    }
    let extensions: Vec<String> = duty.extensions.iter().map(|one| ident(one.name.as_str())).collect();
    let roles: Vec<String> = duty.roles.iter().map(|role| &role.name).flat_map(granted_to).collect();
    let made = |one: &&Difference| one.kind == "extension" && extensions.contains(&quoted(&one.name));
    let made: Vec<String> = found
        .differences
        .iter()
        .filter(made)
        .map(|one| one.name.clone())
        .collect();
    drift::take_up_extensions(owner, &made).await?;
    let before = found.differences.len();
    found.differences.retain(|one| match one.kind.as_str() {
        "extension" => !made.contains(&one.name),
        "grant" => !roles.iter().any(|role| one.name.ends_with(role)),
        _ => true,
    });
    found.total -= before - found.differences.len();
    Ok(found)
}

/// As `ident` quotes every name.
fn quoted(name: &str) -> String {
    if name.starts_with('"') {
        name.to_owned()
    } else {
        format!("\"{name}\"")
    }
}

/// How grants to a role and its twin end. A name that needs quotes has them.
fn granted_to(role: &SqlName) -> [String; 4] {
    let twin = twin_of(role);
    [
        format!(" TO {role}"),
        format!(" TO \"{role}\""),
        format!(" TO {twin}"),
        format!(" TO \"{twin}\""),
    ]
}

/// Whether a correction has ended.
fn collect(watched: &mut Watched) -> bool {
    let Some(ended) = watched.correcting.try_join_next() else {
        return false;
    };
    match ended {
        Ok(Ok(outcomes)) => {
            for Outcome { difference, refused } in outcomes {
                match refused {
                    None => tracing::info!(%difference, "put back"),
                    Some(why) => {
                        tracing::warn!(%difference, why, "could not be put back");
                        watched.refused.push(difference);
                    }
                }
            }
        }
        Ok(Err(failure)) => {
            watched.not_before = Some(Instant::now() + BUSY);
            tracing::info!(%failure, "nothing was put back");
        }
        Err(_) => {}
    }
    true
}

fn put_back(watched: &mut Watched, duty: &PostgresDuty, facts: &PostgresFacts) -> Option<Duration> {
    if !watched.correcting.is_empty() {
        return Some(CORRECTING);
    }
    let found = facts.drift.as_ref().filter(|_| duty.drift.correct)?;
    let worth = |one: &&Difference| correct::is_correctable(one) && !watched.refused.contains(one);
    found.differences.iter().find(worth)?;
    let wait = watched
        .not_before
        .map(|time| time.saturating_duration_since(Instant::now()));
    if let Some(wait) = wait.filter(|wait| !wait.is_zero()) {
        return Some(wait);
    }
    let (login, database) = (duty.owner_login.clone(), duty.database.clone());
    watched.correcting.spawn(async move {
        let lost = |error: SqlError| Failure::Lost(error.to_string());
        let mut connection = connect(&login, database.as_str()).await.map_err(lost)?;
        session::ask(&mut connection, "SET statement_timeout = 0").await?;
        correct::correct(&mut connection, &SqlName::public(), Duration::ZERO).await
    });
    Some(CORRECTING)
}
