//! The little of the migrations' state that rights and wake-ups depend on. Read over the owner's own login.

use serde::Deserialize;
use sqlx::PgConnection;

use super::connect::{SqlError, read as read_json};

/// How far the migrations are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct History {
    /// Highest id of `amas_migrate.history`; 0 where only sqlx has migrated.
    pub latest: i64,
    /// Applied versions in sqlx's table, and the highest of them.
    pub applied: i64,
    pub current: i64,
    /// The latest run: id, and its outcome once it has one.
    pub run: Option<i64>,
    pub outcome: Option<String>,
}

/// `None` before the first migration.
pub async fn read(connection: &mut PgConnection) -> Result<Option<History>, SqlError> {
    #[derive(Deserialize)]
    struct Tables {
        ours: bool,
        sqlx: bool,
    }
    let tables: Tables = read_json(
        connection,
        "SELECT json_build_object('ours', to_regclass('amas_migrate.runs') IS NOT NULL \
         AND to_regclass('amas_migrate.history') IS NOT NULL, \
         'sqlx', to_regclass('public._sqlx_migrations') IS NOT NULL)::text"
            .to_owned(),
    )
    .await?;
    if !tables.ours && !tables.sqlx {
        return Ok(None);
    }
    Ok(Some(read_json(connection, query(tables.ours, tables.sqlx)).await?))
}

fn query(ours: bool, sqlx: bool) -> String {
    let latest = if ours {
        "coalesce((SELECT max(id) FROM amas_migrate.history), 0)"
    } else {
        "0"
    };
    let (applied, current) = if sqlx {
        (
            "(SELECT count(*) FROM public._sqlx_migrations WHERE success)",
            "coalesce((SELECT max(version) FROM public._sqlx_migrations WHERE success), 0)",
        )
    } else {
        ("0", "0")
    };
    let run = if ours {
        ", 'run', (SELECT max(id) FROM amas_migrate.runs), \
         'outcome', (SELECT \"left\"(outcome, 100) FROM amas_migrate.runs ORDER BY id DESC LIMIT 1)"
    } else {
        ""
    };
    format!("SELECT json_build_object('latest', {latest}, 'applied', {applied}, 'current', {current}{run})::text")
}
