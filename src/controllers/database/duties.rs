//! What each keeper has to hold true, from valid values and the passwords that are known. Pure.

use std::sync::Arc;

use crate::{
    api::{
        amas_database::AmasDatabaseSpec,
        common::{External, ExternalHealth, HealthMode},
        names::{GraphName, SqlName},
        postgres::{Access, PostgresSpec},
        sensitive::Sensitive,
    },
    controllers::{
        Settings,
        credentials::{Known, SecretSpec, State, rotation},
    },
    stores::{
        claim::Claim,
        endpoint::{Endpoint, Tls, Trust},
        health::Attention,
        neo4j::{self, Neo4jDuty},
        postgres::{self, Clients, ExtensionDuty, PostgresDuty, RoleDuty, Session, Twin},
        redis::{self, RedisDuty},
        tls,
        workload::{CA_CERTIFICATE, certificate_key, certificates_secret},
    },
};

use super::{
    configuration, losses,
    observe::{Observed, StoreKind},
    validate::{Valid, role_secret},
};

/// What the keepers hold true from now on; a store that is not in it has none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Duties {
    pub postgres: Option<PostgresDuty>,
    pub redis: Option<RedisDuty>,
    pub neo4j: Option<Neo4jDuty>,
}

pub fn duties(spec: &AmasDatabaseSpec, valid: &Valid, observed: &Observed, settings: &Settings) -> Duties {
    let claim = claim(valid, settings);
    let take_over = &observed.take_over;
    Duties {
        postgres: spec
            .postgres
            .as_ref()
            .and_then(|postgres| postgres_duty(postgres, valid, observed, &claim)),
        redis: spec.redis.as_ref().and_then(|redis| {
            let endpoint = endpoint(
                StoreKind::Redis,
                valid,
                observed,
                redis::workload::PORT,
                redis::workload::USER,
            )?;
            Some(RedisDuty {
                endpoint,
                second: state(valid, observed, &valid.family.child_name("redis-connection"))
                    .and_then(|(_, state)| state.rotation.second().cloned()),
                claim: claim.clone(),
                managed: redis.managed.is_some(),
                attention: attention(redis.external.as_ref()),
                parameters: redis
                    .managed
                    .as_ref()
                    .map(|managed| managed.parameters.clone())
                    .unwrap_or_default(),
                serves: serves(StoreKind::Redis, valid, observed),
                take_over: take_over.clone(),
            })
        }),
        neo4j: spec.neo4j.as_ref().and_then(|neo4j| {
            let endpoint = endpoint(
                StoreKind::Neo4j,
                valid,
                observed,
                neo4j::workload::PORT,
                neo4j::workload::USER,
            )?;
            let database = neo4j
                .managed
                .as_ref()
                .map_or("neo4j", |managed| &managed.initial_database);
            let (next, others) = graph_users(valid, observed);
            Some(Neo4jDuty {
                endpoint,
                next,
                others,
                database: GraphName::parse(database).ok()?,
                claim: claim.clone(),
                managed: neo4j.managed.is_some(),
                attention: attention(neo4j.external.as_ref()),
                take_over: take_over.clone(),
            })
        }),
    }
}

/// What is needed to take leave of the servers that are not ours: their logins and whose they are. Roles need not be named.
pub fn leaving(spec: &AmasDatabaseSpec, valid: &Valid, observed: &Observed, settings: &Settings) -> Duties {
    let mut duties = duties(spec, valid, observed, settings);
    let admin = observed.externals.get(&StoreKind::Postgres).cloned();
    duties.postgres = spec.postgres.as_ref().and_then(|postgres| {
        let admin = admin?.ok()?.login;
        let owner = valid.owner.clone()?;
        Some(PostgresDuty {
            owner_login: Endpoint {
                user: owner.to_string(),
                ..admin.clone()
            },
            admin,
            database: postgres.database.clone(),
            owner,
            owner_twin: Twin::default(),
            admin_next: None,
            sure: false,
            extensions: Vec::new(),
            roles: Vec::new(),
            exclusive: false,
            clients: None,
            serves: None,
            attention: Attention::default(),
            claim: claim(valid, settings),
            take_over: None,
            configuration: None,
            kept: false,
            deposit: None,
            drift: postgres::DriftDuty::default(),
            look_again: String::new(),
        })
    });
    duties
}

