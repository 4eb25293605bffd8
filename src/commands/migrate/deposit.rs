//! `deposit`: the files of an image, which the Job sees and nobody else, into the database. For the operator's Jobs.

use std::path::{Path, PathBuf};

use sqlx::Connection;

use crate::migrate::{
    deposit,
    report::{Failure, Report},
    source::{base_name, read_sql_files},
};

use super::{args::DatabaseArgs, leave_message};

#[derive(Debug, clap::Args)]
pub(super) struct DepositArgs {
    /// The folder.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// What the source is called.
    #[arg(long, value_name = "NAME")]
    source: String,
    #[command(flatten)]
    database: DatabaseArgs,
    /// Write the failure as JSON to this file (/dev/termination-log).
    #[arg(long, value_name = "FILE")]
    termination_message: Option<PathBuf>,
}

pub(super) async fn deposit(args: &DepositArgs) -> Result<(), Failure> {
    let outcome = stored(args).await;
    let Err(failure) = outcome else {
        eprintln!("the files are in the database");
        return Ok(());
    };
    let report = Report::early(failure);
    leave_message(args.termination_message.as_deref(), &report);
    report.failure.map_or(Ok(()), Err)
}

async fn stored(args: &DepositArgs) -> Result<(), Failure> {
    let files = sql_files(&args.dir)?;
    let options = args.database.options();
    let mut conn = args.database.connect().await?;
    deposit::store(&mut conn, &options.schema, &args.source, &files).await?;
    conn.close().await?;
    Ok(())
}

/// The files of a folder by their names, which has to have some.
pub(super) fn sql_files(dir: &Path) -> Result<Vec<(String, Vec<u8>)>, Failure> {
    let mut files = read_sql_files(dir)?;
    if files.is_empty() {
        let message = format!("{} has no file that ends in .sql", dir.display());
        return Err(Failure::Usage(message));
    }
    for (name, _) in &mut files {
        *name = base_name(name).to_owned();
    }
    Ok(files)
}
