//! Which tables a plan takes something away from: what its statements name (pure), and what the catalog says depends on that.

use std::collections::BTreeSet;

use sqlx::{PgConnection, Row};

use crate::{
    api::names::SqlName,
    migrate::{
        analysis::{self, Keys, Object, Reach, TableName},
        plan::Planned,
        record::literal,
        session,
    },
};

use super::Entry;

/// Objects of which anything is an alias afterwards, when they are renamed or moved.
const MOVABLE: &[&str] = &["ALTER TYPE", "ALTER DOMAIN"];

/// What is to be in a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extent {
    /// These, and what depends on them; nothing at all if there are none.
    Objects(BTreeSet<(Object, Keys)>),
    /// Every table.
    All,
}

/// A statement whose losses no dump of this database can have: its place and text.
#[derive(Debug, PartialEq, Eq)]
pub struct OutOfReach(pub String);

/// What the statements of a plan lose. Where a name may mean another table by then, all that it may mean is in.
pub fn lost(statements: &[Planned]) -> Result<Extent, OutOfReach> {
    let (mut objects, mut renamed, mut moved, mut all) = (BTreeSet::new(), Vec::new(), false, false);
    for statement in statements {
        if statement.loses_inside {
            all = true;
        } else if statement.loses.is_some() {
            match analysis::reach(statement.text()) {
                Reach::AnotherDatabase => {
                    let Planned {
                        file, line, statement, ..
                    } = statement;
                    return Err(OutOfReach(format!("{file}:{line}: {statement}")));
                }
                Reach::Objects(named, keys) if !moved && !other_path(statement, &named) => {
                    objects.extend(named.into_iter().map(|object| (object, keys)));
                    objects.extend(renamed.iter().cloned().map(|object| (object, keys)));
                }
                Reach::Objects(..) | Reach::Everything => all = true,
            }
        }
        moved |= statement.renamed.is_none() || moves(statement);
        renamed.extend(statement.renamed.iter().flatten().cloned().map(Object::Relation));
    }
    match all {
        true => Ok(Extent::All),
        false => Ok(Extent::Objects(objects)),
    }
}

fn moves(statement: &Planned) -> bool {
    let text = statement.text().to_ascii_uppercase();
    MOVABLE.contains(&statement.kind.as_str()) && (text.contains("RENAME") || text.contains("SET SCHEMA"))
}

/// Whether a name is looked for along a path that the file sets itself.
fn other_path(statement: &Planned, named: &[Object]) -> bool {
    let bare = |object: &Object| {
        matches!(
            object,
            Object::Relation(TableName { schema: None, .. }) | Object::Type(TableName { schema: None, .. })
        )
    };
    named.iter().any(bare) && statement.file_text().to_ascii_lowercase().contains("search_path")
}

/// The tables and sequences of an extent that are there.
pub async fn entries(conn: &mut PgConnection, schema: &SqlName, extent: &Extent) -> Result<Vec<Entry>, sqlx::Error> {
    let wanted = match extent {
        Extent::All => EVERY_TABLE.to_owned(),
        Extent::Objects(objects) if objects.is_empty() => return Ok(Vec::new()),
        Extent::Objects(objects) => format!("{} {REACHED}", named(objects)),
    };
    let sql = format!("{wanted} {}", OF_USERS.replace("$SCHEMA", &literal(schema.as_str())));
    let rows = session::ask(conn, &sql).await?;
    let entry = |row: &sqlx::postgres::PgRow| {
        let name = |at: usize| -> Result<Option<String>, sqlx::Error> {
            let (schema, name): (Option<String>, Option<String>) = (row.try_get(at)?, row.try_get(at + 1)?);
            Ok(name.map(|name| TableName { schema, name }.to_string()))
        };
        Ok(Entry {
            name: name(0)?.unwrap_or_default(),
            sequence: row.try_get(2)?,
            of: name(3)?,
        })
    };
    rows.iter().map(entry).collect()
}

/// The objects as rows of their catalogs.
fn named(objects: &BTreeSet<(Object, Keys)>) -> String {
    let each = objects.iter().map(|(object, keys)| {
        let keys = *keys as u8;
        let (catalog, oid) = match object {
            Object::Relation(name) => (
                "pg_class",
                format!("pg_catalog.to_regclass({})::pg_catalog.oid", literal(&name.to_string())),
            ),
            Object::Type(name) => (
                "pg_type",
                format!("pg_catalog.to_regtype({})::pg_catalog.oid", literal(&name.to_string())),
            ),
            Object::Schema(name) => (
                "pg_namespace",
                format!("(SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = {})", literal(name)),
            ),
            Object::Extension(name) => (
                "pg_extension",
                format!("(SELECT oid FROM pg_catalog.pg_extension WHERE extname = {})", literal(name)),
            ),
        };
        format!("SELECT 'pg_catalog.{catalog}'::pg_catalog.regclass::pg_catalog.oid AS class, {oid} AS object, {keys} AS keys")
    });
    format!(
        "WITH RECURSIVE named AS ({}),",
        each.collect::<Vec<_>>().join(" UNION ALL ")
    )
}

