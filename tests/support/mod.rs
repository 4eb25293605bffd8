//! What the component tests share.

pub mod neo4j;
pub mod process;
pub mod redis;