/// A server of ours is always held.
fn attention(external: Option<&External>) -> Attention {
    let Some(health) = external.map(|external| &external.health) else {
        return Attention::default();
    };
    match (health.mode, health.interval) {
        (HealthMode::Held, None) => Attention::default(),
        (HealthMode::Held, Some(interval)) => Attention::Held(interval.get()),
        (HealthMode::OnDemand, interval) => Attention::OnDemand(interval.unwrap_or(ExternalHealth::SELDOM).get()),
    }
}

fn clients(observed: &Observed) -> Option<Clients> {
    let server = observed.externals.get(&StoreKind::Postgres)?.as_ref().ok()?;
    let (login, database) = server.before.clone()?;
    Some(Clients { login, database })
}

fn claim(valid: &Valid, settings: &Settings) -> Claim {
    Claim {
        cluster_id: settings.cluster_id.clone(),
        namespace: valid.family.namespace.clone(),
        name: valid.family.database.clone(),
        uid: valid.family.uid.clone(),
    }
}

/// What a Secret of ours says.
fn state<'a>(valid: &'a Valid, observed: &Observed, secret: &str) -> Option<(&'a SecretSpec, State)> {
    let spec = valid.secrets.iter().find(|spec| spec.name == secret)?;
    match observed.secrets.get(secret)? {
        Known::Present(entries) => Some((spec, spec.state(entries)?)),
        _ => None,
    }
}

/// The new password of the user that the Secret names, if it is replaced in place; and the other users that are ours.
fn graph_users(valid: &Valid, observed: &Observed) -> (Option<Sensitive>, Vec<neo4j::User>) {
    let Some((spec, state)) = state(valid, observed, &valid.family.child_name("neo4j-connection")) else {
        return (None, Vec::new());
    };
    let in_place = rotation::is_in_place(spec, &state);
    let next = state.rotation.next.clone().filter(|_| in_place);
    let other = spec.pair(&state).map(|(_, name)| neo4j::User {
        first: name == neo4j::workload::USER,
        password: state.rotation.second().filter(|_| next.is_none()).cloned(),
        name,
    });
    (next, other.into_iter().collect())
}

/// A role's login as its Secret says, and what its twin has to be.
fn role_login(valid: &Valid, observed: &Observed, role: &SqlName) -> Option<(Sensitive, Twin)> {
    let (_, state) = state(valid, observed, &role_secret(&valid.family, role.as_str()))?;
    let twin = Twin {
        active: state.twin,
        other: state.rotation.second().cloned(),
    };
    Some((state.password, twin))
}

/// What our own servers are verified against, once there is an authority.
fn trust(valid: &Valid, observed: &Observed) -> Option<Tls> {
    let ca = certificate(valid, observed, CA_CERTIFICATE)?;
    Some(Tls::Encrypt(Arc::new(Trust {
        verify: true,
        ca: Some(ca.reveal().to_owned()),
        client: None,
    })))
}

fn certificate<'a>(valid: &Valid, observed: &'a Observed, key: &str) -> Option<&'a Sensitive> {
    match observed.secrets.get(&certificates_secret(&valid.family))? {
        Known::Present(entries) => entries.get(key),
        _ => None,
    }
}

/// The certificate that a server of ours should show.
fn serves(store: StoreKind, valid: &Valid, observed: &Observed) -> Option<String> {
    let workload = valid
        .workloads
        .iter()
        .find(|workload| workload.component == store.component())?;
    let pem = certificate(valid, observed, &certificate_key(workload.component)).filter(|_| workload.encrypted)?;
    tls::fingerprint(pem.reveal())
}

