//! Mistakes that other operators of databases had to repair, each as a test of ours.
//!
//! `table.rs` holds this to what there is: a name is a test of this folder or of the file or folder that is named before it.
//!
//! | what went wrong elsewhere | here |
//! |---|---|
//! | a second object with `Delete` dropped what the first one still used | `a_duplicate_with_delete_takes_nothing_of_the_survivor` |
//! | an unreadable Secret cleared a role's password | `an_unreadable_secret_clears_no_password`, `a_secret_that_is_refused_clears_no_password` |
//! | the finalizer stayed when the server was read-only or gone | `a_read_only_server_holds_nobody_back`; `tests/kubernetes/deletion.rs`: `a_server_that_is_away_holds_nobody_back`, `a_namespace_waits_for_an_operator_that_is_away_and_no_longer` |
//! | made, its status lost, then AlreadyExists for ever | `made_and_its_status_lost_it_is_adopted`; every create and every status with its answer lost, and the operator killed after it: `tests/kubernetes/crashes` |
//! | a stale cache made things twice | `a_stale_cache_makes_nothing_twice`; `src/engine/children.rs`: `an_older_event_does_not_undo_a_newer_write` |
//! | a Job used its retries up, and its object waited for ever | `a_job_that_gave_up_is_said_and_a_repaired_file_goes_on`; `src/controllers/database/jobs.rs`: `lost_pods_are_tried_again_three_times` |
//! | a state that went to and fro | `src/stores/health.rs`: `twenty_restarts_in_a_minute_are_at_most_four_changes`; `tests/component/postgres.rs`: `twenty_restarts_in_a_minute_are_at_most_four_changes`; end to end: `tests/e2e/scenarios/flapping` |
//! | "started" for ever after a restart of the operator | `a_run_whose_job_vanished_meanwhile_is_started_again`; `tests/kubernetes/crashes` |
//! | the owner's objects were run with the operator's rights | `nothing_that_an_owner_plants_is_run_by_the_operator` |
//! | a password in the text of a statement | `tests/component/postgres.rs`: `a_fresh_server_gets_the_duty_once_and_no_password_in_clear`; end to end: `tests/e2e/scenarios/credentials.rs` |
//! | a parameter's name that brings another setting along | `src/stores/postgres/workload.rs`: `dangerous_parameters_are_refused` |
//! | a name that leads out of a folder or a statement | `src/api/names.rs`: `refuses_what_would_need_quoting`; end to end: `tests/e2e/scenarios/bad_input` |
//! | success said before the last step | `tests/kubernetes/crashes`: `a_success_that_is_said_too_early_is_found` (asked after each spoilt write), and Ready is compared with the whole end state |

mod jobs;
mod table;
mod trust;

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    deletion::reason,
    lifecycle::{database, external, login},
    support::{
        fault::{Fault, Which},
        kubernetes::{Kubernetes, Namespace, PATIENCE, condition_of},
        operator::Operator,
        postgres::Postgres,
        process::eventually,
        proxy::ApiProxy,
    },
};

fn message(object: &Value) -> &str {
    condition_of(object, "Ready")
        .and_then(|ready| ready["message"].as_str())
        .unwrap_or_default()
}

/// A namespace that knows a server.
async fn beside(name: &str, postgres: &Postgres) -> Namespace {
    let ns = Kubernetes::shared().await.namespace(name).await;
    login(&ns, postgres).await;
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

#[tokio::test]
async fn a_read_only_server_holds_nobody_back() {
    let postgres = Postgres::start_with(&[("fsync", "off")]).await;
    let ns = beside("readonly", &postgres).await;
    let operator = ns.operator(&[]).await;
    ns.apply(database(
        "a",
        json!({"deletionPolicy": "Delete", "deletionTimeout": "15s", "postgres": sql("frozen", json!({}))}),
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
    eventually("the caches are filled and agree", PATIENCE, async || {
        let mark = api.audit();
        tokio::time::sleep(Duration::from_secs(2)).await;
        mark.requests().unwrap().in_namespace(&ns.name).writes().is_empty()
    })
    .await;
}

#[tokio::test]
async fn made_and_its_status_lost_it_is_adopted() {
    let postgres = Postgres::shared().await;
    let ns = beside("adopted", &postgres).await;
    let proxy = ApiProxy::start(&ns.api, &ns.name).await;
    let mut operator = Operator::start(&ns, &proxy.kubeconfig, &[("POD_NAME", "operator")]);
    ns.wait("Lease", "amas-operator", "held", |_| true).await;
    let mark = ns.api.audit();
    // The first password is made, and nobody learns of it.
    let secrets = format!("POST /api/v1/namespaces/{}/secrets", ns.name);
    proxy.plan.begin(Some((Which::Of(secrets, 1), Fault::Unanswered)));
    ns.apply(database("a", json!({"postgres": sql("adopted", json!({}))})))
        .await;
    let patience = tokio::time::timeout(PATIENCE, proxy.plan.happened());
    patience.await.expect("a Secret is made");
    operator.kill();
    let made = passwords(&ns).await;
    assert!(!made.is_empty(), "it arrived");
    // What the next one says of it is lost too.
    let status = format!(
        "PATCH /apis/amas.dev/v1alpha1/namespaces/{}/amasdatabases/a/status",
        ns.name
    );
    proxy.plan.begin(Some((Which::Of(status, 1), Fault::LostAnswer)));
    operator.again();
    let patience = tokio::time::timeout(PATIENCE, proxy.plan.happened());
    patience.await.expect("a status is written");
    ns.wait_condition("AmasDatabase", "a", "Ready", "True").await;
    let now = passwords(&ns).await;
    assert!(made.iter().all(|secret| now.contains(secret)), "the same bytes");
    let creates = mark.requests().unwrap().in_namespace(&ns.name).of("secrets").writes();
    let mut names: Vec<&str> = creates
        .0
        .iter()
        .filter(|r| r.verb == "create" && r.code == 201)
        .map(|r| &*r.name)
        .collect();
    names.sort();
    assert_eq!(
        names,
        ["a-role-adopted-app", "a-role-adopted-owner"],
        "{}",
        creates.lines()
    );
    drop(operator);
}

/// The Secrets of the object `a`, each as its name and all its bytes.
async fn passwords(ns: &Namespace) -> Vec<(Value, Value)> {
    let all = ns.list("Secret").await.into_iter();
    all.filter(|secret| secret["metadata"]["labels"]["amas.dev/database"] == "a")
        .map(|secret| (secret["metadata"]["name"].clone(), secret["data"].clone()))
        .collect()
}
