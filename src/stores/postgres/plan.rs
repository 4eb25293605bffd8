//! From what the server has and what is wanted to steps. Pure.

use super::{
    PostgresDuty,
    catalog::{Catalog, OtherRole},
    duty::{ExtensionDuty, MissingExtension},
    logins,
    mark::Mark,
    step::{Step, create_extension},
};
use crate::{api::names::SqlName, stores::claim::ClaimVerdict};

/// What to do about the part of the duty that the admin does. Empty: it is in. `created`: this slice made the database.
///
/// Read in another than the wanted database, a catalog gives only the steps that must come before logging in to that.
pub fn plan(have: &Catalog, want: &PostgresDuty, created: bool) -> Vec<Step> {
    let mut steps = Vec::new();
    logins::plan(have, want, &mut steps);
    plan_database(have, want, &mut steps);
    if have.here == want.database.as_str() {
        plan_claim(have, want, created, &mut steps);
        plan_inside(have, want, &mut steps);
        if !want.is_owner_only() {
            steps.extend(retired(have, want).flat_map(retire));
        }
    }
    steps
}

/// Roles of ours that are no longer wanted.
pub fn retired<'a>(have: &'a Catalog, want: &'a PostgresDuty) -> impl Iterator<Item = (SqlName, Mark, &'a OtherRole)> {
    have.others.iter().filter_map(|(name, role)| {
        let mark = Mark::read(role.comment.as_deref()).filter(|mark| mark.is_of(&want.claim))?;
        Some((SqlName::parse(name.clone()).ok()?, mark, role))
    })
}

fn retire((name, mark, role): (SqlName, Mark, &OtherRole)) -> Vec<Step> {
    let lock = role.login.then(|| Step::LockRole { name: name.clone() });
    let drop = (mark.created_by_us && !role.owns).then_some(Step::DropRole { name });
    lock.into_iter().chain(drop).collect()
}

/// Somebody else's claim on this database, in words.
pub fn conflict(have: &Catalog, want: &PostgresDuty) -> Option<String> {
    if let Some(schema) = have.schemas.get("amas_operator").filter(|schema| !schema.trusted) {
        return Some(format!("schema amas_operator belongs to role {}", schema.owner));
    }
    match want
        .claim
        .judge_record(have.claim.as_ref(), false, want.take_over.is_some())
    {
        ClaimVerdict::Foreign(holder) => Some(holder),
        _ => {
            let needed = want.logins().into_iter();
            // A twin that is not needed may be anybody's: it is left alone.
            let app = want.roles.iter().map(|role| &role.name);
            let declared: Vec<&SqlName> = app.chain([&want.owner]).collect();
            needed
                .filter(|(name, password)| password.is_some() || declared.contains(&name))
                .find_map(|(name, _)| foreign_role(have, want, name.as_str()))
        }
    }
}

/// Why a role of the duty is somebody else's login. It is ours if it carries our mark, or none and
/// our password opens it.
fn foreign_role(have: &Catalog, want: &PostgresDuty, name: &str) -> Option<String> {
    let role = have.roles.get(name)?;
    let provided = want.is_owner_only() && name == want.owner.as_str();
    if provided || want.take_over.is_some() {
        return None;
    }
    match Mark::read(role.comment.as_deref()) {
        Some(mark) if mark.released || mark.is_of(&want.claim) => None,
        Some(mark) => Some(format!("role {name} is used by {}", mark.holder())),
        None if role.opened || want.is_owner_only() => None,
        None => Some(format!("role {name} exists and was not made for this AmasDatabase")),
    }
}

