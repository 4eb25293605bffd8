//! Statements that the server refuses, that no transaction takes, or that reach beyond themselves: what is recorded of them,
//! and what they change for others.

use std::time::Duration;

use amas_operator::migrate::{
    consent::Consent,
    report::{Failure, Report},
    runner::{Goal, Request},
    seed::Profile,
    source::Source,
};
use sqlx::{AssertSqlSafe, PgConnection, raw_sql};
use tokio::time::sleep;

use super::{Database, succeeded};

async fn up(db: &Database, texts: &[&str]) -> Report {
    db.run(request(texts)).await
}

/// Somebody else of the owner's role.
async fn other(db: &Database) -> PgConnection {
    db.server.connect(&db.owner(), &db.name).await
}

/// Plain files from their texts, numbered from 1.
fn files(texts: &[&str]) -> Source {
    let file = |(index, sql): (usize, &&str)| (format!("{:04}_m.sql", index + 1), sql.as_bytes().to_vec());
    Source::from_files(texts.iter().enumerate().map(file).collect()).unwrap()
}

fn request(texts: &[&str]) -> Request {
    Request {
        consent: Consent::Everything,
        ..super::request(Goal::Up(None), files(texts))
    }
}

async fn run(conn: &mut PgConnection, sql: &str) {
    raw_sql(AssertSqlSafe(sql.to_owned())).execute(conn).await.unwrap();
}

const PROGRESS: &str = "SELECT done || ' ' || begun FROM amas_migrate.progress";

#[tokio::test]
async fn what_was_refused_is_refused_again() {
    let db = Database::new("st_refused").await;
    let tables = "CREATE TABLE orders (a int); CREATE INDEX idx_orders ON orders (a); CREATE TABLE other (a int);\n\
                  CREATE TABLE p (a int) PARTITION BY LIST (a); CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1);";
    for wrong in [
        "SELECT 1; DROP INDEX CONCURRENTLY idx_ordrs;",
        "SELECT 1; ALTER TABLE p DETACH PARTITION other CONCURRENTLY;",
        "SELECT 1; CREATE DATABASE st_refused;",
    ] {
        for _ in 0..2 {
            let report = up(&db, &[tables, wrong]).await;
            assert_eq!((report.exit_code(), report.current), (10, 1), "{wrong}: {report:?}");
            assert_eq!(db.ask(PROGRESS).await, ["1 false"], "{wrong}");
        }
    }
    succeeded(&up(&db, &[tables, "SELECT 1; DROP INDEX CONCURRENTLY idx_orders;"]).await);
    assert_eq!(db.ask("SELECT to_regclass('idx_orders')::text").await, ["NULL"]);
}

#[tokio::test]
async fn an_index_on_a_misspelt_table_is_built_once_that_is_corrected() {
    let db = Database::new("st_misspelt").await;
    let table =
        "CREATE TABLE orders (a int, b int); CREATE INDEX older ON orders (b); INSERT INTO orders VALUES (1), (1);";
    succeeded(&up(&db, &[table]).await);
    let mut owner = other(&db).await;
    let broken = "CREATE UNIQUE INDEX CONCURRENTLY broken ON orders (a)";
    raw_sql(broken).execute(&mut owner).await.unwrap_err();
    for (wrong, code) in [("ordrs", 10), ("orders", 0)] {
        let file = format!("SELECT 1; CREATE INDEX CONCURRENTLY ON {wrong} (a);");
        let report = up(&db, &[table, &file]).await;
        assert_eq!(report.exit_code(), code, "{report:?}");
    }
    let indexes = "SELECT c.relname || ' ' || i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid \
                   WHERE i.indrelid = 'orders'::regclass ORDER BY 1";
    assert_eq!(
        db.ask(indexes).await,
        ["broken false", "older true", "orders_a_idx true"],
        "and what others have left is not ours to drop"
    );
}

#[tokio::test]
async fn a_detach_that_was_given_up_in_its_middle_is_finished() {
    let db = Database::new("st_detach").await;
    let tables = "CREATE TABLE p (a int) PARTITION BY LIST (a); CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1);";
    succeeded(&up(&db, &[tables]).await);
    let mut reader = other(&db).await;
    run(&mut reader, "BEGIN; SELECT * FROM p").await;
    let mut request = request(&[tables, "ALTER TABLE p DETACH PARTITION p1 CONCURRENTLY;"]);
    request.lock_timeout = Duration::from_millis(500);
    let report = db.run_as(&db.owner(), &request).await;
    assert_eq!(report.exit_code(), 21, "{report:?}");
    assert_eq!(db.ask("SELECT inhdetachpending::text FROM pg_inherits").await, ["true"]);
    assert_eq!(db.ask(PROGRESS).await, ["0 true"]);
    run(&mut reader, "ROLLBACK").await;
    succeeded(&db.run_as(&db.owner(), &request).await);
    let left = "SELECT count(*)::text FROM pg_inherits UNION ALL SELECT count(*)::text FROM amas_migrate.progress";
    assert_eq!(db.ask(left).await, ["0", "0"]);
}

