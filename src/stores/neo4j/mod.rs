//! Neo4j: constraints and indexes held by definition, duplicates reported, and what the server says of itself.

mod auth;
mod bolt;
mod change;
mod claim;
mod cypher;
mod duty;
mod facts;
mod packstream;
pub mod parameters;
mod schema;
mod sentinel;
mod session;
mod users;
mod work;
pub mod workload;

pub use self::{
    auth::{auth_ini, auth_matches},
    duty::{ConstraintDuty, ConstraintKind, GraphDuty, IndexDuty, IndexKind, Neo4jDuty, User},
    facts::{GraphFacts, GraphFigures, ItemFacts, ItemState, Neo4jFacts, Sample, Violation},
    schema::{Definition, FoundConstraint, FoundIndex, Schema, Step, compare, plan},
    sentinel::Neo4jSentinel,
    work::Neo4jWorker,
};
use crate::stores::{
    endpoint::{Endpoint, StoreError, refusal},
    health::Attention,
    keeper::{Duty, Gate, Parting, Progress, ServerIdentity, Store},
};

/// The label of the one node that says whose database this is. Left out of all counts.
pub const CLAIM_LABEL: &str = "__AmasClaim";
/// How many labels' node counts are kept.
pub const LABELS_SHOWN: usize = 50;

/// A single Neo4j server, 5.x (its Community edition is enough).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Neo4j;

impl Store for Neo4j {
    type Base = Neo4jDuty;
    type Policy = GraphDuty;
    type Facts = Neo4jFacts;
    type Sentinel = Neo4jSentinel;
    type Worker = Neo4jWorker;

    fn endpoint(base: &Neo4jDuty) -> &Endpoint {
        &base.endpoint
    }

    async fn open(base: &Neo4jDuty) -> Result<(Neo4jSentinel, ServerIdentity), StoreError> {
        Neo4jSentinel::open(base).await
    }

    fn attention(base: &Neo4jDuty) -> Attention {
        base.attention
    }

    fn rest(worker: &mut Neo4jWorker) {
        worker.session = None;
    }

    /// A running statement goes on, as after any slice: broken off it would leave an index that is in its own way.
    fn cut_off(worker: &mut Neo4jWorker, _: &Gate) {
        Self::rest(worker);
    }

    fn is_managed(base: &Neo4jDuty) -> bool {
        base.managed
    }

    fn worker(gate: &Gate) -> Neo4jWorker {
        Neo4jWorker::behind(gate)
    }

    async fn work(worker: &mut Neo4jWorker, duty: &Duty<Self>, facts: &mut Neo4jFacts) -> Result<Progress, StoreError> {
        let outcome = worker.slice(duty, facts).await;
        facts.error = refusal(&outcome, facts.error.take());
        if let Err(error) = &outcome {
            // A running statement goes on: it has a connection of its own.
            worker.session = None;
            if error.is_answer() {
                facts.duty_in = None;
            }
        }
        outcome
    }

    /// A server that the operator did not make has nothing that it made, so both ways only let the claim go.
    async fn part(base: &Neo4jDuty, _: Parting) -> Result<Vec<String>, StoreError> {
        claim::release(&session::Session::new(base, &users::choose(base).await?)?, base).await?;
        Ok(Vec::new())
    }

    fn differs_materially(before: &Neo4jFacts, after: &Neo4jFacts) -> bool {
        before.material() != after.material()
    }
}
