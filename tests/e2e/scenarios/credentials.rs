//! Published Secrets log in, rights hold, and generated passwords, those before a rotation and those after it, are seen nowhere but in Secrets.

use std::{collections::BTreeMap, str::FromStr};

use amas_operator::api::{amas_database::AmasDatabase, cache_policy::CachePolicy, graph_schema::GraphSchema};
use base64::Engine;
use k8s_openapi::api::{
    apps::v1::StatefulSet,
    batch::v1::Job,
    core::v1::{ConfigMap, Event, Pod, Secret},
};
use kube::{
    Api, Resource, ResourceExt,
    api::{DynamicObject, ListParams, LogParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};

use crate::{
    cluster::{
        clients::{self, Stores, Values, role_secret},
        objects, operator,
        platform::{PATIENCE, Platform, READER, WRITER},
        process::CommandLines,
        wait::Watch,
    },
    ensure,
    harness::{About, Result, context::Ctx},
};

/// insufficient_privilege, and invalid_password.
const NOT_ALLOWED: &str = "42501";

pub async fn run(ctx: &Ctx) -> Result {
    let mut platform = Platform::load(ctx)?;
    // From its first start on the server keeps the text of every statement, in its log too.
    platform.change(|spec| {
        spec["postgres"]["extensions"]
            .as_array_mut()
            .about("the platform has extensions")?
            .push(json!("pg_stat_statements"));
        spec["postgres"]["managed"]["parameters"]["log_statement"] = json!("all");
        Ok(())
    })?;
    let command_lines = CommandLines::watch();
    let namespace = platform.up(ctx, "amas").await?;
    rights(ctx, &platform, &namespace).await?;
    wrong_passwords(ctx, &platform, &namespace).await?;
    let mut all = passwords(ctx, &namespace).await?;
    let before = all.len();
    rotate(ctx, &platform, &namespace).await?;
    all.extend(passwords(ctx, &namespace).await?);
    // Two forms of each; those for seeds stay.
    ensure!(
        all.len() >= before + 10,
        "a rotation replaces at least five passwords: {before} forms before, {} in all",
        all.len()
    );
    let command_lines = command_lines.end()?;
    let mut places = places(ctx, &namespace).await?;
    ensure!(
        command_lines.contains("migrate up"),
        "the Job's command line was not seen: {command_lines}"
    );
    places.insert("command lines".to_owned(), command_lines);
    places.insert(
        "pg_stat_statements".to_owned(),
        statements(ctx, &platform, &namespace).await?,
    );
    nowhere_else(ctx, &platform, &places, &all)
}

/// All credentials get new passwords, and the old ones end.
async fn rotate(ctx: &Ctx, platform: &Platform, namespace: &str) -> Result {
    let databases = objects::api::<AmasDatabase>(&ctx.client, namespace);
    let patch = json!({
        "metadata": {"annotations": {"amas.dev/rotate-credentials": "e2e"}},
        "spec": {"credentials": {"rotation": {"overlap": "10s"}}},
    });
    let name = platform.name();
    databases
        .patch(&name, &PatchParams::default(), &Patch::Merge(patch))
        .await?;
    let over = |object: Option<&DynamicObject>| {
        let all = object.and_then(|object| object.data["status"]["credentials"].as_array().cloned());
        let ended =
            |one: &Value| one["rotations"] == 1 && one["previousValidUntil"].is_null() && one["preparing"].is_null();
        all.is_some_and(|all| all.len() >= 5 && all.iter().all(ended))
    };
    let mut watch = Watch::open(&databases, &name).await?;
    watch.until(PATIENCE, "all credentials rotated", over).await?;
    platform.wait_ready(ctx, namespace).await
}

/// What the server remembers of the statements that it was sent, by whoever.
async fn statements(ctx: &Ctx, platform: &Platform, namespace: &str) -> Result<String> {
    let admin = Values::read(&ctx.client, namespace, &format!("{}-postgres-admin", platform.name())).await?;
    let role = Values::read(&ctx.client, namespace, &role_secret(&platform.name(), WRITER)).await?;
    let options = PgConnectOptions::from_str(role.get("DATABASE_URL")?)?
        .username(admin.get("PGUSER")?)
        .password(admin.get("PGPASSWORD")?);
    let mut session = PgConnection::connect_with(&options)
        .await
        .about("log in as the superuser")?;
    let query = "SELECT string_agg(query, E'\\n') FROM pg_stat_statements";
    let all = clients::value(&mut session, query).await?;
    ensure!(
        all.contains("CREATE ROLE") && all.contains("ALTER ROLE") && all.contains("pg_authid"),
        "pg_stat_statements has the statements of the beginning and of the rotation: {all}"
    );
    Ok(all)
}

async fn rights(ctx: &Ctx, platform: &Platform, namespace: &str) -> Result {
    let mut writer = Stores::open(&ctx.client, namespace, &platform.name(), WRITER).await?;
    let mut reader = Stores::open(&ctx.client, namespace, &platform.name(), READER).await?;
    ctx.figure("published Secrets log in", "2 roles, Redis, Neo4j", "all", true);
    let insert = "INSERT INTO tasks (task_id, title, task_type) VALUES ('t1', 'one', 'e2e')";
    clients::sql(&mut writer.postgres, insert).await?;
    let title = clients::value(&mut reader.postgres, "SELECT title FROM tasks WHERE task_id = 't1'").await?;
    ensure!(
        title == "one",
        "the read-only role reads {title:?} for what was written as 'one'"
    );
    redis::cmd("SET")
        .arg("amas:task:t1")
        .arg("{}")
        .arg("EX")
        .arg(300)
        .exec_async(&mut writer.redis)
        .await?;
    clients::run(&writer.neo4j, neo4rs::query("CREATE (:Task {task_id: 't1'})")).await?;
    let refused = [
        (
            "read-only role",
            true,
            "INSERT INTO tasks (task_id, title, task_type) VALUES ('t2', 'two', 'e2e')",
        ),
        ("read-only role", true, "UPDATE tasks SET title = 'x'"),
        ("read-only role", true, "DELETE FROM tasks"),
        ("read-only role", true, "CREATE TABLE mine (id int)"),
        ("read-write role", false, "CREATE TABLE mine (id int)"),
        ("read-write role", false, "DROP TABLE tasks"),
        ("read-write role", false, "DELETE FROM public._sqlx_migrations"),
    ];
    for (who, reads, statement) in refused {
        let session = if reads {
            &mut reader.postgres
        } else {
            &mut writer.postgres
        };
        let state = clients::refusal(session, statement).await;
        let seen = state.clone().unwrap_or_else(|| "done".into());
        ctx.figure(
            format!("{who}: {statement}"),
            seen,
            NOT_ALLOWED,
            state.as_deref() == Some(NOT_ALLOWED),
        );
    }
    Ok(())
}

async fn wrong_passwords(ctx: &Ctx, platform: &Platform, namespace: &str) -> Result {
    let name = platform.name();
    let sql = Values::read(&ctx.client, namespace, &role_secret(&name, WRITER)).await?;
    let cache = Values::read(&ctx.client, namespace, &format!("{name}-redis-connection")).await?;
    let graph = Values::read(&ctx.client, namespace, &format!("{name}-neo4j-connection")).await?;
    let wrong = |values: &Values, url: &str, password: &str| -> Result<String> {
        Ok(values.get(url)?.replace(values.get(password)?, "wrong"))
    };
    let refused = [
        (
            "PostgreSQL",
            clients::postgres(&wrong(&sql, "DATABASE_URL", "PGPASSWORD")?)
                .await
                .is_err(),
        ),
        (
            "Redis",
            clients::redis(&wrong(&cache, "REDIS_URL", "REDIS_PASSWORD")?)
                .await
                .is_err(),
        ),
        (
            "Neo4j",
            clients::neo4j(graph.get("NEO4J_URI")?, graph.get("NEO4J_USER")?, "wrong")
                .await
                .is_err(),
        ),
    ];
    for (store, refused) in refused {
        let seen = if refused { "refused" } else { "logged in" };
        ctx.figure(format!("{store}: wrong password"), seen, "refused", refused);
    }
    Ok(())
}

/// Looks for every generated password, as it is and in base64, in all that is told to people or stored beside Secrets.
fn nowhere_else(
    ctx: &Ctx,
    platform: &Platform,
    places: &BTreeMap<String, String>,
    passwords: &BTreeMap<String, String>,
) -> Result {
    ensure!(
        passwords.len() >= 5,
        "expected at least five generated passwords, seen {:?}",
        passwords.values()
    );
    let mut found = Vec::new();
    for (place, text) in places {
        ensure!(!text.is_empty(), "{place} is empty: nothing was looked at");
        found.extend(
            passwords
                .iter()
                .filter(|(form, _)| text.contains(form.as_str()))
                .map(|(_, of)| format!("{of} in {place}")),
        );
    }
    let seen = if found.is_empty() {
        format!("none of {} in {} places", passwords.len(), places.len())
    } else {
        found.join(", ")
    };
    ctx.say(format!(
        "looked at: {}",
        places.keys().cloned().collect::<Vec<_>>().join(", ")
    ));
    ctx.figure(
        format!("{}: generated passwords outside of Secrets", platform.name()),
        seen,
        "none",
        found.is_empty(),
    );
    Ok(())
}

/// Each form of each generated password, and whose it is.
async fn passwords(ctx: &Ctx, namespace: &str) -> Result<BTreeMap<String, String>> {
    let secrets: Api<Secret> = Api::namespaced(ctx.client.clone(), namespace);
    let mut forms = BTreeMap::new();
    for secret in secrets.list(&ListParams::default().labels("amas.dev/database")).await? {
        let name = secret.name_any();
        for (key, value) in Values::of(&name, &secret).iter() {
            let generated = key.to_lowercase().contains("password") && !key.to_lowercase().contains("hash");
            if generated && value.len() >= 12 {
                let encoded = base64::engine::general_purpose::STANDARD_NO_PAD.encode(value);
                forms.insert(value.to_owned(), format!("{name}/{key}"));
                forms.insert(encoded, format!("{name}/{key} (base64)"));
            }
        }
    }
    Ok(forms)
}

async fn places(ctx: &Ctx, namespace: &str) -> Result<BTreeMap<String, String>> {
    let mut places = BTreeMap::new();
    places.insert("operator log".to_owned(), operator::log(ctx, 100_000).await?);
    places.insert("AmasDatabase".to_owned(), text::<AmasDatabase>(ctx, namespace).await?);
    places.insert("CachePolicy".to_owned(), text::<CachePolicy>(ctx, namespace).await?);
    places.insert("GraphSchema".to_owned(), text::<GraphSchema>(ctx, namespace).await?);
    places.insert("StatefulSets".to_owned(), text::<StatefulSet>(ctx, namespace).await?);
    places.insert("Jobs".to_owned(), text::<Job>(ctx, namespace).await?);
    places.insert("Pods".to_owned(), text::<Pod>(ctx, namespace).await?);
    places.insert("ConfigMaps".to_owned(), text::<ConfigMap>(ctx, namespace).await?);
    places.insert("Events".to_owned(), text::<Event>(ctx, namespace).await?);
    let pods: Api<Pod> = Api::namespaced(ctx.client.clone(), namespace);
    for pod in pods.list(&ListParams::default()).await? {
        let name = pod.name_any();
        let log = pods
            .logs(&name, &LogParams::default())
            .await
            .about(format!("log of {name}"))?;
        places.insert(format!("log of {name}"), log);
    }
    Ok(places)
}

/// All objects of a kind as JSON.
async fn text<K: Resource<DynamicType = ()>>(ctx: &Ctx, namespace: &str) -> Result<String> {
    let list = objects::api::<K>(&ctx.client, namespace)
        .list(&ListParams::default())
        .await?;
    ensure!(!list.items.is_empty(), "no {} to look into", K::kind(&()));
    Ok(serde_json::to_string(&list.items)?)
}
