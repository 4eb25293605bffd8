//! Neo4j.

pub mod workload;
