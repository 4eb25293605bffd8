//! A real Neo4j Community server, from the folder of jars that AMAS_NEO4J_LIB names.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant, SystemTime},
};

use amas_operator::{
    api::{names::GraphName, sensitive::Sensitive},
    stores::{
        claim::Claim,
        endpoint::{Endpoint, StoreError, Tls},
        keeper::{Duty, Progress, Store},
        neo4j::{Neo4j, Neo4jDuty, Neo4jFacts, Neo4jWorker, auth_ini},
        workload::CERTIFICATES,
    },
};

use tokio::sync::Semaphore;

use super::{
    pki::{Authority, Years},
    process::{Folder, Process, eventually, free_port},
    skip,
};

pub const PASSWORD: &str = "correct horse battery";

/// The folder of jars; `None` where there is none; see [`skip`].
pub fn jars() -> Option<OsString> {
    let jars = std::env::var_os("AMAS_NEO4J_LIB");
    if jars.is_none() {
        skip("AMAS_NEO4J_LIB names no folder with the jars of Neo4j");
    }
    jars
}

const OPENS: [&str; 4] = ["java.nio", "java.io", "sun.nio.ch", "java.util.concurrent"];

/// One starts at a time: a JVM takes a small machine for itself until it answers, and several together would keep each other from it.
pub static STARTS: Semaphore = Semaphore::const_new(1);

pub struct Neo4jServer {
    pub process: Process,
    pub port: u16,
    host: String,
    /// What signed the server's certificate, and what a client's must be signed by, if it shows one.
    pub authority: Authority,
    folder: Folder,
}

impl Neo4jServer {
    /// A server that speaks Bolt with and without TLS; `None` where there are no jars; see [`skip`].
    pub async fn start() -> Option<Self> {
        let auth = auth_ini("neo4j", &Sensitive::new(PASSWORD), [7; 32]);
        let _turn = STARTS.acquire().await.unwrap();
        let server = Self::start_at(("127.0.0.1", free_port()), &auth)?;
        server.answers().await;
        Some(server)
    }

    /// The same at this address, with this file of its first login; it does not answer yet.
    pub fn start_at(address: (&str, u16), auth: &str) -> Option<Self> {
        Self::launch_at(address, auth, &BTreeMap::new())
    }

    /// A server with the settings that the operator's environment variables stand for; it does not answer yet.
    pub fn start_set(variables: &BTreeMap<String, String>) -> Option<Self> {
        let auth = auth_ini("neo4j", &Sensitive::new(PASSWORD), [7; 32]);
        Self::launch_at(("127.0.0.1", free_port()), &auth, variables)
    }

    fn launch_at((host, port): (&str, u16), auth: &str, variables: &BTreeMap<String, String>) -> Option<Self> {
        let jars = jars()?;
        let folder = Folder::new("neo4j");
        folder.write("data/dbms/auth.ini", auth);
        let authority = Authority::new();
        let own = authority.issue("graph", "IP:127.0.0.1", Years::NOW);
        folder.write("tls/tls.crt", &own.certificate);
        folder.write("tls/tls.key", &own.key);
        folder.write("tls/trusted/ca.crt", &authority.pem());
        folder.write(
            "conf/neo4j.conf",
            &format!(
                "server.bolt.listen_address={host}:{port}\nserver.bolt.tls_level=OPTIONAL\n\
                 server.http.enabled=false\nserver.https.enabled=false\ndbms.usage_report.enabled=false\n\
                 server.memory.pagecache.size=32m\ndbms.ssl.policy.bolt.enabled=true\n\
                 dbms.ssl.policy.bolt.base_directory={}\ndbms.ssl.policy.bolt.private_key=tls.key\n\
                 dbms.ssl.policy.bolt.public_certificate=tls.crt\ndbms.ssl.policy.bolt.client_auth=OPTIONAL\n",
                folder.path().join("tls").display()
            ),
        );
        let path = folder.path().join("conf/neo4j.conf");
        let mut conf = std::fs::read_to_string(&path).unwrap();
        for (variable, value) in variables {
            conf += &format!("{}={value}\n", setting(variable));
        }
        std::fs::write(path, conf).unwrap();
        let process = launch(&PathBuf::from(jars), &folder);
        Some(Self {
            process,
            port,
            host: host.to_owned(),
            authority,
            folder,
        })
    }

