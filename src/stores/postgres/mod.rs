//! PostgreSQL.

pub mod workload;
