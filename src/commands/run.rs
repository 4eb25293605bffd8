//! `run`: the operator. Connects, waits for its definitions and for the leader lease, then runs watches, keepers and controllers until told to stop.

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::{Arc, PoisonError, RwLock},
};

use futures::FutureExt;
use kube::{Api, Client};
use tokio::sync::watch as signal_channel;

use crate::{
    commands::{
        installed::{await_definitions, match_definitions},
        telemetry,
    },
    controllers::{Context, Settings, live, operator::Operator},
    engine::{MANAGER, http, lease::Candidate, metrics::Metrics, watch::Scope, writer::Writer},
    stores::{images::Images, revisions::Revisions},
};

/// Run the operator in a cluster.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The operator's own image, for migration Jobs.
    #[arg(long, env = "AMAS_IMAGE", default_value = "")]
    image: String,
    /// Images instead of the built-in ones: engine:version=image, separated by commas.
    #[arg(long, env = "AMAS_IMAGE_OVERRIDES", default_value = "")]
    image_overrides: String,
    /// Registry to pull the built-in images from instead of docker.io.
    #[arg(long, env = "AMAS_IMAGE_REGISTRY")]
    image_registry: Option<String>,
    /// Namespaces to watch, separated by commas. Default: all.
    #[arg(long, env = "AMAS_WATCH_NAMESPACES", value_delimiter = ',')]
    watch_namespaces: Vec<String>,
    /// Folder of the migration bundles.
    #[arg(long, env = "AMAS_MIGRATIONS_DIR", default_value = "/migrations")]
    migrations_dir: PathBuf,
    /// Name of this cluster in claims. Default: the uid of the namespace kube-system.
    #[arg(long, env = "AMAS_CLUSTER_ID", default_value = "")]
    cluster_id: String,
    /// How far the rights reach: Cluster, or Namespaced (a Role in each watched namespace, which goes with it).
    #[arg(long, env = "AMAS_RBAC_SCOPE", default_value = "Cluster", value_parser = ["Cluster", "Namespaced"])]
    rbac_scope: String,
    /// Look after the objects of this spec.controllerClass only. Default: those without one.
    #[arg(long, env = "AMAS_CONTROLLER_CLASS", default_value = "")]
    controller_class: String,
    /// Labelled: Secrets with the label amas.dev/watch=true are watched, which takes the right to list and watch Secrets. None: they are read by name.
    #[arg(long, env = "AMAS_SECRETS_WATCH", default_value = "None", value_parser = ["None", "Labelled"])]
    secrets_watch: String,
    /// Port of /healthz, /readyz and /metrics.
    #[arg(long, env = "AMAS_HTTP_PORT", default_value_t = 8080)]
    http_port: u16,
    /// Name of this process in the leader lease and in Events.
    #[arg(long, env = "POD_NAME", default_value = "amas-operator")]
    pod_name: String,
    /// Namespace of the leader lease.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    pod_namespace: String,
    /// Name of the leader lease.
    #[arg(long, env = "AMAS_LEASE_NAME", default_value = "amas-operator")]
    lease_name: String,
    #[command(flatten)]
    log: telemetry::LogArgs,
}

/// Why the operator ended.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error("the Kubernetes API cannot be reached as configured: {0}")]
    Client(String),
    #[error("{0}")]
    Setting(String),
    #[error("{0}")]
    Lease(#[from] crate::engine::lease::LeaseError),
}

/// Runs until a signal or until the lease is lost.
pub async fn run(args: Args) -> ExitCode {
    telemetry::init(&args.log);
    match operate(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the operator ends");
            ExitCode::FAILURE
        }
    }
}

