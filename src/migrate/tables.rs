//! The engine's own tables: created when absent, and told what sqlx did before.

use std::collections::HashMap;

use sqlx::{PgConnection, Row, postgres::PgRow};

use crate::api::names::SqlName;

use super::{
    history::Applied,
    plan::Down,
    record::{self, stamp},
    report::Failure,
    session,
    source::{Checksum, Source},
};

/// Creates the tables if they are absent, or brings those of an older release up to date. True if it did either.
pub(super) async fn ensure(conn: &mut PgConnection, schema: &SqlName) -> Result<bool, Failure> {
    let sql = format!(
        "SELECT pg_catalog.obj_description(pg_catalog.to_regnamespace('amas_migrate'), 'pg_namespace'), \
         pg_catalog.to_regclass('\"{schema}\"._sqlx_migrations') IS NOT NULL"
    );
    let rows = session::ask(conn, &sql).await?;
    let (layout, sqlx): (Option<String>, bool) = match rows.first() {
        Some(row) => (row.try_get(0)?, row.try_get(1)?),
        None => (None, false),
    };
    match layout.as_deref() {
        Some(record::LAYOUT) if sqlx => return Ok(false),
        None => {}
        Some(known) if known == record::LAYOUT || record::OLDER.contains(&known) => {}
        Some(other) => {
            return Err(Failure::Refused(format!(
                "schema amas_migrate is marked {other:?}, this release knows {:?}: use the newer release",
                record::LAYOUT
            )));
        }
    }
    if let Err(failed) = session::send(conn, &record::bootstrap(schema)).await {
        let _ = session::send(conn, "ROLLBACK").await;
        return Err(failed.error.into());
    }
    Ok(true)
}

/// Rows that sqlx wrote become known to our history, with the way back their files have. What was taken back since, or had another text, says
/// nothing of such a row.
pub(super) async fn adopt(conn: &mut PgConnection, source: &Source, applied: &[Applied]) -> Result<(), Failure> {
    let latest =
        "SELECT DISTINCT ON (version) version, direction, checksum FROM amas_migrate.history ORDER BY version, id DESC";
    let rows = session::ask(conn, latest).await?;
    let known: HashMap<i64, Checksum> = rows
        .iter()
        .filter_map(|row| in_by(row).transpose())
        .collect::<Result<_, _>>()?;
    let stamps: Vec<String> = applied
        .iter()
        .filter(|applied| applied.success && known.get(&applied.version) != Some(&applied.checksum))
        .map(|applied| {
            let down = way_back(source, applied);
            stamp(applied.version, &applied.description, &applied.checksum, down.as_ref())
        })
        .collect();
    if stamps.is_empty() {
        return Ok(());
    }
    session::ask(conn, &stamps.join(";")).await?;
    Ok(())
}

/// The version and text that a latest row of the history says to be in; None: it was taken back.
fn in_by(row: &PgRow) -> Result<Option<(i64, Checksum)>, sqlx::Error> {
    let taken_back = row.try_get::<String, _>("direction")? == "down";
    let text = (row.try_get("version")?, Checksum::from_row(row.try_get("checksum")?));
    Ok((!taken_back).then_some(text))
}

/// The down text of the file that was applied, if it is still that file.
fn way_back(source: &Source, applied: &Applied) -> Option<Down> {
    let file = source.get(applied.version)?;
    let down = file.down.as_ref().filter(|_| file.up.checksum == applied.checksum)?;
    Some(Down {
        sql: down.sql.clone(),
        checksum: down.checksum.clone(),
    })
}
