//! One schema statement on its way: it runs beside the slices, because making a constraint reads all its nodes.

use std::time::Duration;

use tokio::task::JoinHandle;

use crate::stores::{
    endpoint::StoreError,
    keeper::Gate,
    neo4j::{
        cypher,
        duty::ConstraintDuty,
        facts::{ItemState, Sample, Violation},
        schema::Step,
        session::{Session, error_lane, get},
    },
};

/// Looking for duplicates is a courtesy; it may not hold the next statement up for ever.
const LOOKING_FOR_DUPLICATES: Duration = Duration::from_secs(120);
const BROKEN_BY_DATA: &str = "Neo.DatabaseError.Schema.ConstraintCreationFailed";

/// A running statement; dropping it ends its connection, and the server then ends its transaction.
#[derive(Debug)]
pub struct Change {
    pub policy: String,
    pub step: Step,
    task: JoinHandle<Outcome>,
}

/// How a statement ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    Done,
    /// The server said no; the state to show for the item.
    Refused(ItemState),
    /// The connection is gone: nothing is known, the schema is read again.
    Lost(String),
}

impl Change {
    /// `wanted` is the constraint the step is for, when it makes one.
    /// It goes on only while the gate is open.
    pub fn start((session, gate): (Session, Gate), policy: String, step: Step, wanted: Option<ConstraintDuty>) -> Self {
        tracing::info!(policy, statement = step.statement(), "changing the graph's schema");
        let statement = step.statement().to_owned();
        let task = tokio::spawn(async move {
            let running = async { Ok(run(&session, &statement, wanted.as_ref()).await) };
            let outcome = gate.through(running).await;
            outcome.unwrap_or_else(|error| Outcome::Lost(error.to_string()))
        });
        Self { policy, step, task }
    }

    /// Waits for the end, at most for the given time. To be dropped once it gave an outcome.
    pub async fn wait(&mut self, limit: Duration) -> Option<Outcome> {
        let ended = tokio::time::timeout(limit, &mut self.task).await.ok()?;
        Some(ended.unwrap_or_else(|error| Outcome::Lost(error.to_string())))
    }
}

impl Drop for Change {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(session: &Session, statement: &str, wanted: Option<&ConstraintDuty>) -> Outcome {
    let Err(error) = session.alter(statement).await else {
        return Outcome::Done;
    };
    let broken_by_data = matches!(&error, neo4rs::Error::Neo4j(error) if error.code() == BROKEN_BY_DATA);
    if let (true, Some(wanted)) = (broken_by_data, wanted)
        && let Ok(Ok(Some(found))) = tokio::time::timeout(LOOKING_FOR_DUPLICATES, violation(session, wanted)).await
    {
        return Outcome::Refused(ItemState::Violated(found));
    }
    match error_lane(error) {
        StoreError::Unreachable(text) => Outcome::Lost(text),
        refused => Outcome::Refused(ItemState::Failed(refused.to_string())),
    }
}

/// The server names only the first pair of duplicates; people need to know how many there are.
async fn violation(session: &Session, wanted: &ConstraintDuty) -> Result<Option<Violation>, StoreError> {
    let rows = session
        .read(&cypher::duplicates(&wanted.label, &wanted.properties))
        .await?;
    let Some(first) = rows.first() else {
        return Ok(None);
    };
    let sample = |row| {
        Ok(Sample {
            values: get(row, "key")?,
            nodes: get(row, "nodes")?,
            elements: get(row, "elements")?,
        })
    };
    let samples = rows.iter().map(sample).collect::<Result<_, StoreError>>()?;
    Ok(Some(Violation {
        values: get(first, "values")?,
        nodes: get(first, "total")?,
        samples,
    }))
}