async fn operate(args: Args) -> Result<(), RunError> {
    let images = Images::new(args.image_registry.clone(), &args.image_overrides).map_err(RunError::Setting)?;
    let client = connect().await?;
    let metrics = Metrics::default();
    let waiting_for = Arc::new(RwLock::new(Some("the Kubernetes API".to_owned())));
    let context_slot: Arc<RwLock<Option<Arc<Context>>>> = Arc::default();
    serve_pages(args.http_port, &metrics, &waiting_for, &context_slot);
    let scope = Scope::new(
        args.watch_namespaces
            .iter()
            .filter(|name| !name.is_empty())
            .cloned()
            .collect(),
    )
    .of_class(&args.controller_class);
    let state =
        |text: Option<&str>| *waiting_for.write().unwrap_or_else(PoisonError::into_inner) = text.map(str::to_owned);

    state(Some("the CustomResourceDefinitions of amas.dev to be installed"));
    let closed = await_definitions(&client, &scope).await;
    let scope = scope.without_waiting_for(closed);
    match_definitions(&client, |text| state(Some(text))).await;
    let settings = settings(&args, &client, images).await;

    let (mut candidate, leading) =
        Candidate::new(client.clone(), &args.pod_namespace, &args.lease_name, &args.pod_name);
    let stop = stop_signal();
    // Standing by is ready: a rolling update must not wait for the lease.
    state(None);
    tokio::select! {
        () = candidate.acquire() => {}
        () = stopped(stop.clone()) => return Ok(()),
    }
    tracing::info!(lease = args.lease_name, holder = args.pod_name, "leading");

    let writer = Writer::new(client.clone(), leading, metrics.clone());
    let operator = Operator::new(client, scope, writer, metrics, settings);
    *context_slot.write().unwrap_or_else(PoisonError::into_inner) = Some(operator.context.clone());
    tokio::select! {
        // The lease is renewed from the start: the first listings may take long.
        error = candidate.keep() => Err(error.into()),
        () = operator.run(stopped(stop).shared()) => {
            candidate.release().await;
            Ok(())
        }
    }
}

async fn connect() -> Result<Client, RunError> {
    let mut config = kube::Config::infer()
        .await
        .map_err(|error| RunError::Client(error.to_string()))?;
    // Our own backoff is the only retry.
    config.default_retry = false;
    let agent = format!("{MANAGER}/{}", env!("CARGO_PKG_VERSION"));
    if let Ok(agent) = http_header(&agent) {
        config.headers.push(agent);
    }
    Client::try_from(config).map_err(|error| RunError::Client(error.to_string()))
}

fn http_header(
    agent: &str,
) -> Result<(axum::http::HeaderName, axum::http::HeaderValue), axum::http::header::InvalidHeaderValue> {
    Ok((
        axum::http::header::USER_AGENT,
        axum::http::HeaderValue::from_str(agent)?,
    ))
}

/// A child that is told once when the process shall end.
fn stop_signal() -> signal_channel::Receiver<bool> {
    let (sender, receiver) = signal_channel::channel(false);
    tokio::spawn(async move {
        let terminate = async {
            if let Ok(mut signal) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
                signal.recv().await;
            }
        };
        tokio::select! {
            () = terminate => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        tracing::info!("stopping");
        let _ = sender.send(true);
        std::future::pending::<()>().await
    });
    receiver
}

async fn stopped(mut stop: signal_channel::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn settings(args: &Args, client: &Client, images: Images) -> Settings {
    let mut cluster_id = args.cluster_id.clone();
    if cluster_id.is_empty() {
        let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(client.clone());
        cluster_id = match namespaces.get("kube-system").await {
            Ok(namespace) => namespace.metadata.uid.unwrap_or_default(),
            Err(error) => {
                tracing::warn!(%error, "the namespace kube-system cannot be read; claims carry no cluster id until the chart value clusterId is set");
                String::new()
            }
        };
    }
    Settings {
        images,
        revisions: Revisions::default(),
        own_image: args.image.clone(),
        operator_namespace: args.pod_namespace.clone(),
        cluster_id,
        bundles: args.migrations_dir.clone(),
        instance: args.pod_name.clone(),
        namespaced: args.rbac_scope == "Namespaced",
        class: args.controller_class.clone(),
        watches_secrets: args.secrets_watch == "Labelled",
    }
}

fn serve_pages(
    port: u16,
    metrics: &Metrics,
    waiting_for: &Arc<RwLock<Option<String>>>,
    slot: &Arc<RwLock<Option<Arc<Context>>>>,
) {
    let (metrics, slot) = (metrics.clone(), slot.clone());
    let text = move || {
        if let Some(context) = slot.read().unwrap_or_else(PoisonError::into_inner).as_ref() {
            live::refresh(context);
        }
        metrics.text()
    };
    let pages = http::Pages {
        waiting_for: waiting_for.clone(),
        metrics: Arc::new(text),
    };
    tokio::spawn(async move {
        if let Err(error) = http::serve(port, pages).await {
            tracing::error!(%error, port, "the pages for health and metrics cannot be served");
        }
    });
}
