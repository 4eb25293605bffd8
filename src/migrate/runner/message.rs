//! One message to the server, and from an error back to a line of the file in it.

use sqlx::postgres::{PgDatabaseError, PgErrorPosition};

use crate::migrate::{
    report::{StatementFailure, truncate},
    session::SendError,
    statements::{Statement, column_at, line_at, split},
    units::Span,
};

/// Texts of the server can quote whole rows.
const TEXT_BYTES: usize = 4000;

/// A part of a file between what the runner puts before and after it.
pub(super) struct Message<'a> {
    pub text: String,
    pub file: &'a str,
    /// The whole file.
    sql: &'a str,
    /// Where the part that is sent begins and ends in the file, in bytes.
    sent: Span,
    /// Bytes and statements before that part.
    lead: (usize, usize),
}

impl<'a> Message<'a> {
    /// A part of a file in the transaction that `lead` (so many statements) opens, or that is open, and that `tail` ends.
    pub fn inside(file: &'a str, sql: &'a str, sent: Span, lead: (&str, usize), tail: &str) -> Self {
        let (before, statements) = lead;
        // the line end closes a comment, the semicolon the last statement
        let text = format!("{before}{}\n;\n{tail}", &sql[sent.0..sent.1]);
        Self {
            text,
            file,
            sql,
            sent,
            lead: (before.len(), statements),
        }
    }

    /// One statement of a file, alone.
    pub fn alone(file: &'a str, sql: &'a str, sent: Span) -> Self {
        Self {
            text: sql[sent.0..sent.1].to_owned(),
            file,
            sql,
            sent,
            lead: (0, 0),
        }
    }

    /// What to tell of an error that the server answered.
    pub fn explain(&self, error: &PgDatabaseError, failed: &SendError, version: Option<i64>) -> StatementFailure {
        let (completed, context) = (failed.completed, error.r#where());
        let offset = match error.position() {
            Some(PgErrorPosition::Original(position)) => self.position(position),
            Some(PgErrorPosition::Internal { position, query }) => {
                self.position_in_block((position, query), completed, context)
            }
            None => None,
        };
        let line = match offset {
            Some(offset) => Some(line_at(self.sql, offset)),
            None => self.line_of_statement(completed, context),
        };
        let text = |text: Option<&str>| text.map(|text| truncate(text, TEXT_BYTES).to_owned());
        StatementFailure {
            version,
            file: self.file.to_owned(),
            line,
            column: offset.map(|offset| column_at(self.sql, offset)),
            sqlstate: error.code().to_owned(),
            message: truncate(error.message(), TEXT_BYTES).to_owned(),
            detail: text(error.detail()),
            hint: text(error.hint()),
            context: text(context),
            position: offset.map(|offset| self.sql[..offset].chars().count() + 1),
        }
    }

    /// The byte offset in the file of the character the server named. One past the file (a statement that is not
    /// complete fails at our semicolon) is the file's last token.
    fn position(&self, position: usize) -> Option<usize> {
        let at = self
            .text
            .char_indices()
            .nth(position.saturating_sub(1))
            .map_or(self.text.len(), |(at, _)| at);
        let offset = at.checked_sub(self.lead.0)? + self.sent.0;
        if offset < self.sent.1 {
            return Some(offset);
        }
        let last = split(self.sql).ok()?.into_iter().rfind(|s| s.start < self.sent.1)?;
        self.sql[..last.end].char_indices().next_back().map(|(at, _)| at)
    }

    /// The byte offset in the file of a character of a query that a DO block has sent, if that is written in it as it was sent, and once.
    fn position_in_block(
        &self,
        (position, query): (usize, &str),
        completed: usize,
        context: Option<&str>,
    ) -> Option<usize> {
        // what a function has sent is not in the block
        let frames = context.map_or(0, |context| context.lines().count());
        context.filter(|_| frames == 1).and_then(inline_block_line)?;
        let statement = self.failed(completed)?;
        let mut found = self.sql[statement.start..statement.end].match_indices(query);
        let (Some((at, _)), None) = (found.next(), found.next()) else {
            return None;
        };
        let before = query.chars().take(position.saturating_sub(1)).map(char::len_utf8);
        Some(statement.start + at + before.sum::<usize>())
    }

    /// The statement that did not complete. None: our own tail.
    fn failed(&self, completed: usize) -> Option<Statement> {
        let mut statements = split(self.sql).ok()?;
        let first = statements.iter().position(|s| s.start >= self.sent.0)?;
        let index = first + completed.checked_sub(self.lead.1)?;
        (index < statements.len())
            .then(|| statements.swap_remove(index))
            .filter(|statement| statement.start < self.sent.1)
    }

    /// The line of the statement that did not complete; in a DO block the line its context names.
    fn line_of_statement(&self, completed: usize, context: Option<&str>) -> Option<usize> {
        let statement = self.failed(completed)?;
        let in_block = context.and_then(inline_block_line).zip(statement.body);
        let in_block = in_block.map(|(line, body)| line_at(self.sql, body) + line - 1);
        Some(in_block.unwrap_or_else(|| line_at(self.sql, statement.start)))
    }
}

/// The line in a DO block's body, from the outermost frame of a PL/pgSQL call stack.
fn inline_block_line(context: &str) -> Option<usize> {
    let (_, rest) = context.lines().last()?.split_once("inline_code_block line ")?;
    rest.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_counted_past_the_lead() {
        let sql = "SELECT 1;\n-- a; comment\nSELECT 'x;\ny';\n\nDO $$\nBEGIN\n  RAISE 'no';\nEND $$;";
        let message = Message::inside("f", sql, (0, sql.len()), ("BEGIN; ", 1), "COMMIT");
        let line = |completed, context| message.line_of_statement(completed, context);
        assert_eq!([1, 2, 3, 4].map(|n| line(n, None)), [Some(1), Some(3), Some(6), None]);
        assert_eq!(
            line(3, Some("PL/pgSQL function inline_code_block line 3 at RAISE")),
            Some(8)
        );
        assert_eq!(line(0, None), None, "our BEGIN");
        let second = split(sql).unwrap()[1].clone();
        let alone = Message::alone("f", sql, (second.start, second.end));
        assert_eq!([0, 1].map(|n| alone.line_of_statement(n, None)), [Some(3), None]);
    }

    #[test]
    fn only_the_outermost_frame_is_in_the_file() {
        let stack = "PL/pgSQL function f() line 9 at RAISE\nSQL statement \"SELECT f()\"\nPL/pgSQL function inline_code_block line 4 at PERFORM";
        assert_eq!(inline_block_line(stack), Some(4));
        assert_eq!(inline_block_line("PL/pgSQL function f() line 9 at RAISE"), None);
    }
}
