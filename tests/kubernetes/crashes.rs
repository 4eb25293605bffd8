//! The crash matrix of the API: every mutating request of a create, a change and a delete is spoilt in every way in which a network and a server
//! can spoil it, and the operator is killed after each; the end is the same as that of an undisturbed run.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sqlx::Row;
use tokio::{sync::Semaphore, task::JoinSet};

use crate::{
    lifecycle::{database, external},
    support::{
        kubernetes::{Kubernetes, Namespace},
        operator::Operator,
        postgres::Postgres,
        proxy::{ApiProxy, Fault},
    },
};

/// How many cases run at once.
const SIDE_BY_SIDE: usize = 6;
/// How long nothing may be written until a run has come to its end.
const QUIET: Duration = Duration::from_millis(2500);
const SETTLING: Duration = Duration::from_secs(60);
/// Events beyond those of an undisturbed run that a disturbance may cost.
const MORE_EVENTS: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Create,
    Change,
    Delete,
}
const STAGES: [Stage; 3] = [Stage::Create, Stage::Change, Stage::Delete];

/// What is done to one request.
#[derive(Clone, Copy, Debug)]
enum Blow {
    /// The operator is killed when the server has carried it out, before it knows.
    Kill,
    Fault(Fault),
}
const BLOWS: [Blow; 6] = [
    Blow::Kill,
    Blow::Fault(Fault::Answer(409)),
    Blow::Fault(Fault::Answer(429)),
    Blow::Fault(Fault::Answer(500)),
    Blow::Fault(Fault::Swallowed),
    Blow::Fault(Fault::LostAnswer),
];

/// One life of one object with an operator of its own.
struct Life {
    ns: Namespace,
    proxy: ApiProxy,
    operator: Operator,
    postgres: Arc<Postgres>,
    subject: Subject,
    /// In the names of the database and its roles.
    id: String,
}

/// Whose life it is: an external store shows what is written into a server, a managed one what a Delete takes away.
#[derive(Clone, Copy, Debug)]
enum Subject {
    External,
    Managed,
}

impl Life {
    async fn begin(api: &Kubernetes, postgres: &Arc<Postgres>, subject: Subject) -> Self {
        let ns = api.namespace("crash").await;
        let proxy = ApiProxy::start(api, &ns.name).await;
        ns.secret("postgres", &[("uri", &postgres.url("postgres", "postgres"))])
            .await;
        let operator = Operator::start(&ns, &proxy.kubeconfig, &[("POD_NAME", "operator")]);
        ns.wait("Lease", "amas-operator", "held", |_| true).await;
        let id = ns.name.replace('-', "_");
        Self {
            ns,
            proxy,
            operator,
            postgres: postgres.clone(),
            subject,
            id,
        }
    }

    fn object(&self, changed: bool) -> Value {
        match self.subject {
            Subject::External => {
                let extra = if changed { json!({"POOL": "20"}) } else { json!({}) };
                let mut roles = vec![
                    json!({"name": format!("{}_app", self.id), "access": "ReadWrite", "connection": {"extra": extra}}),
                ];
                if changed {
                    roles.push(json!({"name": format!("{}_reader", self.id), "access": "ReadOnly"}));
                }
                let sql = json!({"database": self.id, "owner": format!("{}_owner", self.id), "roles": roles, "external": external("postgres")});
                database("a", json!({"postgres": sql}))
            }
            Subject::Managed => {
                let cpu = if changed { "200m" } else { "100m" };
                let managed = json!({"storage": {"size": "1Gi"}, "resources": {"limits": {"cpu": cpu}}});
                database("a", json!({"deletionPolicy": "Delete", "redis": {"managed": managed}}))
            }
        }
    }

    async fn enter(&self, stage: Stage) {
        match stage {
            Stage::Create => drop(self.ns.apply(self.object(false)).await),
            Stage::Change => drop(self.ns.apply(self.object(true)).await),
            Stage::Delete => self.ns.delete("AmasDatabase", "a").await,
        }
    }

    /// Waits until the stage is over: the object stands as it should, and nothing is written any more.
    async fn settle(&self, stage: Stage) {
        match (stage, self.subject) {
            (Stage::Delete, _) => self.ns.wait_gone("AmasDatabase", "a").await,
            (_, Subject::External) => drop(self.ns.wait_condition("AmasDatabase", "a", "Ready", "True").await),
            (_, Subject::Managed) => drop(self.ns.wait_condition("AmasDatabase", "a", "Ready", "False").await),
        }
        let (mut seen, mut since) = (self.proxy.writes().len(), Instant::now());
        while since.elapsed() < QUIET {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let now = self.proxy.writes().len();
            if now != seen {
                (seen, since) = (now, Instant::now());
            }
        }
    }

