//! amas-operator: one readiness gate, migrations and policies for the data layer of multi-agent platforms.
//!
//! Dependency arrows point one way: `main -> commands -> controllers -> {engine, stores, migrate} -> api`.
//! ARCHITECTURE.md draws the picture; docs/semantics.md holds the rules.

pub mod api;
pub mod commands;
pub mod controllers;
pub mod engine;
pub mod migrate;
pub mod stores;
