//! Whose a PostgreSQL database and its roles are, against a real server: claimed, contested, taken over, let go, dropped.

use amas_operator::stores::{
    keeper::{Departure, Parting, Store},
    postgres::{Access, Postgres, PostgresDuty},
};
use std::time::{Duration, Instant};

use super::kept::{
    APP_PASSWORD, Kept, REPORT_PASSWORD, changes, duty, login, login_to, looked_at_again, name, role, run, text,
};
use crate::support::postmaster::Postmaster as Server;

/// As on a server that is not ours.
fn elsewhere(server: &Server) -> PostgresDuty {
    PostgresDuty {
        exclusive: false,
        extensions: Vec::new(),
        ..duty(server)
    }
}

/// The roles that log in, and all others of ours.
const ROLES: &str = "SELECT string_agg(rolname || CASE WHEN rolcanlogin THEN '' ELSE ' (locked)' END, ' ' ORDER BY rolname) \
                     FROM pg_roles WHERE rolname ~ '^amas_'";

#[tokio::test]
async fn somebody_elses_login_is_never_taken_silently() {
    let server = Server::start().await;
    let mut admin = login_to(&server, "postgres", &server.password, "postgres")
        .await
        .unwrap();
    run(
        &mut admin,
        "CREATE ROLE amas_app LOGIN PASSWORD 'theirs'; COMMENT ON ROLE amas_app IS 'Ask Ann'",
    )
    .await
    .unwrap();
    let duty = elsewhere(&server);
    let mut kept = Kept::new(duty.clone());
    let conflict = "role amas_app exists and was not made for this AmasDatabase";
    kept.until(10., |now| now.facts.conflict.as_deref() == Some(conflict))
        .await;
    assert_eq!(changes(&server), [""; 0], "nothing is done");
    login_to(&server, "amas_app", "theirs", "postgres").await.unwrap();

    // A person says so.
    let asked = PostgresDuty {
        take_over: Some("yes".into()),
        ..duty.clone()
    };
    kept.settle(&asked).await;
    assert_eq!(kept.snapshots.borrow().facts.take_over_seen.as_deref(), Some("yes"));
    login(&server, "amas_app", APP_PASSWORD).await.unwrap();
    let comment = "SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = 'amas_app'";
    let comment = text(&mut admin, comment).await;
    assert!(
        comment.starts_with("Ask Ann\namas.dev/claim ") && comment.contains("\"createdByUs\":false"),
        "{comment}"
    );
    // Handled: the same duty, and nothing more to do.
    let before = changes(&server).len();
    let again = looked_at_again(&duty);
    kept.settle(&again).await;
    assert_eq!(changes(&server)[before..], [""; 0]);

    // Another AmasDatabase of this server is told who uses the role.
    let mut other = elsewhere(&server);
    (other.claim.name, other.database) = ("other".into(), name("other"));
    let mut contest = Kept::new(other);
    let conflict = "role amas_app is used by agents/amas of cluster c";
    contest
        .until(10., |now| now.facts.conflict.as_deref() == Some(conflict))
        .await;
    assert_eq!(changes(&server)[before..], [""; 0]);

    // Taken over, the role was not of our making: with the object only the database, the owner and the other role go.
    kept.keepers
        .part(&kept.key, again, Parting::Drop, Duration::from_secs(30));
    while kept.keepers.departure(&kept.key) != Some(Departure::Done(Vec::new())) {
        assert!(matches!(
            kept.keepers.departure(&kept.key),
            Some(Departure::UnderWay(None))
        ));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(text(&mut admin, ROLES).await, "amas_app (locked)");
    let databases = "SELECT string_agg(datname, ' ') FROM pg_database WHERE datname = 'amas'";
    assert_eq!(text(&mut admin, databases).await, "");
}

#[tokio::test]
async fn a_role_that_is_taken_off_the_list_is_locked_and_comes_back() {
    let server = Server::start().await;
    let all = elsewhere(&server);
    let mut kept = Kept::settled(&all).await;
    let mut admin = login(&server, "postgres", &server.password).await.unwrap();
    // One that owns something, and one that owns nothing and is logged in.
    run(
        &mut admin,
        "CREATE SCHEMA mine; CREATE TABLE mine.t (); ALTER TABLE mine.t OWNER TO amas_app",
    )
    .await
    .unwrap();
    let mut report = login(&server, "amas_report", REPORT_PASSWORD).await.unwrap();
    let none = PostgresDuty {
        roles: Vec::new(),
        ..all.clone()
    };
    kept.settle(&none).await;
    assert_eq!(text(&mut admin, ROLES).await, "amas_app (locked) amas_owner");
    assert_eq!(kept.snapshots.borrow().facts.retired_roles, ["amas_app"]);
    let begun = Instant::now();
    while run(&mut report, "SELECT 1").await.is_ok() {
        assert!(begun.elapsed() < Duration::from_secs(20), "its sessions end");
    }
    assert!(login(&server, "amas_app", APP_PASSWORD).await.is_err());
    let before = changes(&server).len();
    let again = looked_at_again(&none);
    kept.settle(&again).await;
    assert_eq!(changes(&server)[before..], [""; 0], "nothing more to do");

    // Put back with a new password: the same role, with what it owns.
    let back = PostgresDuty {
        roles: vec![role("amas_app", "new", Access::ReadWrite, 5)],
        ..all.clone()
    };
    kept.settle(&back).await;
    login(&server, "amas_app", "new").await.unwrap();
    let owner = "SELECT pg_get_userbyid(relowner)::text FROM pg_class WHERE oid = 'mine.t'::regclass";
    assert_eq!(text(&mut admin, owner).await, "amas_app");
    assert_eq!(kept.snapshots.borrow().facts.retired_roles, [""; 0]);
}

#[tokio::test]
async fn what_was_there_before_us_is_never_dropped() {
    let server = Server::start().await;
    let mut admin = login_to(&server, "postgres", &server.password, "postgres")
        .await
        .unwrap();
    for sql in ["CREATE DATABASE amas", "CREATE EXTENSION pg_trgm"] {
        run(&mut admin, sql).await.unwrap();
    }
    let mut inside = login(&server, "postgres", &server.password).await.unwrap();
    run(
        &mut inside,
        "CREATE EXTENSION citext; CREATE TABLE old AS SELECT 1 AS a",
    )
    .await
    .unwrap();
    let duty = elsewhere(&server);
    let mut kept = Kept::settled(&duty).await;
    assert_eq!(kept.snapshots.borrow().facts.undeclared_extensions, ["citext"]);
    let claim = "SELECT concat_ws('|', uid, created_by_us, released IS NOT NULL) FROM amas_operator.claim";
    assert_eq!(text(&mut inside, claim).await, "u-1|f|f");
    // A claim that was deleted by hand is written again, and still says so.
    run(&mut inside, "DELETE FROM amas_operator.claim").await.unwrap();
    let again = looked_at_again(&duty);
    kept.settle(&again).await;
    assert_eq!(text(&mut inside, claim).await, "u-1|f|f");
    kept.keepers.dismiss(&kept.key);

    let left = Postgres::part(&duty, Parting::Drop).await.unwrap();
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(left[0].starts_with("role amas_owner, which owns"), "{left:?}");
    assert_eq!(text(&mut inside, "SELECT count(*)::text FROM old").await, "1");
    assert_eq!(text(&mut inside, claim).await, "u-1|f|t");
    assert_eq!(text(&mut inside, ROLES).await, "amas_owner (locked)");
    // A second time finds nothing to do.
    assert_eq!(Postgres::part(&duty, Parting::Drop).await.unwrap().len(), 1);

    // Let go, it is the next one's, with the roles; and that is not its making either.
    let mut next = elsewhere(&server);
    next.claim.name = "next".into();
    next.owner_login.password = amas_operator::api::sensitive::Sensitive::new("next");
    let _kept = Kept::settled(&next).await;
    assert_eq!(text(&mut inside, claim).await, "u-1|f|f");
}

#[tokio::test]
async fn a_database_that_was_begun_and_not_claimed_is_of_our_making() {
    let server = Server::start().await;
    let duty = elsewhere(&server);
    let kept = Kept::settled(&duty).await;
    kept.keepers.dismiss(&kept.key);
    // As it is when the operator is killed between the two.
    let mut admin = login(&server, "postgres", &server.password).await.unwrap();
    run(&mut admin, "DROP SCHEMA amas_operator CASCADE; \
                     COMMENT ON ROLE amas_owner IS 'amas.dev/claim {\"cluster\":\"c\",\"namespace\":\"agents\",\"name\":\"amas\",\"createdByUs\":true,\"createsDatabase\":true}'")
        .await
        .unwrap();
    let kept = Kept::settled(&duty).await;
    let claim = "SELECT concat_ws('|', uid, created_by_us) FROM amas_operator.claim";
    assert_eq!(text(&mut admin, claim).await, "u-1|t");
    kept.keepers.dismiss(&kept.key);
    assert_eq!(Postgres::part(&duty, Parting::Drop).await.unwrap(), [""; 0]);
    let mut admin = login_to(&server, "postgres", &server.password, "postgres")
        .await
        .unwrap();
    assert_eq!(text(&mut admin, ROLES).await, "", "database and roles are gone");
    // Nothing of it is left, so a second time finds nothing to do.
    assert_eq!(Postgres::part(&duty, Parting::Drop).await.unwrap(), [""; 0]);
}
