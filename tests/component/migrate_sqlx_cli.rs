//! Beside sqlx-cli as a program, on the same history table: each goes on from where the other is. `hack/sqlx-cli` makes it.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use sqlx::{Connection, raw_sql};

use super::{
    Database, FIVE, File,
    command::{Dir, command, output},
    held, request, source, statement, succeeded,
};
use amas_operator::migrate::runner::Goal;

const ROWS: &str = "SELECT version || description || success || encode(checksum, 'hex') || xmin FROM _sqlx_migrations ORDER BY version";

/// None: this is not the whole run, which has it.
fn program() -> Option<PathBuf> {
    let program = std::env::var_os("AMAS_SQLX").map(PathBuf::from);
    if program.is_none() {
        assert!(
            std::env::var_os("AMAS_TOOLS").is_none(),
            "AMAS_SQLX: what hack/sqlx-cli prints"
        );
        println!("SKIPPED: AMAS_SQLX names no sqlx-cli");
    }
    program
}

/// sqlx-cli with a folder of files and a database.
struct Sqlx<'a> {
    program: PathBuf,
    dir: &'a Dir,
    db: &'a Database,
}

impl Sqlx<'_> {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["--no-dotenv", "migrate"]).args(args);
        command.arg("--source").arg(self.dir.path());
        command.args(["--database-url", &self.db.server.url(&self.db.owner(), &self.db.name)]);
        command
            .current_dir(self.dir.path())
            .env_remove("DATABASE_URL")
            .stdin(Stdio::null());
        command
    }

    /// What it prints; it succeeds.
    async fn does(&self, args: &[&str]) -> String {
        let (code, out, error) = output(self.command(args)).await;
        assert_eq!(code, 0, "sqlx migrate {args:?}: {out}{error}");
        out
    }

    /// What it says of each version, which must be one of these files.
    async fn info(&self) -> Vec<String> {
        let told = self.does(&["info"]).await;
        assert!(!told.contains("different checksum"), "{told}");
        told.lines().map(str::to_owned).collect()
    }

    /// It finds everything applied as it would have applied it, and does nothing.
    async fn has_nothing_to_do(&self, files: &[File]) {
        let installed: Vec<String> = files
            .iter()
            .map(|(name, ..)| {
                let (version, description) = name.split_once('_').unwrap();
                let version: i64 = version.parse().unwrap();
                format!("{version}/installed {}", description.replace('_', " "))
            })
            .collect();
        assert_eq!(self.info().await, installed);
        let before = self.db.ask(ROWS).await;
        assert_eq!(self.does(&["run"]).await, "");
        assert_eq!(self.db.ask(ROWS).await, before, "not even a row was written anew");
    }
}

async fn ours(db: &Database, dir: &Path) -> (i32, String) {
    let (code, _, error) = output(command(db, &["up"], &[("--dir", dir)])).await;
    (code, error)
}

#[tokio::test]
async fn after_ours_it_has_nothing_to_do() {
    let Some(program) = program() else { return };
    let db = Database::new("cli_after").await;
    let mut files = FIVE.to_vec();
    files.push((
        "0006_none",
        "-- no-transaction\nCREATE INDEX CONCURRENTLY six ON posts (id);",
        "DROP INDEX six;",
    ));
    files.push((
        "0007_parts",
        "SELECT 1;\nCREATE INDEX CONCURRENTLY seven ON posts (id);\nSELECT 'ä';\r\n",
        "DROP INDEX seven;",
    ));
    let dir = Dir::of("cli_after", &files);
    let sqlx = Sqlx {
        program,
        dir: &dir,
        db: &db,
    };
    let (code, error) = ours(&db, dir.path()).await;
    assert_eq!(code, 0, "{error}");
    sqlx.has_nothing_to_do(&files).await;
    let shape = db.shape().await;
    // what it takes back, ours applies again
    for args in [
        &["revert"] as &[&str],
        &["revert", "--target-version", "2"],
        &["revert", "--target-version", "0"],
    ] {
        sqlx.does(args).await;
        let left = db.versions().await.len();
        let (code, error) = ours(&db, dir.path()).await;
        assert!(
            code == 0 && error.contains(&format!("up from version {left} to 7")),
            "{args:?}: {error}"
        );
        sqlx.has_nothing_to_do(&files).await;
        assert_eq!(db.shape().await, shape, "{args:?}");
    }
    let told = "SELECT string_agg(direction, ' ' ORDER BY id) FROM amas_migrate.history WHERE version = 1";
    assert_eq!(db.ask(told).await, ["up up"]);
}

