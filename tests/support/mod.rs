//! What the component tests share.

pub mod postmaster;
pub mod postgres;
