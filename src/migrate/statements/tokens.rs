//! The tokens of a text, for texts that are no sequence of SQL statements: bodies of functions and DO blocks.

use super::{
    Unrunnable,
    scanner::{Scanner, is_word_start},
};

/// What a token is, as far as anybody asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A keyword or a name without quotes.
    Word,
    /// A name in quotes.
    Name,
    /// A string, in whichever quotes.
    String,
    Other,
}

/// One token; comments are none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Where it begins and ends in the text, in bytes.
    pub start: usize,
    pub end: usize,
    pub kind: Kind,
    /// How many parentheses are open before it.
    pub depth: usize,
}

impl Token {
    pub fn text<'a>(&self, sql: &'a str) -> &'a str {
        &sql[self.start..self.end]
    }

    pub fn is(&self, sql: &str, word: &str) -> bool {
        self.kind != Kind::String && self.text(sql).eq_ignore_ascii_case(word)
    }

    /// Where the content of a string begins and ends.
    pub fn content(&self, sql: &str) -> (usize, usize) {
        let text = self.text(sql);
        let open = match text.strip_prefix('$').and_then(|rest| rest.find('$')) {
            Some(tag) => tag + 2,
            None => text.find('\'').map_or(0, |quote| quote + 1),
        };
        let close = if text.starts_with('$') { open } else { 1 };
        (self.start + open, (self.end - close).max(self.start + open))
    }
}

/// All tokens of a text, semicolons too.
pub fn tokens(sql: &str) -> Result<Vec<Token>, Unrunnable> {
    each(sql).collect()
}

/// One token after the other, for who needs only the first of them. After an error nothing is to be asked any more.
pub fn each(sql: &str) -> impl Iterator<Item = Result<Token, Unrunnable>> {
    let mut scanner = Scanner::new(sql);
    std::iter::from_fn(move || next_token(&mut scanner).transpose())
}

fn next_token(scanner: &mut Scanner) -> Result<Option<Token>, Unrunnable> {
    let Some(byte) = scanner.upcoming()? else {
        return Ok(None);
    };
    let (start, depth) = (scanner.at, scanner.parens);
    match byte {
        b';' | b'\\' => scanner.at += 1,
        _ => scanner.token(byte)?,
    }
    let kind = match (byte, scanner.bytes[scanner.at - 1]) {
        (b'"', _) => Kind::Name,
        (b'\'', _) | (b'e' | b'E', b'\'') => Kind::String,
        (b'$', b'$') if scanner.at - start > 1 => Kind::String,
        (first, _) if is_word_start(first) => Kind::Word,
        _ => Kind::Other,
    };
    Ok(Some(Token {
        start,
        end: scanner.at,
        kind,
        depth,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_are_left_out_and_strings_are_whole() {
        let sql = "a -- b\n/* c; */ 'd''e;' E'\\'f' $g$ h; $g$ \"i\";(j) $1";
        let all = tokens(sql).unwrap();
        let told: Vec<_> = all
            .iter()
            .map(|token| (token.text(sql), token.kind, token.depth))
            .collect();
        assert_eq!(
            told,
            [
                ("a", Kind::Word, 0),
                ("'d''e;'", Kind::String, 0),
                ("E'\\'f'", Kind::String, 0),
                ("$g$ h; $g$", Kind::String, 0),
                ("\"i\"", Kind::Name, 0),
                (";", Kind::Other, 0),
                ("(", Kind::Other, 0),
                ("j", Kind::Word, 1),
                (")", Kind::Other, 1),
                ("$", Kind::Other, 0),
                ("1", Kind::Other, 0),
            ]
        );
        let contents: Vec<_> = all[1..4]
            .iter()
            .map(|token| token.content(sql))
            .map(|(a, b)| &sql[a..b])
            .collect();
        assert_eq!(contents, ["d''e;", "\\'f", " h; "]);
        let empty = tokens("'' $$$$").unwrap();
        assert_eq!(
            empty.iter().map(|token| token.content("'' $$$$")).collect::<Vec<_>>(),
            [(1, 1), (5, 5)]
        );
        assert!(tokens("'open").is_err());
    }
}
