//! One slice of work: the claim, the running statement, the schema, the next statement.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

use crate::stores::{
    endpoint::StoreError,
    keeper::{Duty, Gate, Progress},
    limits::Limit,
    neo4j::{
        Neo4j,
        change::{Change, Outcome},
        claim,
        duty::{GraphDuty, Neo4jDuty},
        facts::{ItemState, Neo4jFacts},
        schema::{Schema, Step, compare, plan},
        session::Session,
        users,
    },
};

/// How long a slice may wait for a running statement.
const SLICE: Duration = Duration::from_secs(3);
/// Between two looks at a population.
const POLL: Duration = Duration::from_millis(500);
/// How soon something the server refused, or remains that are in the way, are taken up again.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often the schema and the figures are looked at when all is in.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// What is kept between slices.
#[derive(Default)]
pub struct Neo4jWorker {
    pub(super) session: Option<(Neo4jDuty, Session)>,
    policies: BTreeMap<String, GraphDuty>,
    gate: Gate,
    /// Schema statements go one after another, over all policies.
    running: Option<Change>,
    /// Steps that must wait, by policy and statement.
    held: BTreeMap<(String, String), Held>,
}

/// Why a step waits, shown as its item's state, and until when.
struct Held {
    state: Option<ItemState>,
    until: Instant,
}

impl fmt::Debug for Neo4jWorker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Neo4jWorker")
            .field("running", &self.running)
            .finish_non_exhaustive()
    }
}

impl Neo4jWorker {
    /// Its schema statements go through this gate too.
    pub fn behind(gate: &Gate) -> Self {
        Self {
            gate: gate.clone(),
            ..Self::default()
        }
    }

    pub(super) async fn slice(&mut self, duty: &Duty<Neo4j>, facts: &mut Neo4jFacts) -> Result<Progress, StoreError> {
        let deadline = Instant::now() + SLICE;
        self.take_up(&duty.policies);
        facts.policies.retain(|name, _| duty.policies.contains_key(name));
        let (session, is_new) = self.session(&duty.base, facts).await?;
        facts.claim_conflict = claim::hold(&session, &duty.base).await?;
        facts.take_over_seen.clone_from(&duty.base.take_over);
        if facts.claim_conflict.is_some() {
            (self.running, facts.duty_in) = (None, None);
            return Ok(Progress::Done {
                again_in: Some(PATIENCE),
            });
        }
        let fingerprint = duty.base.fingerprint();
        if duty.base.managed && (is_new || facts.duty_in != Some(fingerprint)) {
            users::hold(&duty.base).await?;
        }
        facts.duty_in = Some(fingerprint);
        loop {
            let still_running = !self.finish_running(deadline).await;
            let schema = session.schema().await?;
            let next = self.judge(&schema, facts);
            if still_running {
                return Ok(Progress::More { pause: POLL });
            }
            match next {
                Some((policy, step)) => self.start(&session, policy, step),
                None => break,
            }
        }
        facts.figures = session.figures().await?;
        Ok(self.progress(facts))
    }

    /// The session that was kept, or a new one, and whether it is.
    async fn session(&mut self, base: &Neo4jDuty, facts: &mut Neo4jFacts) -> Result<(Session, bool), StoreError> {
        if let Some((known, session)) = &self.session
            && known == base
        {
            return Ok((session.clone(), false));
        }
        let session = Session::new(base, &users::choose(base).await?)?;
        // Ours is a Community server that we may write to: it need not be asked.
        facts.limits = Some(match base.managed {
            true => vec![Limit::NoRoles],
            false => session.limits(base.database.as_str()).await?,
        });
        self.session = Some((base.clone(), session.clone()));
        Ok((session, true))
    }

    /// A changed policy is tried anew at once; what it no longer asks for is not waited for.
    fn take_up(&mut self, policies: &BTreeMap<String, GraphDuty>) {
        let same = |name: &String, old: &BTreeMap<String, GraphDuty>| policies.get(name) == old.get(name);
        self.held.retain(|(policy, _), _| same(policy, &self.policies));
        if self
            .running
            .as_ref()
            .is_some_and(|change| !policies.contains_key(&change.policy))
        {
            self.running = None;
        }
        if *policies != self.policies {
            self.policies.clone_from(policies);
        }
    }

