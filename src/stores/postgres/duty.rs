//! What one PostgreSQL database is asked to be, and what is known of it: plain data.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

pub use crate::stores::claim::Claim;
use crate::{
    api::{
        names::{ExtensionName, SqlName},
        sensitive::Sensitive,
    },
    stores::{
        endpoint::Endpoint,
        postgres::configure::{Configuration, ConfigurationFacts},
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
    /// The app roles.
    pub roles: Vec<RoleDuty>,
    /// The database is ours alone (managed): PUBLIC loses CONNECT on it and CREATE on its schema public.
    pub exclusive: bool,
    pub claim: Claim,
    /// A person's word, by its value, that somebody else's claim is to be replaced by ours.
    pub take_over: Option<String>,
    /// What a managed server runs with; an external one's is not ours.
    pub configuration: Option<Configuration>,
    /// Any change of it makes the whole database be looked at again.
    pub look_again: String,
}

impl PostgresDuty {
    /// Names this duty in [`PostgresFacts::duty_in`]; stable within one process.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        // Handled once, it changes nothing that is to be.
        let lasting = Self {
            take_over: None,
            ..self.clone()
        };
        lasting.hash(&mut hasher);
        hasher.finish()
    }

    /// The roles of this duty, the owner last. Every other role that carries our mark is one that is no longer wanted.
    pub(super) fn role_names(&self) -> impl Iterator<Item = &str> {
        let app = self.roles.iter().map(|role| role.name.as_str());
        app.chain([self.owner.as_str()])
    }

    /// Whether the admin login is the owner itself, which then must not be altered.
    pub(super) fn is_owner_only(&self) -> bool {
        self.admin.user == self.owner.as_str()
    }
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
    /// The server's configuration; `None` until it was read, and of external servers.
    pub configuration: Option<ConfigurationFacts>,
    /// Extensions that could not be created, and what to do about each.
    pub missing_extensions: Vec<MissingExtension>,
    /// What the server or we refused; the last slice's. Never contains a credential.
    pub error: Option<String>,
    /// The claim of somebody else on this database or on a role of that name: nothing is done then.
    pub conflict: Option<String>,
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
    /// Checksums of the seed files that are in, by profile and file.
    pub seeds: crate::migrate::seed::Recorded,
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
