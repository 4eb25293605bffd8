use super::*;

fn locks(sql: &str) -> Vec<String> {
    let facts = facts(sql);
    facts
        .locks
        .iter()
        .map(|(name, mode)| format!("{name} {mode}"))
        .collect()
}

#[test]
fn names_are_folded_quoted_and_qualified() {
    assert_eq!(locks("ALTER TABLE Foo ADD a int"), ["\"foo\" ACCESS EXCLUSIVE"]);
    assert_eq!(
        locks(r#"ALTER TABLE "a""B".c ADD a int"#),
        ["\"a\"\"B\".\"c\" ACCESS EXCLUSIVE"]
    );
    assert_eq!(
        locks("WITH x AS (SELECT 1 FROM t) DELETE FROM u USING x"),
        ["\"t\" ACCESS SHARE", "\"u\" ROW EXCLUSIVE"]
    );
}

#[test]
fn what_is_lost() {
    let cases = [
        ("DROP TABLE t", Some(Loss::DropTable)),
        ("ALTER TABLE t ADD x int, DROP COLUMN y", Some(Loss::DropColumn)),
        ("ALTER TABLE t DROP y", Some(Loss::DropColumn)),
        ("TRUNCATE t", Some(Loss::Truncate)),
        ("DELETE FROM t", Some(Loss::DeleteAll)),
        ("DELETE FROM t WHERE x", None),
        (
            "WITH gone AS (DELETE FROM t RETURNING *) SELECT * FROM gone",
            Some(Loss::DeleteAll),
        ),
        ("UPDATE t SET a = 1", Some(Loss::UpdateAll)),
        ("UPDATE t SET a = 1 WHERE b = 2", None),
        ("INSERT INTO t VALUES (1)", None),
        ("ALTER TABLE t ALTER c TYPE varchar(10)", Some(Loss::NarrowType)),
        ("ALTER TABLE t ALTER COLUMN c SET DATA TYPE int", Some(Loss::NarrowType)),
        ("ALTER TABLE t ALTER c TYPE text", None),
        ("ALTER TABLE t ALTER c TYPE  CHARACTER  VARYING", None),
        ("ALTER TABLE t ALTER c TYPE bigint", None),
        ("DROP SCHEMA s", Some(Loss::DropSchema)),
        ("DROP VIEW v", None),
        ("DROP VIEW v CASCADE", Some(Loss::Cascade)),
        ("DROP FUNCTION f(int)", None),
        ("DROP INDEX i", None),
        ("DROP TYPE t", Some(Loss::DropType)),
        ("ALTER TABLE t ALTER c TYPE double precision", Some(Loss::NarrowType)),
        ("ALTER TABLE t ALTER c TYPE text USING c::text", None),
        (
            "ALTER TABLE t ALTER \"C\" TYPE jsonb USING (CAST(\"C\" AS text)::jsonb)",
            None,
        ),
        ("ALTER TABLE t ALTER c TYPE bigint USING C", None),
        ("ALTER TABLE t ALTER c TYPE text USING NULL", Some(Loss::NarrowType)),
        ("ALTER TABLE t ALTER c TYPE text USING d", Some(Loss::NarrowType)),
        (
            "ALTER TABLE t ALTER c TYPE text USING left(c, 1)",
            Some(Loss::NarrowType),
        ),
        (
            "ALTER TABLE t ALTER c TYPE text USING c::varchar(1)::text",
            Some(Loss::NarrowType),
        ),
        (
            "ALTER TABLE t ALTER c TYPE timestamptz USING c AT TIME ZONE 'UTC'",
            None,
        ),
        (
            "ALTER TABLE t ALTER c TYPE timestamp with time zone USING (t.c AT TIME ZONE 'UTC')",
            None,
        ),
        ("ALTER TABLE t ALTER c TYPE timestamp USING c AT TIME ZONE 'UTC'", None),
        (
            "ALTER TABLE t ALTER c TYPE timestamptz USING d AT TIME ZONE 'UTC'",
            Some(Loss::NarrowType),
        ),
        (
            "ALTER TABLE t ALTER c TYPE timestamptz USING c::date AT TIME ZONE 'UTC'",
            Some(Loss::NarrowType),
        ),
        (
            "ALTER TABLE t ALTER c TYPE date USING c AT TIME ZONE 'UTC'",
            Some(Loss::NarrowType),
        ),
        ("ALTER TABLE t ALTER c TYPE timestamp", Some(Loss::NarrowType)),
        ("ALTER TABLE t ALTER c TYPE jsonb USING to_jsonb(c)", None),
        ("ALTER TABLE t ALTER c TYPE json USING TO_JSON(c::text)", None),
        (
            "ALTER TABLE t ALTER c TYPE jsonb USING to_jsonb(d)",
            Some(Loss::NarrowType),
        ),
        ("ALTER TABLE t ALTER c TYPE text USING t.c::text", None),
        ("ALTER TABLE t ALTER c TYPE text USING s.t.c", None),
        ("ALTER TABLE t ALTER c TYPE text USING t.d", Some(Loss::NarrowType)),
        ("ALTER TABLE t ALTER c TYPE text USING (d).c", Some(Loss::NarrowType)),
        ("DROP COLLATION c", None),
        ("DROP COLLATION c CASCADE", Some(Loss::Cascade)),
        ("DROP ACCESS METHOD m CASCADE", Some(Loss::Cascade)),
        ("DROP OPERATOR CLASS o USING btree CASCADE", Some(Loss::Cascade)),
        ("ALTER TYPE addr DROP ATTRIBUTE zip CASCADE", Some(Loss::DropColumn)),
        (
            "ALTER TYPE addr ADD ATTRIBUTE a int, DROP ATTRIBUTE zip",
            Some(Loss::DropColumn),
        ),
        ("ALTER TYPE addr ALTER ATTRIBUTE zip TYPE int", Some(Loss::NarrowType)),
        ("ALTER TYPE addr ADD ATTRIBUTE zip int", None),
        ("EXPLAIN ANALYZE DELETE FROM t", Some(Loss::DeleteAll)),
        ("EXPLAIN (BUFFERS, ANALYZE) UPDATE t SET a = 1", Some(Loss::UpdateAll)),
        ("EXPLAIN (ANALYZE off) DELETE FROM t", None),
        ("EXPLAIN VERBOSE DELETE FROM t", None),
        ("EXPLAIN ANALYZE DELETE FROM t WHERE x", None),
        ("PREPARE p AS DELETE FROM t", Some(Loss::DeleteAll)),
        ("PREPARE p (int) AS DELETE FROM t WHERE a = $1", None),
    ];
    for (sql, expected) in cases {
        assert_eq!(facts(sql).destructive, expected, "{sql}");
        assert_ne!(facts(sql).kind, "UNKNOWN", "{sql}");
    }
}

#[test]
fn what_is_read_or_written_of_the_whole_table() {
    let cases = [
        ("ALTER TABLE t ADD c int DEFAULT 1", Work::None),
        ("ALTER TABLE t ADD c timestamptz DEFAULT now()", Work::None),
        ("ALTER TABLE t ADD c uuid DEFAULT gen_random_uuid()", Work::Rewrite),
        ("ALTER TABLE t ADD c bigserial", Work::Rewrite),
        ("ALTER TABLE t ADD c int GENERATED ALWAYS AS IDENTITY", Work::Rewrite),
        (
            "ALTER TABLE t ADD c int GENERATED ALWAYS AS (a + 1) STORED",
            Work::Rewrite,
        ),
        ("ALTER TABLE t ADD c int CHECK (c > 0)", Work::Scan),
        ("ALTER TABLE t ALTER c SET NOT NULL", Work::Scan),
        ("ALTER TABLE t ALTER c SET DEFAULT random()", Work::None),
        ("ALTER TABLE t ALTER c TYPE bigint", Work::Rewrite),
        ("ALTER TABLE t ADD CHECK (a > 0)", Work::Scan),
        ("ALTER TABLE t ADD CONSTRAINT x CHECK (a > 0) NOT VALID", Work::None),
        ("ALTER TABLE t ADD CONSTRAINT x PRIMARY KEY USING INDEX i", Work::None),
        ("ALTER TABLE t VALIDATE CONSTRAINT x", Work::Scan),
        ("ALTER TABLE t SET UNLOGGED", Work::Rewrite),
        ("VACUUM (FULL) t", Work::Rewrite),
        ("CREATE INDEX ON t (a)", Work::Scan),
    ];
    for (sql, expected) in cases {
        assert_eq!(facts(sql).work, expected, "{sql}");
    }
}

#[test]
fn what_cannot_be_in_a_transaction() {
    let outside = [
        "CREATE INDEX CONCURRENTLY i ON t (a)",
        "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS i ON t (a)",
        "DROP INDEX CONCURRENTLY IF EXISTS i",
        "REINDEX TABLE CONCURRENTLY t",
        "REINDEX (CONCURRENTLY) INDEX i",
        "REINDEX SCHEMA s",
        "VACUUM",
        "VACUUM FULL t",
        "CREATE DATABASE d",
        "DROP DATABASE d",
        "ALTER SYSTEM SET work_mem = '1MB'",
        "ALTER TABLE t DETACH PARTITION p CONCURRENTLY",
        "CLUSTER",
    ];
    for sql in outside {
        assert!(!facts(sql).transactional, "{sql}");
        assert_ne!(facts(sql).kind, "UNKNOWN", "{sql}");
    }
    for sql in [
        "CREATE INDEX i ON t (a)",
        "REINDEX TABLE t",
        "ANALYZE t",
        "REFRESH MATERIALIZED VIEW CONCURRENTLY v",
    ] {
        assert!(facts(sql).transactional, "{sql}");
    }
    let added = |sql| facts(sql).adds_value;
    assert_eq!(
        added("ALTER TYPE e ADD VALUE IF NOT EXISTS 'x' AFTER 'y'").as_deref(),
        Some("'x'")
    );
    assert_eq!(added("ALTER TYPE e RENAME VALUE 'x' TO 'y'"), None);
}

#[test]
fn what_shows_afterwards() {
    let table = |schema: Option<&str>, name: &str| TableName {
        schema: schema.map(str::to_owned),
        name: name.to_owned(),
    };
    let (t, i) = (table(None, "t"), table(Some("s"), "i"));
    let cases = [
        (
            "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS \"I\" ON ONLY t (lower(a)) WHERE a > 'x'",
            Some(Outside::BuildsIndex {
                index: Some("I".into()),
                table: t.clone(),
            }),
        ),
        (
            "CREATE INDEX CONCURRENTLY ON t USING gin (a)",
            Some(Outside::BuildsIndex {
                index: None,
                table: t.clone(),
            }),
        ),
        (
            "DROP INDEX CONCURRENTLY IF EXISTS s.i",
            Some(Outside::DropsIndex(i.clone())),
        ),
        ("REINDEX INDEX CONCURRENTLY s.i", Some(Outside::RebuildsIndex(i))),
        (
            "REINDEX (CONCURRENTLY) TABLE t",
            Some(Outside::RebuildsTable(t.clone())),
        ),
        (
            "ALTER TABLE t DETACH PARTITION p CONCURRENTLY",
            Some(Outside::Detaches {
                parent: t,
                partition: table(None, "p"),
            }),
        ),
        ("CREATE DATABASE D OWNER x", Some(Outside::MakesDatabase("d".into()))),
        (
            "DROP DATABASE IF EXISTS \"D\"",
            Some(Outside::DropsDatabase("D".into())),
        ),
        ("VACUUM t", None),
        ("REINDEX SCHEMA CONCURRENTLY s", None),
        ("CREATE INDEX i ON t (a)", None),
    ];
    for (sql, expected) in cases {
        assert_eq!(facts(sql).outside, expected, "{sql}");
    }
}

#[test]
fn what_is_not_understood_is_said() {
    for sql in [
        "",
        "ALTER TABEL t",
        "DO $$ BEGIN END $$",
        "SELECT f()",
        "CALL p()",
        "DROP TABLE t CASCADE",
    ] {
        assert!(facts(sql).unlisted, "{sql}");
    }
    let deep = format!("SELECT {}1{}", "(".repeat(5000), ")".repeat(5000));
    assert_eq!(facts(&deep).kind, "UNKNOWN");
    let long = format!("INSERT INTO t VALUES ('{}')", "x".repeat(LONGEST));
    assert_eq!(facts(&long).kind, "UNKNOWN");
    for sql in [
        "SELECT 1",
        "SET search_path = x",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "GRANT SELECT ON t TO r",
    ] {
        assert!(!facts(sql).unlisted, "{sql}");
    }
}
