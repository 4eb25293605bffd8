//! Objects whose servers swallow every connection: they delay nobody else, and the API hears little of them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::{
    lifecycle::{database, external, nothing_is_left_to_tell, postgres},
    support::{
        audit::Class,
        kubernetes::{Kubernetes, Namespace, PATIENCE},
        operator::Operator,
        postgres::Postgres,
        turns,
    },
};

/// How many objects point at a black hole.
const DEAD: usize = HOLES.len() * STORES.len() * PER_KIND;
const PER_KIND: usize = 9;
const HOLES: [&str; 2] = ["silent", "dropping"];
const STORES: [&str; 3] = ["redis", "postgres", "neo4j"];
const CHANGES: usize = 15;
/// How long it is counted what the API hears of them.
const LISTENING: Duration = Duration::from_secs(20);
/// What a healthy object's reconcile may lose to them.
const ALLOWED: Duration = Duration::from_millis(200);
/// The same of the slowest but one: the slowest of all is the machine's own.
const SLOWEST_ALLOWED: Duration = Duration::from_secs(1);

/// A port that takes connections and never says a word.
async fn silent() -> (u16, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let held = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok(connection) = listener.accept().await {
            held.push(connection);
        }
    });
    (port, held)
}

/// A port whose queue is full, so that the kernel drops every SYN, as a firewall does.
async fn dropping() -> (u16, impl Sized) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut held = Vec::new();
    while let Ok(Ok(connection)) =
        tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(("127.0.0.1", port))).await
    {
        held.push(connection);
    }
    (port, (listener, held))
}

/// A namespace with an operator of its own, and an object in it that is well.
struct Healthy {
    ns: Namespace,
    /// Of the namespace's beginning, and of the database on the server.
    name: &'static str,
    _postgres: Arc<Postgres>,
    _operator: Operator,
}

impl Healthy {
    async fn new(api: &Kubernetes, name: &'static str) -> Self {
        let ns = api.namespace(name).await;
        let healthy = Self {
            name,
            _postgres: postgres(&ns).await,
            _operator: ns.operator(&[]).await,
            ns,
        };
        healthy.apply("").await;
        let ns = &healthy.ns;
        ns.wait_condition("AmasDatabase", "healthy", "Ready", "True").await;
        healthy
    }

    /// The application role's Secret shall have the value.
    async fn apply(&self, value: &str) {
        let (app, owner) = (format!("{}_app", self.name), format!("{}_owner", self.name));
        let roles = json!([{"name": app, "access": "ReadWrite", "connection": {"extra": {"TURN": value}}}]);
        let sql = json!({"database": self.name, "owner": owner, "roles": roles, "external": external("postgres")});
        self.ns.apply(database("healthy", json!({"postgres": sql}))).await;
    }

    /// How long it took from a change of the object to the operator's write that follows from it.
    async fn reaction(&self, value: &str) -> Duration {
        let secret = format!("healthy-role-{}-app", self.name);
        let began = Instant::now();
        self.apply(value).await;
        let changed = |secret: &Value| secret.pointer("/data/TURN") == Some(&json!(encoded(value)));
        while !self
            .ns
            .get("Secret", &secret)
            .await
            .is_some_and(|secret| changed(&secret))
        {
            assert!(began.elapsed() < PATIENCE, "the connection Secret follows");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        began.elapsed()
    }
}

/// The median, the slowest but one and the worst of some reactions of each. They take turns, so that a slow minute of the machine is both's.
async fn reactions(both: [&Healthy; 2]) -> [[Duration; 3]; 2] {
    let mut all = [Vec::new(), Vec::new()];
    for turn in 0..CHANGES {
        for (healthy, took) in both.iter().zip(&mut all) {
            took.push(healthy.reaction(&turn.to_string()).await);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    all.map(|mut took| {
        took.sort();
        [took[CHANGES / 2], took[CHANGES - 2], took[CHANGES - 1]]
    })
}

fn encoded(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// One of each store on each black hole.
fn kinds() -> impl Iterator<Item = (&'static str, &'static str)> {
    HOLES.into_iter().flat_map(|hole| STORES.map(|store| (hole, store)))
}

/// What an object asks of a store whose login this Secret has.
fn dead(store: &str, secret: &str) -> Value {
    let mut wanted = json!({"external": external(secret)});
    if store == "postgres" {
        let roles = json!([{"name": "app", "access": "ReadWrite"}]);
        wanted = json!({"database": "app", "owner": "boss", "roles": roles, "external": external(secret)});
    }
    json!({store: wanted})
}

async fn dead_objects(ns: &Namespace, ports: [u16; 2]) {
    for (hole, store) in kinds() {
        let port = if hole == HOLES[0] { ports[0] } else { ports[1] };
        let uri = match store {
            "redis" => format!("redis://default:x@127.0.0.1:{port}"),
            "postgres" => format!("postgresql://a:x@127.0.0.1:{port}/postgres"),
            _ => format!("bolt://neo4j:x@127.0.0.1:{port}"),
        };
        let name = format!("{hole}-{store}");
        ns.secret(&name, &[("uri", &uri)]).await;
        for number in 0..PER_KIND {
            ns.apply(database(&format!("{name}-{number}"), dead(store, &name)))
                .await;
        }
    }
}

#[tokio::test]
async fn fifty_objects_on_black_holes_delay_nobody_and_spam_nobody() {
    let api = Kubernetes::shared().await;
    let undisturbed = Healthy::new(&api, "undisturbed").await;
    let isolation = Healthy::new(&api, "isolation").await;
    let ns = &isolation.ns;
    let ((silent, _held), (dropping, _full)) = (silent().await, dropping().await);
    dead_objects(ns, [silent, dropping]).await;
    for (hole, store) in kinds() {
        ns.wait_condition("AmasDatabase", &format!("{hole}-{store}-0"), "Ready", "False")
            .await;
    }
    let turn = turns::alone().await;
    let [[alone, slow_alone, worst_alone], [beside, slow_beside, worst_beside]] =
        reactions([&undisturbed, &isolation]).await;
    drop(turn);
    println!(
        "isolation: a change is carried out in {alone:?} (slowest {slow_alone:?}, {worst_alone:?}) alone, {beside:?} (slowest {slow_beside:?}, {worst_beside:?}) beside {DEAD} black holes"
    );
    assert!(beside < alone + ALLOWED, "{beside:?} beside them, {alone:?} alone");
    assert!(
        slow_beside < slow_alone + SLOWEST_ALLOWED,
        "the slowest but one {slow_beside:?} beside them, {slow_alone:?} alone"
    );

    // Once each has said what there is to say.
    nothing_is_left_to_tell(ns).await;
    let mark = api.audit();
    tokio::time::sleep(LISTENING).await;
    let requests = mark.requests().unwrap().in_namespace(&ns.name);
    println!("isolation: {LISTENING:?} of {DEAD} black holes: {requests}");
    let writes = requests.writes();
    assert!(writes.len() <= DEAD / 15, "{}", writes.lines());
    let reads = requests.only(&[Class::Get, Class::List]);
    assert!(reads.len() <= DEAD / 15, "{}", reads.lines());
}
