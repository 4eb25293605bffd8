//! The Secrets that we make: what each is for, and how a password gets into it. `entries` says what is written into one, `rotation` how one
//! password takes the place of another, `calendar` when a schedule wants that, `given` what a user's own Secret must be like, `memory` what was
//! read or written. Nothing here asks the API.

pub mod calendar;
pub mod certificates;
mod entries;
pub mod given;
pub mod memory;
pub mod rotation;

use std::{collections::BTreeMap, fmt::Write as _};

use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};

pub use self::{
    calendar::Calendar,
    certificates::Certificates,
    given::Given,
    memory::{Known, Memory, Reason},
    rotation::Rotation,
};
use crate::{
    api::{common::Connection, sensitive::Sensitive},
    stores::{neo4j, postgres, redis, workload::Family},
};

/// The keys of each Secret that can be named otherwise; further ones are for the server's pod.
pub const POSTGRES_KEYS: [&str; 6] = ["DATABASE_URL", "PGHOST", "PGPORT", "PGDATABASE", "PGUSER", "PGPASSWORD"];
pub const REDIS_KEYS: [&str; 5] = [
    "REDIS_URL",
    "REDIS_HOST",
    "REDIS_PORT",
    "REDIS_USERNAME",
    "REDIS_PASSWORD",
];
pub const NEO4J_KEYS: [&str; 4] = ["NEO4J_URI", "NEO4J_USER", "NEO4J_DATABASE", "NEO4J_PASSWORD"];

/// Whether a key of a Secret is for the operator or a server's pod, and cannot be used otherwise.
pub fn is_own_key(key: &str) -> bool {
    Rotation::is_note(key) || [redis::workload::ACL_KEY, neo4j::workload::AUTH_KEY].contains(&key)
}

/// The decoded entries of a Secret.
pub type Entries = BTreeMap<String, Sensitive>;

/// What a Secret is for.
#[derive(Clone, Debug, PartialEq)]
pub enum Purpose {
    /// The superuser of a managed PostgreSQL.
    PostgresAdmin,
    /// A PostgreSQL role.
    PostgresRole {
        role: String,
        database: String,
        port: u16,
    },
    Redis,
    Neo4j {
        database: String,
    },
    /// A Redis or Neo4j server that is not ours: the login that the user gave, published as that of a managed one would be.
    External(Guest),
    /// Of the managed servers, with their authority.
    Certificates(Certificates),
    /// Values for seed SQL, by name.
    Seed {
        names: Vec<String>,
    },
}

/// The login on an external server; its password is the one given.
#[derive(Clone, Debug, PartialEq)]
pub struct Guest {
    pub graph: bool,
    pub port: u16,
    pub user: String,
    pub database: String,
}

/// How clients speak to a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encryption {
    #[default]
    None,
    /// Encrypted, whoever it is.
    Unverified,
    Verified,
}

impl Encryption {
    /// The scheme of a Redis URL; how far a server is verified is the client's to say there.
    fn redis(self) -> &'static str {
        match self {
            Self::None => "redis",
            Self::Unverified | Self::Verified => "rediss",
        }
    }

    fn bolt(self) -> &'static str {
        match self {
            Self::None => "bolt",
            Self::Unverified => "bolt+ssc",
            Self::Verified => "bolt+s",
        }
    }
}

/// A Secret to be there.
#[derive(Clone, Debug, PartialEq)]
pub struct SecretSpec {
    pub name: String,
    pub purpose: Purpose,
    /// Host that clients use.
    pub host: String,
    pub encryption: Encryption,
    pub connection: Connection,
    /// The data of a volume was initialised with it: when it is missing beside its data, a new one would be useless.
    pub initialises_data: bool,
    /// Whether the user brings the password.
    pub given: Given,
}

impl SecretSpec {
    fn labels(&self) -> (&'static str, &'static str) {
        match &self.purpose {
            Purpose::PostgresAdmin => ("postgresql", "postgres"),
            Purpose::PostgresRole { .. } => ("postgresql", "role"),
            Purpose::Redis => ("redis", "redis"),
            Purpose::Neo4j { .. } => ("neo4j", "neo4j"),
            Purpose::External(guest) if guest.graph => ("neo4j", "neo4j"),
            Purpose::External(_) => ("redis", "redis"),
            Purpose::Certificates(_) => ("certificates", "tls"),
            Purpose::Seed { .. } => ("postgresql", "seed"),
        }
    }

