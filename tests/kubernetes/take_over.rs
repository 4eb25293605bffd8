//! Two objects that want the same servers: the second is told whose they are, gets them when a person says so, and leaves them to the first when
//! it goes.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    lifecycle::{database, external, login, redis},
    lost_secrets::opens,
    support::{
        kubernetes::{Kubernetes, Namespace, condition_of},
        postgres::Postgres,
    },
};

/// Somebody else's claim is looked at every 30 s; the rest is a margin for a busy machine.
const NOTICED: Duration = Duration::from_secs(30 + 20);

fn wanted(name: &str) -> Value {
    let roles = json!([{"name": "shared_app", "access": "ReadWrite"}]);
    let sql = json!({"database": "shared", "roles": roles, "external": external("postgres")});
    database(name, json!({"postgres": sql, "redis": {"external": external("redis")}}))
}

/// Waits until both stores are said to be the other's.
async fn conflicted(ns: &Namespace, name: &str, holder: &str) {
    let said = |object: &Value| {
        ["PostgresReady", "RedisReady", "Ready", "Stalled"].iter().all(|kind| {
            condition_of(object, kind).is_some_and(|found| {
                let message = found["message"].as_str().unwrap_or_default();
                found["reason"] == "Conflicted" && message.contains(&format!("{}/{holder} of cluster", ns.name))
            })
        })
    };
    ns.wait("AmasDatabase", name, &format!("told of {holder}"), said).await;
}

/// Whether an application with this object's Secret gets in.
async fn serves(ns: &Namespace, name: &str) -> bool {
    let secret = ns.get("Secret", &format!("{name}-role-shared-app")).await.unwrap();
    opens(&secret).await
}

#[tokio::test]
async fn a_server_is_one_objects_until_a_person_or_its_end_says_otherwise() {
    let api = Kubernetes::shared().await;
    let ns = api.namespace("contest").await;
    let server = Postgres::start_guarded(&[("fsync", "off")]).await;
    login(&ns, &server).await;
    let _redis = redis(&ns).await;
    let mut operator = ns.operator(&[]).await;
    ns.apply(wanted("first")).await;
    ns.wait_condition("AmasDatabase", "first", "Ready", "True").await;
    ns.apply(wanted("second")).await;
    conflicted(&ns, "second", "first").await;
    assert!(
        serves(&ns, "first").await && !serves(&ns, "second").await,
        "nothing was done"
    );

    // A person says so, once.
    ns.annotate("second", "amas.dev/take-over", "1").await;
    ns.wait_condition("AmasDatabase", "second", "Ready", "True").await;
    let handled = |object: &Value| object.pointer("/status/handled/take-over") == Some(&json!("1"));
    ns.wait("AmasDatabase", "second", "handled", handled).await;
    assert!(serves(&ns, "second").await && !serves(&ns, "first").await);
    // The first notices at its next look, which a start of the operator is.
    operator.again();
    conflicted(&ns, "first", "second").await;
    let claim = async || -> String {
        let mut inside = server.connect("postgres", "shared").await;
        let query = "SELECT concat_ws(' ', name, created_by_us, released IS NOT NULL) FROM amas_operator.claim";
        sqlx::query_scalar(query).fetch_one(&mut inside).await.unwrap()
    };
    assert_eq!(claim().await, "second f f", "what was taken over is not of its making");

    // What it retains it lets go.
    ns.delete("AmasDatabase", "second").await;
    let begun = Instant::now();
    ns.wait_gone("AmasDatabase", "second").await;
    ns.wait_condition("AmasDatabase", "first", "Ready", "True").await;
    let took = begun.elapsed();
    println!("a server that its holder left was the other's {took:?} later");
    assert!(took < NOTICED, "{took:?}");
    assert!(serves(&ns, "first").await && !serves(&ns, "second").await);
    assert_eq!(claim().await, "first f f");
}
