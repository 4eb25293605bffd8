//! Puts back what can be put back without losing anything: indexes, views, functions, triggers, grants, by their recorded
//! definitions. What somebody added stays (its definition is nowhere else), but for a grant, which is taken back.

use std::time::Duration;

use sqlx::PgConnection;

use super::{Difference, look};
use crate::{
    api::names::SqlName,
    migrate::{history, report::Failure, session},
};

/// Unqualified names are those of the schema public; bodies of functions may name what their own search_path has. Locks
/// that others wait behind are not waited for long.
const SETTINGS: &str = "SET search_path = public, pg_temp; SET check_function_bodies = off; SET lock_timeout = '1s'";
/// The build of an index stands in nobody's way while it waits.
const PATIENT: &str = "SET lock_timeout = 0";

/// What became of one difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub difference: Difference,
    /// What the server said, if it did not work.
    pub refused: Option<String>,
}

/// Whether it is of a kind that is put back.
pub fn is_correctable(difference: &Difference) -> bool {
    !attempts(difference).is_empty()
}

/// Corrects what can be corrected, under the migration lock, which is not waited for longer than `patience`.
pub async fn correct(conn: &mut PgConnection, schema: &SqlName, patience: Duration) -> Result<Vec<Outcome>, Failure> {
    let identity = history::identity(conn).await?;
    let database = history::database(&identity).to_owned();
    session::lock(conn, &database, patience, &mut |_| {}).await?;
    let outcome = locked(conn, schema).await;
    session::ask(conn, "RESET ALL").await?;
    session::unlock(conn, &database).await?;
    outcome
}

async fn locked(conn: &mut PgConnection, schema: &SqlName) -> Result<Vec<Outcome>, Failure> {
    let Some(drift) = look(conn, schema).await? else {
        return Ok(Vec::new());
    };
    let mut left: Vec<Difference> = drift.differences.into_iter().filter(is_correctable).collect();
    left.sort_by_key(|difference| rank(&difference.kind));
    let mut done = Vec::new();
    // A view may be built on the next one: those that were refused come again as long as others get through.
    loop {
        let before = left.len();
        let mut refused = Vec::new();
        for difference in left {
            let outcome = one(conn, difference).await?;
            match outcome.refused {
                None => done.push(outcome),
                Some(_) => refused.push(outcome),
            }
        }
        if refused.is_empty() || refused.len() == before {
            done.extend(refused);
            return Ok(done);
        }
        left = refused.into_iter().map(|outcome| outcome.difference).collect();
    }
}

fn rank(kind: &str) -> usize {
    const ORDER: [&str; 6] = ["function", "procedure", "view", "index", "trigger", "grant"];
    ORDER.iter().position(|known| *known == kind).unwrap_or(ORDER.len())
}

async fn one(conn: &mut PgConnection, difference: Difference) -> Result<Outcome, Failure> {
    let mut refused = None;
    for attempt in attempts(&difference) {
        refused = messages(conn, &attempt).await?;
        if refused.is_none() {
            break;
        }
    }
    Ok(Outcome { difference, refused })
}

/// Sends them in turn until one is refused; gives what the server said.
async fn messages(conn: &mut PgConnection, attempt: &[String]) -> Result<Option<String>, Failure> {
    for message in attempt {
        let settings = if message.contains("INDEX CONCURRENTLY") {
            PATIENT
        } else {
            ""
        };
        session::ask(conn, &format!("{SETTINGS}; {settings}")).await?;
        match session::send(conn, message).await {
            Ok(()) => {}
            Err(failed) => match failed.error {
                sqlx::Error::Database(error) => return Ok(Some(error.message().to_owned())),
                error => return Err(error.into()),
            },
        }
    }
    Ok(None)
}

/// What to try, one after the other: messages, each a transaction.
fn attempts(difference: &Difference) -> Vec<Vec<String>> {
    let (name, recorded) = (difference.name.as_str(), difference.recorded.as_deref());
    match (difference.kind.as_str(), recorded) {
        ("grant", recorded) => grant(name, recorded).into_iter().map(|message| vec![message]).collect(),
        (_, None) => Vec::new(),
        ("function" | "procedure", Some(definition)) => vec![vec![definition.to_owned()]],
        ("view", Some(definition)) => {
            let (options, query) = match definition
                .strip_prefix("WITH (")
                .and_then(|_| definition.split_once('\n'))
            {
                Some((options, query)) => (options, query),
                None => ("", definition),
            };
            let create = |what: &str| format!("{what} {name} {options} AS {query}");
            vec![
                vec![create("CREATE OR REPLACE VIEW")],
                vec![format!("DROP VIEW IF EXISTS {name}; {}", create("CREATE VIEW"))],
            ]
        }
        ("index", Some(definition)) => index(name, definition).into_iter().collect(),
        ("trigger", Some(definition)) => trigger(name, definition)
            .into_iter()
            .map(|message| vec![message])
            .collect(),
        _ => Vec::new(),
    }
}

/// Not on a partitioned table, where it cannot be done without a lock.
fn index(name: &str, definition: &str) -> Option<Vec<String>> {
    if definition.ends_with(" INVALID") || definition.contains(" ON ONLY ") {
        return None;
    }
    let (create, rest) = definition.split_once(" INDEX ")?;
    Some(vec![
        format!("DROP INDEX CONCURRENTLY IF EXISTS {name}"),
        format!("{create} INDEX CONCURRENTLY {rest}"),
    ])
}

