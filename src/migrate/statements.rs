//! Where each statement of an SQL text begins: quotes, dollar quotes, comments, parentheses and SQL-standard function
//! bodies are understood the way psql does it. Pure; it serves error lines and the checks before anything runs.

mod scanner;
pub mod tokens;

use scanner::Scanner;

/// One statement of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Byte offset of its first token.
    pub start: usize,
    /// Byte offset after its last token, without the semicolon.
    pub end: usize,
    /// Its first words in capitals, at most four.
    pub words: Vec<String>,
    /// Byte offset after the opening of its first dollar quote: where line 1 of a DO body is.
    pub body: Option<usize>,
    /// Contains the word CONCURRENTLY: it can leave something behind when it fails.
    pub concurrently: bool,
    /// Contains the word STDIN or STDOUT.
    stdio: bool,
}

/// Why a text cannot be sent as a migration. Lines, and characters in a line, count from 1; the file's name goes before it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{line}:{column}: {what}")]
pub struct Unrunnable {
    pub line: usize,
    pub column: usize,
    pub what: String,
}

impl Unrunnable {
    pub(super) fn at(sql: &str, offset: usize, what: String) -> Self {
        Self {
            line: line_at(sql, offset),
            column: column_at(sql, offset),
            what,
        }
    }
}

/// The line (from 1) of a byte offset.
pub fn line_at(sql: &str, offset: usize) -> usize {
    1 + sql.bytes().take(offset).filter(|&b| b == b'\n').count()
}

/// How many characters into its line (from 1) a byte offset is, which is not inside of a character.
pub fn column_at(sql: &str, offset: usize) -> usize {
    let before = sql.get(..offset).unwrap_or(sql);
    1 + before.chars().rev().take_while(|&c| c != '\n').count()
}

/// Whether sqlx's first line `-- no-transaction` is there.
pub fn no_transaction(sql: &str) -> bool {
    sql.starts_with("-- no-transaction")
}

/// Whether a text may set this, wherever in it and in whichever way. What only speaks of it counts too.
pub fn may_set(sql: &str, setting: &str) -> bool {
    let sql = sql.to_ascii_lowercase();
    sql.contains(setting) || setting == "search_path" && sets_schema(&sql)
}

/// `SET SCHEMA 'x'` sets the search_path; what ALTER ... SET SCHEMA names is in no such quotes.
fn sets_schema(lower: &str) -> bool {
    lower.match_indices("schema").any(|(at, word)| {
        let (before, after) = (lower[..at].trim_end(), lower[at + word.len()..].trim_start());
        ["set", "session", "local"].iter().any(|word| before.ends_with(*word)) && after.starts_with(['\'', '$'])
    })
}

/// Splits a text into its statements; empty ones are left out, as the server does.
pub fn split(sql: &str) -> Result<Vec<Statement>, Unrunnable> {
    let mut scanner = Scanner::new(sql);
    scanner.run()?;
    Ok(scanner.done)
}

/// [`runnable`], and there is a statement: only a down text may have nothing to do.
pub fn doing(sql: &str) -> Result<Vec<Statement>, Unrunnable> {
    let statements = runnable(sql)?;
    if statements.is_empty() {
        let what = "there is no statement; write SELECT 1; if there is nothing to do".to_owned();
        return Err(Unrunnable::at(sql, 0, what));
    }
    Ok(statements)
}

/// Splits a text and refuses what the runner cannot send: COPY from the client, commands of psql, transaction control inside the runner's own
/// transaction.
pub fn runnable(sql: &str) -> Result<Vec<Statement>, Unrunnable> {
    let statements = split(sql)?;
    let header = no_transaction(sql);
    for statement in &statements {
        if let Some(what) = statement.problem(header) {
            return Err(Unrunnable::at(sql, statement.start, what));
        }
    }
    Ok(statements)
}

/// Whether a text calls set_config for its transaction only.
fn configures_locally(text: &str) -> bool {
    text.to_ascii_lowercase().contains("set_config")
        && tokens::tokens(text).is_ok_and(|all| all.iter().any(|token| token.is(text, "true")))
}

/// Settings, in capitals, that make statements faster or slower, wait longer or give up, and do nothing else.
fn changes_no_result(setting: &str) -> bool {
    let ends = ["_TIMEOUT", "WORK_MEM", "_WORKERS"];
    ends.iter().any(|end| setting.ends_with(end)) || matches!(setting, "CLIENT_MIN_MESSAGES" | "SYNCHRONOUS_COMMIT")
}

/// Whether the rows of a temporary table, or the table, end with the transaction.
fn ends_on_commit(text: &str) -> bool {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").to_ascii_uppercase().contains("ON COMMIT D")
}

