//! Risks of a migration's text, with what to write instead. Pure: nothing but the files is looked at.
//!
//! The rules are our own, one for each way in which a statement stops a running application or loses data: they follow
//! from what [`analysis`] says. Matters of style are not judged. A finding is accepted by a comment before the statement:
//! `-- amas-lint: ignore RULE`.

use std::{collections::BTreeSet, fmt};

use serde::Serialize;

use super::{
    analysis::{Cause, Reader, StatementFacts, TableName},
    plan::PlanError,
    source::{Migration, Script},
    spread,
    statements::{self, Statement, Unrunnable, line_at},
};

/// What a comment before a statement begins with to accept a finding.
const IGNORE: &str = "amas-lint: ignore";
/// Findings show no more of a statement.
const SHOWN: usize = 200;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// Data is lost.
    Destructive,
    /// It runs outside of a transaction, so that a failure of what comes after it takes nothing back.
    NeedsNoTransaction,
    IndexNotConcurrent,
    KeyWithoutIndex,
    CheckNotDeferred,
    ForeignKeyNotDeferred,
    NotNullScan,
    TypeChange,
    FilledColumn,
    TableCopy,
    Rename,
    /// Nobody can read from the text what it does.
    DynamicSql,
}

impl Rule {
    pub fn name(self) -> &'static str {
        match self {
            Self::Destructive => "destructive",
            Self::NeedsNoTransaction => "needs-no-transaction",
            Self::IndexNotConcurrent => "index-not-concurrent",
            Self::KeyWithoutIndex => "key-without-index",
            Self::CheckNotDeferred => "check-not-deferred",
            Self::ForeignKeyNotDeferred => "foreign-key-not-deferred",
            Self::NotNullScan => "not-null-scan",
            Self::TypeChange => "type-change",
            Self::FilledColumn => "filled-column",
            Self::TableCopy => "table-copy",
            Self::Rename => "rename",
            Self::DynamicSql => "dynamic-sql",
        }
    }

    /// What happens.
    fn what(self) -> &'static str {
        match self {
            Self::Destructive => "loses data",
            Self::NeedsNoTransaction => {
                "runs outside of a transaction: what the file did before it stays if something after it fails"
            }
            Self::IndexNotConcurrent => "writers wait until the index is built",
            Self::KeyWithoutIndex => "readers and writers wait until the key's index is built",
            Self::CheckNotDeferred => "readers and writers wait until every row is checked",
            Self::ForeignKeyNotDeferred => "writers of both tables wait until every row is checked",
            Self::NotNullScan => "readers and writers wait until every row is checked",
            Self::TypeChange => "may write the whole table anew while readers and writers wait",
            Self::FilledColumn => "writes the whole table anew while readers and writers wait",
            Self::TableCopy => "copies the whole table while readers and writers wait",
            Self::Rename => "the running application still uses the old name",
            Self::DynamicSql => {
                "runs SQL that is put together at run time: what that locks and loses cannot be read from its text"
            }
        }
    }

    /// What to write instead.
    fn instead(self) -> &'static str {
        match self {
            Self::Destructive => {
                "if that is meant, accept it with a comment before it: -- amas-lint: ignore destructive"
            }
            Self::NeedsNoTransaction => "a file of its own",
            Self::IndexNotConcurrent => "CREATE INDEX CONCURRENTLY, in a file of its own",
            Self::KeyWithoutIndex => {
                "CREATE UNIQUE INDEX CONCURRENTLY in a file of its own, then ADD CONSTRAINT ... USING INDEX"
            }
            Self::CheckNotDeferred | Self::ForeignKeyNotDeferred => {
                "ADD CONSTRAINT ... NOT VALID, and VALIDATE CONSTRAINT in the next migration"
            }
            Self::NotNullScan => {
                "ADD CONSTRAINT ... CHECK (column IS NOT NULL) NOT VALID, VALIDATE it in the next migration, then SET NOT NULL"
            }
            Self::TypeChange => "a new column of the new type, filled in batches, then swapped",
            Self::FilledColumn => "ADD COLUMN without the default, SET DEFAULT, and fill old rows in batches",
            Self::TableCopy => "run it in a maintenance window",
            Self::DynamicSql => {
                "the statements themselves where that can be; else read it, and accept it with a comment before it: -- amas-lint: ignore dynamic-sql"
            }
            Self::Rename => "add the new name beside the old one, move the application, drop the old one later",
        }
    }

    fn of(cause: Cause) -> Option<Self> {
        Some(match cause {
            Cause::BuildsIndex => Self::IndexNotConcurrent,
            Cause::AddsKey => Self::KeyWithoutIndex,
            Cause::AddsCheck => Self::CheckNotDeferred,
            Cause::AddsForeignKey => Self::ForeignKeyNotDeferred,
            Cause::SetsNotNull => Self::NotNullScan,
            Cause::ChangesType => Self::TypeChange,
            Cause::FillsColumn => Self::FilledColumn,
            Cause::Copies => Self::TableCopy,
            Cause::Renames => Self::Rename,
            Cause::Reads => return None,
        })
    }
}

