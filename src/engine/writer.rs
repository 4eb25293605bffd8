//! The one place that writes to the Kubernetes API: creates, updates, deletes, status, Events. Each write has a deadline that ends before
//! our leader lease could, is counted, and returns an error that says what was attempted.

mod body;
mod error;

use std::{
    future::Future,
    time::{Duration, Instant},
};

use kube::{
    Api, Client,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

pub use self::error::WriteError;
use self::{
    body::{dynamic, merge_map, own, to_value},
    error::{api_error, is_already_exists, is_not_found},
};
use super::{
    DATABASE_LABEL, MANAGER, Own,
    child::ChildKind,
    lease::{Leading, in_time, write_deadline},
    metrics::{Metrics, Write},
};

/// What a create found.
#[derive(Debug)]
pub enum Created {
    /// The object was made by this request.
    New(Value),
    /// An object of that name was there, and it carries our label for this database.
    Ours(Value),
    /// An object of that name was there, and it is somebody else's.
    Foreign,
}

/// Writes with the rights and the lease of this process.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    leading: Leading,
    metrics: Metrics,
}

impl Writer {
    pub fn new(client: Client, leading: Leading, metrics: Metrics) -> Self {
        Self {
            client,
            leading,
            metrics,
        }
    }

    /// Whether this process leads, and long enough still for a write.
    pub fn may_write(&self) -> bool {
        write_deadline(&self.leading).is_some()
    }

