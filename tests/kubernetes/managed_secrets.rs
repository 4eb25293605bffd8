//! Secrets of managed stores: those that the user brings, from the first start of a server on and after each change; and ours, lost and put back.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    credentials::opens,
    deletion::reason,
    lifecycle::database,
    support::{
        kubernetes::{Kubernetes, condition_of},
        managed::Node,
        neo4j,
        operator::Operator,
        process::eventually,
    },
};

/// How long a change may take to be taken up: it is looked for every 10 s; the rest is a margin for a busy machine.
const NOTICED: Duration = Duration::from_secs(10 + 20);

/// The Secrets that are brought, and those that applications read.
const BROUGHT: [(&str, &str); 4] = [
    ("postgres-admin", "postgres-admin"),
    ("owner", "role-made-owner"),
    ("redis", "redis-connection"),
    ("neo4j", "neo4j-connection"),
];

struct Scene {
    node: Node,
    _operator: Operator,
    stores: Vec<&'static str>,
    secrets: Vec<(&'static str, &'static str)>,
}

impl Scene {
    /// Managed stores with this spec, running; without Neo4j where there is none.
    async fn run(name: &str, mut spec: Value, brought: &[(&'static str, &str)]) -> Self {
        let ns = Kubernetes::shared().await.namespace(name).await;
        for (secret, password) in brought {
            ns.secret(secret, &[("password", password)]).await;
        }
        let (mut stores, mut secrets) = (vec!["postgres", "redis", "neo4j"], BROUGHT.to_vec());
        if neo4j::jars().is_none() {
            spec.as_object_mut().unwrap().remove("neo4j");
            stores.pop();
            secrets.pop();
        }
        let mut node = Node::new(&ns, "a");
        let operator = node.operator(&[]);
        ns.apply(database("a", spec)).await;
        node.run(&stores).await;
        ns.wait_condition("AmasDatabase", "a", "Ready", "True").await;
        Self {
            node,
            _operator: operator,
            stores,
            secrets,
        }
    }

    /// Waits until whoever reads each Secret that is published gets in, with the password that was brought for it if one was.
    async fn serve(&self, password: Option<&dyn Fn(&str) -> String>) {
        for (brought, published) in &self.secrets {
            eventually(&format!("{published} opens"), NOTICED, async || {
                let secret = self.node.secret(published).await;
                let is_it = password.is_none_or(|password| secret.values().any(|value| *value == password(brought)));
                is_it && opens(published, &secret, &self.node.address).await
            })
            .await;
        }
    }
}

fn managed() -> Value {
    json!({"storage": {"size": "1Gi"}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_user_brings_opens_every_managed_store_and_is_followed() {
    let first = |name: &str| format!("first of {name}");
    let second = |name: &str| format!("second of {name}");
    let with = |field: &str, secret: &str| {
        let mut managed = managed();
        managed[field] = json!({"name": secret});
        managed
    };
    let spec = json!({
        "postgres": {"database": "made", "ownerSecretRef": {"name": "owner"}, "managed": with("adminSecretRef", "postgres-admin")},
        "redis": {"managed": with("secretRef", "redis")},
        "neo4j": {"managed": with("secretRef", "neo4j")},
    });
    let passwords = BROUGHT.map(|(secret, _)| (secret, first(secret)));
    let brought: Vec<(&str, &str)> = passwords
        .iter()
        .map(|(secret, word)| (*secret, word.as_str()))
        .collect();
    let scene = Scene::run("brings", spec, &brought).await;
    scene.serve(Some(&first)).await;
    let before = scene.node.secret("redis-connection").await;

    let ns = &scene.node.ns;
    for (secret, _) in &scene.secrets {
        ns.secret(secret, &[("password", &second(secret))]).await;
    }
    ns.annotate("a", "amas.dev/reread-secrets", "1").await;
    scene.serve(Some(&second)).await;
    ns.wait_condition("AmasDatabase", "a", "Ready", "True").await;
    assert_ne!(before, scene.node.secret("redis-connection").await);

    // What cannot be used changes nothing.
    ns.secret("redis", &[("password", "with\na line break")]).await;
    ns.annotate("a", "amas.dev/reread-secrets", "2").await;
    let told = |object: &Value| reason(object) == "CredentialsMissing";
    let object = ns.wait("AmasDatabase", "a", "CredentialsMissing", told).await;
    let message = condition_of(&object, "Ready").unwrap()["message"].to_string();
    assert!(message.contains("Secret redis"), "{message}");
    scene.serve(Some(&second)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lost_secret_of_a_managed_store_is_told_and_taken_up_again() {
    let spec = json!({
        "postgres": {"database": "made", "managed": managed()},
        "redis": {"managed": managed()},
        "neo4j": {"managed": managed()},
    });
    let scene = Scene::run("loses", spec, &[]).await;
    scene.serve(None).await;
    let ns = &scene.node.ns;
    for (turn, (_, published)) in scene.secrets.iter().enumerate() {
        let name = format!("a-{published}");
        let secret = ns.get("Secret", &name).await.unwrap();
        ns.delete("Secret", &name).await;
        ns.annotate("a", "amas.dev/reread-secrets", &turn.to_string()).await;
        let told = |object: &Value| {
            let ready = condition_of(object, "Ready").unwrap();
            ready["reason"] == "CredentialsMissing" && ready["message"].to_string().contains(&name)
        };
        ns.wait("AmasDatabase", "a", &format!("{name} is missed"), told).await;
        assert!(ns.get("Secret", &name).await.is_none(), "none is made in its place");
        let (labels, data) = (&secret["metadata"]["labels"], &secret["data"]);
        ns.apply(
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "labels": labels}, "data": data}),
        )
        .await;
        ns.wait_condition("AmasDatabase", "a", "Ready", "True").await;
        assert_eq!(ns.get("Secret", &name).await.unwrap()["data"], *data, "{name}");
    }
    scene.serve(None).await;
    println!(
        "managed Secrets lost and taken up again: {} of {} stores",
        scene.secrets.len(),
        scene.stores.len()
    );
}
