//! Requirement ids, and what was shown of each. The ids are data: tests/requirements/amas-ids.toml.

use std::{collections::BTreeMap, fs, path::PathBuf};

use serde::Deserialize;

use crate::{
    ensure,
    harness::{About, Result, context::Ctx},
};

/// A file of tests/requirements.
pub fn data(file: &str) -> Result<String> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/requirements")
        .join(file);
    fs::read_to_string(&path).about(path.display())
}

/// The ids of a platform.
#[derive(Deserialize)]
struct Ids {
    /// All, in the document's order.
    ids: Vec<String>,
    /// Shown by another test: which.
    elsewhere: BTreeMap<String, String>,
    /// Not shown: why.
    open: BTreeMap<String, String>,
}

/// One thing that was looked at.
struct Evidence {
    how: String,
    /// What was seen instead; `None` when it is as it should be.
    fault: Option<String>,
}

/// What was shown so far.
#[derive(Default)]
pub struct Book(BTreeMap<String, Vec<Evidence>>);

impl Book {
    /// Notes what was seen of some requirements; `fault` says what was wrong.
    pub fn note(&mut self, ids: &[&str], how: &str, fault: Option<String>) {
        for id in ids {
            self.0.entry((*id).to_owned()).or_default().push(Evidence {
                how: how.to_owned(),
                fault: fault.clone(),
            });
        }
    }

    /// Notes something that is either so or not; `seen` is told when it is not.
    pub fn check(&mut self, ids: &[&str], how: &str, ok: bool, seen: impl FnOnce() -> String) {
        self.note(ids, how, (!ok).then(seen));
    }

    /// Prints a line for each id, then a figure a family.
    pub fn print(&self, ctx: &Ctx, file: &str) -> Result {
        let all: Ids = toml::from_str(&data(file)?).about(file)?;
        let unknown: Vec<&String> = self.0.keys().filter(|id| !all.ids.contains(id)).collect();
        ensure!(unknown.is_empty(), "ids that {file} does not know: {unknown:?}");
        let mut families: Vec<(String, Vec<Verdict>)> = Vec::new();
        ctx.say("id | shown | how");
        for id in &all.ids {
            let (verdict, how) = self.verdict(id, &all);
            ctx.say(format!("{id} | {} | {how}", verdict.word()));
            let family = family(id);
            match families.last_mut().filter(|(last, _)| *last == family) {
                Some((_, verdicts)) => verdicts.push(verdict),
                None => families.push((family, vec![verdict])),
            }
        }
        families
            .iter()
            .for_each(|(family, verdicts)| figure(ctx, family, verdicts));
        Ok(())
    }

    fn verdict(&self, id: &str, all: &Ids) -> (Verdict, String) {
        let evidence = self.0.get(id).map(Vec::as_slice).unwrap_or_default();
        if let Some(Evidence {
            how,
            fault: Some(fault),
        }) = evidence.iter().find(|one| one.fault.is_some())
        {
            return (Verdict::Failed, format!("{how}: {fault}"));
        }
        match (evidence, all.elsewhere.get(id), all.open.get(id)) {
            ([], Some(test), _) => (Verdict::Elsewhere, test.clone()),
            ([], None, Some(why)) => (Verdict::Open, why.clone()),
            ([], None, None) => (Verdict::Failed, "nothing looked at it".into()),
            ([one], ..) => (Verdict::Shown, one.how.clone()),
            ([one, rest @ ..], ..) => (Verdict::Shown, format!("{} (and {} more)", one.how, rest.len())),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Shown,
    Elsewhere,
    Open,
    Failed,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Shown => "yes",
            Self::Elsewhere => "by another test",
            Self::Open => "not shown",
            Self::Failed => "NO",
        }
    }
}

/// `A-PG-T01` belongs to `A-PG-T`.
fn family(id: &str) -> String {
    id.trim_end_matches(|c: char| c.is_ascii_digit())
        .trim_end_matches('-')
        .to_owned()
}

fn figure(ctx: &Ctx, family: &str, verdicts: &[Verdict]) {
    let count = |wanted| verdicts.iter().filter(|verdict| **verdict == wanted).count();
    let parts = [
        (count(Verdict::Shown), "shown"),
        (count(Verdict::Elsewhere), "by other tests"),
        (count(Verdict::Open), "the application's or not yet there"),
        (count(Verdict::Failed), "NOT as required"),
    ];
    let told: Vec<String> = parts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    ctx.figure(
        format!("requirements {family}*"),
        told.join(", "),
        "all accounted for",
        count(Verdict::Failed) == 0,
    );
}
