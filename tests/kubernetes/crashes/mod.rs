//! The crash matrix: the writes that an operator sends to the API server (N) and to the stores (M) in a create, a change, a rotation and a delete
//! are counted. Then each is spoilt in every way in which a network and a server can spoil it, and the operator is killed after each; the end is
//! the same as that of an undisturbed run.

mod fingerprint;
mod life;
mod passwords;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use crate::support::{fault::Fault, kubernetes::Kubernetes, postgres::Postgres, turns};
use life::{Ground, Life, Place, Run, Stage, Subject};

const SETTLING: Duration = Duration::from_secs(60);
/// Events beyond those of an undisturbed run that a disturbance may cost.
const MORE_EVENTS: usize = 3;

/// What is done to one write.
#[derive(Clone, Copy, Debug)]
enum Blow {
    /// The operator is killed when the server has carried it out, before it knows.
    Kill,
    Fault(Fault),
}

/// What is done to the write of this number: the operator is killed after it, and one of the rest in turn, or all of it with `AMAS_EVERY_BLOW`.
/// Stores have no words of their own for what may be tried again.
fn blows(place: Place, number: usize) -> Vec<Blow> {
    const REST: [Fault; 5] = [
        Fault::LostAnswer,
        Fault::Swallowed,
        Fault::Answer(409),
        Fault::Answer(429),
        Fault::Answer(500),
    ];
    let rest: &[Fault] = if place == Place::Api { &REST } else { &REST[..1] };
    let mut blows = vec![Blow::Kill];
    if std::env::var_os("AMAS_EVERY_BLOW").is_some() {
        blows.extend(rest.iter().map(|fault| Blow::Fault(*fault)));
    } else if place == Place::Api || number.is_multiple_of(2) {
        blows.push(Blow::Fault(rest[number % rest.len()]));
    }
    blows
}

/// One write that is spoilt.
struct Case {
    stage: Stage,
    place: Place,
    number: usize,
    blow: Blow,
    write: String,
}

async fn undisturbed(ground: &Ground) -> Vec<Run> {
    let life = Life::begin(ground).await;
    let mut found = Vec::new();
    for stage in ground.subject.stages() {
        life.enter(*stage).await;
        life.settle(*stage, None).await.unwrap();
        found.push(Run {
            writes: life.writes(),
            fingerprint: life.fingerprint().await,
            events: life.events().await,
        });
        life.check_logins().await.unwrap();
    }
    life.end().await;
    found
}

/// What was wrong.
async fn try_case(life: &mut Life, case: &Case, normal: &[Run]) -> Result<(), String> {
    for (earlier, run) in life.subject.stages().iter().zip(normal) {
        if *earlier == case.stage {
            break;
        }
        life.enter(*earlier).await;
        life.settle(*earlier, Some(run)).await?;
    }
    let fault = match case.blow {
        Blow::Kill => Fault::Unanswered,
        Blow::Fault(fault) => fault,
    };
    let plan = life.plan(case.place);
    life.enter_spoilt(case.stage, case.place, (case.number, fault)).await;
    if tokio::time::timeout(Duration::from_secs(30), plan.happened())
        .await
        .is_err()
    {
        return Err("the write never came".into());
    }
    let before = life.secrets().await;
    if let Blow::Kill = case.blow {
        life.operator.kill();
        life.operator.again();
    }
    let wanted = &normal[life
        .subject
        .stages()
        .iter()
        .position(|stage| *stage == case.stage)
        .unwrap()];
    let (begun, mut found) = (Instant::now(), String::new());
    while found != wanted.fingerprint {
        if begun.elapsed() > SETTLING {
            return Err(difference(&wanted.fingerprint, &found));
        }
        life.settle(case.stage, None).await?;
        found = life.fingerprint().await;
    }
    life.check_secrets(case.stage, &before).await?;
    life.check_logins().await?;
    let events = life.events().await;
    if events > wanted.events + MORE_EVENTS {
        return Err(format!("{events} Events instead of {}", wanted.events));
    }
    Ok(())
}

fn difference(wanted: &str, found: &str) -> String {
    let lacking = |a: &str, b: &str| {
        a.lines()
            .filter(|line| !b.lines().any(|other| other == *line))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    format!(
        "missing: {:#?}\ntoo much: {:#?}",
        lacking(wanted, found),
        lacking(found, wanted)
    )
}

/// Every write, and what is done to it.
fn cases(subject: Subject, normal: &[Run]) -> Vec<Case> {
    let mut all = Vec::new();
    for (stage, run) in subject.stages().iter().zip(normal) {
        for (place, writes) in &run.writes {
            for (index, write) in writes.iter().enumerate() {
                let case = |blow| Case {
                    stage: *stage,
                    place: *place,
                    number: index + 1,
                    blow,
                    write: write.clone(),
                };
                all.extend(blows(*place, index + 1).into_iter().map(case));
            }
        }
    }
    all
}

async fn matrix(subject: Subject) {
    let api = Kubernetes::shared().await;
    let postgres = Arc::new(Postgres::start_guarded(&[("fsync", "off"), ("max_connections", "300")]).await);
    let ground = Ground { api, postgres, subject };
    let begun = Instant::now();
    let normal = Arc::new(undisturbed(&ground).await);
    let mut running = JoinSet::new();
    for case in cases(subject, &normal) {
        let (ground, normal) = (ground.clone(), normal.clone());
        running.spawn(async move {
            let _turn = turns::turn().await;
            let mut life = Life::begin(&ground).await;
            let outcome = try_case(&mut life, &case, &normal).await;
            let log = life.end().await;
            outcome.map_err(|error| {
                let Case {
                    stage,
                    place,
                    number,
                    blow,
                    write,
                } = case;
                format!("{stage:?} {blow:?} {place:?} {number}: {write}: {error}\n{log}")
            })
        });
    }
    let (total, results) = (running.len(), running.join_all().await);
    let failures: Vec<String> = results.into_iter().filter_map(Result::err).collect();
    println!(
        "crash matrix, {subject:?}: {}; {total} cases, {} failed, {:.0} s",
        counts(subject, &normal),
        failures.len(),
        begun.elapsed().as_secs_f64()
    );
    assert!(total > 0 && failures.is_empty(), "{}", failures.join("\n\n"));
}

/// `API writes N = 25 (Create 12, ...), store writes M = ...`.
fn counts(subject: Subject, normal: &[Run]) -> String {
    let of = |what: &str, is: fn(&Place) -> bool| {
        let each = subject.stages().iter().zip(normal).map(|(stage, run)| {
            let count: usize = run
                .writes
                .iter()
                .filter(|(place, _)| is(place))
                .map(|(_, all)| all.len())
                .sum();
            (count, format!("{stage:?} {count}"))
        });
        let (all, words): (Vec<_>, Vec<_>) = each.unzip();
        format!("{what} = {} ({})", all.iter().sum::<usize>(), words.join(", "))
    };
    let api = of("API writes N", |place| *place == Place::Api);
    format!("{api}, {}", of("store writes M", |place| *place != Place::Api))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_to_a_write_about_external_stores_the_end_is_the_same() {
    matrix(Subject::External).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_to_a_write_about_a_managed_store_the_end_is_the_same() {
    matrix(Subject::Managed).await;
}
