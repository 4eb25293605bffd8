//! What one PostgreSQL database is asked to be, and what is known of it: plain data.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

pub use crate::stores::claim::Claim;
use crate::{
    api::{
        names::{ExtensionName, SqlName},
        sensitive::Sensitive,
    },
    migrate::{plan::Estimates, source::Source},
    stores::{
        endpoint::Endpoint,
        health::Attention,
        limits::Limit,
        postgres::{
            configure::{Configuration, ConfigurationFacts},
            drift::DriftDuty,
        },
    },
};

/// One PostgreSQL database with its roles, as the AmasDatabase describes it; validated.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PostgresDuty {
    /// Creates roles, database and extensions; opened to apply and closed. May be the owner's own login where there is no better one.
    pub admin: Endpoint,
    /// The login of the owner role on the same server: migrations, rights, and the sentinel. Its user is `owner`.
    pub owner_login: Endpoint,
    pub database: SqlName,
    pub owner: SqlName,
    pub extensions: Vec<ExtensionDuty>,
    pub owner_twin: Twin,
    /// A new password for the admin, which takes the place of the one in `admin`: either may be the server's at the moment.
    pub admin_next: Option<Sensitive>,
    /// The app roles.
    pub roles: Vec<RoleDuty>,
    /// The Secrets were read again after the server was seen with other passwords, so these are set. Not part of the fingerprint.
    pub sure: bool,
    /// The database is ours alone (managed): PUBLIC loses CONNECT on it and CREATE on its schema public.
    pub exclusive: bool,
    /// Where applications log in, if that is another address: it must lead to the same server.
    pub clients: Option<Clients>,
    /// The fingerprint of the certificate that a server of ours should show. Not part of the fingerprint.
    pub serves: Option<String>,
    pub attention: Attention,
    pub claim: Claim,
    /// A person's word, by its value, that somebody else's claim is to be replaced by ours.
    pub take_over: Option<String>,
    /// What a managed server runs with; an external one's is not ours.
    pub configuration: Option<Configuration>,
    /// The database was there with its data: if it is gone, it is not made again. Not part of the fingerprint.
    pub kept: bool,
    /// The source whose files a Job brings into the database. Not part of the fingerprint.
    pub deposit: Option<String>,
    /// The plan that waits for a person, who wants to know how large its tables are. Not part of the fingerprint.
    pub waiting_plan: Option<WaitingPlan>,
    /// The version that somebody asks for: the texts that lead back to it are read. Not part of the fingerprint.
    pub back_to: Option<i64>,
    /// What to do about a schema that somebody has changed. Not part of the fingerprint.
    pub drift: DriftDuty,
    /// Any change of it makes the whole database be looked at again.
    pub look_again: String,
}

impl PostgresDuty {
    /// Names this duty in [`PostgresFacts::duty_in`]; stable within one process.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        // Handled once, these change nothing that is to be.
        let mut lasting = Self {
            sure: false,
            kept: false,
            serves: None,
            take_over: None,
            drift: DriftDuty::default(),
            deposit: None,
            waiting_plan: None,
            back_to: None,
            ..self.clone()
        };
        // The admin of a server that is not ours has a password that is somebody else's to hold.
        if !self.exclusive {
            lasting.admin = self.admin.without_password();
            if self.is_owner_only() {
                lasting.owner_login = self.owner_login.without_password();
            }
        }
        lasting.hash(&mut hasher);
        hasher.finish()
    }

    /// The admin's login once its new password is in.
    pub(super) fn admin_with_next(&self) -> Option<Endpoint> {
        Some(Endpoint {
            password: self.admin_next.clone()?,
            ..self.admin.clone()
        })
    }

    /// Every login of the app roles and, last, the owner: its name, and its password if it may log in. Every other role that carries our mark is
    /// one that is no longer wanted.
    pub(super) fn logins(&self) -> Vec<(SqlName, Option<&Sensitive>)> {
        let owner = (&self.owner, &self.owner_login.password, &self.owner_twin);
        let app = self.roles.iter().map(|role| (&role.name, &role.password, &role.twin));
        app.chain([owner])
            .flat_map(|(name, password, twin)| {
                let [role, second] = twin.passwords(password);
                [(name.clone(), role), (twin_of(name), second)]
            })
            .collect()
    }

    /// Whether the admin login is the owner itself, which then must not be altered.
    pub(super) fn is_owner_only(&self) -> bool {
        self.admin.user == self.owner.as_str()
    }
}

/// The address that applications use, in front of the server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Clients {
    pub login: Endpoint,
    /// The one that the address names.
    pub database: Option<String>,
}

/// The second login of a role. PostgreSQL keeps one password a role, so while an old and a new one are both valid, one of them belongs to the
/// twin: a login that is a member of the role and acts as it from its first statement. Rotations go back and forth between the two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Twin {
    /// The role's password in the duty is the twin's: the Secret names the twin.
    pub active: bool,
    /// The password of the one that the Secret does not name, while it is valid. Without it that one may not log in.
    pub other: Option<Sensitive>,
}

impl Twin {
    /// The passwords of the role itself and of its twin.
    pub(super) fn passwords<'a>(&'a self, password: &'a Sensitive) -> [Option<&'a Sensitive>; 2] {
        if self.active {
            [self.other.as_ref(), Some(password)]
        } else {
            [Some(password), self.other.as_ref()]
        }
    }
}

