//! A PostgreSQL server of its own for a test binary: a child process on a free loopback port with a temporary
//! directory. It stops, and its directory goes, when the value is dropped.

use std::{
    fs,
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use sqlx::{AssertSqlSafe, ConnectOptions, PgConnection, postgres::PgConnectOptions, raw_sql};

/// Newest first; `PG_BIN` overrides.
const BINS: &[&str] = &[
    "/usr/lib/postgresql/17/bin",
    "/usr/lib/postgresql/16/bin",
    "/usr/lib/postgresql/15/bin",
];

/// Who gets in (`pg_hba.conf`).
const TRUSTING: &str = "local all all trust\nhost all all 127.0.0.1/32 trust\n";
const GUARDED: &str = "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n";

pub struct Postgres {
    child: Child,
    dir: PathBuf,
    pub port: u16,
}

static SHARED: tokio::sync::Mutex<Weak<Postgres>> = tokio::sync::Mutex::const_new(Weak::new());

impl Postgres {
    /// A server shared by the tests that run at the same time, each with its own database. It stops with the last.
    pub async fn shared() -> Arc<Self> {
        let mut shared = SHARED.lock().await;
        if let Some(server) = shared.upgrade() {
            return server;
        }
        let server = Arc::new(Self::start().await);
        *shared = Arc::downgrade(&server);
        server
    }

    /// Starts a server with log_statement=all and waits until it answers.
    pub async fn start() -> Self {
        Self::start_with(&[("log_statement", "all")]).await
    }

    /// The same with other settings.
    pub async fn start_with(settings: &[(&str, &str)]) -> Self {
        Self::launch(settings, TRUSTING).await
    }

    /// The superuser gets in as before, everybody else by password.
    pub async fn start_guarded(settings: &[(&str, &str)]) -> Self {
        Self::launch(settings, GUARDED).await
    }

    async fn launch(settings: &[(&str, &str)], access: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let dir = std::env::temp_dir().join(format!("amas-pg-{}-{port}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        run(Command::new("chown").arg("postgres").arg(&dir));
        let data = dir.join("data");
        run(as_postgres("initdb")
            .args(["-A", "trust", "-U", "postgres", "--no-sync"])
            .args(["--encoding=UTF8", "--locale=C.UTF-8", "-D"])
            .arg(&data));
        fs::write(data.join("pg_hba.conf"), access).unwrap();
        let mut server = as_postgres("postgres");
        server
            .arg("-D")
            .arg(&data)
            .args(["-p", &port.to_string(), "-k"])
            .arg(&dir);
        server.args(["-c", "listen_addresses=127.0.0.1", "-c", "max_connections=60"]);
        for (name, value) in settings {
            server.arg("-c").arg(format!("{name}={value}"));
        }
        let log = fs::File::create(dir.join("log")).unwrap();
        let child = server.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let server = Self { child, dir, port };
        server.wait().await;
        server
    }

    async fn wait(&self) {
        let started = Instant::now();
        while let Err(error) = self.login("postgres", "postgres").connect().await {
            assert!(started.elapsed() < Duration::from_secs(60), "{error}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub fn login(&self, user: &str, database: &str) -> PgConnectOptions {
        let options = PgConnectOptions::new_without_pgpass().host("127.0.0.1").port(self.port);
        options.username(user).database(database).disable_statement_logging()
    }

    pub async fn connect(&self, user: &str, database: &str) -> PgConnection {
        self.login(user, database).connect().await.unwrap()
    }

    pub fn url(&self, user: &str, database: &str) -> String {
        format!("postgres://{user}@127.0.0.1:{}/{database}", self.port)
    }

    /// Runs statements as the superuser, one message each.
    pub async fn admin(&self, database: &str, statements: &[&str]) {
        let mut conn = self.connect("postgres", database).await;
        for sql in statements {
            raw_sql(AssertSqlSafe(sql.to_string()))
                .execute(&mut conn)
                .await
                .unwrap();
        }
    }

    /// A database with its own owner `<name>_owner` (no superuser) and application role `<name>_app`, which the usual
    /// default privileges let do everything with the owner's tables.
    pub async fn database(&self, name: &str) {
        let all = [
            format!("CREATE ROLE {name}_owner LOGIN"),
            format!("CREATE ROLE {name}_app LOGIN"),
            format!("CREATE DATABASE {name} OWNER {name}_owner"),
        ];
        self.admin("postgres", &all.each_ref().map(String::as_str)).await;
        let grant = format!("ALTER DEFAULT PRIVILEGES FOR ROLE {name}_owner GRANT ALL ON");
        let grants = ["TABLES", "SEQUENCES", "SCHEMAS"].map(|kind| format!("{grant} {kind} TO {name}_app"));
        self.admin(name, &grants.each_ref().map(String::as_str)).await;
    }

    /// Everything the server has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // runuser waits for its child, so it is the postmaster itself that gets the immediate shutdown
        let pid = fs::read_to_string(self.dir.join("data/postmaster.pid")).unwrap_or_default();
        if let Some(pid) = pid.lines().next() {
            let _ = Command::new("kill").args(["-QUIT", pid]).status();
        } else {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// The folder of the server's programs.
pub fn bin() -> PathBuf {
    let bin = std::env::var("PG_BIN").ok().map(PathBuf::from);
    bin.or_else(|| BINS.iter().map(PathBuf::from).find(|bin| bin.join("postgres").exists()))
        .expect("no PostgreSQL server found")
}

fn as_postgres(program: &str) -> Command {
    let mut command = Command::new("runuser");
    command.args(["-u", "postgres", "--"]).arg(bin().join(program));
    command
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
