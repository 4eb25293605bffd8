//! The floor arms alone: what the operator is measured against, looked at without it.

use crate::{
    arms::{contest, postgres_only::PostgresOnly},
    cluster::platform::Platform,
    harness::{Result, context::Ctx},
};

pub async fn run(ctx: &Ctx) -> Result {
    contest::floors(ctx, &PostgresOnly::new()?).await?;
    contest::floors(ctx, &Platform::load(ctx)?).await
}
