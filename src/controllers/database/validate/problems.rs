//! What can be wrong with a specification that its schema cannot say, part by part. Pure.

use std::collections::BTreeMap;

use super::{declared::given_names, externals};
use crate::{
    api::{
        amas_database::AmasDatabaseSpec,
        common::{External, ExternalHealth, HealthMode},
        names::SqlName,
        postgres::PostgresSpec,
        units::Span,
    },
    controllers::{
        credentials::{Calendar, Purpose, SecretSpec},
        database::table::StoreKind,
    },
    stores::{neo4j, postgres, redis},
};

/// A ping that comes too often is a load, one that comes too seldom says nothing.
pub fn of_health(spec: &AmasDatabaseSpec) -> Vec<String> {
    let problem = |(store, external): (StoreKind, &External)| {
        let ExternalHealth { mode, interval } = &external.health;
        let (shortest, longest) = match mode {
            HealthMode::Held => (Span::from_secs(1), Span::from_secs(60)),
            HealthMode::OnDemand => (Span::from_secs(10), Span::from_secs(86_400)),
        };
        let interval = interval.filter(|interval| !(shortest..=longest).contains(interval))?;
        Some(format!(
            "spec.{}.external.health.interval: {interval} is out of range; with mode {mode:?} give {shortest} to {longest}",
            store.component()
        ))
    };
    externals(spec).into_iter().filter_map(problem).collect()
}

/// Parameters of servers of ours that the operator owns, or that are none.
pub fn of_parameters(spec: &AmasDatabaseSpec) -> Vec<String> {
    type Refuse = fn(&str, &str) -> Option<String>;
    let managed = [
        spec.postgres.as_ref().and_then(|store| {
            Some((
                &store.managed.as_ref()?.parameters,
                postgres::workload::refuse_parameter as Refuse,
            ))
        }),
        spec.redis
            .as_ref()
            .and_then(|store| Some((&store.managed.as_ref()?.parameters, redis::parameters::refuse as Refuse))),
        spec.neo4j
            .as_ref()
            .and_then(|store| Some((&store.managed.as_ref()?.parameters, neo4j::parameters::refuse as Refuse))),
    ];
    let refused = |(parameters, refuse): (&BTreeMap<String, String>, Refuse)| {
        let all = parameters.iter().filter_map(|(name, value)| refuse(name, value));
        all.collect::<Vec<_>>()
    };
    managed.into_iter().flatten().flat_map(refused).collect()
}

/// Names that PostgreSQL keeps for itself, and more connections than there are.
pub fn of_postgres(spec: &PostgresSpec, owner: Option<&SqlName>) -> Vec<String> {
    let mut problems = Vec::new();
    let reserved = |name: &str| name.starts_with("pg_") || matches!(name, "postgres" | "public" | "none");
    if matches!(spec.database.as_str(), "postgres" | "template0" | "template1") {
        problems.push(format!(
            "spec.postgres.database: {} is PostgreSQL's own; choose another name",
            spec.database
        ));
    }
    for role in spec.roles.iter().map(|role| &role.name).chain(owner) {
        if reserved(role.as_str()) {
            problems.push(format!(
                "spec.postgres: the role name {role} is reserved by PostgreSQL; choose another"
            ));
        }
    }
    for role in spec.roles.iter().filter(|role| Some(&role.name) == owner) {
        problems.push(format!(
            "spec.postgres.roles: {} is the owner; applications need a role of their own",
            role.name
        ));
    }
    let Some(managed) = &spec.managed else { return problems };
    let roles: i64 = spec.roles.iter().map(|role| i64::from(role.connection_limit)).sum();
    let wanted = roles + postgres::OTHER_CONNECTIONS;
    let limit = postgres::workload::max_connections(managed);
    if wanted > limit {
        problems.push(format!(
            "spec.postgres: the roles' connection limits, with {other} for the operator, migrations and superusers, come to {wanted}, but max_connections is {limit}; \
             lower the limits or raise parameters.max_connections",
            other = postgres::OTHER_CONNECTIONS
        ));
    }
    problems
}

/// A password lives longer than the one before it is still valid.
pub fn of_rotation(spec: &AmasDatabaseSpec) -> Vec<String> {
    let rotation = &spec.credentials.rotation;
    let too_often = |what: String| {
        format!(
            "spec.credentials.rotation: {what} must be longer than overlap ({}), or a password would be replaced before the one before it ends",
            rotation.overlap
        )
    };
    let every = rotation.every.filter(|every| *every <= rotation.overlap);
    let by_age = every.map(|every| too_often(format!("every ({every})")));
    let by_calendar = match Calendar::read(rotation) {
        Ok(None) => None,
        Ok(Some(calendar)) if calendar.closest() > rotation.overlap.get() => None,
        Ok(Some(_)) => Some(too_often("the time between two times of schedule".into())),
        Err(problem) => Some(problem),
    };
    by_age.into_iter().chain(by_calendar).collect()
}

/// A user's Secret must not be one that the operator writes, and a role must not have the name of another's twin.
pub fn of_names(secrets: &[SecretSpec], spec: &AmasDatabaseSpec) -> Vec<String> {
    let ours = |name: &String| secrets.iter().any(|secret| secret.name == *name);
    let own = given_names(spec)
        .into_iter()
        .filter(ours)
        .map(|name| format!("secretRef: {name} is the Secret that the operator writes for this credential; bring the password in another one"));
    let roles: Vec<&str> = secrets
        .iter()
        .filter_map(|secret| match &secret.purpose {
            Purpose::PostgresRole { role, .. } => Some(role.as_str()),
            _ => None,
        })
        .collect();
    let mut logins: Vec<String> = roles
        .iter()
        .flat_map(|role| [(*role).to_owned(), postgres::twin_name(role)])
        .collect();
    logins.sort();
    let twice = logins.windows(2).filter(|pair| pair[0] == pair[1]);
    let twins = twice.map(|pair| {
        format!(
            "spec.postgres: {} is the name of two logins (a rotation uses <role>_twin beside each role); choose another name",
            pair[0]
        )
    });
    own.chain(twins).collect()
}
