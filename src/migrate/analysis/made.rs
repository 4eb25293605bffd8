//! What a plan has made itself: it holds nothing yet that could be lost, and nobody uses it. A set of names. Pure.
//!
//! A name is as good as what it stands for. Along another search_path it is another name; a temporary table hides others
//! of its name, and goes; the rows behind a view or a foreign table were there before; after a rename nobody knows which
//! name is whose. What differs by that has a schema in the set that no file can make: `pg_` begins the server's own.

use std::collections::BTreeSet;

use super::{LockMode, Loss, StatementFacts, TableName};

/// As the server calls it.
const TEMPORARY: &str = "pg_temp";
const ALONG: &str = "pg_along ";
const ELSEWHERE: &str = "pg_elsewhere ";
/// Of a table whose rows are another one's too.
const PART: &str = "pg_part";

/// Where the rows are of a relation that a statement makes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rows {
    #[default]
    Own,
    /// In it, until the session ends.
    Session,
    /// In it, until the transaction ends (ON COMMIT DROP).
    Transaction,
    /// In other tables, or on another server: it is a view, or a foreign table.
    Elsewhere,
    /// Where they were: it is new by its name only, since a rename gives it.
    Renamed,
}

impl StatementFacts {
    /// The relation that is new with it, and not by its name only.
    pub fn makes(&self) -> Option<&TableName> {
        self.creates.as_ref().filter(|_| self.rows != Rows::Renamed)
    }

    /// Whether it locks relations, and none but these; rows that it takes away are theirs.
    pub fn is_within(&self, made: &BTreeSet<TableName>) -> bool {
        let takes_rows = matches!(
            self.destructive,
            Some(Loss::Truncate | Loss::DeleteAll | Loss::UpdateAll)
        );
        let own = |(name, mode): &(TableName, LockMode)| {
            let through = || takes_rows && *mode >= LockMode::RowExclusive && made.contains(&elsewhere(self.key(name)));
            self.is_made(name, made) && !through()
        };
        !self.locks.is_empty() && self.locks.iter().all(own)
    }

    /// Whether one of its names stands for one of these.
    pub fn is_made(&self, name: &TableName, made: &BTreeSet<TableName>) -> bool {
        let hides = || name.schema.is_none() && made.contains(&temporary(name));
        !self.adrift && (made.contains(&self.key(name)) || hides())
    }

    /// What is lost of what is not among `made`, which holds nothing yet.
    pub fn loss(&self, made: &BTreeSet<TableName>) -> Option<Loss> {
        let inside = || {
            if self.inside.is_empty() {
                return None;
            }
            let mut within = made.clone();
            self.inside.iter().find_map(|one| {
                let loss = one.facts.loss(&within);
                one.facts.forget_from(&mut within);
                loss
            })
        };
        self.destructive.filter(|_| !self.is_within(made)).or_else(inside)
    }

    /// Takes in what it makes, and forgets what its names stand for no more.
    pub fn add_to(&self, made: &mut BTreeSet<TableName>) {
        if !self.inside.is_empty() {
            // what a body makes is known in it alone, since nobody knows which of its branches are gone through
            let mut within = made.clone();
            for one in &self.inside {
                one.facts.add_to(&mut within);
            }
            made.retain(|name| within.contains(name));
            let part = |name: &TableName| name.schema.as_deref() == Some(PART);
            made.extend(within.into_iter().filter(part));
        }
        self.forget_from(made);
        made.extend(self.part().map(part));
        if matches!(self.kind.as_str(), "DROP TABLE" | "DROP SEQUENCE") {
            for (name, _) in &self.locks {
                made.remove(&temporary(name));
            }
        }
        let Some(name) = self.creates.as_ref().filter(|_| !self.adrift) else {
            return;
        };
        match self.rows {
            Rows::Own | Rows::Elsewhere => made.insert(self.key(name)),
            Rows::Session | Rows::Transaction => made.insert(temporary(name)),
            Rows::Renamed => false,
        };
        if self.rows == Rows::Elsewhere {
            made.insert(elsewhere(self.key(name)));
        }
    }

    /// After a rename nobody knows which of its names is whose, and a table that takes in an older one is new no more.
    /// They go in whichever schema, since one that has none may be in any of them; where they are not said, all go.
    fn forget_from(&self, made: &mut BTreeSet<TableName>) {
        let joins = self.joins.as_ref().is_some_and(|name| !self.is_made(name, made));
        if !self.renames && !joins {
            return;
        }
        // what the table is a part of takes the other in too
        let others = self.locks.iter().filter(|(name, _)| self.joins.as_ref() != Some(name));
        let within = joins && others.map(|(name, _)| part(name)).any(|name| made.contains(&name));
        if self.locks.is_empty() || within {
            return made.clear();
        }
        let given = self.creates.iter().filter(|_| self.rows == Rows::Renamed);
        let names: Vec<&str> = self
            .locks
            .iter()
            .map(|(name, _)| name)
            .chain(given)
            .map(|name| name.name.as_str())
            .collect();
        made.retain(|one| !names.contains(&one.name.as_str()));
    }

