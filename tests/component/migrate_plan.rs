//! `migrate plan`, `lint` and `new` as a process.

use std::process::Command;

use super::{Dir, command, output};
use crate::migrate::{Database, FIVE, File};

#[tokio::test]
async fn the_hash_of_a_plan_is_what_up_takes() {
    let db = Database::new("plan_hash").await;
    let dir = Dir::of("plan-hash", &FIVE);
    let (code, json, err) = output(command(&db, &["plan", "-o", "json"], &[("--dir", &dir.0)])).await;
    assert_eq!(code, 0, "{err}");
    let plan: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&plan["direction"], &plan["to"], &plan["migrations"]),
        (&"up".into(), &5.into(), &5.into())
    );
    assert_eq!(plan["statements"].as_array().unwrap().len(), 6);
    let hash = plan["hash"].as_str().unwrap().to_owned();
    let wrong = "0".repeat(64);
    let (code, _, err) = output(command(&db, &["up", "--plan-hash", &wrong], &[("--dir", &dir.0)])).await;
    assert_eq!(code, 13, "{err}");
    let (code, _, err) = output(command(&db, &["up", "--plan-hash", &hash], &[("--dir", &dir.0)])).await;
    assert_eq!(code, 0, "{err}");
    // the way down locks tables that are there, and shows their sizes
    let (code, text, err) = output(command(&db, &["plan", "--to", "4"], &[("--dir", &dir.0)])).await;
    assert_eq!(code, 0, "{err}");
    for part in [
        "down from version 5 to 4",
        "DELETE FROM users",
        "ROW EXCLUSIVE on \"users\" (",
        "hash ",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[tokio::test]
async fn rules_and_sizes_are_shown_and_move_no_hash() {
    let db = Database::new("plan_sizes").await;
    let dir = Dir::of("plan-sizes", &FIVE);
    let run = |args: &[&str]| output(command(&db, args, &[("--dir", &dir.0)]));
    assert_eq!(run(&["up"]).await.0, 0);
    dir.file(
        "0007_g.sql",
        "SELECT 1;\n\nALTER TABLE users ADD CHECK (id > 0), ALTER name SET NOT NULL;",
    );
    dir.file(
        "0008_h.sql",
        "-- amas-lint: ignore rename\nALTER TABLE users RENAME name TO called;",
    );
    let told = async || {
        let (code, json, err) = run(&["plan", "-o", "json"]).await;
        assert_eq!(code, 0, "{err}");
        serde_json::from_str::<serde_json::Value>(&json).unwrap()
    };
    let grow = async |from: u32, to: u32| {
        let rows = format!("INSERT INTO users SELECT i, 'x' FROM generate_series({from}, {to}) i");
        db.server.admin(&db.name, &[&rows, "ANALYZE users"]).await;
    };
    grow(2, 100).await;
    let small = told().await;
    grow(101, 5_000).await;
    let large = told().await;
    let users = |plan: &serde_json::Value| plan["tables"]["\"users\""].clone();
    assert_eq!(
        (&users(&small)["rows"], &users(&large)["rows"]),
        (&100.into(), &5_000.into())
    );
    assert!(
        users(&small)["bytes"].as_i64() < users(&large)["bytes"].as_i64(),
        "{large}"
    );
    assert_eq!(small["hash"], large["hash"]);
    let rules = |at: usize| {
        let risks = large["statements"][at]["risks"].as_array();
        let names = risks
            .into_iter()
            .flatten()
            .map(|risk| risk["rule"].as_str().unwrap().to_owned());
        names.collect::<Vec<_>>()
    };
    assert_eq!(
        (rules(1), rules(2)),
        (
            vec!["check-not-deferred".to_owned(), "not-null-scan".to_owned()],
            vec![]
        )
    );

    let (_, text, err) = run(&["plan"]).await;
    for part in [
        "warning: no file has version 6, though",
        "0007_g.sql:3: ALTER TABLE users",
        "ACCESS EXCLUSIVE on \"users\" (about 5000 rows, ",
        "not-null-scan: readers and writers wait until every row is checked; instead: ADD CONSTRAINT",
    ] {
        assert!(text.contains(part), "{part}: {text}{err}");
    }
    let (code, text, err) = run(&["validate"]).await;
    assert_eq!(code, 0, "{err}");
    assert!(
        text.contains("2 pending") && err.contains("warning: no file has version 6,"),
        "{text}{err}"
    );

    // whoever holds the table does not hold the plan
    let mut holder = db.server.connect("postgres", &db.name).await;
    let lock = "BEGIN; LOCK TABLE users IN ACCESS EXCLUSIVE MODE";
    sqlx::raw_sql(lock).execute(&mut holder).await.unwrap();
    let held = told().await;
    assert_eq!(users(&held), serde_json::json!({"rows": 5_000, "bytes": null}));
    assert_eq!(held["hash"], large["hash"]);
}

#[tokio::test]
async fn without_a_database_the_hash_needs_its_identity() {
    const RISKY: [File; 1] = [("0001_risky", "SELECT 1;\nDROP TABLE t;", "SELECT 1;")];
    let dir = Dir::of("plan-offline", &RISKY);
    let run = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_amas-operator"));
        command.arg("migrate").args(args).arg("--dir").arg(&dir.0);
        for name in ["DATABASE_URL", "PGHOST"] {
            command.env_remove(name);
        }
        output(command)
    };
    let (code, text, err) = run(&["plan"]).await;
    assert!(
        code == 0 && text.contains("no hash") && text.contains("drops a table"),
        "{text}{err}"
    );
    let (_, one, _) = run(&["plan", "--identity", "7/amas"]).await;
    let (_, same, _) = run(&["plan", "--identity", "7/amas"]).await;
    let (_, other, _) = run(&["plan", "--identity", "8/amas"]).await;
    assert!(one.contains("hash ") && one == same && one != other, "{one}{other}");
    let (code, text, _) = run(&["lint"]).await;
    assert!(
        code == 18 && text.contains("0001_risky.up.sql:2: destructive: drops a table"),
        "{text}"
    );
    let (code, text, _) = run(&["lint", "--after", "1"]).await;
    assert_eq!((code, text.as_str()), (0, "no risks found\n"));
    let (code, text, err) = run(&["new", "Add users"]).await;
    assert_eq!((code, text.lines().count()), (0, 2), "{err}");
    let (code, _, err) = run(&["validate"]).await;
    assert!(
        code == 11 && err.contains("no statement"),
        "an untouched pair is refused: {err}"
    );
}

