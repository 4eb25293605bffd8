//! A database server beside the cluster, in its network: started, killed and started again by the suite.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use kube::api::DynamicObject;
use serde_json::json;

use crate::{
    cluster::{clients, objects::ours, wait},
    ensure,
    harness::{About, Result},
};

/// How long it may take until it answers.
const START: Duration = Duration::from_secs(20);
const PASSWORD: &str = "flapping-password";

#[derive(Clone, Copy)]
pub enum Engine {
    Redis,
    Postgres,
}

impl Engine {
    pub fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Postgres => "postgres",
        }
    }

    /// Of an AmasDatabase.
    pub fn condition(self) -> &'static str {
        match self {
            Self::Redis => "RedisReady",
            Self::Postgres => "PostgresReady",
        }
    }

    fn port(self) -> u16 {
        match self {
            Self::Redis => 26379,
            Self::Postgres => 25432,
        }
    }
}

/// A server of ours beside the cluster, in its network. It stops, and its folder goes, with the value.
pub struct Server {
    pub engine: Engine,
    address: String,
    folder: PathBuf,
    child: Option<Child>,
}

impl Server {
    pub fn new(engine: Engine, address: &str) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("amas-e2e-{}-{}", engine.name(), std::process::id()));
        fs::create_dir_all(&folder)?;
        let server = Self {
            engine,
            address: address.to_owned(),
            folder,
            child: None,
        };
        if matches!(engine, Engine::Postgres) {
            server.initdb()?;
        }
        Ok(server)
    }

    fn data(&self) -> String {
        self.folder.join("data").display().to_string()
    }

    fn initdb(&self) -> Result {
        finish(Command::new("chown").arg("postgres").arg(&self.folder))?;
        let password = self.folder.join("password");
        fs::write(&password, PASSWORD)?;
        finish(Command::new("chown").arg("postgres").arg(&password))?;
        let mut initdb = as_postgres("initdb")?;
        initdb
            .args(["--encoding=UTF8", "--locale=C.UTF-8"])
            .args(["--auth=scram-sha-256", "--username=postgres", "--no-sync", "--pwfile"])
            .arg(&password)
            .args(["-D", &self.data()]);
        finish(&mut initdb)?;
        let everyone = "local all all trust\nhost all all 0.0.0.0/0 scram-sha-256\n";
        fs::write(self.folder.join("data/pg_hba.conf"), everyone).about("pg_hba.conf")
    }

    pub fn start(&mut self) -> Result {
        let port = self.engine.port().to_string();
        let mut command = match self.engine {
            Engine::Redis => {
                let mut redis = with_us("KILL");
                redis.arg("redis-server");
                redis
                    .args([
                        "--bind",
                        &self.address,
                        "--port",
                        &port,
                        "--requirepass",
                        PASSWORD,
                        "--save",
                        "",
                        "--dir",
                    ])
                    .arg(&self.folder);
                redis
            }
            Engine::Postgres => {
                let mut postgres = as_postgres("postgres")?;
                postgres
                    .args(["-D", &self.data(), "-p", &port, "-c"])
                    .arg(format!("listen_addresses={}", self.address));
                postgres
                    .arg("-c")
                    .arg(format!("unix_socket_directories={}", self.folder.display()));
                postgres
            }
        };
        self.child = Some(
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .about("start the server")?,
        );
        Ok(())
    }

    /// Kills it, as a crash would. Nobody else waits for its end.
    pub async fn stop(&mut self) -> Result {
        if let Some(child) = self.child.take() {
            let engine = self.engine;
            tokio::task::spawn_blocking(move || end(engine, child)).await?;
        }
        Ok(())
    }

    fn uri(&self) -> String {
        let (address, port) = (&self.address, self.engine.port());
        match self.engine {
            Engine::Redis => format!("redis://default:{PASSWORD}@{address}:{port}/0"),
            Engine::Postgres => format!("postgresql://postgres:{PASSWORD}@{address}:{port}/postgres"),
        }
    }

    pub async fn answers(&self) -> Result {
        let attempt = async || match self.engine {
            Engine::Redis => clients::redis(&self.uri()).await.map(|_| ()),
            Engine::Postgres => clients::postgres(&self.uri()).await.map(|_| ()),
        };
        wait::retry(START, attempt).await
    }

    /// The Secret with the address, and the database that uses it.
    pub fn objects(&self) -> Result<Vec<DynamicObject>> {
        let name = self.engine.name();
        let external = json!({ "external": { "secretRef": { "name": name }, "tls": { "mode": "Disable" } } });
        let store = match self.engine {
            Engine::Redis => external,
            Engine::Postgres => {
                json!({ "external": external["external"], "database": "app", "roles": [{ "name": "app_writer", "access": "ReadWrite" }] })
            }
        };
        let mut spec = json!({});
        spec[name] = store;
        let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "stringData": { "uri": self.uri() } });
        Ok(vec![serde_json::from_value(secret)?, ours("AmasDatabase", name, spec)?])
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = self.child.take() {
            end(self.engine, child);
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// PostgreSQL gets its immediate shutdown, which takes its children along.
fn end(engine: Engine, mut child: Child) {
    let signal = match engine {
        Engine::Redis => "-KILL",
        Engine::Postgres => "-QUIT",
    };
    let _ = Command::new("kill").args([signal, &child.id().to_string()]).status();
    let _ = child.wait();
}

/// A command that ends when the suite does, whatever becomes of it; it replaces itself, so its process is the server's.
fn with_us(signal: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", signal]);
    command
}

/// A program of the newest PostgreSQL of this machine, as the user it has to have.
fn as_postgres(program: &str) -> Result<Command> {
    let versions = fs::read_dir("/usr/lib/postgresql").about("PostgreSQL of this machine")?;
    let program_of = |version: fs::DirEntry| version.path().join("bin").join(program);
    let mut programs: Vec<PathBuf> = versions
        .filter_map(|version| version.ok().map(program_of))
        .filter(|path| path.exists())
        .collect();
    programs.sort();
    let mut command = with_us("QUIT");
    command
        .args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups"])
        .arg(programs.pop().about(format!("no {program}"))?);
    Ok(command)
}

fn finish(command: &mut Command) -> Result {
    let output = command.output()?;
    ensure!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
