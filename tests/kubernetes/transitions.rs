//! What a specification may become: suspended, another operator's, without a store and with it again.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    deletion::reason,
    lifecycle::{database, external, postgres, redis},
    support::{
        audit::Mark,
        kubernetes::{Kubernetes, Namespace, PATIENCE, condition_of},
        postmaster::Postmaster,
        process::eventually,
    },
};

/// How long nothing happens where nothing may.
const SILENCE: Duration = Duration::from_secs(3);

fn managed(size: &str, persistence: &str) -> Value {
    json!({"managed": {"persistence": persistence, "storage": {"size": size}}})
}

async fn silent(ns: &Namespace, mark: &Mark, but: &[&str]) {
    let requests = mark.requests().unwrap().in_namespace(&ns.name).writes();
    let others = requests
        .0
        .iter()
        .filter(|request| !but.contains(&request.resource.as_str()));
    assert_eq!(others.count(), 0, "{}", requests.lines());
}

async fn named_after_redis(ns: &Namespace, kind: &str) -> bool {
    let named = |object: &Value| {
        object["metadata"]["name"]
            .as_str()
            .is_some_and(|name| name.starts_with("a-redis"))
    };
    ns.list(kind).await.iter().any(named)
}

async fn uid(ns: &Namespace, kind: &str, name: &str) -> Value {
    ns.get(kind, name).await.unwrap_or_else(|| panic!("no {kind} {name}"))["metadata"]["uid"].clone()
}

#[tokio::test]
async fn while_suspended_nothing_is_written_anywhere() {
    let api = Kubernetes::shared().await;
    let ns = api.namespace("suspend").await;
    let postgres = postgres(&ns).await;
    let mut operator = ns.operator(&[]).await;
    let object = |suspend: bool, roles: &[&str]| {
        let roles: Vec<Value> = roles
            .iter()
            .map(|name| json!({"name": name, "access": "ReadWrite"}))
            .collect();
        let sql = json!({"database": "suspended", "owner": "suspended_owner", "roles": roles, "external": external("postgres")});
        database(
            "a",
            json!({"suspend": suspend, "postgres": sql, "redis": managed("1Gi", "AOF"), "deletionPolicy": "Delete"}),
        )
    };
    let roles = async || -> Vec<String> {
        let mut admin = postgres.connect("postgres", "postgres").await;
        let query = "SELECT rolname::text FROM pg_roles WHERE rolname LIKE 'suspended%' ORDER BY 1";
        sqlx::query_scalar(query).fetch_all(&mut admin).await.unwrap()
    };
    ns.apply(object(false, &["suspended_app"])).await;
    ns.wait("StatefulSet", "a-redis", "there", |_| true).await;
    ns.wait_condition("AmasDatabase", "a", "PostgresReady", "True").await;

    let mark = api.audit();
    ns.apply(object(true, &["suspended_app", "suspended_more"])).await;
    ns.wait("AmasDatabase", "a", "Suspended", |object| reason(object) == "Suspended")
        .await;
    ns.delete("ConfigMap", "a-redis-config").await;
    tokio::time::sleep(SILENCE).await;
    silent(&ns, &mark, &["amasdatabases/status", "events"]).await;
    // Neither does one that starts.
    operator.kill();
    operator.again();
    tokio::time::sleep(SILENCE).await;
    silent(&ns, &mark, &["amasdatabases/status", "events"]).await;
    assert_eq!(roles().await, ["suspended_app", "suspended_owner"]);
    // Its health is known all the same.
    let object_now = ns.get("AmasDatabase", "a").await.unwrap();
    assert_eq!(condition_of(&object_now, "Stalled").unwrap()["reason"], "Suspended");

    ns.apply(object(false, &["suspended_app", "suspended_more"])).await;
    ns.wait("ConfigMap", "a-redis-config", "back", |_| true).await;
    ns.wait("Secret", "a-role-suspended-more", "made", |_| true).await;
    ns.wait_condition("AmasDatabase", "a", "PostgresReady", "True").await;
    assert_eq!(roles().await.len(), 3);

    // A deletion is carried out, suspended or not.
    ns.apply(object(true, &["suspended_app", "suspended_more"])).await;
    ns.delete("AmasDatabase", "a").await;
    ns.wait_gone("AmasDatabase", "a").await;
    assert!(roles().await.is_empty());
}

