//! What cert-manager has, read by name: the issuer, the Certificates, and the Secrets that it fills.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::Value;

use super::{Sight, secret_name};
use crate::{
    api::{
        amas_database::AmasDatabase,
        common::{IssuerKind, IssuerRef},
    },
    controllers::{
        Context,
        credentials::{Entries, certificates::Issued, read_entries},
        database::{table::StoreKind, validate::encrypted},
    },
    engine::{child::ChildKind, children::Seen, writer::WriteError},
    stores::{
        endpoint::{ClientCertificate, Trust},
        tls,
        workload::Family,
    },
};

const GROUP: &str = "cert-manager.io";
const VERSION: &str = "cert-manager.io/v1";
/// Which Certificate and which issuer filled a Secret.
const OF_CERTIFICATE: &str = "cert-manager.io/certificate-name";
const OF_ISSUER: &str = "cert-manager.io/issuer-name";
/// What a renewal that was announced may take.
const RENEWING: SignedDuration = SignedDuration::from_secs(5);

pub(super) fn denied(error: &WriteError) -> Option<String> {
    error.is_forbidden().then(|| {
        format!(
            "spec.tls.issuerRef: the operator may not use cert-manager's objects ({error}); install its chart with certManager.enabled=true"
        )
    })
}

/// The Certificates that are there.
pub(super) async fn objects(context: &Context, family: &Family, sight: &mut Sight) -> Result<(), WriteError> {
    for store in StoreKind::ALL {
        let name = family.child_name(store.component());
        let found = context
            .writer
            .read(ChildKind::Certificate, &family.namespace, &name)
            .await?;
        if let Some(found) = found.filter(|found| is_ours(found, family)) {
            sight.objects.insert(name, Seen::read(ChildKind::Certificate, &found));
        }
    }
    Ok(())
}

fn is_ours(object: &Value, family: &Family) -> bool {
    object["metadata"]["labels"][crate::engine::DATABASE_LABEL] == family.database.as_str()
}

/// Everything that is to be known of an issuer and what it was asked for.
pub(super) async fn ask(
    context: &Context,
    object: &AmasDatabase,
    family: &Family,
    issuer: &IssuerRef,
    sight: &mut Sight,
) -> Result<(), WriteError> {
    sight.issuance.issuer = format!("{:?} {}", issuer.kind, issuer.name);
    if !context.writer.serves(VERSION).await? {
        sight.barred = true;
        let message = "spec.tls.issuerRef: cert-manager is not installed (the API does not know cert-manager.io/v1); install it, or leave issuerRef out and the operator's own authority signs";
        sight.trouble(true, message.into());
        return Ok(());
    }
    if let Some((human, message)) = issuer_trouble(context, &family.namespace, issuer).await? {
        sight.trouble(human, message);
    }
    for component in encrypted(&object.spec) {
        look_at(context, family, (component, issuer), sight).await?;
    }
    objects(context, family, sight).await
}

/// What is wrong with the issuer; somebody else's kinds of issuers are not looked at.
async fn issuer_trouble(
    context: &Context,
    namespace: &str,
    issuer: &IssuerRef,
) -> Result<Option<(bool, String)>, WriteError> {
    if issuer.group != GROUP {
        return Ok(None);
    }
    let (plural, scope) = match issuer.kind {
        IssuerKind::Issuer => ("issuers", Some(namespace)),
        IssuerKind::ClusterIssuer => ("clusterissuers", None),
    };
    let kind = format!("{:?}", issuer.kind);
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(GROUP, "v1", &kind), plural);
    let at = scope.map_or_else(
        || issuer.name.clone(),
        |namespace| format!("{namespace}/{}", issuer.name),
    );
    let found = match context.writer.read_any(&resource, scope, &issuer.name).await {
        // With rights in namespaces only a ClusterIssuer cannot be read; its Certificates tell enough.
        Err(error) if error.is_forbidden() => return Ok(None),
        other => other?,
    };
    let Some(found) = found else {
        return Ok(Some((
            true,
            format!("spec.tls.issuerRef: there is no {kind} {at}; make it, or name another"),
        )));
    };
    Ok(match ready(&found) {
        Some((true, _)) => None,
        Some((false, message)) => Some((
            false,
            format!("spec.tls.issuerRef: {kind} {at} is not Ready: {message}"),
        )),
        None => Some((false, format!("spec.tls.issuerRef: {kind} {at} is not Ready yet"))),
    })
}

