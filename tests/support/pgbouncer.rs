//! Debian's PgBouncer in front of a server of a test.

use std::{process::Command, time::Duration};

use super::{
    process::{Folder, Process, eventually, free_port},
    skip,
};

pub struct PgBouncer {
    pub port: u16,
    _process: Process,
    _folder: Folder,
}

impl PgBouncer {
    /// Lets in the given users with their passwords. `mode` is `transaction` or `session`; `ignore` names startup parameters to drop
    /// rather than refuse. `None` where it is not installed; see [`skip`].
    pub async fn start(server: u16, users: &[(&str, &str)], mode: &str, ignore: &str) -> Option<Self> {
        let program = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"]
            .into_iter()
            .find(|path| std::path::Path::new(path).exists());
        let Some(program) = program else {
            skip("there is no pgbouncer");
            return None;
        };
        let (folder, port) = (Folder::new("pgbouncer"), free_port());
        let list: String = users
            .iter()
            .map(|(user, password)| format!("\"{user}\" \"{password}\"\n"))
            .collect();
        let users = folder.write("users", &list);
        let own = folder.write(
            "pgbouncer.ini",
            &format!(
                "[databases]\n* = host=127.0.0.1 port={server}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
                 auth_type = scram-sha-256\nauth_file = {}\npool_mode = {mode}\nignore_startup_parameters = {ignore}\n",
                users.display()
            ),
        );
        // It refuses to run as root, and changes to this account by itself.
        open_to_all(&folder);
        let mut command = Command::new(program);
        command.args(["-u", "postgres"]).arg(own);
        let process = Process::spawn(&mut command, &folder.path().join("log"));
        eventually("PgBouncer answers", Duration::from_secs(20), || async {
            tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok()
        })
        .await;
        Some(Self {
            port,
            _process: process,
            _folder: folder,
        })
    }
}

fn open_to_all(folder: &Folder) {
    let status = Command::new("chmod")
        .args(["-R", "a+rX"])
        .arg(folder.path())
        .status()
        .unwrap();
    assert!(status.success());
}