/// The operator's own login on a store: an external one's as its Secret says, a managed one's as we made it.
fn endpoint(store: StoreKind, valid: &Valid, observed: &Observed, port: u16, user: &str) -> Option<Endpoint> {
    if let Some(external) = observed.externals.get(&store) {
        return external.as_ref().ok().map(|server| server.login.clone());
    }
    let secret = match store {
        StoreKind::Postgres => "postgres-admin",
        StoreKind::Redis => "redis-connection",
        StoreKind::Neo4j => "neo4j-connection",
    };
    let (spec, state) = state(valid, observed, &valid.family.child_name(secret))?;
    let encrypted = valid
        .workloads
        .iter()
        .any(|workload| workload.component == store.component() && workload.encrypted);
    let (port, tls) = match (encrypted, store) {
        (false, _) => (port, Tls::Disable),
        (true, StoreKind::Redis) => (redis::workload::TLS_PORT, trust(valid, observed)?),
        (true, _) => (port, trust(valid, observed)?),
    };
    Some(Endpoint {
        host: valid.family.host(store.component()),
        port,
        tls,
        user: spec.pair(&state).map_or_else(|| user.to_owned(), |(user, _)| user),
        password: state.password,
    })
}

fn postgres_duty(postgres: &PostgresSpec, valid: &Valid, observed: &Observed, claim: &Claim) -> Option<PostgresDuty> {
    let admin = endpoint(
        StoreKind::Postgres,
        valid,
        observed,
        postgres::workload::PORT,
        postgres::workload::ADMIN,
    )?;
    let owner = valid.owner.clone()?;
    let (owner_login, owner_twin) = if postgres.is_owners() {
        (admin.clone(), Twin::default())
    } else {
        let (password, twin) = role_login(valid, observed, &owner)?;
        let user = if twin.active {
            postgres::twin_name(owner.as_str())
        } else {
            owner.to_string()
        };
        let login = Endpoint {
            user,
            password,
            ..admin.clone()
        };
        (login, twin)
    };
    let admin_next =
        state(valid, observed, &valid.family.child_name("postgres-admin")).and_then(|(_, state)| state.rotation.next);
    let session = Session {
        timezone: postgres.session.timezone.clone(),
        statement_timeout: postgres.session.statement_timeout.map(|span| span.get()),
        application_name: postgres.session.application_name.clone(),
        search_path: postgres.session.search_path.clone(),
    };
    let role = |role: &crate::api::postgres::Role| {
        let access = match role.access {
            Access::ReadWrite => postgres::Access::ReadWrite,
            Access::ReadOnly => postgres::Access::ReadOnly,
        };
        let (password, twin) = role_login(valid, observed, &role.name)?;
        Some(RoleDuty {
            name: role.name.clone(),
            password,
            twin,
            access,
            connection_limit: role.connection_limit,
            session: session.clone(),
        })
    };
    let schema = SqlName::parse("public").ok()?;
    Some(PostgresDuty {
        admin,
        owner_login,
        database: postgres.database.clone(),
        owner,
        owner_twin,
        admin_next,
        sure: observed.sure,
        extensions: postgres
            .extensions
            .iter()
            .map(|name| ExtensionDuty {
                name: name.clone(),
                schema: schema.clone(),
            })
            .collect(),
        roles: postgres.roles.iter().map(role).collect::<Option<_>>()?,
        exclusive: postgres.managed.is_some(),
        clients: clients(observed),
        serves: serves(StoreKind::Postgres, valid, observed),
        attention: attention(postgres.external.as_ref()),
        claim: claim.clone(),
        take_over: observed.take_over.clone(),
        configuration: configuration::judge(postgres, valid, observed).map(|judged| judged.duty),
        kept: losses::is_kept(StoreKind::Postgres, observed),
        deposit: observed.deposit.clone(),
        drift: postgres::DriftDuty {
            correct: observed.corrects_drift,
            accept: observed.accept_drift.clone(),
        },
        look_again: String::new(),
    })
}