fn trigger(name: &str, definition: &str) -> Option<String> {
    let (table, trigger) = split_name(name)?;
    let states = [
        (" DISABLED", "DISABLE"),
        (" REPLICA", "ENABLE REPLICA"),
        (" ALWAYS", "ENABLE ALWAYS"),
    ];
    let state = states
        .iter()
        .find_map(|(suffix, state)| Some((definition.strip_suffix(suffix)?, state)));
    let drop = format!("DROP TRIGGER IF EXISTS {trigger} ON {table}");
    Some(match state {
        None => format!("{drop}; {definition}"),
        Some((definition, state)) => format!("{drop}; {definition}; ALTER TABLE {table} {state} TRIGGER {trigger}"),
    })
}

/// At the last point that is in no quoted name.
fn split_name(name: &str) -> Option<(&str, &str)> {
    let mut quoted = false;
    let mut at = None;
    for (index, c) in name.char_indices() {
        quoted ^= c == '"';
        if c == '.' && !quoted {
            at = Some(index);
        }
    }
    at.map(|at| (&name[..at], &name[at + 1..]))
}

/// `TABLE users TO reporting`: not one on columns, and not one for what will be made.
fn grant(name: &str, recorded: Option<&str>) -> Option<String> {
    let (object, role) = name.rsplit_once(" TO ")?;
    let (kind, _) = object.split_once(' ')?;
    if kind == "DEFAULT" || (kind == "TABLE" && object.ends_with(')')) {
        return None;
    }
    let by_default = match (kind, role) {
        ("FUNCTION" | "PROCEDURE", "PUBLIC") => Some("EXECUTE"),
        ("TYPE" | "DOMAIN", "PUBLIC") => Some("USAGE"),
        _ => None,
    };
    let wanted = recorded.or(by_default).filter(|wanted| *wanted != "nothing");
    let grants = wanted
        .into_iter()
        .flat_map(|wanted| wanted.split(", "))
        .map(|privilege| {
            let (privilege, option) = match privilege.strip_suffix(" WITH GRANT OPTION") {
                Some(privilege) => (privilege, " WITH GRANT OPTION"),
                None => (privilege, ""),
            };
            format!("; GRANT {privilege} ON {object} TO {role}{option}")
        });
    Some(format!(
        "REVOKE ALL ON {object} FROM {role}{}",
        grants.collect::<String>()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(kind: &str, name: &str, recorded: Option<&str>) -> Vec<Vec<String>> {
        attempts(&Difference {
            kind: kind.into(),
            name: name.into(),
            recorded: recorded.map(str::to_owned),
            present: Some("other".into()),
        })
    }

    #[test]
    fn what_loses_nothing_is_put_back() {
        assert_eq!(
            tried(
                "index",
                "t_a",
                Some("CREATE UNIQUE INDEX t_a ON public.t USING btree (a)")
            ),
            [[
                "DROP INDEX CONCURRENTLY IF EXISTS t_a",
                "CREATE UNIQUE INDEX CONCURRENTLY t_a ON public.t USING btree (a)"
            ]]
        );
        assert_eq!(
            tried("view", "v", Some("WITH (security_barrier=true)\n SELECT 1"))[0],
            ["CREATE OR REPLACE VIEW v WITH (security_barrier=true) AS  SELECT 1"]
        );
        assert_eq!(
            tried("trigger", "\"a.b\".t", Some("CREATE TRIGGER t DISABLED")),
            [["DROP TRIGGER IF EXISTS t ON \"a.b\"; CREATE TRIGGER t; ALTER TABLE \"a.b\" DISABLE TRIGGER t"]]
        );
        assert_eq!(
            tried(
                "grant",
                "TABLE t TO \"My Role\"",
                Some("INSERT, SELECT WITH GRANT OPTION")
            ),
            [[
                "REVOKE ALL ON TABLE t FROM \"My Role\"; GRANT INSERT ON TABLE t TO \"My Role\"; GRANT SELECT ON TABLE t TO \"My Role\" WITH GRANT OPTION"
            ]]
        );
        assert_eq!(tried("grant", "TABLE t TO x", None), [["REVOKE ALL ON TABLE t FROM x"]]);
        assert_eq!(
            tried("grant", "FUNCTION f(integer) TO PUBLIC", None),
            [["REVOKE ALL ON FUNCTION f(integer) FROM PUBLIC; GRANT EXECUTE ON FUNCTION f(integer) TO PUBLIC"]]
        );
    }

    #[test]
    fn what_could_lose_something_is_only_told() {
        for (kind, name, recorded) in [
            ("table", "t", Some("")),
            ("column", "t.a", Some("integer")),
            ("constraint", "t.c", Some("CHECK (true)")),
            ("materialized view", "m", Some("SELECT 1")),
            ("index", "new_one", None),
            ("function", "new_one()", None),
            (
                "index",
                "on_a_partitioned",
                Some("CREATE INDEX i ON ONLY public.t USING btree (a)"),
            ),
            ("grant", "TABLE t (a) TO x", Some("SELECT")),
            ("grant", "DEFAULT ON TABLES OF o TO x", Some("SELECT")),
        ] {
            assert_eq!(tried(kind, name, recorded), [[""; 0]; 0], "{kind} {name}");
        }
    }
}
