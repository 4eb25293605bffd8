//! What the component tests share.

pub mod postgres;
