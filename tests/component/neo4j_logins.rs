//! What a Neo4j makes of logins that it refuses, and that a keeper whose password is wrong for a while is not kept out by that for longer than it has to be.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use amas_operator::{
    api::sensitive::Sensitive,
    stores::{
        endpoint::StoreError,
        keeper::{Duty, Keepers, Key, Store},
        neo4j::{Neo4j, Neo4jDuty, Neo4jFacts, Neo4jWorker},
    },
};
use tokio::sync::mpsc;

use crate::support::{
    neo4j::{Neo4jServer, base},
    process::eventually,
};

/// How long the server lets nobody in.
const LOCK: Duration = Duration::from_secs(5);

fn with(server: &Neo4jServer, password: &str) -> Neo4jDuty {
    let mut duty = base(server.endpoint());
    duty.endpoint.password = Sensitive::new(password);
    duty
}

async fn open(duty: &Neo4jDuty) -> Result<(), StoreError> {
    Neo4j::open(duty).await.map(drop)
}

#[tokio::test]
async fn the_third_refused_login_in_a_row_locks_an_account_and_is_got_over() {
    let Some(server) = Neo4jServer::start().await else {
        return;
    };
    let (right, wrong) = (base(server.endpoint()), with(&server, "wrong"));
    let duty = Duty::<Neo4j> {
        base: right.clone(),
        policies: BTreeMap::new(),
    };
    let mut rounds = 0..5;
    let locked = loop {
        rounds.next().expect("a round that is over before the lock is");
        eventually("nothing is locked", Duration::from_secs(60), || async {
            open(&right).await.is_ok()
        })
        .await;
        let mut locked = Instant::now();
        for pause in [Duration::ZERO, Duration::ZERO, LOCK + LOCK / 5] {
            // However far apart.
            tokio::time::sleep(pause).await;
            locked = Instant::now();
            let refused = open(&wrong).await;
            assert!(matches!(refused, Err(StoreError::LoginRefused(_))), "{refused:?}");
        }
        // Our own connections and the driver's tell it alike.
        let opened = open(&right).await;
        let worked = Neo4j::work(&mut Neo4jWorker::default(), &duty, &mut Neo4jFacts::default()).await;
        // On a busy machine the lock may be over by then.
        if locked.elapsed() < LOCK {
            for told in [opened, worked.map(drop)] {
                assert!(matches!(told, Err(StoreError::LockedOut(_))), "{told:?}");
            }
            break locked;
        }
    };

    // Asking again does not make it longer.
    let (wake, _wakes) = mpsc::unbounded_channel();
    let keepers = Keepers::<Neo4j>::new(wake);
    let key = Key {
        namespace: "n".into(),
        database: "d".into(),
    };
    keepers.assign_base(&key, right.clone());
    eventually("the keeper is in", Duration::from_secs(60), || async {
        keepers.snapshot(&key).is_some_and(|now| now.health.is_up())
    })
    .await;
    println!(
        "a keeper with the right password got in {:?} after the last refused login",
        locked.elapsed()
    );
}
