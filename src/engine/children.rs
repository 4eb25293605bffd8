//! What is known of the objects that belong to each AmasDatabase: an index over the watches, brought up to date by our own writes too,
//! so that a reconcile right after a write does not see the state before it.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, PoisonError, RwLock},
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use super::{
    DATABASE_LABEL, Own,
    child::{Child, ChildKind, Facts, Watched},
};
use crate::api::amas_database::AmasDatabase;

/// The uid of the AmasDatabase that an object goes with, as the API shows the object.
pub fn owner_of(object: &Value) -> Option<String> {
    let owners = object["metadata"]["ownerReferences"].as_array()?;
    let ours = owners.iter().find(|owner| owner["kind"] == AmasDatabase::KIND)?;
    ours["uid"].as_str().map(str::to_owned)
}

/// A namespace and the name of an AmasDatabase in it.
pub type Owner = (String, String);

/// One child as it was last seen.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    pub uid: String,
    pub hash: u64,
    pub facts: Facts,
    pub deleting: bool,
    /// The uid of the AmasDatabase that it goes with.
    pub owner: Option<String>,
    version: u64,
}

impl Seen {
    /// An object of a kind that is not watched, as it was just read.
    pub fn read(kind: ChildKind, object: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Self {
            uid: text(&object["metadata"]["uid"]),
            hash: kind.hash(object),
            facts: Facts::default(),
            deleting: !object["metadata"]["deletionTimestamp"].is_null(),
            owner: owner_of(object),
            version: 0,
        }
    }
}

/// Kind and name of a child.
pub type ChildKey = (ChildKind, String);

/// The children of one AmasDatabase.
pub type Family = BTreeMap<ChildKey, Seen>;

/// The index. Reading gives a copy of one family: small, and free of locks.
#[derive(Default)]
pub struct Children(RwLock<HashMap<Owner, Family>>);

impl Children {
    /// The children of one AmasDatabase.
    pub fn of(&self, owner: &Owner) -> Family {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(owner)
            .cloned()
            .unwrap_or_default()
    }

    /// Takes in a watched object. Returns its owner, for waking, when anything is different now.
    pub fn saw<K: Watched>(&self, child: &Child<K>) -> Option<Owner> {
        let (owner, name) = address(&child.meta)?;
        let seen = Seen {
            uid: child.meta.uid.clone().unwrap_or_default(),
            hash: child.hash,
            facts: child.facts.clone(),
            deleting: child.meta.deletion_timestamp.is_some(),
            owner: child
                .meta
                .owner_references
                .iter()
                .flatten()
                .find(|owner| owner.kind == AmasDatabase::KIND)
                .map(|owner| owner.uid.clone()),
            version: version(&child.meta),
        };
        self.put(owner, (K::KIND, name), seen)
    }

    /// Takes in the server's answer to our own write.
    pub fn wrote(&self, kind: ChildKind, object: &Value) {
        macro_rules! read {
            ($($name:ident),*) => { match kind {
                $(ChildKind::$name => { serde_json::from_value::<Child<super::child::kinds::$name>>(object.clone()).ok().and_then(|child| self.saw(&child)); })*
                ChildKind::Secret | ChildKind::Certificate => {}
            } };
        }
        read!(
            ServiceAccount,
            ConfigMap,
            Service,
            NetworkPolicy,
            PodDisruptionBudget,
            PersistentVolumeClaim,
            StatefulSet,
            Job,
            Pod
        );
    }

    fn put(&self, owner: Owner, key: ChildKey, seen: Seen) -> Option<Owner> {
        let mut index = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let family = index.entry(owner.clone()).or_default();
        match family.get(&key) {
            // An event from before our own write says nothing new, be it of a namesake that is gone: versions of a kind only rise.
            Some(known) if known.version > seen.version => return None,
            Some(known)
                if Seen {
                    version: 0,
                    ..known.clone()
                } == Seen {
                    version: 0,
                    ..seen.clone()
                } =>
            {
                family.insert(key, seen);
                return None;
            }
            _ => family.insert(key, seen),
        };
        Some(owner)
    }

    /// Forgets a deleted object, unless another of its name was made since. Returns its owner, for waking.
    pub fn gone(&self, kind: ChildKind, meta: &ObjectMeta) -> Option<Owner> {
        let (owner, name) = address(meta)?;
        let is_it = |known: &Seen| Some(&known.uid) == meta.uid.as_ref() || known.version <= version(meta);
        self.forget_if(&owner, &(kind, name), is_it).then_some(owner)
    }

