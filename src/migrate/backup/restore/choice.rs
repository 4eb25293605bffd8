//! Which tables of a backup are put back, and what of its script that takes. Reads the database, and decides purely.

use std::collections::BTreeSet;

use sqlx::{PgConnection, Row};

use super::{Backup, Wanted, filled, words};
use crate::{
    api::names::SqlName,
    migrate::{backup::Entry, record::literal, report::Failure, session},
};

/// How a table or sequence is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It is made anew.
    Absent,
    /// A table without rows, or a sequence.
    There,
}

/// What is put back.
#[derive(Debug)]
pub(super) struct Choice {
    /// Every name in the backup; None: it is left alone.
    entries: Vec<(Entry, Option<State>)>,
    /// All into this schema.
    pub into: Option<SqlName>,
    /// Schemas that have gone too, quoted.
    pub schemas: Vec<String>,
}

/// What becomes of a statement.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    Skip,
    Run(String),
    /// If it cannot be, it is told.
    Try(String),
    /// It makes a table part of `whole`, for when the table has all that is its own.
    Attach {
        whole: String,
        sql: String,
    },
}

/// Where rows go.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub table: String,
    /// The COPY that takes them.
    pub sql: String,
}

/// Chooses, unless anything that is there would be in the way.
pub(super) async fn choose(conn: &mut PgConnection, backup: &Backup, wanted: &Wanted) -> Result<Choice, Failure> {
    let names = named(backup, &wanted.tables).map_err(Failure::NotRestored)?;
    let target = |name: &str| match &wanted.into {
        Some(schema) => into(schema, name),
        None => name.to_owned(),
    };
    let mut targets = BTreeSet::new();
    for name in &names {
        // elsewhere the columns have no sequences
        if wanted.into.is_some() && is_sequence(backup, name) {
            continue;
        }
        if !targets.insert(target(name)) {
            return Err(Failure::NotRestored(format!(
                "two tables would be {}: choose by --table",
                target(name)
            )));
        }
    }
    let there = filled::present(conn, &targets).await?;
    let tables = there.iter().filter(|(_, sequence)| !**sequence);
    let tables: Vec<&str> = tables.map(|(name, _)| name.as_str()).collect();
    let occupied: Vec<String> = match wanted.into {
        Some(_) => there.keys().cloned().collect(),
        None => filled::occupied(conn, &tables).await?,
    };
    if !occupied.is_empty() {
        let what = match wanted.into {
            Some(_) => "is there already; choose a schema that has no such tables",
            None => {
                "has rows, and nothing is put over them; --into-schema NAME puts the backup beside them, --table NAME chooses others"
            }
        };
        return Err(Failure::NotRestored(format!("{} {what}", occupied.join(", "))));
    }
    let state = |entry: &Entry| {
        names
            .contains(entry.name.as_str())
            .then(|| match there.contains_key(&target(&entry.name)) {
                true => State::There,
                false => State::Absent,
            })
    };
    let schemas = match &wanted.into {
        Some(schema) => vec![format!("\"{schema}\"")],
        None => schemas(&names),
    };
    Ok(Choice {
        schemas: absent(conn, &schemas).await?,
        entries: backup
            .entries
            .iter()
            .map(|entry| (entry.clone(), state(entry)))
            .collect(),
        into: wanted.into.clone(),
    })
}

fn is_sequence(backup: &Backup, name: &str) -> bool {
    backup.entries.iter().any(|entry| entry.sequence && entry.name == name)
}

/// The names that are asked for, with their partitions and the sequences of their columns.
fn named<'a>(backup: &'a Backup, asked: &[String]) -> Result<BTreeSet<&'a str>, String> {
    let all = || backup.entries.iter();
    if asked.is_empty() {
        return Ok(all().map(|entry| entry.name.as_str()).collect());
    }
    let mut names = BTreeSet::new();
    for one in asked {
        let is = |entry: &&Entry| {
            let plain = entry.plain();
            *one == entry.name || *one == plain || plain.split_once('.').is_some_and(|(_, bare)| bare == one)
        };
        let found: Vec<&str> = all().filter(is).map(|entry| entry.name.as_str()).collect();
        match found.as_slice() {
            [name] => names.insert(*name),
            [] => {
                let have: Vec<&str> = backup.tables().collect();
                return Err(format!(
                    "backup {} has no table {one}; it has {}",
                    backup.id,
                    have.join(", ")
                ));
            }
            several => return Err(format!("{one} may be {}: write it with its schema", several.join(", "))),
        };
    }
    loop {
        let theirs = |entry: &&Entry| {
            let of = entry.of.as_deref().is_some_and(|of| names.contains(of));
            of && !names.contains(entry.name.as_str())
        };
        let more: Vec<&str> = all().filter(theirs).map(|entry| entry.name.as_str()).collect();
        if more.is_empty() {
            return Ok(names);
        }
        names.extend(more);
    }
}

