//! Taking leave of a PostgreSQL server that was not ours: the claim is let go, or what it says we made is dropped.

use sqlx::{Connection, PgConnection};

use super::{
    PostgresDuty,
    catalog::{self, Catalog},
    connect::{SqlError, execute},
    mark::Mark,
    plan::retired,
    sentinel::MAINTENANCE_DATABASE,
    step::{Step, release_claim},
    work::{connect_admin, drop_role, log_in},
};
use crate::{
    api::names::SqlName,
    stores::{endpoint::StoreError, keeper::Parting},
};

/// Done again after any interruption, it goes on with what is still there. Gives what had to stay.
pub async fn part(duty: &PostgresDuty, how: Parting) -> Result<Vec<String>, StoreError> {
    let mut connection = log_in(true, duty).await?;
    let have = catalog::read(&mut connection, duty, true).await?;
    // Another object of the name may have taken it up; then it is not ours to touch.
    let ours = have.claim.as_ref().filter(|record| record.claim == duty.claim);
    match (ours, how) {
        (Some(record), Parting::Drop) if record.created_by_us => {
            connection.close().await.map_err(SqlError::from)?;
            connection = connect_admin(duty, MAINTENANCE_DATABASE).await?;
            drop_database(&mut connection, &duty.database).await?;
        }
        (Some(_), _) => {
            let mut statements = vec![release_claim(&duty.claim)];
            statements.extend(released_marks(&have, duty));
            execute(&mut connection, &statements).await?;
        }
        // Somebody else's: its roles of our name are somebody else's too.
        (None, _) if have.claim.is_some() => return Ok(Vec::new()),
        (None, _) => {}
    }
    let left = match how {
        Parting::Release => Vec::new(),
        Parting::Drop => drop_roles(&mut connection, duty).await?,
    };
    connection.close().await.map_err(SqlError::from)?;
    Ok(left)
}

/// The roles are let go with the database.
fn released_marks(have: &Catalog, duty: &PostgresDuty) -> Vec<String> {
    let listed = have.roles.iter().map(|(name, role)| (name, &role.comment));
    let others = have.others.iter().map(|(name, role)| (name, &role.comment));
    let release = |(name, comment): (&String, &Option<String>)| {
        let mark = Mark::read(comment.as_deref()).filter(|mark| mark.is_of(&duty.claim))?;
        let comment = mark.released(true).write(comment.as_deref());
        let name = SqlName::parse(name.clone()).ok()?;
        Some(Step::MarkRole { name, comment }.statement())
    };
    match have.marks_roles {
        true => listed.chain(others).filter_map(release).collect(),
        false => Vec::new(),
    }
}

async fn drop_database(connection: &mut PgConnection, name: &SqlName) -> Result<(), SqlError> {
    execute(connection, &["SET statement_timeout = 0".to_owned()]).await?;
    execute(
        connection,
        &[format!("DROP DATABASE IF EXISTS \"{name}\" WITH (FORCE)")],
    )
    .await
}

/// All roles that carry our mark: those we made go if they own nothing any more, the others only lose their login.
async fn drop_roles(connection: &mut PgConnection, duty: &PostgresDuty) -> Result<Vec<String>, SqlError> {
    let nobody = PostgresDuty {
        roles: Vec::new(),
        ..duty.clone()
    };
    let mut have: Catalog = catalog::read(connection, &nobody, true).await?;
    // The owner, with its twin, is the one role that a duty cannot be without.
    let owner = std::mem::take(&mut have.roles);
    let ours = owner.into_iter().filter(|_| !duty.is_owner_only());
    have.others.extend(ours.map(|(name, role)| (name, role.into())));
    let mut left = Vec::new();
    for (name, mark, role) in retired(&have, duty) {
        if role.login {
            execute(connection, &[Step::LockRole { name: name.clone() }.statement()]).await?;
        }
        if !mark.created_by_us {
            continue;
        }
        let dropped = drop_role(connection, &name).await?;
        if !dropped || exists(connection, &name).await? {
            left.push(format!(
                "role {name}, which owns or may use something else on the server"
            ));
        }
    }
    Ok(left)
}

/// Still there after the statement that drops it where it owns nothing.
async fn exists(connection: &mut PgConnection, name: &SqlName) -> Result<bool, SqlError> {
    let query = format!("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = '{name}')::text");
    super::connect::read(connection, query).await
}