/// What depends on them goes with them; by foreign keys rows go too.
const REACHED: &str = "reached AS ( \
     SELECT * FROM named WHERE object IS NOT NULL \
     UNION \
     SELECT n.class, n.object, r.keys FROM reached r CROSS JOIN LATERAL ( \
         SELECT d.classid AS class, d.objid AS object FROM pg_catalog.pg_depend d \
         WHERE d.refclassid = r.class AND d.refobjid = r.object \
         UNION ALL \
         SELECT r.class, k.conrelid FROM pg_catalog.pg_constraint k \
         WHERE r.class = 'pg_catalog.pg_class'::pg_catalog.regclass AND k.contype = 'f' AND k.confrelid = r.object \
         AND (r.keys = 2 OR (r.keys = 1 AND (k.confdeltype IN ('c', 'n', 'd') OR k.confupdtype IN ('c', 'n', 'd')))) \
     ) n), \
     wanted AS (SELECT DISTINCT object FROM reached WHERE class = 'pg_catalog.pg_class'::pg_catalog.regclass)";

/// All that this login may read.
const EVERY_TABLE: &str = "WITH wanted AS (SELECT a.oid AS object FROM pg_catalog.pg_class a \
     WHERE pg_catalog.has_table_privilege(a.oid, 'SELECT'))";

/// Tables and sequences but for the server's own, ours, those of sessions, and the members of extensions, which no dump has.
const OF_USERS: &str = "SELECT n.nspname::text, c.relname::text, c.relkind = 'S', o.nspname::text, o.relname::text \
     FROM wanted w JOIN pg_catalog.pg_class c ON c.oid = w.object \
     JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
     LEFT JOIN LATERAL (SELECT tn.nspname, t.relname FROM pg_catalog.pg_depend d \
         JOIN pg_catalog.pg_class t ON t.oid = d.refobjid JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace \
         WHERE c.relkind = 'S' AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid \
         AND d.refclassid = d.classid AND d.refobjsubid > 0 AND d.deptype IN ('a', 'i') LIMIT 1) o ON true \
     WHERE c.relkind IN ('r', 'p', 'S') AND c.relpersistence <> 't' \
     AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'amas_migrate') AND n.nspname !~ '^pg_' \
     AND NOT (n.nspname = $SCHEMA AND c.relname = '_sqlx_migrations') \
     AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend e WHERE e.classid = 'pg_catalog.pg_class'::pg_catalog.regclass \
         AND e.objid = c.oid AND e.deptype = 'e') \
     ORDER BY 1, 2";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migrate::{history::State, plan, source::Source};

    fn of(files: &[(&str, &str)]) -> Result<Extent, OutOfReach> {
        let files = files
            .iter()
            .map(|(name, sql)| ((*name).to_owned(), sql.as_bytes().to_vec()));
        let source = Source::from_files(files.collect()).unwrap();
        let plan = plan::plan(&source, &[], None).unwrap();
        lost(&plan.statements(&source, &State::default()).unwrap())
    }

    fn tables(names: &[&str], keys: Keys) -> Extent {
        let object = |name: &&str| {
            let name = TableName {
                schema: None,
                name: (*name).to_owned(),
            };
            (Object::Relation(name), keys)
        };
        Extent::Objects(names.iter().map(object).collect())
    }

    #[test]
    fn an_extent_has_all_that_a_name_may_mean() {
        let nothing = [(
            "1_a.sql",
            "CREATE TABLE t (id int); DROP TABLE t; DELETE FROM u WHERE x",
        )];
        assert_eq!(of(&nothing), Ok(tables(&[], Keys::Stay)));
        assert_eq!(of(&[("1_a.sql", "DROP TABLE t")]), Ok(tables(&["t"], Keys::Stay)));
        let swapped = "ALTER TABLE t RENAME TO old; ALTER TABLE u RENAME TO t; DROP TABLE t";
        assert_eq!(of(&[("1_a.sql", swapped)]), Ok(tables(&["t", "u"], Keys::Stay)));
        assert_eq!(
            of(&[("1_a.sql", "ALTER TABLE t RENAME TO u"), ("2_b.sql", "DELETE FROM u")]),
            Ok(tables(&["t", "u"], Keys::Act))
        );
        let all = [
            "SET search_path = x; DROP TABLE t",
            "ALTER SCHEMA a RENAME TO b; DROP TABLE b.t",
            "DROP OWNED BY r",
            "DO $$ BEGIN DROP TABLE t; END $$",
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'DELETE FROM t; SELECT 1'; INSERT INTO u SELECT f()",
        ];
        for sql in all {
            assert_eq!(of(&[("1_a.sql", sql)]), Ok(Extent::All), "{sql}");
        }
        assert_eq!(
            of(&[("1_a.sql", "SELECT 1;\nDROP DATABASE d")]),
            Err(OutOfReach("1_a.sql:2: DROP DATABASE d".into()))
        );
    }

    #[test]
    fn names_go_into_the_query_as_literals() {
        let hostile = Object::Relation(TableName {
            schema: Some("a'b".into()),
            name: "c\"d\\".into(),
        });
        let sql = named(&BTreeSet::from([(hostile, Keys::Act)]));
        assert!(sql.contains(r#"to_regclass(E'"a''b"."c""d\\"')"#), "{sql}");
    }
}
