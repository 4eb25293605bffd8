//! Tests against real servers, which they start and stop by themselves.

// Helpers of tests are tests too, but clippy only knows the functions marked so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

#[path = "component/keeper.rs"]
mod keeper;
#[path = "component/postgres.rs"]
mod postgres;
#[path = "component/migrate.rs"]
mod migrate;
