//! `migrate plan`: what would run, statement by statement, and the hash that approves exactly that.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use sqlx::{Connection, PgConnection};

use crate::migrate::{
    consent::Consent,
    history::{self, State},
    plan::{self, Direction, Plan, Planned},
    report::Failure,
    source::Source,
};

use super::args::{Output, PlanArgs};

/// What the catalog says about a table, as of the last ANALYZE. Shown, never part of the hash.
#[derive(Debug, Serialize)]
struct Estimate {
    /// None when the table was never analyzed.
    rows: Option<i64>,
    bytes: i64,
}

pub(super) async fn plan(args: &PlanArgs) -> Result<(), Failure> {
    let source = Source::load(&args.dirs.dirs)?;
    let options = args.database.options();
    let mut conn = None;
    if args.database.given() {
        conn = Some(args.database.connect().await?);
    }
    let (state, identity) = match &mut conn {
        Some(conn) => {
            let down = args.to;
            let state = history::read(conn, &options.schema, down).await?.unwrap_or_default();
            (state, Some(history::identity(conn).await?))
        }
        None => (State::default(), args.identity.clone()),
    };
    let plan = plan::plan(&source, &state.applied, args.to)?;
    let statements = plan.statements(&source, &state)?;
    let hash = identity.map(|identity| plan.hash(&identity, &options));
    let tables = match &mut conn {
        Some(conn) => estimates(conn, &statements).await?,
        None => BTreeMap::new(),
    };
    if let Some(conn) = conn {
        conn.close().await?;
    }
    match args.output {
        Output::Json => print_json(&plan, hash.as_deref(), &statements, &tables),
        Output::Table => print!("{}", table(&plan, hash.as_deref(), &statements, &tables)),
    }
    Ok(())
}

/// Rows and sizes of the tables that are locked, in one query.
async fn estimates(conn: &mut PgConnection, statements: &[Planned]) -> Result<BTreeMap<String, Estimate>, Failure> {
    let mut names: Vec<String> = statements
        .iter()
        .flat_map(|statement| statement.locks.iter().map(|lock| lock.table.clone()))
        .collect();
    names.sort();
    names.dedup();
    let sql = "SELECT name, CASE WHEN c.reltuples < 0 THEN NULL ELSE c.reltuples::pg_catalog.int8 END, \
               pg_catalog.pg_total_relation_size(c.oid) FROM pg_catalog.unnest($1::text[]) name \
               JOIN pg_catalog.pg_class c ON c.oid = pg_catalog.to_regclass(name)";
    let rows: Vec<(String, Option<i64>, i64)> = sqlx::query_as(sql).bind(names).fetch_all(conn).await?;
    let pairs = rows
        .into_iter()
        .map(|(name, rows, bytes)| (name, Estimate { rows, bytes }));
    Ok(pairs.collect())
}

fn print_json(plan: &Plan, hash: Option<&str>, statements: &[Planned], tables: &BTreeMap<String, Estimate>) {
    let json = serde_json::json!({
        "direction": plan.direction,
        "from": plan.from,
        "to": plan.to,
        "migrations": plan.steps.len(),
        "hash": hash,
        "statements": statements,
        "tables": tables,
    });
    println!("{json:#}");
}

fn table(plan: &Plan, hash: Option<&str>, statements: &[Planned], tables: &BTreeMap<String, Estimate>) -> String {
    let mut text = format!("{}\n", plan.headline(statements.len()));
    match hash {
        Some(hash) => text.push_str(&format!("hash {hash}\n")),
        None => text.push_str("no hash: it is bound to a database; name it by --database-url or --identity\n"),
    }
    for statement in statements {
        text.push_str(&statement.print(&statement.statement, &|table| size(tables.get(table))));
    }
    let nothing = Consent::Versions(BTreeSet::new());
    if let Some(losses) = nothing.refuse(statements).filter(|_| plan.direction == Direction::Up) {
        text.push_str(&format!("up needs --allow-destructive {}\n", losses.list(",")));
    }
    text
}

fn size(estimate: Option<&Estimate>) -> String {
    let Some(estimate) = estimate else {
        return String::new();
    };
    let rows = estimate.rows.map_or("unknown".to_owned(), |rows| rows.to_string());
    format!(" (about {rows} rows, {} KiB)", estimate.bytes / 1024)
}