    fn api(&self, kind: ChildKind, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, &kind.api_resource())
    }

    /// Makes an object. When the name is taken, one read tells whose it is; nothing is ever applied over.
    pub async fn create(
        &self,
        kind: ChildKind,
        namespace: &str,
        database: &str,
        object: &Value,
    ) -> Result<Created, WriteError> {
        let what = describe(kind, namespace, object["metadata"]["name"].as_str().unwrap_or_default());
        let body = dynamic(kind, object).map_err(|source| api_error("create", &what, source))?;
        let params = PostParams {
            field_manager: Some(MANAGER.into()),
            ..PostParams::default()
        };
        let api = self.api(kind, namespace);
        match self.write("create", kind, &what, api.create(&params, &body)).await {
            Ok(made) => Ok(Created::New(to_value(&made))),
            Err(WriteError::Api { source, .. }) if is_already_exists(&source) => {
                let name = object["metadata"]["name"].as_str().unwrap_or_default();
                let Some(found) = self.read(kind, namespace, name).await? else {
                    return Err(WriteError::Api {
                        verb: "create",
                        what,
                        source,
                    });
                };
                let ours = found["metadata"]["labels"][DATABASE_LABEL] == *database;
                Ok(if ours { Created::Ours(found) } else { Created::Foreign })
            }
            Err(error) => Err(error),
        }
    }

    /// Brings the fields that are ours to what is wanted and leaves the rest: one read, one compare-and-swap.
    pub async fn update(&self, kind: ChildKind, namespace: &str, object: &Value) -> Result<Value, WriteError> {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let what = describe(kind, namespace, name);
        let api = self.api(kind, namespace);
        let live = in_patience(what, api.get(name)).await?;
        self.replace(kind, namespace, to_value(&live), object).await
    }

    /// The same from an object that was read: fails if it was changed since.
    pub async fn replace(
        &self,
        kind: ChildKind,
        namespace: &str,
        mut live: Value,
        object: &Value,
    ) -> Result<Value, WriteError> {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let what = describe(kind, namespace, name);
        let api = self.api(kind, namespace);
        kind.overlay(&mut live, object);
        merge_map(&mut live["metadata"]["labels"], &object["metadata"]["labels"]);
        merge_map(&mut live["metadata"]["annotations"], &object["metadata"]["annotations"]);
        own(&mut live["metadata"], &object["metadata"]);
        let body = dynamic(kind, &live).map_err(|source| api_error("update", &what, source))?;
        let params = PostParams {
            field_manager: Some(MANAGER.into()),
            ..PostParams::default()
        };
        let updated = self
            .write("update", kind, &what, api.replace(name, &params, &body))
            .await?;
        Ok(to_value(&updated))
    }

    /// Merges these fields into an object; one that is gone is fine.
    pub async fn patch(
        &self,
        kind: ChildKind,
        namespace: &str,
        name: &str,
        patch: Value,
    ) -> Result<Option<Value>, WriteError> {
        let what = describe(kind, namespace, name);
        let patch = Patch::Merge(patch);
        let params = PatchParams {
            field_manager: Some(MANAGER.into()),
            ..PatchParams::default()
        };
        let api = self.api(kind, namespace);
        match self.write("patch", kind, &what, api.patch(name, &params, &patch)).await {
            Err(WriteError::Api { source, .. }) if is_not_found(&source) => Ok(None),
            other => other.map(|patched| Some(to_value(&patched))),
        }
    }

    /// Reads one object by name.
    pub async fn read(&self, kind: ChildKind, namespace: &str, name: &str) -> Result<Option<Value>, WriteError> {
        let found = in_patience(describe(kind, namespace, name), self.api(kind, namespace).get_opt(name)).await?;
        Ok(found.as_ref().map(to_value))
    }

    /// The same of a kind that is none of ours; without a namespace it belongs to none.
    pub async fn read_any(
        &self,
        resource: &ApiResource,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Option<Value>, WriteError> {
        let api: Api<DynamicObject> = match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, resource),
            None => Api::all_with(self.client.clone(), resource),
        };
        let what = format!("{} {}/{name}", resource.kind, namespace.unwrap_or_default());
        let found = in_patience(what, api.get_opt(name)).await?;
        Ok(found.as_ref().map(to_value))
    }

    /// Whether the API has this group and version, such as `cert-manager.io/v1`.
    pub async fn serves(&self, version: &str) -> Result<bool, WriteError> {
        match in_patience(version.to_owned(), self.client.list_api_group_resources(version)).await {
            Ok(_) => Ok(true),
            // An unknown group is no Status of the API, only its number.
            Err(error) if error.code() == Some(404) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Deletes one object with what depends on it; one that is gone already is fine.
    pub async fn delete(&self, kind: ChildKind, namespace: &str, name: &str) -> Result<(), WriteError> {
        let what = describe(kind, namespace, name);
        let api = self.api(kind, namespace);
        match self
            .write("delete", kind, &what, api.delete(name, &DeleteParams::background()))
            .await
        {
            Err(WriteError::Api { source, .. }) if is_not_found(&source) => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Writes the whole status of one of our resources.
    pub async fn status<K: Own>(&self, object: &K, status: &impl serde::Serialize) -> Result<(), WriteError> {
        let meta = object.meta();
        let (name, namespace) = (
            meta.name.clone().unwrap_or_default(),
            meta.namespace.clone().unwrap_or_default(),
        );
        let patch = Patch::Apply(json!({
            "apiVersion": K::api_version(&()), "kind": K::KIND,
            // The uid makes the write fail on a namesake made in the meantime.
            "metadata": {"name": name, "uid": meta.uid}, "status": status,
        }));
        let what = format!("status of {} {namespace}/{name}", K::KIND);
        let api: Api<K> = Api::namespaced(self.client.clone(), &namespace);
        let params = PatchParams::apply(MANAGER).force();
        let request = api.patch_status(&name, &params, &patch);
        self.write_as("patch", format!("{}/status", K::plural(&())), &what, request)
            .await
            .map(|_| ())
    }

    /// Sets or removes our finalizer.
    pub async fn finalizers<K: Own>(&self, object: &K, finalizers: &[String]) -> Result<(), WriteError> {
        let meta = object.meta();
        let (name, namespace) = (
            meta.name.clone().unwrap_or_default(),
            meta.namespace.clone().unwrap_or_default(),
        );
        let what = format!("finalizers of {} {namespace}/{name}", K::KIND);
        // The resource version makes this a compare-and-swap: somebody else's finalizer is never lost.
        let patch = Patch::Merge(
            json!({"metadata": {"finalizers": finalizers, "resourceVersion": meta.resource_version, "uid": meta.uid}}),
        );
        let api: Api<K> = Api::namespaced(self.client.clone(), &namespace);
        let params = PatchParams {
            field_manager: Some(MANAGER.into()),
            ..PatchParams::default()
        };
        let request = api.patch(&name, &params, &patch);
        match self
            .write_as("patch", K::plural(&()).into_owned(), &what, request)
            .await
        {
            Err(WriteError::Api { source, .. }) if is_not_found(&source) => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Runs any other mutating request under the same deadline and counters.
    pub async fn write_as<T>(
        &self,
        verb: &'static str,
        resource: String,
        what: &str,
        request: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, WriteError> {
        let begun = Instant::now();
        let Some(deadline) = write_deadline(&self.leading) else {
            return Err(WriteError::NotLeading {
                verb,
                what: what.into(),
            });
        };
        let result = in_time(deadline, request).await;
        let outcome = if matches!(result, Some(Ok(_))) { "ok" } else { "error" };
        self.metrics
            .writes
            .get_or_create(&Write {
                verb,
                resource,
                outcome,
            })
            .inc();
        match result {
            Some(answer) => answer.map_err(|source| api_error(verb, what, source)),
            None => Err(WriteError::Timeout {
                verb,
                what: what.into(),
                limit: deadline - begun,
            }),
        }
    }

    async fn write<T>(
        &self,
        verb: &'static str,
        kind: ChildKind,
        what: &str,
        request: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, WriteError> {
        self.write_as(verb, kind.api_resource().plural, what, request).await
    }
}

/// A reading, which has a deadline of its own.
async fn in_patience<T>(what: String, request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, WriteError> {
    let (verb, limit) = ("read", Duration::from_secs(5));
    match tokio::time::timeout(limit, request).await {
        Ok(answer) => answer.map_err(|source| api_error(verb, &what, source)),
        Err(_) => Err(WriteError::Timeout { verb, what, limit }),
    }
}

fn describe(kind: ChildKind, namespace: &str, name: &str) -> String {
    format!("{kind:?} {namespace}/{name}")
}
