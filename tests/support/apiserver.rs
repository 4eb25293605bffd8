//! etcd and kube-apiserver as processes on loopback ports, on demand with kube-controller-manager. Objects are kept, judged and recorded in an audit
//! log; pods are never run.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};

use super::process::{Folder, Process, eventually, free_port};

/// Who the operator is when it has the chart's rights and nothing else: the chart's ServiceAccount.
pub const OPERATOR: &str = "system:serviceaccount:amas-system:amas-operator";

/// Metadata of every request, as the local cluster writes it.
const AUDIT_POLICY: &str =
    "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: Metadata}]\n";

/// Like OpenShift: who sets an owner that shall wait for its children needs the right to set its finalizers.
const ADMISSION: &str = "OwnerReferencesPermissionEnforcement";

/// What runs beside the API server: what acts on objects without a node.
const CONTROLLERS: &str = "garbage-collector-controller,namespace-controller,statefulset-controller,serviceaccount-controller,\
                           persistentvolumeclaim-protection-controller";

/// Whose requests these are; also the token.
#[derive(Clone, Copy, Debug)]
pub enum Who {
    /// May do everything.
    Tests,
    /// [`OPERATOR`].
    Operator,
}

impl Who {
    fn token(self) -> &'static str {
        match self {
            Self::Tests => "tests",
            Self::Operator => "operator",
        }
    }
}

/// The processes. They end in the order of the fields.
pub struct Server {
    _controllers: Option<Process>,
    _api: Process,
    _etcd: Process,
    port: u16,
    pub folder: Folder,
}

impl Server {
    /// Started and ready; with controllers, these have begun.
    pub async fn start(controllers: bool) -> Self {
        let folder = Folder::new("kubernetes");
        let (client_port, peer_port, port) = (free_port(), free_port(), free_port());
        let [client_url, peer_url] = [client_port, peer_port].map(|port| format!("http://127.0.0.1:{port}"));
        let mut etcd = tool("etcd");
        etcd.args(["--unsafe-no-fsync", "--log-level=warn", "--data-dir"])
            .arg(folder.path().join("etcd"))
            .args([
                "--listen-client-urls",
                &client_url,
                "--advertise-client-urls",
                &client_url,
            ])
            .args([
                "--listen-peer-urls",
                &peer_url,
                "--initial-advertise-peer-urls",
                &peer_url,
            ])
            .args(["--initial-cluster", &format!("default={peer_url}")]);
        let etcd = Process::spawn(&mut etcd, &folder.path().join("etcd.log"));
        let api = Process::spawn(
            &mut api_command(&folder, &client_url, port),
            &folder.path().join("apiserver.log"),
        );
        let mut server = Self {
            _controllers: None,
            _api: api,
            _etcd: etcd,
            port,
            folder,
        };
        let client = server.client(Who::Tests).await;
        eventually("the API server is ready", Duration::from_secs(240), || async {
            let request = axum::http::Request::get("/readyz").body(Vec::new()).unwrap();
            client.request_text(request).await.is_ok()
        })
        .await;
        server._controllers = controllers.then(|| server.start_controllers());
        server
    }

    fn start_controllers(&self) -> Process {
        let config = self.kubeconfig("controllers", &self.url(), Who::Tests);
        let mut command = tool("kube-controller-manager");
        command
            .arg(format!("--kubeconfig={}", config.display()))
            .args([
                "--leader-elect=false",
                "--secure-port=0",
                "--kube-api-qps=100",
                "--kube-api-burst=200",
            ])
            .arg(format!("--controllers={CONTROLLERS}"))
            .arg(format!(
                "--cert-dir={}",
                self.folder.path().join("controllers").display()
            ));
        Process::spawn(&mut command, &self.folder.path().join("controllers.log"))
    }

    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    pub fn audit_log(&self) -> PathBuf {
        self.folder.path().join("audit.log")
    }

    /// A file that leads to this URL.
    pub fn kubeconfig(&self, name: &str, url: &str, who: Who) -> PathBuf {
        let config = kubeconfig(url, who);
        self.folder.replace(&format!("{name}.kubeconfig"), &config.to_string())
    }

    pub async fn client(&self, who: Who) -> Client {
        let config: Kubeconfig = serde_json::from_value(kubeconfig(&self.url(), who)).unwrap();
        let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default())
            .await
            .unwrap();
        Client::try_from(config).unwrap()
    }
}

fn kubeconfig(url: &str, who: Who) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": url, "insecure-skip-tls-verify": true}}],
        "users": [{"name": "c", "user": {"token": who.token()}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
    })
}

/// A program of Kubernetes.
pub fn tool(name: &str) -> Command {
    let folder = std::env::var_os("AMAS_TOOLS").expect("AMAS_TOOLS: the folder that dev/tools/build prints");
    Command::new(Path::new(&folder).join(name))
}

fn api_command(folder: &Folder, etcd: &str, port: u16) -> Command {
    let key = folder.path().join("serviceaccounts.key");
    let output = Command::new("openssl")
        .args(["genrsa", "-out"])
        .arg(&key)
        .arg("2048")
        .output()
        .unwrap();
    assert!(output.status.success(), "openssl makes a key");
    let tokens = format!(
        "{},tests,tests,system:masters\n{},{OPERATOR},operator,\"system:serviceaccounts,system:serviceaccounts:amas-system\"\n",
        Who::Tests.token(),
        Who::Operator.token()
    );
    let files = [
        ("cert-dir", folder.path().join("apiserver")),
        ("token-auth-file", folder.write("tokens.csv", &tokens)),
        ("service-account-signing-key-file", key.clone()),
        ("service-account-key-file", key),
        ("audit-policy-file", folder.write("audit-policy.yaml", AUDIT_POLICY)),
        ("audit-log-path", folder.path().join("audit.log")),
    ];
    let mut command = tool("kube-apiserver");
    command
        .args(files.map(|(flag, path)| format!("--{flag}={}", path.display())))
        .args([format!("--etcd-servers={etcd}"), format!("--secure-port={port}")])
        .arg(format!("--enable-admission-plugins={ADMISSION}"))
        // Nobody makes tokens of ServiceAccounts here.
        .args("--disable-admission-plugins=ServiceAccount --authorization-mode=RBAC".split(' '))
        .args("--bind-address=127.0.0.1 --advertise-address=127.0.0.1 --endpoint-reconciler-type=none".split(' '))
        .args(
            "--service-cluster-ip-range=10.96.0.0/16 --service-account-issuer=https://kubernetes.default.svc"
                .split(' '),
        )
        .args("--audit-log-mode=blocking --audit-log-maxsize=10000".split(' '));
    command
}
