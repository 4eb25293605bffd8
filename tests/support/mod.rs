//! What the component tests share.

pub mod neo4j;
pub mod pgbouncer;
pub mod pki;
pub mod postgres;
pub mod postmaster;
pub mod process;
pub mod redis;
