//! The API server as the administrator sees it, and what it recorded of an operator that has the chart's rights and nothing else.

use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, TypeMeta},
};
use serde_json::Value;

use crate::support::{
    apiserver::{OPERATOR, Server, Who},
    operator,
    process::{Process, free_port},
};

pub struct Cluster {
    pub admin: Client,
    server: Server,
}

impl Cluster {
    pub async fn start() -> Self {
        Self::of(Server::start(false).await).await
    }

    /// With what deletes the contents of namespaces.
    pub async fn with_controllers() -> Self {
        Self::of(Server::start(true).await).await
    }

    async fn of(server: Server) -> Self {
        let admin = server.client(Who::Tests).await;
        Self { admin, server }
    }

    pub async fn operator_client(&self) -> Client {
        self.server.client(Who::Operator).await
    }

    /// The operator as a process that has its own rights and nothing else, and these lines as /etc/hosts.
    pub fn operator(&self, name: &str, hosts: &str, settings: &[(&str, &str)]) -> Process {
        let hosts = self.server.folder.write("hosts", hosts);
        let config = self.server.kubeconfig("operator", &self.server.url(), Who::Operator);
        let mut command = operator::command(Some(&hosts));
        command
            .env("KUBECONFIG", config)
            .env("POD_NAME", name)
            .env("POD_NAMESPACE", "amas-system");
        command
            .env("AMAS_IMAGE", "localhost/amas-operator:dev")
            .env("AMAS_HTTP_PORT", free_port().to_string());
        command.envs(settings.iter().copied());
        Process::spawn(&mut command, &self.server.folder.path().join(format!("{name}.log")))
    }

    /// What the operator has asked for so far.
    pub fn requests(&self) -> Vec<Request> {
        let log = std::fs::read_to_string(self.server.audit_log()).unwrap_or_default();
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
