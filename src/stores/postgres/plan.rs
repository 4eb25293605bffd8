//! From what the server has and what is wanted to steps. Pure.

use super::{
    PostgresDuty,
    catalog::Catalog,
    duty::{ExtensionDuty, MissingExtension},
    logins,
    step::{Step, create_extension},
};

/// What to do about the part of the duty that the admin does. Empty: it is in. `created`: this slice made the database.
///
/// Read in another than the wanted database, a catalog gives only the steps that must come before logging in to that.
pub fn plan(have: &Catalog, want: &PostgresDuty, created: bool) -> Vec<Step> {
    let mut steps = Vec::new();
    logins::plan(have, want, &mut steps);
    plan_database(have, want, &mut steps);
    if have.here == want.database.as_str() {
        plan_inside(have, want, &mut steps);
        plan_claim(have, want, created, &mut steps);
    }
    steps
}

/// Somebody else's claim on this database, in words.
pub fn conflict(have: &Catalog, want: &PostgresDuty) -> Option<String> {
    if let Some(schema) = have.schemas.get("amas_operator").filter(|schema| !schema.trusted) {
        return Some(format!("schema amas_operator belongs to role {}", schema.owner));
    }
    let other = have.claim.as_ref().filter(|claim| !claim.is_of(&want.claim))?;
    Some(format!(
        "claimed by {}/{} of cluster {}",
        other.namespace, other.name, other.cluster_id
    ))
}

/// The wanted extensions that are not there, of which `refused` could not be created.
pub fn missing_extensions(have: &Catalog, want: &PostgresDuty, refused: &[ExtensionDuty]) -> Vec<MissingExtension> {
    let absent = |extension: &&ExtensionDuty| !have.extensions.iter().any(|name| name == extension.name.as_str());
    let installed = |extension: &ExtensionDuty| have.available.iter().any(|name| name == extension.name.as_str());
    want.extensions
        .iter()
        .filter(absent)
        .filter(|extension| !installed(extension) || refused.contains(extension))
        .map(|extension| MissingExtension {
            name: extension.name.clone(),
            installed: installed(extension),
            statement: format!("{};", create_extension(extension)),
        })
        .collect()
}

fn plan_database(have: &Catalog, want: &PostgresDuty, steps: &mut Vec<Step>) {
    let (name, owner) = (want.database.clone(), want.owner.clone());
    match have.database_owner.as_deref() {
        None => steps.push(Step::CreateDatabase { name, owner }),
        Some(current) if current != owner.as_str() => steps.push(Step::OwnDatabase { name, owner }),
        Some(_) => {}
    }
}

fn plan_inside(have: &Catalog, want: &PostgresDuty, steps: &mut Vec<Step>) {
    let owner = want.owner.clone();
    // Since PostgreSQL 15 `public` belongs to whoever owns the database.
    let foreign = |schema: &str| schema != owner.as_str() && schema != "pg_database_owner";
    if have.schemas.get("public").is_some_and(|schema| foreign(&schema.owner)) && !want.is_owner_only() {
        steps.push(Step::OwnPublic { owner: owner.clone() });
    }
    for extension in &want.extensions {
        let name = extension.name.as_str();
        if have.extensions.iter().any(|there| there == name) || !have.available.iter().any(|there| there == name) {
            continue;
        }
        let schema = Step::CreateSchema {
            name: extension.schema.clone(),
            owner: owner.clone(),
        };
        if !have.schemas.contains_key(extension.schema.as_str()) && !steps.contains(&schema) {
            steps.push(schema);
        }
        steps.push(Step::CreateExtension(extension.clone()));
    }
}

