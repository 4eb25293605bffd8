//! PostgreSQL by hand: roles, database, extensions, every migration and the seeds, as one would type them into psql.

use std::{
    fs,
    path::{Path, PathBuf},
};

use amas_operator::api::{
    amas_database::AmasDatabaseSpec,
    postgres::{Access, PostgresSpec, Role, Session},
};

use super::{by_hand::ByHand, platform::PATIENCE};
use crate::{
    cluster::{clients, wait},
    harness::{About, Result},
};

/// A bcrypt hash as the seeds want one, made beforehand.
const ADMIN_HASH: &str = "$2b$12$abcdefghijklmnopqrstuuVGZzGWXUpLW1v0kKW0ePEVPPT0hQz3K";

/// Brings the server to the state of the specification; returns when the last statement is in.
pub async fn provision(hand: &ByHand<'_>, spec: &AmasDatabaseSpec) -> Result {
    let postgres = spec.postgres.as_ref().about("the specification has no PostgreSQL")?;
    let owner = postgres.owner_name()?.to_string();
    let admin_url = hand.postgres_url("postgres", "postgres");
    let mut admin = wait::retry(PATIENCE, async || clients::postgres(&admin_url).await).await?;
    clients::sql(&mut admin, &roles(hand, postgres, &owner)).await?;
    // CREATE DATABASE takes no company.
    clients::sql(
        &mut admin,
        &format!("CREATE DATABASE {} OWNER {owner}", postgres.database),
    )
    .await?;
    let mut admin = clients::postgres(&hand.postgres_url("postgres", postgres.database.as_str())).await?;
    clients::sql(&mut admin, &rights(postgres, &owner)).await?;
    let files = files(spec)?;
    if files.is_empty() {
        return Ok(());
    }
    let mut session = clients::postgres(&hand.postgres_url(&owner, postgres.database.as_str())).await?;
    for file in files {
        let text = fs::read_to_string(&file).about(file.display())?;
        clients::sql(&mut session, &in_transaction(&text))
            .await
            .about(file.display())?;
    }
    Ok(())
}

fn in_transaction(text: &str) -> String {
    format!("BEGIN; SET LOCAL amas.seed.admin_password_hash = '{ADMIN_HASH}';\n{text}\n;COMMIT;")
}

/// Logins for the owner and the applications.
fn roles(hand: &ByHand<'_>, postgres: &PostgresSpec, owner: &str) -> String {
    let login = |name: &str, more: &str| format!("CREATE ROLE {name} LOGIN PASSWORD '{}'{more};", hand.password);
    let role = |role: &Role| {
        login(
            role.name.as_str(),
            &format!(" CONNECTION LIMIT {}", role.connection_limit),
        )
    };
    let apps: String = postgres.roles.iter().map(role).collect();
    login(owner, "") + &apps
}

/// Extensions, session settings and rights, in the new database.
fn rights(postgres: &PostgresSpec, owner: &str) -> String {
    let database = &postgres.database;
    let mut text =
        format!("REVOKE CONNECT ON DATABASE {database} FROM PUBLIC; GRANT CREATE ON SCHEMA public TO {owner};");
    text.extend(
        postgres
            .extensions
            .iter()
            .map(|name| format!("CREATE EXTENSION IF NOT EXISTS \"{name}\" SCHEMA public;")),
    );
    for role in &postgres.roles {
        let name = &role.name;
        let verbs = match role.access {
            Access::ReadWrite => "SELECT, INSERT, UPDATE, DELETE",
            Access::ReadOnly => "SELECT",
        };
        text += &format!("GRANT CONNECT ON DATABASE {database} TO {name}; GRANT USAGE ON SCHEMA public TO {name};");
        text += &format!("ALTER DEFAULT PRIVILEGES FOR ROLE {owner} GRANT {verbs} ON TABLES TO {name};");
        if role.access == Access::ReadWrite {
            text += &format!("ALTER DEFAULT PRIVILEGES FOR ROLE {owner} GRANT USAGE, SELECT ON SEQUENCES TO {name};");
        }
        let set =
            |(key, value): (&str, String)| format!("ALTER ROLE {name} IN DATABASE {database} SET {key} = '{value}';");
        text.extend(settings(&postgres.session).into_iter().map(set));
    }
    text
}

fn settings(session: &Session) -> Vec<(&'static str, String)> {
    let timeout = session
        .statement_timeout
        .map(|span| format!("{}ms", span.get().as_millis()));
    [
        ("timezone", session.timezone.clone()),
        ("statement_timeout", timeout),
        ("application_name", session.application_name.clone()),
    ]
    .into_iter()
    .filter_map(|(key, value)| Some((key, value?)))
    .collect()
}

/// The migrations and then the seeds of the bundle, in order.
fn files(spec: &AmasDatabaseSpec) -> Result<Vec<PathBuf>> {
    let Some(bundle) = spec
        .migrations
        .as_ref()
        .and_then(|migrations| migrations.source.bundle.as_ref())
    else {
        return Ok(Vec::new());
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("migrations")
        .join(bundle.as_str());
    let mut files = sorted(&folder, ".up.sql")?;
    if let Some(profile) = spec.seed.as_ref().and_then(|seed| seed.profile.folder()) {
        let folders = ["common", profile, "last"].map(|name| folder.join("seed").join(name));
        for folder in folders.iter().filter(|folder| folder.is_dir()) {
            files.extend(sorted(folder, ".sql")?);
        }
    }
    Ok(files)
}

fn sorted(folder: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)
        .about(folder.display())?
        .filter_map(std::result::Result::ok);
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().ends_with(ending))
        .collect();
    files.sort();
    Ok(files)
}
