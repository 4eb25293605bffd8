//! Certificates of managed servers from cert-manager: what is asked of it, what it has given, and what is in the way. Its kinds may not be
//! there, so nothing is watched: objects are read by name, often while something is awaited, then when a renewal is announced and every hour.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

use crate::{
    api::{
        REREAD_SECRETS,
        amas_database::{AmasDatabase, AmasDatabaseSpec},
        common::{IssuerKind, IssuerRef},
    },
    controllers::{
        Context,
        credentials::{
            Entries,
            certificates::{self, Issuance, Issued, Trouble},
            read_entries,
        },
    },
    engine::{child::ChildKind, children::Seen, writer::WriteError},
    stores::{
        endpoint::{ClientCertificate, Trust},
        tls,
        workload::Family,
    },
};

use super::{
    observe::{Observed, StoreKind},
    plan::{Plan, Step},
    validate::{Valid, encrypted},
};

const GROUP: &str = "cert-manager.io";
const VERSION: &str = "cert-manager.io/v1";
/// Which Certificate and which issuer filled a Secret.
const OF_CERTIFICATE: &str = "cert-manager.io/certificate-name";
const OF_ISSUER: &str = "cert-manager.io/issuer-name";

/// How often it is looked, while something is on its way, in the way, and otherwise.
const SOON: SignedDuration = SignedDuration::from_secs(3);
const LATER: SignedDuration = SignedDuration::from_secs(10);
const SELDOM: SignedDuration = SignedDuration::from_hours(1);
/// What a renewal that was announced may take.
const RENEWING: SignedDuration = SignedDuration::from_secs(5);

/// What was seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sight {
    pub issuance: Issuance,
    /// The Certificates that are there, by name.
    pub objects: BTreeMap<String, Seen>,
    /// None may be made now.
    barred: bool,
    /// The first renewal that cert-manager has announced.
    announced: Option<Timestamp>,
    next: Timestamp,
}

impl Sight {
    /// How long what was seen holds.
    pub fn holds(&self, now: Timestamp) -> Duration {
        let left = Duration::try_from(self.next.duration_since(now)).unwrap_or_default();
        left.max(Duration::from_millis(500))
    }
}

/// What was last seen, by the uid of the AmasDatabase, and for what reason it was looked.
#[derive(Default)]
pub struct Sights(Mutex<HashMap<String, (Why, Sight)>>);

#[derive(Clone, Debug, PartialEq)]
struct Why {
    generation: Option<i64>,
    asked: Option<String>,
}