/// A rule that a statement meets, with what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Risk {
    pub rule: Rule,
    pub what: &'static str,
    pub instead: &'static str,
    /// Of what is risky: the statement, or one in its body.
    #[serde(skip)]
    span: (usize, usize),
}

impl fmt::Display for Risk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; instead: {}", self.rule.name(), self.what, self.instead)
    }
}

/// One risk of one statement, and where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    pub version: i64,
    pub file: String,
    /// Of the statement's first word, from 1; in a body of the statement's first word there.
    pub line: usize,
    pub rule: Rule,
    pub what: &'static str,
    pub instead: &'static str,
    /// Its beginning.
    pub statement: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}: {}: {}\n  {}\n  instead: {}",
            self.file,
            self.line,
            self.rule.name(),
            self.what,
            self.statement,
            self.instead
        )
    }
}

/// A file's statements with what each does, which is what their risks follow from.
pub struct Judged<'a> {
    sql: &'a str,
    pub statements: Vec<(Statement, StatementFacts)>,
    /// It has no transaction anyway.
    whole: bool,
}

impl<'a> Judged<'a> {
    pub fn read(sql: &'a str) -> Result<Self, Unrunnable> {
        let mut reader = Reader::default();
        let read = |statement: Statement| {
            let facts = reader.read(&sql[statement.start..statement.end]);
            (statement, facts)
        };
        let statements: Vec<_> = statements::split(sql)?.into_iter().map(read).collect();
        let whole = statements::no_transaction(sql) || statements.iter().all(|(_, facts)| !facts.transactional);
        Ok(Self { sql, statements, whole })
    }

    /// The risks of one of its statements that no comment accepts. What is in `made` has no rows that matter and no users yet.
    pub fn risks(&self, index: usize, made: &BTreeSet<TableName>) -> Vec<Risk> {
        let Some((statement, facts)) = self.statements.get(index) else {
            return Vec::new();
        };
        let before = index.checked_sub(1).and_then(|before| self.statements.get(before));
        let accepted = &self.sql[before.map_or(0, |(before, _)| before.end)..statement.start];
        let text = &self.sql[statement.start..statement.end];
        let mut all = risks(facts, made, self.whole, (statement.start, statement.end));
        all.retain(|risk| !ignored(accepted, risk.rule));
        let mut read = 0;
        for one in &facts.inside {
            let (start, end) = one.span.unwrap_or((0, text.len()));
            let between = text.get(read..start).unwrap_or_default();
            read = one.span.map_or(read, |(_, end)| end);
            let span = (statement.start + start, statement.start + end);
            // the server lets nothing into a body that has no transaction
            let risks = risks(&one.facts, made, true, span).into_iter();
            all.extend(risks.filter(|risk| ![accepted, between].iter().any(|text| ignored(text, risk.rule))));
        }
        // what a routine does several times is told once
        all.dedup();
        all
    }
}

