//! What the words of a statement tell, where it is not understood or only pieces of it are there. Pure.

use super::{Loss, StatementFacts};
use crate::migrate::statements::tokens::{self, Kind};

/// Only what begins with one of these can lose anything; the rest may be long, and is not gone through.
const LOSING: &[&str] = &[
    "ALTER", "DELETE", "DROP", "EXPLAIN", "PREPARE", "TRUNCATE", "UPDATE", "WITH",
];
/// Words before DELETE or UPDATE that make something else of it: of a lock, a foreign key, a conflict, a MERGE.
const OTHERWISE: &[&str] = &["DO", "FOR", "KEY", "ON", "THEN"];

/// The facts of what no parser knows: the server has the last word on its own language.
pub(super) fn unknown(sql: &str) -> StatementFacts {
    let all = words(sql);
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    StatementFacts {
        unlisted: true,
        destructive: lost_by(&all),
        renames: renames(&all),
        ..StatementFacts::default()
    }
}

/// What is lost at the least favourable.
pub(super) fn lost(sql: &str) -> Option<Loss> {
    let all = words(sql);
    lost_by(&all.iter().map(String::as_str).collect::<Vec<_>>())
}

/// In capitals; none of what cannot lose anything.
fn words(sql: &str) -> Vec<String> {
    let all = || {
        let tokens = tokens::each(sql).map_while(Result::ok);
        tokens.filter(|token| token.kind == Kind::Word)
    };
    let loses = all()
        .next()
        .is_some_and(|first| LOSING.iter().any(|word| first.is(sql, word)));
    match loses {
        true => all().map(|word| word.text(sql).to_ascii_uppercase()).collect(),
        false => Vec::new(),
    }
}

/// Whether names may stand for other relations after it.
fn renames(words: &[&str]) -> bool {
    let relations = ["FOREIGN", "MATERIALIZED", "SCHEMA", "SEQUENCE", "TABLE", "VIEW"];
    let ways = ["ATTACH", "INHERIT", "RENAME", "SCHEMA"];
    match words {
        ["ALTER", what, rest @ ..] => relations.contains(what) && rest.iter().any(|word| ways.contains(word)),
        _ => false,
    }
}

/// Of two words that follow each other.
fn changes_all(before: &str, word: &str) -> Option<Loss> {
    let loss = match word {
        "DELETE" => Some(Loss::DeleteAll),
        "UPDATE" => Some(Loss::UpdateAll),
        _ => None,
    };
    loss.filter(|_| !OTHERWISE.contains(&before))
}

/// What words in capitals, the first of which is a command, lose at the least favourable.
fn lost_by(words: &[&str]) -> Option<Loss> {
    let limited = words.contains(&"WHERE");
    match words {
        ["TRUNCATE", ..] => Some(Loss::Truncate),
        ["DELETE", ..] if !limited => Some(Loss::DeleteAll),
        ["UPDATE", ..] if !limited => Some(Loss::UpdateAll),
        ["ALTER", "TABLE" | "FOREIGN", rest @ ..] => {
            let kept = ["CONSTRAINT", "DEFAULT", "NOT", "EXPRESSION", "IDENTITY"];
            let drops = |(at, word): (usize, &&str)| {
                *word == "DROP" && rest.get(at + 1).is_none_or(|next| !kept.contains(next))
            };
            rest.iter().enumerate().any(drops).then_some(Loss::DropColumn)
        }
        ["ALTER", "TYPE", rest @ ..] => {
            let drops = rest.windows(2).any(|pair| pair == ["DROP", "ATTRIBUTE"]);
            drops.then_some(Loss::DropColumn)
        }
        ["EXPLAIN", rest @ ..] if !rest.contains(&"ANALYZE") => None,
        ["WITH" | "EXPLAIN" | "PREPARE", ..] if !limited => {
            words.windows(2).find_map(|pair| changes_all(pair[0], pair[1]))
        }
        ["DROP", what, ..] => match *what {
            "TABLE" | "FOREIGN" => Some(Loss::DropTable),
            "SCHEMA" => Some(Loss::DropSchema),
            "DATABASE" => Some(Loss::DropDatabase),
            "SEQUENCE" => Some(Loss::DropSequence),
            "TYPE" | "DOMAIN" => Some(Loss::DropType),
            "EXTENSION" => Some(Loss::DropExtension),
            "OWNED" => Some(Loss::DropOwned),
            _ if words.contains(&"CASCADE") => Some(Loss::Cascade),
            "AMAS_ANY" => Some(Loss::DropAny),
            _ => None,
        },
        ["DROP"] => Some(Loss::DropAny),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_understood_is_judged_by_its_words() {
        let deep = format!("DELETE FROM t USING {}u{}", "(".repeat(200), ")".repeat(200));
        let deep_with = format!(
            "WITH g AS (DELETE FROM t RETURNING {}1{}) TABLE g",
            "(".repeat(200),
            ")".repeat(200)
        );
        let cases = [
            ("DROP TABLE t SOMEHOW NEW", Some(Loss::DropTable)),
            ("TRUNCATE t SOMEHOW NEW", Some(Loss::Truncate)),
            ("ALTER TYPE a DROP ATTRIBUTE b SOMEHOW NEW", Some(Loss::DropColumn)),
            ("DROP WHATEVER w SOMEHOW CASCADE", Some(Loss::Cascade)),
            ("EXPLAIN ANALYZE DELETE FROM t SOMEHOW NEW THING", Some(Loss::DeleteAll)),
            ("EXPLAIN DELETE FROM t SOMEHOW NEW THING", None),
            ("WITH x AS SOMEHOW NEW (SELECT 1 FROM t FOR UPDATE) TABLE x", None),
            ("UPDATE t SOMEHOW NEW SET a = 1 WHERE b", None),
            ("CREATE SOMETHING NEW AS 'DROP TABLE t'", None),
            ("INSERT INTO t SOMEHOW NEW ON CONFLICT DO UPDATE SET a = 1", None),
            (deep.as_str(), Some(Loss::DeleteAll)),
            (deep_with.as_str(), Some(Loss::DeleteAll)),
        ];
        for (sql, expected) in cases {
            let facts = crate::migrate::analysis::facts(sql);
            assert_eq!((facts.kind.as_str(), facts.destructive), ("UNKNOWN", expected), "{sql}");
        }
        assert!(unknown("ALTER TABLE t SOMEHOW RENAME TO u").renames);
        assert!(!unknown("ALTER TABLE t SOMEHOW NEW").renames);
    }
}
