//! From what the server has and what is wanted to steps, and from steps to statements. Pure.

use std::collections::BTreeMap;

use super::{
    Access, PostgresDuty, RoleDuty, Session,
    catalog::{Catalog, Role},
    duty::{Claim, ExtensionDuty, MissingExtension},
    scram,
    sql::{ident, literal},
};
use crate::api::{names::SqlName, sensitive::Sensitive};

const NO_LIMIT: i32 = -1;
/// The settings of an app role that are ours to set and reset.
const SETTINGS: [&str; 5] = [
    "timezone",
    "statement_timeout",
    "application_name",
    "search_path",
    "role",
];

/// One change on the server, in the order of doing.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    CreateRole {
        name: SqlName,
        password: Sensitive,
        connection_limit: i32,
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
    /// `member: None` is the admin itself, which without being superuser must be a member to create for the owner.
    Join {
        member: Option<SqlName>,
        group: SqlName,
    },
    Leave {
        member: SqlName,
        group: SqlName,
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
    /// The same object made again: a new uid.
    AdoptClaim {
        uid: String,
    },
}

/// What to do about the part of the duty that the admin does. Empty: it is in. `created`: this slice made the database.
///
/// Read in another than the wanted database, a catalog gives only the steps that must come before logging in to that.
pub fn plan(have: &Catalog, want: &PostgresDuty, created: bool) -> Vec<Step> {
    let mut steps = Vec::new();
    plan_owner(have, want, &mut steps);
    want.roles
        .iter()
        .for_each(|role| plan_role(have, want, role, &mut steps));
    plan_database(have, want, &mut steps);
    if have.here == want.database.as_str() {
        plan_inside(have, want, &mut steps);
        plan_claim(have, want, created, &mut steps);
    }
    steps
}

/// Somebody else's claim on this database, in words.
pub fn conflict(have: &Catalog, want: &PostgresDuty) -> Option<String> {
    if let Some(schema) = have.schemas.get("amas_operator").filter(|schema| !schema.trusted) {
        return Some(format!("schema amas_operator belongs to role {}", schema.owner));
    }
    let other = have.claim.as_ref().filter(|claim| !claim.is_of(&want.claim))?;
    Some(format!(
        "claimed by {}/{} of cluster {}",
        other.namespace, other.name, other.cluster_id
    ))
}

/// The wanted extensions that are not there, of which `refused` could not be created.
pub fn missing_extensions(have: &Catalog, want: &PostgresDuty, refused: &[ExtensionDuty]) -> Vec<MissingExtension> {
    let absent = |extension: &&ExtensionDuty| !have.extensions.iter().any(|name| name == extension.name.as_str());
    let installed = |extension: &ExtensionDuty| have.available.iter().any(|name| name == extension.name.as_str());
    want.extensions
        .iter()
        .filter(absent)
        .filter(|extension| !installed(extension) || refused.contains(extension))
        .map(|extension| MissingExtension {
            name: extension.name.clone(),
            installed: installed(extension),
            statement: format!("{};", create_extension(extension)),
        })
        .collect()
}

fn plan_owner(have: &Catalog, want: &PostgresDuty, steps: &mut Vec<Step>) {
    if want.is_owner_only() {
        return;
    }
    plan_login(
        have.roles.get(want.owner.as_str()),
        &want.owner,
        &want.owner_login.password,
        NO_LIMIT,
        steps,
    );
    if !have.superuser && have.database_owner.as_deref() != Some(want.owner.as_str()) {
        steps.push(Step::Join {
            member: None,
            group: want.owner.clone(),
        });
    }
}

fn plan_role(have: &Catalog, want: &PostgresDuty, role: &RoleDuty, steps: &mut Vec<Step>) {
    let found = have.roles.get(role.name.as_str());
    plan_login(found, &role.name, &role.password, role.connection_limit, steps);
    let member = found.is_some_and(|found| found.member_of.iter().any(|group| group == want.owner.as_str()));
    let group = want.owner.clone();
    match (member, role.access == Access::Owner) {
        (false, true) => steps.push(Step::Join {
            member: Some(role.name.clone()),
            group,
        }),
        (true, false) => steps.push(Step::Leave {
            member: role.name.clone(),
            group,
        }),
        _ => {}
    }
    if have.database_owner.is_some() {
        plan_settings(found, want, role, steps);
    }
}

fn plan_login(have: Option<&Role>, name: &SqlName, password: &Sensitive, connection_limit: i32, steps: &mut Vec<Step>) {
    let name = name.clone();
    let Some(have) = have else {
        return steps.push(Step::CreateRole {
            name,
            password: password.clone(),
            connection_limit,
        });
    };
    if !have.login || !have.plain {
        steps.push(Step::PlainRole { name: name.clone() });
    }
    if have.connection_limit != connection_limit {
        steps.push(Step::LimitRole {
            name: name.clone(),
            connection_limit,
        });
    }
    if !have
        .verifier
        .as_ref()
        .is_some_and(|verifier| scram::matches(verifier, password))
    {
        steps.push(Step::SetPassword {
            name,
            password: password.clone(),
        });
    }
}