#[tokio::test]
async fn tables_of_another_schema_are_not_locked_however_the_path_is_set() {
    let db = Database::new("st_tenant").await;
    let tables = "CREATE SCHEMA tenant; CREATE TABLE public.orders (a int); CREATE TABLE tenant.orders (a int);";
    succeeded(&up(&db, &[tables]).await);
    let mut reader = other(&db).await;
    run(&mut reader, "BEGIN; SELECT * FROM public.orders").await;
    let mut request = request(&[
        tables,
        "SET SEARCH_PATH TO tenant; ALTER TABLE orders ADD b int;",
        "SET SCHEMA 'tenant'; ALTER TABLE orders ADD c int;",
    ]);
    request.lock_timeout = Duration::from_secs(3);
    succeeded(&db.run_as(&db.owner(), &request).await);
    let columns = "SELECT attrelid::regclass::text || '.' || attname FROM pg_attribute \
                   WHERE attname IN ('b', 'c') AND attrelid::regclass::text LIKE '%orders' ORDER BY 1";
    assert_eq!(db.ask(columns).await, ["tenant.orders.b", "tenant.orders.c"]);
}

#[tokio::test]
async fn a_lock_timeout_of_the_file_is_kept_however_it_is_written() {
    let db = Database::new("st_timeout").await;
    let keep = "INSERT INTO log VALUES (current_setting('LOCK_TIMEOUT'));";
    let file =
        format!("-- no-transaction\nSET LOCK_TIMEOUT = '7s';\nDO $$ BEGIN {keep} END $$;\nDO $$ BEGIN {keep} END $$;");
    succeeded(&up(&db, &["CREATE TABLE log (what text);", &file]).await);
    assert_eq!(db.ask("SELECT what FROM log").await, ["7s", "7s"]);
}

#[tokio::test]
async fn another_user_of_the_session_is_left_for_the_records_and_taken_again() {
    let db = Database::new("st_auth").await;
    let admin = [
        "CREATE ROLE st_auth_group",
        "GRANT st_auth_group TO st_auth_app",
        "GRANT CREATE ON SCHEMA public TO st_auth_app",
        "CREATE TABLE theirs (a int)",
        "ALTER TABLE theirs OWNER TO st_auth_app",
        "CREATE TABLE log (what text)",
        "GRANT INSERT ON log TO PUBLIC",
    ];
    db.server.admin(&db.name, &admin).await;
    let who = "INSERT INTO log VALUES (session_user || ' ' || current_user);";
    let whole = format!("SET SESSION AUTHORIZATION st_auth_app; {who}");
    let parts = format!(
        "SET SESSION AUTHORIZATION st_auth_app; CREATE INDEX CONCURRENTLY i ON theirs (a); {who}\n\
         SET ROLE st_auth_group; VACUUM theirs; {who}"
    );
    let all = request(&[&whole, &parts, "CREATE TABLE mine ();"]);
    succeeded(&db.run_as("postgres", &all).await);
    assert_eq!(
        db.ask("SELECT what FROM log").await,
        [
            "st_auth_app st_auth_app",
            "st_auth_app st_auth_app",
            "st_auth_app st_auth_group"
        ]
    );
    let owners = "SELECT tableowner::text FROM pg_tables WHERE tablename = 'mine'";
    assert_eq!(db.ask(owners).await, ["postgres"]);
}

#[tokio::test]
async fn what_ends_where_a_file_is_cut_is_refused_before_anything_runs() {
    let db = Database::new("st_cut").await;
    let tables = "CREATE TYPE status AS ENUM ('a'); CREATE SCHEMA tenant; CREATE TABLE public.orders (status status);\n\
                  CREATE TABLE tenant.orders (status status); INSERT INTO public.orders VALUES ('a');\n\
                  INSERT INTO tenant.orders VALUES ('a');";
    let cut = |set: &str| {
        format!(
            "{set} search_path = tenant, public;\nALTER TYPE status ADD VALUE 'x';\nUPDATE orders SET status = 'x' WHERE true;"
        )
    };
    let report = up(&db, &[tables, &cut("SET LOCAL")]).await;
    let failure = report.failure.as_ref().unwrap().to_string();
    assert_eq!(report.exit_code(), 11, "{failure}");
    let told = "0002_m.sql:1:1: SET LOCAL ends with its transaction, and the file goes on in another at line 3; write SET without LOCAL";
    assert!(failure.starts_with(told), "{failure}");
    assert_eq!(db.ask("SELECT to_regclass('public.orders')::text").await, ["NULL"]);
    succeeded(&up(&db, &[tables, &cut("SET")]).await);
    let rows = "SELECT 'public ' || status FROM public.orders UNION ALL SELECT 'tenant ' || status FROM tenant.orders";
    assert_eq!(db.ask(rows).await, ["public a", "tenant x"]);
}

