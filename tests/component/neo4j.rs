//! Neo4j: schemas and the sentinel against a real server. A JVM takes its time, so all scenarios share one server, in order.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use amas_operator::{
    api::{common::ManagedTls, names::GraphName, sensitive::Sensitive},
    controllers::credentials::{Certificates, Entries, certificates::Source},
    stores::{
        endpoint::{ClientCertificate, Endpoint, StoreError, Tls, Trust},
        keeper::{Duty, Gate, Parting, Sentinel, Sign, Store},
        limits::Limit,
        neo4j::{
            self, ConstraintDuty, ConstraintKind, GraphDuty, IndexDuty, IndexKind, ItemFacts, ItemState, Neo4j,
            Neo4jFacts, Neo4jWorker,
        },
        workload::{Config, Family, Image, ImageSource},
    },
};
use neo4rs::{ConfigBuilder, Graph, query};

use crate::support::{
    neo4j::{Neo4jServer, PASSWORD, base, worked},
    pki::{Authority, Years},
    process::eventually,
};

fn name(text: &str) -> GraphName {
    GraphName::parse(text).unwrap()
}

fn unique(text: &str, label: &str, property: &str) -> ConstraintDuty {
    ConstraintDuty {
        name: name(text),
        label: name(label),
        properties: vec![name(property)],
        kind: ConstraintKind::Unique,
    }
}

fn range(text: &str, label: &str, property: &str) -> IndexDuty {
    IndexDuty {
        name: name(text),
        label: name(label),
        properties: vec![name(property)],
        kind: IndexKind::Range,
    }
}

fn duty(server: &Neo4jServer, constraints: Vec<ConstraintDuty>, indexes: Vec<IndexDuty>) -> Duty<Neo4j> {
    let schema = GraphDuty {
        generation: 1,
        constraints,
        indexes,
    };
    Duty {
        base: base(server.endpoint()),
        policies: BTreeMap::from([("amas".into(), schema)]),
    }
}

/// The platform's own schema.
fn amas(server: &Neo4jServer) -> Duty<Neo4j> {
    duty(
        server,
        vec![
            unique("task_id_unique", "Task", "task_id"),
            unique("agent_id_unique", "Agent", "agent_id"),
            unique("user_id_unique", "User", "user_id"),
        ],
        vec![
            range("task_status_idx", "Task", "status"),
            range("task_created_idx", "Task", "created_at"),
            range("agent_type_idx", "Agent", "type"),
            range("agent_status_idx", "Agent", "status"),
        ],
    )
}

/// Until the duty is in or waits for something; gives how long it would wait. A busy server may be late with an answer, and refuses nothing.
async fn settle(worker: &mut Neo4jWorker, duty: &Duty<Neo4j>, facts: &mut Neo4jFacts) -> Duration {
    let late = |error: &StoreError| !error.is_answer();
    worked(worker, duty, facts, late).await.unwrap()
}

async fn settled(duty: &Duty<Neo4j>) -> Neo4jFacts {
    let mut facts = Neo4jFacts::default();
    settle(&mut Neo4jWorker::default(), duty, &mut facts).await;
    facts
}

/// An application's own connection.
fn application(server: &Neo4jServer) -> Graph {
    let uri = format!("127.0.0.1:{}", server.port);
    let config = ConfigBuilder::default()
        .uri(uri)
        .user("neo4j")
        .password(PASSWORD)
        .db("neo4j")
        .build()
        .unwrap();
    Graph::connect(config).unwrap()
}

async fn run(graph: &Graph, text: &str) {
    Box::pin(graph.run(query(text))).await.unwrap();
}

async fn number(graph: &Graph, text: &str) -> i64 {
    let mut rows = Box::pin(graph.execute(query(text))).await.unwrap();
    let row = Box::pin(rows.next()).await.unwrap().unwrap();
    row.get("n").unwrap()
}

fn item<'a>(items: &'a [ItemFacts], wanted: &str) -> &'a ItemFacts {
    items.iter().find(|item| item.name.as_str() == wanted).unwrap()
}

