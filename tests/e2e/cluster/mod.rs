//! Hands and eyes on the cluster: objects, watches, audit log, processes, clients of the stores.

#[path = "../../support/audit.rs"]
#[allow(dead_code)] // what only the component tests use
pub mod audit;
pub mod clients;
pub mod conditions;
pub mod database;
pub mod diagnostics;
pub mod helm;
pub mod image;
pub mod namespaces;
pub mod node;
pub mod objects;
pub mod operator;
pub mod platform;
pub mod pods;
pub mod process;
pub mod pulse;
pub mod quiet;
pub mod wait;