#[tokio::test]
async fn suspended_holds_beside_something_invalid_and_for_policies_too() {
    let api = Kubernetes::shared().await;
    let ns = api.namespace("held").await;
    let server = redis(&ns).await;
    let _operator = ns.operator(&[]).await;
    let object = |suspend: bool, zone: &str| {
        let window = json!({"start": "02:30", "duration": "1h", "timeZone": zone});
        database(
            "a",
            json!({"suspend": suspend, "redis": {"external": external("redis")}, "maintenanceWindow": window}),
        )
    };
    ns.apply(object(false, "Etc/UTC")).await;
    let rules = json!([{"name": "sessions", "pattern": "session:*", "ttl": "1h", "mode": "Enforce"}]);
    ns.apply(json!({
        "apiVersion": "amas.dev/v1alpha1", "kind": "CachePolicy", "metadata": {"name": "p"},
        "spec": {"databaseRef": {"name": "a"}, "prefix": "app", "rules": rules, "sweepInterval": "1s"},
    }))
    .await;
    ns.wait_condition("CachePolicy", "p", "Ready", "True").await;
    let put = |key: &str| {
        let _: () = redis::cmd("SET").arg(key).arg("v").query(&mut server.client()).unwrap();
    };
    let ttl = |key: &str| -> i64 { redis::cmd("TTL").arg(key).query(&mut server.client()).unwrap() };
    put("app:session:1");
    eventually("a time to live", PATIENCE, async || ttl("app:session:1") > 0).await;

    ns.apply(object(true, "Nowhere/Town")).await;
    let invalid = |object: &Value| reason(object) == "InvalidSpec";
    ns.wait("AmasDatabase", "a", "InvalidSpec", invalid).await;
    put("app:session:2");
    tokio::time::sleep(SILENCE).await;
    assert_eq!(ttl("app:session:2"), -1, "a sweep went on");

    ns.apply(object(false, "Etc/UTC")).await;
    eventually("a time to live", PATIENCE, async || ttl("app:session:2") > 0).await;
}

#[tokio::test]
async fn while_suspended_a_servers_end_and_return_are_told() {
    let api = Kubernetes::shared().await;
    let ns = api.namespace("asleep").await;
    let mut server = Postmaster::start().await;
    let uri = format!(
        "postgresql://postgres:{}@127.0.0.1:{}/postgres",
        server.password, server.port
    );
    ns.secret("postgres", &[("uri", &uri)]).await;
    let _operator = ns.operator(&[]).await;
    let object = |suspend: bool| {
        let sql = json!({"database": "asleep", "external": external("postgres")});
        database("a", json!({"suspend": suspend, "postgres": sql}))
    };
    ns.apply(object(false)).await;
    ns.wait_condition("AmasDatabase", "a", "Ready", "True").await;
    ns.apply(object(true)).await;
    let asleep = |object: &Value| {
        reason(object) == "Suspended" && condition_of(object, "Ready").is_some_and(|ready| ready["status"] == "True")
    };
    ns.wait("AmasDatabase", "a", "suspended, with nothing that waits", asleep)
        .await;

    let statements = |server: &Postmaster| server.log().matches("statement: ").count();
    server.kill();
    let begun = Instant::now();
    let lost = ns.wait_condition("AmasDatabase", "a", "PostgresReady", "False").await;
    println!("suspended: a killed server was told after {:?}", begun.elapsed());
    for condition in ["Ready", "Available"] {
        assert_eq!(
            condition_of(&lost, condition).unwrap()["status"],
            "False",
            "{condition}"
        );
    }
    let before = statements(&server);
    server.launch();
    ns.wait("AmasDatabase", "a", "suspended, with nothing that waits", asleep)
        .await;
    let back = ns.wait_condition("AmasDatabase", "a", "PostgresReady", "True").await;
    assert_eq!(condition_of(&back, "Available").unwrap()["status"], "True");
    let log = server.log();
    let written = log.split("statement: ").skip(before + 1);
    for statement in written {
        let word = statement.split_whitespace().next().unwrap_or_default();
        assert!(
            !["CREATE", "ALTER", "GRANT", "INSERT", "COMMENT"].contains(&word),
            "{statement}"
        );
    }
}

