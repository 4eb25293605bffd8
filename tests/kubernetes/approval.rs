//! A plan waits in the cluster until exactly it is approved, and its Job runs with what was approved. No node runs the Job: the test does.

use serde_json::{Value, json};

use super::{
    by_hand::{at_version, end, job, on_postgres, one, put_files, run},
    lifecycle::{database, external},
};
use crate::support::kubernetes::{Namespace, condition_of};

const FILES: [(&str, &str); 5] = [
    ("0001_a.up.sql", "CREATE TABLE a (id int);"),
    ("0001_a.down.sql", "DROP TABLE a;"),
    (
        "0002_b.up.sql",
        "SELECT 1;\nDROP TABLE IF EXISTS b;\nALTER TABLE c ADD CHECK (id > 0);",
    ),
    ("0002_b.down.sql", "SELECT 1;"),
    ("0004_d.sql", "SELECT 1;"),
];
/// The same without what needs a table that is there.
const FIRST: [(&str, &str); 4] = [
    FILES[0],
    FILES[1],
    ("0002_b.up.sql", "SELECT 1;\nDROP TABLE IF EXISTS b;"),
    FILES[3],
];

fn object(migrations: &Value, approved: &str) -> Value {
    let sql = json!({"database": "approval", "owner": "approval_owner", "roles": [], "external": external("postgres")});
    let mut migrations = migrations.clone();
    migrations["source"] = json!({"configMaps": ["files"]});
    let mut object = database("a", json!({"postgres": sql, "migrations": migrations}));
    if !approved.is_empty() {
        object["metadata"]["annotations"] = json!({"amas.dev/approve-plan": approved});
    }
    object
}

pub(super) async fn stalled(ns: &Namespace, reason: &str, part: &str) -> Value {
    ns.wait("AmasDatabase", "a", &format!("stalled: {reason}"), |object| {
        condition_of(object, "Stalled").is_some_and(|stalled| {
            stalled["reason"] == reason && stalled["message"].as_str().is_some_and(|text| text.contains(part))
        })
    })
    .await
}

#[tokio::test]
async fn a_plan_runs_when_its_losses_are_accepted_and_its_hash_is_approved() {
    let (ns, postgres) = on_postgres("approval").await;
    put_files(&ns, &FIRST, json!({})).await;
    let _operator = ns.operator(&[]).await;

    ns.apply(object(&json!({"approval": "Manual"}), "")).await;
    stalled(&ns, "DestructiveNotAllowed", "allowDestructive: [2]").await;

    let rows = "CREATE TABLE c AS SELECT generate_series(1, 1234) AS id";
    let owned = "ALTER TABLE c OWNER TO approval_owner";
    postgres.admin("approval", &[rows, owned, "ANALYZE c"]).await;
    put_files(&ns, &FILES, json!({})).await;
    let accepted = json!({"approval": "Manual", "allowDestructive": [2]});
    ns.apply(object(&accepted, &"0".repeat(64))).await;
    stalled(&ns, "WaitingForApproval", "what was approved (000").await;
    stalled(&ns, "WaitingForApproval", "no file has version 3,").await;
    let seen = ns
        .wait("AmasDatabase", "a", "the size of a table", |object| {
            let tables = object.pointer("/status/migrations/pendingPlan/statements/3/tables");
            tables.is_some_and(|tables| tables.as_str().is_some_and(|text| text.contains("about 1234 rows")))
        })
        .await;
    let plan = seen.pointer("/status/migrations/pendingPlan").unwrap();
    assert_eq!((&plan["to"], &plan["statementCount"]), (&4.into(), &5.into()), "{plan}");
    assert_eq!(plan["statements"][3]["lint"], "check-not-deferred", "{plan}");
    let hash = plan["hash"].as_str().unwrap();
    let map = ns.get("ConfigMap", plan["configMap"].as_str().unwrap()).await.unwrap();
    let text = map["data"]["plan.txt"].as_str().unwrap();
    for part in [
        hash,
        "0002_b.up.sql:2: DROP TABLE IF EXISTS b",
        "drops a table",
        "ACCESS EXCLUSIVE on \"b\"",
        "ACCESS EXCLUSIVE on \"c\" (about 1234 rows, ",
        "check-not-deferred: readers and writers wait until every row is checked; instead: ",
        "warning: no file has version 3,",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(one(&ns, "Job").await.is_none(), "nothing runs before");

    ns.apply(object(&accepted, hash)).await;
    let job = job(&ns, "").await;
    let (code, log) = run(&ns, &job, &FILES, "a-role-approval-owner").await;
    assert_eq!(code, Some(0), "{log}");
    at_version(&ns, 4).await;
    end(&ns, &job).await;
    ns.wait_condition("AmasDatabase", "a", "Ready", "True").await;
    ns.wait_gone("ConfigMap", map["metadata"]["name"].as_str().unwrap())
        .await;
    let after = ns.get("AmasDatabase", "a").await.unwrap();
    assert!(after.pointer("/status/migrations/pendingPlan").is_none(), "{after}");
}
