//! Ways to apply a set to an empty database, what each takes, and the proof that all of them come to the same.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use amas_operator::migrate::{lint, source::Source};
use sqlx::{AssertSqlSafe, Row, raw_sql};
use sqlx_core::migrate::Migrator;

use super::{postgres::Postgres, sets::Set};

/// The objects of the schema with their columns, texts and sizes, but for the tools' own tables.
const STATE: &str = "SELECT md5(string_agg(o, E'\\n' ORDER BY o COLLATE \"C\")) FROM ( \
     SELECT concat_ws(' ', c.relname, c.relkind, pg_relation_size(c.oid), pg_get_indexdef(c.oid), (SELECT string_agg(concat_ws(' ', a.attname, \
     a.atttypid::regtype, a.attnotnull), ', ' ORDER BY a.attnum) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0)) \
     FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relname !~ '^(_sqlx_migrations|refinery_schema_history)' \
     UNION ALL SELECT pg_get_functiondef(p.oid) FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace) AS all_of_them (o)";
/// Versions and checksums.
const SQLX_HISTORY: &str = "SELECT concat_ws(' ', count(*), count(*) FILTER (WHERE success), \
     md5(string_agg(version || ' ' || encode(checksum, 'hex'), ',' ORDER BY version))) FROM _sqlx_migrations";
/// Its checksums are its own affair.
const REFINERY_HISTORY: &str =
    "SELECT concat_ws(' ', count(*), min(version), max(version)) FROM refinery_schema_history";

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// One `psql` session and one transaction, with the history rows: what the targets are meant over.
    Floor,
    /// The same by one connection and in one message: the least it can cost.
    Message,
    /// The same with a message for each migration.
    Messages,
    Ours,
    /// Ours once more.
    Twin,
    /// sqlx's own migrator as a library in this process, which saves its start.
    Sqlx,
    /// The program.
    Refinery,
    /// Not a way to apply: our lint of the same texts, as a library in this process: what it adds to a run, which reads the files anyway.
    Lint,
    /// The same by the program, which starts and reads the files.
    LintProgram,
}

/// What an arm leaves behind; None where it has no such history.
#[derive(Debug, PartialEq, Eq)]
pub struct End {
    state: String,
    history: Option<String>,
}

impl Tool {
    /// Applies a set to a new database, and sees that nothing but the time differs from what other arms left.
    pub async fn run(self, server: &Postgres, set: &Set, expected: &mut Option<End>) -> Duration {
        fresh(server, "bench").await;
        let url = server.url("postgres", "bench");
        let took = match self {
            Self::Floor => psql(&url, &set.all),
            Self::Message => replay(server, std::slice::from_ref(&set.replay)).await,
            Self::Messages => replay(server, &set.messages).await,
            Self::Ours | Self::Twin => ours(&["up"], &set.dir, &url),
            Self::Sqlx => sqlx(server, "bench", &set.dir).await,
            Self::Refinery => refinery(&url, &set.refinery),
            Self::Lint => return lint(&set.dir),
            Self::LintProgram => return ours(&["lint"], &set.dir, ""),
        };
        self.compare(server, set.count, expected).await;
        took
    }

    async fn compare(self, server: &Postgres, count: usize, expected: &mut Option<End>) {
        let state = text(server, STATE).await;
        let history = match self {
            Self::Refinery => {
                assert_eq!(text(server, REFINERY_HISTORY).await, format!("{count} 1 {count}"));
                None
            }
            _ => Some(text(server, SQLX_HISTORY).await),
        };
        let first = expected.get_or_insert_with(|| End {
            state: state.clone(),
            history: None,
        });
        assert_eq!(state, first.state, "the arms leave different schemas");
        if let Some(history) = history {
            let known = first.history.get_or_insert_with(|| history.clone());
            assert_eq!(history, *known, "the arms leave different histories");
        }
    }
}

async fn text(server: &Postgres, sql: &'static str) -> String {
    let mut conn = server.connect("postgres", "bench").await;
    raw_sql(sql).fetch_one(&mut conn).await.unwrap().get(0)
}

/// Empty, and nothing left to write of those before.
pub async fn fresh(server: &Postgres, database: &str) {
    let drop = format!("DROP DATABASE IF EXISTS {database}");
    let create = format!("CREATE DATABASE {database} TEMPLATE template0");
    server.admin("postgres", &[&drop, &create, "CHECKPOINT"]).await;
}

fn timed(command: &mut Command) -> Duration {
    let began = Instant::now();
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    began.elapsed()
}

/// `amas-operator migrate` with a verb and its options.
pub fn ours(verb: &[&str], dir: &Path, url: &str) -> Duration {
    let mut command = Command::new(env!("CARGO_BIN_EXE_amas-operator"));
    command.arg("migrate").args(verb).arg("--dir").arg(dir);
    timed(command.env("DATABASE_URL", url))
}

fn lint(dir: &Path) -> Duration {
    let source = Source::load(&[dir.to_owned()]).unwrap();
    let migrations: Vec<_> = source.migrations().collect();
    let began = Instant::now();
    assert!(lint::lint(&migrations).unwrap().is_empty());
    began.elapsed()
}

async fn replay(server: &Postgres, messages: &[String]) -> Duration {
    let began = Instant::now();
    let mut conn = server.connect("postgres", "bench").await;
    for message in messages {
        raw_sql(AssertSqlSafe(message.as_str()))
            .execute(&mut conn)
            .await
            .unwrap();
    }
    began.elapsed()
}

fn psql(url: &str, all: &Path) -> Duration {
    let options = ["-X", "-q", "-1", "-v", "ON_ERROR_STOP=1", "-d", url, "-f"];
    timed(Command::new("psql").args(options).arg(all))
}

/// `AMAS_REFINERY` is the program.
fn refinery(url: &str, dir: &Path) -> Duration {
    let program = std::env::var("AMAS_REFINERY").expect("AMAS_REFINERY: the program; run by make bench-migrate");
    let mut command = Command::new(program);
    command.args(["migrate", "-e", "DATABASE_URL", "-p"]).arg(dir);
    timed(command.env("DATABASE_URL", url))
}

pub async fn sqlx(server: &Postgres, database: &str, dir: &Path) -> Duration {
    let began = Instant::now();
    let migrator = Migrator::new(dir).await.unwrap();
    migrator
        .run_direct(None, &mut server.connect("postgres", database).await, false)
        .await
        .unwrap();
    began.elapsed()
}
