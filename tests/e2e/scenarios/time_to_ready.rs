//! Time from apply to Ready, against the floor.

use crate::{
    arms::{contest, postgres_only::PostgresOnly},
    cluster::platform::Platform,
    harness::{Result, context::Ctx},
};

pub async fn run(ctx: &Ctx) -> Result {
    contest::run(ctx, &PostgresOnly::new()?).await?;
    contest::run(ctx, &Platform::load(ctx)?).await
}