/// The name of a role's twin.
pub fn twin_name(role: &str) -> String {
    const SUFFIX: &str = "_twin";
    let kept: String = role.chars().take(SqlName::MAX_LENGTH - SUFFIX.len()).collect();
    kept + SUFFIX
}

pub(super) fn twin_of(role: &SqlName) -> SqlName {
    // What is cut off and added keeps a name valid.
    SqlName::parse(twin_name(role.as_str())).unwrap_or_else(|_| role.clone())
}

/// An extension and the schema its objects live in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ExtensionDuty {
    pub name: ExtensionName,
    /// Default `public`; created for the owner if it does not exist. Not changed on an extension that is there.
    pub schema: SqlName,
}

/// An app role.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RoleDuty {
    pub name: SqlName,
    /// Leaves the operator only as a SCRAM verifier.
    pub password: Sensitive,
    pub twin: Twin,
    pub access: Access,
    /// Connections at a time; -1 is without limit.
    pub connection_limit: i32,
    pub session: Session,
}

/// What an app role may do with the owner's objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Reads and changes rows, never the schema.
    ReadWrite,
    /// Reads rows, but no column whose comment ends in `amas:secret`.
    ReadOnly,
    /// Acts as the owner role.
    Owner,
}

/// Settings of an app role in this database. Absent: the server's default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Session {
    pub timezone: Option<String>,
    pub statement_timeout: Option<Duration>,
    pub application_name: Option<String>,
    /// Empty: the server's default.
    pub search_path: Vec<SqlName>,
}

/// What was read from the server and which duty is in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PostgresFacts {
    /// [`PostgresDuty::fingerprint`] of the duty that is completely in, rights included; `None` while one is being worked on or failed.
    pub duty_in: Option<u64>,
    pub max_connections: Option<u32>,
    /// What the server or the login does not allow; `None` until it was asked.
    pub limits: Option<Vec<Limit>>,
    /// The server's configuration; `None` until it was read, and of external servers.
    pub configuration: Option<ConfigurationFacts>,
    /// Extensions that could not be created, and what to do about each.
    pub missing_extensions: Vec<MissingExtension>,
    /// Roles whose password on the server is not the duty's. Nothing is set before the Secrets were read again and the duty is `sure`: perhaps
    /// somebody has changed both.
    pub unsure: Vec<String>,
    /// What the server or we refused; the last slice's. Never contains a credential.
    pub error: Option<String>,
    /// The claim of somebody else on this database or on a role of that name: nothing is done then.
    pub conflict: Option<String>,
    /// The database is gone that was there: nothing is done then.
    pub database_missing: bool,
    /// The word to take over under which claim and roles were last judged.
    pub take_over_seen: Option<String>,
    /// Extensions that are there and not asked for; they are never dropped.
    pub undeclared_extensions: Vec<String>,
    /// Roles that are no longer asked for: they cannot log in, and stay because of what they own or because they are not of our making.
    pub retired_roles: Vec<String>,
    /// What the database says of its migrations; `None` until it was read.
    pub migrations: Option<MigrationFacts>,
    /// The highest id of the migrations' history for which the app roles' rights are in; 0 stands for no history.
    pub rights_at: Option<i64>,
    /// The files of the source that is asked for; `None` until they were looked for.
    pub deposit: Option<Deposit>,
    /// How large the tables are of the plan that waits; `None` until they were asked for.
    pub estimates: Option<PlanEstimates>,
    /// Whether the schema is as the last run left it; `None` until it was looked at.
    pub drift: Option<crate::migrate::drift::Drift>,
    /// The word by which the schema was last accepted as it is.
    pub drift_accepted: Option<String>,
    /// Figures that move by themselves; refreshed with the history, else at most every 60 s. Not material.
    pub figures: Figures,
}

/// Everything the database says of its migrations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MigrationFacts {
    /// `<system identifier>/<database>`: what plans are bound to.
    pub identity: String,
    /// `None` before the first migration.
    pub state: Option<crate::migrate::history::State>,
    /// Of `state`.
    pub summary: crate::migrate::history::Summary,
    /// The version that `state` has the ways back to; those of others are left out.
    pub back_to: Option<i64>,
    /// Checksums of the seed files that are in, by profile and file.
    pub seeds: crate::migrate::seed::Recorded,
}

/// Files that a Job has brought into the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deposit {
    pub source: String,
    /// `None`: they are not there. An error: what is wrong with them.
    pub files: Option<Result<Arc<Source>, Vec<String>>>,
}

/// A plan by its hash, and the tables that it locks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WaitingPlan {
    pub hash: String,
    pub tables: Vec<String>,
}

/// What the catalog said of the tables of a plan when that was first waited with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanEstimates {
    pub hash: String,
    pub tables: Estimates,
}

/// An extension the server does not have or we may not create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingExtension {
    pub name: ExtensionName,
    /// False: its files are not installed on the server.
    pub installed: bool,
    /// The exact statement for the database administrator.
    pub statement: String,
}

/// Figures that move by themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
pub struct Figures {
    pub size_bytes: u64,
    /// Tables and partitioned tables outside the system's and our own schemas.
    pub tables: u64,
    /// Sessions in the database.
    pub connections: u64,
}

impl PostgresFacts {
    pub(super) fn differs_materially(&self, before: &Self) -> bool {
        let without = |facts: &Self| Self {
            figures: Figures::default(),
            ..facts.clone()
        };
        without(self) != without(before)
    }
}