impl Statement {
    /// Its own text, out of the one that it stands in.
    pub fn text<'a>(&self, sql: &'a str) -> &'a str {
        &sql[self.start..self.end]
    }

    /// Why it cannot be sent, in a file with the header or without it.
    fn problem(&self, header: bool) -> Option<String> {
        match self.words().as_slice() {
            ["DISCARD", "ALL"] => Some(
                "DISCARD ALL gives away the lock that keeps other migrations out; write what is meant of RESET ALL, RESET ROLE, \
                 DEALLOCATE ALL, DISCARD PLANS, DISCARD SEQUENCES and DISCARD TEMP"
                    .to_owned(),
            ),
            [first, ..] if !header && self.controls_transaction() => Some(format!(
                "{first} inside a migration: each file is already one transaction; remove it, or make '-- no-transaction' the first line"
            )),
            _ => None,
        }
    }

    fn words(&self) -> Vec<&str> {
        self.words.iter().map(String::as_str).collect()
    }

    /// Begins or ends a transaction.
    pub fn controls_transaction(&self) -> bool {
        match self.words().as_slice() {
            ["ROLLBACK", rest @ ..] => !rest.contains(&"TO"),
            ["COMMIT" | "END" | "ABORT", ..] => true,
            ["PREPARE", "TRANSACTION", ..] => true,
            _ => self.begins(),
        }
    }

    /// BEGIN or START TRANSACTION.
    pub fn begins(&self) -> bool {
        matches!(self.words().as_slice(), ["BEGIN", ..] | ["START", "TRANSACTION", ..])
    }

    /// An ordinary COMMIT or END.
    pub fn commits(&self) -> bool {
        matches!(
            self.words().as_slice(),
            ["COMMIT" | "END"] | ["COMMIT" | "END", "WORK" | "TRANSACTION"]
        )
    }

    pub fn is_savepoint(&self) -> bool {
        matches!(
            self.words.first().map(String::as_str),
            Some("SAVEPOINT" | "RELEASE" | "ROLLBACK")
        )
    }

    /// Changes settings of the session beyond its transaction; `text` is its own.
    pub fn sets(&self, text: &str) -> bool {
        match self.words().as_slice() {
            ["SET", "LOCAL" | "CONSTRAINTS" | "TRANSACTION", ..] => false,
            ["SET" | "RESET" | "DISCARD", ..] => true,
            ["SELECT", ..] => text.to_ascii_lowercase().contains("set_config"),
            _ => false,
        }
    }

    /// Changes something for what comes after it in its transaction, or beyond it; `text` is its own.
    pub fn sets_anything(&self, text: &str) -> bool {
        matches!(self.words().first(), Some(&"SET")) || self.sets(text)
    }

    /// What it does lasts until the end of its transaction, and what comes after it may mean something else without it; `text` is its own.
    pub fn ends_with_transaction(&self, text: &str) -> bool {
        match self.words().as_slice() {
            ["SET", "LOCAL", setting, ..] => !changes_no_result(setting),
            ["SET", "CONSTRAINTS" | "TRANSACTION", ..] => true,
            ["SELECT", ..] => configures_locally(text),
            _ => self.makes_temporary() && ends_on_commit(text),
        }
    }

    /// Makes a table that hides others of its name from what comes after it.
    pub fn makes_temporary(&self) -> bool {
        self.words().iter().any(|word| matches!(*word, "TEMP" | "TEMPORARY"))
    }

    /// Changes the role until the end of its transaction.
    pub fn sets_local_role(&self) -> bool {
        matches!(
            self.words().as_slice(),
            ["SET", "LOCAL", "ROLE" | "SESSION" | "SESSION_AUTHORIZATION", ..]
        )
    }

    /// Changes the role of the session.
    pub fn sets_role(&self) -> bool {
        matches!(
            self.words().as_slice(),
            ["SET" | "RESET", "ROLE" | "SESSION_AUTHORIZATION", ..]
                | ["SET", "SESSION", "ROLE" | "AUTHORIZATION" | "SESSION", ..]
                | ["RESET", "SESSION", ..]
        )
    }

    fn is_routine(&self) -> bool {
        matches!(
            self.words().as_slice(),
            ["CREATE", "FUNCTION" | "PROCEDURE", ..] | ["CREATE", "OR", "REPLACE", "FUNCTION" | "PROCEDURE"]
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(sql: &str) -> Vec<&str> {
        split(sql).unwrap().iter().map(|s| &sql[s.start..s.end]).collect()
    }

    #[test]
    fn splits_where_the_server_does() {
        let cases: &[(&str, &[&str])] = &[
            ("", &[]),
            (" ;; -- x;\n;", &[]),
            ("SELECT 1", &["SELECT 1"]),
            ("a; b;", &["a", "b"]),
            ("SELECT ';'; b", &["SELECT ';'", "b"]),
            ("SELECT 'it''s;'; b", &["SELECT 'it''s;'", "b"]),
            (r"SELECT E'\';'; b", &[r"SELECT E'\';'", "b"]),
            (r"SELECT '\'; b", &[r"SELECT '\'", "b"]),
            (r"SELECT E'a''b\';'; b", &[r"SELECT E'a''b\';'", "b"]),
            ("SELECT \"a;\"\"b\"; b", &["SELECT \"a;\"\"b\"", "b"]),
            ("/* ; /* ; */ ; */ a /* ; */; b", &["a", "b"]),
            ("-- a;\r\nb -- ;\n;c", &["b", "c"]),
            ("DO $$ a; $x$ ; $$; b", &["DO $$ a; $x$ ; $$", "b"]),
            ("DO $x$ a; $$ ; $x$; b", &["DO $x$ a; $$ ; $x$", "b"]),
            ("SELECT a$b$c; d$b$", &["SELECT a$b$c", "d$b$"]),
            ("PREPARE p AS SELECT $1; b", &["PREPARE p AS SELECT $1", "b"]),
            (
                "CREATE RULE r AS ON INSERT TO t DO (a; b); c",
                &["CREATE RULE r AS ON INSERT TO t DO (a; b)", "c"],
            ),
            ("SELECT 'ä;ö'; ü", &["SELECT 'ä;ö'", "ü"]),
        ];
        for (sql, expected) in cases {
            assert_eq!(&texts(sql), expected, "{sql}");
        }
    }

    #[test]
    fn standard_function_bodies_are_one_statement() {
        let sql = "CREATE OR REPLACE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END; b";
        assert_eq!(texts(sql).len(), 2);
        assert_eq!(texts("BEGIN; SELECT 1; END; b").len(), 4);
    }

    #[test]
    fn refuses_what_cannot_be_sent() {
        let cases = [
            ("a;\nCOMMIT;", "2:1: COMMIT inside"),
            ("a;\n\n  rollback;", "3:3: ROLLBACK inside"),
            ("begin; a; end", "1:1: BEGIN inside"),
            ("start transaction", "1:1: START inside"),
            ("a;\ndiscard all;", "2:1: DISCARD ALL gives away the lock"),
            ("-- no-transaction\nDISCARD ALL", "2:1: DISCARD ALL gives away the lock"),
            ("a;\nCOPY t FROM stdin;", "2:1: COPY from or to the client (STDIN"),
            ("COPY t TO STDOUT", "1:1: COPY from or to the client"),
            ("COPY t FROM stdin;\n1\tit's\n\\.\n", "1:1: COPY from"),
            ("a;\n\\d t\nb;", "2:1: \\d is a command of psql"),
            ("SELECT 'ä' \\gexec", "1:12: \\gexec is a command of psql"),
            ("\\connect other;", "1:1: \\connect is a command of psql"),
            ("a;\nb 'x\n;", "2:3: a quoted string"),
            ("a;\r\n/* x", "2:1: a comment"),
            ("\n\nDO $$ x;", "3:4: a dollar quote"),
            ("a \"b", "1:3: a quoted name"),
        ];
        assert!(runnable("-- only a comment").is_ok() && doing("-- only a comment").is_err());
        for (sql, said) in cases {
            let error = runnable(sql).unwrap_err().to_string();
            assert!(error.starts_with(said), "{sql}: {error}");
        }
        assert!(runnable("SAVEPOINT a; ROLLBACK TO a; ROLLBACK TO SAVEPOINT a").is_ok());
        assert!(runnable("-- no-transaction\nBEGIN; COMMIT; DISCARD TEMP").is_ok());
    }

    #[test]
    fn what_a_text_may_set_is_known_however_it_is_written() {
        for (sql, path) in [
            ("SET SEARCH_PATH TO x", true),
            ("SELECT Set_Config('Search_Path', 'x', true)", true),
            ("SET schema 'x'", true),
            ("DO $$ BEGIN SET LOCAL SCHEMA\n'x'; END $$", true),
            ("ALTER TABLE t SET SCHEMA x", false),
            ("ALTER SCHEMA a RENAME TO b; COMMENT ON SCHEMA b IS 'b'", false),
        ] {
            assert_eq!(may_set(sql, "search_path"), path, "{sql}");
        }
        assert!(may_set("SET Lock_Timeout = '2s'", "lock_timeout"));
        assert!(!may_set("SET SCHEMA 'x'", "lock_timeout"));
    }

    #[test]
    fn who_sets_the_role_is_known() {
        let first = |sql: &str| split(sql).unwrap().remove(0);
        for sql in [
            "SET ROLE x",
            "reset role",
            "SET SESSION ROLE x",
            "SET SESSION AUTHORIZATION x",
            "SET SESSION SESSION AUTHORIZATION x",
            "SET session_authorization = x",
            "RESET SESSION AUTHORIZATION",
        ] {
            assert!(first(sql).sets_role() && !first(sql).sets_local_role(), "{sql}");
        }
        for sql in ["SET LOCAL ROLE x", "SET LOCAL SESSION AUTHORIZATION x"] {
            assert!(first(sql).sets_local_role() && !first(sql).sets_role(), "{sql}");
        }
        assert!(!first("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY").sets_role());
    }

    #[test]
    fn lines_and_columns_count_from_one() {
        assert_eq!([0, 1, 2, 3].map(|at| line_at("a\nb\n", at)), [1, 1, 2, 2]);
        assert_eq!([0, 2, 3, 4, 99].map(|at| column_at("ä\nbc", at)), [1, 2, 1, 2, 3]);
    }
}
