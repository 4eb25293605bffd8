//! What a migration takes away is saved before it runs, and can be put back; where it cannot be saved nothing runs.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command, time::Duration};

use serde_json::Value;

use super::{Dir, Signalled, command, output};
use crate::{
    migrate::{Database, File},
    support::{postgres::Postgres, process::eventually},
};

/// The words of an output must be there.
fn says(said: &str, words: &[&str]) {
    for word in words {
        assert!(said.contains(word), "{word}: {said}");
    }
}

/// A database, its files and its folder of backups.
struct Scene {
    db: Database,
    dir: Dir,
    backups: Dir,
}

impl Scene {
    /// With these versions applied.
    async fn new(name: &str, first: &[File]) -> Self {
        let scene = Self {
            db: Database::new(name).await,
            dir: Dir::of(name, first),
            backups: Dir::new(&format!("{name}-backups")),
        };
        let (code, _, said) = scene.verb(&["up"]).await;
        assert_eq!(code, 0, "{said}");
        scene
    }

    fn command(&self, args: &[&str]) -> Command {
        let dirs = [("--dir", self.dir.path())];
        command(&self.db, args, if args[0] == "up" { dirs.as_slice() } else { &[] })
    }

    async fn verb(&self, args: &[&str]) -> (i32, String, String) {
        output(self.command(args)).await
    }

    fn write(&self, name: &str, up: &str, down: &str) {
        self.dir.file(&format!("{name}.up.sql"), up);
        self.dir.file(&format!("{name}.down.sql"), down);
    }

    /// A way up that may lose anything, with the folder.
    fn up(&self, more: &[&str]) -> Command {
        let mut up = self.command(&[&["up", "--allow-destructive", "all"], more].concat());
        up.arg("--backup-dir").arg(self.backups.path());
        up
    }

    async fn goes_up(&self) -> String {
        let (code, _, said) = output(self.up(&[])).await;
        assert_eq!(code, 0, "{said}");
        said
    }

    async fn list(&self) -> Vec<Value> {
        let mut list = self.command(&["backups", "-o", "json"]);
        list.arg("--backup-dir").arg(self.backups.path());
        let (code, text, said) = output(list).await;
        assert_eq!(code, 0, "{said}");
        let json: Value = serde_json::from_str(&text).unwrap();
        json["backups"].as_array().unwrap().clone()
    }

    /// The names in the newest backup.
    async fn saved(&self) -> Vec<String> {
        let newest = self.list().await.into_iter().next();
        let entries = newest.map_or(Value::Null, |newest| newest["entries"].clone());
        let name = |entry: &Value| entry["name"].as_str().unwrap().to_owned();
        entries
            .as_array()
            .map(|all| all.iter().map(name).collect())
            .unwrap_or_default()
    }

    async fn restore(&self, args: &[&str]) -> (i32, String, String) {
        let mut restore = self.command(&[&["restore-tables"], args].concat());
        restore.arg("--backup-dir").arg(self.backups.path());
        output(restore).await
    }

    fn files(&self) -> Vec<String> {
        let name = |entry: fs::DirEntry| entry.file_name().into_string().unwrap();
        fs::read_dir(self.backups.path())
            .unwrap()
            .map(|entry| name(entry.unwrap()))
            .collect()
    }
}

