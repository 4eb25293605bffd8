//! The engine's own tables: created when absent, and told what sqlx did before.

use std::collections::HashSet;

use sqlx::{PgConnection, Row};

use crate::api::names::SqlName;

use super::{
    history::Applied,
    plan::Down,
    record::{self, stamp},
    report::Failure,
    session,
    source::Source,
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

/// Rows that sqlx wrote become known to our history, with the way back their files have.
pub(super) async fn adopt(conn: &mut PgConnection, source: &Source, applied: &[Applied]) -> Result<(), Failure> {
    let known = "SELECT DISTINCT version FROM amas_migrate.history";
    let rows = session::ask(conn, known).await?;
    let known: HashSet<i64> = rows.iter().flat_map(|row| row.try_get(0)).collect();
    let stamps: Vec<String> = applied
        .iter()
        .filter(|applied| applied.success && !known.contains(&applied.version))
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

/// The down text of the file that was applied, if it is still that file.
fn way_back(source: &Source, applied: &Applied) -> Option<Down> {
    let file = source.get(applied.version)?;
    let down = file.down.as_ref().filter(|_| file.up.checksum == applied.checksum)?;
    Some(Down {
        sql: down.sql.clone(),
        checksum: down.checksum.clone(),
    })
}
