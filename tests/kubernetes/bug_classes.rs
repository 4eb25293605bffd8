//! Mistakes that other operators of databases had to repair, each as a test of ours.
//!
//! | what went wrong elsewhere | here |
//! |---|---|
//! | a second object with `Delete` dropped what the first one still used | `a_duplicate_with_delete_takes_nothing_of_the_survivor` |
//! | an unreadable Secret cleared a role's password | `an_unreadable_secret_clears_no_password` |
//! | the finalizer stayed when the server was read-only or gone | `a_read_only_server_holds_nobody_back`, `deletion::a_server_that_is_away_holds_nobody_back`, `deletion::a_namespace_waits_for_an_operator_that_is_away_and_no_longer` |
//! | made, its status lost, then AlreadyExists for ever | `crashes::*` (every create and every status with its answer lost, and the operator killed after it) |
//! | a stale cache made things twice | `a_stale_cache_makes_nothing_twice`; `engine::children`: `an_older_event_does_not_undo_a_newer_write` |
//! | a Job used its retries up, and its object waited for ever | `a_job_that_gave_up_is_said_and_a_repaired_file_goes_on`; `controllers::database::jobs`: `lost_pods_are_tried_again_three_times` |
//! | a state that went to and fro | `component`: `twenty_restarts_in_a_minute_are_at_most_four_changes`; end to end: `flapping` |
//! | "started" for ever after a restart of the operator | `a_run_whose_job_vanished_meanwhile_is_started_again`, `crashes::*` |
//! | the owner's objects were run with the operator's rights | `nothing_that_an_owner_plants_is_run_by_the_operator` |
//! | a password in the text of a statement | `component`: `a_fresh_server_gets_the_duty_once_and_no_password_in_clear`; end to end: `credentials` |
//! | a parameter's name that brings another setting along | `stores::postgres::parameters`: `dangerous_parameters_are_refused` |
//! | a name that leads out of a folder or a statement | `api::names`: `refuses_what_would_need_quoting`; end to end: `bad-input` |
//! | success said before the last step | `crashes::*` (Ready is compared with the whole end state) |

use std::time::Duration;

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use sqlx::{ConnectOptions, Connection, postgres::PgConnectOptions};

use crate::{
    deletion::reason,
    lifecycle::{database, external},
    support::{
        kubernetes::{Kubernetes, Namespace, condition_of},
        operator::Operator,
        postgres::Postgres,
        process::eventually,
        proxy::ApiProxy,
    },
};

const SOON: Duration = Duration::from_secs(20);

fn message(object: &Value) -> &str {
    condition_of(object, "Ready")
        .and_then(|ready| ready["message"].as_str())
        .unwrap_or_default()
}

/// A namespace that knows a server.
async fn beside(name: &str, postgres: &Postgres) -> Namespace {
    let ns = Kubernetes::shared().await.namespace(name).await;
    ns.secret("postgres", &[("uri", &postgres.url("postgres", "postgres"))])
        .await;
    ns
}

/// A database of this name with one role.
fn sql(name: &str, role: Value) -> Value {
    let mut all = json!({"name": format!("{name}_app"), "access": "ReadWrite"});
    all.as_object_mut().unwrap().extend(role.as_object().unwrap().clone());
    json!({"database": name, "owner": format!("{name}_owner"), "roles": [all], "external": external("postgres")})
}

