//! The pods of servers: which one runs, and another in its place.

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, api::DeleteParams};

use super::{platform::PATIENCE, wait};
use crate::{ensure, harness::Result};

/// Which pod it is and how often its containers were restarted: another text means a restart.
pub fn life(pod: &Pod) -> String {
    let containers = pod
        .status
        .iter()
        .flat_map(|status| status.container_statuses.iter().flatten());
    let restarts: i32 = containers.map(|container| container.restart_count).sum();
    format!("{:?}/{restarts}", pod.metadata.uid)
}

/// Deletes a pod and waits until there is another of its name.
pub async fn replace(client: &Client, namespace: &str, name: &str) -> Result {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let old = pods.get(name).await?.metadata.uid;
    pods.delete(name, &DeleteParams::default()).await?;
    let another = async || {
        ensure!(
            pods.get(name).await?.metadata.uid != old,
            "pod {name} is still the old one"
        );
        Ok(())
    };
    wait::retry(PATIENCE, another).await
}
