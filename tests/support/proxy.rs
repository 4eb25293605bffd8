//! An HTTP proxy between an operator and the API server: it numbers the operator's mutating requests and, apart from them, its readings of one object
//! (those on leases aside), spoils one of them as told, notes when it says Ready, and holds everything back while the network is "cut".

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Instant,
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{HeaderValue, Method, Uri, header},
    response::{IntoResponse, Response},
};
use futures::StreamExt;
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{
    fault::{Fault, Plan},
    kubernetes::{Kubernetes, condition_of},
};

struct Shared {
    client: Client,
    name: String,
    open: watch::Sender<bool>,
    /// Whether events of children pass.
    heard: watch::Sender<bool>,
    plan: Arc<Plan>,
    reads: Arc<Plan>,
    said: Mutex<Vec<Said>>,
}

/// That an object of our kinds is Ready, as the operator wrote it.
#[derive(Clone, Debug)]
pub struct Said {
    pub uid: String,
    pub generation: i64,
    pub at: Instant,
}

pub struct ApiProxy {
    /// Through this proxy, with all rights.
    pub kubeconfig: PathBuf,
    /// Of the writes.
    pub plan: Arc<Plan>,
    /// Of the readings of one object by its name.
    pub reads: Arc<Plan>,
    shared: Arc<Shared>,
    server: tokio::task::JoinHandle<()>,
}

