//! What the component tests share.

pub mod process;
pub mod redis;
