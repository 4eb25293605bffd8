//! Tests of the operator's program against a real Kubernetes API and real servers, without nodes: what would take minutes in a cluster.

// Helpers of tests are tests too, but clippy only knows the functions marked so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(dead_code)] // what only the other test files use
mod support;

#[path = "kubernetes/approval.rs"]
mod approval;
#[path = "kubernetes/backups.rs"]
mod backups;
#[path = "kubernetes/bad_secrets.rs"]
mod bad_secrets;
#[path = "kubernetes/bug_classes/mod.rs"]
mod bug_classes;
#[path = "kubernetes/by_hand.rs"]
mod by_hand;
#[path = "kubernetes/children.rs"]
mod children;
#[path = "kubernetes/crashes/mod.rs"]
mod crashes;
#[path = "kubernetes/credentials.rs"]
mod credentials;
#[path = "kubernetes/deletion.rs"]
mod deletion;
#[path = "kubernetes/drift.rs"]
mod drift;
#[path = "kubernetes/encryption.rs"]
mod encryption;
#[path = "kubernetes/externals.rs"]
mod externals;
#[path = "kubernetes/image.rs"]
mod image;
#[path = "kubernetes/isolation.rs"]
mod isolation;
#[path = "kubernetes/issuer.rs"]
mod issuer;
#[path = "kubernetes/jobs.rs"]
mod jobs;
#[path = "kubernetes/leadership.rs"]
mod leadership;
#[path = "kubernetes/lifecycle.rs"]
mod lifecycle;
#[path = "kubernetes/losses.rs"]
mod losses;
#[path = "kubernetes/lost_secrets.rs"]
mod lost_secrets;
#[path = "kubernetes/managed_secrets.rs"]
mod managed_secrets;
#[path = "kubernetes/mutation.rs"]
mod mutation;
#[path = "kubernetes/newer.rs"]
mod newer;
#[path = "kubernetes/nothing_to_do.rs"]
mod nothing_to_do;
#[path = "kubernetes/parameters.rs"]
mod parameters;
#[path = "kubernetes/reverts.rs"]
mod reverts;
#[path = "kubernetes/seeds.rs"]
mod seeds;
#[path = "kubernetes/sources.rs"]
mod sources;
#[path = "kubernetes/strings.rs"]
mod strings;
#[path = "kubernetes/take_over.rs"]
mod take_over;
#[path = "kubernetes/transitions.rs"]
mod transitions;
#[path = "kubernetes/upgrades.rs"]
mod upgrades;
#[path = "kubernetes/volumes.rs"]
mod volumes;
#[path = "kubernetes/watched.rs"]
mod watched;
#[path = "kubernetes/window.rs"]
mod window;
