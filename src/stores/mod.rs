//! The database servers: what each is told to hold true (a duty), what is known of it (facts), and how to reach it.
//!
//! Adding a store touches its own folder and the table in this file.

pub mod claim;
pub mod endpoint;
pub mod health;
pub mod images;
pub mod keeper;
pub mod limits;
pub mod neo4j;
pub mod postgres;
pub mod redis;
pub mod revisions;
pub mod tls;
pub mod workload;
