//! What the component tests share.

pub mod postmaster;
pub mod postgres;
pub mod process;
pub mod redis;
