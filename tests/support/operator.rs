//! The operator's real program as a child process: killed, stopped, frozen, started again, run twice at once.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    kubernetes::Namespace,
    process::{Process, free_port},
};

/// Runs its arguments with a file in place of /etc/hosts, which needs a mount namespace of its own.
pub const KNOWING: [&str; 4] = ["-rm", "sh", "-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\""];

pub struct Operator {
    process: Process,
    settings: Vec<(String, String)>,
    hosts: Option<PathBuf>,
    log: PathBuf,
    starts: u32,
    /// Of /healthz, /readyz and /metrics.
    pub http_port: u16,
}

impl Operator {
    /// Watches `namespace` alone and has its lease there. `settings` are environment variables; they win over these defaults.
    pub fn start(namespace: &Namespace, kubeconfig: &Path, settings: &[(&str, &str)]) -> Self {
        Self::start_knowing(None, namespace, kubeconfig, settings)
    }

    /// The same with a file in place of /etc/hosts.
    pub fn start_knowing(
        hosts: Option<PathBuf>,
        namespace: &Namespace,
        kubeconfig: &Path,
        settings: &[(&str, &str)],
    ) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("operator-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let http_port = free_port();
        let migrations = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations");
        let defaults = [
            ("KUBECONFIG", kubeconfig.display().to_string()),
            ("POD_NAME", name.clone()),
            ("POD_NAMESPACE", namespace.name.clone()),
            ("AMAS_WATCH_NAMESPACES", namespace.name.clone()),
            ("AMAS_HTTP_PORT", http_port.to_string()),
            ("AMAS_MIGRATIONS_DIR", migrations.to_owned()),
            ("AMAS_IMAGE", "localhost/amas-operator:tests".to_owned()),
        ];
        let defaults = defaults.into_iter().map(|(key, value)| (key.to_owned(), value));
        let given = settings.iter().map(|(key, value)| (key.to_string(), value.to_string()));
        let settings: Vec<_> = defaults.chain(given).collect();
        let log = namespace.api.folder().join(name);
        Self {
            process: spawn(hosts.as_deref(), &settings, &log, 1),
            settings,
            hosts,
            log,
            starts: 1,
            http_port,
        }
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// SIGTERM, and waits for its end.
    pub fn stop(&mut self) {
        self.process.signal("TERM");
        self.process.wait();
    }

    /// Starts it again with the same settings, under the same name.
    pub fn again(&mut self) {
        self.kill();
        self.starts += 1;
        self.process = spawn(self.hosts.as_deref(), &self.settings, &self.log, self.starts);
    }

    /// Any other signal, such as `STOP` and `CONT`.
    pub fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// Whether the process still runs.
    pub fn runs(&mut self) -> bool {
        self.process.runs()
    }

    /// What it tells a scraper.
    pub async fn metrics(&self) -> String {
        self.try_metrics().await.unwrap()
    }

    async fn try_metrics(&self) -> std::io::Result<String> {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", self.http_port)).await?;
        let request = b"GET /metrics HTTP/1.1\r\nHost: operator\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    /// How many reconciles of AmasDatabases there were since it was started, and their seconds; none before it tells of any.
    pub async fn reconciles(&self) -> Option<(f64, f64)> {
        let metrics = self.try_metrics().await.ok()?;
        let value = |end: &str| -> Option<f64> {
            let series = format!("amas_reconcile_seconds_{end}{{kind=\"AmasDatabase\"}} ");
            metrics
                .lines()
                .find_map(|line| line.strip_prefix(&series))?
                .parse()
                .ok()
        };
        Some((value("count")?, value("sum")?))
    }

    /// The log of all its starts.
    pub fn log(&self) -> String {
        let read = |start| std::fs::read_to_string(log_file(&self.log, start)).unwrap_or_default();
        (1..=self.starts).map(read).collect()
    }
}

/// Of a test that fails, the operator's last words are shown.
impl Drop for Operator {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            println!(
                "the operator said last:\n{}",
                lines[lines.len().saturating_sub(20)..].join("\n")
            );
        }
    }
}

fn log_file(log: &Path, start: u32) -> PathBuf {
    log.with_extension(format!("{start}.log"))
}

/// `amas-operator run`, on demand with a file in place of /etc/hosts.
pub fn command(hosts: Option<&Path>) -> Command {
    const PROGRAM: &str = env!("CARGO_BIN_EXE_amas-operator");
    let mut command = match hosts {
        None => Command::new(PROGRAM),
        Some(hosts) => {
            let mut command = Command::new("unshare");
            command.args(KNOWING).arg(hosts).arg(PROGRAM);
            command
        }
    };
    command.arg("run");
    command
}

fn spawn(hosts: Option<&Path>, settings: &[(String, String)], log: &Path, start: u32) -> Process {
    let mut command = command(hosts);
    command.envs(settings.iter().map(|(key, value)| (key, value)));
    Process::spawn(&mut command, &log_file(log, start))
}
