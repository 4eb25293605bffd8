//! One gentle pass over the keys of one CachePolicy: pages of SCAN, each riding in one round trip with what the page
//! before it asked for. The pass is kept between slices; it never blocks the server longer than a page does.

use std::{
    iter,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use redis::{Pipeline, Value, from_redis_value};

use crate::stores::{
    endpoint::StoreError,
    redis::{
        CLAIM_KEY,
        duty::{CacheDuty, DefaultTtl, Expires, KeyType, Mode, Rule},
        facts::{FamilyFacts, RuleFacts, SweepFacts},
        glob::{Glob, escape},
        pace::Pace,
        session::{Connection, lane},
    },
};

/// Keys a page: full speed, and not felt by other clients (larger pages gain nothing and stall them).
const PAGE: u32 = 100;

/// A sweep on its way.
#[derive(Clone, Debug)]
pub struct Sweep {
    families: Families,
    cursor: u64,
    /// The last page was read; what it asked for may still be open.
    scanned: bool,
    /// What the next round trip asks, a key each.
    open: Vec<(Vec<u8>, Step)>,
    tally: SweepFacts,
    pace: Option<Pace>,
}

/// What is asked about one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// `PEXPIRE LT`: sets a TTL where there is none and cuts a longer one, without reading first.
    Limit(usize, Duration),
    /// `PTTL`, for counting by the rule.
    Look(usize),
    /// `TYPE` and `PTTL`: does the default concern this key?
    Inspect,
    /// `PEXPIRE NX`: the default, only where there is still no TTL.
    Give(Duration),
}

impl Sweep {
    pub fn new(duty: &CacheDuty) -> Self {
        let rules = duty.rules.iter().map(|rule| RuleFacts {
            name: rule.name.clone(),
            keys: FamilyFacts::default(),
        });
        Self {
            tally: SweepFacts {
                rules: rules.collect(),
                ..SweepFacts::default()
            },
            families: Families::new(duty),
            cursor: 0,
            scanned: false,
            open: Vec::new(),
            pace: None,
        }
    }

    /// Goes on until the end of the pass, which gives its facts, or until the deadline.
    pub async fn run(
        &mut self,
        connection: &mut Connection,
        deadline: Instant,
    ) -> Result<Option<SweepFacts>, StoreError> {
        let mut pace = match self.pace.take() {
            Some(pace) => pace,
            None => Pace::new(round_trip(connection).await?),
        };
        while !self.finished() && Instant::now() < deadline {
            let started = Instant::now();
            self.page(connection).await?;
            if let Some(pause) = pace.after(started.elapsed()) {
                tokio::time::sleep(pause).await;
            }
        }
        self.pace = Some(pace);
        Ok(self.finished().then(|| SweepFacts {
            finished_at: Timestamp::now(),
            ..self.tally.clone()
        }))
    }

    fn finished(&self) -> bool {
        self.scanned && self.open.is_empty()
    }

    /// One round trip: the open steps, and the next SCAN.
    async fn page(&mut self, connection: &mut Connection) -> Result<(), StoreError> {
        let steps = std::mem::take(&mut self.open);
        let mut pipe = redis::pipe();
        steps.iter().for_each(|(key, step)| step.ask(key, &mut pipe));
        if !self.scanned {
            self.families.scan(self.cursor, &mut pipe);
        }
        let mut replies = match pipe.query_async::<Vec<Value>>(connection).await {
            Ok(replies) => replies.into_iter(),
            Err(error) => {
                // Asked again on the next connection: every step may be carried out twice.
                self.open = steps;
                return Err(lane(error));
            }
        };
        for (key, step) in steps {
            let next = self.hear(step, &mut replies)?;
            self.open.extend(next.map(|step| (key, step)));
        }
        if let Some(reply) = replies.next() {
            let (cursor, keys): (u64, Vec<Vec<u8>>) = from_redis_value(reply).map_err(|e| lane(e.into()))?;
            self.cursor = cursor;
            self.scanned = cursor == 0;
            keys.into_iter().for_each(|key| self.meet(key));
        }
        Ok(())
    }

    /// Sorts a key into its family and notes what is to be asked about it.
    fn meet(&mut self, key: Vec<u8>) {
        if key == CLAIM_KEY.as_bytes() || !self.families.owns(&key) {
            return;
        }
        self.tally.keys_seen += 1;
        match self.families.rule_of(&key) {
            Some((index, rule)) => {
                self.tally.rules[index].keys.matched += 1;
                let step = match (rule.mode, rule.expires) {
                    (Mode::Enforce, Expires::After(ttl)) => Step::Limit(index, ttl),
                    _ => Step::Look(index),
                };
                self.open.push((key, step));
            }
            None if self.families.default_ttl.is_some() => self.open.push((key, Step::Inspect)),
            None => {}
        }
    }

