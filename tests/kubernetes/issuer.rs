//! Certificates from cert-manager, which is not here: its definitions in a minimal form, and a double that fills Secrets as it does. What is told
//! while something is in the way, what is taken, what a renewal moves, and that nothing stays behind.

use std::time::Duration;

use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::{
    encryption::entry,
    lifecycle::{comes_back_without_a_write, database},
};
use crate::support::{
    kubernetes::{Kubernetes, Namespace, condition_of},
    pki::{Authority, Years},
};

/// A definition of cert-manager with as much of its schema as the operator uses.
async fn define(api: &Namespace, kind: &str, plural: &str, spec: Value) {
    let any = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {"spec": spec, "status": any}}});
    let version =
        json!({"name": "v1", "served": true, "storage": true, "schema": schema, "subresources": {"status": {}}});
    let names =
        json!({"kind": kind, "plural": plural, "singular": kind.to_lowercase(), "listKind": format!("{kind}List")});
    let object = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.cert-manager.io")},
        "spec": {"group": "cert-manager.io", "scope": "Namespaced", "names": names, "versions": [version]}});
    let all = api.everywhere("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    let object = serde_json::from_value(object).unwrap();
    all.create(&PostParams::default(), &object).await.unwrap();
}

async fn define_all(api: &Namespace) {
    let text = json!({"type": "string"});
    let texts = json!({"type": "array", "items": text});
    let issuer =
        json!({"type": "object", "required": ["name"], "properties": {"name": text, "kind": text, "group": text}});
    let key = json!({"type": "object", "properties": {"algorithm": {"type": "string", "enum": ["RSA", "ECDSA", "Ed25519"]},
        "size": {"type": "integer"}, "rotationPolicy": {"type": "string", "enum": ["Never", "Always"]}}});
    let usages = json!({"type": "array", "items": {"type": "string", "enum": ["digital signature", "server auth", "client auth"]}});
    let certificate = json!({"type": "object", "required": ["issuerRef", "secretName"], "properties": {
        "secretName": text, "dnsNames": texts, "usages": usages, "issuerRef": issuer, "privateKey": key}});
    define(api, "Certificate", "certificates", certificate).await;
    let any = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    define(api, "Issuer", "issuers", any).await;
}

async fn status(ns: &Namespace, kind: &str, name: &str, status: Value) {
    let patch = Patch::Merge(json!({"status": status}));
    let patched = ns.kind(kind).patch_status(name, &PatchParams::default(), &patch).await;
    patched.unwrap_or_else(|error| panic!("{kind} {name}: {error}"));
}

/// What cert-manager does once it has a Certificate and a Ready issuer.
async fn fill(ns: &Namespace, name: &str, authority: &Authority) -> String {
    let certificate = ns.wait("Certificate", name, "asked for", |_| true).await;
    let spec = &certificate["spec"];
    let names: Vec<String> = spec["dnsNames"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| format!("DNS:{}", name.as_str().unwrap()))
        .collect();
    let issued = authority.issue(name, &names.join(","), Years::NOW);
    let notes =
        json!({"cert-manager.io/certificate-name": name, "cert-manager.io/issuer-name": spec["issuerRef"]["name"]});
    let data = json!({"tls.crt": issued.certificate, "tls.key": issued.key, "ca.crt": authority.pem()});
    ns.apply(
        json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": spec["secretName"], "annotations": notes}, "stringData": data}),
    )
    .await;
    issued.certificate
}

async fn told(ns: &Namespace, words: &str) {
    let says = |object: &Value| {
        condition_of(object, "Ready").is_some_and(|ready| {
            ready["reason"] == "CertificatesMissing" && ready["message"].as_str().unwrap_or_default().contains(words)
        })
    };
    ns.wait("AmasDatabase", "db", words, says).await;
}

const SERVERS: [&str; 3] = ["db-postgres", "db-redis", "db-neo4j"];

fn wanted(tls: Value) -> Value {
    let managed = json!({"managed": {"storage": {"size": "1Gi"}}});
    let postgres = json!({"database": "app", "managed": {"storage": {"size": "1Gi"}}});
    database(
        "db",
        json!({"redis": managed, "neo4j": managed, "postgres": postgres, "tls": tls}),
    )
}

