//! The resources and the words they are made of: data, documentation, schema rules. No client, no I/O.

pub mod names;
pub mod sensitive;