impl ApiProxy {
    /// Requests through it have a user agent that ends with `(name)`.
    pub async fn start(api: &Kubernetes, name: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let shared = Arc::new(Shared {
            client: api.client.clone(),
            name: name.to_owned(),
            open: watch::Sender::new(true),
            heard: watch::Sender::new(true),
            plan: Arc::default(),
            reads: Arc::default(),
            said: Mutex::default(),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(handle).with_state(shared.clone());
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let file = format!("{name}-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        Self {
            kubeconfig: api.kubeconfig_for(&file, &url),
            plan: shared.plan.clone(),
            reads: shared.reads.clone(),
            shared,
            server,
        }
    }

    /// Whenever the operator said Ready.
    pub fn said_ready(&self) -> Vec<Said> {
        self.shared.said.lock().unwrap().clone()
    }

    /// No event of a watch passes until `restore`, but those of our own kinds.
    pub fn withhold_children(&self) {
        self.shared.heard.send_replace(false);
    }

    /// Nothing passes in either direction until `restore`.
    pub fn cut(&self) {
        self.shared.open.send_replace(false);
    }

    pub fn restore(&self) {
        self.shared.open.send_replace(true);
        self.shared.heard.send_replace(true);
    }
}

impl Drop for ApiProxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Shared {
    async fn passage(&self) {
        let _ = self.open.subscribe().wait_for(|open| *open).await;
    }

    async fn hearing(&self, is_of_children: bool) {
        if is_of_children {
            let _ = self.heard.subscribe().wait_for(|heard| *heard).await;
        }
    }

    /// What counts this request, if anything does.
    fn plan_of(&self, request: &Request) -> Option<Arc<Plan>> {
        if request.uri().path().contains("/leases") {
            return None;
        }
        match *request.method() {
            Method::HEAD => None,
            Method::GET => names_one(request.uri()).then(|| self.reads.clone()),
            _ => Some(self.plan.clone()),
        }
    }

    /// Notes what the operator says of an object of our kinds, and gives the request on.
    async fn overhear(&self, request: Request) -> Request {
        let path = request.uri().path();
        if request.method() != Method::PATCH || !path.starts_with("/apis/amas.dev/") || !path.ends_with("/status") {
            return request;
        }
        let (parts, body) = request.into_parts();
        let bytes = to_bytes(body, usize::MAX).await.unwrap_or_default();
        let object: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        if condition_of(&object, "Ready").is_some_and(|ready| ready["status"] == "True") {
            self.said.lock().unwrap().push(Said {
                uid: object["metadata"]["uid"].as_str().unwrap_or_default().to_owned(),
                generation: object["status"]["observedGeneration"].as_i64().unwrap_or_default(),
                at: Instant::now(),
            });
        }
        Request::from_parts(parts, Body::from(bytes))
    }

    async fn forward(&self, request: Request) -> Result<Response, kube::Error> {
        let (mut parts, body) = request.into_parts();
        let bytes = to_bytes(body, usize::MAX).await.unwrap_or_default();
        let agent = parts
            .headers
            .get(header::USER_AGENT)
            .and_then(|agent| agent.to_str().ok());
        let agent = format!("{} ({})", agent.unwrap_or_default(), self.name);
        parts
            .headers
            .insert(header::USER_AGENT, HeaderValue::from_str(&agent).unwrap());
        for own in [header::HOST, header::AUTHORIZATION, header::CONNECTION] {
            parts.headers.remove(own);
        }
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        parts.uri = path.parse().unwrap();
        let request = axum::http::Request::from_parts(parts, kube::client::Body::from(bytes.to_vec()));
        let (mut parts, body) = self.client.send(request).await?.into_parts();
        for own in [header::TRANSFER_ENCODING, header::CONNECTION] {
            parts.headers.remove(own);
        }
        Ok(Response::from_parts(parts, Body::new(body)))
    }
}

async fn handle(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    shared.passage().await;
    let request = shared.overhear(request).await;
    let plan = shared.plan_of(&request);
    let words = words(request.method(), request.uri().path());
    let fault = plan.as_ref().and_then(|plan| plan.count(words));
    let has_happened = || plan.iter().for_each(|plan| plan.has_happened());
    let uri = request.uri().to_string();
    let is_of_children = uri.contains("watch=") && !uri.contains("amas.dev/v1");
    let answer = match fault {
        Some(Fault::Swallowed) => {
            has_happened();
            return std::future::pending().await;
        }
        Some(Fault::Answer(code)) => {
            has_happened();
            return refusal(code);
        }
        Some(Fault::Pretended) => return pretended(request).await,
        _ => shared.forward(request).await,
    };
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return (axum::http::StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    };
    if let Some(fault) = fault {
        // What the server has answered is there, so the request was carried out.
        has_happened();
        if fault == Fault::Unanswered {
            return std::future::pending().await;
        }
        let broken = futures::stream::once(async { Err::<&[u8], _>(std::io::Error::other("cut off")) });
        return Response::new(Body::from_stream(broken));
    }
    shared.passage().await;
    let (parts, body) = answer.into_parts();
    let frames = body.into_data_stream().then(move |frame| {
        let shared = shared.clone();
        async move {
            shared.passage().await;
            shared.hearing(is_of_children).await;
            frame
        }
    });
    Response::from_parts(parts, Body::from_stream(frames))
}

/// As the API server would answer if it had carried it out.
async fn pretended(request: Request) -> Response {
    let body = to_bytes(request.into_body(), usize::MAX).await.unwrap_or_default();
    let mut object: Value = serde_json::from_slice(&body).unwrap_or_default();
    object["metadata"]["uid"] = json!("00000000-0000-0000-0000-000000000000");
    object["metadata"]["resourceVersion"] = json!("1");
    let builder = Response::builder().header(header::CONTENT_TYPE, "application/json");
    builder.body(Body::from(object.to_string())).unwrap()
}

/// As the API server words it.
fn refusal(code: u16) -> Response {
    let reason = match code {
        403 => "Forbidden",
        409 => "Conflict",
        429 => "TooManyRequests",
        _ => "InternalError",
    };
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "planned by a test", "reason": reason, "code": code});
    let builder = Response::builder()
        .status(code)
        .header(header::CONTENT_TYPE, "application/json");
    let builder = if code == 429 {
        builder.header(header::RETRY_AFTER, "1")
    } else {
        builder
    };
    builder.body(Body::from(status.to_string())).unwrap()
}

/// Whether one object of a namespace is asked for, and not watched.
fn names_one(uri: &Uri) -> bool {
    let of_namespace = uri.path().split_once("/namespaces/").map(|(_, rest)| rest);
    let is_watch = uri.query().is_some_and(|query| query.contains("watch="));
    !is_watch && of_namespace.is_some_and(|rest| rest.split('/').count() >= 3)
}

/// A request in words. An Event has another name each time, and who told the same before counts it up instead: all of them are one.
fn words(method: &Method, path: &str) -> String {
    match path.split_once("/events/") {
        Some((events, _)) => format!("POST {events}/events"),
        None => format!("{method} {path}"),
    }
}
