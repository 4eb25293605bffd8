//! Redis and Valkey: eviction, TTL rules by gentle sweeps, and what the server says of itself.

mod acl;
mod certificate;
mod claim;
mod configure;
mod duty;
mod eviction;
mod facts;
mod glob;
mod limits;
mod pace;
pub mod parameters;
pub mod programs;
mod sentinel;
mod session;
mod sweep;
pub mod workload;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

pub use self::{
    acl::acl_file,
    configure::ParameterFacts,
    duty::{CacheDuty, DefaultTtl, Eviction, EvictionPolicy, Expires, KeyType, Mode, RedisDuty, Rule},
    facts::{
        CacheFacts, EnforcedBy, EvictionFacts, FamilyFacts, Persistence, RedisFacts, RedisFigures, RuleFacts,
        SweepFacts,
    },
    glob::{Glob, escape},
    sentinel::RedisSentinel,
};
use self::{
    session::{Connection, Info},
    sweep::Sweep,
};
use crate::stores::{
    endpoint::{Endpoint, StoreError, refusal},
    health::Attention,
    keeper::{Duty, Gate, Parting, Progress, ServerIdentity, Store},
};

/// The key in database 0 that says whose server this is. Never swept.
pub const CLAIM_KEY: &str = "amas.dev/claim";

/// How long a slice may sweep; the rest of the five seconds is for replies.
const SLICE: Duration = Duration::from_secs(4);
/// Between two slices of one pass.
const BREATH: Duration = Duration::from_millis(10);
/// How often settings and figures are looked at again when nothing else is due.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// How often somebody else's claim is looked at again: it may have been released.
const CONFLICT_LOOK: Duration = Duration::from_secs(30);

/// A single Redis or Valkey server, 7.0 or newer (older ones lack `PEXPIRE LT`, which is then reported).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Redis;

/// What is kept between slices.
#[derive(Debug, Default)]
pub struct RedisWorker {
    session: Option<(RedisDuty, Connection)>,
    passes: BTreeMap<String, Pass>,
    /// The certificate that the server was last seen to show.
    shown: Option<String>,
    parameters: configure::Taken,
}

/// One policy's sweeps.
#[derive(Debug)]
struct Pass {
    /// What it was started for; another duty starts anew.
    duty: CacheDuty,
    state: PassState,
}

#[derive(Debug)]
enum PassState {
    Running(Box<Sweep>),
    DueAt(Instant),
}

impl Store for Redis {
    type Base = RedisDuty;
    type Policy = CacheDuty;
    type Facts = RedisFacts;
    type Sentinel = RedisSentinel;
    type Worker = RedisWorker;

    fn endpoint(base: &RedisDuty) -> &Endpoint {
        &base.endpoint
    }

    async fn open(base: &RedisDuty) -> Result<(RedisSentinel, ServerIdentity), StoreError> {
        acl::log_in(base, async |endpoint| RedisSentinel::open(&endpoint).await).await
    }

    fn attention(base: &RedisDuty) -> Attention {
        base.attention
    }

    fn rest(worker: &mut RedisWorker) {
        worker.session = None;
    }

    /// A pass that was under way begins anew.
    fn cut_off(worker: &mut RedisWorker, _: &Gate) {
        Self::rest(worker);
    }

    fn is_managed(base: &RedisDuty) -> bool {
        base.managed
    }

    async fn work(worker: &mut RedisWorker, duty: &Duty<Self>, facts: &mut RedisFacts) -> Result<Progress, StoreError> {
        let outcome = worker.slice(duty, facts).await;
        facts.error = refusal(&outcome, facts.error.take());
        if let Err(error) = &outcome {
            // Whatever was in flight on it is lost; a pass goes on from its cursor and asks again what had no answer.
            worker.session = None;
            if error.is_answer() {
                facts.duty_in = None;
            }
        }
        outcome
    }

    /// A server that the operator did not make has nothing that it made, so both ways only let the claim go.
    async fn part(base: &RedisDuty, _: Parting) -> Result<Vec<String>, StoreError> {
        let mut connection = acl::connection(base).await?;
        claim::release(&mut connection, base).await?;
        Ok(Vec::new())
    }

    fn differs_materially(before: &RedisFacts, after: &RedisFacts) -> bool {
        before.material() != after.material()
    }
}

impl RedisWorker {
    async fn slice(&mut self, duty: &Duty<Redis>, facts: &mut RedisFacts) -> Result<Progress, StoreError> {
        let deadline = Instant::now() + SLICE;
        facts.policies.retain(|name, _| duty.policies.contains_key(name));
        self.passes.retain(|name, _| duty.policies.contains_key(name));
        for (name, policy) in &duty.policies {
            self.take_up(name, policy, facts);
        }
        let (mut connection, is_new) = self.connection(&duty.base, facts).await?;
        let info = look(&mut connection, facts).await?;
        facts.claim_conflict = claim::hold(&mut connection, &duty.base).await?;
        facts.take_over_seen.clone_from(&duty.base.take_over);
        if facts.claim_conflict.is_some() {
            facts.duty_in = None;
            return Ok(Progress::Done {
                again_in: Some(CONFLICT_LOOK),
            });
        }
        // One that was started again has read its file anew, and that may be older than the passwords.
        if duty.base.managed && (is_new || facts.duty_in != Some(duty.base.fingerprint())) {
            acl::hold(&mut connection, &duty.base).await?;
        }
        eviction::hold(&mut connection, &info, &duty.policies, facts).await?;
        facts.parameters = configure::hold(&mut connection, &duty.base, &mut self.parameters).await?;
        facts.duty_in = Some(duty.base.fingerprint());
        if !certificate::hold(&mut connection, &duty.base, &mut self.shown).await? {
            tracing::debug!("a renewed certificate has not reached the server yet");
        }
        self.sweep(&mut connection, deadline, facts).await
    }