    /// Counts what the server answered to a step; gives the step that follows from it.
    fn hear(&mut self, step: Step, replies: &mut impl Iterator<Item = Value>) -> Result<Option<Step>, StoreError> {
        match step {
            Step::Limit(index, _) => self.tally.rules[index].keys.changed += number(replies)?.max(0) as u64,
            Step::Give(_) => self.tally.default_ttl.changed += number(replies)?.max(0) as u64,
            Step::Look(index) => {
                let ttl = number(replies)?;
                self.tally.rules[index]
                    .keys
                    .judge(self.families.rules[index].1.expires, ttl);
            }
            Step::Inspect => {
                let kind: String = next(replies)?;
                let ttl = number(replies)?;
                return Ok(self.judge_default(&kind, ttl));
            }
        }
        Ok(None)
    }

    fn judge_default(&mut self, kind: &str, ttl: i64) -> Option<Step> {
        let default = self.families.default_ttl.as_ref()?;
        if !default
            .types
            .iter()
            .copied()
            .map(KeyType::as_str)
            .any(|known| known == kind)
        {
            return None;
        }
        let family = &mut self.tally.default_ttl;
        family.matched += 1;
        if ttl != NO_TTL {
            return None;
        }
        match default.mode {
            Mode::Enforce => Some(Step::Give(default.ttl)),
            Mode::Audit => {
                family.without_ttl += 1;
                None
            }
        }
    }
}

/// What PTTL answers for a key without one; a key that is gone by now answers -2.
const NO_TTL: i64 = -1;

impl FamilyFacts {
    /// Counts one key by the rule of its family and the milliseconds PTTL answered.
    fn judge(&mut self, expires: Expires, ttl: i64) {
        match expires {
            Expires::After(_) if ttl == NO_TTL => self.without_ttl += 1,
            Expires::After(limit) if ttl > millis(limit) => self.too_long += 1,
            Expires::Never if ttl >= 0 => self.expiring += 1,
            _ => {}
        }
    }
}

impl Step {
    fn ask(self, key: &[u8], pipe: &mut Pipeline) {
        match self {
            Self::Limit(_, ttl) => pipe.cmd("PEXPIRE").arg(key).arg(millis(ttl)).arg("LT"),
            Self::Give(ttl) => pipe.cmd("PEXPIRE").arg(key).arg(millis(ttl)).arg("NX"),
            Self::Look(_) => pipe.cmd("PTTL").arg(key),
            Self::Inspect => pipe.cmd("TYPE").arg(key).cmd("PTTL").arg(key),
        };
    }
}

/// The policy's rules, ready for matching.
#[derive(Clone, Debug)]
struct Families {
    /// The prefix with its colon; empty without one.
    prefix: String,
    rules: Vec<(Glob, Rule)>,
    default_ttl: Option<DefaultTtl>,
}

impl Families {
    fn new(duty: &CacheDuty) -> Self {
        let prefix = duty
            .prefix
            .as_ref()
            .map(|prefix| format!("{prefix}:"))
            .unwrap_or_default();
        let rules = duty
            .rules
            .iter()
            .map(|rule| (Glob::new(rule.pattern.as_str()), rule.clone()))
            .collect();
        let default_ttl = duty.default_ttl.clone().filter(|_| duty.prefix.is_some());
        Self {
            prefix,
            rules,
            default_ttl,
        }
    }

    fn owns(&self, key: &[u8]) -> bool {
        key.starts_with(self.prefix.as_bytes())
    }

    /// The first rule that matches, in the order of the list.
    fn rule_of(&self, key: &[u8]) -> Option<(usize, &Rule)> {
        let rest = key.get(self.prefix.len()..)?;
        let found = self.rules.iter().enumerate().find(|(_, (glob, _))| glob.matches(rest));
        found.map(|(index, (_, rule))| (index, rule))
    }

    /// The server filters by what all families have in common; the rest is matched here.
    fn scan(&self, cursor: u64, pipe: &mut Pipeline) {
        pipe.cmd("SCAN").arg(cursor).arg("COUNT").arg(PAGE);
        let common = match (&self.prefix, self.rules.as_slice(), &self.default_ttl) {
            (prefix, [(_, rule)], None) => format!("{}{}", escape(prefix), rule.pattern),
            (prefix, ..) if !prefix.is_empty() => format!("{}*", escape(prefix)),
            _ => return,
        };
        pipe.arg("MATCH").arg(common);
    }
}

fn millis(ttl: Duration) -> i64 {
    i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX)
}

fn next<T: redis::FromRedisValue>(replies: &mut impl Iterator<Item = Value>) -> Result<T, StoreError> {
    let reply = replies
        .next()
        .ok_or_else(|| StoreError::Unreachable("the server answered too little".into()))?;
    from_redis_value(reply).map_err(|error| lane(error.into()))
}

fn number(replies: &mut impl Iterator<Item = Value>) -> Result<i64, StoreError> {
    next(replies)
}