#[tokio::test]
async fn after_it_ours_has_nothing_to_do() {
    let Some(program) = program() else { return };
    let db = Database::new("cli_before").await;
    let dir = Dir::of("cli_before", &FIVE);
    let sqlx = Sqlx {
        program,
        dir: &dir,
        db: &db,
    };
    assert_eq!(sqlx.does(&["run"]).await.lines().count(), 5);
    let rows = db.ask(ROWS).await;
    let (code, error) = ours(&db, dir.path()).await;
    assert_eq!((code, db.ask(ROWS).await), (0, rows), "{error}");
    sqlx.has_nothing_to_do(&FIVE).await;
    // ours knows the way back of what it has not applied
    succeeded(&db.run(request(Goal::DownSteps(2), source(&FIVE))).await);
    assert_eq!(sqlx.info().await[3..], ["4/pending function", "5/pending rows"]);
    assert_eq!(sqlx.does(&["run"]).await.lines().count(), 2);
    let (code, error) = ours(&db, dir.path()).await;
    assert_eq!((code, db.versions().await.len()), (0, 5), "{error}");
}

#[tokio::test]
async fn it_sees_that_a_file_is_half_way() {
    let Some(program) = program() else { return };
    let db = Database::new("cli_half").await;
    let parts = "CREATE TABLE log (what text);\nCREATE INDEX CONCURRENTLY half ON posts (id);\n";
    let failing = (
        FIVE[2].0,
        &*format!("{parts}SELECT 1/0;").leak(),
        "DROP TABLE log; DROP INDEX half;",
    );
    let dir = Dir::of("cli_half", &[FIVE[0], FIVE[1], failing]);
    let sqlx = Sqlx {
        program,
        dir: &dir,
        db: &db,
    };
    let report = db.up(&[FIVE[0], FIVE[1], failing]).await;
    assert_eq!((statement(&report).sqlstate.as_str(), report.current), ("22012", 2));
    let rows = db.ask(ROWS).await;
    for verb in ["run", "revert"] {
        let (code, said, error) = output(sqlx.command(&[verb])).await;
        assert!(
            code != 0 && (said.clone() + &error).contains("migration 3 is partially applied"),
            "{verb}: {said}{error}"
        );
    }
    assert_eq!(db.ask(ROWS).await, rows);
    let files = [
        FIVE[0],
        FIVE[1],
        (FIVE[2].0, &*format!("{parts}SELECT 1;").leak(), failing.2),
    ];
    dir.file("0003_more_posts.up.sql", files[2].1);
    let (code, error) = ours(&db, dir.path()).await;
    assert_eq!(code, 0, "{error}");
    sqlx.has_nothing_to_do(&files).await;
}

/// sqlx-cli takes no lock (sqlx's library does). Both in the middle of the same file, only one of them gets it in: rows and
/// effects are one transaction in both.
#[tokio::test]
async fn at_once_nothing_runs_twice() {
    let Some(program) = program() else { return };
    let db = Database::new("cli_both").await;
    let files: [File; 3] = [
        ("0001_held", held("INSERT INTO ran VALUES (1);"), "SELECT 1"),
        ("0002_next", "INSERT INTO ran VALUES (2);", "SELECT 1"),
        ("0003_last", "INSERT INTO ran VALUES (3);", "SELECT 1"),
    ];
    let dir = Dir::of("cli_both", &files);
    let sqlx = Sqlx {
        program,
        dir: &dir,
        db: &db,
    };
    // it makes the history table, which two that make it at once would stumble over before any file
    assert_eq!(sqlx.info().await[0], "1/pending held");
    let mut owner = db.connect().await;
    raw_sql("CREATE TABLE ran (version int)")
        .execute(&mut owner)
        .await
        .unwrap();
    let gate = db.gate().await;
    let release = async {
        db.stands(2).await;
        gate.close().await.unwrap();
    };
    let ((ours_code, ours_said), theirs, ()) =
        tokio::join!(ours(&db, dir.path()), output(sqlx.command(&["run"])), release);
    let said = format!("ours {ours_code}: {ours_said}\ntheirs {theirs:?}");
    assert!((ours_code == 0) != (theirs.0 == 0), "one of them is refused: {said}");
    assert!(said.contains("_sqlx_migrations_pkey"), "{said}");
    let ran = "SELECT version::text FROM ran ORDER BY 1";
    assert_eq!(db.ask(ran).await, ["1", "2", "3"], "{said}");
    let (code, error) = ours(&db, dir.path()).await;
    assert_eq!(code, 0, "{error}");
    sqlx.has_nothing_to_do(&files).await;
    assert_eq!(db.ask(ran).await, ["1", "2", "3"]);
}