async fn names(postgres: &Postgres, prefix: &str) -> Vec<String> {
    let mut admin = postgres.connect("postgres", "postgres").await;
    let query = "SELECT datname::text FROM pg_database WHERE strpos(datname, $1) = 1 UNION ALL SELECT rolname::text FROM pg_roles WHERE strpos(rolname, $1) = 1";
    sqlx::query_scalar(query)
        .bind(prefix)
        .fetch_all(&mut admin)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_duplicate_with_delete_takes_nothing_of_the_survivor() {
    let postgres = Postgres::shared().await;
    let ns = beside("duplicate", &postgres).await;
    let _operator = ns.operator(&[]).await;
    let object = |name: &str| {
        database(
            name,
            json!({"deletionPolicy": "Delete", "postgres": sql("twice", json!({}))}),
        )
    };
    ns.apply(object("survivor")).await;
    ns.wait_condition("AmasDatabase", "survivor", "Ready", "True").await;
    ns.apply(object("duplicate")).await;
    ns.wait("AmasDatabase", "duplicate", "Conflicted", |object| {
        reason(object) == "Conflicted"
    })
    .await;
    let before = names(&postgres, "twice").await;
    ns.delete("AmasDatabase", "duplicate").await;
    ns.wait_gone("AmasDatabase", "duplicate").await;
    assert_eq!(names(&postgres, "twice").await, before);
    ns.wait_condition("AmasDatabase", "survivor", "Ready", "True").await;
    let mut inside = postgres.connect("postgres", "twice").await;
    let claim: String = sqlx::query_scalar("SELECT concat_ws(' ', name, released) FROM amas_operator.claim")
        .fetch_one(&mut inside)
        .await
        .unwrap();
    assert_eq!(claim, "survivor");
}

/// Whether this password opens the role.
async fn opens(postgres: &Postgres, role: &str, password: &str) -> bool {
    let options = PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(postgres.port);
    let login = options
        .username(role)
        .password(password)
        .database("kept")
        .disable_statement_logging();
    match login.connect().await {
        Ok(connection) => connection.close().await.is_ok(),
        Err(_) => false,
    }
}

#[tokio::test]
async fn an_unreadable_secret_clears_no_password() {
    let postgres = Postgres::start_guarded(&[("fsync", "off")]).await;
    let ns = beside("unreadable", &postgres).await;
    let mut operator = ns.operator(&[]).await;
    ns.secret("brought", &[("password", "a password of theirs")]).await;
    let object = database(
        "a",
        json!({"postgres": sql("kept", json!({"secretRef": {"name": "brought"}}))}),
    );
    ns.apply(object.clone()).await;
    ns.wait_condition("AmasDatabase", "a", "Ready", "True").await;
    assert!(opens(&postgres, "kept_app", "a password of theirs").await);
    let owner = ns.get("Secret", "a-role-kept-owner").await.unwrap();
    // What is brought: junk, without its key, gone.
    let unreadable = async |turn: &str, patch: Option<Value>| {
        match patch {
            Some(patch) => {
                let params = PatchParams::default();
                drop(
                    ns.kind("Secret")
                        .patch("brought", &params, &Patch::Merge(&patch))
                        .await
                        .unwrap(),
                );
            }
            None => ns.delete("Secret", "brought").await,
        }
        let mut object = object.clone();
        object["metadata"]["annotations"] = json!({"amas.dev/reread-secrets": turn});
        ns.apply(object).await;
        let object = ns
            .wait("AmasDatabase", "a", "CredentialsMissing", |object| {
                reason(object) == "CredentialsMissing"
            })
            .await;
        assert!(message(&object).contains("brought"), "{}", message(&object));
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(opens(&postgres, "kept_app", "a password of theirs").await, "{turn}");
    };
    unreadable("junk", Some(json!({"data": {"password": "AAEC"}}))).await;
    unreadable(
        "without its key",
        Some(json!({"data": {"password": null, "word": "AAEC"}})),
    )
    .await;
    // Repaired, it is taken up without being asked for.
    ns.secret("brought", &[("password", "a password of theirs")]).await;
    ns.wait_condition("AmasDatabase", "a", "Ready", "True").await;
    unreadable("gone", None).await;
    ns.secret("brought", &[("password", "a password of theirs")]).await;
    ns.wait_condition("AmasDatabase", "a", "Ready", "True").await;
    // What is ours, when the operator comes back to it.
    operator.kill();
    let emptied = json!({"data": {"PGPASSWORD": null}});
    ns.kind("Secret")
        .patch("a-role-kept-owner", &PatchParams::default(), &Patch::Merge(&emptied))
        .await
        .unwrap();
    operator.again();
    ns.wait("AmasDatabase", "a", "CredentialsMissing", |object| {
        reason(object) == "CredentialsMissing"
    })
    .await;
    ns.apply(
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a-role-kept-owner"}, "data": owner["data"]}),
    )
    .await;
    ns.wait_condition("AmasDatabase", "a", "Ready", "True").await;
}

#[tokio::test]
async fn a_read_only_server_holds_nobody_back() {
    let postgres = Postgres::start_with(&[("fsync", "off")]).await;
    let ns = beside("readonly", &postgres).await;
    let operator = ns.operator(&[]).await;
    ns.apply(database(
        "a",
        json!({"deletionPolicy": "Delete", "deletionTimeout": "3s", "postgres": sql("frozen", json!({}))}),
    ))
    .await;
    ns.wait_condition("AmasDatabase", "a", "Ready", "True").await;
    let before = names(&postgres, "frozen").await;
    postgres
        .admin(
            "postgres",
            &[
                "ALTER SYSTEM SET default_transaction_read_only = on",
                "SELECT pg_reload_conf()",
            ],
        )
        .await;
    ns.delete("AmasDatabase", "a").await;
    ns.wait_gone("AmasDatabase", "a").await;
    assert_eq!(names(&postgres, "frozen").await, before);
    assert!(operator.log().contains("read-only transaction"), "{}", operator.log());
    let events = ns.list("Event").await;
    assert!(
        events.iter().any(|event| event["reason"] == "LeftBehind"),
        "{events:#?}"
    );
}

#[tokio::test]
async fn a_stale_cache_makes_nothing_twice() {
    let api = Kubernetes::shared().await;
    let ns = api.namespace("stale").await;
    let proxy = ApiProxy::start(&api, &ns.name).await;
    let _operator = Operator::start(&ns, &proxy.kubeconfig, &[("POD_NAME", "operator")]);
    let cache = |name: &str, cpu: &str| {
        let managed = json!({"storage": {"size": "1Gi"}, "resources": {"limits": {"cpu": cpu}}});
        database(name, json!({"redis": {"managed": managed}}))
    };
    ns.apply(cache("before", "100m")).await;
    ns.wait("StatefulSet", "before-redis", "there", |_| true).await;
    // From now on nothing is heard of what was made.
    proxy.withhold_children();
    let mark = api.audit();
    ns.apply(cache("a", "100m")).await;
    ns.wait("StatefulSet", "a-redis", "there", |_| true).await;
    for cpu in ["200m", "300m"] {
        ns.apply(cache("a", cpu)).await;
        let wanted =
            |set: &Value| set.pointer("/spec/template/spec/containers/0/resources/limits/cpu") == Some(&json!(cpu));
        ns.wait("StatefulSet", "a-redis", "changed", wanted).await;
    }
    ns.wait_condition("AmasDatabase", "a", "Ready", "False").await;
    let writes = mark.requests().unwrap().in_namespace(&ns.name).writes();
    let creates: Vec<String> = writes
        .0
        .iter()
        .filter(|write| write.verb == "create" && write.resource != "events")
        .map(|write| format!("{}/{}", write.resource, write.name))
        .collect();
    let mut once = creates.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), creates.len(), "{}", writes.lines());
    assert!(writes.0.iter().all(|write| write.code < 300), "{}", writes.lines());
    proxy.restore();
    eventually("the caches are filled and agree", SOON, async || {
        let mark = api.audit();
        tokio::time::sleep(Duration::from_secs(2)).await;
        mark.requests().unwrap().in_namespace(&ns.name).writes().is_empty()
    })
    .await;
}

