//! The resources and the words they are made of: data, documentation, schema rules. No client, no I/O.

pub mod amas_database;
pub mod cache_policy;
pub mod common;
pub mod conditions;
pub mod crds;
pub mod graph_schema;
pub mod migrations;
pub mod names;
pub mod neo4j;
pub mod postgres;
pub mod redis;
pub mod sensitive;
pub mod status;
pub mod units;

/// The API group of all our resources, and the prefix of our labels and annotations.
pub const GROUP: &str = "amas.dev";

/// Label on everything that belongs to an AmasDatabase; its value is the database's name. Watches select by it.
pub const DATABASE_LABEL: &str = "amas.dev/database";
/// Annotation on a StatefulSet: the revision of the template that rendered it, so that a newer operator can go on rendering the same.
pub const TEMPLATE_REVISION: &str = "amas.dev/template-revision";

/// Default of a flag that is on unless switched off.
fn yes() -> bool {
    true
}
