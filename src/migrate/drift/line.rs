//! One difference as one line for a person.

use super::Difference;
use crate::migrate::report::truncate;

/// Of each side.
const PART: usize = 160;

/// `index task_created_idx: gone`, `column users.email: character varying(255) -> text`.
pub(super) fn line(difference: &Difference) -> String {
    let what = match (&difference.recorded, &difference.present) {
        (Some(_), None) => "gone".to_owned(),
        (None, Some(present)) => match first_line(present) {
            "" => "new".to_owned(),
            text => format!("new: {}", part(text)),
        },
        (Some(recorded), Some(present)) => change(recorded, present),
        (None, None) => String::new(),
    };
    format!("{} {}: {what}", difference.kind, difference.name)
}

/// Of a text of several lines, the first that differs.
fn change(recorded: &str, present: &str) -> String {
    let (mut before, mut now) = (recorded.lines(), present.lines());
    let mut number = 0;
    loop {
        number += 1;
        let (was, is) = (before.next(), now.next());
        if was == is && was.is_some() {
            continue;
        }
        let place = match recorded.contains('\n') || present.contains('\n') {
            true => format!("line {number}: "),
            false => String::new(),
        };
        let (was, is) = (was.unwrap_or_default().trim(), is.unwrap_or_default().trim());
        let (was, is) = from_the_difference(was, is);
        return format!("{place}{} -> {}", shown(was), shown(is));
    }
}

/// Long texts are shown from a little before where they begin to differ.
fn from_the_difference<'a>(was: &'a str, is: &'a str) -> (&'a str, &'a str) {
    if was.len() <= PART && is.len() <= PART {
        return (was, is);
    }
    let same = was.char_indices().zip(is.chars()).take_while(|((_, a), b)| a == b);
    let end = same.last().map_or(0, |((at, _), _)| at);
    let start = was[..end]
        .rfind(' ')
        .map_or(0, |space| was[..space].rfind(' ').map_or(0, |before| before + 1));
    (&was[start..], &is[start..])
}

fn shown(text: &str) -> String {
    if text.is_empty() {
        "nothing".to_owned()
    } else {
        part(text)
    }
}

fn part(text: &str) -> String {
    let kept = truncate(text, PART);
    if kept.len() < text.len() {
        format!("{kept}...")
    } else {
        kept.to_owned()
    }
}

fn first_line(text: &str) -> &str {
    text.trim().lines().next().unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(kind: &str, recorded: Option<&str>, present: Option<&str>) -> String {
        let own = |text: Option<&str>| text.map(str::to_owned);
        let (recorded, present) = (own(recorded), own(present));
        line(&Difference {
            kind: kind.into(),
            name: "x".into(),
            recorded,
            present,
        })
    }

    #[test]
    fn says_what_came_went_and_changed() {
        assert_eq!(said("index", Some("CREATE INDEX x ON t (a)"), None), "index x: gone");
        assert_eq!(said("table", None, Some("")), "table x: new");
        assert_eq!(said("grant", None, Some("SELECT")), "grant x: new: SELECT");
        assert_eq!(
            said("column", Some("integer"), Some("bigint")),
            "column x: integer -> bigint"
        );
        assert_eq!(
            said("table", Some(""), Some("UNLOGGED")),
            "table x: nothing -> UNLOGGED"
        );
        assert_eq!(
            said(
                "function",
                Some("CREATE\n BEGIN\n  a := 1;\n"),
                Some("CREATE\n BEGIN\n  a := 2;\n")
            ),
            "function x: line 3: a := 1; -> a := 2;"
        );
        assert_eq!(
            said("view", Some(" SELECT 1\n   FROM a"), Some(" SELECT 1")),
            "view x: line 2: FROM a -> nothing"
        );
    }

    #[test]
    fn long_texts_are_shown_where_they_differ_and_cut() {
        let long = "é word ".repeat(60);
        let text = said(
            "check",
            Some(&format!("{long}old end")),
            Some(&format!("{long}new end")),
        );
        assert_eq!(text, "check x: é word old end -> é word new end");
        let text = said("check", None, Some(&long));
        assert!(text.len() < 200 && text.ends_with("..."), "{text}");
        // One that begins differently, and one that is the beginning of the other.
        assert!(said("check", Some(&long), Some("a")).starts_with("check x: é word"));
        let text = said("check", Some(&long), Some(&format!("{long}more")));
        assert!(text.ends_with("more"), "{text}");
    }
}
