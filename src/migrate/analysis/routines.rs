//! The routines of a file: what makes one is not parsed, and its body is read when something else of the file runs it.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    StatementFacts,
    body::{self, Body, Inside},
    facts,
};
use crate::migrate::statements::tokens::{self, Kind, Token};

/// Kinds of statements that call the routines they name.
const CALLERS: &[&str] = &[
    "CALL",
    "COMPOUND SELECT",
    "COPY",
    "CREATE MATERIALIZED VIEW",
    "CREATE TABLE AS",
    "DELETE",
    "EXPLAIN",
    "INSERT",
    "MERGE",
    "PAREN SELECT",
    "PREPARE",
    "SELECT",
    "SELECT INTO",
    "UNKNOWN",
    "UPDATE",
    "VALUES",
];

/// Kinds of statements that can set the search_path for what comes after them.
const SETTERS: &[&str] = &["CALL", "DISCARD", "DO", "RESET", "SELECT", "SET", "UNKNOWN"];
const PATH: &[u8] = b"search_path";

/// `CREATE FUNCTION` or `CREATE PROCEDURE`, if that is what the statement does. It locks no table for longer than it takes to look, whatever stands in
/// it, and a set of migrations may be full of it: more is not asked of its text.
pub(super) fn created(sql: &str) -> Option<&'static str> {
    let mut words = tokens::each(sql).map_while(Result::ok);
    let mut is = |word: &str| words.next().is_some_and(|token| token.is(sql, word));
    if !is("CREATE") {
        return None;
    }
    let mut what = words.next()?;
    if what.is(sql, "OR") {
        what = words.nth(1)?;
    }
    let kinds = [("FUNCTION", "CREATE FUNCTION"), ("PROCEDURE", "CREATE PROCEDURE")];
    kinds
        .into_iter()
        .find(|(word, _)| what.is(sql, word))
        .map(|(_, kind)| kind)
}

/// The name, without a schema, of a routine that a statement creates.
fn name(sql: &str) -> Option<String> {
    let mut last: Option<Token> = None;
    for token in tokens::each(sql).map_while(Result::ok) {
        if token.text(sql) == "(" {
            return last.map(|name| body::plain(name.text(sql)));
        }
        last = Some(token);
    }
    None
}

/// Reads the statements of a file in their order, so that what one of them runs out of a body is known with it.
#[derive(Default)]
pub struct Reader<'a> {
    /// What the file has made so far, by name: as many as differ in their arguments, or replace each other.
    routines: BTreeMap<String, Vec<Routine<'a>>>,
    /// The search_path that it has set, however it is written; None: that of every file.
    path: Option<String>,
}

/// What a routine does, once somebody has asked.
struct Routine<'a> {
    /// The statement that makes it.
    sql: &'a str,
    done: Option<Done>,
}

struct Done {
    itself: Vec<StatementFacts>,
    calls: BTreeSet<String>,
}

impl Routine<'_> {
    fn done(&mut self) -> &Done {
        let read = || {
            let body = Body::of(self.sql);
            let inside = body.as_ref().map(Body::inside).unwrap_or_default();
            Done {
                itself: inside.into_iter().map(|one| one.facts).collect(),
                calls: body.as_ref().map(Body::calls).unwrap_or_default(),
            }
        };
        self.done.get_or_insert_with(read)
    }
}

impl<'a> Reader<'a> {
    pub fn read(&mut self, sql: &'a str) -> StatementFacts {
        let mut facts = facts(sql);
        match facts.kind.as_str() {
            "DO" => {
                if let Some(body) = Body::of(sql) {
                    facts.inside = body.inside();
                    facts.inside.extend(self.done_by(|| body.calls()));
                }
            }
            "CREATE FUNCTION" | "CREATE PROCEDURE" => {
                if let Some(name) = name(sql) {
                    let routine = Routine { sql, done: None };
                    self.routines.entry(name).or_default().push(routine);
                }
            }
            kind if CALLERS.contains(&kind) => facts.inside = self.done_by(|| body::calls(sql)),
            _ => {}
        }
        let before = self.path.clone();
        let moves = self.follow_path(&facts.kind, sql);
        let adrift = moves || facts.inside.iter().any(|one| one.facts.renames);
        for one in &mut facts.inside {
            one.facts.path.clone_from(&before);
            one.facts.adrift = adrift;
        }
        facts.path = before;
        facts
    }

