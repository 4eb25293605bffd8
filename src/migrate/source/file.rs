//! One migration file: its name taken apart, its bytes checked.

use crate::migrate::statements::{column_at, line_at};

/// The part of a path after its last slash.
pub fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The text of a file that does something.
pub fn statements_of(name: &str, bytes: Vec<u8>) -> Result<String, String> {
    let sql = text(name, bytes)?;
    if sql.trim().is_empty() {
        return Err(format!(
            "{name}: is empty; write at least one statement (SELECT 1; if there is nothing to do)"
        ));
    }
    Ok(sql)
}

/// Checks one file's bytes: UTF-8 without a byte order mark, no NUL.
pub fn text(name: &str, bytes: Vec<u8>) -> Result<String, String> {
    if bytes.starts_with(b"\xEF\xBB\xBF") {
        return Err(format!(
            "{name}: starts with a byte order mark; save it as UTF-8 without one"
        ));
    }
    if bytes.starts_with(b"\xFF\xFE") || bytes.starts_with(b"\xFE\xFF") {
        return Err(format!("{name}: is UTF-16; save it as UTF-8"));
    }
    let place = |sql: &str, at: usize| format!("{name}:{}:{}", line_at(sql, at), column_at(sql, at));
    let sql = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let read = String::from_utf8_lossy(&error.as_bytes()[..at]);
        format!(
            "{}: is not UTF-8 from here on; save the file as UTF-8",
            place(&read, at)
        )
    })?;
    if let Some(at) = sql.find('\0') {
        return Err(format!(
            "{}: a NUL character, which PostgreSQL cannot take; remove it",
            place(&sql, at)
        ));
    }
    Ok(sql)
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Plain,
    Up,
    Down,
}

/// A name taken apart the way sqlx does it.
pub struct Name {
    pub version: i64,
    pub description: String,
    pub kind: Kind,
}

pub fn parse_name(file: &str) -> Result<Name, String> {
    let bad = |why: &str| {
        format!(
            "{why}; name it NNNN_name.up.sql and NNNN_name.down.sql (or NNNN_name.sql for one that has no way back)"
        )
    };
    let (prefix, rest) = file.split_once('_').ok_or_else(|| bad("has no version"))?;
    let digits = !prefix.is_empty() && prefix.bytes().all(|b| b.is_ascii_digit());
    let version = prefix.parse::<i64>().ok().filter(|&version| digits && version > 0);
    let version = version.ok_or_else(|| bad("has no version greater than zero before the first underscore"))?;
    let (kind, suffix) = match rest {
        _ if rest.ends_with(".up.sql") => (Kind::Up, ".up.sql"),
        _ if rest.ends_with(".down.sql") => (Kind::Down, ".down.sql"),
        _ => (Kind::Plain, ".sql"),
    };
    let lower = rest.to_ascii_lowercase();
    if kind == Kind::Plain && (lower.ends_with(".up.sql") || lower.ends_with(".down.sql")) {
        return Err(bad("has its direction in capitals"));
    }
    let description = rest.trim_end_matches(suffix).replace('_', " ");
    if description.trim().is_empty() {
        return Err(bad("has no description after the version"));
    }
    Ok(Name {
        version,
        description,
        kind,
    })
}
