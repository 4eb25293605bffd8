//! The locks that the analysis names against those that a real server takes: each statement runs in a transaction, and
//! `pg_locks` of that session is read before it is rolled back.

use std::collections::BTreeMap;

use amas_operator::migrate::analysis;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row, raw_sql};

use crate::support::postgres::Postgres;

/// What every statement finds.
const SCHEMA: &[&str] = &[
    "CREATE TABLE a (id int PRIMARY KEY, n int, t text, CONSTRAINT positive CHECK (n > 0))",
    "CREATE TABLE b (id int PRIMARY KEY, a_id int, CONSTRAINT to_a FOREIGN KEY (a_id) REFERENCES a (id) NOT VALID)",
    "CREATE TABLE c (id int NOT NULL, x int)",
    "CREATE SCHEMA s; CREATE TABLE s.a (id int, \"Odd Name\" int); CREATE TABLE s.\"Quo\"\"ted\" (id int)",
    "CREATE TABLE p (id int NOT NULL) PARTITION BY RANGE (id)",
    "CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10); CREATE TABLE q (id int NOT NULL)",
    "CREATE TABLE parent (id int NOT NULL, x int); CREATE TABLE k () INHERITS (parent); CREATE TABLE kid (id int NOT NULL, x int)",
    "CREATE INDEX a_n ON a (n); CREATE UNIQUE INDEX c_id ON c (id)",
    "CREATE VIEW v AS SELECT id FROM a; CREATE MATERIALIZED VIEW m AS SELECT id FROM a; CREATE UNIQUE INDEX ON m (id)",
    "CREATE SEQUENCE n; CREATE TYPE e AS ENUM ('x'); CREATE DOMAIN d AS int",
    "CREATE FUNCTION tf() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END'",
    "CREATE TRIGGER tr BEFORE INSERT ON a FOR EACH ROW EXECUTE FUNCTION tf()",
    "CREATE POLICY po ON a; CREATE RULE ru AS ON DELETE TO c DO INSTEAD NOTHING",
    "CREATE STATISTICS st ON id, n FROM a; CREATE ROLE reader",
];

