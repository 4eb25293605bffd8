//! A PostgreSQL server that a test may kill, stop and start again; with passwords, and every statement logged.

use std::{
    fs,
    io::Write,
    net::TcpListener,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

const BIN: &str = "/usr/lib/postgresql/15/bin";
/// Not random: a failing test is easier to look into.
const PASSWORD: &str = "superuser-password";

/// Runs until dropped.
pub struct Postmaster {
    host: String,
    pub port: u16,
    /// Of the role `postgres`.
    pub password: String,
    directory: PathBuf,
    process: Option<Child>,
    /// As in production; without, it is quicker.
    fsync: bool,
}

impl Postmaster {
    /// A fresh server that answers.
    pub async fn start() -> Self {
        let mut server = Self::prepare();
        server.launch();
        server.wait_until_ready().await;
        server
    }

    /// Everything but the process.
    pub fn prepare() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self::prepare_at(("127.0.0.1", port), PASSWORD)
    }

    /// The same under another address and with another password.
    pub fn prepare_at((host, port): (&str, u16), password: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("amas-postmaster-{}-{host}-{port}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
        fs::write(directory.join("password"), password).unwrap();
        let server = Self {
            host: host.to_owned(),
            port,
            password: password.to_owned(),
            directory,
            process: None,
            fsync: false,
        };
        let password_file = format!("--pwfile={}", server.directory.join("password").display());
        let initialised = server
            .command("initdb")
            .args(["--no-sync", "--encoding=UTF8", "--locale=C.UTF-8", "-U", "postgres"])
            .args(["--auth=scram-sha-256", &password_file, "-D"])
            .arg(server.data())
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(initialised.success());
        server.append("pg_hba.conf", "host all all 127.0.0.0/8 scram-sha-256\n");
        server
    }

    /// From the next launch on with TLS, under a certificate of its own making.
    pub fn encrypt(&self) {
        let mut openssl = self.command("openssl");
        openssl.args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
        ]);
        openssl.args([
            "-subj",
            "/CN=test",
            "-keyout",
            "data/server.key",
            "-out",
            "data/server.crt",
        ]);
        assert!(openssl.stderr(Stdio::null()).status().unwrap().success());
        let settings = fs::File::options()
            .append(true)
            .open(self.data().join("postgresql.conf"));
        settings.unwrap().write_all(b"\nssl = on\n").unwrap();
    }

    /// From the next launch on with TLS, under the given certificate.
    pub fn encrypt_as(&self, certificate: &str, key: &str) {
        self.own("server.crt", certificate);
        self.own("server.key", key);
        self.append("postgresql.conf", "\nssl = on\n");
    }

    /// Other files in the place of the ones that it runs with.
    pub fn renew(&self, certificate: &str, key: &str) {
        self.own("server.crt", certificate);
        self.own("server.key", key);
    }

    /// From the next launch on clients over TCP must show a certificate of this authority, beside their password.
    pub fn ask_clients_for_certificates(&self, ca: &str) {
        self.own("clients.crt", ca);
        self.append("postgresql.conf", "\nssl_ca_file = 'clients.crt'\n");
        let rule = "hostssl all all 127.0.0.1/32 scram-sha-256 clientcert=verify-ca\n";
        fs::write(self.data().join("pg_hba.conf"), rule).unwrap();
    }

    fn append(&self, name: &str, text: &str) {
        let mut file = fs::File::options().append(true).open(self.data().join(name)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    /// A file that only the server's account may read, as it demands of a key.
    fn own(&self, name: &str, content: &str) {
        let path = self.data().join(name);
        let mut copy = self.command("tee");
        let mut child = copy
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(content.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// A file that the server reads after its own configuration, from its next start or reload on.
    pub fn configure(&self, text: &str) {
        let own = self.data().join("postgresql.conf");
        let include = "include_if_exists = 'amas.conf'\n";
        let before = fs::read_to_string(&own).unwrap();
        if !before.contains(include) {
            fs::write(&own, before + include).unwrap();
        }
        fs::write(self.data().join("amas.conf"), text).unwrap();
    }

    /// What its data says of the version that made it; from the next launch on.
    pub fn made_by(&self, version: &str) {
        self.own("PG_VERSION", &format!("{version}\n"));
    }

    /// From the next launch on what is committed is written to the disk, as in production.
    pub fn wait_for_disks(&mut self) {
        self.fsync = true;
    }

    /// Starts the process and does not wait.
    pub fn launch(&mut self) {
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.directory.join("log"))
            .unwrap();
        let port = self.port.to_string();
        let fsync = format!("fsync={}", if self.fsync { "on" } else { "off" });
        let process = self
            .command("postgres")
            .args([
                "-p",
                &port,
                "-h",
                &self.host,
                "-k",
                "",
                "-c",
                &fsync,
                "-c",
                "log_statement=all",
            ])
            .args(["-c", "log_line_prefix=%a|%u|%m|", "-c", "log_connections=on", "-D"])
            .arg(self.data())
            .stderr(log)
            .spawn()
            .unwrap();
        self.process = Some(process);
    }

    pub async fn wait_until_ready(&self) {
        let begun = Instant::now();
        while !fs::read_to_string(self.data().join("postmaster.pid")).is_ok_and(|text| text.contains("ready")) {
            assert!(begun.elapsed() < Duration::from_secs(120), "no start:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// What the server has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// Sends a signal (`STOP`, `CONT`) to all processes of the server; to the postmaster first, so that there are no new ones.
    pub fn signal_all(&self, signal: &str) {
        let Some(process) = &self.process else { return };
        send(signal, process.id());
        // A signal is on its way when it has been sent: until it is there, a child may still be made.
        while signal == "STOP" && !stopped(process.id()) {
            sleep(Duration::from_millis(1));
        }
        self.children(process.id())
            .into_iter()
            .for_each(|child| send(signal, child));
    }

    /// Kills the postmaster as the kernel would; its children notice and go.
    pub fn kill(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        let children = self.children(process.id());
        send("KILL", process.id());
        process.wait().unwrap();
        // They share memory with a server that could not start again meanwhile.
        while children.iter().any(|pid| Path::new(&format!("/proc/{pid}")).exists()) {
            sleep(Duration::from_millis(1));
        }
        let _ = fs::remove_file(self.data().join("postmaster.pid"));
    }

    /// Stops in order and comes back as a standby that waits for its primary: it can be read, and nothing else.
    pub async fn become_standby(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        send("INT", process.id());
        process.wait().unwrap();
        self.own("standby.signal", "");
        self.launch();
        self.wait_until_ready().await;
    }

    fn children(&self, parent: u32) -> Vec<u32> {
        let of_parent = |pid: &u32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let after_name = stat
                .rsplit_once(") ")
                .map(|(_, rest)| rest.to_owned())
                .unwrap_or_default();
            after_name.split(' ').nth(1) == Some(&parent.to_string())
        };
        let names = fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        names.filter(of_parent).collect()
    }

    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// PostgreSQL refuses to run as root.
    fn command(&self, program: &str) -> Command {
        let own = Path::new(BIN).join(program);
        let mut command = if own.exists() {
            Command::new(own)
        } else {
            Command::new(program)
        };
        let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let root = fs::metadata("/proc/self")
            .map(|own| std::os::unix::fs::MetadataExt::uid(&own))
            .is_ok_and(|uid| uid == 0);
        if let Some(account) = accounts
            .lines()
            .find(|line| line.starts_with("postgres:"))
            .filter(|_| root)
        {
            let ids: Vec<u32> = account.split(':').filter_map(|field| field.parse().ok()).collect();
            command.uid(ids[0]).gid(ids[1]);
        }
        command
            .current_dir(&self.directory)
            .env_clear()
            .env("PATH", "/usr/bin:/bin");
        command
    }
}

fn stopped(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_none_or(|(_, after_name)| after_name.starts_with('T'))
}

fn send(signal: &str, pid: u32) {
    let _ = Command::new("kill")
        .args([&format!("-{signal}"), &pid.to_string()])
        .stderr(Stdio::null())
        .status();
}

impl Drop for Postmaster {
    fn drop(&mut self) {
        self.signal_all("CONT");
        if let Some(mut process) = self.process.take() {
            send("QUIT", process.id());
            let _ = process.wait();
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}
