//! `stamp`, `repair`, `redo`, `current`, `history` and `show` as processes.

use std::{fs, time::Duration};

use amas_operator::migrate::session;
use serde_json::Value;

use super::{Dir, command, output};
use crate::migrate::{Database, FIVE, source};

/// A folder with the five migrations beside a database of its own.
async fn five(name: &str) -> (Database, Dir) {
    (Database::new(name).await, Dir::of(name, &FIVE))
}

impl Dir {
    /// Runs a verb on the folder: exit code, standard output, standard error.
    async fn run(&self, db: &Database, args: &[&str]) -> (i32, String, String) {
        output(command(db, args, &[("--dir", &self.0)])).await
    }

    async fn does(&self, db: &Database, args: &[&str]) -> String {
        let (code, text, err) = self.run(db, args).await;
        assert_eq!(code, 0, "{args:?}: {text}{err}");
        text + &err
    }
}

#[tokio::test]
async fn a_database_made_by_hand_is_taken_over() {
    let (db, dir) = five("stamped").await;
    let mut owner = db.connect().await;
    for file in &FIVE[..2] {
        sqlx::raw_sql(file.1).execute(&mut owner).await.unwrap();
    }
    assert_eq!(dir.run(&db, &["up"]).await.0, 10, "the tables are there already");
    assert_eq!(dir.run(&db, &["stamp", "--to", "7"]).await.0, 15);
    dir.does(&db, &["baseline", "--to", "2"]).await;
    assert_eq!(
        dir.does(&db, &["stamp", "--to", "2"]).await,
        "the records say so already\n"
    );
    let text = dir.does(&db, &["up"]).await;
    assert!(text.contains("up from version 2 to 5"), "{text}");
    // The ways back came with the stamp: no file is needed.
    let down = ["down", "--to", "0"];
    let (code, _, err) = output(command(&db, &down, &[])).await;
    assert_eq!(code, 0, "{err}");
    assert_eq!(db.ask("SELECT to_regclass('users')::text").await, ["NULL"]);

    dir.does(&db, &["up"]).await;
    let text = dir.does(&db, &["stamp", "--to", "4"]).await;
    assert_eq!(text, "5  no longer recorded\n");
    assert_eq!(db.versions().await, [1, 2, 3, 4]);
    assert_eq!(
        db.ask("SELECT count(*)::text FROM users").await,
        ["1"],
        "nothing is run"
    );
}

