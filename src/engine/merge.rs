//! Several namespaces' watches as one.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use kube::runtime::{reflector::store::Writer as CacheWriter, watcher};

use super::Own;

/// Makes one sequence of events out of several namespaces': one first listing for all, then single changes, also after a later listing.
pub struct Merge<K> {
    waiting_for: HashSet<String>,
    started: bool,
    listed: HashMap<String, Vec<K>>,
}

impl<K: Own> Merge<K> {
    pub fn new(waiting_for: HashSet<String>) -> Self {
        Self {
            waiting_for,
            started: false,
            listed: Default::default(),
        }
    }

    pub fn take(
        &mut self,
        namespace: &str,
        event: watcher::Event<K>,
        cache: &CacheWriter<K>,
    ) -> Vec<watcher::Event<K>> {
        match event {
            watcher::Event::Init => {
                self.listed.insert(namespace.into(), Vec::new());
                Vec::new()
            }
            watcher::Event::InitApply(object) => {
                self.listed.entry(namespace.into()).or_default().push(object);
                Vec::new()
            }
            watcher::Event::InitDone if !self.started => self.first_listing_done(namespace),
            watcher::Event::InitDone => self.later_listing_done(namespace, cache),
            change if self.started => vec![change],
            // Changes in a namespace that was listed before the others: part of the first listing.
            watcher::Event::Apply(object) => {
                self.listed.entry(namespace.into()).or_default().push(object);
                Vec::new()
            }
            watcher::Event::Delete(object) => {
                self.listed
                    .entry(namespace.into())
                    .or_default()
                    .retain(|listed| listed.meta().uid != object.meta().uid);
                Vec::new()
            }
        }
    }

    fn first_listing_done(&mut self, namespace: &str) -> Vec<watcher::Event<K>> {
        self.waiting_for.remove(namespace);
        if !self.waiting_for.is_empty() {
            return Vec::new();
        }
        self.started = true;
        let objects = std::mem::take(&mut self.listed)
            .into_values()
            .flatten()
            .map(watcher::Event::InitApply);
        std::iter::once(watcher::Event::Init)
            .chain(objects)
            .chain([watcher::Event::InitDone])
            .collect()
    }

    fn later_listing_done(&mut self, namespace: &str, cache: &CacheWriter<K>) -> Vec<watcher::Event<K>> {
        let listed = self.listed.remove(namespace).unwrap_or_default();
        let present: HashSet<Option<String>> = listed.iter().map(|object| object.meta().uid.clone()).collect();
        let here = |object: &Arc<K>| namespace.is_empty() || object.meta().namespace.as_deref() == Some(namespace);
        let state = cache.as_reader().state();
        let gone = state
            .into_iter()
            .filter(|object| here(object) && !present.contains(&object.meta().uid));
        let gone = gone.map(|object| watcher::Event::Delete((*object).clone()));
        gone.chain(listed.into_iter().map(watcher::Event::Apply)).collect()
    }
}
