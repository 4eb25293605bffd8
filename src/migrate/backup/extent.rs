//! Which tables a plan takes something away from: what its statements name (pure), and what the catalog says depends on that.

use std::collections::BTreeSet;

use sqlx::{PgConnection, Row};

use crate::{
    api::names::SqlName,
    migrate::{
        analysis::{self, Keys, Object, Reach, TableName},
        plan::Planned,
        record::literal,
        report::Failure,
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
    Objects(BTreeSet<Named>),
    /// Every table.
    All,
}

/// What a statement that loses something names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Named {
    object: Object,
    keys: Keys,
    /// Rows go out of what stays, which a foreign table loses too (dropped, it leaves them where they are).
    empties: bool,
    /// What runs before it may have given it this name: if nothing has it now, it may be any.
    doubtful: bool,
}

/// A statement whose losses no dump of this database can have: its place and text.
#[derive(Debug, PartialEq, Eq)]
pub struct OutOfReach(pub String);

/// What the statements of a plan lose. Where a name may mean another table by then, all that it may mean is in.
pub fn lost(statements: &[Planned]) -> Result<Extent, OutOfReach> {
    let (mut objects, mut names, mut all) = (BTreeSet::new(), Names::default(), false);
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
                Reach::Objects(named, keys) => {
                    let empties = keys != Keys::Stay || statement.kind == "TRUNCATE";
                    all |= !names.are_those_of(statement, &named) || empties && names.are_views(&named);
                    objects.extend(names.with(named, keys, empties));
                }
                Reach::Everything => all = true,
            }
        }
        names.after(statement);
    }
    match all {
        true => Ok(Extent::All),
        false => Ok(Extent::Objects(objects)),
    }
}

/// What the statements so far have done to the names that the catalog has before the plan.
#[derive(Default)]
struct Names {
    renamed: Vec<Object>,
    /// Made or replaced, so that the catalog does not have what is behind them.
    views: BTreeSet<TableName>,
    moved: bool,
    doubtful: bool,
}

impl Names {
    /// Whether these can be looked up in the catalog.
    fn are_those_of(&self, statement: &Planned, named: &[Object]) -> bool {
        !self.moved && !other_path(statement, named)
    }

    /// Whether one of these may be a view of the plan's own: rows that go are behind it. A view itself has none to lose.
    fn are_views(&self, named: &[Object]) -> bool {
        let may_be = |object: &Object, view: &TableName| match object {
            Object::Relation(TableName { schema, name }) => {
                *name == view.name && (schema.is_none() || view.schema.is_none() || *schema == view.schema)
            }
            _ => false,
        };
        let mut all = named.iter().chain(&self.renamed);
        all.any(|object| self.views.iter().any(|view| may_be(object, view)))
    }

    /// They, and all that was renamed: any of them may mean it.
    fn with(&self, named: Vec<Object>, keys: Keys, empties: bool) -> Vec<Named> {
        let named = named.into_iter().map(|object| (object, self.doubtful));
        let renamed = self.renamed.iter().map(|object| (object.clone(), false));
        let each = |(object, doubtful)| Named {
            object,
            keys,
            empties,
            doubtful,
        };
        named.chain(renamed).map(each).collect()
    }

