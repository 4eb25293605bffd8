//! What has to be there before the operator begins: the definitions of its kinds, and the right to read objects of them.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use kube::{Client, api::ListParams};

use crate::{
    api::{amas_database::AmasDatabase, cache_policy::CachePolicy, crds, graph_schema::GraphSchema},
    engine::{definitions, watch::Scope},
};

/// Between two looks at what is installed.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Waits until all three kinds can be listed. The namespaces that refuse us are given back: where the rights go with the namespace, one that is gone
/// holds up no other.
pub async fn await_definitions(client: &Client, scope: &Scope) -> HashSet<String> {
    loop {
        let (mut closed, mut missing) = (HashSet::new(), None);
        for namespace in scope.namespaces() {
            match list_all(client, scope, namespace).await {
                Ok(()) => {}
                Err(kube::Error::Api(status)) if status.code == 403 => {
                    tracing::warn!(
                        namespace,
                        error = status.message,
                        "no rights in this namespace: its objects wait until there are"
                    );
                    closed.insert(namespace.clone());
                }
                Err(error) => missing = Some(error),
            }
        }
        match missing {
            Some(error) => {
                tracing::warn!(%error, "the CustomResourceDefinitions of amas.dev are not installed or cannot be read yet; install the chart with crds.enabled")
            }
            None if closed.len() < scope.namespaces().len() => return closed,
            None => {}
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// How long the API may take to publish a definition that was just installed, before it is taken for one that publishes nothing.
const PUBLISHING: Duration = Duration::from_secs(30);
/// Waits while the definitions on the cluster are too old to take what we write. Everything else about them is said once in the log.
pub async fn match_definitions(client: &Client, state: impl Fn(&str)) {
    let ours = crds::all();
    let begun = Instant::now();
    let mut said = String::new();
    loop {
        let text = match published(client)
            .await
            .map(|document| definitions::compare(&document, &ours))
        {
            Ok(Some(difference)) => {
                let text = definitions::explain(&difference);
                if difference.blocking.is_empty() {
                    match text {
                        Some(text) => tracing::warn!("{text}"),
                        None => tracing::info!(
                            schema = definitions::fingerprint(&ours),
                            "the definitions on the cluster are ours"
                        ),
                    }
                    return;
                }
                text.unwrap_or_default()
            }
            Ok(None) if begun.elapsed() < PUBLISHING => "the definitions of amas.dev are not published yet".to_owned(),
            Ok(None) => {
                return tracing::warn!(
                    "the API publishes no schema of amas.dev; it is not known whether the definitions on the cluster are ours"
                );
            }
            Err(error) if begun.elapsed() < PUBLISHING => {
                format!("the published definitions of amas.dev cannot be read: {error}")
            }
            Err(error) => {
                return tracing::warn!(%error, "the published definitions cannot be read; it is not known whether those on the cluster are ours");
            }
        };
        state(&text);
        if text != said {
            tracing::warn!("{text}");
            said = text;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

async fn published(client: &Client) -> Result<serde_json::Value, kube::Error> {
    let path = format!("/openapi/v3/apis/{}/v1alpha1", crate::api::GROUP);
    let request = axum::http::Request::get(path)
        .body(Vec::new())
        .map_err(kube::Error::HttpError)?;
    client.request(request).await
}

async fn list_all(client: &Client, scope: &Scope, namespace: &str) -> Result<(), kube::Error> {
    let one = ListParams::default().limit(1);
    scope.api::<AmasDatabase>(client, namespace).list_metadata(&one).await?;
    scope.api::<CachePolicy>(client, namespace).list_metadata(&one).await?;
    scope.api::<GraphSchema>(client, namespace).list_metadata(&one).await?;
    Ok(())
}
