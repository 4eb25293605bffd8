//! A server as a child process with a folder of its own, gone when the test is.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

/// A temporary folder.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let unique = format!(
            "amas-{name}-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(unique);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file that others may be reading at this moment: they find the old one or the new one, whole.
    pub fn replace(&self, name: &str, content: &str) -> PathBuf {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let beside = self.write(&format!("{name}.{}", NEXT.fetch_add(1, Ordering::Relaxed)), content);
        let path = self.0.join(name);
        std::fs::rename(beside, &path).unwrap();
        path
    }

    /// Writes a file and gives its path.
    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A running server.
pub struct Process(Child);

impl Process {
    pub fn spawn(command: &mut Command, log: &Path) -> Self {
        let log = std::fs::File::create(log).unwrap();
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        Self(command.spawn().unwrap())
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    /// Waits for its end.
    pub fn wait(&mut self) {
        let _ = self.0.wait();
    }

    /// Whether it has not ended.
    pub fn runs(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    /// Any other signal, e.g. `STOP`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.0.id().to_string())
            .status()
            .unwrap();
        assert!(status.success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that nobody listens on. Until it is listened on nobody else is given it: it is below those that connections get, and processes begin in
/// different places.
pub fn free_port() -> u16 {
    const FIRST: u32 = 12_000;
    const COUNT: u32 = 18_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let place = |number| std::process::id().wrapping_mul(613).wrapping_add(number) % COUNT;
    let mut ports = (0..COUNT).map(|_| FIRST + place(NEXT.fetch_add(1, Ordering::Relaxed)));
    let is_free = |port: u32| {
        let port = u16::try_from(port).unwrap();
        TcpListener::bind(("127.0.0.1", port)).is_ok().then_some(port)
    };
    ports.find_map(is_free).expect("a free port")
}

/// Asks until the answer is yes.
pub async fn eventually<F: Future<Output = bool>>(what: &str, limit: Duration, mut ask: impl FnMut() -> F) {
    let started = Instant::now();
    while !ask().await {
        assert!(started.elapsed() < limit, "{what}: not within {limit:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A certificate nobody signed, and its key.
pub fn self_signed(folder: &Folder) -> (PathBuf, PathBuf) {
    let (certificate, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
    let mut openssl = Command::new("openssl");
    openssl.args("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=unverified -keyout".split(' '));
    let output = openssl.arg(&key).arg("-out").arg(&certificate).output().unwrap();
    assert!(output.status.success(), "openssl makes a certificate");
    (certificate, key)
}

/// How many connections there are to a port of this machine.
pub fn connections(port: u16) -> usize {
    const ESTABLISHED: &str = "01";
    let of = |table: &str| std::fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default();
    let there = |line: &str| {
        let mut fields = line.split_whitespace().skip(2);
        let to = fields
            .next()
            .is_some_and(|remote| remote.ends_with(&format!(":{port:04X}")));
        to && fields.next() == Some(ESTABLISHED)
    };
    ["tcp", "tcp6"]
        .map(of)
        .iter()
        .flat_map(|table| table.lines())
        .filter(|line| there(line))
        .count()
}