impl Sights {
    fn get(&self, uid: &str, why: &Why, now: Timestamp) -> Option<Sight> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, sight) = all.get(uid)?;
        (known == why && now < sight.next).then(|| sight.clone())
    }

    fn put(&self, uid: &str, why: Why, sight: Sight) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(uid.to_owned(), (why, sight));
    }

    /// Something was written, or the object is gone.
    pub fn forget(&self, uid: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

fn issuer(spec: &AmasDatabaseSpec) -> Option<&IssuerRef> {
    spec.tls.as_ref()?.issuer_ref.as_ref()
}

/// The Secret that is filled for a server.
fn secret_name(family: &Family, component: &str) -> String {
    family.child_name(&format!("{component}-certificate"))
}

/// Looks if there is a reason to (client).
pub async fn look(context: &Context, object: &AmasDatabase, observed: &Observed) -> Result<Option<Sight>, WriteError> {
    let family = super::family(object, &context.settings);
    let wanted = issuer(&object.spec).filter(|_| !encrypted(&object.spec).is_empty());
    if wanted.is_none() && observed.status.issuer.is_none() {
        return Ok(None);
    }
    let why = Why {
        generation: object.metadata.generation,
        asked: object
            .metadata
            .annotations
            .as_ref()
            .and_then(|all| all.get(REREAD_SECRETS).cloned()),
    };
    if let Some(sight) = context.issuance.get(&family.uid, &why, observed.now) {
        return Ok(Some(sight));
    }
    let mut sight = Sight::default();
    let found = match wanted {
        Some(issuer) => ask(context, object, &family, issuer, &mut sight).await,
        None => objects(context, &family, &mut sight).await,
    };
    if let Err(error) = found {
        // Whether it is there cannot be told without the right to read it.
        sight.trouble(true, denied(&error).ok_or(error)?);
        sight.barred = true;
    }
    let pause = match &sight.issuance.trouble {
        Some(trouble) if trouble.human => LATER,
        Some(_) => SOON,
        None => SELDOM,
    };
    let latest = observed.now + pause;
    sight.next = match sight.announced {
        None => latest,
        Some(announced) if announced > observed.now => latest.min(announced),
        Some(_) => latest.min(observed.now + SignedDuration::from_secs(30)),
    };
    context.issuance.put(&family.uid, why, sight.clone());
    Ok(Some(sight))
}

fn denied(error: &WriteError) -> Option<String> {
    error.is_forbidden().then(|| {
        format!(
            "spec.tls.issuerRef: the operator may not use cert-manager's objects ({error}); install its chart with certManager.enabled=true"
        )
    })
}

impl Sight {
    /// The first trouble is told; one for a person goes before.
    fn trouble(&mut self, human: bool, message: String) {
        let first = self.issuance.trouble.as_ref();
        if first.is_none_or(|known| human && !known.human) {
            self.issuance.trouble = Some(Trouble { human, message });
        }
    }
}

/// The Certificates that are there.
async fn objects(context: &Context, family: &Family, sight: &mut Sight) -> Result<(), WriteError> {
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
async fn ask(
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
fn issued(entries: &Entries) -> Result<Issued, String> {
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

/// The issuer that has been asked, as long as anything is left of that.
pub fn asked(spec: &AmasDatabaseSpec, observed: &Observed) -> Option<String> {
    let sight = observed.issuance.as_ref()?;
    let named = issuer(spec).map(|issuer| format!("{:?} {}", issuer.kind, issuer.name));
    let left = || observed.status.issuer.clone().filter(|_| !sight.objects.is_empty());
    named.or_else(left)
}

/// Makes the Certificates, keeps them, and takes away what is asked of nobody any more. Pure.
pub fn steps(spec: &AmasDatabaseSpec, valid: &Valid, observed: &Observed, plan: &mut Plan) {
    let Some(sight) = &observed.issuance else { return };
    plan.certificates = issuer(spec).and(sight.issuance.trouble.clone());
    let kind = ChildKind::Certificate;
    let mut wanted = Vec::new();
    let components = issuer(spec).map(|_| encrypted(spec)).unwrap_or_default();
    for (component, issuer) in components.into_iter().zip(std::iter::repeat(issuer(spec)).flatten()) {
        let body = manifest(&valid.family, component, issuer);
        let name = valid.family.child_name(component);
        let key = (kind, name.clone());
        match sight.objects.get(&name) {
            None if observed.taken.contains(&key) => plan.taken.push(key),
            None if sight.barred => {}
            None => plan.steps.push(Step::Create(kind, body)),
            Some(seen) if seen.deleting || seen.hash == kind.hash(&body) => {}
            Some(_) => plan.steps.push(Step::Update(kind, body)),
        }
        wanted.push(name);
    }
    let left = sight
        .objects
        .iter()
        .filter(|(name, seen)| !wanted.contains(name) && !seen.deleting);
    plan.steps
        .extend(left.map(|(name, _)| Step::Delete(kind, name.clone())));
}

fn manifest(family: &Family, component: &str, issuer: &IssuerRef) -> Value {
    let name = family.child_name(component);
    json!({"metadata": family.metadata(&name, component, component, true), "spec": {
        "secretName": secret_name(family, component),
        "dnsNames": certificates::names(family, component),
        "usages": ["digital signature", "server auth"],
        "privateKey": {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"},
        "issuerRef": {"name": issuer.name, "kind": format!("{:?}", issuer.kind), "group": issuer.group},
    }})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::sensitive::Sensitive;

    #[test]
    fn a_filled_secret_is_judged() {
        let text = |key: &str, value: &str| (key.to_owned(), Sensitive::new(value));
        let entries: Entries = [text("tls.crt", "x"), text("tls.key", "y")].into();
        assert!(issued(&entries).unwrap_err().contains("lacks ca.crt"));
        let entries: Entries = [text("tls.crt", "x"), text("tls.key", "y"), text("ca.crt", "z")].into();
        assert!(issued(&entries).unwrap_err().contains("ca.crt"));
    }
}
