//! Every requirement of the platform AMAS, by its id: shown here, shown by another test, or openly not shown.

mod book;
mod sql;

use book::Book;

use crate::{
    cluster::platform::Platform,
    harness::{Result, context::Ctx},
};

pub async fn run(ctx: &Ctx) -> Result {
    let platform = Platform::load(ctx)?;
    let namespace = platform.up(ctx, "amas").await?;
    let mut book = Book::default();
    let checks = sql::run(ctx, &platform, &namespace, "amas.toml", &mut book).await?;
    ctx.say(format!("{checks} checks of amas.toml were run"));
    book.print(ctx, "amas-ids.toml")
}
