//! The figures and facts of a status: rounded, and kept as they were when they moved too little to be worth a write. Pure.

use std::time::Duration;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

use crate::{
    api::{
        amas_database::{AmasDatabase, AmasDatabaseStatus},
        status::{Neo4jStatus, PostgresStatus, RedisStatus, StoreLimit, StoresStatus},
    },
    engine::child::ChildKind,
    stores::{health::Health, limits::Limit, neo4j, postgres, redis},
};

use super::{observe::Observed, table::StoreKind, validate::Valid};

/// Server start times that differ by less are the same start, told by an uptime in whole seconds.
const SAME_START: Duration = Duration::from_secs(3);

/// The facts of every declared store; of one that is away, as they were last seen.
pub fn stores(object: &AmasDatabase, valid: &Valid, observed: &Observed) -> Option<StoresStatus> {
    let old = observed.status.stores.clone().unwrap_or_default();
    let spec = &object.spec;
    let place = |store: StoreKind, port: u16| Place {
        endpoint: match observed.externals.get(&store) {
            Some(Ok(server)) => format!("{}:{}", server.clients.0, server.clients.1),
            Some(Err(_)) => String::new(),
            None => format!("{}:{port}", valid.family.host(store.component())),
        },
        volume: volume(observed, valid.family.child_name(store.component())),
    };
    let now = observed.now;
    Some(StoresStatus {
        postgres: spec.postgres.as_ref().map(|_| {
            postgres_facts(
                old.postgres,
                observed,
                place(StoreKind::Postgres, postgres::workload::PORT),
                now,
            )
        }),
        redis: spec
            .redis
            .as_ref()
            .map(|_| redis_facts(old.redis, observed, place(StoreKind::Redis, redis::workload::PORT), now)),
        neo4j: spec
            .neo4j
            .as_ref()
            .map(|_| neo4j_facts(old.neo4j, observed, place(StoreKind::Neo4j, neo4j::workload::PORT), now)),
    })
}

/// Where a store is, and its volume's size.
struct Place {
    endpoint: String,
    volume: Option<String>,
}

fn volume(observed: &Observed, name: String) -> Option<String> {
    let seen = observed.children.get(&(ChildKind::PersistentVolumeClaim, name))?;
    seen.facts.volume.as_ref()?.capacity.clone()
}

fn version(health: &Health) -> Option<String> {
    Some(health.identity.version.clone()).filter(|version| !version.is_empty())
}

fn started_at(old: Option<Time>, health: &Health) -> Option<Time> {
    let new = health.identity.started_at?;
    let same = |old: &Time| Duration::try_from(new.duration_since(old.0).abs()).is_ok_and(|apart| apart < SAME_START);
    Some(old.filter(same).unwrap_or(Time(new)))
}

/// What is known to be out of reach, or what was before the server was asked.
fn limits(old: Vec<StoreLimit>, found: Option<&Vec<Limit>>) -> Vec<StoreLimit> {
    let tell = |limit: &Limit| StoreLimit {
        name: format!("{limit:?}"),
        consequence: limit.consequence().to_owned(),
    };
    found.map_or(old, |found| found.iter().map(tell).collect())
}

/// Keeps the old block, with its time, when nothing in it differs.
fn dated<T: PartialEq>(old: Option<T>, mut new: T, as_of: impl Fn(&mut T) -> &mut Option<Time>, now: Timestamp) -> T {
    let Some(mut old) = old else {
        *as_of(&mut new) = Some(Time(now));
        return new;
    };
    let time = as_of(&mut old).clone();
    *as_of(&mut new) = time;
    if old != new {
        *as_of(&mut new) = Some(Time(now));
    }
    new
}

fn postgres_facts(old: Option<PostgresStatus>, observed: &Observed, place: Place, now: Timestamp) -> PostgresStatus {
    let mut new = PostgresStatus {
        endpoint: place.endpoint,
        volume: place.volume,
        ..old.clone().unwrap_or_default()
    };
    let found = observed
        .postgres
        .as_ref()
        .and_then(|snapshot| snapshot.facts.limits.as_ref());
    new.limits = limits(new.limits, found);
    if let Some(snapshot) = observed
        .postgres
        .as_ref()
        .filter(|snapshot| snapshot.health.is_up() && snapshot.facts.duty_in.is_some())
    {
        let facts = &snapshot.facts;
        new.version = version(&snapshot.health);
        new.started_at = started_at(new.started_at, &snapshot.health);
        new.max_connections = facts.max_connections.map(Into::into);
        new.undeclared_extensions = facts.undeclared_extensions.iter().take(32).cloned().collect();
        new.retired_roles = facts.retired_roles.iter().take(32).cloned().collect();
        new.tables = i64::try_from(facts.figures.tables).ok();
        new.size = Some(round_bytes(facts.figures.size_bytes)).filter(|_| facts.figures.size_bytes > 0);
    }
    dated(old, new, |status| &mut status.as_of, now)
}

fn redis_facts(old: Option<RedisStatus>, observed: &Observed, place: Place, now: Timestamp) -> RedisStatus {
    let mut new = RedisStatus {
        endpoint: place.endpoint,
        volume: place.volume,
        ..old.clone().unwrap_or_default()
    };
    let found = observed
        .redis
        .as_ref()
        .and_then(|snapshot| snapshot.facts.limits.as_ref());
    new.limits = limits(new.limits, found);
    if let Some(snapshot) = observed
        .redis
        .as_ref()
        .filter(|snapshot| snapshot.health.is_up() && snapshot.facts.duty_in.is_some())
    {
        new.version = version(&snapshot.health);
        new.started_at = started_at(new.started_at, &snapshot.health);
        new.engine = snapshot.facts.engine;
        new.keys = Some(round_count(snapshot.facts.figures.keys.values().sum()));
    }
    dated(old, new, |status| &mut status.as_of, now)
}

