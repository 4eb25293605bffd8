//! What one statement does to the tables it names: locks, work, losses, and whether a transaction can hold it. Pure.
//!
//! The text is read by a parser of PostgreSQL's grammar, never by the server. What only a catalog knows (triggers, the
//! tables behind a view, what CASCADE reaches) is not guessed: [`StatementFacts::unlisted`] says that there may be more.

mod alter_table;
mod body;
mod create;
mod lock;
mod losses;
mod made;
mod maintain;
mod outside;
mod query;
mod reach;
mod remove;
mod routines;
mod statement;
mod syntax;
mod words;

use std::collections::BTreeMap;

pub use body::Inside;
pub use lock::{LockMode, TableName};
pub use made::{Rows, forget_temporary, keep_written};
pub use outside::Outside;
pub use reach::{Keys, Object, Reach, reach};
pub use routines::Reader;

/// A longer statement is not parsed: it is data, and a tree of it would cost more than it tells.
const LONGEST: usize = 256 * 1024;
/// Deeper brackets are not parsed, since the parser calls itself for each.
const DEEPEST: usize = 100;

/// What a statement reads or writes of a whole table, at the least favourable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Work {
    /// Nothing that grows with the table, or what any query may do.
    #[default]
    None,
    /// Every row is read while the lock is held.
    Scan,
    /// Every row is written anew, with all indexes.
    Rewrite,
}

/// What makes a statement dear or dangerous to a running application, though nothing is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// An index is built while writers wait.
    BuildsIndex,
    /// A unique or primary key constraint builds its index under the full lock.
    AddsKey,
    AddsCheck,
    AddsForeignKey,
    SetsNotNull,
    ChangesType,
    /// A new column has a value of its own in each row.
    FillsColumn,
    /// SET LOGGED, UNLOGGED, TABLESPACE, ACCESS METHOD, CLUSTER, VACUUM FULL.
    Copies,
    /// A name that the running application may still use goes away.
    Renames,
    /// Validation, statistics, partitions, materialized views: no better way to write it.
    Reads,
}

/// What of the data is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loss {
    DropDatabase,
    DropSchema,
    DropTable,
    DropColumn,
    DropSequence,
    DropType,
    DropExtension,
    DropOwned,
    /// Something that only a name at run time tells.
    DropAny,
    /// Whatever depends on it goes too, columns among them.
    Cascade,
    Truncate,
    DeleteAll,
    UpdateAll,
    /// The new type may hold less than the old one, which only the catalog knows.
    NarrowType,
}

impl Loss {
    /// For messages: what the statement does.
    pub fn what(self) -> &'static str {
        match self {
            Self::DropDatabase => "drops a database",
            Self::DropSchema => "drops a schema",
            Self::DropTable => "drops a table",
            Self::DropColumn => "drops a column",
            Self::DropSequence => "drops a sequence",
            Self::DropType => "drops a type",
            Self::DropExtension => "drops an extension",
            Self::DropOwned => "drops all that a role owns",
            Self::DropAny => "drops something that its text does not name",
            Self::Cascade => "drops all that depends on it (CASCADE)",
            Self::Truncate => "empties a table",
            Self::DeleteAll => "deletes without a WHERE",
            Self::UpdateAll => "overwrites every row (UPDATE without a WHERE)",
            Self::NarrowType => "changes a type to one that may hold less",
        }
    }
}

