//! What each keeper has to hold true, from valid values and the passwords that are known. Pure.

mod logins;
mod sql;

use self::{
    logins::{endpoint, graph_users, serves, state},
    sql::postgres_duty,
};
use super::{observe::Observed, table::StoreKind, validate::Valid};
use crate::{
    api::{
        amas_database::AmasDatabaseSpec,
        common::{External, ExternalHealth, HealthMode},
        names::GraphName,
    },
    controllers::Settings,
    stores::{
        claim::Claim,
        endpoint::Endpoint,
        health::Attention,
        neo4j::{self, Neo4jDuty},
        postgres::{self, PostgresDuty, Twin},
        redis::{self, RedisDuty},
    },
};

/// What the keepers hold true from now on; a store that is not in it has none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Duties {
    pub postgres: Option<PostgresDuty>,
    pub redis: Option<RedisDuty>,
    pub neo4j: Option<Neo4jDuty>,
}

pub fn duties(spec: &AmasDatabaseSpec, valid: &Valid, observed: &Observed, settings: &Settings) -> Duties {
    let claim = claim(valid, settings);
    let take_over = &observed.annotations.take_over;
    Duties {
        postgres: spec
            .postgres
            .as_ref()
            .and_then(|postgres| postgres_duty(postgres, valid, observed, &claim)),
        redis: spec.redis.as_ref().and_then(|redis| {
            let endpoint = endpoint(
                StoreKind::Redis,
                valid,
                observed,
                redis::workload::PORT,
                redis::workload::USER,
            )?;
            Some(RedisDuty {
                endpoint,
                second: state(valid, observed, &valid.family.child_name("redis-connection"))
                    .and_then(|(_, state)| state.rotation.second().cloned()),
                claim: claim.clone(),
                managed: redis.managed.is_some(),
                attention: attention(redis.external.as_ref()),
                parameters: redis
                    .managed
                    .as_ref()
                    .map(|managed| managed.parameters.clone())
                    .unwrap_or_default(),
                serves: serves(StoreKind::Redis, valid, observed),
                take_over: take_over.clone(),
            })
        }),
        neo4j: spec.neo4j.as_ref().and_then(|neo4j| {
            let endpoint = endpoint(
                StoreKind::Neo4j,
                valid,
                observed,
                neo4j::workload::PORT,
                neo4j::workload::USER,
            )?;
            let database = neo4j
                .managed
                .as_ref()
                .map_or("neo4j", |managed| &managed.initial_database);
            let (next, others) = graph_users(valid, observed);
            Some(Neo4jDuty {
                endpoint,
                next,
                others,
                database: GraphName::parse(database).ok()?,
                claim: claim.clone(),
                managed: neo4j.managed.is_some(),
                attention: attention(neo4j.external.as_ref()),
                take_over: take_over.clone(),
            })
        }),
    }
}

/// What is needed to take leave of the servers that are not ours: their logins and whose they are. Roles need not be named.
pub fn leaving(spec: &AmasDatabaseSpec, valid: &Valid, observed: &Observed, settings: &Settings) -> Duties {
    let mut duties = duties(spec, valid, observed, settings);
    let admin = observed.externals.get(&StoreKind::Postgres).cloned();
    duties.postgres = spec.postgres.as_ref().and_then(|postgres| {
        let admin = admin?.ok()?.login;
        let owner = valid.owner.clone()?;
        Some(PostgresDuty {
            owner_login: Endpoint {
                user: owner.to_string(),
                ..admin.clone()
            },
            admin,
            database: postgres.database.clone(),
            owner,
            owner_twin: Twin::default(),
            admin_next: None,
            sure: false,
            extensions: Vec::new(),
            roles: Vec::new(),
            exclusive: false,
            clients: None,
            serves: None,
            attention: Attention::default(),
            claim: claim(valid, settings),
            take_over: None,
            configuration: None,
            kept: false,
            deposit: None,
            waiting_plan: None,
            back_to: None,
            drift: postgres::DriftDuty::default(),
            look_again: String::new(),
        })
    });
    duties
}

/// A server of ours is always held.
fn attention(external: Option<&External>) -> Attention {
    let Some(health) = external.map(|external| &external.health) else {
        return Attention::default();
    };
    match (health.mode, health.interval) {
        (HealthMode::Held, None) => Attention::default(),
        (HealthMode::Held, Some(interval)) => Attention::Held(interval.get()),
        (HealthMode::OnDemand, interval) => Attention::OnDemand(interval.unwrap_or(ExternalHealth::SELDOM).get()),
    }
}

fn claim(valid: &Valid, settings: &Settings) -> Claim {
    Claim {
        cluster_id: settings.cluster_id.clone(),
        namespace: valid.family.namespace.clone(),
        name: valid.family.database.clone(),
        uid: valid.family.uid.clone(),
    }
}
