//! Sets of migrations, as each tool wants them: a folder, one of the same for refinery, one file for psql, and one message.

use std::{
    fs,
    path::PathBuf,
    process,
    sync::atomic::{AtomicUsize, Ordering},
};

use sha2::{Digest, Sha384};

/// sqlx's own table.
const HISTORY: &str = "CREATE TABLE _sqlx_migrations (version bigint PRIMARY KEY, description text NOT NULL, \
     installed_on timestamptz NOT NULL DEFAULT now(), success boolean NOT NULL, checksum bytea NOT NULL, execution_time bigint NOT NULL)";

pub struct Set {
    root: PathBuf,
    pub dir: PathBuf,
    pub refinery: PathBuf,
    /// One transaction with the statements and the history rows, a statement each.
    pub all: PathBuf,
    /// The least that comes to the same: as one message, the history rows in one statement.
    pub replay: String,
    /// The same with a message for each migration.
    pub messages: Vec<String>,
    pub count: usize,
}

impl Set {
    /// Versions 1 to `count`, each with what `up` says.
    fn of(count: usize, up: impl Fn(usize) -> String) -> Self {
        static SETS: AtomicUsize = AtomicUsize::new(0);
        let number = SETS.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("amas-bench-{}-{number}", process::id()));
        let mut set = Self {
            dir: root.join("ours"),
            refinery: root.join("refinery"),
            all: root.join("all.psql"),
            replay: format!("BEGIN; {HISTORY};\n"),
            messages: vec![format!("BEGIN; {HISTORY}")],
            root,
            count,
        };
        fs::create_dir_all(&set.dir).unwrap();
        fs::create_dir_all(&set.refinery).unwrap();
        let insert = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES";
        let (mut all, mut texts, mut rows) = (format!("{HISTORY};\n"), String::new(), Vec::new());
        for version in 1..=count {
            let up = up(version);
            fs::write(set.dir.join(format!("{version:05}_m{version}.up.sql")), &up).unwrap();
            fs::write(set.dir.join(format!("{version:05}_m{version}.down.sql")), "SELECT 1;\n").unwrap();
            fs::write(set.refinery.join(format!("V{version}__m{version}.sql")), &up).unwrap();
            let checksum = hex::encode(Sha384::digest(&up));
            let row = format!("({version}, 'm{version}', true, '\\x{checksum}', 0)");
            set.messages.push(format!("{up}{insert} {row}"));
            all.push_str(&format!("{up}{insert} {row};\n"));
            texts.push_str(&up);
            rows.push(row);
        }
        set.messages.push("COMMIT".to_owned());
        fs::write(&set.all, &all).unwrap();
        set.replay
            .push_str(&format!("{texts}{insert} {}; COMMIT", rows.join(", ")));
        set
    }

    /// Each makes one function.
    pub fn functions(count: usize) -> Self {
        Self::of(count, |version| {
            format!("CREATE FUNCTION f{version}(a int) RETURNS int LANGUAGE sql AS 'SELECT a + {version}';\n")
        })
    }

    /// Each makes one table with a primary key, and with it a TOAST table and two indexes.
    pub fn tables(count: usize) -> Self {
        Self::of(count, |version| {
            format!("CREATE TABLE t{version} (id int PRIMARY KEY, note text);\n")
        })
    }

    /// Each fills a table and builds two indexes on it.
    pub fn filled(count: usize) -> Self {
        Self::of(count, |version| {
            format!(
                "CREATE TABLE t{version} AS SELECT i AS id, md5(i::text) AS note FROM generate_series(1, 50000) i;\n\
                 ALTER TABLE t{version} ADD PRIMARY KEY (id);\nCREATE INDEX ON t{version} (note);\n"
            )
        })
    }

    /// Statements that do nothing, for a long history that costs no tables.
    pub fn idle(count: usize) -> Self {
        Self::of(count, |_| "SELECT 1;\n".to_owned())
    }
}

impl Drop for Set {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}