#[tokio::test]
async fn neo4j() {
    let started = Instant::now();
    let Some(mut server) = Neo4jServer::start().await else {
        return;
    };
    println!(
        "neo4j: answers {:?} after its start, logged in by the auth.ini we made",
        started.elapsed()
    );
    let graph = application(&server);
    logs_in_with_the_right_password_only(&server).await;
    speaks_tls_without_verification(&server).await;
    verifies_the_server_and_shows_a_certificate(&server).await;
    the_start_time_is_the_same_in_every_answer(&server).await;
    a_foreign_claim_stops_everything(&server, &graph).await;
    what_is_retained_is_adopted_by_the_next_of_the_name(&server, &graph).await;
    changes_nothing_once_the_gate_is_shut(&server, &graph).await;
    brings_a_schema_in_and_then_writes_nothing(&server, &graph).await;
    adopts_and_reports(&server, &graph).await;
    tells_what_an_external_server_does_not_allow(&server).await;
    reports_duplicates_and_recovers_by_itself(&server, &graph).await;
    an_interrupted_creation_is_finished_later(&server, &graph).await;
    sees_a_stopped_and_a_killed_server(&mut server).await;
    speaks_tls_only_as_we_configure_it(&mut server).await;
}

/// Its schema statements run beside the slices: those are held back too.
async fn changes_nothing_once_the_gate_is_shut(server: &Neo4jServer, graph: &Graph) {
    let duty = duty(server, vec![unique("gated", "Gated", "id")], Vec::new());
    let (mut worker, mut facts) = (Neo4j::worker(&Gate::new(|| false)), Neo4jFacts::default());
    let outcome = Neo4j::work(&mut worker, &duty, &mut facts).await;
    assert!(outcome.is_ok(), "{outcome:?}");
    let made = "SHOW CONSTRAINTS YIELD name WHERE name = 'gated' RETURN count(*) AS n";
    assert_eq!(number(graph, made).await, 0);
}

async fn tells_what_an_external_server_does_not_allow(server: &Neo4jServer) {
    let mut duty = duty(server, Vec::new(), Vec::new());
    duty.base.managed = false;
    assert_eq!(settled(&duty).await.limits, Some(vec![Limit::NoRoles]));
}

/// What a managed server is given with `tls: {required: true}`, with the certificate that we make.
async fn speaks_tls_only_as_we_configure_it(server: &mut Neo4jServer) {
    let family = Family {
        namespace: "n".into(),
        database: "d".into(),
        uid: "u".into(),
        data_goes: false,
    };
    let mut certificates = Certificates::of(
        &family,
        ["neo4j"].into_iter(),
        (Source::Own, None, jiff::Timestamp::now()),
    );
    certificates.servers[0].1.push("localhost".into());
    let entries = certificates.entries(&Entries::new());
    let spec = serde_json::from_value(serde_json::json!({"storage": {"size": "1Gi"}})).unwrap();
    let image = Image {
        name: "i".into(),
        source: ImageSource::Table,
    };
    let mut workload = neo4j::workload::workload(&family, &spec, image);
    neo4j::workload::encrypt(
        &mut workload,
        &ManagedTls {
            required: true,
            issuer_ref: None,
        },
    );
    let Config::Environment(settings) = workload.config else {
        panic!("files")
    };
    server.encrypt_as(&settings, entries["neo4j.crt"].reveal(), entries["neo4j.key"].reveal());
    server.restart().await;
    let verified = Endpoint {
        host: "localhost".into(),
        tls: Tls::Encrypt(Arc::new(Trust {
            verify: true,
            ca: Some(entries["ca.crt"].reveal().into()),
            client: None,
        })),
        ..server.endpoint()
    };
    eventually("the server answers over TLS", Duration::from_secs(60), || async {
        Neo4j::open(&base(verified.clone())).await.is_ok()
    })
    .await;
    let duty = Duty {
        base: base(verified),
        policies: BTreeMap::new(),
    };
    assert!(settled(&duty).await.duty_in.is_some());
    assert!(
        Neo4j::open(&base(server.endpoint())).await.is_err(),
        "clear text is over"
    );
}

