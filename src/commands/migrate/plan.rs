//! `migrate plan`: what would run, statement by statement, and the hash that approves exactly that.

use std::collections::BTreeSet;

use sqlx::Connection;

use crate::migrate::{
    consent::Consent,
    history::{self, State},
    plan::{self, Direction, Estimates, Plan, Planned},
    report::Failure,
    source::Source,
};

use super::args::{DatabaseArgs, DirArgs, Output};

#[derive(Debug, clap::Args)]
pub(super) struct PlanArgs {
    #[command(flatten)]
    dirs: DirArgs,
    /// Without a database, all files are pending.
    #[command(flatten)]
    database: DatabaseArgs,
    /// Up or down to this version. Default: the newest.
    #[arg(long, value_name = "VERSION")]
    to: Option<i64>,
    /// The database that the hash is for, when it is not asked: SYSTEM_IDENTIFIER/NAME.
    #[arg(long, value_name = "ID/NAME")]
    identity: Option<String>,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

/// A plan with what is told of it.
struct Told {
    plan: Plan,
    hash: Option<String>,
    statements: Vec<Planned>,
    tables: Estimates,
    warning: Option<String>,
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
    let tables = match &mut conn {
        Some(conn) => plan::estimates(conn, &plan::tables(&statements), &options.search_path).await?,
        None => Estimates::new(),
    };
    if let Some(conn) = conn {
        conn.close().await?;
    }
    let told = Told {
        hash: identity.map(|identity| plan.hash(&identity, &options)),
        warning: plan.warning(&source),
        plan,
        statements,
        tables,
    };
    match args.output {
        Output::Json => println!("{:#}", json(&told)),
        Output::Table => print!("{}", table(&told)),
    }
    Ok(())
}

fn json(told: &Told) -> serde_json::Value {
    serde_json::json!({
        "direction": told.plan.direction,
        "from": told.plan.from,
        "to": told.plan.to,
        "migrations": told.plan.steps.len(),
        "hash": told.hash,
        "warning": told.warning,
        "statements": told.statements,
        "tables": told.tables,
    })
}

fn table(told: &Told) -> String {
    let mut text = format!("{}\n", told.plan.headline(told.statements.len()));
    if let Some(warning) = &told.warning {
        text.push_str(&format!("warning: {warning}\n"));
    }
    match &told.hash {
        Some(hash) => text.push_str(&format!("hash {hash}\n")),
        None => text.push_str("no hash: it is bound to a database; name it by --database-url or --identity\n"),
    }
    for statement in &told.statements {
        text.push_str(&statement.print(&statement.statement, &told.tables));
    }
    let nothing = Consent::Versions(BTreeSet::new());
    let losses = nothing.refuse(&told.statements);
    if let Some(losses) = losses.filter(|_| told.plan.direction == Direction::Up) {
        text.push_str(&format!("up needs --allow-destructive {}\n", losses.list(",")));
    }
    text
}
