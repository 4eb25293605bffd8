//! What a statement of the script says, as far as anything is decided by it. Pure.

const ATTACH: &str = " ATTACH PARTITION ";
pub(super) const SETVAL: &str = "SELECT pg_catalog.setval(";

/// Where a quoted name stands in a text, and not as a part of another.
pub(super) fn position(text: &str, name: &str) -> Option<usize> {
    text.match_indices(name).map(|(at, _)| at).find(|&at| {
        let (before, after) = (&text[..at], &text[at + name.len()..]);
        !before.ends_with(['"', '.']) && !after.starts_with('"')
    })
}

/// A sequence is never put back to a lower number than it has given out.
pub(super) fn setval(statement: &str) -> Option<String> {
    let arguments = statement.strip_prefix(SETVAL)?.strip_suffix(')')?;
    let (rest, _) = arguments.rsplit_once(", ")?;
    let (name, number) = rest.rsplit_once(", ")?;
    number.parse::<i64>().ok()?;
    Some(format!(
        "{statement} WHERE coalesce(pg_catalog.pg_sequence_last_value({name}::pg_catalog.regclass) < {number}, true)"
    ))
}

/// Of what makes a table a partition: the table that it is to be part of, and the rest, which begins with its own name.
pub(super) fn attached(statement: &str) -> Option<(&str, &str)> {
    let (whole, part) = statement.strip_prefix("ALTER TABLE ONLY ")?.split_once(ATTACH)?;
    whole.ends_with('"').then_some((whole, part))
}

pub(super) fn attaches_index(statement: &str) -> bool {
    statement.starts_with("ALTER INDEX ") && statement.contains(ATTACH)
}

pub(super) fn adds_foreign_key(statement: &str, table: &str) -> bool {
    let added = altered(statement, table).and_then(|how| how.strip_prefix("ADD CONSTRAINT "));
    added.is_some_and(|constraint| constraint.contains(" FOREIGN KEY ("))
}

/// Switches a trigger on or off, which may be one that a partition has from its table.
pub(super) fn switches_trigger(statement: &str, table: &str) -> bool {
    let how = altered(statement, table).filter(|how| how.starts_with("ENABLE ") || how.starts_with("DISABLE "));
    how.is_some_and(|how| how.contains("TRIGGER "))
}

/// What is done to a table.
fn altered<'a>(statement: &'a str, table: &str) -> Option<&'a str> {
    let rest = statement.strip_prefix("ALTER TABLE ")?;
    let rest = rest.strip_prefix("ONLY ").unwrap_or(rest);
    Some(rest.strip_prefix(table)?.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: &str = "\"s\".\"t\"";

    #[test]
    fn a_sequence_never_goes_back() {
        let sql = setval("SELECT pg_catalog.setval('\"public\".\"t_id_seq\"', 3, true)").unwrap();
        assert!(
            sql.ends_with("WHERE coalesce(pg_catalog.pg_sequence_last_value('\"public\".\"t_id_seq\"'::pg_catalog.regclass) < 3, true)"),
            "{sql}"
        );
        assert_eq!(setval("SELECT pg_catalog.setval('x')"), None);
    }

    #[test]
    fn what_partitions_are_about_is_seen() {
        let attach = "ALTER TABLE ONLY \"s\".\"t\" ATTACH PARTITION \"s\".\"t_1\" FOR VALUES FROM (0) TO (9)";
        assert_eq!(attached(attach), Some((T, "\"s\".\"t_1\" FOR VALUES FROM (0) TO (9)")));
        let index = "ALTER INDEX \"s\".\"t_pkey\" ATTACH PARTITION \"s\".\"t_1_pkey\"";
        assert!(attaches_index(index) && attached(index).is_none());
        let key =
            "ALTER TABLE ONLY \"s\".\"t\"\n    ADD CONSTRAINT \"k\" FOREIGN KEY (\"a\") REFERENCES \"s\".\"u\"(\"id\")";
        assert!(adds_foreign_key(key, T) && !switches_trigger(key, T) && !adds_foreign_key(key, "\"s\".\"u\""));
        let primary = "ALTER TABLE ONLY \"s\".\"t\"\n    ADD CONSTRAINT \"k\" PRIMARY KEY (\"id\")";
        assert!(!adds_foreign_key(primary, T));
        assert!(switches_trigger(
            "ALTER TABLE \"s\".\"t\" ENABLE ALWAYS TRIGGER \"x\"",
            T
        ));
        assert!(switches_trigger("ALTER TABLE \"s\".\"t\" DISABLE TRIGGER \"x\"", T));
        assert!(!switches_trigger(
            "ALTER TABLE \"s\".\"t\" ENABLE ROW LEVEL SECURITY",
            T
        ));
    }
}