    fn after(&mut self, statement: &Planned) {
        self.moved |= statement.renamed.is_none() || moves(statement);
        self.doubtful |= statement.obscures;
        self.views.extend(statement.views.iter().cloned());
        let renamed = statement.renamed.iter().flatten().cloned();
        self.renamed.extend(renamed.map(Object::Relation));
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
    let sets = || statement.file_text().to_ascii_lowercase().contains("search_path");
    named.iter().any(bare) && (statement.other_path || sets())
}

/// The tables and sequences of an extent that are there.
pub async fn entries(conn: &mut PgConnection, schema: &SqlName, extent: &Extent) -> Result<Vec<Entry>, Failure> {
    let wanted = match extent {
        Extent::All => EVERY_TABLE.to_owned(),
        Extent::Objects(objects) if objects.is_empty() => return Ok(Vec::new()),
        Extent::Objects(objects) => {
            let reached = format!("{} {REACHED}", named(objects));
            match is_known(conn, &reached).await? {
                true => reached,
                false => EVERY_TABLE.to_owned(),
            }
        }
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
    Ok(rows.iter().map(entry).collect::<Result<_, sqlx::Error>>()?)
}

/// Whether every name that must be there is; an error if rows go that no dump has.
async fn is_known(conn: &mut PgConnection, reached: &str) -> Result<bool, Failure> {
    let rows = session::ask(conn, &format!("{reached} {DOUBTS}")).await?;
    let Some(row) = rows.first() else { return Ok(true) };
    if let Some(foreign) = row.try_get::<Option<String>, _>(0)? {
        return Err(Failure::NotBackedUp(format!(
            "{foreign} is a foreign table, whose rows are on another server and in no dump of this one; save them there"
        )));
    }
    Ok(!row.try_get::<Option<bool>, _>(1)?.unwrap_or_default())
}

/// The objects as rows of their catalogs.
fn named(objects: &BTreeSet<Named>) -> String {
    let each = objects.iter().map(|one| {
        let (keys, empties, doubtful) = (one.keys as u8, one.empties, one.doubtful);
        let (catalog, oid) = match &one.object {
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
                format!(
                    "(SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = {})",
                    literal(name)
                ),
            ),
            Object::Extension(name) => (
                "pg_extension",
                format!(
                    "(SELECT oid FROM pg_catalog.pg_extension WHERE extname = {})",
                    literal(name)
                ),
            ),
        };
        format!(
            "SELECT 'pg_catalog.{catalog}'::pg_catalog.regclass::pg_catalog.oid AS class, {oid} AS object, \
             {keys} AS keys, {empties} AS empties, {doubtful} AS doubtful"
        )
    });
    format!(
        "WITH RECURSIVE named AS ({}),",
        each.collect::<Vec<_>>().join(" UNION ALL ")
    )
}

/// What depends on them goes with them; by foreign keys rows go too, and through views those of the tables behind them.
const REACHED: &str = "reached AS ( \
     SELECT class, object, keys, empties FROM named WHERE object IS NOT NULL \
     UNION \
     SELECT n.class, n.object, r.keys, r.empties FROM reached r CROSS JOIN LATERAL ( \
         SELECT d.classid AS class, d.objid AS object FROM pg_catalog.pg_depend d \
         WHERE d.refclassid = r.class AND d.refobjid = r.object \
         UNION ALL \
         SELECT r.class, k.conrelid FROM pg_catalog.pg_constraint k \
         WHERE r.class = 'pg_catalog.pg_class'::pg_catalog.regclass AND k.contype = 'f' AND k.confrelid = r.object \
         AND (r.keys = 2 OR (r.keys = 1 AND (k.confdeltype IN ('c', 'n', 'd') OR k.confupdtype IN ('c', 'n', 'd')))) \
         UNION ALL \
         SELECT b.refclassid, b.refobjid FROM pg_catalog.pg_rewrite w JOIN pg_catalog.pg_depend b \
         ON b.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass AND b.objid = w.oid AND b.refclassid = r.class \
         WHERE r.class = 'pg_catalog.pg_class'::pg_catalog.regclass AND w.ev_class = r.object AND r.keys = 1 \
     ) n), \
     wanted AS (SELECT DISTINCT object FROM reached WHERE class = 'pg_catalog.pg_class'::pg_catalog.regclass)";

/// A foreign table that loses rows; a name that something else may have by then.
const DOUBTS: &str = "SELECT (SELECT pg_catalog.min(pg_catalog.format('%I.%I', n.nspname, c.relname)) FROM reached r \
     JOIN pg_catalog.pg_class c ON c.oid = r.object JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
     WHERE r.class = 'pg_catalog.pg_class'::pg_catalog.regclass AND c.relkind = 'f' AND r.empties), \
     (SELECT pg_catalog.bool_or(object IS NULL AND doubtful) FROM named)";

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

    fn one(name: &str, keys: Keys) -> Named {
        Named {
            object: Object::Relation(TableName {
                schema: None,
                name: name.to_owned(),
            }),
            keys,
            empties: keys != Keys::Stay,
            doubtful: false,
        }
    }

    fn tables(names: &[&str], keys: Keys) -> Extent {
        Extent::Objects(names.iter().map(|name| one(name, keys)).collect())
    }

    fn doubtful(name: &str) -> Named {
        Named {
            doubtful: true,
            ..one(name, Keys::Stay)
        }
    }

    fn emptied(name: &str) -> Named {
        Named {
            empties: true,
            ..one(name, Keys::Stay)
        }
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
            "SET SCHEMA 'x'; DROP TABLE t",
            "CREATE OR REPLACE VIEW v AS SELECT * FROM t; DELETE FROM v",
            "CREATE VIEW v AS SELECT * FROM t; UPDATE public.v SET id = 1",
            "CREATE VIEW v AS SELECT * FROM t; ALTER VIEW v RENAME TO w; DELETE FROM w",
            "DO $$ BEGIN CREATE VIEW v AS SELECT * FROM t; END $$; DELETE FROM v",
            "DO $$ BEGIN EXECUTE format('ALTER TABLE %I RENAME TO t', x); END $$; DROP TABLE t",
            "ALTER SCHEMA a RENAME TO b; DROP TABLE b.t",
            "DROP OWNED BY r",
            "DO $$ BEGIN DROP TABLE t; END $$",
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'DELETE FROM t; SELECT 1'; INSERT INTO u SELECT f()",
        ];
        for sql in all {
            assert_eq!(of(&[("1_a.sql", sql)]), Ok(Extent::All), "{sql}");
        }
        let inside = "DO $$ BEGIN ALTER TABLE t RENAME TO old; END $$; DROP TABLE old";
        let either = Extent::Objects([doubtful("old"), one("t", Keys::Stay)].into());
        assert_eq!(of(&[("1_a.sql", inside)]), Ok(either));
        let view = "CREATE VIEW v AS SELECT * FROM t; TRUNCATE old";
        assert_eq!(of(&[("1_a.sql", view)]), Ok(Extent::Objects([emptied("old")].into())));
        let attached = "ALTER TABLE p ATTACH PARTITION t DEFAULT; TRUNCATE p";
        let both = Extent::Objects([emptied("p"), emptied("t")].into());
        assert_eq!(of(&[("1_a.sql", attached)]), Ok(both));
        assert_eq!(
            of(&[("1_a.sql", "SELECT 1;\nDROP DATABASE d")]),
            Err(OutOfReach("1_a.sql:2: DROP DATABASE d".into()))
        );
    }

    #[test]
    fn a_name_is_doubtful_only_after_what_cannot_be_read() {
        let sure = [
            (
                "DROP VIEW IF EXISTS v CASCADE; CREATE VIEW v AS SELECT 1; DROP VIEW IF EXISTS w CASCADE; CREATE VIEW w AS SELECT 1",
                tables(&["v", "w"], Keys::Stay),
            ),
            (
                "DO $$ BEGIN CREATE TYPE s AS ENUM ('a'); EXCEPTION WHEN duplicate_object THEN NULL; END $$; DROP TABLE IF EXISTS legacy",
                tables(&["legacy"], Keys::Stay),
            ),
            (
                "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'; SELECT f(); DROP TABLE IF EXISTS legacy",
                tables(&["legacy"], Keys::Stay),
            ),
        ];
        for (sql, expected) in sure {
            assert_eq!(of(&[("1_a.sql", sql)]), Ok(expected), "{sql}");
        }
        let replaced = ("5_a.sql", "CREATE OR REPLACE VIEW v AS SELECT 1");
        let gone = of(&[replaced, ("9_b.sql", "DROP VIEW v CASCADE")]);
        assert_eq!(gone, Ok(tables(&["v"], Keys::Stay)));
        for before in [
            "CALL p()",
            "CREATE TEMP VIEW v AS SELECT * FROM t",
            "DO $$ BEGIN PERFORM f(); END $$",
            "DO $$ BEGIN EXECUTE x; END $$",
            "DO LANGUAGE plpython3u $$ plpy.execute(x) $$",
        ] {
            let old = Extent::Objects([doubtful("old")].into());
            let sql = format!("{before}; DROP TABLE old");
            assert_eq!(of(&[("1_a.sql", sql.as_str())]), Ok(old), "{sql}");
        }
    }

    #[test]
    fn names_go_into_the_query_as_literals() {
        let hostile = Object::Relation(TableName {
            schema: Some("a'b".into()),
            name: "c\"d\\".into(),
        });
        let sql = named(&BTreeSet::from([Named {
            object: hostile,
            keys: Keys::Act,
            empties: true,
            doubtful: false,
        }]));
        assert!(sql.contains(r#"to_regclass(E'"a''b"."c""d\\"')"#), "{sql}");
    }
}
