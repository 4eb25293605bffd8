//! Roles that somebody else has made, for a login that may do no more than own its database: they are taken as they are, given rights on what
//! the owner owns, and set their own session settings. What they lack is told, with what an administrator has to run.

use super::{
    PostgresDuty, RoleDuty,
    catalog::{Catalog, Role},
    connect::{connect, execute},
    logins::set_for,
    sql::ident,
};
use crate::stores::endpoint::{Endpoint, StoreError};

/// Makes every role of the duty what it is declared as, as far as it can do that itself.
pub async fn hold(have: &Catalog, want: &PostgresDuty) -> Result<(), StoreError> {
    let problems: Vec<String> = want.roles.iter().filter_map(|role| problem(have, want, role)).collect();
    if !problems.is_empty() {
        return Err(StoreError::Rejected(problems.join("; ")));
    }
    for role in &want.roles {
        let steps = set_for(have, want, role);
        if steps.is_empty() {
            continue;
        }
        let login = Endpoint {
            user: role.name.to_string(),
            password: role.password.clone(),
            ..want.admin.clone()
        };
        let mut own = connect(&login, want.database.as_str()).await?;
        let statements: Vec<String> = steps.iter().map(|step| step.statement()).collect();
        execute(&mut own, &statements).await?;
        let _ = sqlx::Connection::close(own).await;
    }
    Ok(())
}

/// Why a role cannot be used as it is declared, and what to do.
pub fn problem(have: &Catalog, want: &PostgresDuty, role: &RoleDuty) -> Option<String> {
    let name = ident(role.name.as_str());
    let owner = ident(want.owner.as_str());
    let Some(found) = have.roles.get(role.name.as_str()) else {
        return Some(format!(
            "there is no role {name}, and with privileges: Owner none is made; as an administrator run: CREATE ROLE {name} LOGIN PASSWORD '...'; with the password of its secretRef"
        ));
    };
    lacks(found, want).map(|lack| {
        format!(
            "role {name} {}",
            lack.replace("{role}", &name).replace("{owner}", &owner)
        )
    })
}

fn lacks(found: &Role, want: &PostgresDuty) -> Option<&'static str> {
    if !found.login {
        return Some("may not log in; as an administrator run: ALTER ROLE {role} LOGIN;");
    }
    if !found.plain {
        return Some(
            "has attributes that go beyond a database; as an administrator run: ALTER ROLE {role} NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;",
        );
    }
    if found.member_of.iter().any(|group| group == want.owner.as_str()) {
        return Some(
            "is a member of the owner and could change the schema; as an administrator run: REVOKE {owner} FROM {role};",
        );
    }
    (!found.password_right).then_some(
        "does not get in with the password of its secretRef; correct that Secret, or the password on the server",
    )
}
