//! What is written into a Secret of ours, key by key.

use super::{Encryption, Entries, Purpose, SecretSpec, State, escape, generate};
use crate::{
    api::sensitive::Sensitive,
    stores::{neo4j, postgres, redis},
};

impl SecretSpec {
    /// All entries, keeping the passwords and hashes that `old` has. What is missing is made anew.
    pub fn entries(&self, old: &Entries) -> Entries {
        if let Purpose::Seed { names } = &self.purpose {
            let value = |name: &String| (name.clone(), old.get(name).cloned().unwrap_or_else(generate));
            return names.iter().map(value).collect();
        }
        if let Purpose::Certificates(certificates) = &self.purpose {
            return certificates.entries(old);
        }
        let state = self.state(old).unwrap_or_else(|| self.fresh());
        self.write(&state, old)
    }

    /// All entries for a state of the credential.
    pub fn write(&self, state: &State, old: &Entries) -> Entries {
        let mut all = self.parts(state, old);
        all.push((self.password_key(), state.password.reveal().to_owned()));
        let ours = all
            .into_iter()
            .map(|(key, value)| (self.key(key), Sensitive::new(value)));
        let extra = self
            .connection
            .extra
            .iter()
            .map(|(key, value)| (key.clone(), Sensitive::new(value.clone())));
        extra.chain(ours).chain(state.rotation.entries()).collect()
    }

    /// Host and port as they may stand in a URL.
    fn authority(&self, port: u16) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{port}", self.host),
            false => format!("{}:{port}", self.host),
        }
    }

    fn query(&self) -> String {
        let mode = self.connection.extra.get("PGSSLMODE");
        mode.map(|mode| format!("?sslmode={}", escape(mode)))
            .unwrap_or_default()
    }

    fn parts(&self, state: &State, old: &Entries) -> Vec<(&'static str, String)> {
        let host = &self.host;
        let user = self.pair(state).map(|(user, _)| user).unwrap_or_default();
        let clear = escape(state.password.reveal());
        match &self.purpose {
            Purpose::PostgresAdmin => vec![("PGUSER", postgres::workload::ADMIN.into())],
            Purpose::PostgresRole { database, port, .. } => vec![
                (
                    "DATABASE_URL",
                    format!("postgresql://{user}:{clear}@{host}:{port}/{database}{}", self.query()),
                ),
                ("PGHOST", host.clone()),
                ("PGPORT", port.to_string()),
                ("PGDATABASE", database.clone()),
                ("PGUSER", user),
            ],
            Purpose::Redis => {
                let valid = [Some(&state.password), state.rotation.second()];
                let port = match self.encryption {
                    Encryption::None => redis::workload::PORT,
                    _ => redis::workload::TLS_PORT,
                };
                let mut parts = self.redis_parts((redis::workload::USER, &clear), port, "0");
                parts.push((redis::workload::ACL_KEY, redis::acl_file(valid.into_iter().flatten())));
                parts
            }
            Purpose::External(guest) if guest.graph => vec![
                (
                    "NEO4J_URI",
                    format!("{}://{}", self.encryption.bolt(), self.authority(guest.port)),
                ),
                ("NEO4J_USER", guest.user.clone()),
                ("NEO4J_DATABASE", guest.database.clone()),
            ],
            Purpose::External(guest) => self.redis_parts((&guest.user, &clear), guest.port, &guest.database),
            Purpose::Neo4j { database } => {
                let (port, key) = (neo4j::workload::PORT, neo4j::workload::AUTH_KEY);
                let kept = old
                    .get(&self.key(key))
                    .filter(|line| neo4j::auth_matches(line.reveal(), &state.password));
                // A fresh volume starts with the first user, whoever the Secret names.
                let made = || neo4j::auth_ini(neo4j::workload::USER, &state.password, rand::random());
                vec![
                    (
                        "NEO4J_URI",
                        format!("{}://{}", self.encryption.bolt(), self.authority(port)),
                    ),
                    ("NEO4J_USER", user),
                    ("NEO4J_DATABASE", database.clone()),
                    (key, kept.map_or_else(made, |line| line.reveal().to_owned())),
                ]
            }
            Purpose::Certificates(_) | Purpose::Seed { .. } => Vec::new(),
        }
    }

    fn redis_parts(&self, (user, password): (&str, &str), port: u16, database: &str) -> Vec<(&'static str, String)> {
        let (scheme, authority) = (self.encryption.redis(), self.authority(port));
        let login = match password {
            "" => String::new(),
            password => format!("{}:{password}@", escape(user)),
        };
        vec![
            ("REDIS_URL", format!("{scheme}://{login}{authority}/{database}")),
            ("REDIS_HOST", self.host.clone()),
            ("REDIS_PORT", port.to_string()),
            ("REDIS_USERNAME", user.to_owned()),
        ]
    }
}
