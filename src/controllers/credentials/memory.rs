//! What this process knows of Secrets, so that none is read without a reason to.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use super::Entries;

/// What is known of a Secret.
#[derive(Clone, Debug, PartialEq)]
pub enum Known {
    Present(Entries),
    /// It was looked for and is not there.
    Absent,
    /// There is an object of that name without our label.
    Foreign,
}

/// When all Secrets of an AmasDatabase are read again: whenever any of this changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Reason {
    pub generation: i64,
    /// Value of the annotation `amas.dev/reread-secrets`.
    pub asked: Option<String>,
}

#[derive(Default)]
struct Books {
    secrets: HashMap<(String, String), Known>,
    /// By namespace and name of the AmasDatabase.
    reasons: HashMap<(String, String), Reason>,
    /// The uid of the AmasDatabase that each Secret goes with, where it was seen.
    owners: HashMap<(String, String), Option<String>>,
}

/// Secrets that were read or written by this process.
#[derive(Default)]
pub struct Memory(Mutex<Books>);

impl Memory {
    pub fn get(&self, namespace: &str, name: &str) -> Option<Known> {
        self.lock()
            .secrets
            .get(&(namespace.to_owned(), name.to_owned()))
            .cloned()
    }

    pub fn put(&self, namespace: &str, name: &str, known: Known) {
        self.lock()
            .secrets
            .insert((namespace.to_owned(), name.to_owned()), known);
    }

    pub fn put_owner(&self, namespace: &str, name: &str, owner: Option<String>) {
        let key = (namespace.to_owned(), name.to_owned());
        self.lock().owners.insert(key, owner);
    }

    /// `None`: not seen.
    pub fn owner(&self, namespace: &str, name: &str) -> Option<Option<String>> {
        self.lock()
            .owners
            .get(&(namespace.to_owned(), name.to_owned()))
            .cloned()
    }

    pub fn forget(&self, namespace: &str, name: &str) {
        self.lock().secrets.remove(&(namespace.to_owned(), name.to_owned()));
    }

    /// Whether the Secrets of an AmasDatabase have to be read again; asked once for each reason.
    pub fn is_new(&self, namespace: &str, database: &str, reason: Reason) -> bool {
        let key = (namespace.to_owned(), database.to_owned());
        let before = self.lock().reasons.insert(key, reason.clone());
        before.is_some_and(|before| before != reason)
    }

    pub fn forget_reason(&self, namespace: &str, database: &str) {
        self.lock().reasons.remove(&(namespace.to_owned(), database.to_owned()));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