#[tokio::test]
async fn a_role_of_the_files_own_transaction_is_left_before_its_part_is_recorded() {
    let db = Database::new("st_local_role").await;
    let owner = &db.owner();
    let admin = [
        "CREATE ROLE st_local_group".to_owned(),
        format!("GRANT st_local_group TO {owner}"),
        "GRANT CREATE ON SCHEMA public TO st_local_group".to_owned(),
    ];
    db.server.admin(&db.name, &admin.each_ref().map(String::as_str)).await;
    let file = "-- no-transaction\nBEGIN; SET LOCAL ROLE st_local_group; CREATE TABLE theirs (); COMMIT;\n\
                CREATE INDEX CONCURRENTLY i ON t (a); CREATE TABLE ours ();";
    succeeded(&up(&db, &["CREATE TABLE t (a int);", file]).await);
    let owners =
        "SELECT tablename || ' ' || tableowner FROM pg_tables WHERE tablename IN ('theirs', 'ours') ORDER BY 1";
    assert_eq!(
        db.ask(owners).await,
        [format!("ours {owner}"), "theirs st_local_group".to_owned()]
    );
}

#[tokio::test]
async fn what_only_a_partitioned_table_keeps_out_of_transactions_runs_with_the_header() {
    let db = Database::new("st_partitioned").await;
    let tables = "CREATE TABLE p (a int) PARTITION BY RANGE (a); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (1) TO (9);\n\
                  CREATE INDEX i ON p (a); INSERT INTO p VALUES (2), (1);";
    let both = "REINDEX TABLE p;\nCLUSTER p USING i;";
    let report = up(&db, &[tables, both]).await;
    let failure = report.failure.as_ref().unwrap();
    assert_eq!(
        (report.exit_code(), failure.sqlstate()),
        (10, Some("25001")),
        "{failure}"
    );
    assert!(
        failure.advice().contains("'-- no-transaction' the file's first line"),
        "{}",
        failure.advice()
    );
    succeeded(&up(&db, &[tables, &format!("-- no-transaction\n{both}")]).await);
    assert_eq!(db.ask("SELECT a::text FROM p").await, ["1", "2"]);
}

#[tokio::test]
async fn the_migration_lock_is_not_given_away() {
    let db = Database::new("st_discard").await;
    let report = up(&db, &["CREATE TABLE t ();", "-- no-transaction\nDISCARD ALL;"]).await;
    let failure = report.failure.as_ref().unwrap().to_string();
    assert_eq!(report.exit_code(), 11, "{failure}");
    assert!(
        failure.starts_with("0002_m.sql:2:1: DISCARD ALL gives away the lock"),
        "{failure}"
    );
    assert_eq!(db.ask("SELECT to_regclass('t')::text").await, ["NULL"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seed_waits_no_longer_than_it_may_and_nobody_queues_behind_it() {
    let db = Database::new("st_seed").await;
    let mut request = request(&["CREATE TABLE busy (a int); INSERT INTO busy VALUES (1);"]);
    succeeded(&db.run_as(&db.owner(), &request).await);
    let mut blocker = other(&db).await;
    run(
        &mut blocker,
        "SET application_name = 'slow report'; BEGIN; SELECT * FROM busy",
    )
    .await;
    for sql in [
        "TRUNCATE busy; INSERT INTO busy VALUES (2);",
        "DO $$ BEGIN TRUNCATE busy; END $$;",
    ] {
        let file = ("1_a.sql".to_owned(), sql.as_bytes().to_vec());
        request.seeds = vec![Profile::from_files("x", vec![file]).unwrap()];
        request.lock_timeout = Duration::from_millis(1500);
        let report = db.run_as(&db.owner(), &request).await;
        let failure = report.failure.as_ref().unwrap();
        assert!(
            matches!(failure, Failure::Blocked { .. }) && report.exit_code() == 21,
            "{failure}"
        );
        assert!(failure.to_string().starts_with("x/1_a.sql"), "{failure}");
    }
    let file = (
        "1_a.sql".to_owned(),
        b"TRUNCATE busy; INSERT INTO busy VALUES (2);".to_vec(),
    );
    request.seeds = vec![Profile::from_files("x", vec![file]).unwrap()];
    let reading = async {
        let mut reader = other(&db).await;
        run(&mut reader, "SET statement_timeout = '500ms'").await;
        for _ in 0..20 {
            run(&mut reader, "SELECT * FROM busy").await;
            sleep(Duration::from_millis(50)).await;
        }
    };
    let owner = db.owner();
    let (report, ()) = tokio::join!(db.run_as(&owner, &request), reading);
    let failure = report.failure.as_ref().unwrap().to_string();
    assert!(
        failure.contains("slow report") && failure.contains("on busy"),
        "{failure}"
    );
    run(&mut blocker, "ROLLBACK").await;
    let report = db.run_as(&db.owner(), &request).await;
    succeeded(&report);
    assert_eq!(
        (report.seeds, db.ask("SELECT a::text FROM busy").await),
        (1, vec!["2".to_owned()])
    );
}
