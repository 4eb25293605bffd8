//! Redis.

pub mod workload;
