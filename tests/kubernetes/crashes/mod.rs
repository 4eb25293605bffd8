//! The crash matrix: the writes that an operator sends to the API server (N) and to the stores (M) in a create, a change, a rotation and a delete
//! are counted. Then each is spoilt in every way in which a network and a server can spoil it, and the operator is killed after each; the end is
//! the same as that of an undisturbed run. What is read by its name in a create and a change (R) is refused, spoilt and left unanswered likewise.
//!
//! One write is spoilt at a time, so that what one blow leaves is not mended by the next. A life goes through its stages again and again, with another
//! case in each: what a stage has to come to is looked at before the next begins.

mod cases;
mod fingerprint;
mod life;
mod passwords;
mod planted;
mod settle;
mod stores;
mod success;

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use tokio::task::JoinSet;

use crate::support::{
    fault::{Which, Write},
    kubernetes::Kubernetes,
    neo4j,
    postgres::Postgres,
    turns,
};
use cases::{Blow, Case, Todo, Vain};
use life::{Ground, Life, Place, Run, Stage, Subject};
use planted::Mistake;
use settle::Course;

/// Events beyond those of an undisturbed run that a disturbance may cost.
const MORE_EVENTS: usize = 3;
/// A life that goes wrong is over; after so many of them the rest is not tried.
const ENOUGH: usize = 3;

/// What the stages are like that nobody disturbs. They are gone through twice: a second life of an object of the same name writes what its first one did,
/// and an operator that has just started reads what the first one read.
async fn undisturbed(life: &mut Life) -> Vec<Run> {
    let mut found: Vec<Run> = Vec::new();
    for stage in life.subject.stages() {
        let before = life.events().await;
        life.enter(*stage).await;
        life.settle(*stage, Course::New).await.unwrap();
        found.push(Run {
            writes: life.writes(),
            sure: life.writes(),
            reads: life.reads(),
            fingerprint: life.fingerprint().await,
            events: life.events().await - before,
        });
        life.check_logins().await.unwrap();
    }
    life.collect().await;
    life.operator.again();
    for (stage, run) in life.subject.stages().iter().zip(&mut found) {
        life.enter(*stage).await;
        // As long as the first time: what has not come by then is taken for what need not come.
        life.settle(*stage, Course::Disturbed(run)).await.unwrap();
        keep_common(&mut run.reads, life.reads());
        let mut writes = life.writes();
        for (place, all) in &mut run.sure {
            keep_common(all, writes.remove(place).unwrap_or_default());
        }
    }
    life.collect().await;
    found
}

/// Leaves what the others have too.
fn keep_common(all: &mut Vec<Write>, mut others: Vec<Write>) {
    all.retain(|one| {
        let found = others.iter().position(|other| other == one);
        found.map(|index| others.swap_remove(index)).is_some()
    });
}

/// Goes through a stage in which a write is spoilt. Why that was in vain, if it was; what was wrong.
async fn spoil(life: &mut Life, case: &Case, run: &Run, mistake: Option<Mistake>) -> Result<Option<Vain>, String> {
    if case.needs_a_start() {
        life.operator.again();
    }
    let plan = life.plan(case.place);
    let (events, outages) = (life.events().await, life.outages());
    if let Some(mistake) = mistake {
        mistake.prepare(life, case);
    }
    life.enter_spoilt(case).await;
    let happened = tokio::select! {
        () = plan.happened() => true,
        over = life.settle(case.stage, Course::Like(run)) => {
            if !plan.is_met() {
                return over.map(|()| Some(Vain::Missed));
            }
            tokio::time::timeout(life.patience, plan.happened()).await.is_ok()
        }
    };
    if !happened {
        return Err("the write was never answered".into());
    }
    let reads = life.plan(Place::Reads);
    if let Some(fault) = case.blow.reading() {
        reads.begin(Some((Which::Number(1), fault)));
    }
    let before = life.secrets().await;
    if case.blow == Blow::Kill {
        life.operator.kill();
    }
    if let Some(mistake) = mistake {
        mistake.make(life).await;
    }
    if case.blow == Blow::Kill {
        life.operator.again();
    }
    life.settle(case.stage, Course::Disturbed(run)).await?;
    if case.blow.reading().is_some() && !reads.is_met() {
        return Ok(Some(Vain::Missed));
    }
    life.check_success(case, run).await?;
    life.check_secrets(case.stage, &before).await?;
    life.check_logins().await?;
    let events = life.events().await - events;
    if events <= run.events + MORE_EVENTS {
        return Ok(None);
    }
    let told = format!("{events} Events instead of {}", run.events);
    if life.outages() > outages {
        return Ok(Some(Vain::Outage(told)));
    }
    Err(told)
}

