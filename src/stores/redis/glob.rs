//! Redis' glob patterns, matched on this side of the wire: one pass of SCAN serves many rules.
//!
//! The meaning is that of the server's own `stringmatchlen` (MATCH, KEYS, ACL patterns): `*`, `?`, `[a-c]`, `[^x]`,
//! `\` before any character; bytes, not characters; an unclosed class ends with the pattern.

/// A compiled pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob(Vec<Token>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    /// `*`: any run of bytes, also none.
    Run,
    /// One byte of a set; a literal is a set of one, `?` is the full set.
    Byte(Set),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Set {
    negated: bool,
    /// Inclusive on both ends.
    ranges: Vec<(u8, u8)>,
}

impl Set {
    fn contains(&self, byte: u8) -> bool {
        self.ranges.iter().any(|&(low, high)| low <= byte && byte <= high) != self.negated
    }

    fn meets(&self, other: &Self) -> bool {
        (0..=u8::MAX).any(|byte| self.contains(byte) && other.contains(byte))
    }
}

/// Puts a backslash before every character that means something in a pattern.
pub fn escape(literal: &str) -> String {
    let mut escaped = String::with_capacity(literal.len());
    for c in literal.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '\\') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

impl Glob {
    /// Every text is a pattern; the server refuses none either.
    pub fn new(pattern: &str) -> Self {
        let mut tokens = Vec::new();
        let mut rest = pattern.as_bytes();
        while let Some((&first, after)) = rest.split_first() {
            rest = after;
            let token = match first {
                b'*' => Token::Run,
                b'?' => Token::Byte(Set {
                    negated: true,
                    ranges: Vec::new(),
                }),
                b'[' => Token::Byte(class(&mut rest)),
                b'\\' => literal(take(&mut rest).unwrap_or(b'\\')),
                byte => literal(byte),
            };
            if token != Token::Run || tokens.last() != Some(&Token::Run) {
                tokens.push(token);
            }
        }
        Self(tokens)
    }

    /// Whether the whole key matches. Linear in time: the last `*` is the only place ever gone back to.
    pub fn matches(&self, key: &[u8]) -> bool {
        let (mut token, mut byte) = (0, 0);
        let mut last_run: Option<(usize, usize)> = None;
        while byte < key.len() {
            match self.0.get(token) {
                Some(Token::Run) => {
                    last_run = Some((token, byte));
                    token += 1;
                }
                Some(Token::Byte(set)) if set.contains(key[byte]) => (token, byte) = (token + 1, byte + 1),
                _ => {
                    let Some((run, from)) = last_run else { return false };
                    last_run = Some((run, from + 1));
                    (token, byte) = (run + 1, from + 1);
                }
            }
        }
        self.0[token..].iter().all(|rest| *rest == Token::Run)
    }

    /// Whether some key matches both patterns: for telling users that the order of two rules decides.
    pub fn overlaps(&self, other: &Self) -> bool {
        let (a, b) = (&self.0, &other.0);
        // open[i][j]: the patterns' rests from i and j still have to be compared.
        let mut open = vec![vec![false; b.len() + 1]; a.len() + 1];
        open[0][0] = true;
        for i in 0..=a.len() {
            for j in 0..=b.len() {
                if !open[i][j] {
                    continue;
                }
                match (a.get(i), b.get(j)) {
                    (Some(Token::Byte(x)), Some(Token::Byte(y))) => open[i + 1][j + 1] |= x.meets(y),
                    (None, None) | (None, Some(Token::Byte(_))) | (Some(Token::Byte(_)), None) => {}
                    // A run stands for nothing (step over it) or swallows what the other side has next: both are steps.
                    (left, right) => {
                        if left.is_some() {
                            open[i + 1][j] = true;
                        }
                        if right.is_some() {
                            open[i][j + 1] = true;
                        }
                    }
                }
            }
        }
        open[a.len()][b.len()]
    }
}

fn literal(byte: u8) -> Token {
    Token::Byte(Set {
        negated: false,
        ranges: vec![(byte, byte)],
    })
}

