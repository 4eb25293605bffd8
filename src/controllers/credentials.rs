//! The Secrets that we make: what is in each, how a password gets into it, and the memory of what was read or written.
//! Pure but for the memory; nothing here asks the API.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    sync::{Mutex, PoisonError},
};

use base64::{Engine as _, prelude::BASE64_STANDARD, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::{
    api::{common::Connection, sensitive::Sensitive},
    stores::{neo4j, postgres, redis, workload::Family},
};

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
    /// Values for seed SQL, by name.
    Seed {
        names: Vec<String>,
    },
}

/// A Secret to be there.
#[derive(Clone, Debug, PartialEq)]
pub struct SecretSpec {
    pub name: String,
    pub purpose: Purpose,
    /// Host that clients use.
    pub host: String,
    pub connection: Connection,
    /// The data of a volume was initialised with it: when it is missing beside its data, a new one would be useless.
    pub initialises_data: bool,
}

impl SecretSpec {
    fn labels(&self) -> (&'static str, &'static str) {
        match self.purpose {
            Purpose::PostgresAdmin => ("postgresql", "postgres"),
            Purpose::PostgresRole { .. } => ("postgresql", "role"),
            Purpose::Redis => ("redis", "redis"),
            Purpose::Neo4j { .. } => ("neo4j", "neo4j"),
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
        match self.purpose {
            Purpose::PostgresAdmin | Purpose::PostgresRole { .. } => "PGPASSWORD",
            Purpose::Redis => "REDIS_PASSWORD",
            Purpose::Neo4j { .. } => "NEO4J_PASSWORD",
            Purpose::Seed { .. } => "",
        }
    }

    /// The password in a Secret of this kind.
    pub fn password(&self, entries: &Entries) -> Option<Sensitive> {
        entries
            .get(&self.key(self.password_key()))
            .filter(|password| !password.reveal().is_empty())
            .cloned()
    }

    /// All entries, keeping the passwords and hashes that `old` has. What is missing is made anew.
    pub fn entries(&self, old: &Entries) -> Entries {
        let kept = |key: &str| old.get(&self.key(key)).map(|value| value.reveal().to_owned());
        let mut all: Vec<(&str, String)> = Vec::new();
        if let Purpose::Seed { names } = &self.purpose {
            let value = |name: &String| (name.clone(), old.get(name).cloned().unwrap_or_else(generate));
            return names.iter().map(value).collect();
        }
        let password = self.password(old).unwrap_or_else(generate);
        let (host, clear) = (&self.host, password.reveal());
        match &self.purpose {
            Purpose::PostgresAdmin => all.push(("PGUSER", postgres::workload::ADMIN.into())),
            Purpose::PostgresRole { role, database, port } => {
                let mode = self.connection.extra.get("PGSSLMODE");
                let query = mode.map(|mode| format!("?sslmode={mode}")).unwrap_or_default();
                all.push((
                    "DATABASE_URL",
                    format!("postgresql://{role}:{clear}@{host}:{port}/{database}{query}"),
                ));
                all.extend([
                    ("PGHOST", host.clone()),
                    ("PGPORT", port.to_string()),
                    ("PGDATABASE", database.clone()),
                    ("PGUSER", role.clone()),
                ]);
            }
            Purpose::Redis => {
                let port = redis::workload::PORT;
                all.push((
                    "REDIS_URL",
                    format!("redis://{}:{clear}@{host}:{port}/0", redis::workload::USER),
                ));
                all.extend([
                    ("REDIS_HOST", host.clone()),
                    ("REDIS_PORT", port.to_string()),
                    ("REDIS_USERNAME", redis::workload::USER.into()),
                ]);
                all.push((
                    redis::workload::ACL_KEY,
                    kept(redis::workload::ACL_KEY).unwrap_or_else(|| redis::acl_file(&password)),
                ));
            }
            Purpose::Neo4j { database } => {
                all.push(("NEO4J_URI", format!("bolt://{host}:{}", neo4j::workload::PORT)));
                all.extend([
                    ("NEO4J_USER", neo4j::workload::USER.into()),
                    ("NEO4J_DATABASE", database.clone()),
                ]);
                let auth = || neo4j::auth_ini(neo4j::workload::USER, &password, rand::random());
                all.push((
                    neo4j::workload::AUTH_KEY,
                    kept(neo4j::workload::AUTH_KEY).unwrap_or_else(auth),
                ));
            }
            Purpose::Seed { .. } => {}
        }
        all.push((self.password_key(), clear.to_owned()));
        let ours = all
            .into_iter()
            .map(|(key, value)| (self.key(key), Sensitive::new(value)));
        let extra = self
            .connection
            .extra
            .iter()
            .map(|(key, value)| (key.clone(), Sensitive::new(value.clone())));
        extra.chain(ours).collect()
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

/// 32 random bytes in a form that needs no escaping in a URL.
fn generate() -> Sensitive {
    Sensitive::new(BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()))
}

/// What is known of a Secret.
#[derive(Clone, Debug, PartialEq)]
pub enum Known {
    Present(Entries),
    /// It was looked for and is not there.
    Absent,
    /// There is an object of that name without our label.
    Foreign,
}

/// Secrets that were read or written by this process, so that they need not be read again.
#[derive(Default)]
pub struct Memory(Mutex<HashMap<(String, String), Known>>, Owners);

/// The uid of the AmasDatabase that each Secret goes with, where it was seen.
type Owners = Mutex<HashMap<(String, String), Option<String>>>;

impl Memory {
    pub fn get(&self, namespace: &str, name: &str) -> Option<Known> {
        self.lock().get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    pub fn put_owner(&self, namespace: &str, name: &str, owner: Option<String>) {
        let mut owners = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        owners.insert((namespace.to_owned(), name.to_owned()), owner);
    }

    /// `None`: not seen.
    pub fn owner(&self, namespace: &str, name: &str) -> Option<Option<String>> {
        let owners = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        owners.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    pub fn put(&self, namespace: &str, name: &str, known: Known) {
        self.lock().insert((namespace.to_owned(), name.to_owned()), known);
    }

    pub fn forget(&self, namespace: &str, name: &str) {
        self.lock().remove(&(namespace.to_owned(), name.to_owned()));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(String, String), Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
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
            connection,
            initialises_data: false,
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
        assert_eq!(spec.password(&entries).unwrap().reveal().len(), 43);
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
