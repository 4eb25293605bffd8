//! A Kubernetes API without nodes: etcd and kube-apiserver as processes on loopback ports, our definitions installed, and the operator's
//! real program as a child process. Pods are never run there; an `external` store on a real server becomes Ready.
//!
//! ```ignore
//! let api = Kubernetes::shared().await;
//! let ns = api.namespace("mine").await;
//! let mut operator = ns.operator(&[("AMAS_LOG", "debug")]).await;
//! ns.apply(json!({"apiVersion": "amas.dev/v1alpha1", "kind": "AmasDatabase", "metadata": {"name": "a"}, "spec": {...}})).await;
//! ns.wait_condition("AmasDatabase", "a", "Ready", "True").await;
//! operator.kill();
//! operator.again();
//! ```

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Weak,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use amas_operator::api::crds;
use k8s_openapi::{
    api::core::v1::Namespace as CoreNamespace,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, Config,
    api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};

use super::{
    audit::Mark,
    operator::Operator,
    process::{Folder, Process, eventually, free_port},
};

/// How long anything may take unless a test says otherwise; long, for a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The token of `system:masters`.
const TOKEN: &str = "tests";

/// Metadata of every request, as the local cluster writes it.
const AUDIT_POLICY: &str =
    "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: Metadata}]\n";

/// The processes. They end in the order of the fields.
struct Server {
    controllers: tokio::sync::OnceCell<Process>,
    _api: Process,
    _etcd: Process,
    port: u16,
    next: AtomicU32,
    folder: Folder,
}

/// A handle with a client of the calling test's own runtime.
#[derive(Clone)]
pub struct Kubernetes {
    server: Arc<Server>,
    pub client: Client,
}

static SHARED: tokio::sync::Mutex<Weak<Server>> = tokio::sync::Mutex::const_new(Weak::new());

impl Kubernetes {
    /// The API shared by the tests that run at the same time, each in its own namespaces. It stops with the last.
    pub async fn shared() -> Self {
        let mut shared = SHARED.lock().await;
        if let Some(server) = shared.upgrade() {
            let client = server.client().await;
            return Self { server, client };
        }
        let server = Arc::new(Server::start());
        let client = server.client().await;
        let api = Self { server, client };
        api.await_ready().await;
        api.install_definitions().await;
        *shared = Arc::downgrade(&api.server);
        api
    }

    /// The same with kube-controller-manager: garbage collection, deletion of namespaces, StatefulSets that make Pods.
    pub async fn with_controllers() -> Self {
        let api = Self::shared().await;
        let start = || async { api.server.start_controllers() };
        api.server.controllers.get_or_init(start).await;
        api
    }

    /// A new namespace whose name begins with `name`.
    pub async fn namespace(&self, name: &str) -> Namespace {
        let name = format!("{name}-{}", self.server.next.fetch_add(1, Ordering::Relaxed));
        let object = CoreNamespace {
            metadata: kube::core::ObjectMeta {
                name: Some(name.clone()),
                ..Default::default()
            },
            ..Default::default()
        };
        let namespaces: Api<CoreNamespace> = Api::all(self.client.clone());
        namespaces.create(&PostParams::default(), &object).await.unwrap();
        Namespace {
            name,
            api: self.clone(),
        }
    }

    /// A kubeconfig for this API, with all rights.
    pub fn kubeconfig(&self) -> PathBuf {
        self.kubeconfig_for("direct", &self.server.url())
    }

    /// The same for another way to it, such as a proxy.
    pub fn kubeconfig_for(&self, name: &str, url: &str) -> PathBuf {
        self.server.write_kubeconfig(name, url)
    }

    /// What operators ask from now on.
    pub fn audit(&self) -> Mark {
        Mark::now(&self.server.folder.path().join("audit.log")).unwrap()
    }

    /// Where processes of tests put their logs.
    pub fn folder(&self) -> &Path {
        self.server.folder.path()
    }

    async fn await_ready(&self) {
        let client = &self.client;
        eventually("the API server is ready", PATIENCE, || async {
            let request = axum::http::Request::get("/readyz").body(Vec::new()).unwrap();
            client.request_text(request).await.is_ok()
        })
        .await;
    }

