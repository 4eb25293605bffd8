//! What the component tests share.

pub mod apiserver;
pub mod audit;
pub mod fault;
pub mod job;
pub mod kubernetes;
pub mod managed;
pub mod neo4j;
pub mod operator;
pub mod pgbouncer;
pub mod pki;
pub mod postgres;
pub mod postmaster;
pub mod process;
pub mod proxy;
pub mod redis;
pub mod relay;
pub mod store_proxy;
pub mod turns;
pub mod wire;
