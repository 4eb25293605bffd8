//! The commands of the binary.

pub mod crds;
mod installed;
pub mod migrate;
pub mod run;
pub mod telemetry;