#[tokio::test]
async fn a_loss_needs_its_version_and_what_the_batch_has_made_does_not_count() {
    const LOSSES: [File; 4] = [
        ("0001_a", "CREATE TABLE a (id int);", "DROP TABLE a;"),
        ("0002_b", "CREATE TABLE b (id int);\nDROP TABLE a;", "SELECT 1;"),
        ("0003_c", "SELECT 1/0;", "SELECT 1;"),
        ("0004_d", "SELECT 1;\nTRUNCATE b;", "SELECT 1;"),
    ];
    let db = Database::new("losses").await;
    let dir = Dir::of("losses", &LOSSES);
    let up = |args: &[&str]| {
        let args = [&["up"], args].concat();
        output(command(&db, &args, &[("--dir", &dir.0)]))
    };
    let (code, _, err) = up(&[]).await;
    assert_eq!(code, 10, "all that is lost was made by the plan itself: {err}");
    dir.file("0003_c.up.sql", "SELECT 1;");
    let (code, _, err) = up(&["--to", "4"]).await;
    assert_eq!(code, 0, "the rest of a run that failed: {err}");

    dir.file("0005_e.up.sql", "SELECT 1;\n\nUPDATE b SET id = 1;");
    dir.file("0005_e.down.sql", "SELECT 1;");
    dir.file("0006_f.sql", "DROP TABLE b;");
    let (code, _, err) = up(&["--allow-destructive", "6,1"]).await;
    assert_eq!(code, 19, "{err}");
    for part in [
        "0005_e.up.sql:3: overwrites every row (UPDATE without a WHERE): UPDATE b SET id = 1",
        "--allow-destructive 5",
        "nothing was run",
    ] {
        assert!(err.contains(part), "{part}: {err}");
    }
    assert_eq!(db.versions().await, [1, 2, 3, 4]);
    let (_, text, _) = output(command(&db, &["plan"], &[("--dir", &dir.0)])).await;
    assert!(text.contains("up needs --allow-destructive 5,6"), "{text}");
    let (code, _, err) = up(&["--allow-destructive", "5,6", "--backup-before", "never"]).await;
    assert_eq!(code, 0, "{err}");
}