/// Statements that a transaction can hold.
const STATEMENTS: &[&str] = &[
    "SELECT * FROM a JOIN b ON b.a_id = a.id",
    "SELECT * FROM a FOR UPDATE",
    "SELECT * FROM s.a FOR SHARE",
    "SELECT * FROM v",
    "TABLE c",
    "INSERT INTO c VALUES (1, 2)",
    "INSERT INTO c SELECT id, n FROM a",
    "INSERT INTO a VALUES (1, 1) ON CONFLICT (id) DO NOTHING",
    "UPDATE a SET n = 3",
    "UPDATE a SET n = 3 FROM b WHERE b.a_id = a.id",
    "DELETE FROM b WHERE id = 1",
    "DELETE FROM b USING a WHERE a.id = b.a_id",
    "WITH x AS (DELETE FROM b RETURNING id) INSERT INTO c SELECT id, id FROM x",
    "MERGE INTO a USING c ON a.id = c.id WHEN MATCHED THEN UPDATE SET n = c.x",
    "TRUNCATE c",
    "TRUNCATE TABLE a, b",
    "LOCK TABLE c",
    "LOCK a, b IN SHARE ROW EXCLUSIVE MODE",
    "LOCK TABLE c IN ROW SHARE MODE",
    "CREATE TABLE new (id int)",
    "CREATE TABLE new (id int PRIMARY KEY, a_id int REFERENCES a, c_id int, FOREIGN KEY (c_id) REFERENCES c (id))",
    "CREATE TABLE new (LIKE a INCLUDING ALL)",
    "CREATE TABLE new (y int) INHERITS (c)",
    "CREATE TABLE new PARTITION OF p FOR VALUES FROM (10) TO (20)",
    "CREATE TABLE new AS SELECT * FROM a",
    "CREATE VIEW new AS SELECT * FROM a JOIN s.a x USING (id)",
    "CREATE OR REPLACE VIEW v AS SELECT id FROM a",
    "CREATE MATERIALIZED VIEW new AS SELECT * FROM c",
    "CREATE INDEX ON a (t)",
    "CREATE UNIQUE INDEX new ON s.a (id)",
    "CREATE TRIGGER new BEFORE UPDATE ON c FOR EACH ROW EXECUTE FUNCTION tf()",
    "CREATE OR REPLACE TRIGGER tr BEFORE INSERT ON a FOR EACH ROW EXECUTE FUNCTION tf()",
    "CREATE CONSTRAINT TRIGGER new AFTER INSERT ON b FROM a FOR EACH ROW EXECUTE FUNCTION tf()",
    "CREATE RULE new AS ON UPDATE TO c DO INSTEAD NOTHING",
    "CREATE POLICY new ON c USING (id > 1)",
    "CREATE STATISTICS new ON id, x FROM c",
    "CREATE SEQUENCE new",
    "CREATE FUNCTION new() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE TYPE new AS (a int)",
    "ALTER TABLE a ADD COLUMN z int",
    "ALTER TABLE a ADD COLUMN z int REFERENCES c (id)",
    "ALTER TABLE a ADD z int DEFAULT 1, ADD y text",
    "ALTER TABLE a DROP COLUMN t",
    "ALTER TABLE a ALTER COLUMN n TYPE bigint",
    "ALTER TABLE a ALTER n SET NOT NULL",
    "ALTER TABLE a ALTER n DROP NOT NULL",
    "ALTER TABLE a ALTER n SET DEFAULT 4",
    "ALTER TABLE a ALTER n SET STATISTICS 200",
    "ALTER TABLE a ALTER n SET (n_distinct = 5)",
    "ALTER TABLE a ALTER t SET STORAGE EXTERNAL",
    "ALTER TABLE a ADD CONSTRAINT z CHECK (n < 100)",
    "ALTER TABLE a ADD CONSTRAINT z CHECK (n < 100) NOT VALID",
    "ALTER TABLE a ADD CONSTRAINT z UNIQUE (n)",
    "ALTER TABLE c ADD CONSTRAINT z PRIMARY KEY USING INDEX c_id",
    "ALTER TABLE c ADD CONSTRAINT z FOREIGN KEY (x) REFERENCES a (id)",
    "ALTER TABLE c ADD FOREIGN KEY (x) REFERENCES a NOT VALID",
    "ALTER TABLE c ADD FOREIGN KEY (x) REFERENCES a, ADD y int",
    "ALTER TABLE b VALIDATE CONSTRAINT to_a",
    "ALTER TABLE a VALIDATE CONSTRAINT positive",
    "ALTER TABLE b VALIDATE CONSTRAINT to_a, ALTER id SET STATISTICS 5",
    "ALTER TABLE b DROP CONSTRAINT to_a",
    "ALTER TABLE a DROP CONSTRAINT positive",
    "ALTER TABLE a RENAME COLUMN n TO z",
    "ALTER TABLE a RENAME TO z",
    "ALTER TABLE a RENAME CONSTRAINT positive TO z",
    "ALTER TABLE c SET SCHEMA s",
    "ALTER TABLE c OWNER TO reader",
    "ALTER TABLE a DISABLE TRIGGER tr",
    "ALTER TABLE a ENABLE TRIGGER ALL",
    "ALTER TABLE a ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE a CLUSTER ON a_n",
    "ALTER TABLE a SET WITHOUT CLUSTER",
    "ALTER TABLE a SET (fillfactor = 70)",
    "ALTER TABLE a SET (autovacuum_enabled = false)",
    "ALTER TABLE a SET (user_catalog_table = false)",
    "ALTER TABLE a RESET (fillfactor)",
    "ALTER TABLE c SET UNLOGGED",
    "ALTER TABLE a REPLICA IDENTITY FULL",
    "ALTER TABLE p ATTACH PARTITION q FOR VALUES FROM (20) TO (30)",
    "ALTER TABLE p DETACH PARTITION p1",
    "ALTER TABLE kid INHERIT parent",
    "ALTER TABLE k NO INHERIT parent",
    "TRUNCATE parent",
    "LOCK TABLE ONLY parent",
    "ALTER TABLE s.\"Quo\"\"ted\" ADD x int",
    "ALTER SEQUENCE n RESTART",
    "ALTER VIEW v RENAME TO z",
    "ALTER VIEW v SET SCHEMA s",
    "ALTER TRIGGER tr ON a RENAME TO z",
    "ALTER POLICY po ON a USING (true)",
    "ALTER TYPE e ADD VALUE 'z'",
    "DROP TABLE c, k",
    "DROP TABLE IF EXISTS s.a",
    "DROP VIEW v",
    "DROP MATERIALIZED VIEW m",
    "DROP INDEX a_n",
    "DROP SEQUENCE n",
    "DROP TRIGGER tr ON a",
    "DROP POLICY po ON a",
    "DROP RULE ru ON c",
    "DROP FUNCTION tf() CASCADE",
    "ANALYZE a",
    "ANALYZE a (n), b",
    "CLUSTER a USING a_n",
    "REFRESH MATERIALIZED VIEW m",
    "REFRESH MATERIALIZED VIEW CONCURRENTLY m",
    "REINDEX TABLE a",
    "REINDEX INDEX a_n",
    "COMMENT ON TABLE a IS 'x'",
    "COMMENT ON COLUMN s.a.\"Odd Name\" IS 'x'",
    "GRANT SELECT ON a TO reader",
];

/// Statements that the server refuses in a transaction block.
const OUTSIDE: &[&str] = &[
    "CREATE INDEX CONCURRENTLY ON a (t)",
    "DROP INDEX CONCURRENTLY a_n",
    "REINDEX TABLE CONCURRENTLY a",
    "REINDEX (CONCURRENTLY) INDEX a_n",
    "REINDEX SCHEMA public",
    "VACUUM a",
    "VACUUM (FULL) a",
    "VACUUM FULL a",
    "CREATE DATABASE other",
    "DROP DATABASE other",
    "ALTER SYSTEM SET work_mem = '5MB'",
    "ALTER TABLE p DETACH PARTITION p1 CONCURRENTLY",
];