async fn logs_in_with_the_right_password_only(server: &Neo4jServer) {
    let (_, identity) = Neo4j::open(&base(server.endpoint())).await.unwrap();
    println!("neo4j: {identity:?}");
    assert!(
        identity.version.starts_with("5.") && identity.started_at.is_some(),
        "{identity:?}"
    );
    let wrong = Endpoint {
        password: Sensitive::new("wrong"),
        ..server.endpoint()
    };
    let error = Neo4j::open(&base(wrong.clone())).await.map(|_| ()).unwrap_err();
    assert!(matches!(error, StoreError::LoginRefused(_)), "{error}");
    let duty = Duty {
        base: base(wrong),
        policies: BTreeMap::new(),
    };
    let outcome = Neo4j::work(&mut Neo4jWorker::default(), &duty, &mut Neo4jFacts::default()).await;
    assert!(matches!(outcome, Err(StoreError::LoginRefused(_))), "{outcome:?}");
    let nobody = Endpoint {
        port: crate::support::process::free_port(),
        ..server.endpoint()
    };
    let error = Neo4j::open(&base(nobody.clone())).await.map(|_| ()).unwrap_err();
    assert!(matches!(error, StoreError::Unreachable(_)), "{error}");
    let duty = Duty {
        base: base(nobody),
        policies: BTreeMap::new(),
    };
    let outcome = Neo4j::work(&mut Neo4jWorker::default(), &duty, &mut Neo4jFacts::default()).await;
    assert!(matches!(outcome, Err(StoreError::Unreachable(_))), "{outcome:?}");
    let mut elsewhere = base(server.endpoint());
    elsewhere.database = name("nowhere");
    let error = Neo4j::open(&elsewhere).await.map(|_| ()).unwrap_err();
    assert!(matches!(error, StoreError::Rejected(_)), "{error}");
}

async fn speaks_tls_without_verification(server: &Neo4jServer) {
    let endpoint = Endpoint {
        tls: Tls::require(),
        ..server.endpoint()
    };
    let (mut sentinel, _) = Neo4j::open(&base(endpoint.clone())).await.unwrap();
    sentinel.ping().await.unwrap();
    let duty = Duty {
        base: base(endpoint),
        policies: BTreeMap::new(),
    };
    assert!(settled(&duty).await.duty_in.is_some());
}

async fn verifies_the_server_and_shows_a_certificate(server: &Neo4jServer) {
    let client = server.authority.issue("operator", "DNS:operator", Years::NOW);
    let identity = ClientCertificate {
        certificate: client.certificate,
        key: Sensitive::new(client.key),
    };
    let endpoint = |ca: &Authority, client| Endpoint {
        tls: Tls::Encrypt(Arc::new(Trust {
            verify: true,
            ca: Some(ca.pem()),
            client,
        })),
        ..server.endpoint()
    };
    for client in [None, Some(identity)] {
        let endpoint = endpoint(&server.authority, client);
        let (mut sentinel, _) = Neo4j::open(&base(endpoint.clone())).await.unwrap();
        sentinel.ping().await.unwrap();
        let duty = Duty {
            base: base(endpoint),
            policies: BTreeMap::new(),
        };
        assert!(settled(&duty).await.duty_in.is_some());
    }
    let stranger = base(endpoint(&Authority::new(), None));
    let error = Neo4j::open(&stranger).await.map(|_| ()).unwrap_err();
    assert!(
        matches!(&error, StoreError::Untrusted(text) if text.contains("unknown authority")),
        "{error}"
    );
    let duty = Duty {
        base: stranger,
        policies: BTreeMap::new(),
    };
    let outcome = Neo4j::work(&mut Neo4jWorker::default(), &duty, &mut Neo4jFacts::default()).await;
    assert!(outcome.is_err(), "the worker does not trust it either");
}

async fn the_start_time_is_the_same_in_every_answer(server: &Neo4jServer) {
    let first = Neo4j::open(&base(server.endpoint())).await.unwrap().1;
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(230)).await;
        assert_eq!(Neo4j::open(&base(server.endpoint())).await.unwrap().1, first);
    }
}

