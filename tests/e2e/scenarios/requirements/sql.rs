//! Runs the checks of tests/requirements/*.toml against the live database, as their README says.

use std::collections::BTreeMap;

use amas_operator::api::postgres::{Access, PostgresSpec};
use futures::TryStreamExt;
use serde::Deserialize;
use sqlx::{AssertSqlSafe, Either, PgConnection, Row, ValueRef, postgres::PgRow};

use super::book::{Book, data};
use crate::{
    cluster::{
        clients::{self, Values, role_secret},
        platform::Platform,
    },
    harness::{About, Result, context::Ctx},
};

#[derive(Deserialize)]
struct Checks {
    check: Vec<Check>,
}

#[derive(Deserialize)]
struct Check {
    id: Vec<String>,
    how: String,
    role: String,
    sql: Vec<String>,
    expect: Expect,
}

/// What the last statement must come to.
#[derive(Deserialize)]
#[serde(untagged)]
enum Expect {
    Rows {
        rows: Vec<Vec<String>>,
    },
    Affected {
        affected: u64,
    },
    Refused {
        sqlstate: String,
        constraint: Option<String>,
    },
}

/// What a statement came to.
enum Outcome {
    Done {
        rows: Vec<Vec<String>>,
        affected: u64,
    },
    Refused {
        sqlstate: String,
        constraint: Option<String>,
        message: String,
    },
}

/// Runs all checks of a file; returns how many.
pub async fn run(ctx: &Ctx, platform: &Platform, namespace: &str, file: &str, book: &mut Book) -> Result<usize> {
    let checks: Checks = toml::from_str(&data(file)?).about(file)?;
    let mut sessions = sessions(ctx, platform, namespace).await?;
    for check in &checks.check {
        let session = sessions
            .get_mut(&check.role)
            .about(format!("no session for role {}", check.role))?;
        let fault = one(session, check).await?;
        let ids: Vec<&str> = check.id.iter().map(String::as_str).collect();
        book.note(&ids, &check.how, fault);
    }
    Ok(checks.check.len())
}

/// One login a role, by its published Secret.
async fn sessions(ctx: &Ctx, platform: &Platform, namespace: &str) -> Result<BTreeMap<String, PgConnection>> {
    let spec = platform
        .database
        .spec
        .postgres
        .as_ref()
        .about("the platform has no PostgreSQL")?;
    let mut sessions = BTreeMap::new();
    for (word, role) in roles(spec)? {
        let secret = Values::read(&ctx.client, namespace, &role_secret(&platform.name(), &role)).await?;
        sessions.insert(word.to_owned(), clients::postgres(secret.get("DATABASE_URL")?).await?);
    }
    Ok(sessions)
}

/// The roles that the words of the checks stand for.
fn roles(spec: &PostgresSpec) -> Result<[(&'static str, String); 3]> {
    let of = |access| {
        let role = spec.roles.iter().find(|role| role.access == access);
        role.map(|role| role.name.to_string())
            .about(format!("no role with access {access:?}"))
    };
    Ok([
        ("owner", spec.owner_name()?.to_string()),
        ("rw", of(Access::ReadWrite)?),
        ("ro", of(Access::ReadOnly)?),
    ])
}

/// The statements in a transaction that is always rolled back; what is wrong, if anything.
async fn one(session: &mut PgConnection, check: &Check) -> Result<Option<String>> {
    clients::sql(session, "BEGIN").await?;
    let fault = statements(session, check).await;
    clients::sql(session, "ROLLBACK").await?;
    fault
}

async fn statements(session: &mut PgConnection, check: &Check) -> Result<Option<String>> {
    let (last, before) = check
        .sql
        .split_last()
        .about(format!("{:?} has no statement", check.how))?;
    for statement in before {
        if let Outcome::Refused { sqlstate, message, .. } = execute(session, statement).await? {
            return Ok(Some(format!("{sqlstate} {message} in {statement}")));
        }
    }
    Ok(judge(&check.expect, execute(session, last).await?))
}

/// One message of the simple protocol.
async fn execute(session: &mut PgConnection, statement: &str) -> Result<Outcome> {
    let (mut rows, mut affected) = (Vec::new(), 0);
    let mut answers = sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).fetch_many(session);
    loop {
        match answers.try_next().await {
            Ok(Some(Either::Left(done))) => affected += done.rows_affected(),
            Ok(Some(Either::Right(row))) => rows.push(texts(&row)?),
            Ok(None) => return Ok(Outcome::Done { rows, affected }),
            Err(sqlx::Error::Database(error)) => {
                return Ok(Outcome::Refused {
                    sqlstate: error.code().unwrap_or_default().into_owned(),
                    constraint: error.constraint().map(str::to_owned),
                    message: error.message().to_owned(),
                });
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn texts(row: &PgRow) -> Result<Vec<String>> {
    let text = |index| {
        let value = row.try_get_raw(index)?;
        let text = if value.is_null() { "NULL" } else { value.as_str()? };
        Ok(text.to_owned())
    };
    (0..row.len()).map(text).collect()
}

fn judge(expect: &Expect, outcome: Outcome) -> Option<String> {
    match (expect, outcome) {
        (Expect::Rows { rows: wanted }, Outcome::Done { rows, .. }) => {
            (*wanted != rows).then(|| format!("expected {wanted:?}, seen {rows:?}"))
        }
        (Expect::Affected { affected: wanted }, Outcome::Done { affected, .. }) => {
            (*wanted != affected).then(|| format!("expected {wanted} rows to be affected, seen {affected}"))
        }
        (
            Expect::Refused { sqlstate, constraint },
            Outcome::Refused {
                sqlstate: seen,
                constraint: named,
                message,
            },
        ) => {
            let same = *sqlstate == seen && (constraint.is_none() || *constraint == named);
            (!same).then(|| format!("expected {sqlstate} {constraint:?}, seen {seen} {named:?} {message}"))
        }
        (Expect::Refused { sqlstate, .. }, Outcome::Done { rows, affected }) => Some(format!(
            "expected {sqlstate}, but it was done: {rows:?}, {affected} affected"
        )),
        (_, Outcome::Refused { sqlstate, message, .. }) => Some(format!("refused with {sqlstate}: {message}")),
    }
}
