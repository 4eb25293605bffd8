//! A file as the parts it is sent in. Pure.
//!
//! Most files are one transaction. Statements that no transaction can hold are sent alone, and what stands between them
//! in a transaction for each stretch; a value added to a type can be used only in the next transaction. In a file that
//! begins with sqlx's `-- no-transaction` each statement is a part, unless the file itself opens a transaction.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    analysis::{self, LockMode, Outside, StatementFacts, TableName},
    statements::{self, Statement, Unrunnable, line_at},
};

/// A longer file is sent in a transaction of its own.
const LIGHT: usize = 32 * 1024;
/// Kinds of statements that may end the transaction they are in, or bear none (of a partitioned table, which only the
/// catalog tells), so that with the header none is opened around them.
const MAY_COMMIT: &[&str] = &["ALTER SUBSCRIPTION", "CALL", "CLUSTER", "DO", "REINDEX", "UNKNOWN"];

/// Where something begins and ends in its file, in bytes.
pub type Span = (usize, usize);

/// A file taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// In the order of the file; none only if there is no statement.
    pub units: Vec<Unit>,
    /// It waits for nobody, nobody waits for it, and it changes nothing of the session, nor what a name means in its transaction: it may share
    /// one with its neighbours.
    pub light: bool,
}

/// What is sent as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    pub span: Span,
    pub kind: Kind,
    pub needs: Needs,
    /// Statements that change the session for what comes after, SET and the like.
    pub settings: Vec<Span>,
    /// Those of them that change the role.
    pub roles: Vec<Span>,
    /// It changes the role until its end.
    pub local_role: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// In one transaction; the file's own BEGIN, if it has one.
    Transaction(Option<Span>),
    /// Outside of any, with what shows afterwards.
    Alone(Option<Outside>),
}

/// What a part locks of what was there before its file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    pub tables: BTreeMap<TableName, LockMode>,
    /// Indexes, with the mode on the table of each.
    pub indexes: BTreeMap<TableName, LockMode>,
    /// There may be more.
    pub unlisted: bool,
}

impl Needs {
    /// Others wait while it waits: it must not stand in a queue for long.
    pub fn blocks(&self) -> bool {
        self.tables
            .values()
            .chain(self.indexes.values())
            .any(|mode| mode.blocks_writes())
    }

    fn add(&mut self, facts: &StatementFacts, fresh: &BTreeSet<TableName>) {
        let there = |(name, _): &&(TableName, LockMode)| !fresh.contains(name);
        for (names, into) in [
            (&facts.locks, &mut self.tables),
            (&facts.index_locks, &mut self.indexes),
        ] {
            for (name, mode) in names.iter().filter(there) {
                let have = into.entry(name.clone()).or_insert(*mode);
                *have = (*have).max(*mode);
            }
        }
        self.unlisted |= facts.unlisted;
    }
}

impl Unit {
    fn new(statement: &Statement, kind: Kind) -> Self {
        Self {
            span: (statement.start, statement.end),
            kind,
            needs: Needs::default(),
            settings: Vec::new(),
            roles: Vec::new(),
            local_role: false,
        }
    }

    pub fn text<'a>(&self, sql: &'a str) -> &'a str {
        &sql[self.span.0..self.span.1]
    }
}

/// Takes a file apart. `made` are the relations that files before it have made in the same run, which nobody uses yet;
/// those that this one makes are added.
pub fn parts(sql: &str, made: &mut BTreeSet<TableName>) -> Result<Parts, Unrunnable> {
    let header = statements::no_transaction(sql);
    let mut cutter = Cutter {
        sql,
        header,
        units: Vec::new(),
        open: None,
        added: Vec::new(),
        fresh: BTreeSet::new(),
        light: !header && sql.len() <= LIGHT,
        raw: false,
    };
    let statements = statements::split(sql)?;
    for (index, statement) in statements.iter().enumerate() {
        let facts = analysis::facts(statement.text(sql));
        let own = facts
            .locks
            .iter()
            .all(|(name, _)| made.contains(name) || cutter.fresh.contains(name));
        let apart =
            statement.is_savepoint() || statement.sets_anything(statement.text(sql)) || statement.makes_temporary();
        cutter.light &= own && facts.index_locks.is_empty() && !apart;
        cutter.take(statement, &facts, &statements[index..]);
        forget(&facts, made, &mut cutter.fresh);
    }
    let Cutter {
        units, fresh, light, ..
    } = cutter;
    made.extend(fresh);
    let light = light && units.iter().all(Unit::is_light) && units.len() <= 1;
    Ok(Parts { units, light })
}