/// Through the stages once, with what is next to be tried in each. Whether there was anything; what was wrong.
async fn round(life: &mut Life, normal: &[Run], todo: &Todo) -> Result<bool, String> {
    let mut cases = todo.next();
    if cases.is_empty() {
        return Ok(false);
    }
    let outcome = through(life, normal, todo, &mut cases).await;
    // Of a life that is over. Nothing is taken away in it, where its operator is still at work.
    todo.put_back(cases.into_values());
    outcome?;
    life.collect().await;
    Ok(true)
}

async fn through(
    life: &mut Life,
    normal: &[Run],
    todo: &Todo,
    cases: &mut BTreeMap<Stage, Case>,
) -> Result<(), String> {
    for (stage, run) in life.subject.stages().iter().zip(normal) {
        if let Some(case) = cases.remove(stage) {
            match spoil(life, &case, run, None).await {
                Ok(None) => todo.did(&case),
                Ok(Some(why)) => todo.again(case, why)?,
                Err(error) => return Err(format!("{case:?}: {error}")),
            }
        } else {
            // None is left out: what a change has made may still be there after the object.
            life.enter(*stage).await;
            life.settle(*stage, Course::Like(run)).await?;
        }
    }
    Ok(())
}

/// One life, until nothing is left to try. One in which something goes wrong is over.
async fn live(ground: Ground, normal: Arc<Vec<Run>>, todo: Arc<Todo>) -> Result<(), String> {
    let _turn = turns::turn().await;
    let mut life = Life::begin(&ground).await;
    let outcome = loop {
        match round(&mut life, &normal, &todo).await {
            Ok(true) => {}
            other => break other,
        }
    };
    let log = life.end().await;
    outcome.map(|_| ()).map_err(|error| format!("{error}\n{log}"))
}

/// Life after life until nothing is left to try; what was wrong.
async fn live_on(ground: Ground, normal: Arc<Vec<Run>>, todo: Arc<Todo>) -> Vec<String> {
    let mut failures = Vec::new();
    while failures.len() < ENOUGH {
        // One that panics is a failure among the others, so each is a task of its own.
        let life = tokio::spawn(live(ground.clone(), normal.clone(), todo.clone()));
        match life.await.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(()) => break,
            Err(error) => failures.push(error),
        }
    }
    failures
}

async fn ground(subject: Subject) -> Ground {
    let api = Kubernetes::shared().await;
    let postgres = Arc::new(Postgres::start_guarded(&[("fsync", "off"), ("max_connections", "300")]).await);
    Ground { api, postgres, subject }
}

async fn matrix(subject: Subject) {
    let ground = ground(subject).await;
    let begun = Instant::now();
    let mut first = Life::begin(&ground).await;
    let normal = Arc::new(undisturbed(&mut first).await);
    first.end().await;
    let todo = Arc::new(Todo::new(subject, &normal));
    let mut running = JoinSet::new();
    for _ in 0..subject.lives() {
        running.spawn(live_on(ground.clone(), normal.clone(), todo.clone()));
    }
    let failures = running.join_all().await.concat();
    println!(
        "crash matrix, {subject:?}: {}; {} of {} cases as undisturbed ({}), {} without their write, {} failed, {:.0} s",
        counts(subject, &normal),
        todo.tried(),
        todo.total,
        todo.words(),
        todo.absent(),
        failures.len(),
        begun.elapsed().as_secs_f64()
    );
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    assert!(
        todo.total > 0 && todo.tried() + todo.absent() == todo.total,
        "every write met every blow"
    );
}

/// `API writes N = 25 (Create 12, ...), store writes M = ..., API reads R = ...`.
fn counts(subject: Subject, normal: &[Run]) -> String {
    let of = |what: &str, count: fn(&Stage, &Run) -> usize| {
        let each = subject.stages().iter().zip(normal).map(|(stage, run)| {
            let count = count(stage, run);
            (count, format!("{stage:?} {count}"))
        });
        let (all, words): (Vec<_>, Vec<_>) = each.unzip();
        format!("{what} = {} ({})", all.iter().sum::<usize>(), words.join(", "))
    };
    [
        of("API writes N", |_, run| run.to(Place::Api)),
        of("store writes M", |_, run| {
            [Place::Postgres, Place::Redis, Place::Neo4j]
                .map(|place| run.to(place))
                .iter()
                .sum()
        }),
        of(
            "API reads R",
            |stage, run| if stage.makes() { run.reads.len() } else { 0 },
        ),
    ]
    .join(", ")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_to_a_write_about_external_stores_the_end_is_the_same() {
    matrix(Subject::External).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_to_a_write_about_policies_the_end_is_the_same() {
    if neo4j::jars().is_some() {
        matrix(Subject::Policies).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_to_a_write_about_a_managed_store_the_end_is_the_same() {
    matrix(Subject::Managed).await;
}