#[tokio::test]
async fn policies_of_another_class_are_left_to_its_operator() {
    let api = Kubernetes::shared().await;
    let ns = api.namespace("classes").await;
    let _redis = redis(&ns).await;
    let _operator = ns.operator(&[]).await;
    let graph = json!({"managed": {"storage": {"size": "1Gi"}}});
    ns.apply(database(
        "a",
        json!({"redis": {"external": external("redis")}, "neo4j": graph}),
    ))
    .await;
    ns.wait_condition("AmasDatabase", "a", "RedisReady", "True").await;
    let rules = json!([{"name": "sessions", "pattern": "session:*", "ttl": "1h"}]);
    let constraints = json!([{"name": "task_id", "label": "Task", "properties": ["id"], "type": "Unique"}]);
    let kinds = [
        ("CachePolicy", json!({"prefix": "app", "rules": rules})),
        ("GraphSchema", json!({"constraints": constraints})),
    ];
    let object = |kind: &str, spec: &Value, class: Option<&str>| {
        let mut spec = spec.clone();
        spec["databaseRef"] = json!({"name": "a"});
        if let Some(class) = class {
            spec["controllerClass"] = json!(class);
        }
        json!({"apiVersion": "amas.dev/v1alpha1", "kind": kind, "metadata": {"name": "p"}, "spec": spec})
    };
    let mark = api.audit();
    for (kind, spec) in &kinds {
        ns.apply(object(kind, spec, Some("blue"))).await;
    }
    tokio::time::sleep(SILENCE).await;
    let touched = |resource: &str| {
        mark.requests()
            .unwrap()
            .in_namespace(&ns.name)
            .writes()
            .of(resource)
            .len()
    };
    for resource in ["cachepolicies/status", "graphschemas/status"] {
        assert_eq!(touched(resource), 0, "{resource}");
    }
    // Handed to ours.
    for (kind, spec) in &kinds {
        ns.apply(object(kind, spec, None)).await;
    }
    ns.wait_condition("CachePolicy", "p", "Ready", "True").await;
    let waits = |object: &Value| reason(object) == "WaitingForStore";
    ns.wait("GraphSchema", "p", "seen, and waits for its server", waits)
        .await;
    assert!(touched("cachepolicies/status") > 0 && touched("graphschemas/status") > 0);

    // And away: what it says then stays as it is.
    for (kind, spec) in &kinds {
        ns.apply(object(kind, spec, Some("blue"))).await;
    }
    let seen = async |kind: &str| ns.get(kind, "p").await.unwrap()["status"]["observedGeneration"].clone();
    tokio::time::sleep(SILENCE).await;
    for (kind, _) in &kinds {
        assert_eq!(seen(kind).await, 2, "{kind}");
    }
}

