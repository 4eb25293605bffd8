//! Puts back what can be put back without losing anything: indexes, views, functions, triggers, grants, by their recorded
//! definitions. What somebody added stays (its definition is nowhere else), but for a grant, which is taken back. What is there goes only together
//! with the coming of what takes its place.

use std::time::Duration;

use sqlx::PgConnection;

use super::{Difference, look};
use crate::{
    api::names::SqlName,
    migrate::{history, report::Failure, session},
};

mod index;
mod view;

/// Unqualified names are those of the schema public; bodies of functions may name what their own search_path has. Locks
/// that others wait behind are not waited for long.
const QUICK: &str = "SET search_path = public, pg_temp; SET check_function_bodies = off; SET lock_timeout = '1s'";
/// The build of an index stands in nobody's way while it waits.
const PATIENT: &str = "SET search_path = public, pg_temp; SET check_function_bodies = off; SET lock_timeout = 0";

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
    let mut done = once(conn, schema).await?;
    // what is part of a view shows only when the view is there again, and a new one has what the defaults give
    let is_view = |outcome: &Outcome| outcome.difference.kind == "view" && outcome.refused.is_none();
    if done.iter().any(is_view) {
        done.retain(|outcome| outcome.refused.is_none());
        done.extend(once(conn, schema).await?);
    }
    Ok(done)
}

/// Looks, and corrects what there is.
async fn once(conn: &mut PgConnection, schema: &SqlName) -> Result<Vec<Outcome>, Failure> {
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
        refused = match &attempt {
            Attempt::Message(message) => said(conn, QUICK, message).await?,
            Attempt::Sweep(message) => said(conn, PATIENT, message).await?,
            Attempt::Index(index) => index::put_back(conn, index).await?,
            Attempt::View(definition) => view::make_anew(conn, &difference.name, definition).await?,
        };
        if refused.is_none() {
            break;
        }
    }
    Ok(Outcome { difference, refused })
}

/// Sends a message with these settings; gives what the server said if it refused.
async fn said(conn: &mut PgConnection, settings: &str, message: &str) -> Result<Option<String>, Failure> {
    session::ask(conn, settings).await?;
    match session::send(conn, message).await {
        Ok(()) => Ok(None),
        Err(failed) => match failed.error {
            sqlx::Error::Database(error) => Ok(Some(error.message().to_owned())),
            error => Err(error.into()),
        },
    }
}

/// One way to put something back.
#[derive(Debug, PartialEq, Eq)]
enum Attempt {
    /// A transaction.
    Message(String),
    /// One of no transaction.
    Sweep(String),
    Index(index::Rebuilt),
    /// A view that is made anew by its definition.
    View(String),
}

/// What to try, one after the other.
fn attempts(difference: &Difference) -> Vec<Attempt> {
    let (name, recorded) = (difference.name.as_str(), difference.recorded.as_deref());
    let message = |text: Option<String>| -> Vec<Attempt> { text.map(Attempt::Message).into_iter().collect() };
    match (difference.kind.as_str(), recorded) {
        ("grant", recorded) => message(grant(name, recorded)),
        ("index", None) => index::leftover(name).map(Attempt::Sweep).into_iter().collect(),
        (_, None) => Vec::new(),
        ("function" | "procedure", Some(definition)) => message(Some(definition.to_owned())),
        ("view", Some(definition)) => vec![
            Attempt::Message(view::create("CREATE OR REPLACE VIEW", name, definition)),
            Attempt::View(definition.to_owned()),
        ],
        ("index", Some(definition)) => {
            let rebuilt = index::rebuilt(name, definition);
            rebuilt.map(Attempt::Index).into_iter().collect()
        }
        ("trigger", Some(definition)) => message(trigger(name, definition)),
        _ => Vec::new(),
    }
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

    fn tried(kind: &str, name: &str, recorded: Option<&str>) -> Vec<Attempt> {
        attempts(&Difference {
            kind: kind.into(),
            name: name.into(),
            recorded: recorded.map(str::to_owned),
            present: Some("other".into()),
        })
    }

    fn message(text: &str) -> Attempt {
        Attempt::Message(text.to_owned())
    }

    #[test]
    fn what_loses_nothing_is_put_back() {
        let index = "CREATE UNIQUE INDEX t_a ON public.t USING btree (a)";
        assert!(matches!(&tried("index", "t_a", Some(index))[..], [Attempt::Index(_)]));
        assert!(matches!(
            &tried("index", "amas_correcting", None)[..],
            [Attempt::Sweep(_)]
        ));
        let view = "WITH (security_barrier=true)\n SELECT 1";
        assert_eq!(
            tried("view", "v", Some(view)),
            [
                message("CREATE OR REPLACE VIEW v WITH (security_barrier=true) AS  SELECT 1"),
                Attempt::View(view.to_owned())
            ]
        );
        assert_eq!(
            tried("trigger", "\"a.b\".t", Some("CREATE TRIGGER t DISABLED")),
            [message(
                "DROP TRIGGER IF EXISTS t ON \"a.b\"; CREATE TRIGGER t; ALTER TABLE \"a.b\" DISABLE TRIGGER t"
            )]
        );
        assert_eq!(
            tried(
                "grant",
                "TABLE t TO \"My Role\"",
                Some("INSERT, SELECT WITH GRANT OPTION")
            ),
            [message(
                "REVOKE ALL ON TABLE t FROM \"My Role\"; GRANT INSERT ON TABLE t TO \"My Role\"; GRANT SELECT ON TABLE t TO \"My Role\" WITH GRANT OPTION"
            )]
        );
        assert_eq!(
            tried("grant", "TABLE t TO x", None),
            [message("REVOKE ALL ON TABLE t FROM x")]
        );
        assert_eq!(
            tried("grant", "FUNCTION f(integer) TO PUBLIC", None),
            [message(
                "REVOKE ALL ON FUNCTION f(integer) FROM PUBLIC; GRANT EXECUTE ON FUNCTION f(integer) TO PUBLIC"
            )]
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
            assert_eq!(tried(kind, name, recorded), [], "{kind} {name}");
        }
    }
}
