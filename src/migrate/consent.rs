//! Statements that lose data run only where somebody has named their version. Pure.

use std::{collections::BTreeSet, fmt};

use super::plan::Planned;

/// So many versions are written out in a message.
const NAMED: usize = 20;

/// The versions whose losses somebody has accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Consent {
    /// Whoever asks has asked for the loss itself: a way down by its verb, a plan that was judged before.
    Everything,
    Versions(BTreeSet<i64>),
}

impl Consent {
    /// What of a plan is lost that nobody has accepted.
    pub fn refuse(&self, statements: &[Planned]) -> Option<Unaccepted> {
        let Consent::Versions(accepted) = self else { return None };
        let mut losses = statements
            .iter()
            .filter(|one| one.loses.is_some() && !accepted.contains(&one.version))
            .peekable();
        let first = *losses.peek()?;
        Some(Unaccepted {
            file: first.file.clone(),
            line: first.line,
            what: first.loses.unwrap_or_default(),
            statement: first.statement.clone(),
            versions: losses.map(|one| one.version).collect(),
        })
    }
}

/// The first statement of a plan whose loss nobody has accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unaccepted {
    pub file: String,
    pub line: usize,
    /// What it does: `drops a table`.
    pub what: &'static str,
    /// Its beginning.
    pub statement: String,
    /// Every version of the plan with such a statement.
    pub versions: BTreeSet<i64>,
}

impl Unaccepted {
    /// The versions to accept, as they are written behind an option or in a list.
    pub fn list(&self, separator: &str) -> String {
        let mut all: Vec<String> = self.versions.iter().take(NAMED).map(i64::to_string).collect();
        if self.versions.len() > NAMED {
            all.push(format!("and {} more", self.versions.len() - NAMED));
        }
        all.join(separator)
    }
}

impl fmt::Display for Unaccepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.file, self.line, self.what, self.statement)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migrate::{history::State, plan, source::Source};

    #[test]
    fn a_loss_needs_its_version() {
        let files = [
            ("1_a.sql", "SELECT 1"),
            ("2_b.sql", "SELECT 1;\nDROP TABLE t"),
            ("3_c.sql", "TRUNCATE u"),
        ];
        let files = files.map(|(name, sql)| (name.to_owned(), sql.as_bytes().to_vec()));
        let source = Source::from_files(files.into()).unwrap();
        let plan = plan::plan(&source, &[], None).unwrap();
        let statements = plan.statements(&source, &State::default()).unwrap();
        let refused = |accepted: &[i64]| Consent::Versions(accepted.iter().copied().collect()).refuse(&statements);
        let first = refused(&[1]).unwrap();
        assert_eq!(first.to_string(), "2_b.sql:2: drops a table: DROP TABLE t");
        assert_eq!(first.list(","), "2,3");
        assert_eq!(
            refused(&[2]).unwrap().to_string(),
            "3_c.sql:1: empties a table: TRUNCATE u"
        );
        assert_eq!(refused(&[2, 3]), None);
        assert_eq!(Consent::Everything.refuse(&statements), None);
    }
}
