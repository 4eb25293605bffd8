//! `drift`: what somebody has changed since the last run, what of it can be put back, or that it is right as it is.

use std::time::Duration;

use sqlx::{Connection, PgConnection};

use crate::{
    api::names::SqlName,
    migrate::{
        drift::{self, Drift, correct},
        report::Failure,
    },
};

use super::args::{DatabaseArgs, Output, duration};

#[derive(Debug, clap::Args)]
pub(super) struct DriftArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    /// Record the schema as it is now as the right one.
    #[arg(long, conflicts_with = "correct")]
    accept: bool,
    /// Put back what can be put back without losing anything: indexes, views, functions, triggers, grants.
    #[arg(long)]
    correct: bool,
    /// How long --correct waits for a migration to finish.
    #[arg(long, default_value = "5m", value_parser = duration, value_name = "TIME")]
    lock_timeout: Duration,
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

pub(super) async fn drift(args: &DriftArgs) -> Result<(), Failure> {
    let options = args.database.options();
    let mut conn = args.database.connect().await?;
    let found = read(&mut conn, args, &options.schema).await?;
    conn.close().await?;
    match args.output {
        Output::Json => println!("{:#}", serde_json::json!(found)),
        Output::Table => print(&found),
    }
    match found.total {
        0 => Ok(()),
        total => Err(Failure::Drifted(total)),
    }
}

/// Does what was asked for and looks.
async fn read(conn: &mut PgConnection, args: &DriftArgs, schema: &SqlName) -> Result<Drift, Failure> {
    let nothing = || {
        Failure::Usage("no schema was recorded in this database: a run of migrations does that, and stamp".to_owned())
    };
    let found = drift::look(conn, schema).await?.ok_or_else(nothing)?;
    if args.accept {
        for difference in &found.differences {
            eprintln!("accepted: {difference}");
        }
        drift::accept(conn, schema).await?;
    } else if args.correct {
        for outcome in correct::correct(conn, schema, args.lock_timeout).await? {
            match &outcome.refused {
                None => eprintln!("put back: {}", outcome.difference),
                Some(why) => eprintln!("not put back: {}: {why}", outcome.difference),
            }
        }
    } else {
        return Ok(found);
    }
    drift::look(conn, schema).await?.ok_or_else(nothing)
}

fn print(found: &Drift) {
    for difference in &found.differences {
        println!("{difference}");
    }
    let more = found.total - found.differences.len().min(found.total);
    match (found.unknown, more) {
        (Some(why), _) => println!("nothing to compare with: {why}"),
        (None, 0) if found.total == 0 => println!("the schema is as version {} left it", found.version),
        (None, 0) => {}
        (None, more) => println!("and {more} more"),
    }
}
