//! The arms of a comparison: what the operator does, and the floor, the same end state reached by hand.

pub mod by_hand;
pub mod contest;
pub mod end_state;
pub mod graph;
pub mod platform;
pub mod postgres_only;
pub mod sql;
