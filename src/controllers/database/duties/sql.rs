//! What the keeper of PostgreSQL has to hold true.

use super::attention;
use crate::{
    api::{
        names::{ExtensionName, SqlName},
        postgres::{Access, PostgresSpec, Role},
    },
    controllers::database::{
        configuration,
        duties::logins::{clients, endpoint, role_login, serves, state},
        losses,
        observe::Observed,
        table::StoreKind,
        validate::Valid,
    },
    stores::{
        claim::Claim,
        endpoint::Endpoint,
        postgres::{self, ExtensionDuty, PostgresDuty, RoleDuty, Session, Twin},
    },
};

pub(super) fn postgres_duty(
    postgres: &PostgresSpec,
    valid: &Valid,
    observed: &Observed,
    claim: &Claim,
) -> Option<PostgresDuty> {
    let admin = endpoint(
        StoreKind::Postgres,
        valid,
        observed,
        postgres::workload::PORT,
        postgres::workload::ADMIN,
    )?;
    let owner = valid.owner.clone()?;
    let (owner_login, owner_twin) = owner_login(postgres, &owner, &admin, (valid, observed))?;
    let admin_next =
        state(valid, observed, &valid.family.child_name("postgres-admin")).and_then(|(_, state)| state.rotation.next);
    let schema = SqlName::parse("public").ok()?;
    let extension = |name: &ExtensionName| ExtensionDuty {
        name: name.clone(),
        schema: schema.clone(),
    };
    Some(PostgresDuty {
        admin,
        owner_login,
        database: postgres.database.clone(),
        owner,
        owner_twin,
        admin_next,
        sure: observed.sure,
        extensions: postgres.extensions.iter().map(extension).collect(),
        roles: roles(postgres, valid, observed)?,
        exclusive: postgres.managed.is_some(),
        clients: clients(observed),
        serves: serves(StoreKind::Postgres, valid, observed),
        attention: attention(postgres.external.as_ref()),
        claim: claim.clone(),
        take_over: observed.annotations.take_over.clone(),
        configuration: configuration::judge(postgres, valid, observed).map(|judged| judged.duty),
        kept: losses::is_kept(StoreKind::Postgres, observed),
        deposit: observed.deposit.clone(),
        // known once the plan is
        waiting_plan: None,
        back_to: observed.back_to,
        drift: postgres::DriftDuty {
            correct: observed.corrects_drift,
            accept: observed.annotations.accept_drift.clone(),
        },
        look_again: String::new(),
    })
}

/// The owner as whom migrations run: the user's own login where the owner is all there is, else one of ours.
fn owner_login(
    postgres: &PostgresSpec,
    owner: &SqlName,
    admin: &Endpoint,
    (valid, observed): (&Valid, &Observed),
) -> Option<(Endpoint, Twin)> {
    if postgres.is_owners() {
        return Some((admin.clone(), Twin::default()));
    }
    let (password, twin) = role_login(valid, observed, owner)?;
    let user = match twin.active {
        true => postgres::twin_name(owner.as_str()),
        false => owner.to_string(),
    };
    let login = Endpoint {
        user,
        password,
        ..admin.clone()
    };
    Some((login, twin))
}

/// The roles of applications, once each has its password.
fn roles(postgres: &PostgresSpec, valid: &Valid, observed: &Observed) -> Option<Vec<RoleDuty>> {
    let session = Session {
        timezone: postgres.session.timezone.clone(),
        statement_timeout: postgres.session.statement_timeout.map(|span| span.get()),
        application_name: postgres.session.application_name.clone(),
        search_path: postgres.session.search_path.clone(),
    };
    let role = |role: &Role| {
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
    postgres.roles.iter().map(role).collect()
}
