//! From the specification to values that can be used without further checks, or the reasons why not. Pure.

mod declared;
mod problems;

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;

pub use self::declared::{given_names, role_secret, wanted_secrets};
use crate::{
    api::{
        amas_database::{AmasDatabase, AmasDatabaseSpec},
        cache_policy::Eviction,
        common::{DeletionPolicy, External},
        migrations::MigrationSource,
        names::SqlName,
    },
    controllers::{
        Settings,
        credentials::{Known, SecretSpec},
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
        problems.extend(problems::of_postgres(postgres, owner.as_ref()));
        if let Some(Ok(server)) = users.externals.get(&StoreKind::Postgres) {
            problems.extend(external::owner_problems(postgres, owner.as_ref(), server));
        }
    }
    problems.extend(problems::of_parameters(spec));
    problems.extend(keys::connection_problems(spec));
    problems.extend(keys::pod_problems(spec));
    problems.extend(problems::of_rotation(spec));
    problems.extend(problems::of_health(spec));
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
    problems.extend(problems::of_names(&secrets, spec));
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