fn neo4j_facts(old: Option<Neo4jStatus>, observed: &Observed, place: Place, now: Timestamp) -> Neo4jStatus {
    let mut new = Neo4jStatus {
        endpoint: place.endpoint,
        volume: place.volume,
        ..old.clone().unwrap_or_default()
    };
    let found = observed
        .neo4j
        .as_ref()
        .and_then(|snapshot| snapshot.facts.limits.as_ref());
    new.limits = limits(new.limits, found);
    if let Some(snapshot) = observed
        .neo4j
        .as_ref()
        .filter(|snapshot| snapshot.health.is_up() && snapshot.facts.duty_in.is_some())
    {
        new.version = version(&snapshot.health);
        new.started_at = started_at(new.started_at, &snapshot.health);
        new.nodes = Some(round_count(snapshot.facts.figures.nodes));
    }
    dated(old, new, |status| &mut status.as_of, now)
}

/// Two digits: 8.4MiB, 12GiB.
pub fn round_bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut amount = bytes as f64;
    let mut unit = 0;
    while amount >= 1000.0 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    format!("{}{}", two_digits(amount), UNITS[unit])
}

/// Two digits: 7, 42, 1300 for 1,342.
pub fn round_count(count: u64) -> String {
    two_digits(count as f64)
}

fn two_digits(amount: f64) -> String {
    if amount < 10.0 {
        let text = format!("{amount:.1}");
        return text.strip_suffix(".0").map(str::to_owned).unwrap_or(text);
    }
    let magnitude = 10f64.powi(amount.log10().floor() as i32 - 1);
    format!("{}", (amount / magnitude).round() * magnitude)
}

/// The figures of a status, in the order of their fields, taken out of it.
fn take_figures(status: &mut AmasDatabaseStatus) -> [Option<String>; 4] {
    let Some(stores) = &mut status.stores else {
        return Default::default();
    };
    let mut figures: [Option<String>; 4] = Default::default();
    if let Some(postgres) = &mut stores.postgres {
        postgres.as_of = None;
        figures[0] = postgres.size.take();
        figures[1] = postgres.tables.take().map(|tables| tables.to_string());
    }
    if let Some(redis) = &mut stores.redis {
        redis.as_of = None;
        figures[2] = redis.keys.take();
    }
    if let Some(neo4j) = &mut stores.neo4j {
        neo4j.as_of = None;
        figures[3] = neo4j.nodes.take();
    }
    figures
}

/// How old the newest figures of a status are.
pub fn age(status: &AmasDatabaseStatus, now: Timestamp) -> Option<Duration> {
    let stores = status.stores.as_ref()?;
    let times = [
        stores.postgres.as_ref().and_then(|store| store.as_of.as_ref()),
        stores.redis.as_ref().and_then(|store| store.as_of.as_ref()),
        stores.neo4j.as_ref().and_then(|store| store.as_of.as_ref()),
    ];
    let newest = times.into_iter().flatten().map(|time| time.0).max()?;
    Duration::try_from(now.duration_since(newest)).ok()
}

/// Whether two statuses say the same but for figures.
pub fn differ_only_in_figures(old: &AmasDatabaseStatus, new: &AmasDatabaseStatus) -> bool {
    let (mut old, mut new) = (old.clone(), new.clone());
    take_figures(&mut old);
    take_figures(&mut new);
    old == new
}

/// Whether any figure moved by a fifth, or appeared.
pub fn figures_moved(old: &AmasDatabaseStatus, new: &AmasDatabaseStatus) -> bool {
    let (old, new) = (take_figures(&mut old.clone()), take_figures(&mut new.clone()));
    let amount = |text: &str| {
        let digits: String = text.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
        let unit = ["KiB", "MiB", "GiB", "TiB", "PiB"]
            .iter()
            .position(|unit| text.ends_with(unit))
            .map_or(0, |index| index as i32 + 1);
        digits.parse::<f64>().unwrap_or_default() * 1024f64.powi(unit)
    };
    old.iter().zip(&new).any(|pair| match pair {
        (Some(old), Some(new)) => (amount(new) - amount(old)).abs() >= 0.2 * amount(old).max(1.0),
        (None, Some(_)) => true,
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_two_digits() {
        let bytes = |n| round_bytes(n);
        assert_eq!(
            (bytes(0), bytes(999), bytes(8_800_000), bytes(13_000_000_000)),
            ("0B".into(), "1000B".into(), "8.4MiB".into(), "12GiB".into())
        );
        let count = |n| round_count(n);
        assert_eq!(
            (count(7), count(42), count(1342), count(99_999)),
            ("7".into(), "42".into(), "1300".into(), "100000".into())
        );
    }

    #[test]
    fn figures_alone_matter_from_a_fifth() {
        let status = |size: &str| AmasDatabaseStatus {
            stores: Some(StoresStatus {
                postgres: Some(PostgresStatus {
                    size: Some(size.into()),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        assert!(differ_only_in_figures(&status("10MiB"), &status("11MiB")));
        assert!(!figures_moved(&status("10MiB"), &status("11MiB")));
        assert!(figures_moved(&status("10MiB"), &status("12MiB")));
        assert!(figures_moved(&status("1000KiB"), &status("10MiB")));
    }
}