#[tokio::test]
async fn a_role_and_an_extension_that_are_taken_out_are_locked_and_told_and_come_back() {
    let api = Kubernetes::shared().await;
    let ns = api.namespace("removed").await;
    let postgres = postgres(&ns).await;
    let _operator = ns.operator(&[]).await;
    let object = |roles: &[&str], extensions: &[&str]| {
        let role = |name: &&str| json!({"name": name, "access": "ReadWrite"});
        let roles: Vec<Value> = roles.iter().map(role).collect();
        let sql = json!({"database": "removed", "owner": "removed_owner", "roles": roles, "extensions": extensions,
            "external": external("postgres")});
        database("a", json!({"postgres": sql}))
    };
    let (all, left) = (["removed_app", "removed_idle", "removed_more"], ["removed_app"]);
    ns.apply(object(&all, &["citext", "pg_trgm"])).await;
    ns.wait_condition("AmasDatabase", "a", "Ready", "True").await;
    // One that owns something, and one that owns nothing.
    postgres
        .admin("removed", &["CREATE SCHEMA theirs AUTHORIZATION removed_more"])
        .await;

    ns.apply(object(&left, &["pg_trgm"])).await;
    let secrets = ["a-role-removed-idle", "a-role-removed-more"];
    let shown = |object: &Value| {
        let status = &object["status"];
        let store = &status["stores"]["postgres"];
        let listed = |name: &&str| {
            status["secrets"]
                .as_array()
                .is_some_and(|all| all.contains(&json!(name)))
        };
        store["retiredRoles"] == json!(["removed_more"])
            && store["undeclaredExtensions"] == json!(["citext"])
            && !secrets.iter().any(listed)
    };
    ns.wait("AmasDatabase", "a", "told what stays", shown).await;
    ns.wait_condition("AmasDatabase", "a", "Ready", "True").await;
    for secret in secrets {
        ns.wait_gone("Secret", secret).await;
    }
    let column = async |query: &'static str| -> Vec<String> {
        let mut admin = postgres.connect("postgres", "removed").await;
        sqlx::query_scalar(query).fetch_all(&mut admin).await.unwrap()
    };
    let roles = "SELECT rolname || CASE WHEN rolcanlogin THEN '' ELSE ' (locked)' END FROM pg_roles WHERE rolname ~ '^removed_(app|idle|more)' ORDER BY 1";
    let extensions = "SELECT extname::text FROM pg_extension WHERE extname IN ('citext', 'pg_trgm') ORDER BY 1";
    assert_eq!(column(roles).await, ["removed_app", "removed_more (locked)"]);
    assert_eq!(column(extensions).await, ["citext", "pg_trgm"], "never dropped");

    ns.apply(object(&all, &["citext", "pg_trgm"])).await;
    ns.wait_condition("AmasDatabase", "a", "Ready", "True").await;
    assert_eq!(column(roles).await, all);
    for secret in secrets {
        ns.wait("Secret", secret, "made anew", |_| true).await;
    }
    let forgotten = |object: &Value| {
        let store = &object["status"]["stores"]["postgres"];
        store["retiredRoles"].is_null() && store["undeclaredExtensions"].is_null()
    };
    ns.wait("AmasDatabase", "a", "nothing left to tell", forgotten).await;
}

#[tokio::test]
async fn another_class_is_taken_up_by_its_operator_as_it_is() {
    let api = Kubernetes::shared().await;
    let ns = api.namespace("class").await;
    let postgres = postgres(&ns).await;
    let first = ns.operator(&[("POD_NAME", "first")]).await;
    let second = ns
        .operator(&[
            ("POD_NAME", "second"),
            ("AMAS_CONTROLLER_CLASS", "blue"),
            ("AMAS_LEASE_NAME", "blue"),
        ])
        .await;
    for lease in ["amas-operator", "blue"] {
        ns.wait("Lease", lease, "held", |_| true).await;
    }
    let object = |class: Option<&str>, extra: Value| {
        let roles = json!([{"name": "class_app", "access": "ReadWrite", "connection": {"extra": extra}}]);
        let sql =
            json!({"database": "class", "owner": "class_owner", "roles": roles, "external": external("postgres")});
        let mut object = database("a", json!({"postgres": sql, "redis": managed("1Gi", "AOF")}));
        if let Some(class) = class {
            object["spec"]["controllerClass"] = json!(class);
        }
        object
    };
    ns.apply(object(None, json!({}))).await;
    ns.wait_condition("AmasDatabase", "a", "PostgresReady", "True").await;
    ns.wait("StatefulSet", "a-redis", "there", |_| true).await;
    let claim = async || -> Vec<String> {
        let mut admin = postgres.connect("postgres", "class").await;
        sqlx::query_scalar("SELECT concat_ws(' ', name, uid, created_by_us, since, released) FROM amas_operator.claim")
            .fetch_all(&mut admin)
            .await
            .unwrap()
    };
    let before = (claim().await, uid(&ns, "StatefulSet", "a-redis").await);

    // Handed over: the next change is carried out by the other, and by it alone.
    let mark = api.audit();
    ns.apply(object(Some("blue"), json!({"TURN": "1"}))).await;
    ns.wait("Secret", "a-role-class-app", "changed", |secret| {
        !secret["data"]["TURN"].is_null()
    })
    .await;
    ns.wait_condition("AmasDatabase", "a", "PostgresReady", "True").await;
    assert_eq!(
        (claim().await, uid(&ns, "StatefulSet", "a-redis").await),
        before,
        "claims and children stay as they are"
    );
    let made = mark.requests().unwrap().in_namespace(&ns.name).writes();
    assert!(
        made.0
            .iter()
            .all(|request| request.verb != "create" || request.resource == "events"),
        "{}",
        made.lines()
    );
    assert!(first.log().contains("leading") && second.log().contains("leading"));
    drop(second);
    ns.apply(object(Some("blue"), json!({"TURN": "2"}))).await;
    let mark = api.audit();
    tokio::time::sleep(SILENCE).await;
    silent(&ns, &mark, &[]).await;

    // And back.
    ns.apply(object(None, json!({"TURN": "3"}))).await;
    ns.wait_condition("AmasDatabase", "a", "PostgresReady", "True").await;
    assert_eq!((claim().await, uid(&ns, "StatefulSet", "a-redis").await), before);
}

