//! A real redis-server or valkey-server.

use std::{process::Command, time::Duration};

use amas_operator::{
    api::sensitive::Sensitive,
    stores::{
        endpoint::{Endpoint, Tls},
        redis::acl_file,
    },
};

use super::{
    pki::{Authority, Issued},
    process::{Folder, Process, eventually, free_port, self_signed},
};

pub const PASSWORD: &str = "correct horse";

/// The program that serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    Redis,
    Valkey,
}

impl Program {
    /// Debian 12 has no Valkey, so its path may come from `dev/images/valkey-server`.
    fn command(self) -> Command {
        match self {
            Self::Redis => Command::new("redis-server"),
            Self::Valkey => Command::new(std::env::var_os("AMAS_VALKEY").unwrap_or_else(|| "valkey-server".into())),
        }
    }
}

pub struct RedisServer {
    pub process: Process,
    command: Command,
    pub port: u16,
    host: String,
    /// Present when the server was started with TLS.
    pub tls_port: Option<u16>,
    folder: Folder,
    certificates: Option<Folder>,
}

impl RedisServer {
    /// A server whose user `default` has [`PASSWORD`]; `users` are further lines of its ACL file.
    pub async fn start(program: Program, users: &str) -> Self {
        Self::launch(program, users, &[], None).await
    }

    /// The same with further options.
    pub async fn start_with(program: Program, options: &[&str]) -> Self {
        Self::launch(program, "", options, None).await
    }

    /// The same with a second port that speaks TLS with a certificate nobody signed.
    pub async fn start_with_tls(program: Program) -> Self {
        let folder = Folder::new("redis-tls");
        let (certificate, key) = self_signed(&folder);
        let options = [
            "--tls-auth-clients no --tls-ca-cert-file",
            &path(&certificate),
            "--tls-cert-file",
            &path(&certificate),
            "--tls-key-file",
            &path(&key),
        ];
        Self::launch(program, "", &[], Some(options.join(" ")))
            .await
            .keeping(folder)
    }

    /// The same with a certificate, and asking clients for theirs.
    pub async fn start_verified(program: Program, clients: &Authority, own: &Issued) -> Self {
        let folder = Folder::new("redis-tls");
        let file = |name: &str, text: &str| path(&folder.write(name, text));
        let options = format!(
            "--tls-auth-clients yes --tls-ca-cert-file {} --tls-cert-file {} --tls-key-file {}",
            file("ca.crt", &clients.pem()),
            file("tls.crt", &own.certificate),
            file("tls.key", &own.key)
        );
        Self::launch(program, "", &[], Some(options)).await.keeping(folder)
    }

    /// Other files in the place of the ones that it runs with.
    pub fn renew(&self, certificate: &str, key: &str) {
        let folder = self.certificates.as_ref().unwrap();
        folder.write("tls.crt", certificate);
        folder.write("tls.key", key);
    }

    fn keeping(mut self, certificates: Folder) -> Self {
        self.certificates = Some(certificates);
        self
    }

    async fn launch(program: Program, users: &str, further: &[&str], tls: Option<String>) -> Self {
        let folder = Folder::new("redis");
        let acl = format!("{}{users}", acl_file([&Sensitive::new(PASSWORD)]));
        let acl = folder.write("users.acl", &acl);
        let address = ("127.0.0.1", free_port());
        let mut command = program.command();
        command.args([
            "--port",
            &address.1.to_string(),
            "--bind",
            address.0,
            "--save",
            "",
            "--dir",
        ]);
        command.arg(folder.path()).arg("--aclfile").arg(acl).args(further);
        let tls_port = tls.as_ref().map(|_| free_port());
        if let (Some(options), Some(tls_port)) = (tls, tls_port) {
            command
                .args(["--tls-port", &tls_port.to_string()])
                .args(options.split(' '));
        }
        Self::run(command, folder, address, tls_port).await
    }

    /// A server as the operator's files for its pod describe it, at this address.
    pub async fn start_at(address: (&str, u16), config: &str, acl: &str) -> Self {
        let folder = Folder::new("redis");
        folder.write("users.acl", acl);
        // Its folders are this one.
        let own = path(folder.path());
        let config = config.replace("/run/amas", &own).replace("/data", &own);
        let mut command = Program::Redis.command();
        command
            .arg(folder.write("redis.conf", &config))
            .args(["--bind", address.0]);
        Self::run(command, folder, address, None).await
    }

    /// A server that reads this file of a managed one, on a port of its own.
    pub async fn start_from(program: Program, config: &str) -> Self {
        let folder = Folder::new("redis");
        folder.write("users.acl", &acl_file([&Sensitive::new(PASSWORD)]));
        let own = path(folder.path());
        let address = ("127.0.0.1", free_port());
        let config = config.replace("/run/amas", &own).replace("/data", &own).replacen(
            "port 6379",
            &format!("port {}", address.1),
            1,
        );
        let mut command = program.command();
        command
            .arg(folder.write("redis.conf", &config))
            .args(["--bind", address.0]);
        Self::run(command, folder, address, None).await
    }

    async fn run(mut command: Command, folder: Folder, address: (&str, u16), tls_port: Option<u16>) -> Self {
        let process = Process::spawn(&mut command, &folder.path().join("log"));
        let server = Self {
            process,
            command,
            host: address.0.to_owned(),
            port: address.1,
            tls_port,
            folder,
            certificates: None,
        };
        server.answers().await;
        server
    }

    async fn answers(&self) {
        eventually("the server answers", Duration::from_secs(20), || async {
            tokio::net::TcpStream::connect((self.host.as_str(), self.port))
                .await
                .is_ok()
        })
        .await;
    }

    /// Starts it again after its end.
    pub async fn again(&mut self) {
        self.process = Process::spawn(&mut self.command, &self.folder.path().join("log"));
        self.answers().await;
    }

    pub fn endpoint(&self) -> Endpoint {
        Endpoint {
            host: self.host.clone(),
            port: self.port,
            tls: Tls::Disable,
            user: "default".into(),
            password: Sensitive::new(PASSWORD),
        }
    }

    /// What it wrote until now.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// What this field of a section of INFO says; empty where it is not there.
    pub fn info(&self, section: &str, field: &str) -> String {
        let text: String = redis::cmd("INFO").arg(section).query(&mut self.client()).unwrap();
        let mut fields = text.lines().filter_map(|line| line.split_once(':'));
        let found = fields.find(|(name, _)| *name == field);
        found.map_or_else(String::new, |(_, value)| value.trim().to_owned())
    }

    /// A blocking client of its own, as an application would be.
    pub fn client(&self) -> redis::Connection {
        let settings = redis::RedisConnectionInfo::default().set_password(PASSWORD);
        let address = redis::ConnectionAddr::Tcp("127.0.0.1".into(), self.port);
        let info = redis::IntoConnectionInfo::into_connection_info(address)
            .unwrap()
            .set_redis_settings(settings);
        redis::Client::open(info).unwrap().get_connection().unwrap()
    }
}

fn path(path: &std::path::Path) -> String {
    path.display().to_string()
}
