//! Before data is lost a Job saves it into a volume of its own, and nothing of that is there before it is needed. No node runs the Job or mounts
//! the volume: the test does.

use std::process::Command;

use serde_json::{Value, json};

use super::{
    approval::stalled,
    by_hand::{at_version, end, job, on_postgres, one, put_files, run, run_with},
    lifecycle::{database, external},
};
use crate::support::process::Folder;

const FILES: [(&str, &str); 2] = [
    (
        "0001_a.sql",
        "CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a VALUES (1), (2);",
    ),
    ("0002_b.sql", "DROP TABLE a;"),
];
const SECRET: &str = "a-role-backups-owner";

fn object(target: i64, more: &Value) -> Value {
    let sql = json!({"database": "backups", "owner": "backups_owner", "roles": [], "external": external("postgres")});
    let mut migrations = json!({"source": {"configMaps": ["files"]}, "targetVersion": target});
    for (name, value) in more.as_object().unwrap() {
        migrations[name] = value.clone();
    }
    database("a", json!({"postgres": sql, "migrations": migrations}))
}

#[tokio::test]
async fn what_is_lost_is_saved_into_a_volume_and_can_be_put_back() {
    let (ns, postgres) = on_postgres("backups").await;
    put_files(&ns, &FILES, json!({})).await;
    let _operator = ns.operator(&[]).await;

    // Nothing is lost by the first: its Job is as ever, and there is no volume.
    ns.apply(object(1, &json!({}))).await;
    let first = job(&ns, "").await;
    assert!(first.pointer("/spec/template/spec/initContainers").is_none());
    let (code, log) = run(&ns, &first, &FILES, SECRET).await;
    assert_eq!(code, Some(0), "{log}");
    at_version(&ns, 1).await;
    let first = end(&ns, &first).await;
    ns.apply(object(2, &json!({}))).await;
    stalled(&ns, "DestructiveNotAllowed", "0002_b.sql:1: drops a table").await;
    assert!(one(&ns, "PersistentVolumeClaim").await.is_none());

    let backup = json!({"size": "2Gi", "image": "registry.example.com/postgres:17"});
    ns.apply(object(2, &json!({"allowDestructive": [2], "backup": backup})))
        .await;
    let saving = job(&ns, &first).await;
    let claim = ns.get("PersistentVolumeClaim", "a-backups").await.unwrap();
    assert_eq!(claim.pointer("/spec/resources/requests/storage"), Some(&"2Gi".into()));
    assert!(
        claim.pointer("/metadata/ownerReferences").is_none(),
        "it outlives the object"
    );
    let pod = saving.pointer("/spec/template/spec").unwrap();
    assert_eq!(pod["containers"][0]["image"], "registry.example.com/postgres:17");
    assert_eq!(pod["initContainers"][0]["args"][1], "provide");

    // A volume that cannot be written: nothing runs.
    let folder = Folder::new("backups");
    let file = folder.write("file", "");
    let (code, log) = run_with(&ns, &saving, &FILES, (SECRET, &file)).await;
    assert_eq!(code, Some(31), "{log}");
    let rows = async || {
        let mut conn = postgres.connect("postgres", "backups").await;
        sqlx::query_scalar::<_, i64>("SELECT count(*) FROM a")
            .fetch_one(&mut conn)
            .await
    };
    assert_eq!(rows().await.unwrap(), 2);
    let saved = folder.path().join("volume");
    let (code, log) = run_with(&ns, &saving, &FILES, (SECRET, &saved)).await;
    assert_eq!(code, Some(0), "{log}");
    at_version(&ns, 2).await;
    end(&ns, &saving).await;
    ns.wait_condition("AmasDatabase", "a", "Ready", "True").await;
    assert!(rows().await.is_err(), "the table is gone");

    let mut restore = Command::new(env!("CARGO_BIN_EXE_amas-operator"));
    restore
        .args(["migrate", "restore-tables", "1", "--backup-dir"])
        .arg(&saved)
        .env("DATABASE_URL", postgres.url("postgres", "backups"));
    let output = tokio::task::spawn_blocking(move || restore.output().unwrap())
        .await
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(rows().await.unwrap(), 2);

    // The volume is data: it stays when the object goes.
    let object = ns.get("AmasDatabase", "a").await.unwrap();
    assert_eq!(object.pointer("/status/volumes"), Some(&json!(["a-backups"])));
    ns.delete("AmasDatabase", "a").await;
    ns.wait_gone("AmasDatabase", "a").await;
    assert!(ns.get("PersistentVolumeClaim", "a-backups").await.is_some());
}