fn plan_settings(have: Option<&Role>, want: &PostgresDuty, role: &RoleDuty, steps: &mut Vec<Step>) {
    let have: BTreeMap<String, &str> = have
        .into_iter()
        .flat_map(|found| &found.settings)
        .filter_map(|setting| setting.split_once('='))
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
        .collect();
    let wanted = settings(&role.session, role.access, &want.owner);
    for name in SETTINGS {
        let (role, database) = (role.name.clone(), want.database.clone());
        match (have.get(name), wanted.get(name)) {
            // The server keeps a search path with no more quotes than it needs.
            (Some(have), Some(value)) if have == value || name == "search_path" && **have == value.replace('"', "") => {
            }
            (_, Some(value)) => steps.push(Step::Set {
                role,
                database,
                name,
                value: value.clone(),
            }),
            (Some(_), None) => steps.push(Step::Reset { role, database, name }),
            (None, None) => {}
        }
    }
}

/// As `pg_db_role_setting` will hold them.
fn settings(session: &Session, access: Access, owner: &SqlName) -> BTreeMap<&'static str, String> {
    let path: Vec<String> = session
        .search_path
        .iter()
        .map(|schema| ident(schema.as_str()))
        .collect();
    let pairs = [
        ("timezone", session.timezone.clone()),
        (
            "statement_timeout",
            session.statement_timeout.map(|timeout| timeout.as_millis().to_string()),
        ),
        ("application_name", session.application_name.clone()),
        ("search_path", (!path.is_empty()).then(|| path.join(", "))),
        ("role", (access == Access::Owner).then(|| owner.to_string())),
    ];
    pairs
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
}

fn plan_database(have: &Catalog, want: &PostgresDuty, steps: &mut Vec<Step>) {
    let (name, owner) = (want.database.clone(), want.owner.clone());
    match have.database_owner.as_deref() {
        None => steps.push(Step::CreateDatabase { name, owner }),
        Some(current) if current != owner.as_str() => steps.push(Step::OwnDatabase { name, owner }),
        Some(_) => {}
    }
}

fn plan_inside(have: &Catalog, want: &PostgresDuty, steps: &mut Vec<Step>) {
    let owner = want.owner.clone();
    // Since PostgreSQL 15 `public` belongs to whoever owns the database.
    let foreign = |schema: &str| schema != owner.as_str() && schema != "pg_database_owner";
    if have.schemas.get("public").is_some_and(|schema| foreign(&schema.owner)) && !want.is_owner_only() {
        steps.push(Step::OwnPublic { owner: owner.clone() });
    }
    for extension in &want.extensions {
        let name = extension.name.as_str();
        if have.extensions.iter().any(|there| there == name) || !have.available.iter().any(|there| there == name) {
            continue;
        }
        let schema = Step::CreateSchema {
            name: extension.schema.clone(),
            owner: owner.clone(),
        };
        if !have.schemas.contains_key(extension.schema.as_str()) && !steps.contains(&schema) {
            steps.push(schema);
        }
        steps.push(Step::CreateExtension(extension.clone()));
    }
}

fn plan_claim(have: &Catalog, want: &PostgresDuty, created: bool, steps: &mut Vec<Step>) {
    if !have.claim_readable {
        steps.push(Step::CreateClaimTable {
            schema_exists: have.schemas.contains_key("amas_operator"),
        });
    }
    match &have.claim {
        None => steps.push(Step::WriteClaim {
            claim: want.claim.clone(),
            created_by_us: created,
        }),
        Some(claim) if claim.uid != want.claim.uid => steps.push(Step::AdoptClaim {
            uid: want.claim.uid.clone(),
        }),
        Some(_) => {}
    }
}

impl Step {
    /// The statement; a password only as its verifier.
    pub fn statement(&self) -> String {
        match self {
            Self::CreateRole {
                name,
                password,
                connection_limit,
            } => format!(
                "CREATE ROLE \"{name}\" LOGIN CONNECTION LIMIT {connection_limit} PASSWORD {}",
                literal(&scram::verifier(password))
            ),
            Self::PlainRole { name } => {
                format!("ALTER ROLE \"{name}\" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS")
            }
            Self::LimitRole { name, connection_limit } => {
                format!("ALTER ROLE \"{name}\" CONNECTION LIMIT {connection_limit}")
            }
            Self::SetPassword { name, password } => {
                format!("ALTER ROLE \"{name}\" PASSWORD {}", literal(&scram::verifier(password)))
            }
            Self::Join {
                member: Some(member),
                group,
            } => format!("GRANT \"{group}\" TO \"{member}\""),
            Self::Join { member: None, group } => format!("GRANT \"{group}\" TO CURRENT_USER"),
            Self::Leave { member, group } => format!("REVOKE \"{group}\" FROM \"{member}\""),
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
            Self::AdoptClaim { uid } => format!("UPDATE amas_operator.claim SET uid = {}", literal(uid)),
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

fn create_extension(extension: &ExtensionDuty) -> String {
    format!(
        "CREATE EXTENSION IF NOT EXISTS \"{}\" SCHEMA \"{}\" CASCADE",
        extension.name, extension.schema
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
         created_by_us boolean NOT NULL, since timestamptz NOT NULL DEFAULT now())"
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
