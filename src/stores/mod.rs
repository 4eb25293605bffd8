//! The database servers: what each is told to hold true (a duty), what is known of it (facts), and how to reach it.
//!
//! A store is a folder here: its workload, its duty, its facts, and a [`keeper::Store`] that brings the one to the other.

pub mod claim;
mod dial;
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
