//! pg_dump and pg_restore as child processes: found by PATH, told by their environment how to log in, ended when nobody waits for them.

use std::{
    io::Read,
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread::JoinHandle,
    time::Duration,
};

use sqlx::{
    ConnectOptions,
    postgres::{PgConnectOptions, PgSslMode},
};

use crate::migrate::{report::truncate, session::APPLICATION};

const LOOK: Duration = Duration::from_millis(20);
/// Of what a program says.
const WORDS: usize = 2000;
/// SIGINT and SIGTERM: a terminal sends them to everybody in it.
const STOPPED: [i32; 2] = [2, 15];

/// Why a program did not do its work.
pub enum Problem {
    Interrupted,
    Failed(String),
}

/// A program that is there.
#[derive(Clone, Debug)]
pub struct Tool {
    name: &'static str,
    path: PathBuf,
    major: u32,
    /// As it says itself.
    pub version: String,
}

/// Looks for a program in PATH.
pub(super) async fn find(name: &'static str) -> Result<Tool, String> {
    let Some(path) = locate(name) else {
        return Err(format!(
            "{name} is not in PATH: install PostgreSQL's client programs (Debian: postgresql-client), of the server's major version or a later one"
        ));
    };
    let program = path.clone();
    let output = match tokio::task::spawn_blocking(move || bare(&program).arg("--version").output()).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(format!("{} cannot be run: {error}", path.display())),
        Err(error) => return Err(format!("{} cannot be run: {error}", path.display())),
    };
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    match major(&text).filter(|_| output.status.success()) {
        Some(major) => Ok(Tool {
            name,
            path,
            major,
            version: truncate(&text, 200).to_owned(),
        }),
        None => Err(format!(
            "{name} --version does not say its version: {}",
            truncate(&String::from_utf8_lossy(&output.stderr), WORDS).trim()
        )),
    }
}

/// The first of that name in PATH, but Debian's script that chooses one of several versions only if there is nothing else: it wants to know its
/// user, whom a container may not name.
fn locate(name: &str) -> Option<PathBuf> {
    let executable = |path: &PathBuf| {
        let found = std::fs::metadata(path);
        found.is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    let chooses = |path: &&PathBuf| std::fs::canonicalize(path).is_ok_and(|path| path.ends_with("pg_wrapper"));
    let folders = std::env::var_os("PATH")?;
    let all: Vec<PathBuf> = std::env::split_paths(&folders)
        .map(|folder| folder.join(name))
        .filter(executable)
        .collect();
    let itself = all.iter().find(|path| !chooses(path));
    itself.or(all.first()).cloned()
}

/// `pg_dump (PostgreSQL) 17.2 (Debian 17.2-1)` is 17.
fn major(text: &str) -> Option<u32> {
    let (_, version) = text.split_once(") ")?;
    let end = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    version[..end].parse().ok()
}

impl Tool {
    /// A dump of a server that is newer than the program is refused by it; said here with what to do.
    pub fn check(&self, server: u32) -> Result<(), String> {
        match self.major >= server {
            true => Ok(()),
            false => Err(format!(
                "{} is older than the server, which is PostgreSQL {server}, and cannot dump it: put the client programs of PostgreSQL {server} or later first in PATH",
                self.version
            )),
        }
    }

    /// Runs it to its end on the server of a login.
    pub async fn run(&self, login: &PgConnectOptions, arguments: &[String]) -> Result<(), Problem> {
        let mut command = bare(&self.path);
        command.args(arguments).envs(environment(login)).stdout(Stdio::null());
        let mut running = Running::start(command, self.name)?;
        running.end().await
    }

    /// Starts it without a server, to read what it prints.
    pub fn start(&self, arguments: &[String]) -> Result<Running, Problem> {
        let mut command = bare(&self.path);
        command.args(arguments).stdout(Stdio::piped());
        Running::start(command, self.name)
    }
}

/// In English, and with nothing of our own environment that says where and how to log in.
fn bare(program: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .stdin(Stdio::null())
        .env("LC_ALL", "C")
        .env_remove("DATABASE_URL");
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("PG") {
            command.env_remove(variable);
        }
    }
    command
}