#[tokio::test]
async fn certificates_come_from_an_issuer_and_what_is_in_the_way_is_said() {
    let api = Kubernetes::shared().await;
    let ns = api.namespace("issuer").await;
    let mut operator = ns.operator(&[]).await;
    let object = wanted(json!({"issuerRef": {"name": "ours"}}));
    ns.apply(object.clone()).await;
    told(&ns, "cert-manager is not installed").await;
    assert!(ns.get("StatefulSet", "db-redis").await.is_none());
    define_all(&ns).await;
    told(&ns, "there is no Issuer").await;
    ns.apply(json!({"apiVersion": "cert-manager.io/v1", "kind": "Issuer", "metadata": {"name": "ours"}, "spec": {"ca": {"secretName": "ca"}}}))
        .await;
    let not_ready = json!({"conditions": [{"type": "Ready", "status": "False", "reason": "ErrGetKeyPair", "message": "no Secret ca"}]});
    status(&ns, "Issuer", "ours", not_ready).await;
    told(&ns, "is not Ready: no Secret ca").await;
    status(
        &ns,
        "Issuer",
        "ours",
        json!({"conditions": [{"type": "Ready", "status": "True"}]}),
    )
    .await;
    told(&ns, "is not issued yet by Issuer ours").await;
    for name in SERVERS {
        let certificate = ns.wait("Certificate", name, "asked for", |_| true).await;
        assert_eq!(certificate["metadata"]["ownerReferences"][0]["kind"], "AmasDatabase");
        assert_eq!(certificate["metadata"]["labels"]["amas.dev/database"], "db");
    }
    assert!(ns.get("Secret", "db-tls").await.is_none() && ns.get("StatefulSet", "db-redis").await.is_none());

    let (first, second) = (Authority::new(), Authority::new());
    let renewal = k8s_openapi::jiff::Timestamp::now() + Duration::from_secs(20);
    for name in SERVERS {
        status(
            &ns,
            "Certificate",
            name,
            json!({"renewalTime": format!("{renewal:.0}")}),
        )
        .await;
        fill(&ns, name, &first).await;
    }
    let sets = async || {
        let mut all = Vec::new();
        for name in SERVERS {
            all.push(ns.wait("StatefulSet", name, "there", |_| true).await["spec"]["template"].clone());
        }
        all
    };
    let before = sets().await;
    let certificates = ns.get("Secret", "db-tls").await.unwrap();
    assert_eq!(entry(&certificates, "ca.crt").trim(), first.pem().trim());
    assert!(certificates["data"].get("ca.key").is_none());
    let connection = ns.wait("Secret", "db-redis-connection", "there", |_| true).await;
    assert_eq!(entry(&connection, "ca.crt"), entry(&certificates, "ca.crt"));

    // Renewed at the announced time, by another authority even: taken by itself, and only Neo4j is made anew for it.
    let mut renewed = Vec::new();
    for name in SERVERS {
        renewed.push(fill(&ns, name, &second).await);
    }
    let taken = |secret: &Value| entry(secret, "redis.crt").trim() == renewed[1].trim();
    let certificates = ns.wait("Secret", "db-tls", "renewed", taken).await;
    assert!(
        entry(&certificates, "ca.crt").contains(first.pem().trim())
            && entry(&certificates, "ca.crt").contains(second.pem().trim())
    );
    ns.wait("StatefulSet", "db-neo4j", "made anew", |set| {
        set["spec"]["template"]["metadata"]["annotations"]["amas.dev/certificate"].is_string()
    })
    .await;
    assert_eq!(sets().await[..2], before[..2], "the others read it while they run");

    comes_back_without_a_write(&ns, &mut operator).await;

    // Without an issuer again: nothing is left with it, and what it has signed is trusted on.
    ns.apply(wanted(json!({}))).await;
    for name in SERVERS {
        ns.wait_gone("Certificate", name).await;
    }
    let own = |secret: &Value| secret["data"].get("ca.key").is_some();
    let certificates = ns.wait("Secret", "db-tls", "our own", own).await;
    assert!(entry(&certificates, "ca.crt").contains(second.pem().trim()));
}