/// What a text locks that is sent as one transaction, whatever is in it.
pub fn needs(sql: &str) -> Result<Needs, Unrunnable> {
    let (mut needs, mut fresh) = (Needs::default(), BTreeSet::new());
    for statement in statements::split(sql)? {
        let facts = analysis::facts(statement.text(sql));
        needs.add(&facts, &fresh);
        fresh.extend(facts.makes().cloned());
        forget(&facts, &mut BTreeSet::new(), &mut fresh);
    }
    Ok(needs)
}

/// After a rename nobody knows which name is whose, and a table that takes in another one is used from then on.
fn forget(facts: &StatementFacts, made: &mut BTreeSet<TableName>, fresh: &mut BTreeSet<TableName>) {
    let is_old = |name: &TableName| !made.contains(name) && !fresh.contains(name);
    if facts.renames {
        made.clear();
        fresh.clear();
    } else if facts.joins.as_ref().is_some_and(is_old) {
        for (name, _) in &facts.locks {
            made.remove(name);
            fresh.remove(name);
        }
    }
}

/// What lasts until the end of its transaction may not stand before a place where the file is cut: what comes after that
/// was written to run under it.
pub fn check_cuts(sql: &str, statements: &[Statement]) -> Result<(), Unrunnable> {
    let short = |statement: &Statement| statement.ends_with_transaction(statement.text(sql));
    // only then, since to take a text apart is dear
    if statements::no_transaction(sql) || !statements.iter().any(short) {
        return Ok(());
    }
    let units = parts(sql, &mut BTreeSet::new())?.units;
    let last = units.last().map_or(0, |unit| unit.span.0);
    let mut before = statements.iter().take_while(|statement| statement.start < last);
    let Some(short) = before.find(|statement| short(statement)) else {
        return Ok(());
    };
    let starts = units.iter().map(|unit| unit.span.0);
    let next = starts.filter(|start| *start > short.start).min().unwrap_or(last);
    let words: Vec<&str> = short.words.iter().take(2).map(String::as_str).collect();
    let instead = match words.contains(&"LOCAL") {
        true => "write SET without LOCAL, which the rest of the file keeps, or ",
        false => "",
    };
    let what = format!(
        "{} ends with its transaction, and the file goes on in another at line {}; {instead}put what comes from there on into a file of its own",
        words.join(" "),
        line_at(sql, next)
    );
    Err(Unrunnable::at(sql, short.start, what))
}

impl Unit {
    fn is_light(&self) -> bool {
        matches!(self.kind, Kind::Transaction(None)) && !self.needs.unlisted
    }
}

struct Cutter<'a> {
    sql: &'a str,
    header: bool,
    units: Vec<Unit>,
    /// The last unit is a transaction that takes more: how it was opened.
    open: Option<Open>,
    /// Values of types that the open transaction has added.
    added: Vec<String>,
    fresh: BTreeSet<TableName>,
    light: bool,
    /// The file controls transactions in a way of its own: every statement is sent as it is.
    raw: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Open {
    /// By us, for as long as statements allow it.
    Ours,
    /// By the file, which ends it.
    Theirs,
}

impl Cutter<'_> {
    fn take(&mut self, statement: &Statement, facts: &StatementFacts, rest: &[Statement]) {
        if self.open == Some(Open::Theirs) {
            if statement.controls_transaction() {
                self.open = None;
                // BEGIN and COMMIT with nothing between them
                self.units.pop_if(|unit| unit.span.0 == unit.span.1);
                return;
            }
            return self.extend(statement, facts);
        }
        if self.header && statement.begins() && closes(&rest[1..]) {
            let mut unit = Unit::new(statement, Kind::Transaction(Some((statement.start, statement.end))));
            unit.span = (statement.end, statement.end);
            self.units.push(unit);
            self.open = Some(Open::Theirs);
            return;
        }
        self.raw |= self.header && statement.controls_transaction();
        let text = &self.sql[statement.start..statement.end];
        if self.added.iter().any(|value| text.contains(value.as_str())) {
            self.open = None;
        }
        let alone = !facts.transactional || self.raw || self.header && MAY_COMMIT.contains(&facts.kind.as_str());
        if alone {
            self.units
                .push(Unit::new(statement, Kind::Alone(facts.outside.clone())));
            self.open = None;
        } else if self.open.is_none() {
            self.units.push(Unit::new(statement, Kind::Transaction(None)));
            self.open = Some(Open::Ours).filter(|_| !self.header);
            self.added.clear();
        }
        self.added.extend(facts.adds_value.clone());
        self.extend(statement, facts);
    }

    /// The statement becomes part of the last unit.
    fn extend(&mut self, statement: &Statement, facts: &StatementFacts) {
        let Some(unit) = self.units.last_mut() else { return };
        let span = (statement.start, statement.end);
        if unit.span.0 == unit.span.1 {
            unit.span.0 = span.0;
        }
        unit.span.1 = span.1;
        unit.needs.add(facts, &self.fresh);
        unit.local_role |= statement.sets_local_role();
        if statement.sets(statement.text(self.sql)) {
            unit.settings.push(span);
            if statement.sets_role() {
                unit.roles.push(span);
            }
        }
        self.fresh.extend(facts.makes().cloned());
    }
}