/// The shortest of three pings: what the network alone takes.
async fn round_trip(connection: &mut Connection) -> Result<Duration, StoreError> {
    let mut times = Vec::new();
    for _ in iter::repeat_n((), 3) {
        let started = Instant::now();
        redis::cmd("PING").query_async::<()>(connection).await.map_err(lane)?;
        times.push(started.elapsed());
    }
    Ok(times.into_iter().min().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::names::{ItemName, KeyPattern, KeyPrefix};

    fn rule(name: &str, pattern: &str, expires: Expires, mode: Mode) -> Rule {
        Rule {
            name: ItemName::parse(name).unwrap(),
            pattern: KeyPattern::parse(pattern).unwrap(),
            expires,
            mode,
        }
    }

    fn duty(prefix: Option<&str>) -> CacheDuty {
        let five_minutes = Duration::from_secs(300);
        CacheDuty {
            generation: 1,
            prefix: prefix.map(|prefix| KeyPrefix::parse(prefix).unwrap()),
            eviction: None,
            default_ttl: Some(DefaultTtl {
                ttl: five_minutes,
                types: vec![KeyType::String],
                mode: Mode::Enforce,
            }),
            rules: vec![
                rule("feed", "tasks:recent_feed", Expires::Never, Mode::Enforce),
                rule("tasks", "task*:*", Expires::After(five_minutes), Mode::Enforce),
                rule("agents", "agent:*", Expires::After(five_minutes), Mode::Audit),
            ],
            sweep_interval: CacheDuty::SWEEP_INTERVAL,
        }
    }

    fn steps(duty: &CacheDuty, key: &str) -> Vec<Step> {
        let mut sweep = Sweep::new(duty);
        sweep.meet(key.into());
        sweep.open.into_iter().map(|(_, step)| step).collect()
    }

    #[test]
    fn asks_what_the_key_s_family_needs() {
        let limit = Step::Limit(1, Duration::from_secs(300));
        for (key, expected) in [
            ("amas:tasks:recent_feed", vec![Step::Look(0)]),
            ("amas:task:7", vec![limit]),
            ("amas:tasks:status:open", vec![limit]),
            ("amas:agent:performance:7", vec![Step::Look(2)]),
            ("amas:session:1", vec![Step::Inspect]),
            ("amas", vec![]),
            ("amasx:task:7", vec![]),
            ("task:7", vec![]),
            (CLAIM_KEY, vec![]),
        ] {
            assert_eq!(steps(&duty(Some("amas")), key), expected, "{key}");
        }
    }

    #[test]
    fn without_a_prefix_only_the_listed_families_are_claimed() {
        assert_eq!(steps(&duty(None), "agent:1"), [Step::Look(2)]);
        assert_eq!(steps(&duty(None), "anything"), []);
        assert_eq!(steps(&duty(None), CLAIM_KEY), []);
    }

    #[test]
    fn lets_the_server_filter_what_is_common() {
        let scan = |duty: &CacheDuty| {
            let mut pipe = redis::pipe();
            Families::new(duty).scan(7, &mut pipe);
            String::from_utf8(pipe.get_packed_pipeline())
                .unwrap()
                .replace("\r\n", " ")
        };
        let head = "$4 SCAN $1 7 $5 COUNT $3 100 ";
        assert_eq!(scan(&duty(Some("amas"))), format!("*6 {head}$5 MATCH $6 amas:* "));
        assert_eq!(scan(&duty(None)), format!("*4 {head}"));
        let mut single = duty(Some("amas"));
        single.default_ttl = None;
        single.rules.truncate(1);
        assert_eq!(scan(&single), format!("*6 {head}$5 MATCH $22 amas:tasks:recent_feed "));
    }

    #[test]
    fn judges_ttls() {
        let after = Expires::After(Duration::from_secs(1));
        for (expires, ttl, [without_ttl, too_long, expiring]) in [
            (after, -1, [1, 0, 0]),
            (after, -2, [0, 0, 0]),
            (after, 1000, [0, 0, 0]),
            (after, 1001, [0, 1, 0]),
            (Expires::Never, -1, [0, 0, 0]),
            (Expires::Never, 5, [0, 0, 1]),
        ] {
            let mut family = FamilyFacts::default();
            family.judge(expires, ttl);
            let expected = FamilyFacts {
                without_ttl,
                too_long,
                expiring,
                ..FamilyFacts::default()
            };
            assert_eq!(family, expected, "{expires:?} {ttl}");
        }
    }

    #[test]
    fn the_default_touches_listed_types_without_ttl_only() {
        let duty = duty(Some("amas"));
        let mut sweep = Sweep::new(&duty);
        assert_eq!(sweep.judge_default("hash", -1), None);
        assert_eq!(sweep.judge_default("string", 10_000_000), None);
        assert_eq!(
            sweep.judge_default("string", -1),
            Some(Step::Give(Duration::from_secs(300)))
        );
        assert_eq!(sweep.tally.default_ttl.matched, 2);
    }
}