    /// What it wrote until now.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    pub async fn answers(&self) {
        eventually("Neo4j answers", Duration::from_secs(300), || async {
            Neo4j::open(&base(self.endpoint())).await.is_ok()
        })
        .await;
    }

    /// From the next start on with the certificate, and with the settings of a managed server that are about that.
    pub fn encrypt_as(&self, settings: &BTreeMap<String, String>, certificate: &str, key: &str) {
        let own = self.folder.path().join("own");
        self.folder.write("own/tls.crt", certificate);
        self.folder.write("own/tls.key", key);
        let path = self.folder.path().join("conf/neo4j.conf");
        let conf = std::fs::read_to_string(&path).unwrap();
        let about = |line: &str| line.contains("ssl.policy") || line.contains("tls_level") || line.contains("http");
        let mut conf: Vec<String> = conf.lines().filter(|line| !about(line)).map(str::to_owned).collect();
        for (name, value) in settings {
            let name = setting(name);
            let line = format!("{name}={}", value.replace(CERTIFICATES, &own.display().to_string()));
            conf.extend(Some(line).filter(|line| about(line)));
        }
        conf.push("server.https.enabled=false\n".into());
        std::fs::write(path, conf.join("\n")).unwrap();
    }

    /// Other files in the place of the ones that it was first started with; it reads them at its next start.
    pub fn renew(&self, certificate: &str, key: &str) {
        self.folder.write("tls/tls.crt", certificate);
        self.folder.write("tls/tls.key", key);
    }

    /// Killed and started again on the same volume.
    pub async fn restart(&mut self) {
        self.process.kill();
        let jars = std::env::var_os("AMAS_NEO4J_LIB").unwrap();
        let _turn = STARTS.acquire().await.unwrap();
        self.process = launch(&PathBuf::from(jars), &self.folder);
        eventually("Neo4j listens", Duration::from_secs(300), || async {
            tokio::net::TcpStream::connect((self.host.as_str(), self.port))
                .await
                .is_ok()
        })
        .await;
    }

    /// Everything that is readable in the server's folder, its logs and its volume.
    pub fn texts(&self) -> String {
        fn gather(folder: &Path, all: &mut String) {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.path().is_dir() {
                    gather(&entry.path(), all);
                } else {
                    all.push_str(&String::from_utf8_lossy(
                        &std::fs::read(entry.path()).unwrap_or_default(),
                    ));
                }
            }
        }
        let mut all = String::new();
        gather(self.folder.path(), &mut all);
        all
    }

    /// When the transaction log of the database was last written: only what changes something is logged.
    pub fn last_write(&self) -> SystemTime {
        let logs = std::fs::read_dir(self.folder.path().join("data/transactions/neo4j")).unwrap();
        logs.map(|file| file.unwrap().metadata().unwrap().modified().unwrap())
            .max()
            .unwrap()
    }

    pub fn endpoint(&self) -> Endpoint {
        Endpoint {
            host: self.host.clone(),
            port: self.port,
            tls: Tls::Disable,
            user: "neo4j".into(),
            password: Sensitive::new(PASSWORD),
        }
    }
}

/// The duty of an AmasDatabase on this login.
pub fn base(endpoint: Endpoint) -> Neo4jDuty {
    let claim = Claim {
        cluster_id: "c1".into(),
        namespace: "agents".into(),
        name: "amas".into(),
        uid: "u1".into(),
    };
    Neo4jDuty {
        endpoint,
        next: None,
        others: Vec::new(),
        database: GraphName::parse("neo4j").unwrap(),
        claim,
        managed: true,
        attention: Default::default(),
        take_over: None,
    }
}

/// Works as a keeper would, until the duty is in or waits for something; gives how long it would wait. What `passes` is tried again.
pub async fn worked(
    worker: &mut Neo4jWorker,
    duty: &Duty<Neo4j>,
    facts: &mut Neo4jFacts,
    passes: fn(&StoreError) -> bool,
) -> Option<Duration> {
    let deadline = Instant::now() + Duration::from_secs(180);
    loop {
        match Neo4j::work(worker, duty, facts).await {
            Ok(Progress::More { pause }) => tokio::time::sleep(pause).await,
            Ok(Progress::Done { again_in }) => return again_in,
            Err(error) => {
                assert!(passes(&error) && Instant::now() < deadline, "{error}");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

/// As the image's entry point reads its variables.
fn setting(variable: &str) -> String {
    variable
        .trim_start_matches("NEO4J_")
        .replace("__", "\n")
        .replace('_', ".")
        .replace('\n', "_")
}

fn launch(jars: &Path, folder: &Folder) -> Process {
    let mut command = Command::new("java");
    command.args(["-Xms128m", "-Xmx512m", "-XX:+UseSerialGC"]);
    command.args(OPENS.map(|package| format!("--add-opens=java.base/{package}=ALL-UNNAMED")));
    command
        .arg("-cp")
        .arg(jars.join("*"))
        .arg("org.neo4j.server.CommunityEntryPoint");
    command.arg(format!("--home-dir={}", folder.path().display()));
    command
        .arg(format!("--config-dir={}/conf", folder.path().display()))
        .arg("--console-mode");
    Process::spawn(&mut command, &folder.path().join("log"))
}