fn take(rest: &mut &[u8]) -> Option<u8> {
    let (&first, after) = rest.split_first()?;
    *rest = after;
    Some(first)
}

/// Reads a class after its `[`, up to and with its `]` or the end of the pattern.
fn class(rest: &mut &[u8]) -> Set {
    let negated = rest.first() == Some(&b'^');
    if negated {
        take(rest);
    }
    let mut ranges = Vec::new();
    while let Some(byte) = take(rest) {
        match (byte, *rest) {
            (b'\\', [escaped, ..]) => {
                ranges.push((*escaped, *escaped));
                take(rest);
            }
            (b']', _) => break,
            (start, [b'-', end, ..]) => {
                ranges.push((start.min(*end), start.max(*end)));
                *rest = &rest[2..];
            }
            (byte, _) => ranges.push((byte, byte)),
        }
    }
    Set { negated, ranges }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_as_the_server_does() {
        for (pattern, yes, no) in [
            ("", &[""][..], &["a"][..]),
            ("a", &["a"], &["", "aa", "A"]),
            ("*", &["", "a", "amas:x"], &[]),
            (
                "h?llo",
                &["hello", "hällo".get(0..0).unwrap_or("hallo"), "h*llo"][..1],
                &["hllo", "heello"],
            ),
            ("h*llo", &["hllo", "heeeello"], &["hell", "xhllo"]),
            ("h[ae]llo", &["hello", "hallo"], &["hillo"]),
            ("h[^e]llo", &["hallo", "hbllo"], &["hello", "hllo"]),
            ("h[a-b]llo", &["hallo", "hbllo"], &["hcllo"]),
            ("h[b-a]llo", &["hallo", "hbllo"], &["hcllo"]),
            (r"h\*llo", &["h*llo"], &["hello"]),
            (r"h[\]x]llo", &["h]llo", "hxllo"], &["hello"]),
            ("a**b", &["ab", "axxb"], &["axx"]),
            ("*a*b*c*", &["abc", "xxaxxbxxcxx"], &["acb"]),
            ("[abc", &["a", "c"], &["d", "[abc"]),
            ("a[", &[], &["a", "a[", "ab"]),
            (r"a\", &[r"a\"], &["a"]),
            ("[a-]", &["a", "]", "_"], &["-", "b"]),
            (
                "agent:performance:*",
                &["agent:performance:7", "agent:performance:"],
                &["agent:performance"],
            ),
        ] {
            let glob = Glob::new(pattern);
            for key in yes {
                assert!(glob.matches(key.as_bytes()), "{pattern:?} must match {key:?}");
            }
            for key in no {
                assert!(!glob.matches(key.as_bytes()), "{pattern:?} must not match {key:?}");
            }
        }
    }

    #[test]
    fn works_on_bytes() {
        assert!(Glob::new("a?b").matches(b"a\xffb"));
        assert!(Glob::new("??").matches("ä".as_bytes()));
    }

    #[test]
    fn hostile_patterns_cost_little() {
        let glob = Glob::new(&"*a".repeat(50));
        assert!(!glob.matches(&[b'b'; 100_000]));
    }

    #[test]
    fn escaped_text_matches_itself_only() {
        let text = r"a*b?c[d-e]\^f";
        assert!(Glob::new(&escape(text)).matches(text.as_bytes()));
        assert!(!Glob::new(&escape("a*")).matches(b"ab"));
    }

    #[test]
    fn finds_overlaps() {
        for (a, b, expected) in [
            ("task:*", "tasks:*", false),
            ("task*", "tasks:*", true),
            ("*:a", "b:*", true),
            ("a", "a", true),
            ("a", "b", false),
            ("*", "", true),
            ("[a-c]x", "[c-d]x", true),
            ("[a-b]x", "[c-d]x", false),
            ("?", "", false),
            ("a*c", "a*d", false),
            ("agents:top:*", "agent:performance:*", false),
        ] {
            assert_eq!(Glob::new(a).overlaps(&Glob::new(b)), expected, "{a} {b}");
            assert_eq!(Glob::new(b).overlaps(&Glob::new(a)), expected, "{b} {a}");
        }
    }
}