    /// Everything that shall be the same whatever happened, one line each.
    async fn fingerprint(&self) -> String {
        let mut lines = Vec::new();
        for kind in [
            "StatefulSet",
            "Service",
            "ConfigMap",
            "PersistentVolumeClaim",
            "NetworkPolicy",
            "ServiceAccount",
            "Secret",
            "AmasDatabase",
        ] {
            lines.extend(
                self.ns
                    .list(kind)
                    .await
                    .iter()
                    .filter_map(|object| summary(kind, object)),
            );
        }
        lines.extend(self.catalog().await);
        lines
            .join("\n")
            .replace(&self.ns.name, "NS")
            .replace(&self.id, "ID")
            .replace(&self.id.replace('_', "-"), "ID")
    }

    async fn catalog(&self) -> Vec<String> {
        let mut conn = self.postgres.connect("postgres", "postgres").await;
        let rows = sqlx::query(
            "SELECT 'role ' || rolname || ' ' || concat_ws(',', rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolconnlimit) FROM pg_roles WHERE strpos(rolname, $1) = 1
             UNION ALL SELECT 'member ' || roleid::regrole || ' ' || member::regrole FROM pg_auth_members WHERE strpos(roleid::regrole::text, $1) = 1
             UNION ALL SELECT 'database ' || datname || ' ' || datdba::regrole || ' ' || coalesce(datacl::text, '') FROM pg_database WHERE datname = $1
             UNION ALL SELECT 'setting ' || setrole::regrole || ' ' || setconfig::text FROM pg_db_role_setting JOIN pg_database d ON d.oid = setdatabase WHERE datname = $1
             ORDER BY 1",
        )
        .bind(&self.id)
        .fetch_all(&mut conn)
        .await
        .unwrap();
        let mut lines: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        if lines.iter().any(|line| line.starts_with("database ")) {
            let mut conn = self.postgres.connect("postgres", &self.id).await;
            let rows = sqlx::query(
                "SELECT 'schema ' || nspname || ' ' || nspowner::regrole || ' ' || coalesce(nspacl::text, '') FROM pg_namespace WHERE nspname !~ '^pg_'
                 UNION ALL SELECT 'default ' || defaclrole::regrole || ' ' || defaclobjtype::text || ' ' || defaclacl::text FROM pg_default_acl
                 UNION ALL SELECT 'relation ' || oid::regclass || ' ' || relowner::regrole || ' ' || coalesce(relacl::text, '') FROM pg_class WHERE relkind IN ('r', 'S', 'v') AND relnamespace::regnamespace::text !~ '^(pg_|information_schema)'
                 UNION ALL SELECT 'extension ' || extname FROM pg_extension ORDER BY 1",
            )
            .fetch_all(&mut conn)
            .await
            .unwrap();
            lines.extend(rows.iter().map(|row| row.get::<String, _>(0)));
        }
        lines
    }

    /// The Secrets of ours as they are now.
    async fn secrets(&self) -> BTreeMap<String, Value> {
        let all = self.ns.list("Secret").await;
        let named = all
            .iter()
            .map(|secret| (secret["metadata"]["name"].to_string(), secret["data"].clone()));
        named.collect()
    }

    async fn events(&self) -> usize {
        let count = |event: &Value| event["count"].as_u64().unwrap_or(1) as usize;
        self.ns.list("Event").await.iter().map(count).sum()
    }

    async fn end(mut self) {
        self.operator.kill();
        let drop = format!("DROP DATABASE IF EXISTS \"{}\" WITH (FORCE)", self.id);
        self.postgres.admin("postgres", &[&drop]).await;
    }
}

fn summary(kind: &str, object: &Value) -> Option<String> {
    let meta = &object["metadata"];
    if meta["name"] == "kube-root-ca.crt" || meta["name"] == "default" {
        return None;
    }
    let mut content = match kind {
        // Passwords differ between runs.
        "Secret" => json!(object["data"].as_object().map(|data| data.keys().collect::<Vec<_>>())),
        "AmasDatabase" => {
            let all = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
            json!([
                object["spec"],
                all.iter()
                    .map(|c| format!("{}={} {}", c["type"], c["status"], c["reason"]))
                    .collect::<Vec<_>>()
            ])
        }
        _ => json!([object["spec"], object["data"], meta["annotations"]]),
    };
    if kind == "Service" {
        for assigned in ["clusterIP", "clusterIPs"] {
            if object["spec"][assigned] != "None" && object["spec"][assigned] != json!(["None"]) {
                content[0][assigned] = Value::Null;
            }
        }
    }
    Some(format!(
        "{kind} {} {} {} {content}",
        meta["name"], meta["labels"], meta["finalizers"]
    ))
}

