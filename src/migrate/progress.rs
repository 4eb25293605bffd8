//! The record of a file that is more than one transaction: which of its parts are through, and which was begun. Pure text
//! beside what [`history`](super::history) reads of it.
//!
//! A part in a transaction is recorded in that transaction. One outside of any is recorded as begun before, with the
//! indexes its table had, and as through after: between the two the catalog tells how far it came.

use sha2::{Digest, Sha256};

use super::{
    analysis::{Outside, TableName},
    history::CHANNEL,
    plan::Direction,
    record::{literal, or_null},
    units::{Span, Unit},
};

/// The table; see [`Unfinished`] for what the columns mean.
pub const TABLE: &str = "
CREATE TABLE IF NOT EXISTS amas_migrate.progress (
    version          bigint PRIMARY KEY,
    direction        text NOT NULL CHECK (direction IN ('up', 'down')),
    done             integer NOT NULL DEFAULT 0,
    digest           text NOT NULL DEFAULT '',
    begun            boolean NOT NULL DEFAULT false,
    indexes          oid[] NOT NULL DEFAULT '{}',
    broken           oid[] NOT NULL DEFAULT '{}',
    began_at         timestamptz NOT NULL DEFAULT pg_catalog.now()
);";

/// How far a file came that was left in its middle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    pub direction: Direction,
    /// Parts that are through.
    pub done: usize,
    /// Of the texts of those parts: only a file that begins with the same ones is gone on with.
    pub digest: String,
    /// The next one was begun, outside of a transaction.
    pub begun: bool,
}