/// The mark that the role shall carry, where it carries another and we may write it. A role of a managed server that our password opens
/// was made before there were marks.
pub(super) fn mark(have: &Catalog, want: &PostgresDuty, name: &SqlName) -> Option<Step> {
    let role = have.roles.get(name.as_str());
    let comment = role.and_then(|role| role.comment.as_deref());
    let found = Mark::read(comment);
    let mut mark = match (role, found.clone()) {
        (None, _) => Mark::new(&want.claim, true),
        (Some(_), Some(mark)) if mark.is_of(&want.claim) => mark.released(false),
        (Some(role), None) => Mark::new(&want.claim, want.exclusive && role.opened),
        (Some(_), Some(_)) => Mark::new(&want.claim, false),
    };
    if *name == want.owner {
        mark.creates_database =
            have.database_owner.is_none() || (mark.creates_database && have.here != want.database.as_str());
    }
    (have.marks_roles && found.as_ref() != Some(&mark)).then(|| Step::MarkRole {
        name: name.clone(),
        comment: mark.write(comment),
    })
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
    // The mark of the owner tells that we were about to make the database when we were stopped.
    let mark = have
        .roles
        .get(want.owner.as_str())
        .and_then(|owner| Mark::read(owner.comment.as_deref()));
    let begun = mark.is_some_and(|mark| mark.is_of(&want.claim) && mark.creates_database);
    let ours = created || begun || want.exclusive;
    let found = have.claim.as_ref();
    steps.push(match want.claim.judge_record(found, ours, want.take_over.is_some()) {
        ClaimVerdict::Ours | ClaimVerdict::Foreign(_) => return,
        ClaimVerdict::Write { since: Some(_), .. } => Step::AdoptClaim {
            uid: want.claim.uid.clone(),
            released: found.is_some_and(|record| record.released.is_some()),
        },
        ClaimVerdict::Write { .. } if found.is_some() => Step::ReplaceClaim {
            claim: want.claim.clone(),
        },
        ClaimVerdict::Write { created_by_us, .. } => Step::WriteClaim {
            claim: want.claim.clone(),
            created_by_us,
        },
    });
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;

    use super::*;
    use crate::{
        api::sensitive::Sensitive,
        stores::{
            endpoint::{Endpoint, Tls},
            limits::Limit,
            postgres::{
                Access, RoleDuty, Session, Twin,
                catalog::{Role, SchemaOwner},
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
            clients: None,
            serves: None,
            attention: Default::default(),
            take_over: None,
            configuration: None,
            kept: false,
            deposit: None,
            waiting_plan: None,
            back_to: None,
            drift: Default::default(),
            look_again: String::new(),
        }
    }

    fn comment(mark: Mark) -> Option<String> {
        Some(mark.write(None))
    }

    fn role(connection_limit: i32) -> Role {
        Role {
            login: true,
            plain: true,
            password_right: true,
            opened: true,
            comment: comment(Mark::new(&want().claim, true)),
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
            marks_roles: true,
            max_connections: 100,
            roles: [
                (
                    "own".into(),
                    Role {
                        member_of: vec!["pg_read_all_stats".into()],
                        ..role(-1)
                    },
                ),
                ("app".into(), Role { settings, ..role(65) }),
            ]
            .into(),
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
            claim: Some(want().claim.record(true, Timestamp::UNIX_EPOCH)),
            ..Catalog::default()
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
            marks_roles: true,
            ..Catalog::default()
        };
        let outside = statements(&fresh);
        assert_eq!(outside.len(), 6, "{outside:?}");
        assert!(outside[0].starts_with("CREATE ROLE \"own\" LOGIN CONNECTION LIMIT -1 PASSWORD 'SCRAM-SHA-256$4096:"));
        let mark = r#"'amas.dev/claim {"cluster":"c","namespace":"n","name":"db","createdByUs":true"#;
        assert_eq!(
            outside[1],
            format!("COMMENT ON ROLE \"own\" IS {mark},\"createsDatabase\":true}}'")
        );
        assert_eq!(outside[2], "GRANT pg_read_all_stats TO \"own\"");
        assert!(outside[3].starts_with("CREATE ROLE \"app\" LOGIN CONNECTION LIMIT 65 PASSWORD 'SCRAM"));
        assert_eq!(outside[4], format!("COMMENT ON ROLE \"app\" IS {mark}}}'"));
        assert_eq!(outside[5], "CREATE DATABASE \"amas\" OWNER \"own\"");

        fresh.here = "amas".into();
        fresh.database_owner = Some("own".into());
        fresh.roles = [
            ("own".into(), converged().roles["own"].clone()),
            ("app".into(), role(65)),
        ]
        .into();
        fresh.available = vec!["vector".into()];
        let inside = statements(&fresh);
        assert_eq!(
            inside[..2],
            [
                "ALTER ROLE \"app\" IN DATABASE \"amas\" SET statement_timeout = '30000'",
                "ALTER ROLE \"app\" IN DATABASE \"amas\" SET search_path = \"a\", \"b\"",
            ]
        );
        assert!(inside[2].starts_with("CREATE SCHEMA amas_operator;\nCREATE TABLE amas_operator.claim ("));
        assert_eq!(
            inside[3..],
            [
                "INSERT INTO amas_operator.claim (cluster_id, namespace, name, uid, created_by_us) \
              VALUES ('c', 'n', 'db', '1', true)",
                "CREATE SCHEMA \"ext\" AUTHORIZATION \"own\"",
                "CREATE EXTENSION IF NOT EXISTS \"vector\" SCHEMA \"ext\" CASCADE",
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
        let table: [(Change, &str); 5] = [
            (
                |have| have.database_owner = Some("x".into()),
                "ALTER DATABASE \"amas\" OWNER TO \"own\"",
            ),
            (
                |have| have.schemas.get_mut("public").unwrap().owner = "postgres".into(),
                "ALTER SCHEMA public OWNER TO \"own\"",
            ),
            (
                |have| have.claim.as_mut().unwrap().claim.uid = "0".into(),
                "UPDATE amas_operator.claim SET uid = '1'",
            ),
            (
                |have| have.claim.as_mut().unwrap().released = Some(Timestamp::UNIX_EPOCH),
                "UPDATE amas_operator.claim SET uid = '1', released = NULL",
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
            made[2..],
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
        assert_eq!(
            texts(&have, &want(true, None)),
            ["ALTER ROLE \"app\" NOLOGIN PASSWORD NULL"]
        );
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
    fn connection_limits_that_cannot_be_held_are_told() {
        let (mut want, mut have) = (want(), converged());
        want.exclusive = false;
        let told = |have: &Catalog, want: &PostgresDuty, limit| have.limits(want).contains(&limit);
        // 65 of the role and 7.
        have.max_connections = 72;
        assert!(!told(&have, &want, Limit::FewConnections));
        have.max_connections = 71;
        assert!(told(&have, &want, Limit::FewConnections));
        have.roles.get_mut("app").unwrap().connection_limit = -1;
        assert!(!told(&have, &want, Limit::OtherRoleLimits), "an administrator sets it");
        want.admin.user = "own".into();
        assert!(told(&have, &want, Limit::OtherRoleLimits));
        have.roles.get_mut("app").unwrap().connection_limit = 65;
        assert!(!told(&have, &want, Limit::OtherRoleLimits));
    }

    #[test]
    fn other_peoples_claims() {
        let other = Claim {
            namespace: "other".into(),
            ..want().claim
        };
        let mut have = converged();
        have.claim = Some(other.record(true, Timestamp::UNIX_EPOCH));
        let holder = "claimed by other/db of cluster c since 1970-01-01T00:00:00Z";
        assert_eq!(conflict(&have, &want()).as_deref(), Some(holder));
        let taking = PostgresDuty {
            take_over: Some("yes".into()),
            ..want()
        };
        assert_eq!(conflict(&have, &taking), None);
        let steps = plan(&have, &taking, false);
        assert_eq!(steps, [Step::ReplaceClaim { claim: want().claim }]);
        assert!(steps[0].statement().ends_with("'1', false)"), "never ours to drop");
        let mut have = converged();
        have.schemas.get_mut("amas_operator").unwrap().trusted = false;
        assert_eq!(
            conflict(&have, &want()).as_deref(),
            Some("schema amas_operator belongs to role postgres")
        );
    }

    /// `app` as somebody else has made it, with that comment.
    fn with_app(comment: Option<String>, opened: bool) -> Catalog {
        let mut have = converged();
        let app = have.roles.get_mut("app").unwrap();
        (app.comment, app.opened, app.password_right) = (comment, opened, opened);
        have
    }

    #[test]
    fn a_login_of_somebody_else_is_never_taken() {
        let other = Claim {
            name: "x".into(),
            ..want().claim
        };
        let cases = [
            (
                Some("Ann's".to_owned()),
                "role app exists and was not made for this AmasDatabase",
            ),
            (None, "role app exists and was not made for this AmasDatabase"),
            (comment(Mark::new(&other, true)), "role app is used by n/x of cluster c"),
        ];
        for (comment, expected) in cases {
            assert_eq!(conflict(&with_app(comment, false), &want()).as_deref(), Some(expected));
        }
        let taking = PostgresDuty {
            take_over: Some("yes".into()),
            ..want()
        };
        let have = with_app(Some("Ann's".into()), false);
        assert_eq!(conflict(&have, &taking), None);
        let statements: Vec<String> = plan(&have, &taking, false).iter().map(Step::statement).collect();
        assert!(
            statements[0].starts_with("ALTER ROLE \"app\" PASSWORD"),
            "{statements:?}"
        );
        let marked = r#"COMMENT ON ROLE "app" IS 'Ann''s
amas.dev/claim {"cluster":"c","namespace":"n","name":"db","createdByUs":false}'"#;
        assert_eq!(statements[1..], [marked]);
    }

    #[test]
    fn a_role_that_our_password_opens_gets_its_mark_back() {
        let have = with_app(None, true);
        assert_eq!(conflict(&have, &want()), None);
        let got = plan(&have, &want(), false);
        let expected = |ours| Step::MarkRole {
            name: name("app"),
            comment: Mark::new(&want().claim, ours).write(None),
        };
        assert_eq!(got, [expected(true)]);
        let elsewhere = PostgresDuty {
            exclusive: false,
            ..want()
        };
        assert_eq!(plan(&have, &elsewhere, false), [expected(false)]);
    }

    #[test]
    fn a_database_that_was_begun_is_of_our_making() {
        let elsewhere = PostgresDuty {
            exclusive: false,
            ..want()
        };
        let mut have = converged();
        have.claim = None;
        let claimed = |have: &Catalog| {
            let step = plan(have, &elsewhere, false).into_iter().find_map(|step| match step {
                Step::WriteClaim { created_by_us, .. } => Some(created_by_us),
                _ => None,
            });
            step.unwrap()
        };
        assert!(!claimed(&have), "it was there before");
        let mut begun = Mark::new(&want().claim, true);
        begun.creates_database = true;
        have.roles.get_mut("own").unwrap().comment = comment(begun);
        assert!(claimed(&have));
        assert!(
            plan(&have, &elsewhere, false).contains(&Step::MarkRole {
                name: name("own"),
                comment: Mark::new(&want().claim, true).write(None),
            }),
            "in the same transaction"
        );
    }

    #[test]
    fn a_role_that_is_no_longer_wanted_cannot_log_in() {
        let lock = Step::LockRole { name: name("old") };
        let drop = Step::DropRole { name: name("old") };
        // (of our making, owns, logs in), what is done
        let cases = [
            ((true, false, true), vec![lock.clone(), drop.clone()]),
            ((true, false, false), vec![drop]),
            ((true, true, true), vec![lock.clone()]),
            ((false, false, true), vec![lock]),
            ((false, false, false), vec![]),
        ];
        for ((ours, owns, login), expected) in cases {
            let mut have = converged();
            let role = OtherRole {
                login,
                owns,
                comment: comment(Mark::new(&want().claim, ours)),
            };
            have.others.insert("old".into(), role);
            assert_eq!(plan(&have, &want(), false), expected);
        }
        let mut have = converged();
        let other = Claim {
            name: "x".into(),
            ..want().claim
        };
        let role = OtherRole {
            login: true,
            comment: comment(Mark::new(&other, true)),
            ..OtherRole::default()
        };
        have.others.insert("old".into(), role);
        assert_eq!(plan(&have, &want(), false), [], "of another object");
    }
}
