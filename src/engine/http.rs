//! /healthz, /readyz and /metrics.

use std::{
    net::{Ipv6Addr, SocketAddr},
    sync::{Arc, PoisonError, RwLock},
};

use axum::{Router, extract::State, http::StatusCode, routing::get};

/// What the three pages tell.
#[derive(Clone)]
pub struct Pages {
    /// Why the operator is not ready yet; `None` when it is.
    pub waiting_for: Arc<RwLock<Option<String>>>,
    /// Gives the metrics' text, refreshed.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
}

/// Serves the pages until the process ends.
pub async fn serve(port: u16, pages: Pages) -> std::io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route(
            "/metrics",
            get(|State(pages): State<Pages>| async move { (pages.metrics)() }),
        )
        .with_state(pages);
    let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let listener = match tokio::net::TcpListener::bind(any).await {
        Ok(listener) => listener,
        // A machine without IPv6.
        Err(_) => tokio::net::TcpListener::bind(SocketAddr::from(([0, 0, 0, 0], port))).await?,
    };
    axum::serve(listener, router).await
}

async fn ready(State(pages): State<Pages>) -> (StatusCode, String) {
    match pages
        .waiting_for
        .read()
        .unwrap_or_else(PoisonError::into_inner)
        .as_deref()
    {
        None => (StatusCode::OK, "ok\n".into()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for {reason}\n")),
    }
}