#[tokio::test]
async fn disagreements_are_told_and_settled() {
    let (db, dir) = five("repaired").await;
    dir.does(&db, &["up"]).await;
    assert_eq!(dir.does(&db, &["repair"]).await, "files and records agree\n");
    dir.file(
        "0002_posts.up.sql",
        "CREATE TABLE posts (id int PRIMARY KEY); -- as it is now",
    );
    dir.file("0002_posts.down.sql", "DROP TABLE posts; SELECT 'new way back';");
    std::fs::remove_file(dir.0.join("0003_more_posts.up.sql")).unwrap();
    std::fs::remove_file(dir.0.join("0003_more_posts.down.sql")).unwrap();
    db.ask("UPDATE _sqlx_migrations SET success = false WHERE version = 5")
        .await;
    let (code, text, _) = dir.run(&db, &["repair"]).await;
    assert_eq!(code, 12);
    for part in [
        "--applied 2 if",
        "--pending 3 if",
        "--applied 5 if all of it",
        "was edited",
        "half done",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(dir.run(&db, &["up"]).await.0, 12);
    let text = dir.does(&db, &["repair", "--applied", "2,5", "--pending", "3"]).await;
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(dir.does(&db, &["up"]).await.contains("nothing to do, version 5"));
    let shown = dir.does(&db, &["show", "2"]).await;
    assert!(shown.contains("new way back") && shown.contains("stamp"), "{shown}");
    // What sqlx makes of it.
    let files = [
        ("0001_users", FIVE[0].1, FIVE[0].2),
        (
            "0002_posts",
            "CREATE TABLE posts (id int PRIMARY KEY); -- as it is now",
            "SELECT 1",
        ),
        FIVE[3],
        FIVE[4],
    ];
    let recorded: Vec<_> = db.state().await.applied.into_iter().map(|row| row.checksum).collect();
    let expected: Vec<_> = source(&files)
        .migrations()
        .map(|file| file.up.checksum.clone())
        .collect();
    assert_eq!(recorded, expected);
}

#[tokio::test]
async fn redo_brings_the_newest_back_as_its_file_is_now() {
    let (db, dir) = five("redone").await;
    dir.does(&db, &["up"]).await;
    dir.file("0005_rows.up.sql", "INSERT INTO users VALUES (7, 'redone')");
    let text = dir.does(&db, &["redo"]).await;
    assert!(
        text.contains("down from version 5 to 4") && text.contains("up from version 4 to 5"),
        "{text}"
    );
    assert_eq!(db.ask("SELECT name FROM users").await, ["redone"]);
    // What could not be applied again is not taken back.
    dir.file("0005_rows.up.sql", "BEGIN");
    assert_eq!(dir.run(&db, &["redo", "--steps", "2"]).await.0, 11);
    assert_eq!(db.versions().await, [1, 2, 3, 4, 5]);
}

/// That it is so is seen without the lock, which somebody else has here.
#[tokio::test]
async fn nothing_to_do_waits_for_nobody_and_what_is_to_do_is_never_missed() {
    let (db, dir) = five("settled").await;
    dir.does(&db, &["up"]).await;
    let mut other = db.connect().await;
    session::lock(&mut other, &db.name, Duration::from_secs(10), &mut |_| {})
        .await
        .unwrap();
    let (nothing, waits) = ("nothing to do, version 5\n", 21);
    let now = ["up", "--lock-timeout", "0ms"];
    assert_eq!(dir.does(&db, &now).await, nothing);
    assert_eq!(dir.does(&db, &[&now[..], &["--to", "5"]].concat()).await, nothing);
    for (harm, remedy) in [
        (
            "UPDATE _sqlx_migrations SET success = false WHERE version = 2",
            "UPDATE _sqlx_migrations SET success = true",
        ),
        (
            "UPDATE amas_migrate.runs SET finished_at = NULL",
            "UPDATE amas_migrate.runs SET finished_at = now()",
        ),
    ] {
        db.ask(harm).await;
        assert_eq!(dir.run(&db, &now).await.0, waits, "{harm}");
        db.ask(remedy).await;
        assert_eq!(dir.does(&db, &now).await, nothing, "{remedy}");
    }
    // an edit that keeps size and time
    let edited = dir.path().join("0002_posts.up.sql");
    let (text, time) = (
        fs::read_to_string(&edited).unwrap(),
        fs::metadata(&edited).unwrap().modified().unwrap(),
    );
    fs::write(&edited, text.replace("end", "END")).unwrap();
    fs::File::options()
        .write(true)
        .open(&edited)
        .unwrap()
        .set_modified(time)
        .unwrap();
    drop(other);
    let (code, _, said) = dir.run(&db, &["up"]).await;
    assert!(
        code == 12 && said.contains("0002_posts.up.sql: migration 2 was edited"),
        "{said}"
    );
    fs::write(&edited, text).unwrap();
    // a schema that was not recorded, or that another release of the server has recorded, is recorded anew
    let latest = "SELECT server || applied FROM amas_migrate.fingerprints ORDER BY id DESC LIMIT 1";
    let before = db.ask(latest).await;
    for harm in ["SET server = 9", "SET applied = ''"] {
        db.ask(&format!("UPDATE amas_migrate.fingerprints {harm}")).await;
        assert_eq!(dir.does(&db, &["up"]).await, nothing);
        assert_eq!(db.ask(latest).await, before, "{harm}");
    }
}

#[tokio::test]
async fn what_was_done_can_be_looked_at() {
    let (db, dir) = five("looked").await;
    let look = |args: &'static [&'static str]| {
        let db = &db;
        async move {
            let (code, text, err) = output(command(db, args, &[])).await;
            assert_eq!(code, 0, "{args:?}: {err}");
            text
        }
    };
    assert_eq!(look(&["current"]).await, "0\n");
    assert_eq!(look(&["history"]).await.lines().count(), 1, "a heading");
    dir.does(&db, &["up", "--attempt", "job-1"]).await;
    dir.does(&db, &["down"]).await;
    assert_eq!(look(&["current"]).await, "4\n");
    let json: Value = serde_json::from_str(&look(&["history", "-o", "json", "-n", "2"]).await).unwrap();
    let entries = json["history"].as_array().unwrap();
    let told: Vec<_> = entries
        .iter()
        .map(|one| (one["version"].as_i64(), one["direction"].as_str()))
        .collect();
    assert_eq!(told, [(Some(5), Some("down")), (Some(5), Some("up"))]);
    assert_eq!(
        (&entries[1]["attempt"], &entries[1]["by"]),
        (&"job-1".into(), &db.owner().into())
    );
    let text = dir.does(&db, &["show", "3"]).await;
    for part in [
        "more posts",
        "applied",
        "job-1",
        "0003_more_posts.up.sql:2: CREATE INDEX",
        "DROP COLUMN title",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(dir.run(&db, &["show", "9"]).await.0, 15);
}

#[tokio::test]
async fn the_files_of_an_image_are_brought_as_they_are() {
    use amas_operator::migrate::deposit;
    let (db, dir) = five("deposited").await;
    dir.file("0006_bytes.sql", "SELECT 'it''s \\ é';\r\n");
    let stored = async |source: &str| deposit::read(&mut db.connect().await, source).await.unwrap();
    assert!(stored("a").await.is_empty());
    for source in ["a", "b", "a"] {
        dir.does(&db, &["deposit", "--source", source]).await;
        let files = stored(source).await;
        assert_eq!(files.len(), 2 * FIVE.len() + 1);
        for (name, content) in files {
            assert_eq!(content, std::fs::read(dir.path().join(&name)).unwrap(), "{name}");
        }
    }
    // Two sources are kept.
    dir.does(&db, &["deposit", "--source", "it's c"]).await;
    let left = [
        stored("it's c").await.len(),
        stored("a").await.len(),
        stored("b").await.len(),
    ];
    assert_eq!(left, [11, 11, 0]);
    dir.does(&db, &["up"]).await;
    // What a run would refuse is not brought, and what is there stays.
    dir.file("0007_half.up.sql", "SELECT 1");
    let (code, _, err) = dir.run(&db, &["deposit", "--source", "a"]).await;
    assert_eq!((code, err.contains("0007_half.up.sql")), (11, true), "{err}");
    let empty = Dir::of("deposited-empty", &[]);
    assert_eq!(empty.run(&db, &["deposit", "--source", "a"]).await.0, 17);
    assert_eq!(stored("a").await.len(), 11);
}

/// As releases before this one have left them: with their own mark, without the columns and tables that came since.
#[tokio::test]
async fn records_of_older_releases_are_read_as_they_are_and_brought_to_this_one() {
    const MARK: &str = "SELECT pg_catalog.obj_description('amas_migrate'::regnamespace, 'pg_namespace')";
    let (db, dir) = five("older").await;
    dir.does(&db, &["up"]).await;
    let mark = db.ask(MARK).await;
    let older =
        "DROP TABLE amas_migrate.backups; ALTER TABLE amas_migrate.runs DROP COLUMN waiting, DROP COLUMN error_column";
    for layout in 1..=5 {
        db.ask(&format!(
            "{older}; COMMENT ON SCHEMA amas_migrate IS 'amas-operator migration records, layout {layout}'"
        ))
        .await;
        for verb in ["status", "validate", "up"] {
            dir.does(&db, &[verb]).await;
        }
        let (code, text, err) = output(command(&db, &["backups"], &[])).await;
        assert_eq!((code, text.lines().count()), (0, 1), "a heading: {text}{err}");
        dir.does(&db, &["redo"]).await;
        assert_eq!(db.ask(MARK).await, mark, "layout {layout}");
        assert_eq!(db.versions().await, [1, 2, 3, 4, 5]);
    }
    let (code, text, err) = output(command(&db, &["history"], &[])).await;
    assert_eq!(code, 0, "{err}");
    assert_eq!(
        text.lines().count(),
        1 + 5 + 5 * 2,
        "nothing of the history is lost: {text}"
    );
}
