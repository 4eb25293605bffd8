//! Goes through a text token by token, and ends a statement where the server would.

use super::{Statement, Unrunnable};

/// Where it is in a text, and what it has found.
pub struct Scanner<'a> {
    pub sql: &'a str,
    pub bytes: &'a [u8],
    pub at: usize,
    pub parens: usize,
    /// Open BEGIN ATOMIC and CASE in a function's body: their semicolons do not end the statement.
    atomic: usize,
    last_word_begin: bool,
    current: Option<Statement>,
    pub done: Vec<Statement>,
}

impl<'a> Scanner<'a> {
    pub fn new(sql: &'a str) -> Self {
        let bytes = sql.as_bytes();
        Self {
            sql,
            bytes,
            at: 0,
            parens: 0,
            atomic: 0,
            last_word_begin: false,
            current: None,
            done: Vec::new(),
        }
    }

    pub fn run(&mut self) -> Result<(), Unrunnable> {
        while let Some(byte) = self.upcoming()? {
            match byte {
                b';' if self.parens == 0 && self.atomic == 0 => {
                    self.finish()?;
                    self.at += 1;
                }
                _ => self.token(byte)?,
            }
        }
        self.finish()
    }

    /// The first byte of the next token, past white space and comments.
    pub fn upcoming(&mut self) -> Result<Option<u8>, Unrunnable> {
        while let Some(&byte) = self.bytes.get(self.at) {
            match byte {
                b if b.is_ascii_whitespace() => self.at += 1,
                b'-' if self.rest().starts_with(b"--") => self.skip_line(),
                b'/' if self.rest().starts_with(b"/*") => self.skip_comment()?,
                _ => return Ok(Some(byte)),
            }
        }
        Ok(None)
    }

    /// One token that belongs to a statement.
    pub fn token(&mut self, byte: u8) -> Result<(), Unrunnable> {
        let start = self.at;
        self.current.get_or_insert_with(|| Statement {
            start,
            end: start,
            words: Vec::new(),
            body: None,
            concurrently: false,
            stdio: false,
        });
        match byte {
            b'\'' => self.quoted(b'\'', false, "a quoted string")?,
            b'"' => self.quoted(b'"', false, "a quoted name")?,
            b'$' => self.dollar()?,
            b'\\' => return Err(self.meta_command()),
            b if is_word_start(b) => self.word()?,
            b if b.is_ascii_digit() => self.skip_while(|b| is_word_start(b) || b.is_ascii_digit() || b == b'.'),
            _ => {
                match byte {
                    b'(' => self.parens += 1,
                    b')' => self.parens = self.parens.saturating_sub(1),
                    _ => {}
                }
                self.at += 1;
            }
        }
        let end = self.at;
        if let Some(current) = &mut self.current {
            current.end = end;
        }
        Ok(())
    }

    /// A statement ends. What follows a COPY from the client is no SQL, so that it is refused here.
    pub fn finish(&mut self) -> Result<(), Unrunnable> {
        if let Some(done) = self.current.take() {
            if done.stdio && done.words.first().is_some_and(|word| word == "COPY") {
                let what = "COPY from or to the client (STDIN, STDOUT) needs psql; use INSERT ... VALUES".to_owned();
                return Err(Unrunnable::at(self.sql, done.start, what));
            }
            self.done.push(done);
        }
        (self.parens, self.atomic, self.last_word_begin) = (0, 0, false);
        Ok(())
    }

    /// Outside of quotes no SQL has a backslash.
    pub fn meta_command(&self) -> Unrunnable {
        let command = self.sql[self.at..]
            .split(|c: char| c.is_whitespace() || c == ';')
            .next();
        let what = format!(
            "{} is a command of psql, which a server does not know; write it as SQL, or leave it out",
            command.unwrap_or_default()
        );
        Unrunnable::at(self.sql, self.at, what)
    }

    pub fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    pub fn skip_while(&mut self, keep: impl Fn(u8) -> bool) {
        self.at += self.rest().iter().take_while(|&&b| keep(b)).count();
    }

    pub fn skip_line(&mut self) {
        self.skip_while(|b| b != b'\n');
    }

    /// A block comment; they nest.
    pub fn skip_comment(&mut self) -> Result<(), Unrunnable> {
        let (open, mut depth) = (self.at, 0usize);
        loop {
            match self.rest() {
                [b'/', b'*', ..] => (depth, self.at) = (depth + 1, self.at + 2),
                [b'*', b'/', ..] => (depth, self.at) = (depth - 1, self.at + 2),
                [_, ..] => self.at += 1,
                [] => return Err(self.unclosed(open, "a comment")),
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }

    /// A quoted string or name, in which a doubled quote is one of its characters.
    pub fn quoted(&mut self, quote: u8, escapes: bool, what: &str) -> Result<(), Unrunnable> {
        let open = self.at;
        self.at += 1;
        loop {
            match self.rest() {
                [b'\\', _, ..] if escapes => self.at += 2,
                [one, two, ..] if *one == quote && *two == quote => self.at += 2,
                [b, ..] => {
                    self.at += 1;
                    if *b == quote {
                        return Ok(());
                    }
                }
                [] => return Err(self.unclosed(open, what)),
            }
        }
    }

    /// `$tag$ ... $tag$`, or a parameter such as `$1`.
    pub fn dollar(&mut self) -> Result<(), Unrunnable> {
        let open = self.at;
        self.at += 1;
        if self.rest().first().is_some_and(|&b| is_word_start(b)) {
            self.skip_while(|b| is_word_start(b) || b.is_ascii_digit());
        }
        if self.rest().first() != Some(&b'$') {
            return Ok(());
        }
        self.at += 1;
        let (tag, body) = (&self.sql[open..self.at], self.at);
        let Some(length) = self.sql[body..].find(tag) else {
            return Err(self.unclosed(open, "a dollar quote"));
        };
        self.at = body + length + tag.len();
        if let Some(current) = &mut self.current {
            current.body.get_or_insert(body);
        }
        Ok(())
    }

    pub fn word(&mut self) -> Result<(), Unrunnable> {
        let start = self.at;
        self.skip_while(|b| is_word_start(b) || b.is_ascii_digit() || b == b'$');
        let word = self.sql[start..self.at].to_ascii_uppercase();
        if word == "E" && self.rest().first() == Some(&b'\'') {
            return self.quoted(b'\'', true, "a quoted string");
        }
        let Some(current) = &mut self.current else {
            return Ok(());
        };
        match word.as_str() {
            "CONCURRENTLY" => current.concurrently = true,
            "STDIN" | "STDOUT" => current.stdio = true,
            "ATOMIC" if self.last_word_begin && current.is_routine() => self.atomic = 1,
            "CASE" if self.atomic > 0 => self.atomic += 1,
            "END" if self.atomic > 0 => self.atomic -= 1,
            _ => {}
        }
        self.last_word_begin = word == "BEGIN";
        if current.words.len() < 4 {
            current.words.push(word);
        }
        Ok(())
    }

    pub fn unclosed(&self, open: usize, what: &str) -> Unrunnable {
        Unrunnable::at(self.sql, open, format!("{what} begins here and does not end; close it"))
    }
}

pub fn is_word_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}
