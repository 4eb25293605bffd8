//! A real API server with its etcd and nothing else: objects are kept, judged and recorded in an audit log, and no controller acts on them.

use std::{path::Path, process::Command, time::Duration};

use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, TypeMeta},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};

use crate::process::{Folder, Process, eventually, free_port};

/// Who the operator is: the chart's ServiceAccount.
pub const OPERATOR: &str = "system:serviceaccount:amas-system:amas-operator";

/// Like OpenShift: who sets an owner that shall wait for its children needs the right to set its finalizers.
const ADMISSION: &str = "OwnerReferencesPermissionEnforcement";

pub struct Cluster {
    pub admin: Client,
    folder: Folder,
    port: u16,
    _processes: [Process; 2],
}

/// A program of the local cluster.
pub fn tool(name: &str) -> Command {
    let folder = std::env::var_os("AMAS_TOOLS").expect("AMAS_TOOLS names the folder of kube-apiserver, etcd and helm");
    Command::new(Path::new(&folder).join(name))
}

impl Cluster {
    pub async fn start() -> Self {
        let folder = Folder::new("apiserver");
        let [etcd_port, peer_port, port] = [(); 3].map(|()| free_port());
        let at = |port: u16| format!("http://127.0.0.1:{port}");
        let mut etcd = tool("etcd");
        etcd.args(["--log-level", "warn", "--unsafe-no-fsync", "--data-dir"])
            .arg(folder.path().join("etcd"));
        for (option, url) in [("client", at(etcd_port)), ("peer", at(peer_port))] {
            etcd.arg(format!("--listen-{option}-urls={url}"));
        }
        etcd.arg(format!("--advertise-client-urls={}", at(etcd_port)));
        let etcd = Process::spawn(&mut etcd, &folder.path().join("etcd.log"));
        let api = Process::spawn(
            &mut apiserver(&folder, port, &at(etcd_port)),
            &folder.path().join("apiserver.log"),
        );
        let cluster = Self {
            admin: client(port, "admin").await,
            folder,
            port,
            _processes: [etcd, api],
        };
        eventually("the API server is ready", Duration::from_secs(60), async || {
            let ready = axum::http::Request::get("/readyz").body(Vec::new()).unwrap();
            cluster.admin.request_text(ready).await.is_ok()
        })
        .await;
        cluster
    }

    pub async fn operator_client(&self) -> Client {
        client(self.port, "operator").await
    }

    /// The operator as a process that has its own rights and nothing else.
    pub fn operator(&self, name: &str, settings: &[(&str, &str)]) -> Process {
        let config = self
            .folder
            .write("operator.kubeconfig", &kubeconfig(self.port, "operator").to_string());
        let mut command = Command::new(env!("CARGO_BIN_EXE_amas-operator"));
        command
            .arg("run")
            .env("KUBECONFIG", config)
            .env("POD_NAME", name)
            .env("POD_NAMESPACE", "amas-system");
        command
            .env("AMAS_IMAGE", "localhost/amas-operator:dev")
            .env("AMAS_HTTP_PORT", free_port().to_string());
        command.envs(settings.iter().copied());
        Process::spawn(&mut command, &self.folder.path().join(format!("{name}.log")))
    }

    pub fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(format!("{name}.log"))).unwrap_or_default()
    }

    /// What the operator has asked for so far.
    pub fn requests(&self) -> Vec<Request> {
        let log = self.log("audit");
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let own = lines.filter(|entry| entry["user"]["username"] == OPERATOR);
        own.filter_map(|entry| Request::of(&entry)).collect()
    }

    pub fn api(&self, version: &str, kind: &str, namespace: &str) -> Api<DynamicObject> {
        let types = TypeMeta {
            api_version: version.into(),
            kind: kind.into(),
        };
        let resource = ApiResource::from_gvk(&GroupVersionKind::try_from(&types).unwrap());
        match namespace {
            "" => Api::all_with(self.admin.clone(), &resource),
            namespace => Api::namespaced_with(self.admin.clone(), namespace, &resource),
        }
    }

    /// Applies an object as the administrator; its own namespace wins.
    pub async fn apply(&self, namespace: &str, object: Value) {
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or(namespace);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let api = self.api(&text(&object["apiVersion"]), &text(&object["kind"]), namespace);
        let params = PatchParams::apply("admin").force();
        let applied = api
            .patch(&text(&object["metadata"]["name"]), &params, &Patch::Apply(&object))
            .await;
        applied.unwrap_or_else(|error| panic!("{object}: {error}"));
    }
}

fn apiserver(folder: &Folder, port: u16, etcd: &str) -> Command {
    let tokens = format!(
        "admin,admin,1,\"system:masters\"\noperator,{OPERATOR},2,\"system:serviceaccounts,system:serviceaccounts:amas-system\"\n"
    );
    let key = folder.path().join("sa.key");
    let made = Command::new("openssl")
        .args(["genrsa", "-out"])
        .arg(&key)
        .arg("2048")
        .output()
        .unwrap();
    assert!(made.status.success(), "openssl makes a key");
    let policy =
        "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: Metadata}]\n";
    let file = |option: &str, path: &Path| format!("--{option}={}", path.display());
    let mut command = tool("kube-apiserver");
    command
        .arg(format!("--etcd-servers={etcd}"))
        .arg(format!("--secure-port={port}"))
        .arg(file("cert-dir", &folder.path().join("certs")))
        .arg(file("token-auth-file", &folder.write("tokens.csv", &tokens)))
        .arg(file("audit-policy-file", &folder.write("audit.yaml", policy)))
        .arg(file("audit-log-path", &folder.path().join("audit.log")))
        .arg(file("service-account-key-file", &key))
        .arg(file("service-account-signing-key-file", &key))
        .arg(format!("--enable-admission-plugins={ADMISSION}"))
        .args("--bind-address=127.0.0.1 --authorization-mode=RBAC --audit-log-mode=blocking --endpoint-reconciler-type=none".split(' '))
        // Nobody makes ServiceAccounts here, nor their tokens.
        .args("--disable-admission-plugins=ServiceAccount --service-cluster-ip-range=10.96.0.0/16".split(' '))
        .arg("--service-account-issuer=https://kubernetes.default.svc");
    command
}

fn kubeconfig(port: u16, token: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": format!("https://127.0.0.1:{port}"), "insecure-skip-tls-verify": true}}],
        "users": [{"name": "c", "user": {"token": token}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}]})
}

async fn client(port: u16, token: &str) -> Client {
    let config: Kubeconfig = serde_json::from_value(kubeconfig(port, token)).unwrap();
    let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default())
        .await
        .unwrap();
    Client::try_from(config).unwrap()
}

/// One request of the operator, as the API server recorded it.
#[derive(Clone, Debug)]
pub struct Request {
    pub group: String,
    /// With its subresource: `cachepolicies/status`.
    pub resource: String,
    pub verb: String,
    pub namespace: String,
    pub name: String,
    pub uri: String,
    pub refused: bool,
}

impl Request {
    fn of(entry: &Value) -> Option<Self> {
        let object = entry.get("objectRef")?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let subresource = object["subresource"].as_str().map(|name| format!("/{name}"));
        Some(Self {
            group: text(&object["apiGroup"]),
            resource: text(&object["resource"]) + &subresource.unwrap_or_default(),
            verb: text(&entry["verb"]),
            namespace: text(&object["namespace"]),
            name: text(&object["name"]),
            uri: text(&entry["requestURI"]),
            refused: entry["responseStatus"]["code"] == 403,
        })
    }
}
