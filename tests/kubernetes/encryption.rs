//! Encryption of managed stores, as far as it is a matter of Kubernetes: what is made, who sees what of it, and that it is made once.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::lifecycle::{comes_back_without_a_write, database};
use crate::support::kubernetes::Kubernetes;

pub fn entry(secret: &Value, key: &str) -> String {
    let text = secret["data"][key]
        .as_str()
        .unwrap_or_else(|| panic!("no {key}: {secret}"));
    String::from_utf8(BASE64_STANDARD.decode(text).unwrap()).unwrap()
}

#[tokio::test]
async fn an_encrypted_store_is_made_once_and_an_existing_one_is_left_alone_without() {
    let api = Kubernetes::shared().await;
    let ns = api.namespace("tls").await;
    let mut operator = ns.operator(&[]).await;
    let redis = json!({"managed": {"storage": {"size": "1Gi"}}});
    let postgres = json!({"database": "app", "managed": {"storage": {"size": "1Gi"}}});
    ns.apply(database("clear", json!({"redis": redis}))).await;
    ns.apply(database(
        "tls",
        json!({"redis": redis, "postgres": postgres, "tls": {}}),
    ))
    .await;
    ns.wait("StatefulSet", "clear-redis", "there", |_| true).await;
    let set = ns.wait("StatefulSet", "tls-postgres", "there", |_| true).await;
    let certificates = ns.get("Secret", "tls-tls").await.unwrap();
    assert!(entry(&certificates, "ca.key").contains("PRIVATE KEY"));
    let volumes = set["spec"]["template"]["spec"]["volumes"].as_array().unwrap();
    let mounted = volumes.iter().find(|volume| volume["name"] == "certificates").unwrap();
    assert_eq!(
        mounted["secret"]["items"],
        json!([
            {"key": "postgres.crt", "path": "tls.crt", "mode": 288},
            {"key": "postgres.key", "path": "tls.key", "mode": 288},
        ])
    );
    let connection = ns.wait("Secret", "tls-redis-connection", "there", |_| true).await;
    assert!(
        entry(&connection, "REDIS_URL").starts_with("rediss://") && entry(&connection, "REDIS_URL").contains(":6380/")
    );
    assert_eq!(entry(&connection, "ca.crt"), entry(&certificates, "ca.crt"));
    let owner = ns.wait("Secret", "tls-role-app-owner", "there", |_| true).await;
    assert!(entry(&owner, "DATABASE_URL").ends_with("?sslmode=verify-full"));
    assert!(ns.get("Secret", "clear-tls").await.is_none());
    ns.wait("AmasDatabase", "tls", "told", |object| {
        object["status"]["secrets"].is_array()
    })
    .await;

    // A start of the operator makes nothing anew: neither certificates nor pods.
    comes_back_without_a_write(&ns, &mut operator).await;
    assert_eq!(ns.get("Secret", "tls-tls").await.unwrap()["data"], certificates["data"]);

    // Asked for, a new one is made for one server, by the same authority.
    ns.annotate("tls", "amas.dev/renew-certificates", "redis/1").await;
    let renewed = ns
        .wait("Secret", "tls-tls", "renewed", |secret| {
            entry(secret, "redis.crt") != entry(&certificates, "redis.crt")
        })
        .await;
    assert_eq!(entry(&renewed, "ca.crt"), entry(&certificates, "ca.crt"));
    assert_eq!(entry(&renewed, "postgres.crt"), entry(&certificates, "postgres.crt"));

    // Lost, it is made anew, and what trusts it follows.
    ns.delete("Secret", "tls-tls").await;
    let again = json!({"metadata": {"annotations": {"amas.dev/reread-secrets": "1"}}});
    let mut object = database("tls", json!({"redis": redis, "postgres": postgres, "tls": {}}));
    object["metadata"]["annotations"] = again["metadata"]["annotations"].clone();
    ns.apply(object).await;
    let renewed = ns.wait("Secret", "tls-tls", "made anew", |_| true).await;
    assert_ne!(entry(&renewed, "ca.crt"), entry(&certificates, "ca.crt"));
    ns.wait("Secret", "tls-redis-connection", "following", |connection| {
        entry(connection, "ca.crt") == entry(&renewed, "ca.crt")
    })
    .await;
}