    async fn install_definitions(&self) {
        let definitions: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        for definition in crds::all() {
            definitions.create(&PostParams::default(), &definition).await.unwrap();
        }
        let established = |definition: &CustomResourceDefinition| {
            let conditions = definition.status.as_ref().and_then(|status| status.conditions.as_ref());
            conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Established" && c.status == "True"))
        };
        eventually("the definitions are established", PATIENCE, || async {
            let list = definitions.list(&ListParams::default()).await.unwrap();
            list.items.len() == crds::all().len() && list.items.iter().all(established)
        })
        .await;
    }
}

impl Server {
    fn start() -> Self {
        let folder = Folder::new("kubernetes");
        let (client_port, peer_port, port) = (free_port(), free_port(), free_port());
        let etcd_url = format!("http://127.0.0.1:{client_port}");
        let mut etcd = tool("etcd");
        etcd.args(["--unsafe-no-fsync", "--log-level=warn", "--data-dir"])
            .arg(folder.path().join("etcd"));
        etcd.args(["--listen-client-urls", &etcd_url, "--advertise-client-urls", &etcd_url]);
        let peer_url = format!("http://127.0.0.1:{peer_port}");
        etcd.args([
            "--listen-peer-urls",
            &peer_url,
            "--initial-advertise-peer-urls",
            &peer_url,
        ])
        .args(["--initial-cluster", &format!("default={peer_url}")]);
        let etcd = Process::spawn(&mut etcd, &folder.path().join("etcd.log"));
        let mut api = api_command(&folder, &etcd_url, port);
        let api = Process::spawn(&mut api, &folder.path().join("apiserver.log"));
        Self {
            controllers: tokio::sync::OnceCell::new(),
            _api: api,
            _etcd: etcd,
            port,
            next: AtomicU32::new(1),
            folder,
        }
    }

    fn start_controllers(&self) -> Process {
        let mut command = tool("kube-controller-manager");
        command
            .arg(format!("--kubeconfig={}", self.write_kubeconfig("controllers", &self.url()).display()))
            .args(["--leader-elect=false", "--secure-port=0", "--kube-api-qps=100", "--kube-api-burst=200"])
            .arg("--controllers=garbage-collector-controller,namespace-controller,statefulset-controller,serviceaccount-controller")
            .arg(format!("--cert-dir={}", self.folder.path().join("controllers").display()));
        Process::spawn(&mut command, &self.folder.path().join("controllers.log"))
    }

    fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    fn write_kubeconfig(&self, name: &str, url: &str) -> PathBuf {
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "tests",
            "clusters": [{"name": "tests", "cluster": {"server": url, "insecure-skip-tls-verify": true}}],
            "users": [{"name": "tests", "user": {"token": TOKEN}}],
            "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "tests"}}],
        });
        self.folder.write(&format!("{name}.kubeconfig"), &config.to_string())
    }

    async fn client(&self) -> Client {
        let file = Kubeconfig::read_from(self.write_kubeconfig("direct", &self.url())).unwrap();
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
            .await
            .unwrap();
        Client::try_from(config).unwrap()
    }
}

/// A program of Kubernetes.
fn tool(name: &str) -> Command {
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
    let tokens = folder.write("tokens.csv", &format!("{TOKEN},tests,tests,system:masters\n"));
    let policy = folder.write("audit-policy.yaml", AUDIT_POLICY);
    let files = [
        ("cert-dir", folder.path().join("apiserver")),
        ("token-auth-file", tokens),
        ("service-account-signing-key-file", key.clone()),
        ("service-account-key-file", key),
        ("audit-policy-file", policy),
        ("audit-log-path", folder.path().join("audit.log")),
    ];
    let mut command = tool("kube-apiserver");
    command
        .args(files.map(|(flag, path)| format!("--{flag}={}", path.display())))
        .args([format!("--etcd-servers={etcd}"), format!("--secure-port={port}")])
        .args([
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",
        ])
        .args([
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
        ])
        .args([
            "--service-cluster-ip-range=10.96.0.0/16",
            "--audit-log-mode=blocking",
            "--audit-log-maxsize=10000",
        ]);
    command
}

/// A namespace of one test.
#[derive(Clone)]
pub struct Namespace {
    pub name: String,
    pub api: Kubernetes,
}

