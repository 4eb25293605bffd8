//! A plan as its statements: what each locks, reads or writes, loses, and risks. Pure; nothing of it is in the plan's hash.

use std::{collections::BTreeSet, sync::Arc};

use serde::Serialize;

use crate::migrate::{
    analysis::{self, LockMode, Reader, Rows, StatementFacts, TableName, Work, forget_temporary},
    history::State,
    lint::{Judged, Risk, Rule},
    source::{Migration, Source, gap_warning},
    spread,
    statements::{self, line_at},
};

use super::{
    Direction, Plan, PlanError, Step,
    estimates::{Estimates, noted},
};

/// A statement shows no more of its text.
const SHOWN: usize = 200;
/// Kinds of statements that run more than what they say.
const CODE: &[&str] = &["CALL", "DO", "EXECUTE", "UNKNOWN"];
/// Kinds of statements whose tables have rows from the beginning.
const FILLING: &[&str] = &["CREATE TABLE AS", "SELECT INTO"];

/// One statement of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Planned {
    pub version: i64,
    pub file: String,
    /// Of its first word, from 1.
    pub line: usize,
    pub kind: String,
    /// Tables that are there before the plan, with the mode that is taken on each.
    pub locks: Vec<PlannedLock>,
    /// It may take more locks than are listed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub more_locks: bool,
    /// `rewrite`, `scan`, or nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub work: Option<&'static str>,
    /// What is lost of the data that is there before the plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loses: Option<&'static str>,
    /// The lint rules that it meets and that no comment accepts, each once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub risks: Vec<Risk>,
    /// Its beginning.
    pub statement: String,
    /// The relations that it renames, or makes a part of another one: what comes after it may mean them by other names. None: nobody can say which.
    #[serde(skip)]
    pub renamed: Option<Vec<TableName>>,
    /// The views and foreign tables that it makes or replaces: what has such a name in the catalog is not what comes after it means.
    #[serde(skip)]
    pub views: Vec<TableName>,
    /// It does what its text does not say: if a later name is not there yet, nobody can say what it means.
    #[serde(skip)]
    pub obscures: bool,
    /// Its names are looked for along a search_path that the file has set.
    #[serde(skip)]
    pub other_path: bool,
    /// Something is lost in a body that it runs: of a DO block, or of a routine.
    #[serde(skip)]
    pub loses_inside: bool,
    #[serde(skip)]
    whole: Whole,
}

/// Where the whole statement is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Whole {
    sql: Arc<str>,
    start: usize,
    end: usize,
}

impl Planned {
    /// The whole statement as it is written.
    pub fn text(&self) -> &str {
        &self.whole.sql[self.whole.start..self.whole.end]
    }

    /// The file that it is in, as it is written.
    pub fn file_text(&self) -> &str {
        &self.whole.sql
    }

