//! `OnFailure::Rollback`: what a failed run has applied is taken back, as far as there is a way.

use amas_operator::migrate::{
    history,
    plan::{self, Options},
    runner::{Goal, OnFailure, Request},
    source::Source,
};

use super::{Database, FIVE, five_with, request, source, statement, succeeded};

fn rolling_back(source: Source) -> Request {
    Request {
        on_failure: OnFailure::Rollback,
        ..request(Goal::Up(None), source)
    }
}

#[tokio::test]
async fn a_failed_run_goes_back_to_where_it_began() {
    let db = Database::new("goes_back").await;
    succeeded(&db.run(request(Goal::Up(Some(1)), source(&FIVE))).await);
    let before = db.shape().await;
    let report = db.run(rolling_back(source(&five_with(3, "SELECT 1/0")))).await;
    let failed = statement(&report);
    assert_eq!(
        (failed.file.as_str(), failed.sqlstate.as_str()),
        ("0004_function.up.sql", "22012")
    );
    assert_eq!((report.exit_code(), report.current, report.done), (10, 1, 0));
    assert_eq!((db.versions().await, db.shape().await), (vec![1], before));
    let run = db.state().await.latest_run.unwrap();
    assert_eq!(
        (run.outcome.as_deref(), run.failed_version, run.current_version),
        (Some("failed"), Some(4), 1)
    );
    assert_eq!((run.done, run.total), (0, 4));
    let message = run.message.unwrap();
    assert!(
        message.contains("division by zero; rolled back: the schema is at version 1"),
        "{message}"
    );
    let history = db
        .ask("SELECT version || direction FROM amas_migrate.history ORDER BY id")
        .await;
    assert_eq!(history, ["1up", "2up", "3up", "3down", "2down"]);
    succeeded(&db.run(rolling_back(source(&FIVE))).await);
    assert_eq!(db.versions().await, [1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn a_version_without_a_way_back_ends_it() {
    let db = Database::new("no_way_back").await;
    let mut files = vec![("0001_a.sql".to_owned(), b"CREATE TABLE a (i int)".to_vec())];
    for (name, text) in [
        ("0002_b.up.sql", "CREATE TABLE b (i int)"),
        ("0002_b.down.sql", "DROP TABLE b"),
        ("0003_c.sql", "SELECT 1/0"),
    ] {
        files.push((name.to_owned(), text.as_bytes().to_vec()));
    }
    let report = db.run(rolling_back(Source::from_files(files).unwrap())).await;
    let text = report.failure.as_ref().unwrap().to_string();
    assert!(
        text.contains("rolled back to version 1 only") && text.contains("has no down text"),
        "{text}"
    );
    assert_eq!((report.exit_code(), db.versions().await), (10, vec![1]));
}

#[tokio::test]
async fn what_is_half_way_is_not_touched() {
    let db = Database::new("half_way_stays").await;
    let half = "CREATE INDEX CONCURRENTLY i ON posts (id); SELECT 1/0;";
    let report = db.run(rolling_back(source(&five_with(2, half)))).await;
    let text = report.failure.as_ref().unwrap().to_string();
    assert!(
        text.contains("rolled back to version 2 only: version 3 is half way"),
        "{text}"
    );
    assert_eq!(report.exit_code(), 10);
    // a corrected rest goes on where it stopped
    let mended = "CREATE INDEX CONCURRENTLY i ON posts (id); ALTER TABLE posts ADD COLUMN title text;";
    succeeded(&db.run(rolling_back(source(&five_with(2, mended)))).await);
    assert_eq!(db.versions().await, [1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn a_jobs_second_pod_takes_back_what_the_first_did() {
    let db = Database::new("second_pod").await;
    let bad = source(&five_with(3, "SELECT 1/0"));
    let identity = history::identity(&mut db.connect().await).await.unwrap();
    let hash = plan::plan(&bad, &[], None)
        .unwrap()
        .hash(&identity, &Options::default());
    let pod = |on_failure| Request {
        on_failure,
        plan_hash: Some(hash.clone()),
        attempt: "job-1".to_owned(),
        ..request(Goal::Up(None), bad.clone())
    };
    let first = db.run(pod(OnFailure::Stop)).await;
    assert_eq!((first.exit_code(), first.current), (10, 3));
    let second = db.run(pod(OnFailure::Rollback)).await;
    assert_eq!((second.exit_code(), second.current), (10, 0));
    // a third one has the whole plan before it again
    let third = db.run(pod(OnFailure::Rollback)).await;
    assert_eq!((third.exit_code(), third.current), (10, 0));
    assert_eq!(statement(&third).version, Some(4));
}
