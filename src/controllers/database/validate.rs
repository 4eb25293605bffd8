//! From the specification to values that can be used without further checks, or the reasons why not. Pure.

mod declared;

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;

pub use self::declared::{given_names, role_secret, wanted_secrets};
use crate::{
    api::{
        amas_database::{AmasDatabase, AmasDatabaseSpec},
        cache_policy::Eviction,
        common::{DeletionPolicy, External, ExternalHealth, HealthMode},
        migrations::MigrationSource,
        names::SqlName,
        postgres::PostgresSpec,
        units::Span,
    },
    controllers::{
        Settings,
        credentials::{Calendar, Known, Purpose, SecretSpec},
    },
    stores::{
        images::Images,
        neo4j, postgres, redis,
        workload::{Family, Image, ImageSource, Workload, certificates_secret, renewed_key},
    },
};

use super::{external, issuance::Sight, keys, observe::ExternalServer, table::StoreKind, window};

/// The external endpoints, as their Secrets describe them.
pub type Externals = BTreeMap<StoreKind, ExternalServer>;

/// What users' Secrets hold.
#[derive(Clone, Copy)]
pub struct Secrets<'a> {
    pub externals: &'a Externals,
    /// Passwords, by the Secret's name.
    pub given: &'a BTreeMap<String, Known>,
    /// Our own, by name.
    pub own: &'a BTreeMap<String, Known>,
    pub issuance: Option<&'a Sight>,
    /// The annotation that asks for new certificates.
    pub renew: Option<&'a String>,
    pub now: Timestamp,
}

impl Secrets<'static> {
    /// Nothing is known of any.
    pub const NONE: Self = Secrets {
        externals: &Externals::new(),
        given: &BTreeMap::new(),
        own: &BTreeMap::new(),
        issuance: None,
        renew: None,
        now: Timestamp::UNIX_EPOCH,
    };
}

/// The parts of an AmasDatabase that everything else works with.
#[derive(Clone, Debug, PartialEq)]
pub struct Valid {
    pub family: Family,
    /// The managed servers.
    pub workloads: Vec<Workload>,
    /// The Secrets we make, in the order they are made: those that initialise data first.
    pub secrets: Vec<SecretSpec>,
    /// The owner role of the SQL database.
    pub owner: Option<SqlName>,
}

