//! The logins of a database: owner, app roles, and the twin of each, by which a password is replaced while the old one still works. Pure.

use std::collections::BTreeMap;

use super::{
    Access, PostgresDuty, RoleDuty, Session,
    catalog::{Catalog, Role},
    duty::{Twin, twin_of},
    mark::Mark,
    plan::mark,
    sql::ident,
    step::{STATISTICS, Step},
};
use crate::api::{names::SqlName, sensitive::Sensitive};

const NO_LIMIT: i32 = -1;
/// The settings of an app role that are ours to set and reset.
const SETTINGS: [&str; 5] = [
    "timezone",
    "statement_timeout",
    "application_name",
    "search_path",
    "role",
];

type Settings = BTreeMap<&'static str, String>;

/// What a role and its twin have in common.
struct Account<'a> {
    name: &'a SqlName,
    password: &'a Sensitive,
    twin: &'a Twin,
    connection_limit: i32,
    settings: Settings,
}

pub fn plan(have: &Catalog, want: &PostgresDuty, steps: &mut Vec<Step>) {
    plan_admin(have, want, steps);
    plan_owner(have, want, steps);
    if !want.is_owner_only() {
        want.roles.iter().for_each(|role| plan_role(have, want, role, steps));
    }
}

/// Roles that log in with another password than the duty's: set only when it is sure that the duty knows the newest Secret.
pub fn unsure(have: &Catalog, want: &PostgresDuty) -> Vec<String> {
    let owner_only = want.is_owner_only();
    want.logins()
        .into_iter()
        .filter(|(name, password)| password.is_some() && !(owner_only && *name == want.owner))
        .filter(|(name, _)| {
            have.roles
                .get(name.as_str())
                .is_some_and(|role| role.login && !role.password_right)
        })
        .map(|(name, _)| name.to_string())
        .collect()
}

fn plan_admin(have: &Catalog, want: &PostgresDuty, steps: &mut Vec<Step>) {
    let known = have.roles.get(&want.admin.user);
    if let (Some(next), Some(admin), Ok(name)) = (&want.admin_next, known, SqlName::parse(&*want.admin.user))
        && !admin.password_right
    {
        steps.push(Step::SetPassword {
            name,
            password: next.clone(),
        });
    }
}

fn plan_owner(have: &Catalog, want: &PostgresDuty, steps: &mut Vec<Step>) {
    if want.is_owner_only() {
        return;
    }
    let account = Account {
        name: &want.owner,
        password: &want.owner_login.password,
        twin: &want.owner_twin,
        connection_limit: NO_LIMIT,
        settings: Settings::new(),
    };
    plan_account(have, &account, steps);
    steps.extend(mark(have, want, account.name));
    // A migration that waits says who is in its way, and for how long. On a server of somebody else's that may be more than it should see.
    let found = have.roles.get(want.owner.as_str());
    if want.exclusive && !is_member(found, STATISTICS) {
        steps.push(Step::ReadStatistics {
            name: want.owner.clone(),
        });
    }
    if !have.superuser && have.database_owner.as_deref() != Some(want.owner.as_str()) {
        steps.push(Step::Join {
            member: None,
            group: want.owner.clone(),
        });
    }
    plan_twin(have, want, &account, steps);
}

fn plan_role(have: &Catalog, want: &PostgresDuty, role: &RoleDuty, steps: &mut Vec<Step>) {
    let account = Account {
        name: &role.name,
        password: &role.password,
        twin: &role.twin,
        connection_limit: role.connection_limit,
        settings: settings(&role.session, role.access, &want.owner),
    };
    plan_account(have, &account, steps);
    steps.extend(mark(have, want, account.name));
    let found = have.roles.get(role.name.as_str());
    let (name, group) = (role.name.clone(), want.owner.clone());
    match (is_member(found, group.as_str()), role.access == Access::Owner) {
        (false, true) => steps.push(Step::Join {
            member: Some(name),
            group,
        }),
        (true, false) => steps.push(Step::Leave { member: name, group }),
        _ => {}
    }
    if have.database_owner.is_some() {
        plan_settings(found, want, &role.name, &account.settings, steps);
    }
    plan_twin(have, want, &account, steps);
}

