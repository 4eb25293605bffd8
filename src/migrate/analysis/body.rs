//! What a DO block, or a routine that is called at once, does: as far as its text tells. Pure.
//!
//! PL/pgSQL is not parsed. The places where one of its statements can begin are looked for outside of strings and comments,
//! and what stands there is read like any other statement. Of SQL that is put together at run time (EXECUTE) the pieces
//! that are written out tell something, and that there may be more is told too.

use std::collections::BTreeSet;

use super::{LockMode, StatementFacts, TableName, facts, words};
use crate::migrate::statements::{
    split,
    tokens::{Kind, Token, tokens},
};

/// Commands that lock, read, write or lose anything; only these are looked for.
const COMMANDS: &[&str] = &[
    "ALTER", "CALL", "CLUSTER", "CREATE", "DELETE", "DROP", "EXECUTE", "INSERT", "LOCK", "MERGE", "PERFORM", "REFRESH",
    "REINDEX", "SELECT", "TRUNCATE", "UPDATE", "WITH",
];
/// A command can begin after these.
const BEFORE: &[&str] = &["BEGIN", "ELSE", "LOOP", "QUERY", "THEN"];
/// Languages whose bodies can be read.
const READABLE: &[&str] = &["plpgsql", "sql"];
/// Stands for what is known at run time only.
const ANY: &str = "amas_any";

/// A statement in a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inside {
    /// Where it begins and ends in the statement that has the body; None if that is another statement of the file.
    pub span: Option<(usize, usize)>,
    pub facts: StatementFacts,
}

/// A body in the text that it is part of.
pub(super) struct Body {
    start: usize,
    text: String,
    readable: bool,
}

impl Body {
    /// Of a DO block, or of the statement that creates a routine.
    pub fn of(sql: &str) -> Option<Self> {
        let all = tokens(sql).ok()?;
        let after = |word: &str| all.iter().position(|token| token.is(sql, word)).map(|at| at + 1);
        let language = after("LANGUAGE").and_then(|at| all.get(at));
        let language = language.map(|token| token.text(sql).trim_matches(['"', '\'']).to_ascii_lowercase());
        let string = |token: &&Token| token.kind == Kind::String;
        let mut pairs = all.windows(2).map(|pair| (&pair[0], &pair[1]));
        let quoted = pairs
            .find(|(word, body)| word.is(sql, "AS") && string(body))
            .map(|(_, body)| body);
        let quoted = quoted.or_else(|| all.iter().find(string).filter(|_| all[0].is(sql, "DO")));
        let (start, end) = match quoted {
            Some(body) => body.content(sql),
            None => (all.get(after("ATOMIC")?)?.start, sql.len()),
        };
        let text = &sql[start..end];
        Some(Self {
            start,
            // of the same length
            text: match quoted.is_some_and(|body| !body.text(sql).starts_with('$')) {
                true => text.replace("''", " '"),
                false => text.to_owned(),
            },
            readable: language.is_none_or(|language| READABLE.contains(&language.as_str())),
        })
    }

    /// What its statements do, in their order. What it makes itself, and then drops or empties, is no loss.
    pub fn inside(&self) -> Vec<Inside> {
        let whole = (0, self.text.len());
        if !self.readable {
            return vec![self.found(whole, at_run_time(StatementFacts::default()))];
        }
        let mut made = BTreeSet::new();
        let mut all = Vec::new();
        for tokens in commands(&self.text) {
            let span = (tokens[0].start, tokens[tokens.len() - 1].end);
            let read = if tokens[0].is(&self.text, "EXECUTE") {
                executed(&self.text, &tokens[1..])
            } else {
                vec![known(&self.text[span.0..span.1], true)]
            };
            for mut facts in read {
                facts.destructive = facts.loss(&made);
                // SELECT INTO has a variable here
                facts.creates = facts.creates.filter(|_| facts.kind != "SELECT INTO");
                facts.add_to(&mut made);
                all.push(self.found(span, facts));
            }
        }
        all
    }

    fn found(&self, (start, end): (usize, usize), facts: StatementFacts) -> Inside {
        Inside {
            span: Some((self.start + start, self.start + end)),
            facts,
        }
    }

    /// Whether it sets the search_path, if its text names that: in a command, or where SQL is put together at run time.
    pub fn may_set_path(&self) -> bool {
        let Ok(all) = tokens(&self.text) else { return true };
        let words: Vec<String> = all.iter().map(|token| plain(token.text(&self.text))).collect();
        let sets = |pair: &[String]| {
            let before = ["local", "reset", "session", "set"].contains(&pair[0].as_str());
            before && pair[1] == "search_path"
        };
        let runs = |word: &String| ["execute", "set_config"].contains(&word.as_str());
        !self.readable || words.windows(2).any(sets) || words.iter().any(runs)
    }

