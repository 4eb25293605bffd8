//! A plan as its statements: what each locks, reads or writes, and risks. Pure; nothing of it is in the plan's hash.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::migrate::{
    analysis::{self, LockMode, TableName, Work},
    statements::{self, Unrunnable, line_at},
};

use super::{Plan, Step};

/// A statement shows no more of its text.
const SHOWN: usize = 200;

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
    /// What of the data is lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loses: Option<&'static str>,
    /// Its beginning.
    pub statement: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedLock {
    pub table: String,
    pub mode: &'static str,
}

impl Plan {
    /// Every statement in the order it runs. Tables that the plan itself has made are left out of the locks.
    pub fn statements(&self) -> Result<Vec<Planned>, (String, Unrunnable)> {
        let (mut all, mut made) = (Vec::new(), BTreeSet::new());
        for step in &self.steps {
            let listed = of_step(step, &mut made).map_err(|problem| (step.file.clone(), problem))?;
            all.extend(listed);
        }
        Ok(all)
    }
}

fn of_step(step: &Step, made: &mut BTreeSet<TableName>) -> Result<Vec<Planned>, Unrunnable> {
    let mut listed = Vec::new();
    for statement in statements::split(&step.sql)? {
        let text = &step.sql[statement.start..statement.end];
        let facts = analysis::facts(text);
        let there = |(name, _): &&(TableName, LockMode)| !made.contains(name);
        let locks: Vec<PlannedLock> = facts.locks.iter().filter(there).map(lock).collect();
        let words: Vec<&str> = text.split_whitespace().collect();
        listed.push(Planned {
            version: step.version,
            file: step.file.clone(),
            line: line_at(&step.sql, statement.start),
            more_locks: facts.unlisted || !facts.index_locks.is_empty(),
            work: work(facts.work).filter(|_| !locks.is_empty() || facts.locks.is_empty()),
            loses: facts.destructive.map(analysis::Loss::what),
            locks,
            kind: facts.kind,
            statement: words.join(" ").chars().take(SHOWN).collect(),
        });
        made.extend(facts.creates);
    }
    Ok(listed)
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
    use crate::migrate::{plan, source::Source};

    #[test]
    fn statements_say_what_they_lock_of_what_is_there() {
        let files = [
            (
                "1_a.sql",
                "CREATE TABLE t (id int);\nALTER TABLE t ADD u int REFERENCES u;",
            ),
            ("2_b.sql", "\nDROP TABLE t; CREATE INDEX\n ON w (x)"),
        ];
        let files = files.map(|(name, sql)| (name.to_owned(), sql.as_bytes().to_vec()));
        let source = Source::from_files(files.into()).unwrap();
        let all = plan::plan(&source, &[], None).unwrap().statements().unwrap();
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
            (all[2].loses, all[3].statement.as_str()),
            (Some("drops a table"), "CREATE INDEX ON w (x)")
        );
    }
}