    /// Whether names may stand for other relations after it, because it sets the search_path.
    fn follow_path(&mut self, kind: &str, sql: &str) -> bool {
        let set = path_after(kind, sql);
        let sets = set.is_some();
        if let Some(path) = set {
            self.path = path;
        }
        sets
    }

    /// What the file's routines of these names do, and those that they call.
    fn done_by(&mut self, calls: impl Fn() -> BTreeSet<String>) -> Vec<Inside> {
        let mut all = Vec::new();
        if self.routines.is_empty() {
            return all;
        }
        let (mut open, mut seen) = (calls(), BTreeSet::new());
        while let Some(name) = open.pop_first() {
            let Some(routines) = self.routines.get_mut(&name) else {
                continue;
            };
            if !seen.insert(name) {
                continue;
            }
            for routine in routines {
                let done = routine.done();
                all.extend(done.itself.iter().cloned().map(|facts| Inside { span: None, facts }));
                open.extend(done.calls.iter().cloned());
            }
        }
        all
    }
}

/// The search_path that a statement sets, as in [`Reader::path`]. What only the server can tell is the statement itself,
/// which is no other path's spelling.
fn path_after(kind: &str, sql: &str) -> Option<Option<String>> {
    // a statement may be long, and says no such thing mostly
    let named = || {
        sql.as_bytes()
            .windows(PATH.len())
            .any(|word| word.eq_ignore_ascii_case(PATH))
    };
    if !SETTERS.contains(&kind) || !["DISCARD", "RESET", "SET"].contains(&kind) && !named() {
        return None;
    }
    let unclear = Some(Some(sql.to_owned()));
    let Ok(all) = tokens::tokens(sql) else {
        return unclear;
    };
    let values: Vec<String> = all.iter().map(|token| value(sql, token)).collect();
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    let by_default = all.last().is_some_and(|last| last.is(sql, "DEFAULT"));
    match values.as_slice() {
        ["discard" | "reset", "all"] | ["reset", "search_path"] => Some(None),
        ["set", "search_path", ..] | ["set", _, "search_path", ..] if by_default => Some(None),
        ["set", "search_path", _, names @ ..] | ["set", "local" | "session", "search_path", _, names @ ..] => {
            Some(path_of(names))
        }
        ["set", "schema", name] | ["set", "local" | "session", "schema", name] => Some(path_of(&[*name])),
        ["select", "set_config", "(", "search_path", ",", list, ",", _, ")"]
        | [
            "select",
            "pg_catalog",
            ".",
            "set_config",
            "(",
            "search_path",
            ",",
            list,
            ",",
            _,
            ")",
        ] if all[all.len() - 4].kind == Kind::String => {
            let names: Vec<String> = tokens::each(list)
                .map_while(Result::ok)
                .map(|token| value(list, &token))
                .collect();
            Some(path_of(&names.iter().map(String::as_str).collect::<Vec<_>>()))
        }
        _ if kind == "DO" => unclear.filter(|_| Body::of(sql).is_none_or(|body| body.may_set_path())),
        _ if kind == "UNKNOWN" => unclear,
        // of others only this function does, and no string that mentions it
        _ => unclear.filter(|_| values.contains(&"set_config")),
    }
}

/// Names in their order. None where what is made goes where it goes anyway, and is found first.
fn path_of(names: &[&str]) -> Option<String> {
    let names: Vec<&str> = names.iter().copied().filter(|name| *name != ",").collect();
    match names.as_slice() {
        ["public", ..] | ["$user", "public", ..] => None,
        _ => Some(names.join(", ")),
    }
}