    /// Waits for the running statement until the deadline; true when none runs any more.
    async fn finish_running(&mut self, deadline: Instant) -> bool {
        let Some(change) = &mut self.running else {
            return true;
        };
        let Some(outcome) = change.wait(deadline.saturating_duration_since(Instant::now())).await else {
            return false;
        };
        let key = (change.policy.clone(), change.step.statement().to_owned());
        match outcome {
            Outcome::Done => drop(self.held.remove(&key)),
            Outcome::Refused(state) => self.hold(key, Some(state)),
            Outcome::Lost(why) => {
                tracing::warn!(
                    policy = key.0,
                    statement = key.1,
                    why,
                    "a schema statement's connection was lost"
                );
                self.hold(key, None);
            }
        }
        self.running = None;
        true
    }

    fn hold(&mut self, key: (String, String), state: Option<ItemState>) {
        // A refusal is not cured in a moment; a lost connection may be.
        let pause = if state.is_some() { PATIENCE } else { POLL };
        self.held.insert(
            key,
            Held {
                state,
                until: Instant::now() + pause,
            },
        );
    }

    /// Notes where every item stands; gives the first step that may be taken now.
    fn judge(&mut self, schema: &Schema, facts: &mut Neo4jFacts) -> Option<(String, Step)> {
        let mut steps = Vec::new();
        for (name, want) in &self.policies {
            let mut state = compare(schema, want);
            let planned = plan(schema, want);
            let running = self
                .running
                .as_ref()
                .filter(|change| change.policy == *name)
                .map(|change| &change.step);
            if let Some(step) = running {
                step.item_of(&mut state, |item| item.state = running_state(&item.state));
            }
            // What is known from the last attempt stands until the next one ends, so that a retry flips nothing.
            for step in planned.iter().chain(running) {
                let held = self.held.get(&(name.clone(), step.statement().to_owned()));
                if let Some(known) = held.and_then(|held| held.state.clone()) {
                    step.item_of(&mut state, |item| item.state = known);
                }
            }
            facts.policies.insert(name.clone(), state);
            steps.extend(planned.into_iter().map(|step| (name.clone(), step)));
        }
        let running = self.running.as_ref().map(|change| change.step.statement().to_owned());
        self.held.retain(|(policy, statement), _| {
            running.as_ref() == Some(statement)
                || steps
                    .iter()
                    .any(|(name, step)| name == policy && step.statement() == statement)
        });
        steps.into_iter().find(|(policy, step)| self.may_start(policy, step))
    }

    fn may_start(&mut self, policy: &str, step: &Step) -> bool {
        let key = (policy.to_owned(), step.statement().to_owned());
        match self.held.get(&key) {
            Some(held) => held.until <= Instant::now(),
            None if matches!(step, Step::DropOrphan { .. }) => {
                // Seen for the first time: perhaps somebody is just finishing it.
                self.held.insert(
                    key,
                    Held {
                        state: None,
                        until: Instant::now() + PATIENCE,
                    },
                );
                false
            }
            None => true,
        }
    }

    fn start(&mut self, session: &Session, policy: String, step: Step) {
        let wanted = match step {
            Step::CreateConstraint { item, .. } => self
                .policies
                .get(&policy)
                .and_then(|duty| duty.constraints.get(item))
                .cloned(),
            _ => None,
        };
        let through = (session.clone(), self.gate.clone());
        self.running = Some(Change::start(through, policy, step, wanted));
    }

    fn progress(&self, facts: &Neo4jFacts) -> Progress {
        let items = facts
            .policies
            .values()
            .flat_map(|policy| policy.constraints.iter().chain(&policy.indexes));
        if items
            .into_iter()
            .any(|item| matches!(item.state, ItemState::Populating(_)))
        {
            return Progress::More { pause: POLL };
        }
        let now = Instant::now();
        let due = self
            .held
            .values()
            .map(|held| held.until.saturating_duration_since(now))
            .min();
        Progress::Done {
            again_in: Some(due.unwrap_or(LOOK_AGAIN).min(LOOK_AGAIN)),
        }
    }
}

/// What an item shows while its statement runs: the server's own percentage where it gives one.
fn running_state(seen: &ItemState) -> ItemState {
    match seen {
        ItemState::Missing => ItemState::Populating(0.0),
        // The index is full and the constraint about to be there.
        ItemState::Blocked(_) => ItemState::Populating(100.0),
        other => other.clone(),
    }
}