    /// The names of the routines that it calls, as far as they are written out.
    pub fn calls(&self) -> BTreeSet<String> {
        calls(&self.text)
    }
}

/// The names, without schemas, that a text puts before a bracket: the routines that it calls are among them.
pub(super) fn calls(sql: &str) -> BTreeSet<String> {
    let all = tokens(sql).unwrap_or_default();
    let pairs = all.windows(2).filter(|pair| pair[1].text(sql) == "(");
    pairs.map(|pair| plain(pair[0].text(sql))).collect()
}

/// A name as the catalog has it.
pub(super) fn plain(name: &str) -> String {
    match name.strip_prefix('"') {
        Some(quoted) => quoted.trim_end_matches('"').to_owned(),
        None => name.to_ascii_lowercase(),
    }
}

/// The tokens of each command of a body.
fn commands(text: &str) -> Vec<Vec<Token>> {
    let all = tokens(text).unwrap_or_default();
    let pieces = all.split(|token| token.text(text) == ";" && token.depth == 0);
    pieces.flat_map(|piece| commands_of(text, piece)).collect()
}

/// Those between two semicolons: one at the end of whatever stands before it, and those that loops go through.
fn commands_of(text: &str, piece: &[Token]) -> Vec<Vec<Token>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(token) = piece.get(at) {
        let is = |token: &Token, words: &[&str]| words.iter().any(|word| token.is(text, word));
        let before = at.checked_sub(1).and_then(|at| piece.get(at));
        if !is(token, COMMANDS) {
            at += 1;
            continue;
        }
        if before.is_none_or(|before| is(before, BEFORE)) {
            found.push(piece[at..].to_vec());
            break;
        }
        let executes = token.is(text, "EXECUTE");
        if before.is_some_and(|before| before.is(text, "IN") || executes && before.is(text, "FOR")) && token.depth == 0
        {
            let rest = &piece[at..];
            let end = rest
                .iter()
                .position(|token| token.is(text, "LOOP"))
                .unwrap_or(rest.len());
            found.push(rest[..end].to_vec());
            at += end;
            continue;
        }
        at += 1;
    }
    found
}

/// The facts of a command; of one of which only pieces are there, the words tell what it loses.
fn known(sql: &str, whole: bool) -> StatementFacts {
    let mut facts = facts(sql);
    if !whole {
        facts.destructive = facts.destructive.or_else(|| words::lost(sql));
    }
    facts
}

/// What EXECUTE runs: the text itself where it is written out, else what its pieces say.
fn executed(text: &str, arguments: &[Token]) -> Vec<StatementFacts> {
    let end = arguments
        .iter()
        .position(|token| token.depth == 0 && (token.is(text, "USING") || token.is(text, "INTO")));
    let arguments = &arguments[..end.unwrap_or(arguments.len())];
    let strings = arguments.iter().filter(|token| token.kind == Kind::String);
    let pieces: Vec<String> = strings
        .map(|token| {
            let (start, end) = token.content(text);
            text[start..end].replace("''", "'")
        })
        .collect();
    if let ([argument], [piece]) = (arguments, pieces.as_slice())
        && argument.kind == Kind::String
    {
        return statements(piece, true).collect();
    }
    let sql = placeholders(&pieces.join(" "));
    let read = |facts: StatementFacts| {
        let grown = match pieces.len() {
            1 => grown(&facts),
            _ => Vec::new(),
        };
        StatementFacts {
            locks: grown,
            ..at_run_time(facts)
        }
    };
    let mut all: Vec<StatementFacts> = statements(&sql, false).map(read).collect();
    if all.is_empty() {
        all.push(at_run_time(StatementFacts::default()));
    }
    all
}

fn statements(sql: &str, whole: bool) -> impl Iterator<Item = StatementFacts> {
    let spans = match split(sql) {
        Ok(all) => all.iter().map(|one| (one.start, one.end)).collect(),
        Err(_) => vec![(0, sql.len())],
    };
    spans
        .into_iter()
        .map(move |(start, end)| known(&sql[start..end], whole))
}

/// Whose names and rest are known at run time only.
fn at_run_time(facts: StatementFacts) -> StatementFacts {
    StatementFacts {
        dynamic: true,
        unlisted: true,
        locks: Vec::new(),
        index_locks: Vec::new(),
        creates: None,
        ..facts
    }
}

