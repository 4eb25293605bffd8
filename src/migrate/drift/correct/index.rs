//! An index is built beside the one that is there and then takes its place: what cannot be built takes nothing away.

use sqlx::{PgConnection, Row};

use super::{PATIENT, QUICK, said, split_name};
use crate::migrate::{record::literal, report::Failure, session};

/// The name of one that is being built. Whoever corrects has the migration lock, so there is one at the most.
const BESIDE: &str = "amas_correcting";

/// How an index is put back.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rebuilt {
    name: String,
    /// Takes away what a process that was killed, or a build that failed, has left.
    sweep: String,
    build: String,
    swap: String,
}

/// Not on a partitioned table, where it cannot be done without a lock.
pub(super) fn rebuilt(name: &str, definition: &str) -> Option<Rebuilt> {
    if definition.ends_with(" INVALID") || definition.contains(" ON ONLY ") {
        return None;
    }
    let (schema, own) = match split_name(name) {
        Some((schema, own)) => (format!("{schema}."), own),
        None => (String::new(), name),
    };
    let (create, rest) = definition.split_once(" INDEX ")?;
    let on = rest.strip_prefix(own)?;
    Some(Rebuilt {
        name: name.to_owned(),
        sweep: swept(&format!("{schema}{BESIDE}")),
        build: format!("{create} INDEX CONCURRENTLY {BESIDE}{on}"),
        swap: format!("DROP INDEX IF EXISTS {name}; ALTER INDEX {schema}{BESIDE} RENAME TO {own}"),
    })
}

/// Takes one away that was left half built, if this is one.
pub(super) fn leftover(name: &str) -> Option<String> {
    let own = split_name(name).map_or(name, |(_, own)| own);
    (own == BESIDE).then(|| swept(name))
}

fn swept(name: &str) -> String {
    format!("DROP INDEX CONCURRENTLY IF EXISTS {name}")
}

/// What the server said, if it did not work.
pub(super) async fn put_back(conn: &mut PgConnection, index: &Rebuilt) -> Result<Option<String>, Failure> {
    let mut refused = said(conn, PATIENT, &index.sweep).await?;
    if refused.is_none() {
        refused = said(conn, PATIENT, &index.build).await?;
    }
    if refused.is_none() {
        let comment = comment(conn, &index.name).await?;
        refused = said(conn, QUICK, &format!("{}{comment}", index.swap)).await?;
    }
    if refused.is_some() {
        // what cannot be taken away now is told as new, and taken away the next time
        said(conn, PATIENT, &index.sweep).await?;
    }
    Ok(refused)
}

/// What gives the new one the comment of the one that is there.
async fn comment(conn: &mut PgConnection, name: &str) -> Result<String, Failure> {
    let sql = format!(
        "SELECT pg_catalog.obj_description(pg_catalog.to_regclass({})::pg_catalog.oid, 'pg_class')",
        literal(name)
    );
    let rows = session::ask(conn, &sql).await?;
    let text: Option<String> = rows.first().map_or(Ok(None), |row| row.try_get(0))?;
    Ok(text.map_or_else(String::new, |text| {
        format!("; COMMENT ON INDEX {name} IS {}", literal(&text))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_built_under_another_name_of_the_same_schema() {
        let definition = "CREATE UNIQUE INDEX \"Odd. INDEX \" ON \"s.x\".t USING btree (a)";
        let index = rebuilt("\"s.x\".\"Odd. INDEX \"", definition).unwrap();
        assert_eq!(
            index.build,
            "CREATE UNIQUE INDEX CONCURRENTLY amas_correcting ON \"s.x\".t USING btree (a)"
        );
        assert_eq!(
            index.swap,
            "DROP INDEX IF EXISTS \"s.x\".\"Odd. INDEX \"; ALTER INDEX \"s.x\".amas_correcting RENAME TO \"Odd. INDEX \""
        );
        let plain = rebuilt("t_a", "CREATE INDEX t_a ON public.t USING btree (a)").unwrap();
        assert_eq!(plain.sweep, "DROP INDEX CONCURRENTLY IF EXISTS amas_correcting");
        assert_eq!(
            leftover("\"s.x\".amas_correcting").as_deref(),
            Some("DROP INDEX CONCURRENTLY IF EXISTS \"s.x\".amas_correcting")
        );
        assert_eq!(leftover("t_a"), None);
    }
}
