//! What the component tests share.

pub mod apiserver;
pub mod audit;
pub mod bolt;
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

/// A test that cannot run here says so. Where the tools are given everything has to be there: what is missing is a failure.
pub fn skip(why: &str) {
    assert!(
        std::env::var_os("AMAS_TOOLS").is_none(),
        "{why}, though AMAS_TOOLS is set; make prepare"
    );
    println!("SKIPPED: {why}");
}
