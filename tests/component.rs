//! Tests against real servers, each started by the test that needs it on a free loopback port.

// Helpers of tests are tests too, but clippy only knows the functions marked so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(dead_code)] // what only the other test files use
mod support;

#[path = "component/analysis.rs"]
mod analysis;
#[path = "component/external.rs"]
mod external;
#[path = "component/hostile.rs"]
mod hostile;
#[path = "component/keeper.rs"]
mod keeper;
#[path = "component/kept.rs"]
mod kept;
#[path = "component/migrate.rs"]
mod migrate;
#[path = "component/neo4j.rs"]
mod neo4j;
#[path = "component/neo4j_logins.rs"]
mod neo4j_logins;
#[path = "component/neo4j_parameters.rs"]
mod neo4j_parameters;
#[path = "component/ownership.rs"]
mod ownership;
#[path = "component/parameters.rs"]
mod parameters;
#[path = "component/pooler.rs"]
mod pooler;
#[path = "component/postgres.rs"]
mod postgres;
#[path = "component/redis.rs"]
mod redis;
#[path = "component/redis_parameters.rs"]
mod redis_parameters;
#[path = "component/rotation.rs"]
mod rotation;
#[path = "component/tls.rs"]
mod tls;