/// What one statement does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatementFacts {
    /// Its kind in capitals: `ALTER TABLE`. `UNKNOWN` for what cannot be parsed.
    pub kind: String,
    /// The relations it names, each once, with the strongest mode it takes on them. Partitions and other children of a
    /// table are locked with it, unless the statement says ONLY.
    pub locks: Vec<(TableName, LockMode)>,
    /// Indexes it names, with the mode it takes on the table of each, which only the catalog knows.
    pub index_locks: Vec<(TableName, LockMode)>,
    /// It may take locks that are not listed.
    pub unlisted: bool,
    /// It can be inside of a transaction block.
    pub transactional: bool,
    /// What it does, when it cannot be inside of one and the catalog shows afterwards how far it came.
    pub outside: Option<Outside>,
    /// The value, as a literal, that it adds to a type: not usable before the transaction is committed.
    pub adds_value: Option<String>,
    pub work: Work,
    /// Why, each once.
    pub causes: Vec<Cause>,
    pub destructive: Option<Loss>,
    /// It runs SQL that is put together at run time.
    pub dynamic: bool,
    /// What it runs out of a body, a DO block's or that of a routine of the same file; only a [`Reader`] looks.
    pub inside: Vec<Inside>,
    /// The relation that it makes, if none of that name can be there before (IF NOT EXISTS, OR REPLACE); what comes later in the same file locks it without harm.
    /// With [`Rows::Renamed`] the name that an older one gets: see [`StatementFacts::makes`].
    pub creates: Option<TableName>,
    /// Where the rows are of what it makes.
    pub rows: Rows,
    /// A relation or a schema gets another name: names stand for something else after it.
    pub renames: bool,
    /// The table that becomes a part of another one (ATTACH PARTITION, INHERIT): its rows are that one's too.
    pub joins: Option<TableName>,
    /// The search_path that the file has set before it, by its names and if it is another than the default; only a [`Reader`] looks.
    pub path: Option<String>,
    /// The body that it is in renames something, or sets the search_path: nobody knows what its names stand for.
    pub adrift: bool,
}

impl Default for StatementFacts {
    fn default() -> Self {
        Self {
            kind: "UNKNOWN".to_owned(),
            locks: Vec::new(),
            index_locks: Vec::new(),
            unlisted: false,
            transactional: true,
            outside: None,
            adds_value: None,
            work: Work::None,
            causes: Vec::new(),
            destructive: None,
            dynamic: false,
            inside: Vec::new(),
            creates: None,
            rows: Rows::default(),
            renames: false,
            joins: None,
            path: None,
            adrift: false,
        }
    }
}

/// The facts of one statement. What cannot be parsed is not refused, since the server has the last word on its own
/// language: it gets the kind `UNKNOWN` and `unlisted`, and its words tell what it loses.
pub fn facts(sql: &str) -> StatementFacts {
    if let Some(kind) = routines::created(sql) {
        return StatementFacts {
            kind: kind.to_owned(),
            ..StatementFacts::default()
        };
    }
    if sql.len() > LONGEST || depth(sql) > DEEPEST {
        return words::unknown(sql);
    }
    syntax::statement(sql).map_or_else(|| words::unknown(sql), |node| statement::facts(&node))
}

/// The deepest nesting of brackets; those in strings count too, which errs on the safe side.
fn depth(sql: &str) -> usize {
    let (mut open, mut deepest) = (0usize, 0);
    for byte in sql.bytes() {
        match byte {
            b'(' | b'[' => open += 1,
            b')' | b']' => open = open.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(open);
    }
    deepest
}

/// Facts while they are gathered.
#[derive(Default)]
struct Gather {
    locks: BTreeMap<TableName, LockMode>,
    index_locks: BTreeMap<TableName, LockMode>,
    facts: StatementFacts,
}

impl Gather {
    fn lock(&mut self, name: Option<TableName>, mode: LockMode) {
        match name {
            Some(name) => strongest(&mut self.locks, name, mode),
            None => self.facts.unlisted = true,
        }
    }

    fn lock_index(&mut self, name: Option<TableName>, mode: LockMode) {
        match name {
            Some(name) => strongest(&mut self.index_locks, name, mode),
            None => self.facts.unlisted = true,
        }
    }

    fn work(&mut self, work: Work, cause: Cause) {
        self.facts.work = self.facts.work.max(work);
        if !self.facts.causes.contains(&cause) {
            self.facts.causes.push(cause);
        }
    }

    fn loses(&mut self, loss: Loss) {
        self.facts.destructive.get_or_insert(loss);
    }

    fn finish(mut self) -> StatementFacts {
        self.facts.locks = self.locks.into_iter().collect();
        self.facts.index_locks = self.index_locks.into_iter().collect();
        self.facts
    }
}

fn strongest(locks: &mut BTreeMap<TableName, LockMode>, name: TableName, mode: LockMode) {
    let have = locks.entry(name).or_insert(mode);
    *have = (*have).max(mode);
}

#[cfg(test)]
mod tests;
