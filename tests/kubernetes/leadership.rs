//! Two operators, one lease: whatever happens to the one that leads, there are never two that write.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    lifecycle::{database, external},
    support::{
        audit::{Class, Mark, Request, Requests},
        fault::{Fault, Which},
        kubernetes::{Kubernetes, Namespace, PATIENCE},
        operator::Operator,
        postgres::Postgres,
        process::eventually,
        proxy::ApiProxy,
        store_proxy::{Protocol, StoreProxy},
    },
};

const LEASE: &str = "amas-operator";

/// How long a lease is good for, what a candidate's looks add at its beginning and at its end, and a margin for a busy machine.
const HAND_OVER: Duration = Duration::from_secs(15 + 4 + 20);
/// Between two looks at the log of the API server, which is long.
const LOOK: Duration = Duration::from_millis(250);

fn holder(lease: &Value) -> &str {
    lease
        .pointer("/spec/holderIdentity")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// Edits an object every 100 ms, so that whoever leads always has something to write.
fn keep_editing(ns: &Namespace) -> tokio::task::JoinHandle<()> {
    let ns = ns.clone();
    tokio::spawn(async move {
        for turn in 0_u64.. {
            let managed =
                json!({"storage": {"size": "1Gi"}, "resources": {"limits": {"cpu": format!("{}m", 100 + turn % 900)}}});
            let spec = json!({"redis": {"managed": managed}});
            let object = json!({"apiVersion": "amas.dev/v1alpha1", "kind": "AmasDatabase", "metadata": {"name": "a"}, "spec": spec});
            // One that fails is followed by the next.
            let _ = ns.try_apply(object).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
}

struct Rival {
    name: &'static str,
    proxy: ApiProxy,
    operator: Operator,
}

impl Rival {
    async fn start(ns: &Namespace, name: &'static str) -> Self {
        let proxy = ApiProxy::start(&ns.api, name).await;
        let operator = Operator::start(ns, &proxy.kubeconfig, &[("POD_NAME", name)]);
        Self { name, proxy, operator }
    }

    /// Its writes that the API server accepted.
    fn accepted(&self, all: &Requests) -> Vec<Request> {
        let agent = format!("({})", self.name);
        let mine = all.writes().0.into_iter();
        mine.filter(|request| request.agent.ends_with(&agent) && request.code < 300)
            .collect()
    }

    /// Waits until the API server accepts a write of it.
    async fn writes(&self, ns: &Namespace) {
        let mark = ns.api.audit();
        eventually(&format!("{} writes", self.name), PATIENCE, async || {
            tokio::time::sleep(LOOK).await;
            let all = mark.requests().unwrap().in_namespace(&ns.name);
            !self.accepted(&all).is_empty()
        })
        .await;
    }
}

/// Nothing that `old` wrote was accepted once `new` held the lease. Gives how long nobody wrote.
fn assert_no_overlap(ns: &Namespace, all: &Requests, old: &Rival, new: &Rival) {
    let agent = format!("({})", new.name);
    let mut takes = all.only(&[Class::Lease]).0.into_iter();
    let taken = takes
        .find(|r| r.verb == "update" && r.code == 200 && r.agent.ends_with(&agent))
        .expect("the lease was taken");
    let (before, after) = (old.accepted(all), new.accepted(all));
    let (last, first) = (
        before.last().expect("the old one wrote"),
        after.first().expect("the new one writes"),
    );
    println!(
        "leadership {}: last write of {} {}, lease taken by {} {}, its first write {}",
        ns.name, old.name, last.at, new.name, taken.at, first.at
    );
    let late: Vec<_> = before.iter().filter(|request| request.at >= taken.at).collect();
    assert!(
        late.is_empty(),
        "{} wrote after {} took the lease: {late:#?}",
        old.name,
        new.name
    );
}

/// Who has lost the lease ends.
async fn ended(operator: &mut Operator) {
    let begun = Instant::now();
    while operator.runs() {
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "still runs:\n{}",
            operator.log()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn held_by(ns: &Namespace, name: &str) {
    ns.wait("Lease", LEASE, &format!("held by {name}"), |lease| {
        holder(lease) == name
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_that_is_cut_off_or_frozen_never_writes_beside_its_successor() {
    let api = Kubernetes::shared().await;
    let ns = api.namespace("two").await;
    let mark = api.audit();
    let here = |mark: &Mark| mark.requests().unwrap().in_namespace(&ns.name);
    let mut first = Rival::start(&ns, "first").await;
    held_by(&ns, "first").await;
    let mut second = Rival::start(&ns, "second").await;
    let editor = keep_editing(&ns);
    first.writes(&ns).await;

    // The network of the first pauses for longer than its lease.
    first.proxy.cut();
    let began = Instant::now();
    held_by(&ns, "second").await;
    println!(
        "leadership: handed over {:.1} s after the network was cut",
        began.elapsed().as_secs_f64()
    );
    assert!(began.elapsed() < HAND_OVER);
    second.writes(&ns).await;
    first.proxy.restore();
    ended(&mut first.operator).await;
    assert_no_overlap(&ns, &here(&mark), &first, &second);

    // The second is frozen for longer than its lease, and thawed while the first leads.
    first.operator.again();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mark = api.audit();
    second.writes(&ns).await;
    second.operator.signal("STOP");
    let began = Instant::now();
    held_by(&ns, "first").await;
    println!(
        "leadership: handed over {:.1} s after the leader was frozen",
        began.elapsed().as_secs_f64()
    );
    assert!(began.elapsed() < HAND_OVER);
    first.writes(&ns).await;
    second.operator.signal("CONT");
    ended(&mut second.operator).await;
    assert_no_overlap(&ns, &here(&mark), &second, &first);
    editor.abort();
}

#[tokio::test]
async fn what_was_left_of_the_work_on_a_store_is_not_sent_after_the_lease() {
    let api = Kubernetes::shared().await;
    let ns = api.namespace("late").await;
    let postgres = Postgres::shared().await;
    let store = StoreProxy::start(Protocol::Postgres, postgres.port).await;
    let uri = format!("postgres://postgres@127.0.0.1:{}/postgres", store.port);
    ns.secret("postgres", &[("uri", &uri)]).await;
    let mut first = ns.operator(&[("POD_NAME", "first")]).await;
    held_by(&ns, "first").await;

    // It is frozen while the answer to its first statements is on its way: the database is to be made next.
    store.plan.begin(Some((Which::Number(1), Fault::Held)));
    let sql = json!({"database": "late", "owner": "late_owner", "external": external("postgres")});
    ns.apply(database("a", json!({"postgres": sql}))).await;
    store.plan.happened().await;
    first.signal("STOP");
    let second = ns.operator(&[("POD_NAME", "second")]).await;
    held_by(&ns, "second").await;
    ns.wait_condition("AmasDatabase", "a", "Ready", "True").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let by_second = store.plan.writes();

    // The answer arrives, and it goes on.
    store.plan.let_go();
    first.signal("CONT");
    ended(&mut first).await;
    println!(
        "leadership: {} writes to the store until the thaw, {} after it",
        by_second.len(),
        store.plan.counted() - by_second.len()
    );
    assert_eq!(store.plan.writes(), by_second, "{}", second.log());
}
