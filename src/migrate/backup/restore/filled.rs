//! Tables that are there: whether they have rows, and that they take those of a backup as they are, whatever their foreign keys and triggers.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{PgConnection, Row};

use super::{Choice, refused};
use crate::migrate::{record::literal, report::Failure, session};

/// Those that exist, and whether each is a sequence.
pub(super) async fn present(
    conn: &mut PgConnection,
    names: &BTreeSet<String>,
) -> Result<BTreeMap<String, bool>, Failure> {
    let list: Vec<String> = names.iter().map(|name| literal(name)).collect();
    let sql = format!(
        "SELECT f, c.relkind = 'S' FROM pg_catalog.unnest(ARRAY[{}]::pg_catalog.text[]) f \
         JOIN pg_catalog.pg_class c ON c.oid = pg_catalog.to_regclass(f)::pg_catalog.oid",
        list.join(", ")
    );
    let mut all = BTreeMap::new();
    for row in session::ask(conn, &sql).await? {
        all.insert(row.try_get(0)?, row.try_get(1)?);
    }
    Ok(all)
}

/// Those of these tables that have rows of their own. Nobody writes into them from here to our end.
pub(super) async fn occupied(conn: &mut PgConnection, tables: &[&str]) -> Result<Vec<String>, Failure> {
    if tables.is_empty() {
        return Ok(Vec::new());
    }
    let each: Vec<String> = tables.iter().map(|table| format!("ONLY {table}")).collect();
    let lock = format!("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE", each.join(", "));
    session::ask(conn, &lock)
        .await
        .map_err(|error| refused("locks of the tables that are there", error))?;
    let looks: Vec<String> = tables
        .iter()
        .map(|table| format!("SELECT {} WHERE EXISTS (SELECT FROM ONLY {table})", literal(table)))
        .collect();
    let rows = session::ask(conn, &looks.join(" UNION ALL ")).await?;
    Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}

/// What is altered, and what puts it back, of the tables `f`. Their rows come in the order of the file, so foreign keys are looked at last; and they
/// have been through the triggers once. Those of a partitioned table, into which itself no rows go, are what a partition that is made anew gets.
const QUIET: &str = "SELECT pg_catalog.format('ALTER TABLE %s ALTER CONSTRAINT %I DEFERRABLE INITIALLY DEFERRED', f.name, k.conname), \
     pg_catalog.format('ALTER TABLE %s ALTER CONSTRAINT %I NOT DEFERRABLE', f.name, k.conname) \
     FROM f JOIN pg_catalog.pg_constraint k ON k.conrelid = f.oid \
     WHERE k.contype = 'f' AND NOT k.condeferrable AND k.conparentid = 0 \
     UNION ALL \
     SELECT pg_catalog.format('ALTER TABLE ONLY %s DISABLE TRIGGER %I', f.name, t.tgname), \
     pg_catalog.format('ALTER TABLE ONLY %s ENABLE %s TRIGGER %I', f.name, CASE t.tgenabled WHEN 'A' THEN 'ALWAYS' ELSE '' END, t.tgname) \
     FROM f JOIN pg_catalog.pg_trigger t ON t.tgrelid = f.oid \
     WHERE NOT t.tgisinternal AND t.tgenabled IN ('O', 'A') AND f.relkind <> 'p'";

/// Readies the tables that are filled; what puts them back as they were.
pub(super) async fn quiet(conn: &mut PgConnection, choice: &Choice) -> Result<String, Failure> {
    let filled: Vec<String> = choice.filled().map(literal).collect();
    if filled.is_empty() {
        return Ok(String::new());
    }
    let sql = format!(
        "WITH f AS (SELECT c.oid, c.relkind, pg_catalog.format('%I.%I', n.nspname, c.relname) AS name \
         FROM pg_catalog.unnest(ARRAY[{}]) t JOIN pg_catalog.pg_class c ON c.oid = pg_catalog.to_regclass(t)::pg_catalog.oid \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace) {QUIET}",
        filled.join(", ")
    );
    let (mut before, mut after) = (Vec::new(), String::new());
    for row in session::ask(conn, &sql).await? {
        before.push(row.try_get::<String, _>(0)?);
        after.push_str(&format!("{}; ", row.try_get::<String, _>(1)?));
    }
    if !before.is_empty() {
        session::ask(conn, &before.join("; "))
            .await
            .map_err(|error| refused("foreign keys and triggers of the tables that are there", error))?;
    }
    Ok(after)
}