/// Identifies parts by their texts.
pub fn digest(sql: &str, parts: &[Unit]) -> String {
    if parts.is_empty() {
        return String::new();
    }
    let mut hash = Sha256::new();
    for part in parts {
        let text = part.text(sql);
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    hex::encode(hash.finalize())
}

pub fn start(version: i64, direction: Direction) -> String {
    format!("INSERT INTO amas_migrate.progress (version, direction) VALUES ({version}, '{direction}')")
}

pub fn end(version: i64) -> String {
    format!("DELETE FROM amas_migrate.progress WHERE version = {version}")
}

/// Parts are through. In a role that the file has set the table cannot be written: it is left and taken again.
pub fn advance(version: i64, (done, digest): (usize, &str), role: Option<&str>) -> String {
    let update = format!(
        "UPDATE amas_migrate.progress SET done = {done}, digest = '{digest}', begun = false WHERE version = {version}"
    );
    as_login(&update, role)
}

/// A part outside of a transaction is about to start. Its table's indexes are those from before its first attempt.
pub fn begin(version: i64, outside: Option<&Outside>, role: Option<&str>) -> String {
    let of = |only: &str| match table(outside) {
        Some(table) => format!(
            "CASE WHEN begun THEN p.{column} ELSE ARRAY(SELECT i.indexrelid FROM pg_catalog.pg_index i WHERE i.indrelid = {table}{only}) END",
            column = if only.is_empty() { "indexes" } else { "broken" },
        ),
        None => "'{}'".to_owned(),
    };
    let update = format!(
        "UPDATE amas_migrate.progress p SET begun = true, indexes = {}, broken = {} WHERE version = {version}",
        of(""),
        of(" AND NOT i.indisvalid")
    );
    as_login(&update, role)
}

/// The server has refused that part: it is not begun, unless it has left an INVALID index. Else a rerun would take for its
/// work what the catalog shows anyway, as that an index which it was to drop, and misspelt, is not there.
pub fn refused(version: i64, outside: Option<&Outside>) -> String {
    let unless = table(outside).map_or_else(String::new, |table| {
        format!(
            " AND NOT EXISTS (SELECT FROM pg_catalog.pg_index i WHERE i.indrelid = {table} AND NOT i.indisvalid \
             AND i.indexrelid <> ALL (p.broken))"
        )
    });
    format!(
        "UPDATE amas_migrate.progress p SET begun = false, indexes = '{{}}', broken = '{{}}' WHERE version = {version}{unless}"
    )
}

/// The table that the statement's index is on, as an expression of type oid.
pub fn table(outside: Option<&Outside>) -> Option<String> {
    let oid = |name: &TableName| format!("pg_catalog.to_regclass({})", literal(&name.to_string()));
    Some(match outside? {
        Outside::BuildsIndex { table, .. } | Outside::RebuildsTable(table) => oid(table),
        Outside::RebuildsIndex(index) => {
            let index = oid(index);
            format!("(SELECT own.indrelid FROM pg_catalog.pg_index own WHERE own.indexrelid = {index})")
        }
        _ => return None,
    })
}

/// Back to the role that logged in.
pub const RESET_ROLE: &str = "RESET SESSION AUTHORIZATION; RESET ROLE";

/// The records are written in the role that logged in, whatever the file has set.
pub fn as_login(sql: &str, role: Option<&str>) -> String {
    match role {
        Some(role) => format!("{RESET_ROLE}; {sql}; {role}"),
        None => sql.to_owned(),
    }
}

/// What of these parts has set the role: the last statement that names the session's user, which leaves the role, and the last after it.
pub fn role(sql: &str, parts: &[Unit]) -> Option<String> {
    let spans = parts.iter().flat_map(|part| part.roles.iter());
    let all: Vec<&str> = spans.map(|&(start, end)| &sql[start..end]).collect();
    let user = all
        .iter()
        .rposition(|text| text.to_ascii_uppercase().contains("AUTHORIZATION"));
    let last = all.len().checked_sub(1).filter(|last| Some(*last) != user);
    let chosen: Vec<&str> = user.into_iter().chain(last).map(|at| all[at]).collect();
    (!chosen.is_empty()).then(|| chosen.join("; "))
}

/// The same at the end of the last part's transaction, where a role may be set that ends with it.
pub fn role_within(sql: &str, parts: &[Unit]) -> Option<String> {
    let local = parts.last().is_some_and(|part| part.local_role);
    role(sql, parts).or_else(|| local.then(|| RESET_ROLE.to_owned()))
}

/// What parts that are through had set in the session.
pub fn settings(sql: &str, parts: &[Unit]) -> Vec<String> {
    let spans = parts.iter().flat_map(|part| part.settings.iter());
    spans.map(|&(start, end): &Span| sql[start..end].to_owned()).collect()
}

/// The columns of [`Unfinished`] for a query over `_sqlx_migrations m`; NULL where the table is not there yet.
pub fn columns(there: bool) -> String {
    if !there {
        return "NULL::text AS direction, NULL::integer AS done, NULL::text AS digest, NULL::boolean AS begun"
            .to_owned();
    }
    ["direction", "done", "digest", "begun"]
        .map(|column| format!("(SELECT p.{column} FROM amas_migrate.progress p WHERE p.version = m.version AND NOT m.success) AS {column}"))
        .join(", ")
}

/// What is waited for, as the run's row shows it.
pub fn waiting(run: i64, text: Option<&str>) -> String {
    let told = text.map_or_else(String::new, |_| {
        format!("; SELECT pg_catalog.pg_notify('{CHANNEL}', '{run}')")
    });
    format!(
        "UPDATE amas_migrate.runs SET heartbeat_at = pg_catalog.clock_timestamp(), waiting = {} WHERE id = {run}{told}",
        or_null(text, literal)
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::migrate::units::{Kind, parts};

    #[test]
    fn a_digest_is_of_texts_and_their_borders() {
        let of = |sql: &str, count: usize| {
            let parts = parts(sql, &mut BTreeSet::new()).unwrap();
            digest(sql, &parts.units[..count])
        };
        assert_eq!(of("VACUUM a; VACUUM b", 0), "");
        assert_eq!(of("VACUUM a; VACUUM b", 1), of("VACUUM a -- same\n; VACUUM c", 1));
        assert_ne!(of("VACUUM a; VACUUM b", 2), of("VACUUM a; VACUUM c", 2));
    }

    #[test]
    fn what_was_refused_is_begun_only_while_it_has_left_an_index() {
        let outside = |sql: &str| match parts(sql, &mut BTreeSet::new()).unwrap().units.remove(0).kind {
            Kind::Alone(outside) => outside,
            Kind::Transaction(_) => panic!("{sql}"),
        };
        let plain = refused(7, outside("DROP INDEX CONCURRENTLY i").as_ref());
        assert!(plain.ends_with("broken = '{}' WHERE version = 7"), "{plain}");
        let index = refused(7, outside("CREATE INDEX CONCURRENTLY ON t (a)").as_ref());
        assert!(
            index.contains("AND NOT EXISTS") && index.contains("E'\"t\"'"),
            "{index}"
        );
    }

    #[test]
    fn a_role_is_left_and_taken_again() {
        let sql = "SET ROLE x; VACUUM a; RESET ROLE; VACUUM b";
        let parts = parts(sql, &mut BTreeSet::new()).unwrap().units;
        assert_eq!(role(sql, &parts[..2]).as_deref(), Some("SET ROLE x"));
        assert_eq!(
            role(sql, &parts).as_deref(),
            Some("RESET ROLE"),
            "x may be gone by then"
        );
        let record = advance(1, (2, "d"), role(sql, &parts[..2]).as_deref());
        assert!(
            record.starts_with("RESET SESSION AUTHORIZATION; RESET ROLE; UPDATE") && record.ends_with("; SET ROLE x"),
            "{record}"
        );
        assert_eq!(settings(sql, &parts[..3]), ["SET ROLE x", "RESET ROLE"]);
    }

    #[test]
    fn the_user_of_the_session_is_taken_again_before_the_role_on_top_of_it() {
        let sql = "SET ROLE x; SET SESSION AUTHORIZATION y; SET ROLE z; SET ROLE a; VACUUM a";
        let parts = parts(sql, &mut BTreeSet::new()).unwrap().units;
        let taken = role(sql, &parts);
        assert_eq!(taken.as_deref(), Some("SET SESSION AUTHORIZATION y; SET ROLE a"));
    }

    #[test]
    fn a_role_of_one_transaction_is_left_before_the_record() {
        let sql = "-- no-transaction\nBEGIN; SET LOCAL ROLE x; SELECT 1; COMMIT; VACUUM a; BEGIN; SET ROLE y; SET LOCAL ROLE x; COMMIT; VACUUM b";
        let parts = parts(sql, &mut BTreeSet::new()).unwrap().units;
        assert_eq!(role_within(sql, &parts[..1]).as_deref(), Some(RESET_ROLE));
        assert_eq!(role_within(sql, &parts[..2]), None);
        assert_eq!(
            role_within(sql, &parts[..3]).as_deref(),
            Some("SET ROLE y"),
            "which is in force again"
        );
    }
}
