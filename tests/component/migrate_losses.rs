//! Losses that do not look like any: behind a view, under another name, in the rest of a run that was broken off. Each is
//! asked for, and saved before it happens.

use std::fs;

use serde_json::Value;

use super::{Dir, command, output};
use crate::migrate::Database;

/// A database, its files and its folder of backups.
struct Scene {
    db: Database,
    dir: Dir,
    backups: Dir,
}

impl Scene {
    /// With this as version 1.
    async fn new(name: &'static str, first: &str) -> Self {
        let scene = Self {
            db: Database::new(name).await,
            dir: Dir::new(name),
            backups: Dir::new(&format!("{name}-backups")),
        };
        scene.write("0001_a", first);
        let (code, said) = scene.up(&[]).await;
        assert_eq!(code, 0, "{said}");
        scene
    }

    fn write(&self, name: &str, sql: &str) {
        fs::write(self.dir.path().join(format!("{name}.sql")), sql).unwrap();
    }

    async fn admin(&self, statements: &[&str]) {
        self.db.server.admin(&self.db.name, statements).await;
    }

    async fn verb(&self, args: &[&str]) -> (i32, String, String) {
        output(command(&self.db, args, &[])).await
    }

    /// A way up with the folder.
    async fn up(&self, more: &[&str]) -> (i32, String) {
        let (dir, backups) = (self.dir.path().to_str().unwrap(), self.backups.path().to_str().unwrap());
        let args = [&["up", "--dir", dir, "--backup-dir", backups], more].concat();
        let (code, _, said) = self.verb(&args).await;
        (code, said)
    }

    /// The names in the newest backup, and how many backups there are.
    async fn saved(&self) -> (Vec<String>, usize) {
        let backups = self.backups.path().to_str().unwrap();
        let (code, text, said) = self.verb(&["backups", "-o", "json", "--backup-dir", backups]).await;
        assert_eq!(code, 0, "{said}");
        let json: Value = serde_json::from_str(&text).unwrap();
        let all = json["backups"].as_array().unwrap();
        let entries = all.first().and_then(|newest| newest["entries"].as_array());
        let name = |entry: &Value| entry["name"].as_str().unwrap().replace('"', "");
        (entries.into_iter().flatten().map(name).collect(), all.len())
    }
}

const TABLES: &str = "CREATE SCHEMA legacy; CREATE TABLE legacy.orders (id int);
    CREATE TABLE orders (id int); CREATE TABLE others (id int);
    CREATE VIEW near AS SELECT * FROM orders; CREATE VIEW far AS SELECT * FROM near;
    CREATE TABLE parts (id int) PARTITION BY RANGE (id); CREATE TABLE part (id int);";

#[tokio::test]
async fn what_goes_under_another_name_is_saved() {
    let scene = Scene::new("losses_saved", TABLES).await;
    let all: &[&str] = &[
        "legacy.orders",
        "public.orders",
        "public.others",
        "public.part",
        "public.parts",
    ];
    // Each fails at its end, so that the next finds the same tables.
    let cases: [(&str, &[&str]); 9] = [
        ("DELETE FROM near", &["public.orders"]),
        ("UPDATE far SET id = 1", &["public.orders"]),
        ("EXPLAIN ANALYZE DELETE FROM others", &["public.others"]),
        ("CREATE VIEW fresh AS SELECT * FROM others; DELETE FROM fresh", all),
        (
            "CREATE OR REPLACE VIEW near AS SELECT * FROM others; DELETE FROM near",
            all,
        ),
        (
            "ALTER TABLE parts ATTACH PARTITION part FOR VALUES FROM (0) TO (9); TRUNCATE parts",
            &["public.part", "public.parts"],
        ),
        ("SET SCHEMA 'legacy'; DROP TABLE orders", all),
        (
            "DO $$ BEGIN ALTER TABLE others RENAME TO old; END $$; DROP TABLE old",
            all,
        ),
        (
            "DO $$ BEGIN ALTER TABLE orders RENAME TO old; ALTER TABLE others RENAME TO orders; END $$; DROP TABLE orders",
            &["public.orders", "public.others"],
        ),
    ];
    for (index, (sql, expected)) in cases.iter().enumerate() {
        scene.write("0002_b", &format!("{sql};\nSELECT 1/0;"));
        let (code, said) = scene.up(&[]).await;
        assert_eq!(code, 19, "{sql}: {said}");
        let (code, said) = scene.up(&["--allow-destructive", "2"]).await;
        assert!(code == 10 && said.contains("division by zero"), "{sql}: {code} {said}");
        let (names, count) = scene.saved().await;
        let expected: Vec<String> = expected.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!((names, count), (expected, index + 1), "{sql}");
    }
    // A name that is not there, and that nothing can have made meanwhile, is nothing.
    scene.write("0002_b", "DROP TABLE IF EXISTS nosuch;\nSELECT 1/0;");
    assert_eq!(scene.up(&["--allow-destructive", "2"]).await.0, 10);
    assert_eq!(scene.saved().await.1, cases.len());
}

