//! What the status of an AmasDatabase says of its migrations.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where the SQL schema stands.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MigrationsStatus {
    /// Version of the last applied migration; absent when none is applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<i64>,
    /// Version asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<i64>,
    /// How many migrations are between the two.
    #[serde(default)]
    pub pending: i64,
    /// Applied and known migrations up to the target, such as `5/5`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub progress: String,
    /// How many Jobs the present plan has had.
    #[serde(default)]
    pub attempts: i64,
    /// The plan of the last Job: the first eight digits of its hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// The plan that waits for a person, or was approved and runs; absent when nothing waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending_plan: Option<PendingPlan>,
    /// The seed profile that is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seeded: Option<String>,
    /// Why the last Job failed; absent when it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<MigrationFailure>,
    /// What somebody has changed since the last run; absent when nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift: Option<SchemaDrift>,
    /// The last ten migrations that were applied, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub history: Vec<AppliedMigration>,
}

/// Changes of the schema that no migration made.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SchemaDrift {
    /// The version whose schema was recorded.
    pub version: i64,
    /// How many objects differ from what was recorded.
    pub objects: i64,
    /// The first ten, such as `column users.email: character varying(255) -> text`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub differences: Vec<String>,
}

/// Migrations that are to run, as one plan.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PendingPlan {
    /// What approves exactly this plan. It covers the database, the direction, each pending migration with its down text, and the running
    /// options; nothing that changes by itself.
    pub hash: String,
    /// `up` or `down`.
    pub direction: String,
    /// Version before it; 0 for none.
    pub from: i64,
    /// Version after it; 0 for none.
    pub to: i64,
    /// How many migrations it has.
    pub migrations: i64,
    /// How many statements it has.
    pub statement_count: i64,
    /// Its first statements, twenty at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub statements: Vec<PlanStatement>,
    /// ConfigMap with the whole plan (key `plan.txt`, at most 900 KiB).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<String>,
}

/// One statement of a plan.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanStatement {
    /// Version of its migration.
    pub version: i64,
    /// File and line.
    pub place: String,
    /// Its first 200 characters.
    pub statement: String,
    /// What it locks of what is there: `ACCESS EXCLUSIVE on "users"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locks: Option<String>,
    /// `rewrite` or `scan` of a table, and what it loses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub risk: Option<String>,
    /// Lint rules that it meets and that no comment accepts: `rename, not-null-scan`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lint: Option<String>,
    /// How large the tables are that it locks, as the catalog had it when the plan was first waited with:
    /// `"users": about 1200 rows, 96 KiB`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tables: Option<String>,
}

/// The statement that failed.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MigrationFailure {
    /// Version of the migration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,
    /// File of the migration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Line in the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<i64>,
    /// Character in the line, from 1, where the server names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<i64>,
    /// SQLSTATE that the server gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sqlstate: Option<String>,
    /// What went wrong.
    pub message: String,
}

/// One applied migration.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AppliedMigration {
    /// Its version.
    pub version: i64,
    /// What the name of its file says after the version.
    pub description: String,
    /// When it was applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied_at: Option<Time>,
}
