//! A Kubernetes API without nodes that has our definitions, its namespaces, and the operator's real program as a child process. Pods are never run
//! there; an `external` store on a real server becomes Ready.
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
    Api, Client,
    api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use super::{
    apiserver::{Server, Who},
    audit::Mark,
    operator::Operator,
    process::eventually,
};

/// How long anything may take unless a test says otherwise; long, for a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// An API server with our definitions.
struct Installed {
    server: Server,
    next: AtomicU32,
}

/// A handle with a client of the calling test's own runtime.
#[derive(Clone)]
pub struct Kubernetes {
    installed: Arc<Installed>,
    pub client: Client,
}

type Shared = tokio::sync::Mutex<Weak<Installed>>;
static PLAIN: Shared = Shared::const_new(Weak::new());
static WITH_CONTROLLERS: Shared = Shared::const_new(Weak::new());

impl Kubernetes {
    /// The API shared by the tests that run at the same time, each in its own namespaces. It stops with the last.
    pub async fn shared() -> Self {
        Self::of(&PLAIN, false).await
    }

    /// Another one with kube-controller-manager: garbage collection, deletion of namespaces, StatefulSets that make Pods.
    pub async fn with_controllers() -> Self {
        Self::of(&WITH_CONTROLLERS, true).await
    }

    async fn of(shared: &Shared, controllers: bool) -> Self {
        let mut shared = shared.lock().await;
        if let Some(installed) = shared.upgrade() {
            let client = installed.server.client(Who::Tests).await;
            return Self { installed, client };
        }
        let server = Server::start(controllers).await;
        let client = server.client(Who::Tests).await;
        let installed = Arc::new(Installed {
            server,
            next: AtomicU32::new(1),
        });
        let api = Self { installed, client };
        api.install_definitions().await;
        *shared = Arc::downgrade(&api.installed);
        api
    }

    /// A new namespace whose name begins with `name`.
    pub async fn namespace(&self, name: &str) -> Namespace {
        let name = format!("{name}-{}", self.installed.next.fetch_add(1, Ordering::Relaxed));
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
        self.kubeconfig_for("direct", &self.installed.server.url())
    }

    /// The same for another way to it, such as a proxy.
    pub fn kubeconfig_for(&self, name: &str, url: &str) -> PathBuf {
        self.installed.server.kubeconfig(name, url, Who::Tests)
    }

    /// What operators ask from now on.
    pub fn audit(&self) -> Mark {
        Mark::now(&self.installed.server.audit_log()).unwrap()
    }

    /// Where processes of tests put their logs.
    pub fn folder(&self) -> &Path {
        self.installed.server.folder.path()
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
        let data = strings(entries);
        self.apply(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}))
            .await;
    }

    pub async fn config_map(&self, name: &str, entries: &[(&str, &str)]) {
        let data = strings(entries);
        self.apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}))
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
        // What depends on it goes too, or, without a garbage collector, is left: never waited for.
        self.kind(kind).delete(name, &DeleteParams::background()).await.unwrap();
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

    /// Deletes the namespace itself, which takes a namespace controller.
    pub async fn drop(&self) {
        let all: Api<CoreNamespace> = Api::all(self.api.client.clone());
        all.delete(&self.name, &DeleteParams::default()).await.unwrap();
    }

    pub async fn exists(&self) -> bool {
        let all: Api<CoreNamespace> = Api::all(self.api.client.clone());
        all.get_opt(&self.name).await.unwrap().is_some()
    }

    /// Objects of one of the kinds that this project deals with.
    pub fn kind(&self, kind: &str) -> Api<DynamicObject> {
        let (group, version) = match kind {
            "AmasDatabase" | "CachePolicy" | "GraphSchema" => ("amas.dev", "v1alpha1"),
            "StatefulSet" => ("apps", "v1"),
            "Job" => ("batch", "v1"),
            "NetworkPolicy" => ("networking.k8s.io", "v1"),
            "PodDisruptionBudget" => ("policy", "v1"),
            "Certificate" | "Issuer" => ("cert-manager.io", "v1"),
            "Lease" => ("coordination.k8s.io", "v1"),
            _ => ("", "v1"),
        };
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        Api::namespaced_with(self.api.client.clone(), &self.name, &resource)
    }

    /// Objects that belong to no namespace.
    pub fn everywhere(&self, group: &str, version: &str, kind: &str) -> Api<DynamicObject> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        Api::all_with(self.api.client.clone(), &resource)
    }
}

/// One condition of an object.
pub fn condition_of<'a>(object: &'a Value, condition: &str) -> Option<&'a Value> {
    let all = object.pointer("/status/conditions")?.as_array()?;
    all.iter().find(|found| found["type"] == condition)
}

fn strings(entries: &[(&str, &str)]) -> Value {
    let all = entries.iter().map(|(key, value)| ((*key).to_owned(), json!(value)));
    Value::Object(all.collect())
}

fn text(object: &Value, pointer: &str) -> String {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}