#[tokio::test]
async fn rows_on_another_server_stop_the_run() {
    let scene = Scene::new("losses_foreign", "CREATE TABLE t (id int);").await;
    scene
        .admin(&[
            "CREATE FOREIGN DATA WRAPPER nowhere",
            "CREATE SERVER nowhere FOREIGN DATA WRAPPER nowhere",
            "CREATE FOREIGN TABLE public.far (id int) SERVER nowhere",
            "ALTER FOREIGN TABLE public.far OWNER TO losses_foreign_owner",
            "CREATE VIEW public.near AS SELECT * FROM public.far",
            "ALTER VIEW public.near OWNER TO losses_foreign_owner",
        ])
        .await;
    for sql in ["TRUNCATE far", "DELETE FROM far", "DELETE FROM near"] {
        scene.write("0002_b", sql);
        let (code, said) = scene.up(&["--allow-destructive", "2"]).await;
        assert_eq!(code, 31, "{sql}: {said}");
        for words in [
            "public.far is a foreign table",
            "nothing was run",
            "--backup-before never",
        ] {
            assert!(said.contains(words), "{sql}: {said}");
        }
    }
    // Then it is the server that refuses: the wrapper of this one has no handler.
    let never = ["--allow-destructive", "2", "--backup-before", "never"];
    let (code, said) = scene.up(&never).await;
    assert_eq!(code, 10, "{said}");
    // Dropped, it leaves them where they are.
    scene.write("0002_b", "DROP FOREIGN TABLE far CASCADE");
    let (code, said) = scene.up(&["--allow-destructive", "2"]).await;
    assert_eq!(code, 0, "{said}");
    assert_eq!(scene.saved().await.1, 0);
}

#[tokio::test]
async fn what_broken_runs_have_made_is_theirs_until_it_has_rows() {
    let scene = Scene::new("losses_begun", "SELECT 1;").await;
    for (name, sql) in [
        ("0002_b", "CREATE TABLE t (id int); CREATE VIEW v AS SELECT * FROM t;"),
        ("0003_c", "SELECT 1;"),
        ("0004_d", "SELECT 1/0;"),
        ("0005_e", "DROP TABLE t CASCADE;"),
    ] {
        scene.write(name, sql);
    }
    for attempt in 1..=3 {
        let (code, said) = scene.up(&[]).await;
        assert_eq!(code, 10, "{attempt}: {said}");
    }
    assert_eq!(scene.saved().await.1, 0);
    scene.admin(&["INSERT INTO t VALUES (1)"]).await;
    let (code, said) = scene.up(&[]).await;
    assert!(code == 19 && said.contains("0005_e"), "{code}: {said}");
    let (code, said) = scene.up(&["--allow-destructive", "5"]).await;
    assert_eq!(code, 10, "{said}");
    assert_eq!(scene.saved().await, (vec!["public.t".to_owned()], 1));
    scene.admin(&["DELETE FROM t"]).await;
    scene.write("0004_d", "SELECT 1;");
    let (code, said) = scene.up(&[]).await;
    assert_eq!(code, 0, "{said}");

    // A run that has come to its end has made what is there.
    scene.write("0006_f", "CREATE TABLE t (id int);");
    assert_eq!(scene.up(&[]).await.0, 0);
    scene.write("0007_g", "SELECT 1/0;");
    scene.write("0008_h", "DROP TABLE t;");
    assert_eq!(scene.up(&[]).await.0, 19);
}

#[tokio::test]
async fn rows_that_a_broken_run_has_written_do_not_stop_its_rest() {
    let scene = Scene::new("losses_own", "SELECT 1;").await;
    for (name, sql) in [
        (
            "0002_b",
            "CREATE TABLE plans (id int, y int); INSERT INTO plans VALUES (1, 1); CREATE TABLE copied AS SELECT * FROM plans;",
        ),
        ("0003_c", "SELECT 1/0;"),
        ("0004_d", "UPDATE plans SET id = 2; ALTER TABLE copied DROP COLUMN y;"),
    ] {
        scene.write(name, sql);
    }
    let (code, said) = scene.up(&[]).await;
    assert_eq!(code, 10, "{said}");
    scene.write("0003_c", "SELECT 1;");
    let (code, said) = scene.up(&[]).await;
    assert_eq!(code, 0, "{said}");
    assert_eq!(scene.saved().await.1, 0);
}