/// What an undisturbed run is like at the end of a stage.
#[derive(Clone)]
struct Undisturbed {
    writes: Vec<String>,
    fingerprint: String,
    events: usize,
}

async fn undisturbed(api: &Kubernetes, postgres: &Arc<Postgres>, subject: Subject) -> Vec<Undisturbed> {
    let life = Life::begin(api, postgres, subject).await;
    let mut found = Vec::new();
    for stage in STAGES {
        life.proxy.spoil(0, Fault::Swallowed);
        life.enter(stage).await;
        life.settle(stage).await;
        found.push(Undisturbed {
            writes: life.proxy.writes(),
            fingerprint: life.fingerprint().await,
            events: life.events().await,
        });
    }
    life.end().await;
    found
}

/// One case; what was wrong.
async fn case(mut life: Life, stage: Stage, number: usize, blow: Blow, wanted: Undisturbed) -> Result<(), String> {
    for earlier in STAGES.into_iter().filter(|earlier| *earlier < stage) {
        life.enter(earlier).await;
        life.settle(earlier).await;
    }
    let fault = match blow {
        Blow::Kill => Fault::Unanswered,
        Blow::Fault(fault) => fault,
    };
    life.proxy.spoil(number, fault);
    life.enter(stage).await;
    if tokio::time::timeout(Duration::from_secs(20), life.proxy.spoilt())
        .await
        .is_err()
    {
        return Err("the request never came".into());
    }
    let before = life.secrets().await;
    if let Blow::Kill = blow {
        life.operator.kill();
        life.operator.again();
    }
    let begun = Instant::now();
    let mut found = String::new();
    while found != wanted.fingerprint {
        if begun.elapsed() > SETTLING {
            return Err(difference(&wanted.fingerprint, &found));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        found = life.fingerprint().await;
    }
    life.settle(stage).await;
    let found = life.fingerprint().await;
    if found != wanted.fingerprint {
        return Err(difference(&wanted.fingerprint, &found));
    }
    let (after, events) = (life.secrets().await, life.events().await);
    if stage == Stage::Create && before.iter().any(|(name, data)| after.get(name) != Some(data)) {
        return Err("a Secret has changed".into());
    }
    if events > wanted.events + MORE_EVENTS {
        return Err(format!("{events} Events instead of {}", wanted.events));
    }
    life.end().await;
    Ok(())
}

fn difference(wanted: &str, found: &str) -> String {
    let lacking = |a: &str, b: &str| {
        a.lines()
            .filter(|line| !b.lines().any(|other| other == *line))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    format!(
        "missing: {:#?}\ntoo much: {:#?}",
        lacking(wanted, found),
        lacking(found, wanted)
    )
}

async fn matrix(subject: Subject) {
    let api = Kubernetes::shared().await;
    let postgres = Arc::new(Postgres::start_with(&[("fsync", "off"), ("max_connections", "200")]).await);
    let begun = Instant::now();
    let normal = undisturbed(&api, &postgres, subject).await;
    let (gate, mut cases) = (Arc::new(Semaphore::new(SIDE_BY_SIDE)), JoinSet::new());
    for (stage, wanted) in STAGES.into_iter().zip(&normal) {
        for (index, write) in wanted.writes.iter().enumerate() {
            for blow in BLOWS {
                let (api, postgres, gate) = (api.clone(), postgres.clone(), gate.clone());
                let (wanted, name) = (wanted.clone(), format!("{stage:?} {blow:?} {}: {write}", index + 1));
                cases.spawn(async move {
                    let _turn = gate.acquire().await;
                    let life = Life::begin(&api, &postgres, subject).await;
                    case(life, stage, index + 1, blow, wanted)
                        .await
                        .map_err(|error| format!("{name}: {error}"))
                });
            }
        }
    }
    let (total, results) = (cases.len(), cases.join_all().await);
    let failures: Vec<String> = results.into_iter().filter_map(Result::err).collect();
    let counts: Vec<String> = STAGES
        .iter()
        .zip(&normal)
        .map(|(stage, run)| format!("{stage:?} {}", run.writes.len()))
        .collect();
    println!(
        "crash matrix, {subject:?}: API writes N = {}, {total} cases, {} failed, {:.0} s",
        counts.join(", "),
        failures.len(),
        begun.elapsed().as_secs_f64()
    );
    assert!(total > 0 && failures.is_empty(), "{}", failures.join("\n\n"));
}

#[tokio::test]
async fn whatever_happens_to_a_request_about_an_external_store_the_end_is_the_same() {
    matrix(Subject::External).await;
}

#[tokio::test]
async fn whatever_happens_to_a_request_about_a_managed_store_the_end_is_the_same() {
    matrix(Subject::Managed).await;
}
