//! The same as a process: signals, exit codes, seeds, the termination message, and the migrations we ship.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use amas_operator::migrate::report::Termination;
use sqlx::Connection;

use super::{Database, FIVE, File, bytes, held};
use crate::support::process::eventually;

#[path = "migrate_backup.rs"]
mod backup;
#[path = "migrate_bad_input.rs"]
mod bad_input;
#[path = "migrate_drift.rs"]
mod drift;
#[path = "migrate_losses.rs"]
mod losses;
#[path = "migrate_plan.rs"]
mod plan;
#[path = "migrate_records.rs"]
mod records;
#[path = "migrate_seeds.rs"]
mod seeds;
#[path = "migrate_verbs.rs"]
mod verbs;

/// A folder that goes when the test does.
pub(super) struct Dir(PathBuf);

impl Dir {
    pub(super) fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("amas-migrate-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn of(name: &str, files: &[File]) -> Self {
        let dir = Self::new(name);
        for (name, sql) in bytes(files) {
            fs::write(dir.0.join(name), sql).unwrap();
        }
        dir
    }

    pub(super) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(super) fn command(db: &Database, args: &[&str], dirs: &[(&str, &Path)]) -> Command {
    // another build of the binary can be put to the test
    let binary = std::env::var("AMAS_OPERATOR_BIN").unwrap_or(env!("CARGO_BIN_EXE_amas-operator").to_owned());
    let mut command = Command::new(binary);
    command.arg("migrate").args(args);
    for (flag, dir) in dirs {
        command.arg(flag).arg(dir);
    }
    command
        .env("DATABASE_URL", db.server.url(&db.owner(), &db.name))
        .stdin(Stdio::null());
    command
}

pub(super) async fn output(mut command: Command) -> (i32, String, String) {
    let output: Output = tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code().unwrap(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// A process that is sent signals; what it says is read while it runs.
pub(super) struct Signalled {
    child: Child,
    said: PathBuf,
}

impl Signalled {
    pub(super) fn spawn(mut command: Command, dir: &Dir) -> Self {
        let said = dir.file("said", "");
        let child = command.stderr(fs::File::create(&said).unwrap()).spawn().unwrap();
        Self { child, said }
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.said).unwrap()
    }

    pub(super) fn terminate(&self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    }

    /// The first signal, which it has heard when this returns: two at once would be one.
    async fn interrupt(&self) {
        self.terminate();
        let heard = || async { self.said().contains("stopping after the current migration") };
        eventually("it has heard the signal", Duration::from_secs(60), heard).await;
    }

    pub(super) async fn wait(mut self) -> (i32, String) {
        let status = tokio::task::spawn_blocking(move || self.child.wait().unwrap());
        let code = status.await.unwrap().code().unwrap();
        (code, fs::read_to_string(&self.said).unwrap())
    }
}

#[tokio::test]
async fn sigterm_stops_between_migrations() {
    let db = Database::new("sigterm").await;
    let mut files = FIVE;
    files[1].1 = held("CREATE TABLE posts (id int PRIMARY KEY);");
    let dir = Dir::of("sigterm", &files);
    let message = dir.0.join("message");
    let args = ["up", "--attempt", "job-a"];
    let dirs = [("--dir", dir.0.as_path()), ("--termination-message", &message)];
    let gate = db.gate().await;
    let run = Signalled::spawn(command(&db, &args, &dirs), &dir);
    db.stands(1).await;
    run.interrupt().await;
    gate.close().await.unwrap();
    let (code, stderr) = run.wait().await;
    assert_eq!(code, 22, "{stderr}");
    assert_eq!(db.versions().await, [1, 2], "the one in flight ended");
    assert_eq!(
        db.state().await.latest_run.unwrap().outcome.as_deref(),
        Some("interrupted")
    );
    let left: Termination = serde_json::from_str(&fs::read_to_string(&message).unwrap()).unwrap();
    assert_eq!(
        (left.outcome.as_str(), left.current, left.target, left.code),
        ("interrupted", 2, 5, 22)
    );
    let (code, _, stderr) = output(command(&db, &args, &dirs)).await;
    assert_eq!(code, 0, "{stderr}");
    assert!(
        stderr.contains("up from version 2 to 5: 3 migrations") && stderr.contains("0003_more_posts"),
        "{stderr}"
    );
    assert_eq!(db.versions().await, [1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn a_second_signal_stops_at_once() {
    let db = Database::new("sigtermtwice").await;
    let mut files = FIVE;
    files[1].1 = "CREATE TABLE posts (id int PRIMARY KEY); SELECT pg_sleep(30);";
    let dir = Dir::of("sigtermtwice", &files);
    let run = Signalled::spawn(command(&db, &["up"], &[("--dir", &dir.0)]), &dir);
    let sleeps = || db.is_asked("pg_sleep(30)");
    eventually("the second file sleeps", Duration::from_secs(60), sleeps).await;
    run.interrupt().await;
    run.terminate();
    let (code, stderr) = run.wait().await;
    assert_eq!(code, 22, "{stderr}");
    let noticed = || async { !sleeps().await };
    eventually(
        "the server notices that nobody is there",
        Duration::from_secs(10),
        noticed,
    )
    .await;
    assert_eq!(db.versions().await, [1]);
}

#[tokio::test]
async fn seeds_run_once_and_only_a_hash_leaves() {
    let db = Database::new("seeded").await;
    let dir = Dir::of("seeded", &FIVE);
    let password = "clear-and-secret-8153";
    let secret = dir.file("secret", &format!("{password}\n"));
    let admin =
        "INSERT INTO users VALUES (2, current_setting('amas.seed.admin_password_hash')) ON CONFLICT (id) DO NOTHING;";
    dir.file("seed/common/0001_admin.sql", admin);
    dir.file(
        "seed/common/0002_more.sql",
        "INSERT INTO users VALUES (3, 'more') ON CONFLICT DO NOTHING",
    );
    let hash = format!("admin_password={}", secret.display());
    let run = || {
        let dirs = [("--dir", dir.0.as_path()), ("--seed-dir", &dir.0.join("seed/common"))];
        output(command(&db, &["up", "--seed-hash", &hash], &dirs))
    };
    let (code, _, stderr) = run().await;
    assert_eq!(code, 0, "{stderr}");
    let stored = db.ask("SELECT name FROM users WHERE id = 2").await.remove(0);
    assert!(
        stored.starts_with("$2b$12$") && bcrypt::verify(password, &stored).unwrap(),
        "{stored}"
    );
    assert!(db.server.log().contains("set_config"), "the log has all statements");
    assert!(!db.server.log().contains(password) && !stderr.contains(password));
    let records = "SELECT profile || '/' || name FROM amas_migrate.seeds ORDER BY 1";
    assert_eq!(db.ask(records).await, ["common/0001_admin.sql", "common/0002_more.sql"]);

    // unchanged: skipped, and the Secret is not even read
    fs::remove_file(&secret).unwrap();
    let (code, _, stderr) = run().await;
    assert!(code == 0 && stderr.contains("2 seed files unchanged"), "{stderr}");
    // changed: again
    dir.file(
        "seed/common/0002_more.sql",
        "SELECT 1;\nUPDATE users SET name = 'changed' WHERE id = 3",
    );
    let (code, _, stderr) = run().await;
    assert!(code == 0 && stderr.contains("common/0002_more"), "{stderr}");
    assert_eq!(
        db.ask("SELECT name FROM users WHERE id IN (2, 3) ORDER BY id").await,
        [stored, "changed".to_owned()]
    );
    // wrong: its own exit code, file and line; the setting is gone with its transaction
    dir.file(
        "seed/common/0003_wrong.sql",
        "SELECT 1;\n\nSELECT 1 / length(coalesce(current_setting('amas.seed.x', true), ''));",
    );
    let (code, _, stderr) = run().await;
    assert!(
        code == 14 && stderr.contains("seed common/0003_wrong.sql:3: division by zero"),
        "{code} {stderr}"
    );
}

#[tokio::test]
async fn exit_codes_and_messages() {
    let db = Database::new("codes").await;
    let dir = Dir::of("codes", &FIVE);
    let dirs = [("--dir", dir.0.as_path())];
    let (code, stdout, _) = output(command(&db, &["status"], &dirs)).await;
    assert!(
        code == 0 && stdout.lines().count() == 6 && stdout.contains("pending"),
        "{stdout}"
    );
    let (code, stdout, stderr) = output(command(&db, &["validate"], &dirs)).await;
    assert!(
        code == 0 && stdout.contains("5 pending on the database"),
        "{stdout}{stderr}"
    );
    assert_eq!(output(command(&db, &["up", "--to", "3"], &dirs)).await.0, 0);
    assert_eq!(output(command(&db, &["up", "--to", "9"], &dirs)).await.0, 15);
    let (code, stdout, _) = output(command(&db, &["status", "-o", "json"], &dirs)).await;
    let json: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &json["current"], &json["pending"]), (0, &3.into(), &2.into()));
    assert_eq!(json["migrations"][2]["state"], "applied");

    dir.file("0004_function.up.sql", "SELECT 1;\nSELECT nosuch;");
    let message = dir.0.join("message");
    let (code, _, stderr) = output(command(&db, &["up"], &[dirs[0], ("--termination-message", &message)])).await;
    assert!(
        code == 10 && stderr.contains("0004_function.up.sql:2:8: column \"nosuch\" does not exist (SQLSTATE 42703)"),
        "{stderr}"
    );
    let left: Termination = serde_json::from_str(&fs::read_to_string(&message).unwrap()).unwrap();
    assert_eq!(
        (left.version, left.line, left.column, left.sqlstate.as_deref()),
        (Some(4), Some(2), Some(8), Some("42703"))
    );
    dir.file("0004_function.up.sql", "SELECT 1;\nCOMMIT;");
    assert_eq!(output(command(&db, &["up"], &dirs)).await.0, 11);
    fs::remove_file(dir.0.join("0005_rows.down.sql")).unwrap();
    assert_eq!(output(command(&db, &["up"], &dirs)).await.0, 11);
    assert_eq!(output(command(&db, &["down", "--steps", "2"], &[])).await.0, 0);
    assert_eq!(db.versions().await, [1]);

    let mut nobody = command(
        &db,
        &["status", "--connect-timeout", "300ms"],
        &[("--dir", Path::new("migrations/amas"))],
    );
    nobody.env("DATABASE_URL", "postgres://x:secret-word@127.0.0.1:1/x");
    let (code, _, stderr) = output(nobody).await;
    assert!(code == 20 && !stderr.contains("secret-word"), "{stderr}");
    let mut stranger = command(&db, &["status"], &[("--dir", Path::new("migrations/amas"))]);
    stranger.env("DATABASE_URL", db.server.url("nobody_here", "codes"));
    assert_eq!(output(stranger).await.0, 16);
    let url = dir.file("url", &format!("{}\n", db.server.url(&db.owner(), "codes")));
    let mut by_file = command(
        &db,
        &["down", "--to", "0", "--database-url-file", url.to_str().unwrap()],
        &[],
    );
    by_file.env_remove("DATABASE_URL");
    assert_eq!(output(by_file).await.0, 0);
}

/// How many rows each table has.
async fn seeded(db: &Database) -> Vec<String> {
    let count = "SELECT table_name || ' ' || (xpath('/row/n/text()', query_to_xml(format('SELECT count(*) AS n FROM public.%I', table_name), \
                 false, true, '')))[1] FROM information_schema.tables WHERE table_schema = 'public' AND table_type = 'BASE TABLE' \
                 AND table_name <> '_sqlx_migrations' ORDER BY 1";
    let rows = db.ask(count).await;
    assert!(rows.iter().any(|row| !row.ends_with(" 0")), "{rows:?}");
    rows
}

#[tokio::test]
async fn the_migrations_we_ship() {
    let db = Database::new("amas").await;
    db.server
        .admin(
            "amas",
            &[
                "CREATE EXTENSION IF NOT EXISTS \"uuid-ossp\"",
                "CREATE EXTENSION IF NOT EXISTS pg_trgm",
                "CREATE EXTENSION IF NOT EXISTS btree_gin",
            ],
        )
        .await;
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/amas");
    let dir = Dir::new("shipped");
    let hash = format!("admin_password={}", dir.file("secret", "0123456789abcdef").display());
    let dirs = [("--dir", ours.as_path())];
    for profile in ["development", "test", "production"] {
        let up = ["up", "--seed-profile", profile, "--seed-hash", &hash];
        let (code, _, stderr) = output(command(&db, &up, &dirs)).await;
        assert_eq!(code, 0, "{stderr}");
        let full = db.shape().await;
        // As if nobody remembered them, the seeds run over what they have put there.
        let rows = seeded(&db).await;
        db.ask("DELETE FROM amas_migrate.seeds").await;
        let (code, _, stderr) = output(command(&db, &up, &dirs)).await;
        assert_eq!((code, seeded(&db).await), (0, rows), "{profile}: {stderr}");
        let (code, _, stderr) = output(command(&db, &["down", "--to", "0"], &[])).await;
        assert_eq!(code, 0, "{stderr}");
        let (code, _, stderr) = output(command(&db, &["up"], &dirs)).await;
        assert_eq!((code, db.shape().await), (0, full), "{stderr}");
        db.ask("DELETE FROM amas_migrate.seeds").await;
    }
}

#[tokio::test]
async fn on_a_terminal_a_bar_says_how_far_it_is() {
    let db = Database::new("bar").await;
    let dir = Dir::new("bar");
    for file in ["1_a", "2_b", "3_c"] {
        // each in a transaction of its own
        dir.file(
            &format!("{file}.sql"),
            &format!("CREATE TABLE t{file} (); DO $$ BEGIN END $$;"),
        );
    }
    let plain = command(&db, &["up", "--to", "1"], &[("--dir", dir.path())]);
    let program = plain.get_program().to_str().unwrap().to_owned();
    let (code, _, said) = output(plain).await;
    assert!(code == 0 && !said.contains(['\r', '\u{1b}']), "no terminal: {said:?}");
    let mut terminal = Command::new("script");
    let line = format!("{program} migrate up --dir {}", dir.path().display());
    terminal.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    terminal
        .env("DATABASE_URL", db.server.url(&db.owner(), &db.name))
        .stdin(Stdio::null());
    let (code, shown, _) = output(terminal).await;
    assert_eq!(code, 0, "{shown}");
    let mut rest = shown.as_str();
    for part in [
        "up from version 1 to 3: 2 migrations\r\n",
        "\r\u{1b}[K[--------------------] 0/2 2_b.sql",
        "\r\u{1b}[K2_b ",
        "\r\u{1b}[K[##########----------] 1/2 3_c.sql",
        "\r\u{1b}[K3_c ",
    ] {
        let at = rest
            .find(part)
            .unwrap_or_else(|| panic!("{part:?} is next in {shown:?}"));
        rest = &rest[at + part.len()..];
    }
    assert!(!rest.contains('['), "no bar is left: {shown:?}");
}
