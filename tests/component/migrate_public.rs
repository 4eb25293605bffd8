//! Migration sets that others wrote: all of it up, all of it down, all of it up again. `hack/public-migrations` fetches them.

use std::{path::PathBuf, time::Instant};

use amas_operator::migrate::{
    consent::Consent,
    runner::{Goal, Request},
    source::Source,
};

use super::{Database, request, succeeded};

async fn up_down_up(set: &str, database: &str, migrations: usize) {
    let sets =
        std::env::var("AMAS_PUBLIC_MIGRATIONS").expect("AMAS_PUBLIC_MIGRATIONS: what hack/public-migrations prints");
    let source = Source::load(&[PathBuf::from(sets).join(set)]).unwrap();
    let db = Database::new(database).await;
    // Both sets create extensions, and one alters the database: their owner is what their own installers ask for.
    let owner = format!("ALTER ROLE {} SUPERUSER", db.owner());
    db.server.admin("postgres", &[&owner]).await;
    let timed = async |goal: Goal| {
        let began = Instant::now();
        // Most of their tables are created IF NOT EXISTS: what is done to those counts as a loss.
        let request = Request {
            consent: Consent::Everything,
            ..request(goal, source.clone())
        };
        succeeded(&db.run(request).await);
        began.elapsed()
    };

    let up = timed(Goal::Up(None)).await;
    assert_eq!(db.versions().await.len(), migrations);
    let shape = db.shape().await;
    let down = timed(Goal::Down(0)).await;
    assert!(db.versions().await.is_empty());
    let left = db.shape().await;
    let again = timed(Goal::Up(None)).await;
    assert_eq!(db.versions().await.len(), migrations);
    assert_eq!(db.shape().await, shape, "the same schema the second time");
    println!(
        "{set}: {migrations} migrations up in {up:.1?}, down in {down:.1?} (their own down files leave {} columns and functions), up again in {again:.1?}",
        left.len()
    );
}

#[tokio::test]
async fn coder() {
    up_down_up("coder-2.10.0", "coder", 205).await;
}

#[tokio::test]
async fn mattermost() {
    up_down_up("mattermost-6.7.2", "mattermost", 81).await;
}