/// What a token says, in whichever quotes.
fn value(sql: &str, token: &Token) -> String {
    let (start, end) = token.content(sql);
    match token.kind {
        Kind::String => sql[start..end].to_owned(),
        _ => body::plain(token.text(sql)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_a_routine_is_told_by_its_first_words() {
        let function = Some("CREATE FUNCTION");
        let cases = [
            ("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", function),
            ("create /* or */ or\n-- not\nreplace function s.f()", function),
            (
                "CREATE OR REPLACE PROCEDURE p() BEGIN ATOMIC SELECT 1; END",
                Some("CREATE PROCEDURE"),
            ),
            ("CREATE TABLE function (a int)", None),
            ("CREATE OR REPLACE VIEW function AS SELECT 1", None),
            ("DROP FUNCTION f()", None),
            ("CREATE", None),
            ("CREATE OR", None),
            ("", None),
        ];
        for (sql, expected) in cases {
            assert_eq!(created(sql), expected, "{sql}");
        }
    }

    #[test]
    fn a_search_path_is_the_same_however_it_is_written() {
        let after = |sql: &str| {
            let mut reader = Reader::default();
            reader.read("SET search_path = other");
            reader.read(sql);
            reader.path
        };
        let kept = [
            "SELECT 'search_path'",
            "SELECT current_setting('search_path')",
            "SET application_name = 'search_path'",
            "SET TIME ZONE DEFAULT",
            "DO $$ BEGIN /* search_path */ RAISE NOTICE 'SET search_path = x'; END $$",
        ];
        let app = [
            "SET search_path = app",
            "set Search_Path to App",
            "SET LOCAL search_path='app'",
            "SET SESSION \"search_path\" TO \"app\"",
            "SET SCHEMA 'app'",
            "SELECT set_config('search_path', 'App', false)",
            "SELECT pg_catalog.set_config('search_path', '\"app\"', true)",
        ];
        let usual = [
            "SET search_path = public, pg_catalog",
            "SET search_path TO \"$user\", 'public'",
            "SELECT pg_catalog.set_config('search_path', '\"$user\", public', false)",
            "SET search_path TO DEFAULT",
            "SET LOCAL search_path = default",
            "RESET search_path",
            "DISCARD ALL",
        ];
        for (all, path) in [(&kept[..], Some("other")), (&app[..], Some("app")), (&usual[..], None)] {
            for sql in all {
                assert_eq!(after(sql).as_deref(), path, "{sql}");
            }
        }
        assert_eq!(
            after("SELECT pg_catalog.set_config('search_path', '', false)").as_deref(),
            Some("")
        );
        assert_eq!(
            after("SET search_path = \"App\", public").as_deref(),
            Some("App, public")
        );
        let unclear = [
            "DO $$ BEGIN SET search_path = x; END $$",
            "DO $$ BEGIN PERFORM set_config('search_path', x, true); END $$",
            "DO $$ BEGIN EXECUTE 'SET search_path = ' || x; END $$",
            "SELECT set_config('search_path', current_setting('x'), false)",
        ];
        for sql in unclear {
            assert_eq!(after(sql).as_deref(), Some(sql));
        }
    }

    #[test]
    fn a_routine_of_the_file_tells_what_its_caller_does() {
        let lost = |statements: &[&str]| {
            let mut reader = Reader::default();
            let all: Vec<StatementFacts> = statements.iter().map(|sql| reader.read(sql)).collect();
            let last = all.last().unwrap();
            last.inside.iter().filter(|one| one.facts.destructive.is_some()).count()
        };
        let empties = "CREATE FUNCTION empties() RETURNS void LANGUAGE sql AS 'TRUNCATE t'";
        let calls = "CREATE FUNCTION s.\"Calls\"() RETURNS void LANGUAGE plpgsql AS $$BEGIN PERFORM empties(); END$$";
        let itself = "CREATE FUNCTION empties(a int) RETURNS void LANGUAGE sql AS 'DELETE FROM t; SELECT empties(1)'";
        let cases: [(&[&str], usize); 14] = [
            (&[empties], 0),
            (&["SELECT empties()"], 0),
            (&[empties, "SELECT other()"], 0),
            (&[empties, "SELECT Empties()"], 1),
            (&[empties, calls, "SELECT s.\"Calls\"()"], 1),
            // a body names what is there when it runs
            (&[calls, empties, "DO $$BEGIN PERFORM \"Calls\"(); END$$"], 1),
            // which of the two is called only the server knows
            (&[empties, itself, "CALL empties()"], 2),
            (&[empties, itself, "SELECT empties(), empties(2)"], 2),
            (&[empties, empties, "UPDATE u SET a = empties() WHERE b"], 2),
            (&[empties, "SELECT empties() UNION SELECT 1"], 1),
            (&[empties, "(SELECT empties())"], 1),
            (&[empties, "CREATE TABLE x AS SELECT empties()"], 1),
            (&[empties, "EXPLAIN ANALYZE SELECT empties()"], 1),
            (&[empties, "DROP FUNCTION empties()"], 0),
        ];
        for (statements, expected) in cases {
            assert_eq!(lost(statements), expected, "{statements:?}");
        }
    }
}
