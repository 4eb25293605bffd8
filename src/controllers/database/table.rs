//! The table of stores: what the specification, the duties, the keepers and the status say of each, in one form. Who asks about "the store" asks here;
//! what only one of them has (extensions, rules, users) is with whoever deals with that one. Pure.

use k8s_openapi::jiff::Timestamp;

use crate::{
    api::{
        amas_database::{AmasDatabaseSpec, AmasDatabaseStatus},
        common::External,
        conditions::ConditionType,
    },
    stores::{
        health::Health,
        keeper::{Snapshot, Store},
    },
};

use super::{duties::Duties, observe::Observed};

/// An engine of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StoreKind {
    Postgres,
    Redis,
    Neo4j,
}

/// What a specification says of a store that it declares.
pub struct Declared<'a> {
    pub required: bool,
    pub managed: bool,
    pub external: Option<&'a External>,
}

/// What the keeper of a store has last told.
pub struct Heard<'a> {
    pub health: &'a Health,
    pub refused_since: Option<Timestamp>,
    /// The server was looked at since this process started.
    pub is_read: bool,
    /// The duty that is completely in, by its fingerprint.
    pub duty_in: Option<u64>,
    /// What the server refused.
    pub error: Option<&'a String>,
    /// Whose it is instead.
    pub conflict: Option<&'a String>,
    /// The word to take over under which the claim was last judged.
    pub take_over_seen: Option<&'a String>,
}

impl<'a> Heard<'a> {
    fn of<S: Store>(
        snapshot: &'a Snapshot<S>,
        duty_in: Option<u64>,
        error: &'a Option<String>,
        conflict: &'a Option<String>,
        take_over_seen: &'a Option<String>,
    ) -> Self {
        Self {
            health: &snapshot.health,
            refused_since: snapshot.refused_since,
            is_read: duty_in.is_some() || error.is_some() || conflict.is_some(),
            duty_in,
            error: error.as_ref(),
            conflict: conflict.as_ref(),
            take_over_seen: take_over_seen.as_ref(),
        }
    }
}

impl StoreKind {
    pub const ALL: [Self; 3] = [Self::Postgres, Self::Redis, Self::Neo4j];

    /// The last part of names, and the field of the specification.
    pub fn component(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Redis => "redis",
            Self::Neo4j => "neo4j",
        }
    }

    pub fn condition(self) -> ConditionType {
        match self {
            Self::Postgres => ConditionType::PostgresReady,
            Self::Redis => ConditionType::RedisReady,
            Self::Neo4j => ConditionType::Neo4jReady,
        }
    }

    /// `None`: the specification has no such store.
    pub fn declared(self, spec: &AmasDatabaseSpec) -> Option<Declared<'_>> {
        let (required, managed, external) = match self {
            Self::Postgres => {
                let store = spec.postgres.as_ref()?;
                (store.required, store.managed.is_some(), &store.external)
            }
            Self::Redis => {
                let store = spec.redis.as_ref()?;
                (store.required, store.managed.is_some(), &store.external)
            }
            Self::Neo4j => {
                let store = spec.neo4j.as_ref()?;
                (store.required, store.managed.is_some(), &store.external)
            }
        };
        Some(Declared {
            required,
            managed,
            external: external.as_ref(),
        })
    }

    /// The stores of a specification.
    pub fn all_of(spec: &AmasDatabaseSpec) -> impl Iterator<Item = (Self, Declared<'_>)> {
        Self::ALL
            .into_iter()
            .filter_map(move |store| Some((store, store.declared(spec)?)))
    }

    /// Whether it has ever served.
    pub fn was_seen(self, status: &AmasDatabaseStatus) -> bool {
        let Some(stores) = &status.stores else { return false };
        match self {
            Self::Postgres => stores.postgres.as_ref().is_some_and(|store| store.version.is_some()),
            Self::Redis => stores.redis.as_ref().is_some_and(|store| store.version.is_some()),
            Self::Neo4j => stores.neo4j.as_ref().is_some_and(|store| store.version.is_some()),
        }
    }
}

impl Duties {
    /// Whether the keeper of a store has anything to do.
    pub fn has(&self, store: StoreKind) -> bool {
        match store {
            StoreKind::Postgres => self.postgres.is_some(),
            StoreKind::Redis => self.redis.is_some(),
            StoreKind::Neo4j => self.neo4j.is_some(),
        }
    }

    /// The fingerprint of what the keeper of a store is to hold true; `None` where it has nothing to do.
    pub fn wanted(&self, store: StoreKind) -> Option<u64> {
        match store {
            StoreKind::Postgres => self.postgres.as_ref().map(|duty| duty.fingerprint()),
            StoreKind::Redis => self.redis.as_ref().map(|duty| duty.fingerprint()),
            StoreKind::Neo4j => self.neo4j.as_ref().map(|duty| duty.fingerprint()),
        }
    }
}

impl Observed {
    /// `None`: there is no keeper yet.
    pub fn heard(&self, store: StoreKind) -> Option<Heard<'_>> {
        Some(match store {
            StoreKind::Postgres => {
                let snapshot = self.postgres.as_ref()?;
                let facts = &snapshot.facts;
                let (seen, conflict) = (&facts.take_over_seen, &facts.conflict);
                Heard {
                    // What its worker reads may come before its duty is in.
                    is_read: facts.migrations.is_some()
                        || facts.error.is_some()
                        || conflict.is_some()
                        || facts.database_missing,
                    ..Heard::of(snapshot, facts.duty_in, &facts.error, conflict, seen)
                }
            }
            StoreKind::Redis => {
                let snapshot = self.redis.as_ref()?;
                let facts = &snapshot.facts;
                let (seen, conflict) = (&facts.take_over_seen, &facts.claim_conflict);
                Heard::of(snapshot, facts.duty_in, &facts.error, conflict, seen)
            }
            StoreKind::Neo4j => {
                let snapshot = self.neo4j.as_ref()?;
                let facts = &snapshot.facts;
                let (seen, conflict) = (&facts.take_over_seen, &facts.claim_conflict);
                Heard::of(snapshot, facts.duty_in, &facts.error, conflict, seen)
            }
        })
    }

    /// What the sentinel of a store says.
    pub fn health(&self, store: StoreKind) -> Option<&Health> {
        Some(self.heard(store)?.health)
    }

    /// Since when a store's server refuses a login of ours, or cannot be trusted, if so: what only another Secret puts right.
    pub fn barred_since(&self, store: StoreKind) -> Option<Timestamp> {
        let heard = self.heard(store)?;
        let health = Some(heard.health).filter(|health| health.reason.bars());
        health.map(|health| health.since).or(heard.refused_since)
    }
}
