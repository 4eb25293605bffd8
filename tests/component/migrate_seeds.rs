//! Profiles of seeds as a process: which folders, in which order, when again, and under which name they are recorded.

use super::{Database, Dir, command, output};

/// Tells that it ran, which a seed that is written to be repeated would not.
fn ran(what: &str) -> String {
    format!("INSERT INTO log (what) VALUES ('{what}');")
}

const LOG: &str = "SELECT what FROM log ORDER BY id";
const RECORDS: &str =
    "SELECT profile || '/' || name FROM amas_migrate.seeds ORDER BY (profile || '/' || name) COLLATE \"C\"";

/// Folder and file, in the order in which profile production has to run them.
const PRODUCTION: [&str; 6] = [
    "common/2_same.sql",
    "common/10_same.sql",
    "production/0001_same.sql",
    "production/0002_more.sql",
    "last/0001_same.sql",
    "last/0002_end.sql",
];

#[tokio::test]
async fn a_profile_runs_its_folders_in_order_and_each_file_once() {
    let db = Database::new("profile").await;
    let dir = Dir::new("profile");
    dir.file("0001_log.sql", "CREATE TABLE log (id serial, what text);");
    for file in PRODUCTION.iter().rev() {
        dir.file(&format!("seed/{file}"), &ran(file));
    }
    dir.file("seed/development/0001_same.sql", &ran("development/0001_same.sql"));
    let run = async |args: &[&str]| {
        let (code, _, said) = output(command(&db, args, &[("--dir", dir.path())])).await;
        assert_eq!(code, 0, "{args:?}: {said}");
        said
    };
    let up = ["up", "--seed-profile", "production"];
    run(&up).await;
    assert_eq!(db.ask(LOG).await, PRODUCTION);
    let mut recorded = PRODUCTION.map(str::to_owned);
    recorded.sort();
    assert_eq!(db.ask(RECORDS).await, recorded, "the same name in each folder");

    for args in [up.as_slice(), &["seed", "--seed-profile", "production"]] {
        let said = run(args).await;
        assert!(said.contains("6 seed files unchanged"), "{args:?}: {said}");
        assert_eq!(db.ask(LOG).await, PRODUCTION, "{args:?}");
    }
    // one that changed runs again, and no other of its name
    dir.file("seed/production/0001_same.sql", &ran("changed"));
    let said = run(&up).await;
    assert!(said.contains("5 seed files unchanged"), "{said}");
    assert_eq!(db.ask(LOG).await[6..], ["changed"]);
    // another profile has the common ones already
    let said = run(&["up", "--seed-profile", "development"]).await;
    assert!(said.contains("4 seed files unchanged"), "{said}");
    assert_eq!(db.ask(LOG).await[7..], ["development/0001_same.sql"]);
    assert_eq!(db.ask(RECORDS).await.len(), 7);
}

#[tokio::test]
async fn a_profile_that_has_no_folder_is_refused_before_anything_runs() {
    let db = Database::new("profileless").await;
    let dir = Dir::new("profileless");
    dir.file("0001_t.sql", "CREATE TABLE t ();");
    let args = ["up", "--seed-profile", "production"];
    for (expected, told) in [
        (17, "no folder seed with a profile production"),
        (11, "there is no seed for profile production"),
    ] {
        let (code, _, said) = output(command(&db, &args, &[("--dir", dir.path())])).await;
        assert!(code == expected && said.contains(told), "{code}: {said}");
        dir.file("seed/development/0001_other.sql", "SELECT 1;");
    }
    assert_eq!(db.ask("SELECT to_regclass('t')::text").await, ["NULL"]);
}