/// The risks of these migrations' ways up, in the order of their statements. What the same file has made is left out.
pub fn lint(migrations: &[&Migration]) -> Result<Vec<Finding>, PlanError> {
    let each = |part: &[&Migration]| part.iter().map(|migration| findings(migration)).collect();
    let all: Result<Vec<_>, _> = spread::parts(migrations, each).into_iter().collect();
    Ok(all?.into_iter().flatten().collect())
}

fn findings(migration: &Migration) -> Result<Vec<Finding>, PlanError> {
    let script = &migration.up;
    let judged = Judged::read(&script.sql).map_err(|problem| PlanError::unrunnable(&script.file, problem))?;
    let (mut findings, mut made) = (Vec::new(), BTreeSet::new());
    for (index, (_, facts)) in judged.statements.iter().enumerate() {
        let risks = judged.risks(index, &made).into_iter();
        findings.extend(risks.map(|risk| finding(migration.version, script, &risk)));
        facts.add_to(&mut made);
    }
    Ok(findings)
}

fn finding(version: i64, script: &Script, risk: &Risk) -> Finding {
    let (start, end) = risk.span;
    let words: Vec<&str> = script.sql[start..end].split_whitespace().collect();
    Finding {
        version,
        file: script.file.clone(),
        line: line_at(&script.sql, start),
        rule: risk.rule,
        what: risk.what,
        instead: risk.instead,
        statement: words.join(" ").chars().take(SHOWN).collect(),
    }
}