/// The schemas of names, quoted as they are.
fn schemas(names: &BTreeSet<&str>) -> Vec<String> {
    let of = |name: &&str| name.find("\".\"").map(|at| name[..=at].to_owned());
    let all: BTreeSet<String> = names.iter().filter_map(of).collect();
    all.into_iter().collect()
}

/// Those that do not exist.
async fn absent(conn: &mut PgConnection, schemas: &[String]) -> Result<Vec<String>, Failure> {
    let list: Vec<String> = schemas.iter().map(|schema| literal(schema)).collect();
    let sql = format!(
        "SELECT s FROM pg_catalog.unnest(ARRAY[{}]::pg_catalog.text[]) s WHERE pg_catalog.to_regnamespace(s) IS NULL",
        list.join(", ")
    );
    let rows = session::ask(conn, &sql).await?;
    Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}

/// The name in another schema.
fn into(schema: &SqlName, name: &str) -> String {
    let bare = name.find("\".\"").map_or(name, |at| &name[at + 2..]);
    format!("\"{schema}\".{bare}")
}

const CREATES: [&str; 2] = ["CREATE TABLE ", "CREATE UNLOGGED TABLE "];

impl Choice {
    /// The tables that are put back, and how.
    pub fn tables(&self) -> impl Iterator<Item = (&str, &'static str)> {
        self.entries
            .iter()
            .filter(|(entry, _)| !entry.sequence)
            .filter_map(|(entry, state)| {
                let how = match (*state)? {
                    State::Absent => "made",
                    State::There => "filled",
                };
                Some((entry.name.as_str(), how))
            })
    }

    /// The tables that are there and get rows.
    pub fn filled(&self) -> impl Iterator<Item = &str> {
        self.tables().filter(|(_, how)| *how == "filled").map(|(name, _)| name)
    }

    pub fn action(&self, statement: &str) -> Result<Action, Failure> {
        if statement.starts_with("SET ") || statement.starts_with("SELECT pg_catalog.set_config(") {
            return Ok(Action::Skip);
        }
        let subject = self.subject(statement);
        if let Some(schema) = &self.into {
            return self.beside(statement, subject, schema);
        }
        if let Some((whole, part)) = words::attached(statement) {
            return Ok(self.attach(statement, whole, part));
        }
        let state = match subject {
            // goes with its table when that is attached
            None if words::attaches_index(statement) => None,
            // Belongs to something that is not a table or sequence, such as an index.
            None if self.entries.iter().all(|(_, state)| *state == Some(State::Absent)) => Some(State::Absent),
            None => None,
            Some((_, state)) => *state,
        };
        Ok(match state {
            None => Action::Skip,
            Some(_) if statement.starts_with(words::SETVAL) => {
                words::setval(statement).map_or(Action::Skip, Action::Run)
            }
            Some(State::There) => Action::Skip,
            Some(State::Absent) if statement.starts_with("GRANT ") || statement.starts_with("REVOKE ") => {
                Action::Try(statement.to_owned())
            }
            // it has none from a table that is not there
            Some(State::Absent) if self.is_of(statement, words::switches_trigger) => Action::Try(statement.to_owned()),
            Some(State::Absent) => Action::Run(statement.to_owned()),
        })
    }

    /// What is about a partition, whatever else of its table there is.
    fn attach(&self, statement: &str, whole: &str, part: &str) -> Action {
        let Some((_, Some(part))) = self.subject(part) else {
            return Action::Skip;
        };
        let made = |one: &(Entry, Option<State>)| one.0.name == whole && one.1 == Some(State::Absent);
        match *part == State::Absent || self.entries.iter().any(made) {
            true => Action::Attach {
                whole: whole.to_owned(),
                sql: statement.to_owned(),
            },
            false => Action::Skip,
        }
    }