/// A program that comes first in the PATH of a command.
fn instead(scene: &Scene, program: &str, script: &str, of: &mut Command) {
    let path = scene
        .dir
        .file(&format!("bin/{program}"), &format!("#!/bin/sh\n{script}\n"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let others = std::env::var("PATH").unwrap();
    of.env("PATH", format!("{}:{others}", path.parent().unwrap().display()));
}

const ODD: &str = r#""My Schema"."We""ird Table""#;

#[tokio::test]
async fn a_dropped_table_comes_back_with_all_that_it_had() {
    let make = r#"CREATE SCHEMA "My Schema";
        CREATE TABLE groups (id int PRIMARY KEY);
        CREATE TABLE "My Schema"."We""ird Table" (id serial PRIMARY KEY, "Group" int REFERENCES groups, note text DEFAULT 'a;
b' CHECK (note <> 'bad'));
        CREATE INDEX "Note Index" ON "My Schema"."We""ird Table" (note);
        COMMENT ON TABLE "My Schema"."We""ird Table" IS 'it''s; one';
        INSERT INTO groups VALUES (1);
        INSERT INTO "My Schema"."We""ird Table" ("Group", note) VALUES (1, E'tab\t, back\\slash, \\.'), (NULL, 'COPY x FROM stdin;'), (1, 'ä');"#;
    let scene = Scene::new("backup_drop", &[("0001_a", make, "SELECT 1;")]).await;
    let db = &scene.db;
    db.ask(&format!("GRANT SELECT ON {ODD} TO backup_drop_app")).await;
    let rows = format!("SELECT t::text FROM {ODD} t ORDER BY id");
    let before = db.ask(&rows).await;
    scene.write("0002_b", &format!("SELECT 1;\nDROP TABLE {ODD};"), "SELECT 1;");
    let said = scene.goes_up().await;
    says(
        &said,
        &["backing up 1 table that would lose data", "backup 1: ", "applied"],
    );
    assert_eq!(scene.saved().await, [ODD, r#""My Schema"."We""ird Table_id_seq""#]);
    let listed = scene.list().await;
    assert_eq!(
        (
            &listed[0]["direction"],
            &listed[0]["from"],
            &listed[0]["to"],
            &listed[0]["state"]
        ),
        (&"up".into(), &1.into(), &2.into(), &"present".into())
    );
    let (_, text, _) = scene.verb(&["backups"]).await;
    says(&text, &["up 1 -> 2", r#"My Schema.We"ird Table"#, &scene.files()[0]]);
    assert_eq!(scene.files().len(), 1);

    let (code, text, said) = scene.restore(&["1"]).await;
    assert_eq!(code, 0, "{said}");
    says(&text, &[r#"My Schema.We"ird Table: made, 3 rows"#]);
    assert_eq!((db.ask(&rows).await, said.as_str()), (before.clone(), ""));
    let indexes = "SELECT count(*)::text FROM pg_indexes WHERE schemaname = 'My Schema'";
    assert_eq!(db.ask(indexes).await, ["2"]);
    let keys = format!(
        "SELECT count(*)::text FROM pg_constraint WHERE conrelid = '{ODD}'::regclass AND contype IN ('p', 'f', 'c')"
    );
    assert_eq!(db.ask(&keys).await, ["3"]);
    let comment = format!("SELECT obj_description('{ODD}'::regclass)");
    assert_eq!(db.ask(&comment).await, ["it's; one"]);
    let right = format!("SELECT has_table_privilege('backup_drop_app', '{ODD}', 'SELECT')::text");
    assert_eq!(db.ask(&right).await, ["true"]);
    let next = format!("INSERT INTO {ODD} (note) VALUES ('next') RETURNING id::text");
    assert_eq!(db.ask(&next).await, ["4"]);
    // The history says what was run, drift what is there, the list what was put back.
    assert_eq!(db.versions().await, [1, 2]);
    let (code, text, _) = scene.verb(&["drift"]).await;
    assert!(code == 30 && text.contains("ird Table\": new"), "{text}");
    assert!(scene.list().await[0]["restoredAt"].is_string());

    // There are rows now: nothing is put over them.
    let (code, _, said) = scene.restore(&["1"]).await;
    assert_eq!(code, 32, "{said}");
    says(&said, &[ODD, "has rows", "--into-schema", "nothing was changed"]);
    let (code, text, said) = scene.restore(&["1", "--into-schema", "old"]).await;
    assert_eq!(code, 0, "{said}");
    says(&text, &["in schema old, 3 rows"]);
    let beside = r#"SELECT t::text FROM old."We""ird Table" t ORDER BY id"#;
    assert_eq!((db.ask(beside).await, db.ask(&rows).await.len()), (before, 4));
    let (code, _, said) = scene.restore(&["1", "--into-schema", "old"]).await;
    assert!(code == 32 && said.contains("is there already"), "{said}");
    let (code, _, said) = scene.restore(&["7"]).await;
    assert!(code == 32 && said.contains("no backup 7; known are: 1"), "{said}");

    // A file that is not the one that was written is not put back.
    let file = scene.backups.path().join(&scene.files()[0]);
    let mut bytes = fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&file, bytes).unwrap();
    let (code, _, said) = scene.restore(&["1", "--into-schema", "other"]).await;
    assert!(
        code == 32 && said.contains("is not the file that was written"),
        "{said}"
    );
    fs::remove_file(&file).unwrap();
    let (code, _, said) = scene.restore(&["1", "--into-schema", "other"]).await;
    assert!(code == 32 && said.contains("cannot be read"), "{said}");
    assert_eq!(scene.list().await[0]["state"], "missing");

    // A schema that went with its tables comes back with them.
    scene.write("0003_c", "DROP SCHEMA \"My Schema\" CASCADE;", "SELECT 1;");
    scene.goes_up().await;
    let (code, _, said) = scene.restore(&["2"]).await;
    assert_eq!(code, 0, "{said}");
    assert_eq!(db.ask(&rows).await.len(), 4);
}

#[tokio::test]
async fn emptied_tables_are_filled_again_whatever_their_foreign_keys() {
    let make = "CREATE TABLE z_parent (id serial PRIMARY KEY, name text);
        CREATE TABLE a_child (id int PRIMARY KEY, parent int NOT NULL REFERENCES z_parent);
        CREATE TABLE other (id int PRIMARY KEY);
        INSERT INTO z_parent (name) VALUES ('one'), ('two'); INSERT INTO a_child VALUES (7, 2); INSERT INTO other VALUES (1);";
    let scene = Scene::new("backup_truncate", &[("0001_a", make, "SELECT 1;")]).await;
    let db = &scene.db;
    scene.write("0002_b", "TRUNCATE z_parent RESTART IDENTITY CASCADE;", "SELECT 1;");
    scene.goes_up().await;
    let expected = [
        "\"public\".\"a_child\"",
        "\"public\".\"z_parent\"",
        "\"public\".\"z_parent_id_seq\"",
    ];
    assert_eq!(scene.saved().await, expected);
    let (code, text, said) = scene.restore(&["1"]).await;
    assert_eq!(code, 0, "{said}");
    says(
        &text,
        &["public.a_child: filled, 1 row", "public.z_parent: filled, 2 rows"],
    );
    assert_eq!(db.ask("SELECT parent::text FROM a_child").await, ["2"]);
    let strict = "SELECT condeferrable::text FROM pg_constraint WHERE contype = 'f'";
    assert_eq!(db.ask(strict).await, ["false"], "as it was");
    let next = "INSERT INTO z_parent (name) VALUES ('three') RETURNING id::text";
    assert_eq!(
        db.ask(next).await,
        ["3"],
        "a sequence that was set back is where the rows are"
    );

    // One of several; a sequence that has gone on stays there.
    db.ask("TRUNCATE z_parent CASCADE; SELECT setval('z_parent_id_seq', 50)::text")
        .await;
    let (code, text, said) = scene.restore(&["1", "--table", "z_parent"]).await;
    assert_eq!((code, text.lines().count()), (0, 1), "{said}");
    assert_eq!(db.ask(next).await, ["51"]);
    assert_eq!(db.ask("SELECT count(*)::text FROM a_child").await, ["0"]);

    // What fails in its middle changes nothing.
    db.ask("TRUNCATE z_parent CASCADE; ALTER TABLE z_parent DROP COLUMN name")
        .await;
    let (code, _, said) = scene.restore(&["1"]).await;
    assert_eq!(code, 32, "{said}");
    says(&said, &["z_parent", "\"name\"", "42703"]);
    let left = "SELECT (SELECT count(*) FROM a_child) || ' ' || (SELECT count(*) FROM z_parent)";
    assert_eq!(db.ask(left).await, ["0 0"]);
    assert_eq!(db.ask(strict).await, ["false"]);
}

#[tokio::test]
async fn what_a_statement_reaches_is_saved() {
    let make = "CREATE SCHEMA s; CREATE TABLE s.inside (id int);
        CREATE TYPE mood AS ENUM ('good');
        CREATE TABLE feels (id int, m mood); CREATE TABLE calm (id int);
        CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE follows (id int REFERENCES parent ON DELETE CASCADE);
        CREATE TABLE stays (id int REFERENCES parent);
        CREATE TABLE parts (id int) PARTITION BY RANGE (id); CREATE TABLE part_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
        CREATE TABLE \"a.b*\" (id int);";
    let scene = Scene::new("backup_reach", &[("0001_a", make, "SELECT 1;")]).await;
    let table = |name: &str| format!("\"public\".\"{name}\"");
    // Each would fail at its end, so that the next finds the same tables.
    let cases: [(&str, &[&str]); 7] = [
        ("DROP TYPE mood CASCADE", &["feels"]),
        ("DELETE FROM parent", &["follows", "parent"]),
        ("DROP TABLE parent CASCADE", &["parent"]),
        ("DROP TABLE parts", &["part_1", "parts"]),
        ("DROP TABLE \"a.b*\"", &["a.b*"]),
        ("ALTER TABLE calm RENAME TO was; DROP TABLE was", &["calm"]),
        ("ALTER TABLE feels ALTER id TYPE smallint", &["feels"]),
    ];
    for (sql, expected) in cases {
        scene.write("0002_b", &format!("{sql};\nSELECT 1/0;"), "SELECT 1;");
        let (code, _, said) = output(scene.up(&[])).await;
        assert!(code == 10 && said.contains("division by zero"), "{sql}: {code} {said}");
        let expected: Vec<String> = expected.iter().copied().map(table).collect();
        assert_eq!(scene.saved().await, expected, "{sql}");
    }
    scene.write("0002_b", "DROP SCHEMA s CASCADE;\nSELECT 1/0;", "SELECT 1;");
    assert_eq!(output(scene.up(&[])).await.0, 10);
    assert_eq!(scene.saved().await, ["\"s\".\"inside\""]);
    let count = scene.list().await.len();

    // Nothing to save, nothing asked for, and everything.
    scene.write("0002_b", "DROP TABLE IF EXISTS nosuch;\nSELECT 1/0;", "SELECT 1;");
    let (code, _, said) = scene.verb(&["up", "--allow-destructive", "all"]).await;
    assert_eq!(code, 10, "no folder is needed: {said}");
    scene.write("0002_b", "DROP TABLE calm;\nSELECT 1/0;", "SELECT 1;");
    assert_eq!(output(scene.up(&["--backup-before", "never"])).await.0, 10);
    assert_eq!(scene.list().await.len(), count);
    scene.write("0002_b", "SELECT 1/0;", "SELECT 1;");
    assert_eq!(output(scene.up(&["--backup-before", "always"])).await.0, 10);
    let all: Vec<String> = ["a.b*", "calm", "feels", "follows", "parent", "part_1", "parts", "stays"]
        .map(table)
        .into();
    assert_eq!(scene.saved().await, [all, vec!["\"s\".\"inside\"".to_owned()]].concat());
}

#[tokio::test]
async fn a_way_down_is_saved_where_a_folder_is_named() {
    let make = "CREATE TABLE t (id int); INSERT INTO t VALUES (1);";
    let scene = Scene::new("backup_down", &[("0001_a", make, "DROP TABLE t;")]).await;
    let mut down = scene.command(&["down"]);
    down.arg("--backup-dir").arg(scene.backups.path());
    let (code, _, said) = output(down).await;
    assert_eq!(code, 0, "{said}");
    assert_eq!(scene.saved().await, ["\"public\".\"t\""]);
    scene.goes_up().await;
    let (code, _, said) = scene.verb(&["down", "--backup-before", "destructive"]).await;
    assert!(code == 31 && said.contains("--backup-dir DIR"), "{said}");
    let (code, _, said) = scene.verb(&["down"]).await;
    assert_eq!(code, 0, "{said}");
    assert_eq!(scene.restore(&["1"]).await.0, 0);
    assert_eq!(scene.db.ask("SELECT id::text FROM t").await, ["1"]);
}

#[tokio::test]
async fn nothing_runs_where_it_cannot_be_saved() {
    let make = "CREATE TABLE t (id int); INSERT INTO t VALUES (1);";
    let scene = Scene::new("backup_fails", &[("0001_a", make, "DROP TABLE t;")]).await;
    scene.write("0002_b", "CREATE TABLE u (id int);", "DROP TABLE u;");
    scene.write("0003_c", "SELECT 1;\nDROP TABLE t;", "SELECT 1;");
    let refused = async |what: &str, up: Command, words: &[&str]| {
        let (code, _, said) = output(up).await;
        assert_eq!(code, 31, "{what}: {said}");
        says(&said, words);
        says(&said, &["nothing was run"]);
        assert!(!said.contains("rolled back"), "{what}: {said}");
        assert_eq!(scene.db.versions().await, [1], "{what}");
        assert_eq!(scene.db.ask("SELECT id::text FROM t").await, ["1"], "{what}");
        let run = scene.db.state().await.latest_run.unwrap();
        assert_eq!(
            (run.outcome.as_deref(), run.failed_version),
            (Some("failed"), None),
            "{what}"
        );
        assert_eq!(scene.files(), [""; 0], "{what}");
    };
    let no_folder = scene.command(&["up", "--allow-destructive", "3", "--on-failure", "rollback"]);
    let words = [
        "0003_c.up.sql:2: drops a table: DROP TABLE t; ",
        "--backup-dir DIR",
        "--backup-before never",
    ];
    refused("no folder", no_folder, &words).await;

    let mut missing = scene.up(&["--on-failure", "rollback"]);
    missing.env("PATH", "/nonexistent");
    refused("no program", missing, &["pg_dump is not in PATH", "postgresql-client"]).await;

    let mut old = scene.up(&[]);
    instead(&scene, "pg_dump", "echo 'pg_dump (PostgreSQL) 9.6.24'", &mut old);
    refused(
        "an old program",
        old,
        &["9.6.24 is older than the server", "or later first in PATH"],
    )
    .await;

    let mut fails = scene.up(&["--on-failure", "rollback"]);
    let script = "case $1 in --version) echo 'pg_dump (PostgreSQL) 99.1';; *) echo begun; echo 'it is broken' >&2; exit 1;; esac";
    instead(&scene, "pg_dump", script, &mut fails);
    refused("a program that fails", fails, &["99.1: it is broken"]).await;

    let mut file = scene.command(&["up", "--allow-destructive", "all"]);
    file.arg("--backup-dir").arg(scene.dir.file("file", "").join("folder"));
    refused("no folder can be there", file, &["cannot be written", "file/folder"]).await;

    // The real pg_dump, and a folder that is full after 8 KiB.
    scene.db.ask("ALTER TABLE t ADD COLUMN big text; UPDATE t SET big = (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 20000) i)").await;
    let mut full = Command::new("unshare");
    let small = "mount -t tmpfs -o size=8k tmpfs \"$FOLDER\" && exec \"$0\" \"$@\"";
    let up = scene.up(&[]);
    full.args(["--mount", "sh", "-c", small])
        .arg(up.get_program())
        .args(up.get_args());
    full.env("FOLDER", scene.backups.path())
        .env("DATABASE_URL", scene.db.server.url(&scene.db.owner(), &scene.db.name));
    refused("a full folder", full, &["pg_dump", "No space left on device"]).await;

    // With the same files and a folder it goes on.
    says(&scene.goes_up().await, &["backup 1: ", "0003_c"]);
    assert_eq!(scene.db.versions().await, [1, 2, 3]);
}

#[tokio::test]
async fn a_stop_ends_the_backup_and_leaves_nothing() {
    let make = "CREATE TABLE t (id int);";
    let scene = Scene::new("backup_stop", &[("0001_a", make, "DROP TABLE t;")]).await;
    scene.write("0002_b", "DROP TABLE t;", "SELECT 1;");
    let mut up = scene.up(&[]);
    let pid = scene.dir.path().join("pid");
    let script = format!(
        "case $1 in --version) echo 'pg_dump (PostgreSQL) 99.1';; *) echo $$ > {0}.new; mv {0}.new {0}; exec sleep 300;; esac",
        pid.display()
    );
    instead(&scene, "pg_dump", &script, &mut up);
    let run = Signalled::spawn(up, &scene.dir);
    eventually("the dump begins", Duration::from_secs(30), || async { pid.exists() }).await;
    let waiting = "SELECT waiting FROM amas_migrate.runs ORDER BY id DESC LIMIT 1";
    eventually("its row says so", Duration::from_secs(10), || async {
        scene.db.ask(waiting).await[0].starts_with("backing up 1 tables and sequences")
    })
    .await;
    // What a killed run left behind goes with the next.
    run.terminate();
    let (code, said) = run.wait().await;
    assert_eq!(code, 22, "{said}");
    let dump = fs::read_to_string(&pid).unwrap();
    assert!(
        !Path::new(&format!("/proc/{}", dump.trim())).exists(),
        "it was ended too"
    );
    assert_eq!((scene.files(), scene.db.versions().await), (vec![], vec![1]));
    scene.goes_up().await;
    let whole = scene.files().remove(0);
    let dead = format!("{}000000Z.dump.partial", whole.split_once("T").unwrap().0);
    fs::write(scene.backups.path().join(dead), "half").unwrap();
    scene.write("0003_c", "CREATE TABLE v (id int);", "SELECT 1;");
    scene.goes_up().await;
    scene.write("0004_d", "DROP TABLE v;", "SELECT 1;");
    scene.goes_up().await;
    assert!(
        scene.files().len() == 2 && scene.files().iter().all(|name| name.ends_with(".dump")),
        "{:?}",
        scene.files()
    );
}

#[tokio::test]
async fn a_password_is_seen_by_nobody() {
    const PASSWORD: &str = "p'a\"s$s w:o/r@d%&ä\\";
    let server = Postgres::start_guarded(&[]).await;
    let role = PASSWORD.replace('\'', "''");
    let role = format!("CREATE ROLE guarded LOGIN PASSWORD '{role}'");
    server
        .admin("postgres", &[&role, "CREATE DATABASE guarded OWNER guarded"])
        .await;
    let (dir, backups) = (Dir::new("guarded"), Dir::new("guarded-backups"));
    dir.file("sql/0001_a.sql", "CREATE TABLE t (id int); INSERT INTO t VALUES (1)");
    let seen = dir.path().join("seen");
    let tool = dir.file(
        "bin/pg_dump",
        &format!(
            "#!/bin/sh\nprintf '%s\\n' \"$@\" >> {}\nexec {}/pg_dump \"$@\"\n",
            seen.display(),
            crate::support::postgres::bin().display()
        ),
    );
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
    let encoded: String = PASSWORD.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let url = dir.file(
        "url",
        &format!("postgres://guarded:{encoded}@127.0.0.1:{}/guarded", server.port),
    );
    let run = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_amas-operator"));
        command
            .arg("migrate")
            .args(args)
            .arg("--database-url-file")
            .arg(&url)
            .arg("--backup-dir")
            .arg(backups.path());
        let others = std::env::var("PATH").unwrap();
        command.env("PATH", format!("{}:{others}", tool.parent().unwrap().display()));
        output(command)
    };
    let sql = dir.path().join("sql");
    let up = ["up", "--allow-destructive", "all", "--dir", sql.to_str().unwrap()];
    assert_eq!(run(&up).await.0, 0);
    dir.file("sql/0002_b.sql", "DROP TABLE t");
    let (code, _, said) = run(&up).await;
    assert_eq!(code, 0, "{said}");
    let arguments = fs::read_to_string(&seen).unwrap();
    says(&arguments, &["--table=\"public\".\"t\""]);
    let (code, text, more) = run(&["restore-tables", "1"]).await;
    assert_eq!((code, text.as_str()), (0, "public.t: made, 1 row\n"), "{more}");
    for text in [arguments, said, more, server.log()] {
        assert!(!text.contains(PASSWORD) && !text.contains(&encoded), "{text}");
    }
}
