//! A real redis-server or valkey-server.

use std::{process::Command, time::Duration};

use amas_operator::{
    api::sensitive::Sensitive,
    stores::{
        endpoint::{Endpoint, Tls},
        redis::acl_file,
    },
};

use super::process::{Folder, Process, eventually, free_port, self_signed};

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
    pub port: u16,
    /// Present when the server was started with TLS.
    pub tls_port: Option<u16>,
    _folder: Folder,
}

impl RedisServer {
    /// A server whose user `default` has [`PASSWORD`]; `users` are further lines of its ACL file.
    pub async fn start(program: Program, users: &str) -> Self {
        Self::launch(program, users, false).await
    }

    /// The same with a second port that speaks TLS with a certificate nobody signed.
    pub async fn start_with_tls(program: Program) -> Self {
        Self::launch(program, "", true).await
    }

    async fn launch(program: Program, users: &str, tls: bool) -> Self {
        let folder = Folder::new("redis");
        let acl = folder.write("users.acl", &format!("{}{users}", acl_file([&Sensitive::new(PASSWORD)])));
        let port = free_port();
        let mut command = program.command();
        command
            .args([
                "--port",
                &port.to_string(),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--dir",
            ])
            .arg(folder.path());
        command.arg("--aclfile").arg(acl);
        let tls_port = tls.then(free_port);
        if let Some(tls_port) = tls_port {
            let (certificate, key) = self_signed(&folder);
            command.args(["--tls-port", &tls_port.to_string(), "--tls-auth-clients", "no"]);
            command
                .arg("--tls-cert-file")
                .arg(&certificate)
                .arg("--tls-key-file")
                .arg(key);
            command.arg("--tls-ca-cert-file").arg(certificate);
        }
        let process = Process::spawn(&mut command, &folder.path().join("log"));
        let server = Self {
            process,
            port,
            tls_port,
            _folder: folder,
        };
        eventually("the server answers", Duration::from_secs(20), || async {
            tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok()
        })
        .await;
        server
    }

    pub fn endpoint(&self) -> Endpoint {
        Endpoint {
            host: "127.0.0.1".into(),
            port: self.port,
            tls: Tls::Disable,
            user: "default".into(),
            password: Sensitive::new(PASSWORD),
        }
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