async fn a_foreign_claim_stops_everything(server: &Neo4jServer, graph: &Graph) {
    let mut duty = amas(server);
    duty.policies.clear();
    let facts = settled(&duty).await;
    assert_eq!(
        (facts.claim_conflict, facts.duty_in),
        (None, Some(duty.base.fingerprint()))
    );
    assert_eq!(number(graph, "MATCH (c:__AmasClaim) RETURN count(c) AS n").await, 1);
    let mut other = amas(server);
    other.base.claim.cluster_id = "c2".into();
    let before = server.last_write();
    let facts = settled(&other).await;
    assert!(
        facts
            .claim_conflict
            .unwrap()
            .starts_with("claimed by agents/amas of cluster c1")
    );
    assert_eq!((facts.duty_in, server.last_write()), (None, before));

    // A person says so; then it is let go, and the first owner has it again.
    other.policies.clear();
    other.base.take_over = Some("yes".into());
    assert_eq!(settled(&other).await.claim_conflict, None);
    assert!(settled(&duty).await.claim_conflict.is_some());
    assert_eq!(Neo4j::part(&other.base, Parting::Release).await.unwrap(), [""; 0]);
    assert_eq!(settled(&duty).await.claim_conflict, None);
}

/// The record of the one claim that there is.
async fn claim(graph: &Graph) -> String {
    let text = "MATCH (c:__AmasClaim) RETURN c.record AS record";
    let mut rows = Box::pin(graph.execute(query(text))).await.unwrap();
    let row = Box::pin(rows.next()).await.unwrap().unwrap();
    assert!(Box::pin(rows.next()).await.unwrap().is_none(), "there is one");
    row.get("record").unwrap()
}

async fn what_is_retained_is_adopted_by_the_next_of_the_name(server: &Neo4jServer, graph: &Graph) {
    let old = duty(server, vec![unique("kept_id_unique", "Kept", "id")], Vec::new());
    settled(&old).await;
    run(graph, "CREATE (:Kept {id: 1})").await;
    let kept = async || {
        let constraints = "SHOW CONSTRAINTS YIELD name WHERE name = 'kept_id_unique' RETURN count(*) AS n";
        let nodes = "MATCH (k:Kept) RETURN count(k) AS n";
        (number(graph, constraints).await, number(graph, nodes).await)
    };
    let held = claim(graph).await;
    assert!(held.contains("\"uid\":\"u1\"") && !held.contains("released"), "{held}");

    // The object is made anew on the volume that the one before it left.
    let mut new = old.clone();
    new.base.claim.uid = "u2".into();
    let facts = settled(&new).await;
    assert_eq!(
        (facts.claim_conflict, facts.duty_in),
        (None, Some(new.base.fingerprint()))
    );
    assert_eq!(
        claim(graph).await,
        held.replace("u1", "u2"),
        "the same name with a new uid is an adoption"
    );
    assert_eq!(kept().await, (1, 1));
    let before = server.last_write();
    settled(&new).await;
    assert_eq!(server.last_write(), before, "adopted, nothing is left to do");

    // Whoever was before it has nothing left to let go of; and what is let go is not dropped: it would go with its volume.
    assert_eq!(Neo4j::part(&old.base, Parting::Drop).await.unwrap(), [""; 0]);
    assert_eq!(claim(graph).await, held.replace("u1", "u2"));
    assert_eq!(Neo4j::part(&new.base, Parting::Drop).await.unwrap(), [""; 0]);
    assert!(claim(graph).await.contains("\"released\":"));
    assert_eq!(kept().await, (1, 1));

    // Let go or not, it is found again by the same object.
    let mut again = old.clone();
    again.base.claim.uid = "u3".into();
    settled(&again).await;
    assert_eq!(claim(graph).await, held.replace("u1", "u3"));
    // For what comes after.
    settled(&duty(server, Vec::new(), Vec::new())).await;
    run(graph, "MATCH (k:Kept) DELETE k").await;
    run(graph, "DROP CONSTRAINT kept_id_unique").await;
}

