//! The Secrets that a specification declares: ours, those that name servers of others, and what users bring for either.

use std::collections::BTreeMap;

use crate::{
    api::{
        amas_database::AmasDatabaseSpec,
        common::{Connection, External},
        migrations::SeedProfile,
        names::SqlName,
        postgres::PostgresSpec,
    },
    controllers::{
        credentials::{
            Certificates, Encryption, Given, Guest, Known, Purpose, SecretSpec, certificates::Source, given,
        },
        database::{external, table::StoreKind},
    },
    stores::{
        neo4j, postgres, redis,
        workload::{CA_CERTIFICATE, Family, certificates_secret},
    },
};

use super::{Secrets, encrypted};

/// The name of a role's Secret.
pub fn role_secret(family: &Family, role: &str) -> String {
    family.child_name(&format!("role-{}", role.replace('_', "-")))
}

/// The Secrets that an object needs, for looking them up; where clients connect does not matter for that.
pub fn wanted_secrets(family: &Family, spec: &AmasDatabaseSpec) -> Vec<SecretSpec> {
    let owner = spec.postgres.as_ref().and_then(|postgres| postgres.owner_name().ok());
    secrets(family, spec, owner.as_ref(), &Secrets::NONE)
}

/// The Secrets that the user brings passwords in.
pub fn given_names(spec: &AmasDatabaseSpec) -> Vec<String> {
    let postgres = spec.postgres.iter().flat_map(|postgres| {
        let admin = postgres
            .managed
            .as_ref()
            .and_then(|managed| managed.admin_secret_ref.as_ref());
        let roles = postgres.roles.iter().filter_map(|role| role.secret_ref.as_ref());
        admin.into_iter().chain(&postgres.owner_secret_ref).chain(roles)
    });
    let redis = spec
        .redis
        .iter()
        .filter_map(|redis| redis.managed.as_ref()?.secret_ref.as_ref());
    let neo4j = spec
        .neo4j
        .iter()
        .filter_map(|neo4j| neo4j.managed.as_ref()?.secret_ref.as_ref());
    postgres
        .chain(redis)
        .chain(neo4j)
        .map(|secret| secret.name.clone())
        .collect()
}

pub(super) fn secrets(
    family: &Family,
    spec: &AmasDatabaseSpec,
    owner: Option<&SqlName>,
    users: &Secrets<'_>,
) -> Vec<SecretSpec> {
    let authority = match users.own.get(&certificates_secret(family)) {
        Some(Known::Present(entries)) => entries.get(CA_CERTIFICATE).map(|ca| ca.reveal().to_owned()),
        _ => None,
    };
    let declaring = Declaring {
        family,
        spec,
        users,
        encrypted: encrypted(spec),
        authority,
    };
    let mut all = Vec::new();
    all.extend(declaring.certificates());
    if let Some(postgres) = &spec.postgres {
        all.extend(declaring.admin(postgres));
        all.extend(declaring.roles(postgres, owner));
    }
    all.extend(declaring.redis());
    all.extend(declaring.neo4j());
    all.extend(guests(family, spec, users));
    all.extend(declaring.seed());
    for secret in &mut all {
        secret.given = given(secret, spec, users.given);
    }
    all
}

/// What the Secrets of managed servers and of SQL roles are made from.
struct Declaring<'a> {
    family: &'a Family,
    spec: &'a AmasDatabaseSpec,
    users: &'a Secrets<'a>,
    /// The servers that have certificates.
    encrypted: Vec<&'static str>,
    /// Who has signed those, once that is known.
    authority: Option<String>,
}