/// A login as libpq's variables: what is in a program's environment only its own user sees.
pub(super) fn environment(login: &PgConnectOptions) -> Vec<(&'static str, String)> {
    // An address of our own making, since the rest of a login may not fit into one.
    let url = login.clone().host("h").username("u").database("d").to_url_lossy();
    let decoded = |text: &str| {
        let pair = format!("p={text}");
        url::form_urlencoded::parse(pair.as_bytes())
            .next()
            .map(|(_, value)| value.into_owned())
    };
    let host = login.get_socket().map(|path| path.display().to_string());
    let mode = match login.get_ssl_mode() {
        PgSslMode::Disable => "disable",
        PgSslMode::Allow => "allow",
        PgSslMode::Prefer => "prefer",
        PgSslMode::Require => "require",
        PgSslMode::VerifyCa => "verify-ca",
        PgSslMode::VerifyFull => "verify-full",
    };
    let mut all = vec![
        ("PGHOST", host.unwrap_or_else(|| login.get_host().to_owned())),
        ("PGPORT", login.get_port().to_string()),
        ("PGUSER", login.get_username().to_owned()),
        ("PGAPPNAME", APPLICATION.to_owned()),
        ("PGSSLMODE", mode.to_owned()),
        ("PGGSSENCMODE", "disable".to_owned()),
        ("PGCONNECT_TIMEOUT", "10".to_owned()),
    ];
    let database = login.get_database().unwrap_or(login.get_username());
    all.push(("PGDATABASE", database.to_owned()));
    all.extend(login.get_options().map(|options| ("PGOPTIONS", options.to_owned())));
    all.extend(
        url.password()
            .and_then(decoded)
            .map(|password| ("PGPASSWORD", password)),
    );
    for (key, value) in url.query_pairs() {
        let variable = match &*key {
            "sslrootcert" => "PGSSLROOTCERT",
            "sslcert" => "PGSSLCERT",
            "sslkey" => "PGSSLKEY",
            _ => continue,
        };
        if let Some(path) = value.strip_prefix("file: ") {
            all.push((variable, path.to_owned()));
        }
    }
    // Without a file libpq looks for one in the home folder only.
    if mode == "verify-full" && !all.iter().any(|(name, _)| *name == "PGSSLROOTCERT") {
        all.push(("PGSSLROOTCERT", "system".to_owned()));
    }
    all
}

/// A program at work. It is killed when this is dropped.
pub struct Running {
    name: &'static str,
    pub child: Child,
    words: Option<JoinHandle<String>>,
}

impl Running {
    fn start(mut command: Command, name: &'static str) -> Result<Self, Problem> {
        let spawned = command.stderr(Stdio::piped()).spawn();
        let mut child = spawned.map_err(|error| Problem::Failed(format!("{name} cannot be run: {error}")))?;
        let words = child.stderr.take().map(|mut stderr| {
            std::thread::spawn(move || {
                let mut all = Vec::new();
                let _ = stderr.read_to_end(&mut all);
                String::from_utf8_lossy(&all).trim().to_owned()
            })
        });
        Ok(Self { name, child, words })
    }

    /// Waits for its end.
    pub async fn end(&mut self) -> Result<(), Problem> {
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) => tokio::time::sleep(LOOK).await,
                Err(error) => return Err(Problem::Failed(format!("{}: {error}", self.name))),
            }
        };
        let words = self
            .words
            .take()
            .and_then(|words| words.join().ok())
            .unwrap_or_default();
        judge(status, &words)
    }
}

fn judge(status: ExitStatus, words: &str) -> Result<(), Problem> {
    if status.success() {
        return Ok(());
    }
    if status.signal().is_some_and(|signal| STOPPED.contains(&signal)) {
        return Err(Problem::Interrupted);
    }
    // the cause comes last
    match truncate_front(words, WORDS) {
        "" => Err(Problem::Failed(status.to_string())),
        words => Err(Problem::Failed(words.to_owned())),
    }
}

/// At most `bytes` of the end of a text.
fn truncate_front(text: &str, bytes: usize) -> &str {
    let start = (text.len().saturating_sub(bytes)..=text.len()).find(|&at| text.is_char_boundary(at));
    &text[start.unwrap_or(text.len())..]
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::str::FromStr;

    #[test]
    fn versions_are_read() {
        assert_eq!(major("pg_dump (PostgreSQL) 17.2 (Debian 17.2-1.pgdg120+1)"), Some(17));
        assert_eq!(major("pg_restore (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major("something else"), None);
        let old = Tool {
            name: "pg_dump",
            path: PathBuf::new(),
            major: 15,
            version: "pg_dump (PostgreSQL) 15.8".into(),
        };
        assert!(old.check(15).is_ok());
        assert!(old.check(17).unwrap_err().contains("PostgreSQL 17 or later"));
    }

    #[test]
    fn a_login_becomes_variables() {
        let url = "postgres://us%40er:p%3A%2F%20%2B%25%26%C3%A4%27@db.example:5433/data%2Fbase?sslmode=verify-full&sslrootcert=/run/a%20b/ca.crt";
        let all = environment(&PgConnectOptions::from_str(url).unwrap());
        let get = |name: &str| {
            all.iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| value.as_str())
        };
        for (name, value) in [
            ("PGHOST", "db.example"),
            ("PGPORT", "5433"),
            ("PGUSER", "us@er"),
            ("PGPASSWORD", "p:/ +%&ä'"),
            ("PGDATABASE", "data/base"),
            ("PGSSLMODE", "verify-full"),
            ("PGSSLROOTCERT", "/run/a b/ca.crt"),
        ] {
            assert_eq!(get(name), Some(value), "{name}");
        }
        let socket = environment(&PgConnectOptions::from_str("postgres://u@%2Ftmp%2Fx/d").unwrap());
        assert!(socket.contains(&("PGHOST", "/tmp/x".to_owned())));
    }

    #[test]
    fn the_end_of_many_words_is_kept() {
        let words = format!("{}ä the cause", "x".repeat(3000));
        assert!(truncate_front(&words, 11).ends_with(" the cause"));
        assert_eq!(truncate_front("short", 100), "short");
    }
}