async fn brings_a_schema_in_and_then_writes_nothing(server: &Neo4jServer, graph: &Graph) {
    let quiet = server.last_write();
    run(
        graph,
        "UNWIND range(1, 1000) AS i CREATE (:Task {task_id: i, status: 'open'}), (:Agent {agent_id: i})",
    )
    .await;
    assert!(server.last_write() > quiet, "writes are seen");
    let duty = amas(server);
    let started = Instant::now();
    let facts = settled(&duty).await;
    println!(
        "neo4j: 3 constraints and 4 indexes online {:?} after the first look",
        started.elapsed()
    );
    assert!(facts.policies["amas"].is_in(), "{facts:?}");
    assert_eq!(facts.figures.nodes, 2000, "the claim is not counted");
    assert_eq!(
        facts.figures.labels,
        [("Agent".to_owned(), 1000), ("Task".to_owned(), 1000)]
    );
    let before = server.last_write();
    let started = Instant::now();
    let again = settled(&duty).await;
    println!("neo4j: a second look takes {:?}", started.elapsed());
    assert_eq!(again.material(), facts.material());
    assert_eq!(server.last_write(), before, "a second run writes nothing");
}

async fn adopts_and_reports(server: &Neo4jServer, graph: &Graph) {
    for statement in [
        "CREATE CONSTRAINT old_unique FOR (n:Old) REQUIRE n.id IS UNIQUE",
        "CREATE INDEX old_idx FOR (n:Old) ON (n.at)",
        "CREATE INDEX taken_idx FOR (n:Old) ON (n.other)",
        "CREATE INDEX in_the_way FOR (n:Way) ON (n.id)",
    ] {
        run(graph, statement).await;
    }
    let duty = duty(
        server,
        vec![unique("new_unique", "Old", "id"), unique("way_unique", "Way", "id")],
        vec![
            range("new_idx", "Old", "at"),
            range("taken_idx", "Old", "something"),
            range("id_idx", "Old", "id"),
        ],
    );
    let before = server.last_write();
    let facts = settled(&duty).await;
    let (constraints, indexes) = (&facts.policies["amas"].constraints, &facts.policies["amas"].indexes);
    assert_eq!(
        item(constraints, "new_unique").actual_name.as_deref(),
        Some("old_unique")
    );
    assert_eq!(item(indexes, "new_idx").actual_name.as_deref(), Some("old_idx"));
    assert_eq!(item(indexes, "new_idx").state, ItemState::Online);
    assert_eq!(
        item(indexes, "id_idx").actual_name.as_deref(),
        Some("old_unique"),
        "a constraint's index serves"
    );
    assert!(matches!(item(indexes, "taken_idx").state, ItemState::NameTaken(_)));
    assert!(matches!(item(constraints, "way_unique").state, ItemState::Blocked(_)));
    assert_eq!(server.last_write(), before);
}

async fn reports_duplicates_and_recovers_by_itself(server: &Neo4jServer, graph: &Graph) {
    // Five values, of which three occur more than once: 4 + 3 + 2 nodes.
    run(
        graph,
        "UNWIND [1,1,1,1,2,2,2,3,3,4,5] AS i CREATE (:Double {id: i, name: 'n' + i})",
    )
    .await;
    // What a broken constraint creation leaves behind looks like this.
    run(graph, "CREATE INDEX remains_unique FOR (n:Remains) ON (n.id)").await;
    let duty = duty(
        server,
        vec![
            unique("double_unique", "Double", "id"),
            unique("remains_unique", "Remains", "id"),
        ],
        vec![range("double_idx", "Double", "name")],
    );
    let (mut worker, mut facts) = (Neo4jWorker::default(), Neo4jFacts::default());
    let started = Instant::now();
    let again = settle(&mut worker, &duty, &mut facts).await;
    let policy = &facts.policies["amas"];
    let ItemState::Violated(violation) = &policy.constraints[0].state else {
        panic!("{policy:?}")
    };
    println!(
        "neo4j: duplicates reported after {:?}: {violation:?}",
        started.elapsed()
    );
    assert_eq!((violation.values, violation.nodes, violation.samples.len()), (3, 9, 3));
    let worst = &violation.samples[0];
    assert_eq!(
        (worst.values.as_slice(), worst.nodes, worst.elements.len()),
        (&["1".to_owned()][..], 4, 2)
    );
    assert!(matches!(policy.constraints[1].state, ItemState::Blocked(_)));
    assert_eq!(
        policy.indexes[0].state,
        ItemState::Online,
        "the rest of the schema is in"
    );
    assert!(again <= Duration::from_secs(30), "{again:?}");

    let material = facts.material();
    settle(&mut worker, &duty, &mut facts).await;
    assert_eq!(facts.material(), material, "nothing flips while it waits");

    run(
        graph,
        "MATCH (n:Double) WITH n.id AS id, collect(n) AS nodes UNWIND nodes[1..] AS n DELETE n",
    )
    .await;
    tokio::time::sleep(again).await;
    settle(&mut worker, &duty, &mut facts).await;
    println!(
        "neo4j: both constraints in {:?} after the first look",
        started.elapsed()
    );
    assert!(facts.policies["amas"].is_in(), "{facts:?}");
}