impl Declaring<'_> {
    fn certificates(&self) -> Option<SecretSpec> {
        if self.encrypted.is_empty() {
            return None;
        }
        let made_by = (source(self.spec, self.users), self.users.renew.cloned(), self.users.now);
        let certificates = Certificates::of(self.family, self.encrypted.iter().copied(), made_by);
        let name = certificates_secret(self.family);
        Some(self.plain(name, Purpose::Certificates(certificates), "tls"))
    }

    fn admin(&self, postgres: &PostgresSpec) -> Option<SecretSpec> {
        postgres.managed.as_ref()?;
        let name = self.family.child_name("postgres-admin");
        Some(SecretSpec {
            initialises_data: true,
            ..self.plain(name, Purpose::PostgresAdmin, "postgres")
        })
    }

    /// Of the owner and the roles. An owner's login that the user gave has its Secret already.
    fn roles(&self, postgres: &PostgresSpec, owner: Option<&SqlName>) -> Vec<SecretSpec> {
        let plain = Connection::default();
        let own = owner.filter(|_| !postgres.is_owners()).map(|owner| (owner, &plain));
        let roles = postgres.roles.iter().map(|role| (&role.name, &role.connection));
        let one =
            |(role, connection): (&SqlName, &Connection)| self.role(postgres, role, connection, owner == Some(role));
        own.into_iter().chain(roles).map(one).collect()
    }

    fn role(&self, postgres: &PostgresSpec, role: &SqlName, connection: &Connection, is_owner: bool) -> SecretSpec {
        let server = self.users.externals.get(&StoreKind::Postgres);
        let server = server.and_then(|server| server.as_ref().ok());
        let (host, port) = match server {
            // Migrations need a session of their own, so the owner goes past a pooler.
            Some(server) if is_owner => (server.login.host.clone(), server.login.port),
            Some(server) => server.clients.clone(),
            None => (self.family.host("postgres"), postgres::workload::PORT),
        };
        let purpose = Purpose::PostgresRole {
            role: role.to_string(),
            database: postgres.database.to_string(),
            port,
        };
        let mut connection = self.trusting("postgres", connection);
        let ours = self.encrypted.contains(&"postgres").then_some("verify-full");
        if let Some(server) = server {
            publish_trust(server, &mut connection.extra);
        }
        if let Some(mode) = ours.or_else(|| server?.sslmode()) {
            let extra = connection.extra.entry("PGSSLMODE".into());
            extra.or_insert_with(|| mode.into());
        }
        SecretSpec {
            host,
            connection,
            ..self.plain(role_secret(self.family, role.as_str()), purpose, "postgres")
        }
    }

    fn redis(&self) -> Option<SecretSpec> {
        let redis = self.spec.redis.as_ref().filter(|redis| redis.managed.is_some())?;
        Some(self.server("redis", Purpose::Redis, &redis.connection))
    }

    fn neo4j(&self) -> Option<SecretSpec> {
        let neo4j = self.spec.neo4j.as_ref()?;
        let database = neo4j.managed.as_ref()?.initial_database.clone();
        Some(self.server("neo4j", Purpose::Neo4j { database }, &neo4j.connection))
    }

    /// The connection Secret of a managed server with one login.
    fn server(&self, component: &'static str, purpose: Purpose, connection: &Connection) -> SecretSpec {
        let name = self.family.child_name(&format!("{component}-connection"));
        SecretSpec {
            connection: self.trusting(component, connection),
            encryption: match self.encrypted.contains(&component) {
                true => Encryption::Verified,
                false => Encryption::None,
            },
            initialises_data: true,
            ..self.plain(name, purpose, component)
        }
    }

    fn seed(&self) -> Option<SecretSpec> {
        let seed = self.spec.seed.as_ref()?;
        if seed.profile == SeedProfile::None || seed.generate.is_empty() {
            return None;
        }
        let names = seed.generate.iter().map(|value| value.name.to_string()).collect();
        Some(self.plain(self.family.child_name("seed"), Purpose::Seed { names }, "postgres"))
    }

    /// With the authority of an encrypted server, unless the user has one of the name.
    fn trusting(&self, component: &str, connection: &Connection) -> Connection {
        let mut connection = connection.clone();
        if let Some(ca) = self.authority.as_ref().filter(|_| self.encrypted.contains(&component)) {
            let extra = connection.extra.entry(CA_CERTIFICATE.into());
            extra.or_insert_with(|| ca.clone());
        }
        connection
    }

    fn plain(&self, name: String, purpose: Purpose, component: &str) -> SecretSpec {
        SecretSpec {
            name,
            purpose,
            host: self.family.host(component),
            encryption: Encryption::None,
            connection: Connection::default(),
            initialises_data: false,
            given: Given::No,
        }
    }
}