    /// The table whose rows are another one's from now on: as a partition or a child, or under a new name perhaps.
    fn part(&self) -> Option<&TableName> {
        let parent = |(_, mode): &(TableName, LockMode)| {
            matches!(mode, LockMode::ShareUpdateExclusive | LockMode::AccessExclusive)
        };
        let made = self.creates.as_ref().filter(|_| self.locks.iter().any(parent));
        self.joins.as_ref().or(made)
    }

    fn key(&self, name: &TableName) -> TableName {
        match (&name.schema, &self.path) {
            (None, Some(path)) => in_schema(format!("{ALONG}{path}"), name),
            _ => name.clone(),
        }
    }
}

/// A file is over: the names of its temporary tables stand for others again.
pub fn forget_temporary(made: &mut BTreeSet<TableName>) {
    let first = in_schema(
        TEMPORARY.to_owned(),
        &TableName {
            schema: None,
            name: String::new(),
        },
    );
    let after = made.range(first..);
    let gone: Vec<TableName> = after
        .take_while(|name| name.schema.as_deref() == Some(TEMPORARY))
        .cloned()
        .collect();
    for name in &gone {
        made.remove(name);
    }
}

/// Keeps what can be looked up in a catalog: of a name along a search_path of a file's own nobody knows what it is by now.
pub fn keep_written(made: &mut BTreeSet<TableName>) {
    let along = |name: &TableName| name.schema.as_ref().is_some_and(|schema| schema.starts_with(ALONG));
    made.retain(|name| !along(name));
}

fn temporary(name: &TableName) -> TableName {
    in_schema(TEMPORARY.to_owned(), name)
}

fn part(name: &TableName) -> TableName {
    in_schema(PART.to_owned(), name)
}

fn elsewhere(name: TableName) -> TableName {
    in_schema(
        format!("{ELSEWHERE}{}", name.schema.as_deref().unwrap_or_default()),
        &name,
    )
}

