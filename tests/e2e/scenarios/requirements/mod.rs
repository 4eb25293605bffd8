//! Every requirement of the platform AMAS, by its id: shown here, shown by another test, or openly not shown.

mod book;
mod cache;
mod commands;
mod connections;
mod families;
mod graph;
mod sql;

use book::Book;
use serde_json::json;

use crate::{
    cluster::platform::Platform,
    harness::{Result, context::Ctx},
};

pub async fn run(ctx: &Ctx) -> Result {
    let mut platform = Platform::load(ctx)?;
    // A pass a second, so that nobody has to wait for one.
    cache::policy(&mut platform)?.data["spec"]["sweepInterval"] = json!("1s");
    let namespace = platform.up(ctx, "amas").await?;
    let mut book = Book::default();
    let checks = sql::run(ctx, &platform, &namespace, "amas.toml", &mut book).await?;
    ctx.say(format!("{checks} checks of amas.toml were run"));
    connections::run(ctx, &platform, &namespace, &mut book).await?;
    graph::run(ctx, &platform, &namespace, &mut book).await?;
    cache::run(ctx, &mut platform, &namespace, &mut book).await?;
    book.print(ctx, "amas-ids.toml")
}