    /// Whether it looks at partitions as parts of their tables: at rows by a foreign key, or at a trigger.
    pub fn looks_at_partitions(&self, statement: &str) -> bool {
        self.is_of(statement, words::adds_foreign_key) || self.is_of(statement, words::switches_trigger)
    }

    fn is_of(&self, statement: &str, kind: fn(&str, &str) -> bool) -> bool {
        self.subject(statement)
            .is_some_and(|(entry, _)| kind(statement, &entry.name))
    }

    /// Only columns and rows go into another schema.
    fn beside(
        &self,
        statement: &str,
        subject: Option<&(Entry, Option<State>)>,
        schema: &SqlName,
    ) -> Result<Action, Failure> {
        let Some((entry, Some(_))) = subject else {
            return Ok(Action::Skip);
        };
        let creates = CREATES.iter().any(|begin| statement.starts_with(begin));
        if !creates || entry.sequence || statement.contains("\nPARTITION BY ") {
            return Ok(Action::Skip);
        }
        if statement.contains("\nINHERITS (") {
            return Err(Failure::NotRestored(format!(
                "{} inherits from another table, whose rows it would add to: put it back where it was, or choose others by --table",
                entry.name
            )));
        }
        Ok(Action::Run(statement.replacen(
            &entry.name,
            &into(schema, &entry.name),
            1,
        )))
    }

    /// Where the rows of a COPY go; None: nowhere.
    pub fn copy(&self, copy: &str) -> Option<Place> {
        let (entry, state) = self.subject(copy)?;
        (*state)?;
        let sql = match &self.into {
            Some(schema) => copy.replacen(&entry.name, &into(schema, &entry.name), 1),
            None => copy.to_owned(),
        };
        Some(Place {
            table: entry.name.clone(),
            sql,
        })
    }

    /// What a statement is about: of the names in the backup the one that comes first in it.
    fn subject(&self, statement: &str) -> Option<&(Entry, Option<State>)> {
        let found = self
            .entries
            .iter()
            .filter_map(|one| Some((words::position(statement, &one.0.name)?, one)));
        found.min_by_key(|(at, _)| *at).map(|(_, one)| one)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, of: Option<&str>) -> Entry {
        Entry {
            name: name.to_owned(),
            sequence: of.is_some(),
            of: of.map(Into::into),
        }
    }

    const T: &str = "\"public\".\"t\"";
    const S: &str = "\"public\".\"t_id_seq\"";
    const Q: &str = "\"public\".\"q\"\"t\"";

    fn choice(t: Option<State>, q: Option<State>, into: Option<&str>) -> Choice {
        Choice {
            entries: vec![(entry(T, None), t), (entry(S, Some(T)), t), (entry(Q, None), q)],
            into: into.map(|name| SqlName::parse(name).unwrap()),
            schemas: Vec::new(),
        }
    }

    const SCRIPT: [&str; 7] = [
        "SET statement_timeout = 0",
        "CREATE TABLE \"public\".\"t\" (\n    \"id\" integer\n)",
        "ALTER TABLE ONLY \"public\".\"t\" ALTER COLUMN \"id\" SET DEFAULT \"nextval\"('\"public\".\"t_id_seq\"'::\"regclass\")",
        "SELECT pg_catalog.setval('\"public\".\"t_id_seq\"', 3, true)",
        "ALTER TABLE ONLY \"public\".\"q\"\"t\" ADD CONSTRAINT \"k\" FOREIGN KEY (\"a\") REFERENCES \"public\".\"t\"(\"id\")",
        "GRANT SELECT ON TABLE \"public\".\"t\" TO \"r\"",
        "ALTER INDEX \"public\".\"a\" ATTACH PARTITION \"public\".\"b\"",
    ];

    /// s: skipped, r: run, t: tried.
    fn actions(choice: &Choice) -> String {
        let all = SCRIPT.iter().map(|statement| match choice.action(statement).unwrap() {
            Action::Skip => 's',
            Action::Run(_) => 'r',
            Action::Try(_) => 't',
            Action::Attach { .. } => 'a',
        });
        all.collect()
    }

