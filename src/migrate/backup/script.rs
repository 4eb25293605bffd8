//! What pg_restore prints of a dump, taken apart: statements, and the rows between COPY and its end.

use std::io::{BufRead, BufReader, Read};

use tokio::sync::mpsc::Sender;

use crate::migrate::statements;

/// Rows travel in pieces of this size.
const PIECE: usize = 64 * 1024;

/// One piece of a script.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// Without its semicolon.
    Statement(String),
    /// `COPY "s"."t" (...) FROM stdin`; its rows follow, then [`Item::EndOfRows`].
    Copy(String),
    Rows(Vec<u8>),
    EndOfRows,
    /// The script cannot be understood, or read; nothing follows.
    Broken(String),
}

/// Reads a script to its end, or until nobody takes its pieces any more. Blocks.
pub(super) fn read(script: impl Read, to: &Sender<Item>) {
    let mut reader = Reader::default();
    let mut lines = BufReader::with_capacity(PIECE, script);
    let mut line = Vec::new();
    loop {
        line.clear();
        let last = match lines.read_until(b'\n', &mut line) {
            Ok(0) => reader.end(),
            Ok(_) => reader.line(&line),
            Err(error) => vec![Item::Broken(error.to_string())],
        };
        for item in last {
            let broken = matches!(item, Item::Broken(_));
            if to.blocking_send(item).is_err() || broken {
                return;
            }
        }
        if line.is_empty() {
            return;
        }
    }
}

#[derive(Default)]
struct Reader {
    /// The beginning of a statement.
    text: String,
    rows: Option<Vec<u8>>,
}

impl Reader {
    fn line(&mut self, line: &[u8]) -> Vec<Item> {
        if let Some(rows) = &mut self.rows {
            if line != b"\\.\n" {
                rows.extend_from_slice(line);
                return match rows.len() >= PIECE {
                    true => vec![Item::Rows(std::mem::take(rows))],
                    false => Vec::new(),
                };
            }
            let rest = self.rows.take().unwrap_or_default();
            return vec![Item::Rows(rest), Item::EndOfRows];
        }
        let line = String::from_utf8_lossy(line);
        if self.text.is_empty() {
            // a comment, or a command for psql
            if line.trim().is_empty() || line.starts_with("--") || line.starts_with('\\') {
                return Vec::new();
            }
            if let Some(copy) = line.trim_end().strip_suffix(';')
                && copy.starts_with("COPY ")
                && copy.ends_with(" FROM stdin")
            {
                self.rows = Some(Vec::new());
                return vec![Item::Copy(copy.to_owned())];
            }
        }
        self.text.push_str(&line);
        match line.trim_end().ends_with(';') {
            true => self.whole(),
            false => Vec::new(),
        }
    }

    /// The statements gathered, if the last one is at its end.
    fn whole(&mut self) -> Vec<Item> {
        let Ok(all) = statements::split(&self.text) else {
            return Vec::new();
        };
        let ended = all
            .last()
            .is_some_and(|last| self.text[last.end..].trim_start().starts_with(';'));
        if !ended {
            return Vec::new();
        }
        let text = std::mem::take(&mut self.text);
        let statement = |one: &statements::Statement| Item::Statement(text[one.start..one.end].to_owned());
        all.iter().map(statement).collect()
    }

    fn end(&mut self) -> Vec<Item> {
        let rest = self.text.trim();
        if self.rows.is_none() && rest.is_empty() {
            return Vec::new();
        }
        let begun: String = rest.chars().take(80).collect();
        vec![Item::Broken(format!("the dump ends in the middle: {begun}"))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(script: &str) -> Vec<Item> {
        let (to, mut from) = tokio::sync::mpsc::channel(64);
        read(script.as_bytes(), &to);
        drop(to);
        std::iter::from_fn(|| from.try_recv().ok()).collect()
    }

    #[test]
    fn a_script_is_statements_and_rows() {
        let script = "--\n-- Name: x; Type: TABLE;\n--\n\\restrict token\nSET a = 1;\n\n\
            CREATE TABLE \"s\".\"t\" (\n    \"id\" integer DEFAULT 'a;\nb;\n'\n);\n\n\
            COPY \"s\".\"t\" (\"id\") FROM stdin;\n1\\ta;\nCOPY x FROM stdin;\n\\.\n\nSELECT 1;\n\\unrestrict token\n";
        let statement = |text: &str| Item::Statement(text.to_owned());
        let expected = [
            statement("SET a = 1"),
            statement("CREATE TABLE \"s\".\"t\" (\n    \"id\" integer DEFAULT 'a;\nb;\n'\n)"),
            Item::Copy("COPY \"s\".\"t\" (\"id\") FROM stdin".into()),
            Item::Rows(b"1\\ta;\nCOPY x FROM stdin;\n".into()),
            Item::EndOfRows,
            statement("SELECT 1"),
        ];
        assert_eq!(items(script), expected);
    }

    #[test]
    fn a_script_that_is_cut_off_is_told() {
        for script in ["CREATE TABLE x (\n", "COPY a (b) FROM stdin;\n1\n"] {
            assert!(matches!(items(script).last(), Some(Item::Broken(_))), "{script}");
        }
        assert_eq!(items(""), []);
    }
}
