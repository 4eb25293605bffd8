//! What of a pending plan is judged and shown. A large plan takes a while to read, so each object's last one is remembered.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::{Value, json};

use crate::{
    api::status::{PendingPlan, PlanStatement},
    migrate::{
        plan::{Estimates, Plan, Planned, hash8, tables},
        report::truncate,
    },
    stores::{postgres::WaitingPlan, workload::Family},
};

/// The status shows no more statements of a plan.
const SHOWN: usize = 20;
/// A ConfigMap holds at most 1 MiB with everything that is in it.
const TEXT_BYTES: usize = 900 * 1024;
/// Of what a statement locks, of its lint rules and of its tables, the status shows no more each.
const WORDS_BYTES: usize = 200;
/// The catalog is asked for no more tables of a plan.
const ASKED: usize = 500;
/// A file's name may be as long as the file system allows.
const PLACE_BYTES: usize = 128;

/// What is told with a plan that is not in its statements.
pub struct Told<'a> {
    pub hash: &'a str,
    pub warning: Option<String>,
    /// None: not asked yet.
    pub estimates: Option<&'a Estimates>,
}

/// A plan that was read.
#[derive(Debug, PartialEq)]
pub struct Pending {
    pub status: PendingPlan,
    /// The statements that lose data.
    pub losses: Vec<Planned>,
    /// What is odd about its files.
    pub warning: Option<String>,
    /// The tables that it locks.
    tables: Vec<String>,
    /// How large those are is in it.
    estimated: bool,
    /// All of it, for people.
    text: String,
}

impl Pending {
    pub fn new(plan: &Plan, statements: Vec<Planned>, told: Told<'_>) -> Self {
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        let status = PendingPlan {
            hash: told.hash.to_owned(),
            direction: plan.direction.to_string(),
            from: plan.from,
            to: plan.to,
            migrations: count(plan.steps.len()),
            statement_count: count(statements.len()),
            statements: statements
                .iter()
                .take(SHOWN)
                .map(|one| shown(one, told.estimates))
                .collect(),
            config_map: None,
        };
        Self {
            status,
            text: whole(plan, &statements, &told),
            tables: tables(&statements),
            estimated: told.estimates.is_some(),
            warning: told.warning,
            losses: statements.into_iter().filter(|one| one.loses.is_some()).collect(),
        }
    }

    /// What the keeper of the database is to ask the catalog.
    pub fn asked(&self) -> WaitingPlan {
        WaitingPlan {
            hash: self.status.hash.clone(),
            tables: self.tables.iter().take(ASKED).cloned().collect(),
        }
    }

    /// Nothing is to be asked any more.
    pub fn is_complete(&self) -> bool {
        self.estimated || self.tables.is_empty()
    }

    pub fn is_long(&self) -> bool {
        self.status.statement_count > self.status.statements.len() as i64
    }

    /// Name of the ConfigMap that holds the whole plan.
    pub fn map_name(&self, family: &Family) -> String {
        family.child_name(&format!("{MAP}{}", hash8(&self.status.hash)))
    }

    /// The ConfigMap that holds the whole plan.
    pub fn map(&self, family: &Family) -> Value {
        let metadata = family.metadata(&self.map_name(family), "postgresql", "migrations", true);
        json!({"metadata": metadata, "data": {"plan.txt": self.text}})
    }
}

/// What the names of such ConfigMaps begin with, after the database's.
pub const MAP: &str = "plan-";

fn shown(planned: &Planned, estimates: Option<&Estimates>) -> PlanStatement {
    let locks: Vec<String> = planned
        .locks
        .iter()
        .map(|lock| format!("{} on {}", lock.mode, lock.table))
        .collect();
    let risks: Vec<&str> = planned.work.iter().chain(&planned.loses).copied().collect();
    let rules: Vec<&str> = planned.risks.iter().map(|risk| risk.rule.name()).collect();
    let known = planned.locks.iter().filter_map(|lock| {
        let estimate = estimates?.get(&lock.table)?;
        Some(format!("{}: {estimate}", lock.table))
    });
    let some = |text: String| Some(truncate(&text, WORDS_BYTES).to_owned()).filter(|text| !text.is_empty());
    PlanStatement {
        version: planned.version,
        place: format!("{}:{}", truncate(&planned.file, PLACE_BYTES), planned.line),
        statement: planned.statement.clone(),
        locks: some(locks.join(", ")),
        risk: some(risks.join(", ")),
        lint: some(rules.join(", ")),
        tables: some(known.collect::<Vec<_>>().join(", ")),
    }
}

fn whole(plan: &Plan, statements: &[Planned], told: &Told<'_>) -> String {
    let warning = told
        .warning
        .as_ref()
        .map_or_else(String::new, |warning| format!("warning: {warning}\n"));
    let mut text = format!("{}\n{warning}hash {}\n\n", plan.headline(statements.len()), told.hash);
    let unknown = Estimates::new();
    let known = told.estimates.unwrap_or(&unknown);
    for (index, statement) in statements.iter().enumerate() {
        let one = statement.print(statement.text(), known);
        if text.len() + one.len() > TEXT_BYTES {
            let left = statements.len() - index;
            text.push_str(&format!(
                "{left} more statements do not fit here: amas-operator migrate plan\n"
            ));
            break;
        }
        text.push_str(&one);
    }
    text
}

/// The plan that was last read for each object, by its uid.
#[derive(Default, Debug)]
pub struct Plans(Mutex<HashMap<String, Arc<Pending>>>);

impl Plans {
    /// The plan of this hash, read now if it was not, or not yet with what is `estimated` now.
    pub fn get<E>(
        &self,
        uid: &str,
        hash: &str,
        estimated: bool,
        read: impl FnOnce() -> Result<Pending, E>,
    ) -> Result<Arc<Pending>, E> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it = |known: &&Arc<Pending>| known.status.hash == hash && (known.estimated || !estimated);
        if let Some(known) = all.get(uid).filter(is_it) {
            return Ok(known.clone());
        }
        let pending = Arc::new(read()?);
        all.insert(uid.to_owned(), pending.clone());
        Ok(pending)
    }

    pub fn forget(&self, uid: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migrate::{history::State, plan, source::Source};

    #[test]
    fn a_map_holds_what_fits_and_says_what_does_not() {
        let big = format!("SELECT '{}'", "x".repeat(400 * 1024));
        let files = ["1_a.sql", "2_b.sql", "3_c.sql"].map(|name| (name.to_owned(), big.clone().into_bytes()));
        let source = Source::from_files(files.into()).unwrap();
        let plan = plan::plan(&source, &[], None).unwrap();
        let statements = plan.statements(&source, &State::default()).unwrap();
        let told = Told {
            hash: "abcdefgh99",
            warning: plan.warning(&source),
            estimates: None,
        };
        let pending = Pending::new(&plan, statements, told);
        let map = pending.map(&super::super::super::fixtures::family());
        assert_eq!(map["metadata"]["name"], "d-plan-abcdefgh");
        let text = map["data"]["plan.txt"].as_str().unwrap();
        assert!(text.len() < TEXT_BYTES + 200 && text.contains(&big), "whole statements");
        assert!(text.ends_with("1 more statements do not fit here: amas-operator migrate plan\n"));
        assert_eq!(pending.status.statements[2].statement.len(), 200);
    }
}