fn in_schema(schema: String, name: &TableName) -> TableName {
    TableName {
        schema: Some(schema),
        name: name.name.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migrate::analysis::Reader;

    /// What the statements of a file lose of what it has not made.
    fn lost(statements: &[&str]) -> Vec<Loss> {
        let (mut reader, mut made, mut losses) = (Reader::default(), BTreeSet::new(), Vec::new());
        for sql in statements {
            let facts = reader.read(sql);
            losses.extend(facts.loss(&made));
            facts.add_to(&mut made);
        }
        losses
    }

    #[test]
    fn a_name_that_stands_for_older_rows_is_not_made() {
        let cases: [(&[&str], &[Loss]); 27] = [
            (
                &["CREATE VIEW v AS SELECT * FROM orders", "DELETE FROM v"],
                &[Loss::DeleteAll],
            ),
            (
                &["CREATE FOREIGN TABLE f (a int) SERVER s", "UPDATE f SET a = 1"],
                &[Loss::UpdateAll],
            ),
            (
                &["CREATE TEMP VIEW v AS SELECT * FROM orders", "DELETE FROM v"],
                &[Loss::DeleteAll],
            ),
            (
                &[
                    "CREATE TABLE p (a int) PARTITION BY RANGE (a)",
                    "ALTER TABLE p ATTACH PARTITION old FOR VALUES FROM (0) TO (1)",
                    "TRUNCATE p",
                ],
                &[Loss::Truncate],
            ),
            (
                &["CREATE TABLE p (a int)", "ALTER TABLE old INHERIT p", "DELETE FROM p"],
                &[Loss::DeleteAll],
            ),
            (
                &[
                    "SET search_path = a",
                    "CREATE TABLE t ()",
                    "SET search_path = b",
                    "DROP TABLE t",
                ],
                &[Loss::DropTable],
            ),
            (
                &["CREATE TABLE t ()", "SET SCHEMA 'b'", "DROP TABLE t"],
                &[Loss::DropTable],
            ),
            (
                &[
                    "CREATE TABLE t ()",
                    "SELECT set_config('search_path', 'b', false)",
                    "DROP TABLE t",
                ],
                &[Loss::DropTable],
            ),
            (
                &["CREATE TEMP TABLE t (a int)", "DROP TABLE t", "DROP TABLE t"],
                &[Loss::DropTable],
            ),
            (
                &[
                    "CREATE TABLE n ()",
                    "DO $$ BEGIN ALTER TABLE t RENAME TO o; ALTER TABLE n RENAME TO t; ALTER TABLE o RENAME TO n; END $$",
                    "DROP TABLE n",
                ],
                &[Loss::DropTable],
            ),
            (
                &[
                    "CREATE TABLE n ()",
                    "DO $$ BEGIN ALTER TABLE n RENAME TO m; ALTER TABLE t RENAME TO n; DROP TABLE n; END $$",
                ],
                &[Loss::DropTable],
            ),
            (
                &[
                    "CREATE TABLE n ()",
                    "DO $$ BEGIN EXECUTE format('ALTER TABLE %I RENAME TO n', x); END $$",
                    "DROP TABLE n",
                ],
                &[Loss::DropTable],
            ),
            (
                &[
                    "CREATE TABLE a.t ()",
                    "ALTER SCHEMA a RENAME TO b",
                    "ALTER SCHEMA c RENAME TO a",
                    "DROP TABLE a.t",
                ],
                &[Loss::DropTable],
            ),
            (
                &["CREATE TABLE n ()", "ALTER SEQUENCE s RENAME TO n", "DROP SEQUENCE n"],
                &[Loss::DropSequence],
            ),
            (
                &[
                    "CREATE TABLE n ()",
                    "DO $$ BEGIN SET search_path = b; DROP TABLE n; END $$",
                ],
                &[Loss::DropTable],
            ),
            (
                &["DO $$ BEGIN CREATE VIEW v AS SELECT * FROM t; DELETE FROM v; END $$"],
                &[Loss::DeleteAll],
            ),
            (
                &[
                    "CREATE TABLE public.n ()",
                    "ALTER TABLE n RENAME TO m",
                    "ALTER TABLE t RENAME TO n",
                    "DROP TABLE public.n",
                ],
                &[Loss::DropTable],
            ),
            (
                &[
                    "CREATE TABLE n ()",
                    "DROP TABLE n",
                    "ALTER TABLE t RENAME TO n",
                    "DROP TABLE n",
                ],
                &[Loss::DropTable],
            ),
            (
                &["CREATE TABLE n ()", "ALTER TABLE n SET SCHEMA s", "DROP TABLE n"],
                &[Loss::DropTable],
            ),
            (
                &[
                    "CREATE TABLE p (a int)",
                    "CREATE TABLE IF NOT EXISTS c (LIKE p)",
                    "ALTER TABLE p ATTACH PARTITION c DEFAULT",
                    "TRUNCATE p",
                ],
                &[Loss::Truncate],
            ),
            (
                &[
                    "CREATE TABLE p (a int)",
                    "DO $$ BEGIN EXECUTE format('ALTER TABLE p ATTACH PARTITION %I DEFAULT', x); END $$",
                    "TRUNCATE p",
                ],
                &[Loss::Truncate],
            ),
            (
                &[
                    "CREATE TABLE p (a int)",
                    "DO $$ BEGIN EXECUTE format('ALTER TABLE %I ATTACH PARTITION old DEFAULT', x); END $$",
                    "TRUNCATE p",
                ],
                &[Loss::Truncate],
            ),
            (
                &[
                    "CREATE TABLE p (a int)",
                    "DO $$ BEGIN ALTER TABLE p ATTACH PARTITION old DEFAULT; TRUNCATE p; END $$",
                ],
                &[Loss::Truncate],
            ),
            (
                &[
                    "CREATE TABLE p (a int) PARTITION BY RANGE (a)",
                    "CREATE TABLE c PARTITION OF p DEFAULT PARTITION BY RANGE (a)",
                    "ALTER TABLE c ATTACH PARTITION old DEFAULT",
                    "TRUNCATE p",
                ],
                &[Loss::Truncate],
            ),
            (
                &[
                    "CREATE TABLE p (a int)",
                    "CREATE TABLE c (a int)",
                    "DO $$ BEGIN ALTER TABLE c INHERIT p; END $$",
                    "ALTER TABLE old INHERIT c",
                    "TRUNCATE p",
                ],
                &[Loss::Truncate],
            ),
            (
                &[
                    "DO $$ BEGIN IF x THEN CREATE TABLE n (); END IF; END $$",
                    "DROP TABLE n",
                ],
                &[Loss::DropTable],
            ),
            (
                &[
                    "CREATE TABLE n ()",
                    "UPDATE n SET a = 1",
                    "SET search_path = b",
                    "RESET ALL",
                    "DROP TABLE n",
                ],
                &[],
            ),
        ];
        for (statements, losses) in cases {
            assert_eq!(lost(statements), losses, "{statements:?}");
        }
    }

    #[test]
    fn what_is_made_and_goes_again_is_no_loss() {
        let cases: [&[&str]; 12] = [
            &["CREATE VIEW v AS SELECT 1", "DROP VIEW v CASCADE"],
            &["CREATE FOREIGN TABLE f (a int) SERVER s", "DROP FOREIGN TABLE f"],
            &[
                "CREATE TEMP TABLE t AS SELECT 1 AS a",
                "UPDATE t SET a = 2",
                "DELETE FROM t",
                "DROP TABLE t",
            ],
            &[
                "CREATE TEMP TABLE t (a int) ON COMMIT DROP",
                "TRUNCATE pg_temp.t",
                "DROP TABLE pg_temp.t",
            ],
            &[
                "CREATE TABLE p (a int) PARTITION BY RANGE (a)",
                "CREATE TABLE c (a int)",
                "ALTER TABLE p ATTACH PARTITION c DEFAULT",
                "DROP TABLE p",
            ],
            &[
                "CREATE TABLE p (a int)",
                "CREATE TABLE c (a int)",
                "ALTER TABLE c INHERIT p",
                "TRUNCATE p",
            ],
            &[
                "SET search_path = a",
                "CREATE TABLE t ()",
                "SET LOCAL search_path = a",
                "DROP TABLE t",
            ],
            &[
                "SET search_path = public, pg_catalog",
                "CREATE TABLE t ()",
                "RESET search_path",
                "DROP TABLE t",
            ],
            &[
                "SELECT pg_catalog.set_config('search_path', '', false)",
                "CREATE TABLE s.t ()",
                "DROP TABLE s.t",
            ],
            &[
                "CREATE TABLE t (a int)",
                "ALTER TABLE t RENAME a TO b",
                "ALTER TABLE t DROP b",
            ],
            &[
                "CREATE TABLE t (a int)",
                "ALTER INDEX i RENAME TO j",
                "ALTER FUNCTION f() SET SCHEMA s",
                "DROP TABLE t",
            ],
            &[
                "CREATE FUNCTION f() RETURNS int LANGUAGE sql SET search_path = a AS 'SELECT 1'",
                "CREATE TABLE t ()",
                "ALTER ROLE r SET search_path = b",
                "DROP TABLE t",
            ],
        ];
        for statements in cases {
            assert_eq!(lost(statements), Vec::<Loss>::new(), "{statements:?}");
        }
    }

    #[test]
    fn only_what_a_statement_names_is_forgotten() {
        let unsettling = [
            "ALTER TABLE ev ATTACH PARTITION old DEFAULT",
            "ALTER TABLE old INHERIT ev",
            "DO $$ BEGIN ALTER TABLE ev ATTACH PARTITION old DEFAULT; END $$",
            "DO $$ BEGIN EXECUTE format('ALTER TABLE ev ATTACH PARTITION %I DEFAULT', x); END $$",
            "ALTER VIEW v RENAME TO w",
            "ALTER SEQUENCE a RENAME TO b",
            "ALTER TABLE a SET SCHEMA s",
            "DO $$ BEGIN IF EXISTS (SELECT 1) THEN ALTER TABLE a RENAME TO b; END IF; END $$",
        ];
        for sql in unsettling {
            let statements = [
                "CREATE TABLE users (a int)",
                sql,
                "ALTER TABLE users DROP COLUMN a",
                "UPDATE users SET a = 1",
            ];
            assert_eq!(lost(&statements), Vec::<Loss>::new(), "{sql}");
        }
        let attaches = "DO $$ BEGIN CREATE TABLE c (LIKE ev); ALTER TABLE ev ATTACH PARTITION c DEFAULT; END $$";
        let statements = ["CREATE TABLE ev (a int)", attaches, "TRUNCATE ev"];
        assert_eq!(lost(&statements), Vec::<Loss>::new());
    }

    #[test]
    fn temporary_tables_are_forgotten_and_no_others() {
        let mut made = BTreeSet::new();
        for sql in [
            "CREATE TEMP TABLE a ()",
            "CREATE TABLE a ()",
            "CREATE TABLE public.b ()",
            "CREATE TABLE z ()",
        ] {
            Reader::default().read(sql).add_to(&mut made);
        }
        assert_eq!(made.len(), 4);
        forget_temporary(&mut made);
        let names: Vec<String> = made.iter().map(TableName::to_string).collect();
        assert_eq!(names, ["\"a\"", "\"z\"", "\"public\".\"b\""]);
    }
}
