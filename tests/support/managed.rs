//! The servers of managed stores without nodes: what the kubelet would run, as processes on an address of their own, from the Secrets and
//! ConfigMaps that the operator writes. Its operator finds them under the names of their Services.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::{
    kubernetes::Namespace,
    neo4j::{Neo4jServer, STARTS},
    operator::Operator,
    postmaster::Postmaster,
    process::eventually,
    redis::RedisServer,
};

/// A node for one AmasDatabase.
pub struct Node {
    pub ns: Namespace,
    /// On which all its servers listen, each on its own port.
    pub address: String,
    database: String,
    pub postgres: Option<Postmaster>,
    pub redis: Option<RedisServer>,
    pub neo4j: Option<Neo4jServer>,
}

impl Node {
    pub fn new(ns: &Namespace, database: &str) -> Self {
        Self {
            ns: ns.clone(),
            address: own_address(),
            database: database.to_owned(),
            postgres: None,
            redis: None,
            neo4j: None,
        }
    }

    /// An operator for the namespace of this node.
    pub fn operator(&self, settings: &[(&str, &str)]) -> Operator {
        Operator::start_knowing(Some(self.hosts()), &self.ns, &self.ns.api.kubeconfig(), settings)
    }

    /// A file for /etc/hosts that has the names of the Services.
    pub fn hosts(&self) -> PathBuf {
        let line = |store: &str| format!("{} {}-{store}.{}.svc\n", self.address, self.database, self.ns.name);
        let hosts = format!(
            "127.0.0.1 localhost\n{}",
            ["postgres", "redis", "neo4j"].map(line).concat()
        );
        let folder = self.ns.api.folder();
        let file = folder.join(format!("hosts-{}", self.ns.name));
        std::fs::write(&file, hosts).unwrap();
        file
    }

    /// Runs the pods that the operator asks for.
    pub async fn run(&mut self, stores: &[&str]) {
        for store in stores {
            let set = format!("{}-{store}", self.database);
            let made = self.ns.wait("StatefulSet", &set, "there", |_| true).await;
            match *store {
                "postgres" => self.run_postgres().await,
                "redis" => self.run_redis().await,
                "neo4j" => self.run_neo4j().await,
                other => panic!("{other} is no store"),
            }
            // As the StatefulSet controller says when the pod is made from the template.
            let status = json!({"status": {"observedGeneration": made["metadata"]["generation"], "replicas": 1,
                "currentRevision": "1", "updateRevision": "1"}});
            let sets = self.ns.kind("StatefulSet");
            sets.patch_status(&set, &PatchParams::default(), &Patch::Merge(status))
                .await
                .unwrap();
        }
    }

    async fn run_postgres(&mut self) {
        let password = self.entry("postgres-admin", "PGPASSWORD").await;
        let mut server = Postmaster::prepare_at((&self.address, 5432), &password);
        // What its command line says about addresses goes before the file, and the server would ask for a restart for ever.
        let config = self.file("postgres-config", "postgresql.conf").await;
        let config = config
            .replace(
                "listen_addresses = '*'",
                &format!("listen_addresses = '{}'", self.address),
            )
            .replace(
                "unix_socket_directories = '/var/run/postgresql'",
                "unix_socket_directories = ''",
            );
        server.configure(&config);
        server.launch();
        server.wait_until_ready().await;
        self.postgres = Some(server);
    }

    async fn run_redis(&mut self) {
        let config = self.file("redis-config", "redis.conf").await;
        let acl = self.entry("redis-connection", "users.acl").await;
        // One that runs has the address.
        self.redis = None;
        self.redis = Some(RedisServer::start_at((&self.address, 6379), &config, &acl).await);
    }

    async fn run_neo4j(&mut self) {
        let auth = self.entry("neo4j-connection", "auth.ini").await;
        let _turn = STARTS.acquire().await.unwrap();
        self.neo4j = Neo4jServer::start_at((&self.address, 7687), &auth);
        let address = (self.address.clone(), 7687);
        eventually("Neo4j listens", Duration::from_secs(120), || async {
            tokio::net::TcpStream::connect((address.0.as_str(), address.1))
                .await
                .is_ok()
        })
        .await;
    }

    async fn entry(&self, secret: &str, key: &str) -> String {
        self.secret(secret).await[key].clone()
    }

    /// What is in the Secret `<database>-<suffix>` now.
    pub async fn secret(&self, suffix: &str) -> BTreeMap<String, String> {
        let name = format!("{}-{suffix}", self.database);
        let secret = self.ns.wait("Secret", &name, "there", |_| true).await;
        entries(&secret)
    }

    async fn file(&self, suffix: &str, file: &str) -> String {
        let name = format!("{}-{suffix}", self.database);
        let map = self.ns.wait("ConfigMap", &name, "there", |_| true).await;
        map["data"][file].as_str().unwrap().to_owned()
    }
}

/// An address that nobody else listens on.
pub fn own_address() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let (process, number) = (std::process::id() % 16_000, NEXT.fetch_add(1, Ordering::Relaxed));
    format!("127.{}.{}.{number}", 64 + process / 250, 1 + process % 250)
}

/// The entries of a Secret that are text.
pub fn entries(secret: &Value) -> BTreeMap<String, String> {
    let decode = |(key, value): (&String, &Value)| {
        let bytes = BASE64_STANDARD.decode(value.as_str().unwrap()).unwrap();
        Some((key.clone(), String::from_utf8(bytes).ok()?))
    };
    secret["data"].as_object().unwrap().iter().filter_map(decode).collect()
}