    /// The store it belongs to, where it initialises one.
    pub fn component(&self) -> &'static str {
        self.labels().1
    }

    /// The key under which an entry of ours is written.
    fn key(&self, ours: &str) -> String {
        self.connection
            .keys
            .get(ours)
            .cloned()
            .unwrap_or_else(|| ours.to_owned())
    }

    fn password_key(&self) -> &'static str {
        match &self.purpose {
            Purpose::PostgresAdmin | Purpose::PostgresRole { .. } => "PGPASSWORD",
            Purpose::Redis => "REDIS_PASSWORD",
            Purpose::Neo4j { .. } => "NEO4J_PASSWORD",
            Purpose::External(guest) if guest.graph => "NEO4J_PASSWORD",
            Purpose::External(_) => "REDIS_PASSWORD",
            Purpose::Certificates(_) | Purpose::Seed { .. } => "",
        }
    }

    /// How the credential is called in annotations, status and Events; `None` where there is nothing to log in to.
    pub fn credential(&self) -> Option<&str> {
        match &self.purpose {
            Purpose::PostgresAdmin => Some("postgres-admin"),
            Purpose::PostgresRole { role, .. } => Some(role),
            Purpose::Redis => Some("redis"),
            Purpose::Neo4j { .. } => Some("neo4j"),
            Purpose::External(_) | Purpose::Certificates(_) | Purpose::Seed { .. } => None,
        }
    }

    /// Whether it is of a role of PostgreSQL, whose password the admin can set without knowing the old one.
    pub fn is_role(&self) -> bool {
        matches!(self.purpose, Purpose::PostgresRole { .. })
    }

    /// The two users that rotations go back and forth between.
    fn users(&self) -> Option<(&'static str, [String; 2])> {
        match &self.purpose {
            Purpose::PostgresRole { role, .. } => Some(("PGUSER", [role.clone(), postgres::twin_name(role)])),
            Purpose::Neo4j { .. } => Some(("NEO4J_USER", neo4j::workload::USERS.map(str::to_owned))),
            _ => None,
        }
    }

    /// The user that the Secret names, and the other one.
    pub fn pair(&self, state: &State) -> Option<(String, String)> {
        let (_, [first, twin]) = self.users()?;
        Some(if state.twin { (twin, first) } else { (first, twin) })
    }

    /// What a Secret says of its credential; `None` without a password, and where it is none of ours.
    pub fn state(&self, entries: &Entries) -> Option<State> {
        self.credential()?;
        let password = entries
            .get(&self.key(self.password_key()))
            .filter(|password| !password.reveal().is_empty())?;
        let twin = self
            .users()
            .is_some_and(|(key, [_, twin])| entries.get(&self.key(key)).is_some_and(|user| user.reveal() == twin));
        Some(State {
            twin,
            password: password.clone(),
            rotation: Rotation::read(entries),
        })
    }

    /// Whether everything that cannot be made anew is there.
    pub fn is_whole(&self, entries: &Entries) -> bool {
        self.credential().is_none() || self.state(entries).is_some()
    }

    /// A new credential: the user's password, or one made here.
    pub fn fresh(&self) -> State {
        let password = match &self.given {
            Given::Password(password) => password.clone(),
            Given::No | Given::Unusable(_) => generate(),
        };
        State {
            twin: false,
            password,
            rotation: Rotation::default(),
        }
    }

    /// The Secret as an object. It has no owner: it outlives the AmasDatabase.
    pub fn object(&self, family: &Family, entries: &Entries) -> Value {
        let (application, component) = self.labels();
        let data: BTreeMap<&String, String> = entries
            .iter()
            .map(|(key, value)| (key, BASE64_STANDARD.encode(value.reveal())))
            .collect();
        json!({"metadata": family.metadata(&self.name, application, component, false), "type": "Opaque", "data": data})
    }
}

/// What a Secret of ours says of its credential.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// It names the twin: the second of the two users that a rotation goes between.
    pub twin: bool,
    pub password: Sensitive,
    pub rotation: Rotation,
}

/// The entries of a Secret as the API gives it; those that are no text are left out.
pub fn read_entries(secret: &Value) -> Entries {
    let decode = |(key, value): (&String, &Value)| {
        let bytes = BASE64_STANDARD.decode(value.as_str()?).ok()?;
        Some((key.clone(), Sensitive::new(String::from_utf8(bytes).ok()?)))
    };
    secret["data"]
        .as_object()
        .map(|data| data.iter().filter_map(decode).collect())
        .unwrap_or_default()
}

/// A text as it may stand in a URL.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(byte.into());
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