impl Namespace {
    /// An operator for this namespace alone, with its lease here too; `settings` are environment variables.
    pub async fn operator(&self, settings: &[(&str, &str)]) -> Operator {
        Operator::start(self, &self.api.kubeconfig(), settings)
    }

    /// Server-side apply, as a user does it; the answer.
    pub async fn apply(&self, object: Value) -> Value {
        self.try_apply(object).await.unwrap()
    }

    pub async fn try_apply(&self, object: Value) -> Result<Value, kube::Error> {
        let (kind, name) = (text(&object, "/kind"), text(&object, "/metadata/name"));
        let params = PatchParams::apply("tests").force();
        let applied = self.kind(&kind).patch(&name, &params, &Patch::Apply(&object)).await?;
        Ok(serde_json::to_value(applied).unwrap())
    }

    /// A Secret of strings.
    pub async fn secret(&self, name: &str, entries: &[(&str, &str)]) {
        let data: serde_json::Map<_, _> = entries
            .iter()
            .map(|(key, value)| (key.to_string(), json!(value)))
            .collect();
        self.apply(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}))
            .await;
    }

    /// Asks something of an AmasDatabase by annotation.
    pub async fn annotate(&self, name: &str, annotation: &str, value: &str) {
        let patch = json!({"metadata": {"annotations": {annotation: value}}});
        let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
        self.kind("AmasDatabase").patch(name, &params, &patch).await.unwrap();
    }

    pub async fn get(&self, kind: &str, name: &str) -> Option<Value> {
        let found = self.kind(kind).get_opt(name).await.unwrap();
        found.map(|object| serde_json::to_value(object).unwrap())
    }

    pub async fn list(&self, kind: &str) -> Vec<Value> {
        let list = self.kind(kind).list(&ListParams::default()).await.unwrap();
        list.items
            .iter()
            .map(|object| serde_json::to_value(object).unwrap())
            .collect()
    }

    pub async fn delete(&self, kind: &str, name: &str) {
        self.kind(kind).delete(name, &DeleteParams::default()).await.unwrap();
    }

    /// Waits until the object of this name is as `wanted` says; the object.
    pub async fn wait(&self, kind: &str, name: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let found = self.get(kind, name).await;
            match found {
                Some(object) if wanted(&object) => return object,
                _ if begun.elapsed() < PATIENCE => tokio::time::sleep(Duration::from_millis(30)).await,
                found => panic!(
                    "{kind} {}/{name}: not {what} within {PATIENCE:?}: {found:#?}",
                    self.name
                ),
            }
        }
    }

    /// Waits until the condition has this status for the object's present generation; the object.
    pub async fn wait_condition(&self, kind: &str, name: &str, condition: &str, status: &str) -> Value {
        let wanted = |object: &Value| {
            object.pointer("/status/observedGeneration") == object.pointer("/metadata/generation")
                && condition_of(object, condition).is_some_and(|found| found["status"] == status)
        };
        self.wait(kind, name, &format!("{condition}={status}"), wanted).await
    }

    pub async fn wait_gone(&self, kind: &str, name: &str) {
        eventually(&format!("{kind} {name} is gone"), PATIENCE, || async {
            self.get(kind, name).await.is_none()
        })
        .await;
    }

    /// Objects of one of the kinds that this project deals with.
    pub fn kind(&self, kind: &str) -> Api<DynamicObject> {
        let (group, version) = match kind {
            "AmasDatabase" | "CachePolicy" | "GraphSchema" => ("amas.dev", "v1alpha1"),
            "StatefulSet" => ("apps", "v1"),
            "Job" => ("batch", "v1"),
            "NetworkPolicy" => ("networking.k8s.io", "v1"),
            "PodDisruptionBudget" => ("policy", "v1"),
            "Lease" => ("coordination.k8s.io", "v1"),
            _ => ("", "v1"),
        };
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        Api::namespaced_with(self.api.client.clone(), &self.name, &resource)
    }
}

/// One condition of an object.
pub fn condition_of<'a>(object: &'a Value, condition: &str) -> Option<&'a Value> {
    let all = object.pointer("/status/conditions")?.as_array()?;
    all.iter().find(|found| found["type"] == condition)
}

fn text(object: &Value, pointer: &str) -> String {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}