#[tokio::test]
async fn locks_are_those_that_the_server_takes() {
    let server = Postgres::shared().await;
    server.admin("postgres", &["CREATE DATABASE analysis"]).await;
    server.admin("analysis", SCHEMA).await;
    let mut conn = server.connect("postgres", "analysis").await;
    assert!(STATEMENTS.len() >= 60);
    let mut wrong = Vec::new();
    for sql in STATEMENTS {
        wrong.extend(compare(&mut conn, sql).await);
    }
    for sql in OUTSIDE {
        wrong.extend(refused(&mut conn, sql).await);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    conn.close().await.unwrap();
}

/// What is wrong with the facts of one statement. Weak locks that the text does not name (a foreign key's check, an
/// index's table) are no fault: nobody waits for them. Children are locked with their parent.
async fn compare(conn: &mut PgConnection, sql: &str) -> Option<String> {
    let facts = analysis::facts(sql);
    let mut tx = conn.begin().await.unwrap();
    let mut expected: BTreeMap<i64, String> = BTreeMap::new();
    for (name, mode) in &facts.locks {
        let oid = one(&mut tx, "SELECT $1::regclass::oid::int8", &name.to_string()).await;
        expected.insert(oid, mode.sql().to_owned());
    }
    for (name, mode) in &facts.index_locks {
        let lookup = "SELECT indrelid::int8 FROM pg_index WHERE indexrelid = $1::regclass";
        expected.insert(one(&mut tx, lookup, &name.to_string()).await, mode.sql().to_owned());
    }
    let known: Vec<i64> = sqlx::query_scalar(
        "SELECT c.oid::int8 FROM pg_class c WHERE relkind NOT IN ('i', 'I', 't') \
         AND relnamespace IN ('public'::regnamespace, 's'::regnamespace)",
    )
    .fetch_all(&mut *tx)
    .await
    .unwrap();
    if let Err(error) = raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut *tx).await {
        return Some(format!("{sql}: the server refuses it: {error}"));
    }
    let found = held(&mut tx, &known).await;
    tx.rollback().await.unwrap();
    let family: Vec<(i64, i64)> = sqlx::query_as("SELECT inhrelid::int8, inhparent::int8 FROM pg_inherits")
        .fetch_all(&mut *conn)
        .await
        .unwrap();
    let with_parent = |child: i64, mode: &String| {
        let parents = family.iter().filter(|(one, _)| *one == child);
        parents
            .into_iter()
            .any(|(_, parent)| expected.get(parent) == Some(mode))
    };
    let differs = expected.iter().any(|(oid, mode)| found.get(oid) != Some(mode));
    let missing = found
        .iter()
        .filter(|(oid, mode)| !expected.contains_key(oid) && !with_parent(**oid, mode))
        .any(|(_, mode)| !facts.unlisted && STRONG.contains(&mode.as_str()));
    let unknown = facts.kind == "UNKNOWN";
    (differs || missing || unknown).then(|| format!("{sql}: expected {expected:?}, found {found:?}, {facts:?}"))
}

const STRONG: &[&str] = &[
    "SHARE UPDATE EXCLUSIVE",
    "SHARE",
    "SHARE ROW EXCLUSIVE",
    "EXCLUSIVE",
    "ACCESS EXCLUSIVE",
];

async fn one(conn: &mut PgConnection, sql: &'static str, name: &str) -> i64 {
    sqlx::query_scalar(sql)
        .bind(name)
        .fetch_one(conn)
        .await
        .unwrap_or_default()
}

/// The strongest mode of this session on each relation that was there before.
async fn held(conn: &mut PgConnection, known: &[i64]) -> BTreeMap<i64, String> {
    let order = ["ACCESS SHARE", "ROW SHARE", "ROW EXCLUSIVE"];
    let rank = |mode: &str| order.iter().chain(STRONG).position(|one| *one == mode);
    let rows = sqlx::query(
        "SELECT relation::int8, mode FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'relation' AND granted",
    )
    .fetch_all(conn)
    .await
    .unwrap();
    let mut found: BTreeMap<i64, String> = BTreeMap::new();
    for row in rows {
        let (oid, mode): (i64, String) = (row.get(0), words(row.get(1)));
        if known.contains(&oid) && found.get(&oid).is_none_or(|have| rank(have) < rank(&mode)) {
            found.insert(oid, mode);
        }
    }
    found
}

/// `AccessShareLock` as LOCK TABLE writes it.
fn words(mode: &str) -> String {
    let mut text = String::new();
    for letter in mode.trim_end_matches("Lock").chars() {
        if letter.is_uppercase() && !text.is_empty() {
            text.push(' ');
        }
        text.push(letter.to_ascii_uppercase());
    }
    text
}

async fn refused(conn: &mut PgConnection, sql: &str) -> Option<String> {
    let mut tx = conn.begin().await.unwrap();
    let error = raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut *tx).await.err();
    tx.rollback().await.unwrap();
    let code = error.as_ref().and_then(|error| error.as_database_error()?.code());
    let facts = analysis::facts(sql);
    (code.as_deref() != Some("25001") || facts.transactional)
        .then(|| format!("{sql}: {error:?}, transactional: {}", facts.transactional))
}