    /// For people: where it is, `text`, and a line for each thing that it does, with what is known of the tables.
    pub fn print(&self, text: &str, known: &Estimates) -> String {
        let mut lines = format!("{}:{}: {text}\n", self.file, self.line);
        for lock in &self.locks {
            lines.push_str(&format!(
                "    {} on {}{}\n",
                lock.mode,
                lock.table,
                noted(known, &lock.table)
            ));
        }
        if self.more_locks {
            lines.push_str("    may take more locks than can be read from its text\n");
        }
        for word in self.work.iter().chain(&self.loses) {
            lines.push_str(&format!("    {word}\n"));
        }
        // what is lost stands there already, whether lint is to tell of it or not
        for risk in self.risks.iter().filter(|risk| risk.rule != Rule::Destructive) {
            lines.push_str(&format!("    {risk}\n"));
        }
        lines
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedLock {
    pub table: String,
    pub mode: &'static str,
}

/// What the runs have made that have not come to their end.
#[derive(Default)]
pub struct Begun {
    pub made: BTreeSet<TableName>,
    /// Those that they have written to themselves: rows in them tell nothing.
    pub written: BTreeSet<TableName>,
}

impl Plan {
    /// What it is, in a line.
    pub fn headline(&self, statements: usize) -> String {
        format!(
            "{} from version {} to {}: {} migrations, {statements} statements",
            self.direction,
            self.from,
            self.to,
            self.steps.len(),
        )
    }

    /// Numbers that serial versions skip where this plan passes them; None: it passes none.
    pub fn warning(&self, source: &Source) -> Option<String> {
        let passed =
            |(first, _): &(i64, i64)| self.direction == Direction::Up && self.from < *first && *first < self.to;
        gap_warning(source.gaps().into_iter().filter(passed).collect())
    }

    /// Every statement in the order it runs. Tables that the plan itself makes are left out of locks and losses: they hold
    /// nothing yet. So are those that an unfinished run has made, whose rest this plan is.
    pub fn statements(&self, source: &Source, state: &State) -> Result<Vec<Planned>, PlanError> {
        self.statements_after(self.begun(source, state).made)
    }

    /// What the runs have made that have not come to their end.
    pub fn begun(&self, source: &Source, state: &State) -> Begun {
        let Begun { mut made, mut written } = Begun::default();
        let Some(from) = state.began.filter(|_| self.direction == Direction::Up) else {
            return Begun { made, written };
        };
        let applied = |one: &&Migration| one.version > from && one.version <= self.from;
        for migration in source.migrations().filter(applied) {
            let (sql, mut reader) = (&*migration.up.sql, Reader::default());
            for part in statements::split(sql).unwrap_or_default() {
                let facts = reader.read(&sql[part.start..part.end]);
                facts.add_to(&mut made);
                write(&facts, &mut written);
            }
            forget_temporary(&mut made);
        }
        Begun { made, written }
    }

    /// The same as [`Plan::statements`], where these are made already and hold nothing.
    pub fn statements_after(&self, mut made: BTreeSet<TableName>) -> Result<Vec<Planned>, PlanError> {
        // What each statement does is most of the work, and knows of no other file.
        let judged = spread::parts(&self.steps, |steps| {
            steps.iter().map(|step| Judged::read(&step.sql)).collect()
        });
        let mut all = Vec::new();
        for (step, judged) in self.steps.iter().zip(judged) {
            let judged = judged.map_err(|problem| PlanError::Unrunnable {
                file: step.file.clone(),
                problem,
            })?;
            all.extend(of_step(step, &judged, &mut made));
        }
        Ok(all)
    }
}

fn of_step(step: &Step, judged: &Judged, made: &mut BTreeSet<TableName>) -> Vec<Planned> {
    let mut listed = Vec::new();
    // without the header nothing that goes with its transaction stands before a place where the file is cut
    let cut_anywhere = statements::no_transaction(&step.sql);
    for (index, (statement, facts)) in judged.statements.iter().enumerate() {
        let text = &step.sql[statement.start..statement.end];
        let there = |(name, _): &&(TableName, LockMode)| !facts.is_made(name, made);
        let locks: Vec<PlannedLock> = facts.locks.iter().filter(there).map(lock).collect();
        let touches_what_is_there = !locks.is_empty() || facts.locks.is_empty();
        let words: Vec<&str> = text.split_whitespace().collect();
        listed.push(Planned {
            version: step.version,
            file: step.file.clone(),
            line: line_at(&step.sql, statement.start),
            more_locks: facts.unlisted || !facts.index_locks.is_empty(),
            work: work(facts.work).filter(|_| touches_what_is_there),
            loses: facts.loss(made).map(analysis::Loss::what),
            loses_inside: facts.inside.iter().any(|one| one.facts.loss(made).is_some()),
            risks: each_once(judged.risks(index, made)),
            locks,
            renamed: renamed(facts),
            views: each(facts).filter_map(view).collect(),
            obscures: obscures(facts),
            other_path: facts.path.is_some(),
            kind: facts.kind.clone(),
            statement: words.join(" ").chars().take(SHOWN).collect(),
            whole: Whole {
                sql: step.sql.clone(),
                start: statement.start,
                end: statement.end,
            },
        });
        facts.add_to(made);
        if facts.rows == Rows::Transaction && cut_anywhere {
            forget_temporary(made);
        }
    }
    forget_temporary(made);
    listed
}

/// The statement, and those of the bodies that it runs.
fn each(facts: &StatementFacts) -> impl Iterator<Item = &StatementFacts> {
    std::iter::once(facts).chain(facts.inside.iter().map(|one| &one.facts))
}

/// Takes in what it puts rows into; what it makes under such a name is another table.
fn write(facts: &StatementFacts, written: &mut BTreeSet<TableName>) {
    if let Some(name) = &facts.creates {
        written.remove(name);
    }
    for one in each(facts).filter(|one| one.path.is_none() && !one.adrift) {
        let changed = one.locks.iter().filter(|(_, mode)| *mode == LockMode::RowExclusive);
        written.extend(changed.map(|(name, _)| name.clone()));
        if FILLING.contains(&one.kind.as_str()) {
            written.extend(one.creates.clone());
        }
    }
}

/// The names that it takes from relations, or from all in a schema, which are none that it says.
fn renamed(facts: &StatementFacts) -> Option<Vec<TableName>> {
    let mut names = Vec::new();
    for one in each(facts) {
        if one.renames {
            names.extend(one.locks.iter().map(|(name, _)| name.clone()));
        }
        if one.renames && one.locks.is_empty() {
            return None;
        }
        names.extend(one.joins.clone());
    }
    Some(names)
}

/// What it makes or replaces of which the rows are elsewhere.
fn view(facts: &StatementFacts) -> Option<TableName> {
    let own = |(_, mode): &&(TableName, LockMode)| *mode == LockMode::AccessExclusive;
    let replaced = || facts.locks.iter().filter(|_| facts.kind == "CREATE VIEW").find(own);
    let named = || facts.creates.as_ref().or_else(|| replaced().map(|(name, _)| name));
    (facts.rows == Rows::Elsewhere).then(named).flatten().cloned()
}

/// A body that can be read says what it does, though a rename in it may depend on something.
fn obscures(facts: &StatementFacts) -> bool {
    let code = |one: &StatementFacts| one.dynamic || CODE.contains(&one.kind.as_str());
    let is_read = match facts.kind.as_str() {
        "DO" => true,
        "CALL" => !facts.inside.is_empty(),
        _ => false,
    };
    let inside = |one: &StatementFacts| code(one) || one.renames;
    // a temporary view, for instance
    let nameless = |one: &StatementFacts| one.rows == Rows::Elsewhere && view(one).is_none();
    code(facts) && !is_read || facts.inside.iter().any(|one| inside(&one.facts)) || each(facts).any(nameless)
}

/// A body may meet a rule in several places.
fn each_once(mut risks: Vec<Risk>) -> Vec<Risk> {
    let mut met = BTreeSet::new();
    risks.retain(|risk| met.insert(risk.rule));
    risks
}

fn lock((name, mode): &(TableName, LockMode)) -> PlannedLock {
    PlannedLock {
        table: name.to_string(),
        mode: mode.sql(),
    }
}

fn work(work: Work) -> Option<&'static str> {
    match work {
        Work::None => None,
        Work::Scan => Some("scan"),
        Work::Rewrite => Some("rewrite"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migrate::plan::{self, Estimate};

    fn source(files: &[(&str, &str)]) -> Source {
        let files = files
            .iter()
            .map(|(name, sql)| ((*name).to_owned(), sql.as_bytes().to_vec()));
        Source::from_files(files.collect()).unwrap()
    }

    fn listed(source: &Source) -> Vec<Planned> {
        let plan = plan::plan(source, &[], None).unwrap();
        plan.statements(source, &State::default()).unwrap()
    }

    #[test]
    fn statements_say_what_they_lock_of_what_is_there() {
        let all = listed(&source(&[
            (
                "1_a.sql",
                "CREATE TABLE t (id int);\nALTER TABLE t ADD u int REFERENCES u;",
            ),
            ("2_b.sql", "\nDROP TABLE v; CREATE INDEX\n ON w (x)"),
        ]));
        let lines: Vec<_> = all
            .iter()
            .map(|s| (s.file.as_str(), s.line, s.kind.as_str(), s.work))
            .collect();
        let expected = [
            ("1_a.sql", 1, "CREATE TABLE", None),
            ("1_a.sql", 2, "ALTER TABLE", None),
            ("2_b.sql", 2, "DROP TABLE", None),
            ("2_b.sql", 2, "CREATE INDEX", Some("scan")),
        ];
        assert_eq!(lines, expected);
        let locks: Vec<_> = all[1]
            .locks
            .iter()
            .map(|lock| (lock.table.as_str(), lock.mode))
            .collect();
        assert_eq!(locks, [("\"u\"", "SHARE ROW EXCLUSIVE")]);
        assert_eq!(
            (all[2].loses, all[3].statement.as_str(), all[3].text()),
            (
                Some("drops a table"),
                "CREATE INDEX ON w (x)",
                "CREATE INDEX\n ON w (x)"
            )
        );
    }

    #[test]
    fn statements_name_the_lint_rules_that_they_meet() {
        let of_plan = |files: &[(&str, &str)]| -> Vec<Vec<&'static str>> {
            let rules = |one: &Planned| one.risks.iter().map(|risk| risk.rule.name()).collect();
            listed(&source(files)).iter().map(rules).collect()
        };
        let sql = "CREATE INDEX ON w (x);\nALTER TABLE w ALTER x SET NOT NULL, ADD FOREIGN KEY (y) REFERENCES v;\nSELECT 1;\n\
                   -- amas-lint: ignore rename\nALTER TABLE w RENAME x TO z;\nALTER TABLE v RENAME TO u;";
        let expected: [&[&str]; 5] = [
            &["index-not-concurrent"],
            &["not-null-scan", "foreign-key-not-deferred"],
            &[],
            &[],
            &["rename"],
        ];
        assert_eq!(of_plan(&[("1_a.sql", sql)]), expected);
        let body = "DO $$ BEGIN ALTER TABLE a ADD CHECK (x > 0); ALTER TABLE b ADD CHECK (x > 0); DROP TABLE c; END $$";
        assert_eq!(of_plan(&[("1_a.sql", body)]), [["check-not-deferred", "destructive"]]);
        // what an earlier file of the plan makes has no users yet
        let make = ("1_a.sql", "CREATE TABLE w (x int)");
        assert_eq!(of_plan(&[make, ("2_b.sql", "CREATE INDEX ON w (x)")]), [[""; 0]; 2]);

        let all = listed(&source(&[("1_a.sql", "DROP TABLE w; CREATE INDEX ON v (x)")]));
        let text: String = all.iter().map(|one| one.print(one.text(), &Estimates::new())).collect();
        let index =
            "    index-not-concurrent: writers wait until the index is built; instead: CREATE INDEX CONCURRENTLY";
        assert!(text.contains(index) && !text.contains("destructive"), "{text}");
        let known = Estimates::from([(
            "\"v\"".to_owned(),
            Estimate {
                rows: Some(7),
                bytes: None,
            },
        )]);
        let text = all[1].print("", &known);
        assert!(text.contains("SHARE on \"v\" (about 7 rows, size unknown)\n"), "{text}");
    }

    #[test]
    fn a_plan_warns_of_the_numbers_that_it_passes() {
        let source = source(&[
            ("1_a.sql", "SELECT 1"),
            ("2_b.sql", "SELECT 1"),
            ("4_d.sql", "SELECT 1"),
            ("5_e.sql", "SELECT 1"),
        ]);
        let mut plan = plan::plan(&source, &[], None).unwrap();
        let warning = plan.warning(&source).unwrap();
        assert!(warning.starts_with("no file has version 3, though"), "{warning}");
        for (from, to, direction) in [(4, 5, Direction::Up), (0, 2, Direction::Up), (0, 5, Direction::Down)] {
            (plan.from, plan.to, plan.direction) = (from, to, direction);
            assert_eq!(plan.warning(&source), None, "{from} {to}");
        }
    }

    #[test]
    fn the_rest_of_several_runs_knows_what_the_first_has_made() {
        let source = source(&[
            ("1_a.sql", "CREATE TABLE t (id int)"),
            ("2_b.sql", "SELECT 1"),
            ("3_c.sql", "DROP TABLE t"),
        ]);
        let mut plan = plan::plan(&source, &[], None).unwrap();
        plan.steps.drain(..2);
        plan.from = 2;
        for (from, loses) in [(None, true), (Some(0), false), (Some(1), true)] {
            let state = State {
                began: from,
                ..State::default()
            };
            let all = plan.statements(&source, &state).unwrap();
            assert_eq!(all[0].loses.is_some(), loses, "{from:?}");
        }
    }

    #[test]
    fn tables_that_broken_runs_have_filled_are_known() {
        let make = "CREATE TABLE a (x int); CREATE TABLE b (x int); CREATE TABLE c (x int); CREATE TABLE d (x int);";
        let fill = "INSERT INTO a VALUES (1); COPY b FROM '/seed'; CREATE TABLE e AS SELECT * FROM c;
            DO $$ BEGIN INSERT INTO d VALUES (1); END $$; SET search_path = s; INSERT INTO c VALUES (1)";
        let source = source(&[("1_a.sql", make), ("2_b.sql", fill), ("3_c.sql", "SELECT 1")]);
        let mut plan = plan::plan(&source, &[], None).unwrap();
        plan.from = 2;
        let state = State {
            began: Some(0),
            ..State::default()
        };
        let begun = plan.begun(&source, &state);
        let names = |all: &BTreeSet<TableName>| all.iter().map(|one| one.name.clone()).collect::<String>();
        assert_eq!(names(&begun.made), "abcde");
        assert_eq!(names(&begun.written), "abde");
    }

    #[test]
    fn what_the_plan_has_made_itself_is_no_loss() {
        let losses = |files: &[(&str, &str)]| -> Vec<String> {
            let all = listed(&source(files));
            all.iter()
                .filter(|one| one.loses.is_some())
                .map(|one| one.statement.clone())
                .collect()
        };
        let make = ("1_a.sql", "CREATE TABLE t (id int)");
        assert_eq!(losses(&[make, ("2_b.sql", "DELETE FROM t; DROP TABLE t")]), [""; 0]);
        assert_eq!(losses(&[make, ("2_b.sql", "DROP TABLE t, u")]), ["DROP TABLE t, u"]);
        assert_eq!(
            losses(&[("1_a.sql", "CREATE TABLE IF NOT EXISTS t (id int); DROP TABLE t")]),
            ["DROP TABLE t"]
        );
        let body = "DO $$ BEGIN DELETE FROM t; DROP TABLE t; END $$";
        assert_eq!(losses(&[make, ("2_b.sql", body)]), [""; 0]);
        assert_eq!(losses(&[("2_b.sql", body)]), [body]);
        let swapped = "ALTER TABLE t RENAME TO s; ALTER TABLE u RENAME TO t; DROP TABLE t";
        assert_eq!(losses(&[make, ("2_b.sql", swapped)]), ["DROP TABLE t"], "that was u");
        // what a temporary table hid is there again in the next file
        let hides = (
            "1_a.sql",
            "CREATE TEMP TABLE t ON COMMIT DROP AS SELECT 1; DROP TABLE t",
        );
        assert_eq!(losses(&[hides, ("2_b.sql", "DROP TABLE t")]), ["DROP TABLE t"]);
        let gone = "-- no-transaction\nCREATE TEMP TABLE t (id int) ON COMMIT DROP; DROP TABLE t";
        assert_eq!(losses(&[("1_a.sql", gone)]), ["DROP TABLE t"]);
        let kept = "CREATE INDEX CONCURRENTLY i ON w (x); CREATE TEMP TABLE t (id int) ON COMMIT DROP; DELETE FROM t";
        assert_eq!(losses(&[("1_a.sql", kept)]), [""; 0]);
        let view = ("1_a.sql", "CREATE VIEW v AS SELECT * FROM t");
        assert_eq!(
            losses(&[view, ("2_b.sql", "DELETE FROM v; DROP VIEW v CASCADE")]),
            ["DELETE FROM v"]
        );
    }
}
