//! The migration engine. Knows nothing of Kubernetes: the same code serves the Job and the command line.
//!
//! `source` reads files (by `files`, and many of them by `spread`), `glance` no further than it takes to know that all of them are in, `statements` finds where each statement begins, `analysis` what each takes and does, `units` in which parts a file
//! is sent, `lint` what is risky about it,
//! `plan` decides (pure), `consent` refuses what loses data and was not accepted, `history` is what the
//! database says, `record` writes it, `session` connects and locks, `runner` runs a plan, `seed` the seeds after it, and
//! `adjust` changes records without running anything,
//! `backup` saves tables before something is taken from them,
//! `deposit` has files that only a Job can see, `drift` tells whether the schema is still as it was left, `report` says how it ended. Nothing runs before the whole plan has been checked.

pub mod adjust;
pub mod analysis;
pub mod backup;
pub mod blockers;
pub mod consent;
pub mod deposit;
pub mod drift;
pub mod files;
pub mod glance;
pub mod history;
pub mod lint;
pub mod plan;
pub mod progress;
mod record;
pub mod report;
pub mod runner;
pub mod seed;
pub mod session;
pub mod source;
pub mod spread;
pub mod statements;
mod tables;
pub mod units;
