//! Bad input: a rejected apply or a plain condition, nothing of anybody else touched, no noise, and a way back.

mod by_hand;
mod evicted;
mod graph;
mod migrations;
mod names;
mod policies;
mod refused;
mod room;
mod specs;
mod transitions;

use futures::future::{LocalBoxFuture, join_all};

use crate::{
    ensure,
    harness::{Result, context::Ctx},
};

/// All at once, each in a namespace of its own: what one does is no other's business.
pub async fn run(ctx: &Ctx) -> Result {
    refused::run(ctx).await?;
    let parts: [LocalBoxFuture<'_, Result>; 6] = [
        Box::pin(transitions::run(ctx)),
        Box::pin(specs::run(ctx)),
        Box::pin(names::run(ctx)),
        Box::pin(migrations::run(ctx)),
        Box::pin(policies::run(ctx)),
        Box::pin(graph::run(ctx)),
    ];
    all(parts).await
}

/// Every part to its end, whatever became of the others; the failures together.
async fn all<const N: usize>(parts: [LocalBoxFuture<'_, Result>; N]) -> Result {
    let failed: Vec<String> = join_all(parts)
        .await
        .into_iter()
        .filter_map(|part| part.err())
        .map(|error| error.to_string())
        .collect();
    ensure!(failed.is_empty(), "{}", failed.join("\n  "));
    Ok(())
}