/// Who signs the certificates of managed servers.
fn source(spec: &AmasDatabaseSpec, users: &Secrets<'_>) -> Source {
    match spec.tls.as_ref().and_then(|tls| tls.issuer_ref.as_ref()) {
        Some(_) => Source::Issuer(users.issuance.map(|sight| sight.issuance.clone()).unwrap_or_default()),
        None => Source::Own,
    }
}

/// The connection Secrets of Redis and Neo4j servers that are not ours. A user may have given ours its name: then it is there already.
fn guests(family: &Family, spec: &AmasDatabaseSpec, users: &Secrets<'_>) -> Vec<SecretSpec> {
    let redis = spec
        .redis
        .as_ref()
        .map(|store| (store.external.as_ref(), &store.connection));
    let neo4j = spec
        .neo4j
        .as_ref()
        .map(|store| (store.external.as_ref(), &store.connection));
    let all = [(StoreKind::Redis, redis, "0"), (StoreKind::Neo4j, neo4j, "neo4j")];
    let one = |(store, declared, database): (StoreKind, Option<(Option<&External>, &Connection)>, &str)| {
        let (external, connection) = declared?;
        let name = family.child_name(&format!("{}-connection", store.component()));
        if external?.secret_ref.name == name {
            return None;
        }
        let server = users.externals.get(&store).and_then(|server| server.as_ref().ok());
        let mut connection = connection.clone();
        let (host, port) = server.map_or_else(Default::default, |server| server.clients.clone());
        if let Some(server) = server {
            publish_trust(server, &mut connection.extra);
        }
        let guest = Guest {
            graph: store == StoreKind::Neo4j,
            port,
            user: server.map(|server| server.login.user.clone()).unwrap_or_default(),
            database: server
                .and_then(|server| server.database.clone())
                .unwrap_or_else(|| database.to_owned()),
        };
        Some(SecretSpec {
            name,
            purpose: Purpose::External(guest),
            host,
            encryption: server.map_or(Encryption::None, external::Server::encryption),
            connection,
            initialises_data: false,
            given: server.map_or(Given::No, |server| Given::Password(server.login.password.clone())),
        })
    };
    all.into_iter().filter_map(one).collect()
}

/// What the user's Secret for a credential says, if there is one.
fn given(secret: &SecretSpec, spec: &AmasDatabaseSpec, known: &BTreeMap<String, Known>) -> Given {
    let postgres = spec.postgres.as_ref();
    let (reference, user, shortest) = match &secret.purpose {
        Purpose::PostgresAdmin => {
            let managed = postgres.and_then(|postgres| postgres.managed.as_ref());
            (
                managed.and_then(|managed| managed.admin_secret_ref.as_ref()),
                postgres::workload::ADMIN,
                1,
            )
        }
        Purpose::PostgresRole { role, .. } => {
            let roles = postgres.map(|postgres| postgres.roles.as_slice()).unwrap_or_default();
            let reference = match roles.iter().find(|one| one.name.as_str() == role) {
                Some(role) => role.secret_ref.as_ref(),
                None => postgres.and_then(|postgres| postgres.owner_secret_ref.as_ref()),
            };
            (reference, role.as_str(), 1)
        }
        Purpose::Redis => {
            let managed = spec.redis.as_ref().and_then(|redis| redis.managed.as_ref());
            (
                managed.and_then(|managed| managed.secret_ref.as_ref()),
                redis::workload::USER,
                1,
            )
        }
        Purpose::Neo4j { .. } => {
            let managed = spec.neo4j.as_ref().and_then(|neo4j| neo4j.managed.as_ref());
            // As the server itself demands.
            (
                managed.and_then(|managed| managed.secret_ref.as_ref()),
                neo4j::workload::USER,
                8,
            )
        }
        Purpose::External(_) => return secret.given.clone(),
        Purpose::Certificates(_) | Purpose::Seed { .. } => (None, "", 1),
    };
    reference.map_or(Given::No, |reference| {
        given::judge(
            &reference.name,
            known.get(&reference.name),
            given::Rule { user, shortest },
        )
    })
}

/// What a client needs to know beside the address of an encrypted server; values of the user's own stay.
fn publish_trust(server: &external::Server, extra: &mut BTreeMap<String, String>) {
    if let Some(ca) = server.trust().and_then(|trust| trust.ca.clone()) {
        extra.entry("ca.crt".into()).or_insert(ca);
    }
}
