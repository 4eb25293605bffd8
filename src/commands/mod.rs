//! The commands of the binary.

pub mod crds;
pub mod migrate;
pub mod run;
pub mod telemetry;