    #[test]
    fn only_what_is_chosen_is_touched() {
        let (absent, there) = (Some(State::Absent), Some(State::There));
        assert_eq!(actions(&choice(absent, absent, None)), "srrrrts");
        assert_eq!(actions(&choice(absent, None, None)), "srrrsts");
        assert_eq!(actions(&choice(there, absent, None)), "sssrrss");
        assert_eq!(actions(&choice(absent, absent, Some("old"))), "srsssss");
        let beside = choice(absent, None, Some("old")).action(SCRIPT[1]).unwrap();
        assert!(matches!(beside, Action::Run(sql) if sql.starts_with("CREATE TABLE \"old\".\"t\" (")));
        let inherits = "CREATE TABLE \"public\".\"t\" (\n)\nINHERITS (\"public\".\"p\")";
        assert!(choice(absent, None, Some("old")).action(inherits).is_err());
        let rows = |choice: &Choice, copy: &str| choice.copy(copy).map(|place| place.sql);
        let copy = "COPY \"public\".\"q\"\"t\" (\"a\") FROM stdin";
        assert_eq!(rows(&choice(None, there, None), copy).as_deref(), Some(copy));
        assert_eq!(rows(&choice(there, None, None), copy), None);
    }

    #[test]
    fn schemas_are_those_of_the_names() {
        let names = BTreeSet::from([T, S, "\"a\"\"b\".\"t\""]);
        assert_eq!(schemas(&names), ["\"a\"\"b\"", "\"public\""]);
    }

    #[test]
    fn a_partition_is_attached_whatever_of_its_table_is_chosen() {
        let (absent, there) = (Some(State::Absent), Some(State::There));
        let part = |name: &str| Entry {
            sequence: false,
            ..entry(name, Some(T))
        };
        let one = "\"public\".\"t_1\"";
        let attach = format!("ALTER TABLE ONLY {T} ATTACH PARTITION {one} DEFAULT");
        for (whole, leaf, attached) in [
            (Some(None), absent, true),
            (None, absent, true),
            (Some(there), absent, true),
            (Some(absent), absent, true),
            (Some(absent), there, true),
            (Some(there), there, false),
            (Some(absent), None, false),
            (None, None, false),
        ] {
            let whole = whole.map(|state| (entry(T, None), state));
            let choice = Choice {
                entries: whole.into_iter().chain([(part(one), leaf)]).collect(),
                into: None,
                schemas: Vec::new(),
            };
            let expected = match attached {
                true => Action::Attach {
                    whole: T.into(),
                    sql: attach.clone(),
                },
                false => Action::Skip,
            };
            assert_eq!(choice.action(&attach).unwrap(), expected, "{:?}", choice.entries);
        }
    }

    #[test]
    fn names_are_found_as_people_write_them() {
        let backup = Backup {
            id: 7,
            at: jiff::Timestamp::UNIX_EPOCH,
            attempt: None,
            direction: None,
            from: None,
            to: None,
            file: "f".into(),
            entries: vec![
                entry(T, None),
                entry(S, Some(T)),
                entry(Q, None),
                entry("\"other\".\"t\"", None),
                entry("\"other\".\"p_1_a\"", Some("\"other\".\"p_1\"")),
                entry("\"other\".\"p\"", None),
                entry("\"other\".\"p_1\"", Some("\"other\".\"p\"")),
            ],
            bytes: 1,
            sha256: "x".into(),
            made_by: "m".into(),
            restored_at: None,
        };
        let find = |asked: &[&str]| {
            let asked: Vec<String> = asked.iter().map(|one| (*one).to_owned()).collect();
            named(&backup, &asked).map(|names| names.into_iter().collect::<Vec<_>>())
        };
        assert_eq!(find(&["public.t"]).unwrap(), [T, S], "with its sequence");
        assert_eq!(find(&["q\"t", "\"other\".\"t\""]).unwrap(), ["\"other\".\"t\"", Q]);
        assert!(find(&["t"]).unwrap_err().contains("write it with its schema"));
        assert!(find(&["nosuch"]).unwrap_err().contains("backup 7 has no table nosuch"));
        assert_eq!(find(&["p"]).unwrap().len(), 3, "with partitions of partitions");
        assert_eq!(find(&["p_1"]).unwrap().len(), 2);
        assert_eq!(find(&[]).unwrap().len(), 7);
    }
}
