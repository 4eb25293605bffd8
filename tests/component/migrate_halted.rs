//! CONCURRENTLY waits for another session's transaction, and the runner's own session ends there: what is left in the catalog
//! is seen by the next run, which ends as a run that nobody disturbed.

use std::{sync::Arc, time::Duration};

use amas_operator::migrate::{
    drift,
    plan::Options,
    report::Report,
    runner::{self, Goal, Urgency},
    session,
    source::Source,
};
use sqlx::{AssertSqlSafe, PgConnection, Row, raw_sql};
use tokio::sync::watch;

use super::{public, request, succeeded};
use crate::support::{postgres::Postgres, process::eventually};

const BASE: &str = "CREATE TABLE t (a int, b int); CREATE INDEX t_b ON t (b); \
    CREATE TABLE p (a int) PARTITION BY RANGE (a); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10); INSERT INTO p VALUES (1);";

/// A statement, the transaction it waits for, and what there is of it while it waits.
struct Form {
    name: &'static str,
    statement: &'static str,
    holder: &'static str,
    left: &'static str,
}

const WRITER: &str = "BEGIN; INSERT INTO t VALUES (1, 1)";
const FORMS: [Form; 4] = [
    Form {
        name: "named",
        statement: "CREATE INDEX CONCURRENTLY t_a ON t (a);",
        holder: WRITER,
        left: "t_a INVALID",
    },
    Form {
        name: "unnamed",
        statement: "CREATE INDEX CONCURRENTLY ON t (a, b);",
        holder: WRITER,
        left: "t_a_b_idx INVALID",
    },
    Form {
        name: "rebuilt",
        statement: "REINDEX INDEX CONCURRENTLY t_b;",
        holder: WRITER,
        left: "t_b_ccnew INVALID",
    },
    Form {
        name: "detached",
        statement: "ALTER TABLE p DETACH PARTITION p1 CONCURRENTLY;",
        // its end is waited for by the one form, its snapshot's by FINALIZE
        holder: "BEGIN ISOLATION LEVEL REPEATABLE READ; LOCK TABLE ONLY p IN ACCESS SHARE MODE; SELECT count(*) FROM t",
        left: "p1 half detached",
    },
];

const LEFT: &str = "SELECT indexrelid::regclass::text || ' INVALID' FROM pg_index WHERE NOT indisvalid UNION ALL \
    SELECT inhrelid::regclass::text || ' half detached' FROM pg_inherits WHERE inhdetachpending";

/// What the schema's fingerprint does not have.
const RECORDS: &str = "SELECT 'sqlx ' || version || description || success || encode(checksum, 'hex') FROM _sqlx_migrations UNION ALL \
    SELECT 'history ' || version || direction || encode(checksum, 'hex') FROM amas_migrate.history UNION ALL \
    SELECT 'progress ' || version FROM amas_migrate.progress UNION ALL \
    SELECT 'open run ' || id FROM amas_migrate.runs WHERE finished_at IS NULL UNION ALL \
    SELECT 'index of ' || indrelid::regclass || indisvalid || indisready || indislive FROM pg_index WHERE indrelid = 't'::regclass UNION ALL \
    SELECT 'rows ' || count(*) FROM t UNION ALL SELECT 'detached ' || count(*) FROM p1 UNION ALL SELECT 'attached ' || count(*) FROM p ORDER BY 1";

/// To version 1, the tables, or 2, the statement.
async fn up(server: &Postgres, name: &str, form: &Form, to: i64) -> Report {
    let files = vec![
        ("0001_base.sql".to_owned(), BASE.into()),
        ("0002_form.sql".to_owned(), form.statement.into()),
    ];
    let request = request(Goal::Up(Some(to)), Source::from_files(files).unwrap());
    let login = server.login("halted_owner", name);
    let mut conn = session::connect(&login, &Options::default(), Duration::from_secs(5))
        .await
        .unwrap();
    let (_keep, stop) = watch::channel(Urgency::No);
    runner::run(&mut conn, &request, stop, &mut |_| {}).await
}

async fn texts(conn: &mut PgConnection, sql: &str) -> Vec<String> {
    let rows = raw_sql(AssertSqlSafe(sql.to_owned())).fetch_all(conn).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// Records and schema.
async fn state(conn: &mut PgConnection) -> (Vec<String>, String) {
    let drift = drift::look(conn, &public()).await.unwrap().unwrap();
    assert_eq!((drift.unknown, drift.total), (None, 0), "{:?}", drift.differences);
    (texts(conn, RECORDS).await, drift.fingerprint)
}

async fn one(server: Arc<Postgres>, form: &Form) {
    let (name, calm) = (format!("halted_{}", form.name), format!("halted_{}_calm", form.name));
    for database in [&name, &calm] {
        let create = format!("CREATE DATABASE {database} OWNER halted_owner");
        server.admin("postgres", &[&create]).await;
    }
    succeeded(&up(&server, &calm, form, 1).await);
    succeeded(&up(&server, &calm, form, 2).await);
    let expected = state(&mut server.connect("postgres", &calm).await).await;

    succeeded(&up(&server, &name, form, 1).await);
    let mut conn = server.connect("postgres", &name).await;
    let mut holder = server.connect("halted_owner", &name).await;
    raw_sql(form.holder).execute(&mut holder).await.unwrap();
    let kill = async {
        let waits = || async { texts(&mut server.connect("postgres", &name).await, LEFT).await == [form.left] };
        eventually(form.name, Duration::from_secs(20), waits).await;
        let end = "SELECT pg_terminate_backend(pid, 5000)::text FROM pg_stat_activity \
                   WHERE datname = current_database() AND application_name = 'amas-migrate'";
        assert_eq!(texts(&mut conn, end).await, ["true"], "{}", form.name);
    };
    let (report, ()) = tokio::join!(up(&server, &name, form, 2), kill);
    assert!(
        [23, 24].contains(&report.exit_code()),
        "{}: {:?}",
        form.name,
        report.failure
    );
    assert_eq!(texts(&mut conn, LEFT).await, [form.left], "nobody has tidied up");
    raw_sql("ROLLBACK").execute(&mut holder).await.unwrap();
    succeeded(&up(&server, &name, form, 2).await);
    assert_eq!(state(&mut conn).await, expected, "{}", form.name);
}

#[tokio::test]
async fn a_session_that_ends_while_concurrently_waits_is_made_good() {
    let server = Postgres::shared().await;
    server.admin("postgres", &["CREATE ROLE halted_owner LOGIN"]).await;
    futures::future::join_all(FORMS.iter().map(|form| one(server.clone(), form))).await;
}