    /// The connection that was kept, or a new one, and whether it is.
    async fn connection(&mut self, duty: &RedisDuty, facts: &mut RedisFacts) -> Result<(Connection, bool), StoreError> {
        if let Some((known, connection)) = &self.session
            && known == duty
        {
            return Ok((connection.clone(), false));
        }
        let mut connection = acl::connection(duty).await?;
        facts.limits = Some(limits::probe(&mut connection).await?);
        self.session = Some((duty.clone(), connection.clone()));
        Ok((connection, true))
    }

    /// A new or changed policy starts with empty facts and a sweep at once.
    fn take_up(&mut self, name: &str, policy: &CacheDuty, facts: &mut RedisFacts) {
        if self.passes.get(name).is_some_and(|pass| pass.duty == *policy) {
            return;
        }
        let last_change_sweep = facts.policies.get(name).and_then(|old| old.last_change_sweep);
        let fresh = CacheFacts {
            generation: policy.generation,
            last_change_sweep,
            ..CacheFacts::default()
        };
        facts.policies.insert(name.to_owned(), fresh);
        let pass = Pass {
            duty: policy.clone(),
            state: PassState::DueAt(Instant::now()),
        };
        self.passes.insert(name.to_owned(), pass);
    }

    /// Lets the policies sweep one after another, as far as they are due and the slice lasts.
    async fn sweep(
        &mut self,
        connection: &mut Connection,
        deadline: Instant,
        facts: &mut RedisFacts,
    ) -> Result<Progress, StoreError> {
        for (name, pass) in self.passes.iter_mut().filter(|(_, pass)| pass.duty.sweeps()) {
            let facts = facts.policies.entry(name.clone()).or_default();
            if !pass.advance(connection, deadline, facts).await? {
                return Ok(Progress::More { pause: BREATH });
            }
        }
        let dues = self
            .passes
            .values()
            .filter(|pass| pass.duty.sweeps())
            .filter_map(Pass::due_in);
        Ok(Progress::Done {
            again_in: Some(dues.fold(LOOK_AGAIN, Duration::min)),
        })
    }
}

impl Pass {
    fn due_in(&self) -> Option<Duration> {
        match self.state {
            PassState::DueAt(at) => Some(at.saturating_duration_since(Instant::now())),
            PassState::Running(_) => None,
        }
    }

    /// Sweeps if due, until the deadline; false while the pass is not through. What the server refuses ends the
    /// pass and is noted with the policy: other policies go on.
    async fn advance(
        &mut self,
        connection: &mut Connection,
        deadline: Instant,
        facts: &mut CacheFacts,
    ) -> Result<bool, StoreError> {
        if self.due_in().is_some_and(|rest| !rest.is_zero()) {
            return Ok(true);
        }
        let mut sweep = match std::mem::replace(&mut self.state, PassState::DueAt(Instant::now())) {
            PassState::Running(sweep) => sweep,
            PassState::DueAt(_) => Box::new(Sweep::new(&self.duty)),
        };
        match sweep.run(connection, deadline).await {
            Ok(None) => {
                self.state = PassState::Running(sweep);
                return Ok(false);
            }
            Ok(Some(found)) => facts.note(found),
            Err(StoreError::Rejected(text)) => facts.sweep_error = Some(text),
            Err(lost) => {
                self.state = PassState::Running(sweep);
                return Err(lost);
            }
        }
        self.state = PassState::DueAt(Instant::now() + self.duty.sweep_interval);
        Ok(true)
    }
}

impl CacheFacts {
    fn note(&mut self, found: SweepFacts) {
        let changed = found.rules.iter().map(|rule| rule.keys.changed).sum::<u64>() + found.default_ttl.changed;
        if changed > 0 {
            self.last_change_sweep = Some(found.finished_at);
            tracing::info!(changed, keys = found.keys_seen, "sweep gave keys their TTL");
        }
        self.sweep_error = None;
        self.sweep = Some(found);
    }
}

/// One INFO for everything that is shown of the server.
async fn look(connection: &mut Connection, facts: &mut RedisFacts) -> Result<Info, StoreError> {
    let (info, _) = session::info(connection, None).await?;
    facts.engine = Some(info.engine());
    facts.version = info.version();
    facts.run_id = info.text("run_id").to_owned();
    let ok = |field: &str| matches!(info.text(field), "ok" | "");
    facts.persistence = Persistence {
        aof_enabled: info.number("aof_enabled") == Some(1),
        last_write_ok: ok("rdb_last_bgsave_status") && ok("aof_last_write_status") && ok("aof_last_bgrewrite_status"),
    };
    facts.figures = RedisFigures {
        used_memory: info.number("used_memory").unwrap_or_default(),
        max_memory: info.number("maxmemory").unwrap_or_default(),
        connected_clients: info.number("connected_clients").unwrap_or_default(),
        hits: info.number("keyspace_hits").unwrap_or_default(),
        misses: info.number("keyspace_misses").unwrap_or_default(),
        keys: info.keys(),
    };
    Ok(info)
}