fn plan_claim(have: &Catalog, want: &PostgresDuty, created: bool, steps: &mut Vec<Step>) {
    if !have.claim_readable {
        steps.push(Step::CreateClaimTable {
            schema_exists: have.schemas.contains_key("amas_operator"),
        });
    }
    match &have.claim {
        None => steps.push(Step::WriteClaim {
            claim: want.claim.clone(),
            created_by_us: created,
        }),
        Some(claim) if claim.uid != want.claim.uid => steps.push(Step::AdoptClaim {
            uid: want.claim.uid.clone(),
        }),
        Some(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        api::{names::SqlName, sensitive::Sensitive},
        stores::{
            endpoint::{Endpoint, Tls},
            postgres::{
                Access, RoleDuty, Session, Twin,
                catalog::{Role, SchemaOwner, StoredClaim},
                duty::Claim,
            },
        },
    };

    fn name(text: &str) -> SqlName {
        SqlName::parse(text).unwrap()
    }

    fn extension(extension: &str, schema: &str) -> ExtensionDuty {
        ExtensionDuty {
            name: extension.parse().unwrap(),
            schema: name(schema),
        }
    }

    fn want() -> PostgresDuty {
        let login = |user: &str| Endpoint {
            host: "db".into(),
            port: 5432,
            tls: Tls::Disable,
            user: user.into(),
            password: Sensitive::new("secret"),
        };
        PostgresDuty {
            admin: login("postgres"),
            owner_login: login("own"),
            database: name("amas"),
            owner: name("own"),
            owner_twin: Twin::default(),
            admin_next: None,
            sure: false,
            extensions: vec![extension("vector", "ext"), extension("uuid-ossp", "ext")],
            roles: vec![RoleDuty {
                name: name("app"),
                password: Sensitive::new("secret"),
                twin: Twin::default(),
                access: Access::ReadWrite,
                connection_limit: 65,
                session: Session {
                    statement_timeout: Some(Duration::from_secs(30)),
                    search_path: vec![name("a"), name("b")],
                    ..Session::default()
                },
            }],
            exclusive: true,
            claim: Claim {
                cluster_id: "c".into(),
                namespace: "n".into(),
                name: "db".into(),
                uid: "1".into(),
            },
            look_again: String::new(),
        }
    }

    fn role(connection_limit: i32) -> Role {
        Role {
            login: true,
            plain: true,
            password_right: true,
            connection_limit,
            ..Role::default()
        }
    }

    /// As the server is once everything is in.
    fn converged() -> Catalog {
        let settings = vec!["statement_timeout=30000".into(), "search_path=a, b".into()];
        let schema = |owner: &str, trusted| SchemaOwner {
            owner: owner.into(),
            trusted,
        };
        Catalog {
            here: "amas".into(),
            me: "postgres".into(),
            superuser: true,
            max_connections: 100,
            roles: [("own".into(), role(-1)), ("app".into(), Role { settings, ..role(65) })].into(),
            database_owner: Some("own".into()),
            available: vec!["vector".into(), "uuid-ossp".into()],
            extensions: vec!["vector".into(), "uuid-ossp".into()],
            schemas: [
                ("public".into(), schema("pg_database_owner", false)),
                ("ext".into(), schema("own", false)),
                ("amas_operator".into(), schema("postgres", true)),
            ]
            .into(),
            claim_readable: true,
            claim: Some(StoredClaim {
                cluster_id: "c".into(),
                namespace: "n".into(),
                name: "db".into(),
                uid: "1".into(),
            }),
        }
    }

    fn statements(have: &Catalog) -> Vec<String> {
        plan(have, &want(), true).iter().map(Step::statement).collect()
    }

    #[test]
    fn nothing_to_do_when_it_is_in() {
        assert_eq!(plan(&converged(), &want(), false), []);
        assert_eq!(conflict(&converged(), &want()), None);
        assert_eq!(missing_extensions(&converged(), &want(), &[]), []);
    }

    #[test]
    fn a_fresh_server_outside_and_inside() {
        let mut fresh = Catalog {
            here: "postgres".into(),
            me: "postgres".into(),
            superuser: true,
            ..Catalog::default()
        };
        let outside = statements(&fresh);
        assert_eq!(outside.len(), 3, "{outside:?}");
        assert!(outside[0].starts_with("CREATE ROLE \"own\" LOGIN CONNECTION LIMIT -1 PASSWORD 'SCRAM-SHA-256$4096:"));
        assert!(outside[1].starts_with("CREATE ROLE \"app\" LOGIN CONNECTION LIMIT 65 PASSWORD 'SCRAM"));
        assert_eq!(outside[2], "CREATE DATABASE \"amas\" OWNER \"own\"");

        fresh.here = "amas".into();
        fresh.database_owner = Some("own".into());
        fresh.roles = [("own".into(), role(-1)), ("app".into(), role(65))].into();
        fresh.available = vec!["vector".into()];
        let inside = statements(&fresh);
        assert_eq!(
            inside[..4],
            [
                "ALTER ROLE \"app\" IN DATABASE \"amas\" SET statement_timeout = '30000'",
                "ALTER ROLE \"app\" IN DATABASE \"amas\" SET search_path = \"a\", \"b\"",
                "CREATE SCHEMA \"ext\" AUTHORIZATION \"own\"",
                "CREATE EXTENSION IF NOT EXISTS \"vector\" SCHEMA \"ext\" CASCADE",
            ]
        );
        assert!(inside[4].starts_with("CREATE SCHEMA amas_operator;\nCREATE TABLE amas_operator.claim ("));
        assert_eq!(
            inside[5..],
            [
                "INSERT INTO amas_operator.claim (cluster_id, namespace, name, uid, created_by_us) \
              VALUES ('c', 'n', 'db', '1', true)"
            ]
        );
        let missing = missing_extensions(&fresh, &want(), &[]);
        assert_eq!(missing.len(), 1);
        assert!(!missing[0].installed);
        assert_eq!(
            missing[0].statement,
            "CREATE EXTENSION IF NOT EXISTS \"uuid-ossp\" SCHEMA \"ext\" CASCADE;"
        );
        assert_eq!(
            missing_extensions(&fresh, &want(), &[extension("vector", "ext")]).len(),
            2
        );
    }

    #[test]
    fn each_difference_has_its_statement() {
        type Change = fn(&mut Catalog);
        let app = |change: fn(&mut Role)| move |have: &mut Catalog| change(have.roles.get_mut("app").unwrap());
        let check = |change: &dyn Fn(&mut Catalog), expected: &str| {
            let mut have = converged();
            change(&mut have);
            let got = statements(&have);
            assert!(
                got.len() == 1 && got[0].starts_with(expected),
                "{got:?} is not {expected}"
            );
        };
        let plain = "ALTER ROLE \"app\" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS";
        check(&app(|role| role.login = false), plain);
        check(&app(|role| role.plain = false), plain);
        check(
            &app(|role| role.connection_limit = 3),
            "ALTER ROLE \"app\" CONNECTION LIMIT 65",
        );
        check(
            &app(|role| role.password_right = false),
            "ALTER ROLE \"app\" PASSWORD 'SCRAM-SHA-256$",
        );
        check(
            &app(|role| role.member_of = vec!["own".into()]),
            "REVOKE \"own\" FROM \"app\"",
        );
        check(
            &app(|role| role.settings.push("TimeZone=UTC".into())),
            "ALTER ROLE \"app\" IN DATABASE \"amas\" RESET timezone",
        );
        let table: [(Change, &str); 4] = [
            (
                |have| have.database_owner = Some("x".into()),
                "ALTER DATABASE \"amas\" OWNER TO \"own\"",
            ),
            (
                |have| have.schemas.get_mut("public").unwrap().owner = "postgres".into(),
                "ALTER SCHEMA public OWNER TO \"own\"",
            ),
            (
                |have| have.claim.as_mut().unwrap().uid = "0".into(),
                "UPDATE amas_operator.claim SET uid = '1'",
            ),
            (|have| have.claim = None, "INSERT INTO amas_operator.claim"),
        ];
        table.iter().for_each(|(change, expected)| check(change, expected));
    }

    #[test]
    fn an_owner_role_acts_as_the_owner() {
        let mut want = want();
        want.roles[0].access = Access::Owner;
        let steps: Vec<String> = plan(&converged(), &want, false).iter().map(Step::statement).collect();
        assert_eq!(
            steps,
            [
                "GRANT \"own\" TO \"app\"",
                "ALTER ROLE \"app\" IN DATABASE \"amas\" SET role = 'own'"
            ]
        );
    }

    #[test]
    fn a_rotation_goes_from_the_role_to_its_twin_and_back() {
        let want = |active, other: Option<&str>| {
            let mut want = want();
            want.roles[0].twin = Twin {
                active,
                other: other.map(Sensitive::new),
            };
            want
        };
        let texts = |have: &Catalog, want: &PostgresDuty| -> Vec<String> {
            plan(have, want, false).iter().map(Step::statement).collect()
        };
        // Prepared: the twin is made, with the role's settings, and acts as the role.
        let mut have = converged();
        let made = texts(&have, &want(false, Some("next")));
        assert!(made[0].starts_with("CREATE ROLE \"app_twin\" LOGIN CONNECTION LIMIT 65 PASSWORD 'SCRAM"));
        assert_eq!(
            made[1..],
            [
                "GRANT \"app\" TO \"app_twin\"",
                "ALTER ROLE \"app_twin\" IN DATABASE \"amas\" SET statement_timeout = '30000'",
                "ALTER ROLE \"app_twin\" IN DATABASE \"amas\" SET search_path = \"a\", \"b\"",
                "ALTER ROLE \"app_twin\" IN DATABASE \"amas\" SET role = 'app'",
            ]
        );
        let mut twin = have.roles["app"].clone();
        twin.member_of = vec!["app".into()];
        twin.settings.push("role=app".into());
        have.roles.insert("app_twin".into(), twin);
        // Both are valid, whichever of them the Secret names.
        assert_eq!(plan(&have, &want(false, Some("next")), false), []);
        assert_eq!(plan(&have, &want(true, Some("secret")), false), []);
        // The overlap is over: only the one that the Secret names.
        assert_eq!(texts(&have, &want(true, None)), ["ALTER ROLE \"app\" NOLOGIN PASSWORD NULL"]);
        assert_eq!(
            texts(&have, &want(false, None)),
            ["ALTER ROLE \"app_twin\" NOLOGIN PASSWORD NULL"]
        );
        have.roles.get_mut("app").unwrap().login = false;
        assert_eq!(plan(&have, &want(true, None), false), []);
        // And back again.
        have.roles.get_mut("app").unwrap().password_right = false;
        let back = texts(&have, &want(true, Some("third")));
        assert!(back[0].starts_with("ALTER ROLE \"app\" LOGIN NOSUPERUSER") && back[1].contains("PASSWORD 'SCRAM"));
        assert_eq!(back.len(), 2);
    }

    #[test]
    fn an_owner_without_an_admin_is_left_as_it_is() {
        let mut want = want();
        want.admin.user = "own".into();
        let mut have = converged();
        have.superuser = false;
        have.roles.get_mut("own").unwrap().plain = false;
        assert_eq!(plan(&have, &want, false), []);
    }

    #[test]
    fn other_peoples_claims() {
        let mut have = converged();
        have.claim.as_mut().unwrap().namespace = "other".into();
        assert_eq!(
            conflict(&have, &want()).as_deref(),
            Some("claimed by other/db of cluster c")
        );
        let mut have = converged();
        have.schemas.get_mut("amas_operator").unwrap().trusted = false;
        assert_eq!(
            conflict(&have, &want()).as_deref(),
            Some("schema amas_operator belongs to role postgres")
        );
    }
}