/// 32 random bytes in a form that needs no escaping in a URL.
fn generate() -> Sensitive {
    Sensitive::new(BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(connection: Connection) -> SecretSpec {
        SecretSpec {
            name: "db-role-app".into(),
            purpose: Purpose::PostgresRole {
                role: "app".into(),
                database: "amas".into(),
                port: 5432,
            },
            host: "db-postgres.ns.svc".into(),
            encryption: Encryption::None,
            connection,
            initialises_data: false,
            given: Given::No,
        }
    }

    #[test]
    fn a_second_time_keeps_the_password() {
        let first = role(Connection::default()).entries(&Entries::new());
        assert_eq!(role(Connection::default()).entries(&first), first);
        let password = first["PGPASSWORD"].reveal().to_owned();
        assert_eq!(password.len(), 43);
        assert_eq!(
            first["DATABASE_URL"].reveal(),
            format!("postgresql://app:{password}@db-postgres.ns.svc:5432/amas")
        );
    }

    #[test]
    fn the_login_on_an_external_server_is_published_as_that_of_ours_would_be() {
        let guest = |graph: bool, port: u16| SecretSpec {
            name: "db-connection".into(),
            purpose: Purpose::External(Guest {
                graph,
                port,
                user: "us er".into(),
                database: "3".into(),
            }),
            host: "2001:db8::1".into(),
            encryption: Encryption::Verified,
            connection: Connection {
                keys: [("REDIS_URL".into(), "CACHE".into())].into(),
                extra: [("POOL".into(), "5".into())].into(),
            },
            initialises_data: false,
            given: Given::Password(Sensitive::new("a/b")),
        };
        let redis = guest(false, 6380).entries(&Entries::new());
        assert_eq!(redis["CACHE"].reveal(), "rediss://us%20er:a%2Fb@[2001:db8::1]:6380/3");
        assert_eq!(
            (
                redis["REDIS_USERNAME"].reveal(),
                redis["POOL"].reveal(),
                redis.contains_key("users.acl")
            ),
            ("us er", "5", false)
        );
        let graph = guest(true, 7687).entries(&Entries::new());
        assert_eq!(graph["NEO4J_URI"].reveal(), "bolt+s://[2001:db8::1]:7687");
        assert_eq!(graph["NEO4J_PASSWORD"].reveal(), "a/b");
        // Another password in the user's Secret is taken up at once: there is no server to be told.
        assert!(guest(false, 1).state(&redis).is_none());
    }

    #[test]
    fn keys_can_be_renamed_and_extra_values_added_but_never_over_ours() {
        let connection = Connection {
            keys: [
                ("DATABASE_URL".into(), "SQLALCHEMY_URL".into()),
                ("PGPASSWORD".into(), "DB_PASS".into()),
            ]
            .into(),
            extra: [("POOL_MAX".into(), "20".into()), ("DB_PASS".into(), "default".into())].into(),
        };
        let spec = role(connection);
        let entries = spec.entries(&Entries::new());
        assert!(entries.contains_key("SQLALCHEMY_URL") && !entries.contains_key("DATABASE_URL"));
        assert_eq!(entries["POOL_MAX"].reveal(), "20");
        assert_eq!(spec.state(&entries).unwrap().password.reveal().len(), 43);
        assert_eq!(spec.entries(&entries), entries);
    }

    #[test]
    fn servers_get_hashes_that_stay_with_their_password() {
        let spec = SecretSpec {
            purpose: Purpose::Neo4j {
                database: "neo4j".into(),
            },
            ..role(Connection::default())
        };
        let first = spec.entries(&Entries::new());
        assert_eq!(spec.entries(&first), first);
        assert!(!first["auth.ini"].reveal().contains(first["NEO4J_PASSWORD"].reveal()));
        // Another password, another hash; the file still is for the first user.
        let state = State {
            twin: true,
            ..spec.fresh()
        };
        let second = spec.write(&state, &first);
        assert_eq!(second["NEO4J_USER"].reveal(), "neo4j_twin");
        assert!(second["auth.ini"] != first["auth.ini"] && second["auth.ini"].reveal().starts_with("neo4j:"));
    }

    #[test]
    fn a_password_that_is_brought_is_published_and_escaped() {
        let spec = SecretSpec {
            given: Given::Password(Sensitive::new("p@ss/ä")),
            ..role(Connection::default())
        };
        let entries = spec.entries(&Entries::new());
        assert_eq!(entries["PGPASSWORD"].reveal(), "p@ss/ä");
        assert_eq!(
            entries["DATABASE_URL"].reveal(),
            "postgresql://app:p%40ss%2F%C3%A4@db-postgres.ns.svc:5432/amas"
        );
    }

    #[test]
    fn entries_survive_the_way_through_the_api() {
        let family = Family {
            namespace: "n".into(),
            database: "d".into(),
            uid: "u".into(),
            data_goes: false,
        };
        let spec = role(Connection::default());
        let entries = spec.entries(&Entries::new());
        let object = spec.object(&family, &entries);
        assert_eq!(read_entries(&object), entries);
        assert!(object["metadata"].get("ownerReferences").is_none());
    }
}
