//! The admin's changes on a server as data, and the statement of each. Pure.

use super::{
    duty::{Claim, ExtensionDuty},
    scram,
    sql::{literal, owns},
};
use crate::api::{names::SqlName, sensitive::Sensitive};

/// The role of the server whose members see all of `pg_stat_activity`.
pub const STATISTICS: &str = "pg_read_all_stats";

/// One change on the server, in the order of doing.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    CreateRole {
        name: SqlName,
        /// Without one it may not log in.
        password: Option<Sensitive>,
        connection_limit: i32,
    },
    /// Writes whose it is into the role's comment.
    MarkRole {
        name: SqlName,
        comment: String,
    },
    /// No longer wanted: it cannot log in, and its sessions end.
    LockRole {
        name: SqlName,
    },
    /// No longer wanted, of our making, without a possession. Done for itself: where it has rights in another database it stays.
    DropRole {
        name: SqlName,
    },
    /// Back to a role that logs in and has no attribute beyond its database.
    PlainRole {
        name: SqlName,
    },
    LimitRole {
        name: SqlName,
        connection_limit: i32,
    },
    SetPassword {
        name: SqlName,
        password: Sensitive,
    },
    /// The end of a password: the role may not log in any more. Sessions that are open go on.
    Retire {
        name: SqlName,
    },
    /// `member: None` is the admin itself, which without being superuser must be a member to create for the owner.
    Join {
        member: Option<SqlName>,
        group: SqlName,
    },
    Leave {
        member: SqlName,
        group: SqlName,
    },
    /// Lets it see what other sessions do, and since when.
    ReadStatistics {
        name: SqlName,
    },
    /// The last step of its plan: the rest is done inside the new database.
    CreateDatabase {
        name: SqlName,
        owner: SqlName,
    },
    OwnDatabase {
        name: SqlName,
        owner: SqlName,
    },
    Set {
        role: SqlName,
        database: SqlName,
        name: &'static str,
        value: String,
    },
    Reset {
        role: SqlName,
        database: SqlName,
        name: &'static str,
    },
    CreateSchema {
        name: SqlName,
        owner: SqlName,
    },
    /// Before PostgreSQL 15 the schema public belongs to the admin.
    OwnPublic {
        owner: SqlName,
    },
    CreateExtension(ExtensionDuty),
    CreateClaimTable {
        schema_exists: bool,
    },
    WriteClaim {
        claim: Claim,
        created_by_us: bool,
    },
    /// The same object made again (a new uid), or come back after its claim was released.
    AdoptClaim {
        uid: String,
        released: bool,
    },
    /// Instead of somebody else's.
    ReplaceClaim {
        claim: Claim,
    },
}

impl Step {
    /// The statement; a password only as its verifier.
    pub fn statement(&self) -> String {
        match self {
            Self::CreateRole {
                name,
                password: None,
                connection_limit,
            } => format!("CREATE ROLE \"{name}\" NOLOGIN CONNECTION LIMIT {connection_limit}"),
            Self::CreateRole {
                name,
                password: Some(password),
                connection_limit,
            } => format!(
                "CREATE ROLE \"{name}\" LOGIN CONNECTION LIMIT {connection_limit} PASSWORD {}",
                literal(&scram::verifier(password))
            ),
            Self::MarkRole { name, comment } => format!("COMMENT ON ROLE \"{name}\" IS {}", literal(comment)),
            Self::LockRole { name } => lock_role(name),
            Self::DropRole { name } => drop_role(name),
            Self::PlainRole { name } => {
                format!("ALTER ROLE \"{name}\" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS")
            }
            Self::LimitRole { name, connection_limit } => {
                format!("ALTER ROLE \"{name}\" CONNECTION LIMIT {connection_limit}")
            }
            Self::SetPassword { name, password } => {
                format!("ALTER ROLE \"{name}\" PASSWORD {}", literal(&scram::verifier(password)))
            }
            Self::Retire { name } => format!("ALTER ROLE \"{name}\" NOLOGIN PASSWORD NULL"),
            Self::Join {
                member: Some(member),
                group,
            } => format!("GRANT \"{group}\" TO \"{member}\""),
            Self::Join { member: None, group } => format!("GRANT \"{group}\" TO CURRENT_USER"),
            Self::Leave { member, group } => format!("REVOKE \"{group}\" FROM \"{member}\""),
            Self::ReadStatistics { name } => format!("GRANT {STATISTICS} TO \"{name}\""),
            Self::CreateDatabase { name, owner } => format!("CREATE DATABASE \"{name}\" OWNER \"{owner}\""),
            Self::OwnDatabase { name, owner } => format!("ALTER DATABASE \"{name}\" OWNER TO \"{owner}\""),
            Self::Set {
                role,
                database,
                name,
                value,
            } => set(role, database, name, value),
            Self::Reset { role, database, name } => {
                format!("ALTER ROLE \"{role}\" IN DATABASE \"{database}\" RESET {name}")
            }
            Self::CreateSchema { name, owner } => format!("CREATE SCHEMA \"{name}\" AUTHORIZATION \"{owner}\""),
            Self::OwnPublic { owner } => format!("ALTER SCHEMA public OWNER TO \"{owner}\""),
            Self::CreateExtension(extension) => create_extension(extension),
            Self::CreateClaimTable { schema_exists } => create_claim_table(*schema_exists),
            Self::WriteClaim { claim, created_by_us } => write_claim(claim, *created_by_us),
            Self::AdoptClaim { uid, released } => {
                let back = if *released { ", released = NULL" } else { "" };
                format!("UPDATE amas_operator.claim SET uid = {}{back}", literal(uid))
            }
            Self::ReplaceClaim { claim } => {
                format!("DELETE FROM amas_operator.claim;\n{}", write_claim(claim, false))
            }
        }
    }
}