/// Files in a ConfigMap, and a database that runs them.
async fn migrated(ns: &Namespace, name: &str, text: &str) -> Value {
    ns.apply(
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "files"}, "data": {"0001_a.sql": text}}),
    )
    .await;
    let mut object = database(
        "a",
        json!({"postgres": sql(name, json!({})), "migrations": {"source": {"configMaps": ["files"]}}}),
    );
    object["metadata"]["annotations"] = json!({"amas.dev/reread-sources": text.len().to_string()});
    object
}

async fn jobs(ns: &Namespace) -> Vec<String> {
    let all = ns.list("Job").await;
    let mut names: Vec<String> = all
        .iter()
        .map(|job| job["metadata"]["name"].as_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

/// As the Job controller leaves one whose pods failed too often.
async fn give_up(ns: &Namespace, job: &str) {
    let at = "2026-01-01T00:00:00Z";
    let condition = |kind: &str| {
        json!({"type": kind, "status": "True", "reason": "BackoffLimitExceeded", "message": "Job has reached the specified backoff limit",
        "lastTransitionTime": at, "lastProbeTime": at})
    };
    let conditions = ["FailureTarget", "Failed"].map(condition);
    let status = json!({"status": {"startTime": at, "failed": 4, "conditions": conditions}});
    ns.kind("Job")
        .patch_status(job, &PatchParams::default(), &Patch::Merge(&status))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_job_that_gave_up_is_said_and_a_repaired_file_goes_on() {
    let postgres = Postgres::shared().await;
    let ns = beside("gaveup", &postgres).await;
    let mut operator = ns.operator(&[]).await;
    ns.apply(migrated(&ns, "gaveup", "SELECT 1;").await).await;
    // Three pods' worth of Jobs, one after another.
    for turn in 1..=3 {
        eventually("a Job", SOON, async || {
            jobs(&ns).await.iter().any(|name| name.ends_with(&format!("-{turn}")))
        })
        .await;
        let name = jobs(&ns)
            .await
            .into_iter()
            .find(|name| name.ends_with(&format!("-{turn}")))
            .unwrap();
        give_up(&ns, &name).await;
    }
    let failed = |object: &Value| reason(object) == "MigrationFailed" && condition_of(object, "Stalled").is_some();
    ns.wait("AmasDatabase", "a", "MigrationFailed", failed).await;
    // Also to one that starts.
    operator.kill();
    operator.again();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let object = ns.wait("AmasDatabase", "a", "MigrationFailed", failed).await;
    println!("Job given up: {}", message(&object));
    let before = jobs(&ns).await;
    ns.apply(migrated(&ns, "gaveup", "SELECT 1, 2;").await).await;
    eventually("another Job", SOON, async || {
        jobs(&ns).await.iter().any(|name| !before.contains(name))
    })
    .await;
}

#[tokio::test]
async fn a_run_whose_job_vanished_meanwhile_is_started_again() {
    let postgres = Postgres::shared().await;
    let ns = beside("vanished", &postgres).await;
    let mut operator = ns.operator(&[]).await;
    ns.apply(migrated(&ns, "vanished", "SELECT 1;").await).await;
    eventually("a Job", SOON, async || jobs(&ns).await.len() == 1).await;
    let first = ns.list("Job").await[0]["metadata"].clone();
    operator.kill();
    ns.delete("Job", first["name"].as_str().unwrap()).await;
    operator.again();
    eventually("another Job", SOON, async || {
        let all = ns.list("Job").await;
        all.iter()
            .any(|job| job["metadata"]["uid"] != first["uid"] && job["metadata"]["deletionTimestamp"].is_null())
    })
    .await;
}

#[tokio::test]
async fn nothing_that_an_owner_plants_is_run_by_the_operator() {
    let postgres = Postgres::start_with(&[("fsync", "off")]).await;
    let ns = beside("planted", &postgres).await;
    let mut operator = ns.operator(&[]).await;
    let object = |extra: &str| {
        let mut sql = sql("planted", json!({"connection": {"extra": {"TURN": extra}}}));
        if extra == "2" {
            sql["roles"]
                .as_array_mut()
                .unwrap()
                .push(json!({"name": "planted_more", "access": "ReadOnly"}));
        }
        database("a", json!({"postgres": sql}))
    };
    ns.apply(object("1")).await;
    ns.wait_condition("AmasDatabase", "a", "Ready", "True").await;
    // Whatever of the catalog is named without its schema would be one of these, once the owner's path comes first.
    let trap = "CREATE FUNCTION evil.trap() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN \
                IF current_setting('is_superuser') = 'on' AND NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'trapped') THEN EXECUTE 'CREATE ROLE trapped SUPERUSER'; END IF; RETURN true; END $$";
    let relations = [
        "pg_authid",
        "pg_roles",
        "pg_auth_members",
        "pg_class",
        "pg_database",
        "pg_default_acl",
        "pg_db_role_setting",
        "pg_extension",
        "pg_available_extensions",
        "pg_namespace",
        "pg_proc",
        "pg_stat_activity",
        "pg_stat_database",
        "pg_settings",
    ];
    let mut owner = postgres.connect("planted_owner", "planted").await;
    let mut plant = vec![
        "CREATE SCHEMA evil".to_owned(),
        trap.to_owned(),
        "GRANT USAGE ON SCHEMA evil TO PUBLIC".to_owned(),
    ];
    plant.extend(
        relations.map(|name| format!("CREATE VIEW evil.{name} AS SELECT * FROM pg_catalog.{name} WHERE evil.trap()")),
    );
    plant.extend(relations.map(|name| format!("GRANT SELECT ON evil.{name} TO PUBLIC")));
    plant.push("ALTER DATABASE planted SET search_path = evil, pg_catalog, public".to_owned());
    for statement in plant {
        let run = sqlx::raw_sql(sqlx::AssertSqlSafe(statement.clone()))
            .execute(&mut owner)
            .await;
        if let Err(error) = run {
            // What an owner may not read it cannot plant either.
            println!("not planted: {statement}: {error}");
        }
    }
    // The trap works.
    let mut careless = postgres.connect("postgres", "planted").await;
    sqlx::raw_sql("BEGIN; SELECT FROM pg_database; SELECT 1 / (SELECT count(*)::int FROM pg_catalog.pg_roles WHERE rolname = 'trapped'); ROLLBACK")
        .execute(&mut careless)
        .await
        .unwrap();
    operator.kill();
    operator.again();
    ns.apply(object("2")).await;
    ns.wait("Secret", "a-role-planted-more", "made", |_| true).await;
    ns.wait_condition("AmasDatabase", "a", "Ready", "True").await;
    let trapped: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_catalog.pg_roles WHERE rolname = 'trapped'")
        .fetch_one(&mut careless)
        .await
        .unwrap();
    assert_eq!(trapped, 0);
}