/// The condition Ready of an object of cert-manager.
fn ready(object: &Value) -> Option<(bool, String)> {
    let all = object["status"]["conditions"].as_array()?;
    let ready = all.iter().find(|condition| condition["type"] == "Ready")?;
    let message = ready["message"].as_str().unwrap_or_default().to_owned();
    Some((ready["status"] == "True", message))
}

fn note<'a>(secret: &'a Value, annotation: &str) -> &'a str {
    secret["metadata"]["annotations"][annotation]
        .as_str()
        .unwrap_or_default()
}

/// One server's Certificate and the Secret that is filled for it.
async fn look_at(
    context: &Context,
    family: &Family,
    (component, issuer): (&'static str, &IssuerRef),
    sight: &mut Sight,
) -> Result<(), WriteError> {
    let (namespace, name, secret) = (
        &family.namespace,
        family.child_name(component),
        secret_name(family, component),
    );
    let certificate = context.writer.read(ChildKind::Certificate, namespace, &name).await?;
    let filled = context.writer.read(ChildKind::Secret, namespace, &secret).await?;
    if filled
        .as_ref()
        .is_some_and(|filled| note(filled, OF_CERTIFICATE) != name)
    {
        // cert-manager would write over it.
        sight.barred |= certificate.is_none();
        let message = format!(
            "Secret {namespace}/{secret} is none that cert-manager has filled for Certificate {name}; delete or rename it"
        );
        sight.trouble(true, message);
        return Ok(());
    }
    let announced = certificate
        .as_ref()
        .and_then(|one| one["status"]["renewalTime"].as_str()?.parse::<Timestamp>().ok());
    let announced = announced.map(|time| time + RENEWING);
    sight.announced = sight.announced.into_iter().chain(announced).min();
    let Some(filled) = filled.filter(|filled| note(filled, OF_ISSUER) == issuer.name) else {
        let told = certificate.as_ref().and_then(ready).map(|(_, message)| message);
        let told = told.map(|told| format!(": {told}")).unwrap_or_default();
        sight.trouble(
            false,
            format!(
                "Certificate {namespace}/{name} is not issued yet by {}{told}",
                sight.issuance.issuer
            ),
        );
        return Ok(());
    };
    match issued(&read_entries(&filled)) {
        Ok(issued) => drop(sight.issuance.issued.insert(component, issued)),
        Err(problem) => sight.trouble(true, format!("Secret {namespace}/{secret} {problem}")),
    }
    Ok(())
}

/// What a filled Secret holds, or what is wrong with it.
pub(super) fn issued(entries: &Entries) -> Result<Issued, String> {
    let entry = |key: &str| entries.get(key).filter(|value| !value.reveal().is_empty()).cloned();
    let missing = |key: &str| format!("lacks {key}");
    let authority = entry("ca.crt").ok_or_else(|| {
        "lacks ca.crt: its issuer does not tell by whom it signs, so that nobody could verify it; use an issuer with an authority of its own (CA, Vault)".to_owned()
    })?;
    let issued = Issued {
        certificate: entry("tls.crt").ok_or_else(|| missing("tls.crt"))?,
        key: entry("tls.key").ok_or_else(|| missing("tls.key"))?,
        authority: authority.reveal().to_owned(),
    };
    let pair = ClientCertificate {
        certificate: issued.certificate.reveal().to_owned(),
        key: issued.key.clone(),
    };
    tls::check(&Trust {
        verify: true,
        ca: Some(issued.authority.clone()),
        client: Some(pair),
    })?;
    Ok(issued)
}