/// Whether the file's own transaction is committed as one: the next statement that controls one is its COMMIT.
fn closes(rest: &[Statement]) -> bool {
    rest.iter()
        .find(|statement| statement.controls_transaction())
        .is_some_and(Statement::commits)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each unit as `T` (transaction), `O` (the file's own) or `A` (alone) and its text.
    fn cut(sql: &str) -> Vec<(char, &str)> {
        let parts = parts(sql, &mut BTreeSet::new()).unwrap();
        let kind = |unit: &Unit| match unit.kind {
            Kind::Transaction(None) => 'T',
            Kind::Transaction(Some(_)) => 'O',
            Kind::Alone(_) => 'A',
        };
        parts.units.iter().map(|unit| (kind(unit), unit.text(sql))).collect()
    }

    #[test]
    fn files_are_cut_where_transactions_end() {
        type Case = (&'static str, &'static [(char, &'static str)]);
        let cases: &[Case] = &[
            ("SELECT 1; SELECT 2;", &[('T', "SELECT 1; SELECT 2")]),
            (
                "SELECT 1; SELECT 2; VACUUM t; VACUUM u; SELECT 3",
                &[
                    ('T', "SELECT 1; SELECT 2"),
                    ('A', "VACUUM t"),
                    ('A', "VACUUM u"),
                    ('T', "SELECT 3"),
                ],
            ),
            (
                "ALTER TYPE e ADD VALUE 'x'; SELECT 1; INSERT INTO t VALUES ('x'); SELECT 'x'",
                &[
                    ('T', "ALTER TYPE e ADD VALUE 'x'; SELECT 1"),
                    ('T', "INSERT INTO t VALUES ('x'); SELECT 'x'"),
                ],
            ),
            (
                "ALTER TYPE e ADD VALUE 'x'; SELECT 'y'",
                &[('T', "ALTER TYPE e ADD VALUE 'x'; SELECT 'y'")],
            ),
            (
                "-- no-transaction\nSELECT 1; CALL p(); BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT 2; SELECT 3; END; SELECT 4",
                &[
                    ('T', "SELECT 1"),
                    ('A', "CALL p()"),
                    ('O', "SELECT 2; SELECT 3"),
                    ('T', "SELECT 4"),
                ],
            ),
            ("-- no-transaction\nBEGIN; COMMIT; SELECT 1", &[('T', "SELECT 1")]),
            (
                "-- no-transaction\nREINDEX TABLE t; CLUSTER t USING i; ALTER SUBSCRIPTION s REFRESH PUBLICATION",
                &[
                    ('A', "REINDEX TABLE t"),
                    ('A', "CLUSTER t USING i"),
                    ('A', "ALTER SUBSCRIPTION s REFRESH PUBLICATION"),
                ],
            ),
            ("REINDEX TABLE t; CLUSTER t", &[('T', "REINDEX TABLE t; CLUSTER t")]),
            (
                "-- no-transaction\nBEGIN; SELECT 1; ROLLBACK",
                &[('A', "BEGIN"), ('A', "SELECT 1"), ('A', "ROLLBACK")],
            ),
        ];
        for (sql, expected) in cases {
            assert_eq!(&cut(sql), expected, "{sql}");
        }
    }

    #[test]
    fn what_ends_with_its_transaction_is_refused_before_a_cut() {
        let check_cuts = |sql: &str| check_cuts(sql, &statements::split(sql).unwrap());
        let cut = "SELECT 1;\nCREATE INDEX CONCURRENTLY i ON t (a);";
        for (sql, said) in [
            (
                "SET LOCAL search_path = x",
                "1:1: SET LOCAL ends with its transaction, and the file goes on in another at line 2; write SET without LOCAL",
            ),
            ("SET LOCAL ROLE x", "1:1: SET LOCAL ends"),
            ("SET CONSTRAINTS ALL DEFERRED", "1:1: SET CONSTRAINTS ends"),
            ("SET TRANSACTION READ WRITE", "1:1: SET TRANSACTION ends"),
            ("SELECT set_config('a.b', 'c', true)", "1:1: SELECT SET_CONFIG ends"),
            ("CREATE TEMP TABLE x ()\n ON  commit drop", "1:1: CREATE TEMP ends"),
        ] {
            let error = check_cuts(&format!("{sql}; {cut}")).unwrap_err().to_string();
            assert!(error.starts_with(said), "{sql}: {error}");
            for sound in [
                format!("{sql}; SELECT 1"),
                format!("{cut} {sql}; SELECT 1"),
                format!("-- no-transaction\nBEGIN; {sql}; SELECT 1; COMMIT; {cut}"),
            ] {
                assert_eq!(check_cuts(&sound).err(), None, "{sound}");
            }
        }
        for sql in [
            "SET search_path = x",
            "SELECT set_config('a.b', 'true', false)",
            "CREATE TEMP TABLE x () ON COMMIT PRESERVE ROWS",
            "SET LOCAL lock_timeout = '5s'",
            "SET LOCAL maintenance_work_mem TO '1GB'",
        ] {
            assert_eq!(check_cuts(&format!("{sql}; {cut}")).err(), None, "{sql}");
        }
        let value = "ALTER TYPE e ADD VALUE 'x';\nSET LOCAL a.b = 1;\n\nUPDATE t SET e = 'x'";
        let error = check_cuts(value).unwrap_err().to_string();
        assert!(
            error.starts_with("2:1: SET LOCAL") && error.contains("at line 4"),
            "{error}"
        );
    }

    #[test]
    fn light_files_lock_nothing_that_was_there() {
        let mut made = BTreeSet::new();
        let mut light = |sql: &str| parts(sql, &mut made).unwrap().light;
        for (sql, expected) in [
            (
                "CREATE TABLE t (id int PRIMARY KEY); CREATE INDEX ON t (id); INSERT INTO t VALUES (1)",
                true,
            ),
            ("ALTER TABLE t ADD x int REFERENCES t", true),
            ("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", true),
            ("ALTER TABLE u ADD x int", false),
            ("CREATE TABLE v (id int REFERENCES u)", false),
            ("SELECT f()", false),
            ("DO $$ BEGIN END $$", false),
            ("SET search_path = x; CREATE TABLE y ()", false),
            ("SET LOCAL search_path = x; CREATE TABLE y ()", false),
            ("SET LOCAL ROLE x; CREATE TABLE y ()", false),
            ("SET CONSTRAINTS ALL DEFERRED", false),
            ("SELECT set_config('search_path', 'x', true)", false),
            ("CREATE TEMP TABLE y () ON COMMIT DROP", false),
            ("CREATE LOCAL TEMPORARY TABLE y ()", false),
            ("SAVEPOINT a", false),
            ("-- no-transaction\nCREATE TABLE z ()", false),
            ("CREATE INDEX CONCURRENTLY ON t (id)", false),
            ("-- nothing to take back", true),
            ("-- no-transaction", false),
            ("CREATE TABLE p (id int) PARTITION BY RANGE (id)", true),
            ("ALTER TABLE p ATTACH PARTITION old DEFAULT", false),
            ("ALTER TABLE p ADD x int", false),
            ("ALTER TABLE t RENAME TO s", true),
            ("ALTER TABLE t ADD y int", false),
        ] {
            assert_eq!(light(sql), expected, "{sql}");
        }
    }

    #[test]
    fn needs_leave_out_what_the_file_makes() {
        let sql = "CREATE TABLE t (id int REFERENCES u); ALTER TABLE t ADD x int; UPDATE v SET a = 1; ALTER TABLE v ADD b int; DROP INDEX i";
        let unit = &parts(sql, &mut BTreeSet::new()).unwrap().units[0];
        let tables: Vec<String> = unit
            .needs
            .tables
            .iter()
            .map(|(name, mode)| format!("{name} {mode}"))
            .collect();
        assert_eq!(tables, ["\"u\" SHARE ROW EXCLUSIVE", "\"v\" ACCESS EXCLUSIVE"]);
        assert_eq!(unit.needs.indexes.len(), 1);
        assert!(unit.needs.blocks() && !unit.needs.unlisted);
        let weak = &parts("UPDATE v SET a = 1 WHERE a = 2", &mut BTreeSet::new())
            .unwrap()
            .units[0];
        assert!(!weak.needs.blocks());
        assert_eq!(needs(sql).unwrap(), unit.needs);
        assert!(needs("VACUUM w; TRUNCATE v").unwrap().tables.len() == 2, "not cut");
    }

    #[test]
    fn settings_are_known() {
        let sql = "SET ROLE a; SELECT 1; SET LOCAL x.y = 1; SELECT set_config('a.b', 'c', false); RESET x.y";
        let unit = &parts(sql, &mut BTreeSet::new()).unwrap().units[0];
        let texts: Vec<&str> = unit.settings.iter().map(|span| &sql[span.0..span.1]).collect();
        assert_eq!(
            texts,
            ["SET ROLE a", "SELECT set_config('a.b', 'c', false)", "RESET x.y"]
        );
        assert_eq!(unit.roles, [(0, 10)]);
    }
}
