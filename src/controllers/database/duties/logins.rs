//! The operator's own logins: where they are, with which password, and what they are verified against.

use std::sync::Arc;

use crate::{
    api::{names::SqlName, sensitive::Sensitive},
    controllers::{
        credentials::{Known, SecretSpec, State, rotation},
        database::{
            observe::Observed,
            table::StoreKind,
            validate::{Valid, role_secret},
        },
    },
    stores::{
        endpoint::{Endpoint, Tls, Trust},
        neo4j,
        postgres::{Clients, Twin},
        redis, tls,
        workload::{CA_CERTIFICATE, certificate_key, certificates_secret},
    },
};

pub(super) fn clients(observed: &Observed) -> Option<Clients> {
    let server = observed.externals.get(&StoreKind::Postgres)?.as_ref().ok()?;
    let (login, database) = server.before.clone()?;
    Some(Clients { login, database })
}

/// What a Secret of ours says.
pub(super) fn state<'a>(valid: &'a Valid, observed: &Observed, secret: &str) -> Option<(&'a SecretSpec, State)> {
    let spec = valid.secrets.iter().find(|spec| spec.name == secret)?;
    match observed.secrets.get(secret)? {
        Known::Present(entries) => Some((spec, spec.state(entries)?)),
        _ => None,
    }
}

/// The new password of the user that the Secret names, if it is replaced in place; and the other users that are ours.
pub(super) fn graph_users(valid: &Valid, observed: &Observed) -> (Option<Sensitive>, Vec<neo4j::User>) {
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
pub(super) fn role_login(valid: &Valid, observed: &Observed, role: &SqlName) -> Option<(Sensitive, Twin)> {
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
pub(super) fn serves(store: StoreKind, valid: &Valid, observed: &Observed) -> Option<String> {
    let workload = valid
        .workloads
        .iter()
        .find(|workload| workload.component == store.component())?;
    let pem = certificate(valid, observed, &certificate_key(workload.component)).filter(|_| workload.encrypted)?;
    tls::fingerprint(pem.reveal())
}

/// The operator's own login on a store: an external one's as its Secret says, a managed one's as we made it.
pub(super) fn endpoint(
    store: StoreKind,
    valid: &Valid,
    observed: &Observed,
    port: u16,
    user: &str,
) -> Option<Endpoint> {
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