/// The operator is killed while it makes a constraint; the next one waits for the remains and cleans up.
async fn an_interrupted_creation_is_finished_later(server: &Neo4jServer, graph: &Graph) {
    for batch in 0..6 {
        run(
            graph,
            &format!("UNWIND range(1, 50000) AS i CREATE (:Large {{id: '{batch}-' + i}})"),
        )
        .await;
    }
    let duty = duty(server, vec![unique("large_unique", "Large", "id")], vec![]);
    let mut facts = Neo4jFacts::default();
    let mut worker = Neo4jWorker::default();
    let begun = async {
        while number(
            graph,
            "SHOW INDEXES YIELD name WHERE name = 'large_unique' RETURN count(*) AS n",
        )
        .await
            == 0
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        done = Neo4j::work(&mut worker, &duty, &mut facts) => println!("neo4j: too fast to be interrupted: {done:?}"),
        () = begun => println!("neo4j: interrupted in the middle"),
    }
    drop(worker);
    let started = Instant::now();
    let (mut worker, mut facts) = (Neo4jWorker::default(), Neo4jFacts::default());
    while !facts.policies.get("amas").is_some_and(|policy| policy.is_in()) {
        assert!(started.elapsed() < Duration::from_secs(180), "{facts:?}");
        let again = settle(&mut worker, &duty, &mut facts).await;
        println!(
            "neo4j: after the interruption: {:?}",
            facts.policies["amas"].constraints[0].state
        );
        if !facts.policies["amas"].is_in() {
            tokio::time::sleep(again).await;
        }
    }
    println!("neo4j: an interrupted constraint is in {:?} later", started.elapsed());
}

async fn sees_a_stopped_and_a_killed_server(server: &mut Neo4jServer) {
    let (mut sentinel, _) = Neo4j::open(&base(server.endpoint())).await.unwrap();
    let quiet = tokio::time::timeout(Duration::from_millis(200), sentinel.next_sign()).await;
    assert!(quiet.is_err(), "no sign from a healthy server");
    let started = Instant::now();
    sentinel.ping().await.unwrap();
    println!("neo4j: a ping takes {:?}", started.elapsed());
    server.process.signal("STOP");
    assert!(
        tokio::time::timeout(Duration::from_secs(1), sentinel.ping())
            .await
            .is_err(),
        "the deadline decides"
    );
    server.process.signal("CONT");
    tokio::time::timeout(Duration::from_secs(20), sentinel.ping())
        .await
        .unwrap()
        .unwrap();
    server.process.kill();
    let killed = Instant::now();
    let sign = tokio::time::timeout(Duration::from_secs(20), sentinel.next_sign())
        .await
        .unwrap();
    println!("neo4j: SIGKILL seen after {:?}", killed.elapsed());
    assert!(matches!(sign, Sign::Lost(_)));
    assert!(matches!(sentinel.ping().await, Err(StoreError::Unreachable(_))));
}