#[tokio::test]
async fn a_store_that_was_taken_out_leaves_its_data_and_comes_back_as_it_was() {
    let api = Kubernetes::shared().await;
    let ns = api.namespace("block").await;
    let _operator = ns.operator(&[]).await;
    let graph = json!({"managed": {"storage": {"size": "1Gi"}}});
    let both = |redis: Value| database("a", json!({"redis": redis, "neo4j": graph}));
    ns.apply(both(managed("1Gi", "AOF"))).await;
    ns.wait("StatefulSet", "a-redis", "there", |_| true).await;
    let kept = async || {
        let secret = ns.get("Secret", "a-redis-connection").await.unwrap();
        (
            uid(&ns, "PersistentVolumeClaim", "a-redis").await,
            secret["metadata"]["uid"].clone(),
            secret["data"].clone(),
        )
    };
    let before = kept().await;
    for kind in ["StatefulSet", "Service", "ConfigMap", "NetworkPolicy"] {
        eventually(&format!("a {kind}"), PATIENCE, async || {
            named_after_redis(&ns, kind).await
        })
        .await;
    }

    ns.apply(database("a", json!({"neo4j": graph}))).await;
    for kind in ["StatefulSet", "Service", "ConfigMap", "NetworkPolicy"] {
        eventually(&format!("no {kind} is left"), PATIENCE, async || {
            !named_after_redis(&ns, kind).await
        })
        .await;
    }
    let shown = |object: &Value| {
        let listed = |field: &str, name: &str| {
            object["status"][field]
                .as_array()
                .is_some_and(|all| all.contains(&json!(name)))
        };
        condition_of(object, "RedisReady").is_none()
            && listed("volumes", "a-redis")
            && listed("secrets", "a-redis-connection")
    };
    ns.wait("AmasDatabase", "a", "without Redis, and what it left", shown)
        .await;
    assert_eq!(kept().await, before);

    // Another one on that volume is refused, by us: the API server compares with the specification before only.
    ns.apply(both(managed("1Gi", "RDB"))).await;
    let object = ns
        .wait("AmasDatabase", "a", "refused", |object| reason(object) == "InvalidSpec")
        .await;
    let said = condition_of(&object, "Ready").unwrap()["message"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(said.contains("spec.redis.managed.persistence"), "{said}");
    assert!(ns.get("StatefulSet", "a-redis").await.is_none());
    ns.apply(database("a", json!({"neo4j": graph}))).await;
    ns.apply(both(managed("1Gi", "AOF"))).await;
    ns.wait("StatefulSet", "a-redis", "back", |_| true).await;
    assert_eq!(kept().await, before);
}