/// Checks everything that the schema of the resource cannot say.
pub fn validate(
    object: &AmasDatabase,
    settings: &Settings,
    eviction: Option<&Eviction>,
    users: &Secrets<'_>,
) -> Result<Valid, Vec<String>> {
    let spec = &object.spec;
    let family = super::family(object, settings);
    let mut problems = Vec::new();
    if settings.namespaced && spec.deletion_policy == DeletionPolicy::Delete && !externals(spec).is_empty() {
        problems.push(NAMESPACED_DELETE.to_owned());
    }
    let owner = spec.postgres.as_ref().and_then(|postgres| match postgres.owner_name() {
        Ok(owner) => Some(owner),
        Err(_) => {
            problems.push(format!(
                "spec.postgres.owner: {}_owner is longer than 63 characters; name an owner",
                postgres.database
            ));
            None
        }
    });
    if let Some(postgres) = &spec.postgres {
        problems.extend(postgres_problems(postgres, owner.as_ref()));
        if let Some(Ok(server)) = users.externals.get(&StoreKind::Postgres) {
            problems.extend(external::owner_problems(postgres, owner.as_ref(), server));
        }
    }
    problems.extend(parameter_problems(spec));
    problems.extend(keys::connection_problems(spec));
    problems.extend(keys::pod_problems(spec));
    problems.extend(rotation_problems(spec));
    problems.extend(health_problems(spec));
    if let Some(Err(problem)) = spec
        .maintenance_window
        .as_ref()
        .map(|maintenance| window::at(maintenance, Timestamp::UNIX_EPOCH))
    {
        problems.push(problem);
    }
    let mut workloads = workloads(&family, spec, &settings.images, eviction, &mut problems);
    if let Some(Known::Present(entries)) = users.own.get(&certificates_secret(&family)) {
        for workload in workloads.iter_mut().filter(|workload| workload.encrypted) {
            let mark = entries.get(&renewed_key(workload.component));
            workload.certificate = mark.map(|mark| mark.reveal().to_owned());
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let secrets = declared::secrets(&family, spec, owner.as_ref(), users);
    problems.extend(name_problems(&secrets, spec));
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(Valid {
        family,
        workloads,
        secrets,
        owner,
    })
}

const NAMESPACED_DELETE: &str = "spec.deletionPolicy: Delete with an external store is refused where the operator's rights end with the namespace \
                                 (chart value rbac.scope: Namespaced): a finalizer would outlive them; use Retain and drop the database by hand";

/// A ping that comes too often is a load, one that comes too seldom says nothing.
fn health_problems(spec: &AmasDatabaseSpec) -> Vec<String> {
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
fn parameter_problems(spec: &AmasDatabaseSpec) -> Vec<String> {
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

fn postgres_problems(spec: &PostgresSpec, owner: Option<&SqlName>) -> Vec<String> {
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

fn workloads(
    family: &Family,
    spec: &AmasDatabaseSpec,
    images: &Images,
    eviction: Option<&Eviction>,
    problems: &mut Vec<String>,
) -> Vec<Workload> {
    let mut image = |store: &str, engine: &str, version: &str, own: &Option<String>| {
        let (name, source) = match own {
            Some(own) => (Some(own.clone()), ImageSource::Specification),
            None => (images.of(engine, version), ImageSource::Table),
        };
        let name = name.unwrap_or_else(|| {
            problems.push(format!(
                "spec.{store}.managed.version: there is no image for {engine} {version}"
            ));
            String::new()
        });
        Image { name, source }
    };
    let tls = spec.tls.as_ref();
    let mut all = Vec::new();
    if let Some((spec, managed)) = spec
        .postgres
        .as_ref()
        .and_then(|spec| Some((spec, spec.managed.as_ref()?)))
    {
        let image = image("postgres", "postgres", &managed.version, &managed.image);
        let mut workload = postgres::workload::workload(family, managed, &spec.extensions, image);
        if let Some(tls) = tls {
            let configuration = postgres::workload::configuration(managed, &spec.extensions);
            postgres::workload::encrypt(&mut workload, &configuration, tls);
        }
        all.push(workload);
    }
    if let Some(managed) = spec.redis.as_ref().and_then(|spec| spec.managed.as_ref()) {
        let image = image(
            "redis",
            redis::programs::of(managed.engine).name,
            &managed.version,
            &managed.image,
        );
        let mut workload = redis::workload::workload(family, managed, eviction, image);
        if let Some(tls) = tls {
            redis::workload::encrypt(&mut workload, tls);
        }
        all.push(workload);
    }
    if let Some(managed) = spec.neo4j.as_ref().and_then(|spec| spec.managed.as_ref()) {
        let image = image("neo4j", "neo4j", &managed.version, &managed.image);
        let mut workload = neo4j::workload::workload(family, managed, image);
        if let Some(tls) = tls {
            neo4j::workload::encrypt(&mut workload, tls);
        }
        all.push(workload);
    }
    all
}

fn rotation_problems(spec: &AmasDatabaseSpec) -> Vec<String> {
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
fn name_problems(secrets: &[SecretSpec], spec: &AmasDatabaseSpec) -> Vec<String> {
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

/// The managed servers that have certificates.
pub fn encrypted(spec: &AmasDatabaseSpec) -> Vec<&'static str> {
    if spec.tls.is_none() {
        return Vec::new();
    }
    let managed = StoreKind::all_of(spec).filter(|(_, declared)| declared.managed);
    managed.map(|(store, _)| store.component()).collect()
}

/// The servers that are not ours.
pub fn externals(spec: &AmasDatabaseSpec) -> Vec<(StoreKind, &External)> {
    StoreKind::all_of(spec)
        .filter_map(|(store, declared)| Some((store, declared.external?)))
        .collect()
}

/// How a migration source is written in messages.
pub fn source_name(source: &MigrationSource) -> String {
    match (&source.bundle, &source.image) {
        (Some(bundle), _) => format!("bundle {bundle}"),
        (_, Some(image)) => format!("image {}", image.reference),
        _ => format!("ConfigMaps {}", source.config_maps.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::sensitive::Sensitive;
    use serde_json::{Value, json};

    fn validated(spec: Value) -> Result<Valid, Vec<String>> {
        let object = serde_json::from_value(json!({
            "apiVersion": "amas.dev/v1alpha1", "kind": "AmasDatabase", "metadata": {"name": "db", "namespace": "ns", "uid": "u"}, "spec": spec,
        }));
        validate(
            &object.unwrap(),
            &super::super::fixtures::settings(),
            None,
            &Secrets::NONE,
        )
    }

    fn postgres(more: Value) -> Value {
        let mut spec = json!({"database": "amas", "managed": {"storage": {"size": "1Gi"}}});
        if let (Some(spec), Some(more)) = (spec.as_object_mut(), more.as_object()) {
            spec.extend(more.clone());
        }
        json!({"postgres": spec})
    }

    #[test]
    fn names_what_it_makes() {
        let valid = validated(postgres(
            json!({"roles": [{"name": "amas_app", "access": "ReadWrite"}]}),
        ))
        .unwrap();
        let secrets: Vec<&str> = valid.secrets.iter().map(|secret| secret.name.as_str()).collect();
        assert_eq!(secrets, ["db-postgres-admin", "db-role-amas-owner", "db-role-amas-app"]);
        assert_eq!(valid.workloads.len(), 1);
        assert_eq!(valid.workloads[0].image, "docker.io/pgvector/pgvector:pg17");
    }

    #[test]
    fn says_what_is_wrong() {
        let cases = [
            (json!({"database": "postgres"}), "PostgreSQL's own"),
            (json!({"roles": [{"name": "pg_app", "access": "ReadOnly"}]}), "reserved"),
            (
                json!({"roles": [{"name": "amas_owner", "access": "ReadOnly"}]}),
                "is the owner",
            ),
            (
                json!({"roles": [{"name": "a", "access": "ReadOnly", "connectionLimit": 94}]}),
                "come to 101, but max_connections is 100",
            ),
            (
                json!({"managed": {"storage": {"size": "1Gi"}, "parameters": {"archive_command": "rm"}}}),
                "archive_command",
            ),
            (
                json!({"roles": [{"name": "a", "access": "ReadOnly", "connection": {"extra": {"a b": ""}}}]}),
                "not a valid key",
            ),
        ];
        for (more, expected) in cases {
            let problems = validated(postgres(more.clone())).unwrap_err().join("\n");
            assert!(problems.contains(expected), "{more}: {problems}");
        }
    }

    #[test]
    fn how_often_a_server_is_asked_has_limits() {
        let asked =
            |health: Value| validated(json!({"redis": {"external": {"secretRef": {"name": "s"}, "health": health}}}));
        for fine in [
            json!({}),
            json!({"interval": "60s"}),
            json!({"mode": "OnDemand", "interval": "1d"}),
        ] {
            assert!(asked(fine).is_ok());
        }
        for wrong in [
            json!({"interval": "100ms"}),
            json!({"interval": "10m"}),
            json!({"mode": "OnDemand", "interval": "2s"}),
        ] {
            let problems = asked(wrong).unwrap_err().join("");
            assert!(problems.contains("spec.redis.external.health.interval"), "{problems}");
        }
    }

    #[test]
    fn an_external_server_has_its_connection_secret_too() {
        let asked = |secret: &str| {
            let store = json!({"external": {"secretRef": {"name": secret}}, "connection": {"extra": {"POOL": "5"}}});
            let names = validated(json!({"redis": store, "neo4j": store})).unwrap().secrets;
            names.into_iter().map(|secret| secret.name).collect::<Vec<_>>()
        };
        assert_eq!(asked("s"), ["db-redis-connection", "db-neo4j-connection"]);
        assert_eq!(
            asked("db-redis-connection"),
            ["db-neo4j-connection"],
            "the user's own is it"
        );
    }

    fn external(more: Value, entries: &[(&str, &str)]) -> Result<Valid, Vec<String>> {
        let mut spec = json!({"database": "amas", "external": {"secretRef": {"name": "s"}}});
        json_patch(&mut spec, &more);
        let object: AmasDatabase = serde_json::from_value(json!({
            "apiVersion": "amas.dev/v1alpha1", "kind": "AmasDatabase", "metadata": {"name": "db", "namespace": "ns", "uid": "u"},
            "spec": {"postgres": spec},
        }))
        .unwrap();
        let block = object
            .spec
            .postgres
            .as_ref()
            .and_then(|postgres| postgres.external.as_ref());
        let one = |(key, value): &(&str, &str)| ((*key).to_owned(), Sensitive::new(*value));
        let entries = entries.iter().map(one).collect();
        let given = external::Given {
            entries: &entries,
            ca: None,
        };
        let server = external::server(StoreKind::Postgres, block.unwrap(), &given);
        let users = Secrets {
            externals: &[(StoreKind::Postgres, server)].into(),
            given: &BTreeMap::new(),
            own: &BTreeMap::new(),
            issuance: None,
            renew: None,
            now: Timestamp::UNIX_EPOCH,
        };
        validate(&object, &super::super::fixtures::settings(), None, &users)
    }

    fn json_patch(spec: &mut Value, more: &Value) {
        for (key, value) in more.as_object().unwrap() {
            match spec.get_mut(key).filter(|old| old.is_object()) {
                Some(old) => json_patch(old, value),
                None => spec[key] = value.clone(),
            }
        }
    }

    #[test]
    fn applications_get_the_pooler_and_what_they_need_to_verify_it() {
        let ca = include_str!("../../../tests/support/ca.pem");
        let valid = external(
            json!({"roles": [{"name": "amas_app", "access": "ReadWrite"}]}),
            &[
                ("uri", "postgresql://a:p@pooler:6432"),
                ("directUri", "postgresql://a:p@db"),
                ("ca.crt", ca),
            ],
        )
        .unwrap();
        let published = |name: &str| {
            let secret = valid.secrets.iter().find(|secret| secret.name == name).unwrap();
            let entries = secret.entries(&Default::default());
            assert_eq!(
                (entries["ca.crt"].reveal(), entries["PGSSLMODE"].reveal()),
                (ca, "verify-full")
            );
            let url = entries["DATABASE_URL"].reveal().to_owned();
            url.split_once('@').unwrap().1.to_owned()
        };
        assert_eq!(published("db-role-amas-app"), "pooler:6432/amas?sslmode=verify-full");
        assert_eq!(published("db-role-amas-owner"), "db:5432/amas?sslmode=verify-full");
    }

    #[test]
    fn an_owner_s_login_is_used_as_it_is() {
        let owners = json!({"owner": "boss", "external": {"privileges": "Owner"}});
        let right = [("uri", "postgresql://boss:p@db/amas")];
        assert_eq!(external(owners.clone(), &right).unwrap().secrets, []);
        let refused = |more: Value, uri: &str| external(more, &[("uri", uri)]).unwrap_err().join("\n");
        assert!(refused(owners.clone(), "postgresql://other:p@db/amas").contains("must name the login"));
        assert!(
            refused(owners.clone(), "postgresql://boss:p@db/postgres").contains("must lead to the database itself")
        );
        let mut with_role = owners;
        with_role["roles"] = json!([{"name": "amas_app", "access": "ReadWrite"}]);
        assert!(refused(with_role.clone(), right[0].1).contains("may not create role amas_app"));
        with_role["roles"][0]["secretRef"] = json!({"name": "apps"});
        let secrets = external(with_role, &right).unwrap().secrets;
        assert_eq!(secrets.len(), 1, "its own is published: {secrets:?}");
    }
}
