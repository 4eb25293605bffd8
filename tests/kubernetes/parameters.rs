//! Parameters of a managed Redis, through the operator and a real server: one that it takes up while it runs, one that it refuses, one that it reads
//! at its start only.

use serde_json::{Value, json};

use crate::{
    deletion::reason,
    lifecycle::database,
    support::{
        kubernetes::{Kubernetes, condition_of},
        managed::Node,
    },
};

fn object(parameters: Value) -> Value {
    let managed = json!({"storage": {"size": "1Gi"}, "parameters": parameters});
    database("a", json!({"redis": {"managed": managed}}))
}

/// A connection as an application has it.
async fn client(node: &Node) -> redis::Connection {
    let password = node.secret("redis-connection").await["REDIS_PASSWORD"].clone();
    let settings = redis::RedisConnectionInfo::default().set_password(password);
    let info = redis::IntoConnectionInfo::into_connection_info((node.address.as_str(), 6379)).unwrap();
    let client = redis::Client::open(info.set_redis_settings(settings)).unwrap();
    client.get_connection().unwrap()
}

async fn shown(node: &Node, parameter: &str) -> String {
    let mut client = client(node).await;
    let found: Vec<String> = redis::cmd("CONFIG")
        .arg("GET")
        .arg(parameter)
        .query(&mut client)
        .unwrap();
    found[1].clone()
}

/// Another one after each start of the server.
async fn start(node: &Node) -> String {
    let mut client = client(node).await;
    let text: String = redis::cmd("INFO").arg("server").query(&mut client).unwrap();
    text.lines()
        .find(|line| line.starts_with("run_id:"))
        .unwrap()
        .to_owned()
}

fn says(map: &Value, line: &str) -> bool {
    map["data"]["redis.conf"]
        .as_str()
        .unwrap()
        .lines()
        .any(|own| own == line)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parameter_of_a_redis_is_taken_up_refused_or_brought_by_one_restart() {
    let api = Kubernetes::shared().await;
    let ns = api.namespace("parameters").await;
    let mut node = Node::new(&ns, "a");
    let _operator = node.operator(&[]);
    ns.apply(object(json!({}))).await;
    node.run(&["redis"]).await;
    ns.wait_condition("AmasDatabase", "a", "Ready", "True").await;
    let first = start(&node).await;
    let template = async || ns.get("StatefulSet", "a-redis").await.unwrap()["metadata"]["generation"].clone();
    let made = template().await;

    // By the running server.
    ns.apply(object(json!({"hz": "20"}))).await;
    ns.wait_condition("AmasDatabase", "a", "Ready", "True").await;
    assert_eq!(shown(&node, "hz").await, "20");
    let file = ns.get("ConfigMap", "a-redis-config").await.unwrap();
    assert!(says(&file, "hz \"20\""), "{file}");

    // What it refuses is told, and nothing is written.
    ns.apply(object(json!({"hz": "many"}))).await;
    let refused = |object: &Value| reason(object) == "InvalidParameter";
    let told = ns.wait("AmasDatabase", "a", "InvalidParameter", refused).await;
    let message = condition_of(&told, "Ready").unwrap()["message"].to_string();
    assert!(
        message.contains("spec.redis.managed.parameters") && message.contains("'hz'"),
        "{message}"
    );
    assert_eq!(condition_of(&told, "Available").unwrap()["status"], "True");
    assert_eq!(shown(&node, "hz").await, "20");
    assert_eq!(
        ns.get("ConfigMap", "a-redis-config").await.unwrap()["data"],
        file["data"]
    );
    assert_eq!(
        (start(&node).await, template().await),
        (first.clone(), made.clone()),
        "it goes on"
    );

    // By a start, once.
    ns.apply(object(json!({"hz": "20", "databases": "4"}))).await;
    ns.wait("StatefulSet", "a-redis", "made from another template", |set| {
        set["metadata"]["generation"] != made
    })
    .await;
    assert_eq!(shown(&node, "databases").await, "16");
    let waits = ns.wait_condition("AmasDatabase", "a", "Ready", "False").await;
    println!("{}", condition_of(&waits, "Ready").unwrap()["message"]);
    let file = ns.get("ConfigMap", "a-redis-config").await.unwrap();
    assert!(says(&file, "databases \"4\""), "{file}");
    node.run(&["redis"]).await;
    ns.wait_condition("AmasDatabase", "a", "Ready", "True").await;
    assert_ne!(start(&node).await, first);
    assert_eq!(
        (shown(&node, "databases").await, shown(&node, "hz").await),
        ("4".into(), "20".into())
    );
    let restarts = |event: &Value| event["reason"] == "Restarting";
    let told: Vec<Value> = ns.list("Event").await.into_iter().filter(restarts).collect();
    assert_eq!((told.len(), told[0]["series"].is_null()), (1, true), "{told:#?}");
}