fn set(role: &SqlName, database: &SqlName, name: &str, value: &str) -> String {
    // A search path is a list of identifiers, quoted when it was made.
    let value = if name == "search_path" {
        value.to_owned()
    } else {
        literal(value)
    };
    format!("ALTER ROLE \"{role}\" IN DATABASE \"{database}\" SET {name} = {value}")
}

/// Also told to the administrator, when we may not.
pub fn create_extension(extension: &ExtensionDuty) -> String {
    format!(
        "CREATE EXTENSION IF NOT EXISTS \"{}\" SCHEMA \"{}\" CASCADE",
        extension.name, extension.schema
    )
}

/// Ends only sessions that we may end.
fn lock_role(name: &SqlName) -> String {
    let literal = literal(name.as_str());
    format!(
        "ALTER ROLE \"{name}\" NOLOGIN;\nSELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity \
         WHERE usename = {literal} AND pg_catalog.pg_has_role(usesysid, 'USAGE')"
    )
}

/// What it owned meanwhile keeps it: looked at again in the statement that drops. `DROP OWNED` then only takes its rights away.
fn drop_role(name: &SqlName) -> String {
    let (literal, owns) = (literal(name.as_str()), owns("r.oid"));
    format!(
        "DO $amas$ BEGIN IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname = {literal} AND {owns}) THEN \
         DROP OWNED BY \"{name}\"; DROP ROLE \"{name}\"; END IF; END $amas$"
    )
}

/// Lets our claim go; the record stays, so that the same object finds what it made.
pub fn release_claim(claim: &Claim) -> String {
    format!(
        "ALTER TABLE amas_operator.claim ADD COLUMN IF NOT EXISTS released timestamptz;\n\
         UPDATE amas_operator.claim SET released = now() WHERE uid = {} AND cluster_id = {}",
        literal(&claim.uid),
        literal(&claim.cluster_id)
    )
}

fn create_claim_table(schema_exists: bool) -> String {
    let schema = if schema_exists {
        ""
    } else {
        "CREATE SCHEMA amas_operator;\n"
    };
    format!(
        "{schema}CREATE TABLE amas_operator.claim (one boolean PRIMARY KEY DEFAULT true CHECK (one), \
         cluster_id text NOT NULL, namespace text NOT NULL, name text NOT NULL, uid text NOT NULL, \
         created_by_us boolean NOT NULL, since timestamptz NOT NULL DEFAULT now(), released timestamptz)"
    )
}

fn write_claim(claim: &Claim, created_by_us: bool) -> String {
    let Claim {
        cluster_id,
        namespace,
        name,
        uid,
    } = claim;
    let values = [cluster_id, namespace, name, uid]
        .map(|value| literal(value))
        .join(", ");
    format!(
        "INSERT INTO amas_operator.claim (cluster_id, namespace, name, uid, created_by_us) VALUES ({values}, {created_by_us})"
    )
}