fn risks(facts: &StatementFacts, made: &BTreeSet<TableName>, whole: bool, span: (usize, usize)) -> Vec<Risk> {
    let own = facts.is_within(made);
    let loss = facts.destructive.filter(|_| !own);
    let mut rules: Vec<(Rule, &'static str)> = loss.map(|loss| (Rule::Destructive, loss.what())).into_iter().collect();
    let mut meets = |rule: Rule| rules.push((rule, rule.what()));
    if facts.dynamic {
        meets(Rule::DynamicSql);
    }
    if !facts.transactional && !whole {
        meets(Rule::NeedsNoTransaction);
    }
    if !own {
        facts.causes.iter().filter_map(|&cause| Rule::of(cause)).for_each(meets);
    }
    let risk = |(rule, what): (Rule, &'static str)| Risk {
        rule,
        what,
        instead: rule.instead(),
        span,
    };
    rules.into_iter().map(risk).collect()
}

/// Whether a comment before the statement accepts the rule.
fn ignored(before: &str, rule: Rule) -> bool {
    before
        .lines()
        .filter_map(|line| line.split_once(IGNORE))
        .any(|(_, names)| names.split([',', ' ']).any(|name| name.trim() == rule.name()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migrate::source::Source;

    fn rules(sql: &str) -> Vec<(&'static str, usize)> {
        let source = Source::from_files(vec![("1_x.sql".into(), sql.as_bytes().to_vec())]).unwrap();
        let migration = source.get(1).unwrap();
        lint(&[migration])
            .unwrap()
            .iter()
            .map(|f| (f.rule.name(), f.line))
            .collect()
    }

    #[test]
    fn risks_have_a_rule_and_a_line() {
        let cases: &[(&str, &[(&str, usize)])] = &[
            ("CREATE TABLE t (id int PRIMARY KEY);\nCREATE INDEX ON t (id);", &[]),
            (
                "CREATE TABLE t (id int);\nALTER TABLE t ADD CHECK (id > 0), ADD c bigserial;\nDROP TABLE t",
                &[],
            ),
            (
                "CREATE TABLE IF NOT EXISTS t (id int);\nDROP TABLE t",
                &[("destructive", 2)],
            ),
            ("SELECT 1;\n\nCREATE INDEX ON t (id);", &[("index-not-concurrent", 3)]),
            ("CREATE INDEX CONCURRENTLY i ON t (id); VACUUM t", &[]),
            (
                "UPDATE t SET a = 1 WHERE b;\nCREATE INDEX CONCURRENTLY i ON t (id)",
                &[("needs-no-transaction", 2)],
            ),
            ("-- no-transaction\nCREATE INDEX CONCURRENTLY i ON t (id)", &[]),
            (
                "ALTER TABLE t ADD FOREIGN KEY (a) REFERENCES u",
                &[("foreign-key-not-deferred", 1)],
            ),
            ("ALTER TABLE t ADD FOREIGN KEY (a) REFERENCES u NOT VALID", &[]),
            (
                "ALTER TABLE t ADD CONSTRAINT c CHECK (a > 0)",
                &[("check-not-deferred", 1)],
            ),
            ("ALTER TABLE t ADD PRIMARY KEY (a)", &[("key-without-index", 1)]),
            ("ALTER TABLE t ALTER a SET NOT NULL", &[("not-null-scan", 1)]),
            ("ALTER TABLE t ALTER a TYPE text", &[("type-change", 1)]),
            (
                "ALTER TABLE t ALTER a TYPE int",
                &[("destructive", 1), ("type-change", 1)],
            ),
            (
                "ALTER TABLE t ADD a uuid DEFAULT gen_random_uuid()",
                &[("filled-column", 1)],
            ),
            ("ALTER TABLE t RENAME a TO b", &[("rename", 1)]),
            ("DROP TABLE t;", &[("destructive", 1)]),
            (
                "-- amas-lint: ignore destructive\nDROP TABLE t;\nDROP TABLE u",
                &[("destructive", 3)],
            ),
            ("/* amas-lint: ignore rename, destructive */ DROP TABLE t", &[]),
            ("UPDATE t SET a = 1 WHERE b", &[]),
            ("ALTER TABEL t", &[]),
            // in bodies: where it is said, and where it is called
            (
                "\nDO $$\nBEGIN\n  DROP TABLE t;\n  DELETE FROM u WHERE a;\nEND $$",
                &[("destructive", 4)],
            ),
            (
                "DO $$ BEGIN\n EXECUTE 'TRUNCATE ' || t;\nEND $$",
                &[("destructive", 2), ("dynamic-sql", 2)],
            ),
            ("DO $$ BEGIN EXECUTE q; END $$", &[("dynamic-sql", 1)]),
            (
                "DO $$ BEGIN IF NOT EXISTS (SELECT 1) THEN\n ALTER TABLE t ADD CHECK (a > 0); END IF; END $$",
                &[("check-not-deferred", 2)],
            ),
            (
                "CREATE TABLE t (id int);\nDO $$ BEGIN DROP TABLE t; CREATE INDEX ON t (id); END $$",
                &[],
            ),
            (
                "CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $$ BEGIN\n TRUNCATE t; END $$;\nSELECT f(), f();\nDROP FUNCTION f();",
                &[("destructive", 3)],
            ),
            (
                "CREATE PROCEDURE s.p() LANGUAGE sql AS 'DELETE FROM t';\nCREATE FUNCTION g() RETURNS void LANGUAGE plpgsql AS $$ BEGIN CALL s.p(); END $$;\nDO $$ BEGIN PERFORM g(); END $$",
                &[("destructive", 3)],
            ),
            (
                "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN DELETE FROM t; RETURN NULL; END $$;\nCREATE TRIGGER g AFTER INSERT ON u EXECUTE FUNCTION f()",
                &[],
            ),
            (
                "-- amas-lint: ignore destructive\nDO $$ BEGIN DROP TABLE t; DROP TABLE u; END $$",
                &[],
            ),
            (
                "DO $$ BEGIN\n -- amas-lint: ignore destructive\n DROP TABLE t;\n DROP TABLE u; END $$",
                &[("destructive", 4)],
            ),
        ];
        for (sql, expected) in cases {
            assert_eq!(&rules(sql), expected, "{sql}");
        }
    }

    #[test]
    fn a_finding_says_where_what_and_what_instead() {
        let source = Source::from_files(vec![("7_x.sql".into(), b"\nDELETE\n  FROM t".to_vec())]).unwrap();
        let finding = &lint(&[source.get(7).unwrap()]).unwrap()[0];
        let text = finding.to_string();
        for part in [
            "7_x.sql:2: destructive: deletes without a WHERE",
            "DELETE FROM t",
            "ignore destructive",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }
}