/// The table that takes in another one, if its name is written out: only what it holds is in doubt then. Not where something is lost, perhaps of the other.
fn grown(facts: &StatementFacts) -> Vec<(TableName, LockMode)> {
    let joins = facts.joins.as_ref().filter(|_| facts.destructive.is_none());
    let others = facts
        .locks
        .iter()
        .filter(|(name, _)| joins.is_some_and(|joins| joins != name));
    let written = |(name, _): &(TableName, LockMode)| !name.to_string().contains(ANY);
    let all: Vec<(TableName, LockMode)> = others.cloned().collect();
    match all.iter().all(written) {
        true => all,
        false => Vec::new(),
    }
}

/// What `format` puts in, as a name.
fn placeholders(text: &str) -> String {
    let mut parts = text.split('%');
    let mut whole = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_digit() || c == '$' || c == '-');
        match rest.strip_prefix(['I', 's', 'L']) {
            Some(rest) => {
                whole.push_str(ANY);
                whole.push_str(rest);
            }
            None => whole.push_str(part),
        }
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migrate::analysis::Loss;

    /// The losses of a statement's body, and whether it puts SQL together.
    fn read(sql: &str) -> (Vec<Loss>, bool) {
        let inside = Body::of(sql).map(|body| body.inside()).unwrap_or_default();
        let losses = inside.iter().filter_map(|one| one.facts.destructive).collect();
        (losses, inside.iter().any(|one| one.facts.dynamic))
    }

    #[test]
    fn losses_in_a_body_are_those_of_its_statements() {
        let cases: &[(&str, &[Loss])] = &[
            ("BEGIN DROP TABLE t; END", &[Loss::DropTable]),
            (
                "BEGIN DROP TABLE IF EXISTS a, b; TRUNCATE c; END",
                &[Loss::DropTable, Loss::Truncate],
            ),
            (
                "DECLARE x int := 1;\nBEGIN\n IF x > 0 THEN\n  DELETE FROM t;\n ELSE\n  UPDATE t SET a = x;\n END IF;\nEND",
                &[Loss::DeleteAll, Loss::UpdateAll],
            ),
            ("BEGIN DELETE FROM t WHERE a = x; UPDATE t SET a = 1 WHERE b; END", &[]),
            (
                "DECLARE r record; BEGIN FOR r IN SELECT 1 LOOP TRUNCATE t; END LOOP; END",
                &[Loss::Truncate],
            ),
            (
                "BEGIN FOR r IN DELETE FROM t RETURNING * LOOP RAISE NOTICE 'gone'; END LOOP; END",
                &[Loss::DeleteAll],
            ),
            (
                "BEGIN IF EXISTS (SELECT FROM pg_class WHERE relname = 't') THEN ALTER TABLE t DROP COLUMN c; END IF; END",
                &[Loss::DropColumn],
            ),
            (
                "BEGIN ALTER TABLE t DROP CONSTRAINT c; DROP INDEX i; DROP TRIGGER g ON t; DROP FUNCTION f(); END",
                &[],
            ),
            (
                "BEGIN WITH gone AS (DELETE FROM t RETURNING *) SELECT count(*) INTO n FROM gone; END",
                &[Loss::DeleteAll],
            ),
            (
                "BEGIN SELECT count(*) INTO n FROM t; INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING; END",
                &[],
            ),
            (
                "BEGIN MERGE INTO t USING s ON t.a = s.a WHEN MATCHED THEN DELETE; END",
                &[],
            ),
            (
                "BEGIN CREATE TEMP TABLE x (a int); INSERT INTO x VALUES (1); DROP TABLE x; END",
                &[],
            ),
            (
                "BEGIN CREATE TABLE IF NOT EXISTS x (a int); DROP TABLE x; END",
                &[Loss::DropTable],
            ),
            // not said, or not here
            (
                "BEGIN -- DROP TABLE t;\n /* TRUNCATE t; */ RAISE NOTICE 'DROP TABLE t; DELETE FROM t'; END",
                &[],
            ),
            ("BEGIN PERFORM 1 FROM t FOR UPDATE; COMMENT ON TABLE t IS 'x'; END", &[]),
            (
                "BEGIN ALTER TABLE t ADD FOREIGN KEY (a) REFERENCES u ON DELETE CASCADE ON UPDATE SET NULL; END",
                &[],
            ),
            (
                "BEGIN CREATE TRIGGER g AFTER DELETE OR UPDATE ON t EXECUTE FUNCTION f(); END",
                &[],
            ),
            // the server has the last word on it
            (
                "BEGIN TRUNCATE t SOMEHOW NEW; DELETE t; DELETE t WHERE; ALTER TABEL t DROP c; END",
                &[Loss::Truncate, Loss::DeleteAll],
            ),
        ];
        for (body, losses) in cases {
            for sql in [
                format!("DO $$ {body} $$"),
                format!("DO $body$ {body} $body$ LANGUAGE plpgsql"),
                format!("DO LANGUAGE plpgsql '{}'", body.replace('\'', "''")),
                format!("CREATE FUNCTION f(a text DEFAULT 'x') RETURNS void LANGUAGE plpgsql AS $$ {body} $$"),
            ] {
                assert_eq!(read(&sql), (losses.to_vec(), false), "{sql}");
            }
        }
        let sql = "CREATE FUNCTION f() RETURNS void LANGUAGE sql AS 'SELECT 1; DELETE FROM t'";
        assert_eq!(read(sql).0, [Loss::DeleteAll]);
        let sql = "CREATE PROCEDURE p() BEGIN ATOMIC SELECT 1; DELETE FROM t; END";
        assert_eq!(read(sql).0, [Loss::DeleteAll]);
    }

    #[test]
    fn what_is_put_together_is_said_and_its_pieces_are_read() {
        let cases: &[(&str, &[Loss], bool)] = &[
            // written out: nothing is hidden
            ("EXECUTE 'DROP TABLE t'", &[Loss::DropTable], false),
            ("EXECUTE $q$DELETE FROM t WHERE a = 'x'$q$", &[], false),
            (
                "EXECUTE 'CREATE TABLE x (a int); TRUNCATE t' USING 1",
                &[Loss::Truncate],
                false,
            ),
            ("EXECUTE 'DELETE FROM t WHERE a = $1' USING a", &[], false),
            // put together
            ("EXECUTE cmd", &[], true),
            (
                "EXECUTE format('DROP TABLE %I.%I CASCADE', s, t)",
                &[Loss::DropTable],
                true,
            ),
            ("EXECUTE format('DROP %s %I', kind, t)", &[Loss::DropAny], true),
            (
                "EXECUTE 'DROP TABLE ' || quote_ident(t) || ' CASCADE'",
                &[Loss::DropTable],
                true,
            ),
            ("EXECUTE 'TRUNCATE ' || t", &[Loss::Truncate], true),
            ("EXECUTE 'DELETE FROM ' || t", &[Loss::DeleteAll], true),
            ("EXECUTE 'DELETE FROM ' || t || ' WHERE a = $1' USING a", &[], true),
            (
                "EXECUTE format('ALTER TABLE %1$I DROP COLUMN %2$I', t, c)",
                &[Loss::DropColumn],
                true,
            ),
            ("EXECUTE format('ALTER TABLE %I DROP CONSTRAINT %I', t, c)", &[], true),
            (
                "EXECUTE 'ALTER TABLE ' || t || ' DROP ' || c",
                &[Loss::DropColumn],
                true,
            ),
            ("EXECUTE format('CREATE INDEX ON %I (a)', t)", &[], true),
            ("EXECUTE format('DROP INDEX %I', i)", &[], true),
            (
                "FOR r IN EXECUTE 'SELECT ' || q LOOP TRUNCATE t; END LOOP",
                &[Loss::Truncate],
                true,
            ),
            ("RETURN QUERY EXECUTE q", &[], true),
            ("OPEN c FOR EXECUTE q", &[], true),
            ("-- EXECUTE q\nRAISE NOTICE 'EXECUTE q'", &[], false),
        ];
        for (body, losses, dynamic) in cases {
            let sql = format!("DO $do$ BEGIN {body}; END $do$");
            assert_eq!(read(&sql), (losses.to_vec(), *dynamic), "{sql}");
        }
        assert_eq!(
            read("DO LANGUAGE plpython3u $$ plpy.execute('DROP TABLE t') $$"),
            (vec![], true)
        );
        assert_eq!(
            read("CREATE FUNCTION f() RETURNS int LANGUAGE c AS 'lib', 'symbol'"),
            (vec![], true)
        );
    }

    #[test]
    fn what_is_found_is_where_it_says() {
        let sql = "DO $$\nBEGIN\n  IF a THEN DROP TABLE t; END IF;\nEND $$";
        let inside = Body::of(sql).unwrap().inside();
        let (start, end) = inside[0].span.unwrap();
        assert_eq!(&sql[start..end], "DROP TABLE t");
    }
}
