//! Certificates of managed servers from cert-manager: what is asked of it, what it has given, and what is in the way. Its kinds may not be
//! there, so nothing is watched: objects are read by name, often while something is awaited, then when a renewal is announced and every hour.

mod asking;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use self::asking::{ask, denied, objects};
use super::{
    observe::Observed,
    plan::{Plan, Step},
    validate::{Valid, encrypted},
};
use crate::{
    api::{
        REREAD_SECRETS,
        amas_database::{AmasDatabase, AmasDatabaseSpec},
        common::IssuerRef,
    },
    controllers::{
        Context,
        credentials::certificates::{self, Issuance, Trouble},
    },
    engine::{child::ChildKind, children::Seen, writer::WriteError},
    stores::workload::Family,
};

/// How often it is looked, while something is on its way, in the way, and otherwise.
const SOON: SignedDuration = SignedDuration::from_secs(3);
const LATER: SignedDuration = SignedDuration::from_secs(10);
const SELDOM: SignedDuration = SignedDuration::from_hours(1);

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

impl Sight {
    /// The first trouble is told; one for a person goes before.
    fn trouble(&mut self, human: bool, message: String) {
        let first = self.issuance.trouble.as_ref();
        if first.is_none_or(|known| human && !known.human) {
            self.issuance.trouble = Some(Trouble { human, message });
        }
    }
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
    use super::asking::issued;
    use crate::api::sensitive::Sensitive;
    use crate::controllers::credentials::Entries;

    #[test]
    fn a_filled_secret_is_judged() {
        let text = |key: &str, value: &str| (key.to_owned(), Sensitive::new(value));
        let entries: Entries = [text("tls.crt", "x"), text("tls.key", "y")].into();
        assert!(issued(&entries).unwrap_err().contains("lacks ca.crt"));
        let entries: Entries = [text("tls.crt", "x"), text("tls.key", "y"), text("ca.crt", "z")].into();
        assert!(issued(&entries).unwrap_err().contains("ca.crt"));
    }
}