/// The session settings that a role of somebody else lacks; it may set its own. Others that it has are his.
pub fn set_for(have: &Catalog, want: &PostgresDuty, role: &RoleDuty) -> Vec<Step> {
    let wanted = settings(&role.session, role.access, &want.owner);
    let mut steps = Vec::new();
    plan_settings(
        have.roles.get(role.name.as_str()),
        want,
        &role.name,
        &wanted,
        &mut steps,
    );
    steps.retain(|step| matches!(step, Step::Set { .. }));
    steps
}

fn is_member(found: Option<&Role>, group: &str) -> bool {
    found.is_some_and(|found| found.member_of.iter().any(|one| one == group))
}

fn plan_account(have: &Catalog, account: &Account<'_>, steps: &mut Vec<Step>) {
    let [password, _] = account.twin.passwords(account.password);
    let found = have.roles.get(account.name.as_str());
    plan_login(found, account.name, password, account.connection_limit, steps);
}

/// Nothing is made before it is needed; what is there and not needed may not log in.
fn plan_twin(have: &Catalog, want: &PostgresDuty, account: &Account<'_>, steps: &mut Vec<Step>) {
    let [_, password] = account.twin.passwords(account.password);
    let name = twin_of(account.name);
    let found = have.roles.get(name.as_str());
    let ours = found.is_some_and(|role| {
        Mark::read(role.comment.as_deref()).map_or(!have.marks_roles, |mark| mark.is_of(&want.claim))
    });
    if password.is_none() && !ours {
        return;
    }
    plan_login(found, &name, password, account.connection_limit, steps);
    steps.extend(mark(have, want, &name));
    if password.is_none() {
        return;
    }
    if !is_member(found, account.name.as_str()) {
        steps.push(Step::Join {
            member: Some(name.clone()),
            group: account.name.clone(),
        });
    }
    if have.database_owner.is_some() {
        let mut settings = account.settings.clone();
        // What it makes belongs to the role, and rights are asked of the role.
        settings.entry("role").or_insert_with(|| account.name.to_string());
        plan_settings(found, want, &name, &settings, steps);
    }
}

fn plan_login(
    have: Option<&Role>,
    name: &SqlName,
    password: Option<&Sensitive>,
    connection_limit: i32,
    steps: &mut Vec<Step>,
) {
    let name = name.clone();
    let Some(have) = have else {
        return steps.push(Step::CreateRole {
            name,
            password: password.cloned(),
            connection_limit,
        });
    };
    match password {
        None if have.login => steps.push(Step::Retire { name: name.clone() }),
        Some(_) if !have.login || !have.plain => steps.push(Step::PlainRole { name: name.clone() }),
        _ => {}
    }
    if have.connection_limit != connection_limit {
        steps.push(Step::LimitRole {
            name: name.clone(),
            connection_limit,
        });
    }
    if let Some(password) = password.filter(|_| !have.password_right) {
        steps.push(Step::SetPassword {
            name,
            password: password.clone(),
        });
    }
}

fn plan_settings(have: Option<&Role>, want: &PostgresDuty, login: &SqlName, wanted: &Settings, steps: &mut Vec<Step>) {
    let have: BTreeMap<String, &str> = have
        .into_iter()
        .flat_map(|found| &found.settings)
        .filter_map(|setting| setting.split_once('='))
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
        .collect();
    for name in SETTINGS {
        let (role, database) = (login.clone(), want.database.clone());
        match (have.get(name), wanted.get(name)) {
            // The server keeps a search path with no more quotes than it needs.
            (Some(have), Some(value)) if have == value || name == "search_path" && **have == value.replace('"', "") => {
            }
            (_, Some(value)) => steps.push(Step::Set {
                role,
                database,
                name,
                value: value.clone(),
            }),
            (Some(_), None) => steps.push(Step::Reset { role, database, name }),
            (None, None) => {}
        }
    }
}

/// As `pg_db_role_setting` will hold them.
fn settings(session: &Session, access: Access, owner: &SqlName) -> Settings {
    let path: Vec<String> = session
        .search_path
        .iter()
        .map(|schema| ident(schema.as_str()))
        .collect();
    let pairs = [
        ("timezone", session.timezone.clone()),
        (
            "statement_timeout",
            session.statement_timeout.map(|timeout| timeout.as_millis().to_string()),
        ),
        ("application_name", session.application_name.clone()),
        ("search_path", (!path.is_empty()).then(|| path.join(", "))),
        ("role", (access == Access::Owner).then(|| owner.to_string())),
    ];
    pairs
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
}