    /// Forgets one child.
    pub fn forget(&self, owner: &Owner, key: &ChildKey) {
        self.forget_if(owner, key, |_| true);
    }

    fn forget_if(&self, owner: &Owner, key: &ChildKey, is_it: impl Fn(&Seen) -> bool) -> bool {
        let mut index = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let Some(family) = index.get_mut(owner).filter(|family| family.get(key).is_some_and(is_it)) else {
            return false;
        };
        family.remove(key);
        if family.is_empty() {
            index.remove(owner);
        }
        true
    }

    /// After a new listing of `kind` in `namespace` (all, when empty): forgets what it did not hold. Returns the owners to wake.
    pub fn keep_only(&self, kind: ChildKind, namespace: &str, listed: &HashSet<(String, String)>) -> Vec<Owner> {
        let mut index = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let mut woken = Vec::new();
        for (owner, family) in index
            .iter_mut()
            .filter(|(owner, _)| namespace.is_empty() || owner.0 == namespace)
        {
            let before = family.len();
            family.retain(|(child, name), _| *child != kind || listed.contains(&(owner.0.clone(), name.clone())));
            if family.len() != before {
                woken.push(owner.clone());
            }
        }
        woken
    }
}

fn address(meta: &ObjectMeta) -> Option<(Owner, String)> {
    let database = meta.labels.as_ref()?.get(DATABASE_LABEL)?.clone();
    Some(((meta.namespace.clone()?, database), meta.name.clone()?))
}

/// Zero where there is none.
fn version(meta: &ObjectMeta) -> u64 {
    let version = meta.resource_version.as_deref();
    version.and_then(|version| version.parse().ok()).unwrap_or_default()
}

/// A shared handle.
pub type SharedChildren = Arc<Children>;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(version: &str, port: u16) -> Value {
        json!({"metadata": {"name": "s", "namespace": "n", "uid": "u", "resourceVersion": version, "labels": {"amas.dev/database": "d"}},
               "spec": {"ports": [{"port": port}]}})
    }

    #[test]
    fn an_older_event_does_not_undo_a_newer_write() {
        let children = Children::default();
        let owner = ("n".to_owned(), "d".to_owned());
        children.wrote(ChildKind::Service, &service("7", 2));
        let after_write = children.of(&owner);
        children.wrote(ChildKind::Service, &service("5", 1));
        assert_eq!(children.of(&owner), after_write);
        children.wrote(ChildKind::Service, &service("9", 3));
        assert_ne!(children.of(&owner), after_write);
    }

    #[test]
    fn what_comes_late_of_a_namesake_that_is_gone_does_not_hide_its_successor() {
        let children = Children::default();
        let owner = ("n".to_owned(), "d".to_owned());
        let mut successor = service("7", 2);
        successor["metadata"]["uid"] = json!("v");
        children.wrote(ChildKind::Service, &successor);
        let known = children.of(&owner);
        children.wrote(ChildKind::Service, &service("5", 1));
        assert_eq!(children.of(&owner), known);
        let meta = |object: &Value| serde_json::from_value::<ObjectMeta>(object["metadata"].clone()).unwrap();
        assert_eq!(children.gone(ChildKind::Service, &meta(&service("6", 1))), None);
        assert_eq!(children.of(&owner), known);
        // The end of the successor itself is told with a version of its own.
        successor["metadata"]["resourceVersion"] = json!("8");
        assert_eq!(
            children.gone(ChildKind::Service, &meta(&successor)),
            Some(owner.clone())
        );
        assert!(children.of(&owner).is_empty());
    }

    #[test]
    fn a_new_listing_forgets_what_it_lacks() {
        let children = Children::default();
        children.wrote(ChildKind::Service, &service("1", 1));
        let none = HashSet::new();
        assert!(children.keep_only(ChildKind::ConfigMap, "", &none).is_empty());
        assert!(children.keep_only(ChildKind::Service, "other", &none).is_empty());
        assert_eq!(children.keep_only(ChildKind::Service, "n", &none).len(), 1);
        assert!(children.of(&("n".to_owned(), "d".to_owned())).is_empty());
    }
}
