//! Records beside which something else has moved: what sqlx applied again, a file that went, a table that went with what was missing of it,
//! what is put back beside what is there.

use std::{fs, path::Path};

use sqlx::raw_sql;

use super::{Dir, command, output};
use crate::migrate::Database;

/// A database with its files and its folder of backups, and the program on them.
struct Scene {
    db: Database,
    folder: Dir,
}

impl Scene {
    async fn new(name: &'static str) -> Self {
        let (db, folder) = (Database::new(name).await, Dir::new(name));
        fs::create_dir_all(folder.path().join("sql")).unwrap();
        Self { db, folder }
    }

    /// The two files of a version.
    fn write(&self, name: &str, up: &str, down: &str) {
        fs::write(self.folder.path().join(format!("sql/{name}.up.sql")), up).unwrap();
        fs::write(self.folder.path().join(format!("sql/{name}.down.sql")), down).unwrap();
    }

    fn remove(&self, name: &str) {
        for way in ["up", "down"] {
            fs::remove_file(self.folder.path().join(format!("sql/{name}.{way}.sql"))).unwrap();
        }
    }

    /// Exit code, standard output, standard error.
    async fn verb(&self, args: &[&str]) -> (i32, String, String) {
        let (sql, backups) = (self.folder.path().join("sql"), self.folder.path().join("backups"));
        let mut dirs: Vec<(&str, &Path)> = Vec::new();
        if ["up", "down", "repair"].contains(&args[0]) {
            dirs.push(("--dir", &sql));
        }
        if ["up", "restore-tables"].contains(&args[0]) {
            dirs.push(("--backup-dir", &backups));
        }
        output(command(&self.db, args, &dirs)).await
    }

    /// Ends with this code; what it says.
    async fn ends(&self, code: i32, args: &[&str]) -> String {
        let (ended, out, error) = self.verb(args).await;
        assert_eq!(ended, code, "{args:?}: {out}{error}");
        out + &error
    }

    async fn up(&self) -> String {
        self.ends(0, &["up", "--allow-destructive", "all"]).await
    }

    async fn ask(&self, sql: &str) -> Vec<String> {
        self.db.ask(sql).await
    }

    /// What the owner does by hand.
    async fn by_hand(&self, sql: &str) {
        self.db.ask_as(&self.db.owner(), sql).await;
    }
}

#[tokio::test]
async fn the_way_back_is_that_of_what_is_in() {
    let scene = Scene::new("records_stale").await;
    scene.write("0001_a", "CREATE TABLE a (id int)", "DROP TABLE a");
    scene.up().await;
    scene.ends(0, &["down"]).await;
    // another text of the same version, as sqlx applies it
    let text = "CREATE TABLE a (id int); CREATE TABLE b (id int)";
    scene.write("0001_a", text, "DROP TABLE b, a");
    let theirs = format!(
        "{text}; INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (1, 'a', true, sha384('{text}'), 0)"
    );
    scene.by_hand(&theirs).await;
    // ours takes it back by its own text, not by the one that is stored of the former
    scene.ends(0, &["down"]).await;
    let tables = "SELECT count(*)::text FROM pg_tables WHERE tablename IN ('a', 'b')";
    assert_eq!(scene.ask(tables).await, ["0"]);
    // once adopted it needs no file
    scene.by_hand(&theirs).await;
    scene.write("0002_b", "CREATE TABLE c (id int)", "DROP TABLE c");
    scene.up().await;
    let told = "SELECT string_agg(direction, ' ' ORDER BY id) FROM amas_migrate.history WHERE version = 1";
    assert_eq!(scene.ask(told).await, ["up down stamp down stamp"]);
    scene.remove("0001_a");
    scene.ends(0, &["down", "--to", "0"]).await;
    assert_eq!(scene.ask(tables).await, ["0"]);
    // the same text again: what its file says now counts, not what lies under the `down`
    scene.write("0001_a", text, "DROP TABLE a, b; CREATE TABLE taken_back ()");
    scene.by_hand(&theirs).await;
    scene.ends(0, &["down"]).await;
    assert_eq!(
        scene.ask("SELECT to_regclass('taken_back')::text").await,
        ["taken_back"]
    );
}

#[tokio::test]
async fn what_is_half_way_keeps_its_file() {
    let scene = Scene::new("records_half").await;
    let half = "CREATE TABLE a (id int);\nCREATE INDEX CONCURRENTLY i ON a (id);\nSELECT 1/0;";
    scene.write("0001_a", "SELECT 1", "SELECT 1");
    scene.write("0005_b", half, "DROP TABLE a");
    scene.ends(10, &["up"]).await;
    scene.remove("0005_b");
    for other in [None, Some("0006_b")] {
        if let Some(name) = other {
            scene.write(name, half, "DROP TABLE a");
        }
        for args in [&["up"][..], &["up", "--to", "1"], &["repair"]] {
            let said = scene.ends(12, args).await;
            assert!(said.contains("migration 5 (b) is half way up"), "{args:?}: {said}");
            assert!(said.contains("put the file back"), "{args:?}: {said}");
        }
    }
    assert!(scene.ends(12, &["repair"]).await.contains("--pending 5 if"));
    scene.remove("0006_b");
    scene.write("0005_b", &half.replace("1/0", "1"), "DROP TABLE a");
    assert_eq!(scene.ends(0, &["repair"]).await, "files and records agree\n");
    scene.ends(0, &["up"]).await;
    let indexes = "SELECT count(*)::text FROM pg_index WHERE indrelid = 'a'::regclass";
    assert_eq!(scene.ask(indexes).await, ["1"]);
}

#[tokio::test]
async fn with_a_table_goes_what_was_missing_of_it() {
    let scene = Scene::new("records_drift").await;
    let make = "CREATE TABLE goes (id int CONSTRAINT few CHECK (id < 9), other int); CREATE INDEX i ON goes (id);
        CREATE TABLE stays (id int, other int); CREATE INDEX j ON stays (id); CREATE TABLE back (id int PRIMARY KEY)";
    scene.write("0001_a", make, "DROP TABLE goes, stays, back");
    scene.up().await;
    let revoked = "REVOKE ALL ON goes FROM records_drift_app";
    let change = format!(
        "DROP INDEX i, j; ALTER TABLE goes DROP CONSTRAINT few, DROP COLUMN other; ALTER TABLE stays DROP COLUMN other; \
         DROP TABLE back; {revoked}"
    );
    scene.by_hand(&change).await;
    let left = "column stays.other: gone\nindex j: gone\ntable back: gone\n";
    scene.write("0002_b", "DROP TABLE goes", "SELECT 1");
    scene.up().await;
    assert_eq!(scene.verb(&["drift"]).await.1, left);
    // nor does it come back with the next run, and what is undone is over, whole tables too
    scene.write("0003_c", "CREATE TABLE c (id int)", "DROP TABLE c");
    scene.up().await;
    assert_eq!(scene.verb(&["drift"]).await.1, left);
    scene
        .by_hand("CREATE TABLE back (id int PRIMARY KEY); CREATE INDEX j ON stays (id)")
        .await;
    assert_eq!(scene.verb(&["drift"]).await.1, "column stays.other: gone\n");
}

#[tokio::test]
async fn rows_are_put_back_past_the_triggers() {
    let scene = Scene::new("records_triggers").await;
    let make = "CREATE TABLE tally (n int); INSERT INTO tally VALUES (0);
        CREATE TABLE t (id int PRIMARY KEY, note text); INSERT INTO t VALUES (1, 'as it was'), (2, 'too');
        CREATE FUNCTION altered() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.note := 'altered'; RETURN NEW; END $$;
        CREATE FUNCTION counted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE tally SET n = n + 1; RETURN NULL; END $$;
        CREATE TRIGGER a_alters BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION altered();
        CREATE TRIGGER b_always BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION altered();
        CREATE TRIGGER c_counts AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION counted();
        CREATE TRIGGER d_counts AFTER INSERT ON t FOR EACH STATEMENT EXECUTE FUNCTION counted();
        CREATE TRIGGER e_is_off BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION altered();
        CREATE TRIGGER f_replica BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION altered();
        ALTER TABLE t ENABLE ALWAYS TRIGGER b_always; ALTER TABLE t DISABLE TRIGGER e_is_off; ALTER TABLE t ENABLE REPLICA TRIGGER f_replica;";
    scene.write("0001_a", make, "SELECT 1");
    scene.write("0002_b", "TRUNCATE t", "SELECT 1");
    scene.ends(0, &["up", "--to", "1", "--allow-destructive", "all"]).await;
    let (rows, states) = (
        "SELECT t::text FROM t ORDER BY id",
        "SELECT string_agg(tgenabled::text, '' ORDER BY tgname) FROM pg_trigger WHERE tgrelid = 't'::regclass",
    );
    let before = (scene.ask(rows).await, scene.ask(states).await);
    assert_eq!(before.1, ["OAOODR"]);
    scene.up().await;

    // somebody is about to write into it: that it has no rows holds only once he is through
    let mut other = scene.db.server.connect(&scene.db.owner(), &scene.db.name).await;
    raw_sql("BEGIN; LOCK TABLE t IN ROW EXCLUSIVE MODE")
        .execute(&mut other)
        .await
        .unwrap();
    let said = scene
        .ends(32, &["restore-tables", "1", "--lock-timeout", "500ms"])
        .await;
    assert!(said.contains("55P03"), "{said}");
    raw_sql("ROLLBACK").execute(&mut other).await.unwrap();

    let said = scene.ends(0, &["restore-tables", "1"]).await;
    assert_eq!(said, "public.t: filled, 2 rows\n");
    assert_eq!((scene.ask(rows).await, scene.ask(states).await), before);
    assert_eq!(scene.ask("SELECT n::text FROM tally").await, ["0"]);
}

/// A partitioned table of two, with rows, keys, indexes and triggers, that another table is about.
const PARTS: &str = "CREATE TABLE tally (n int); INSERT INTO tally VALUES (0);
    CREATE TABLE m (id int, year int, note text, PRIMARY KEY (id, year), CHECK (id > 0)) PARTITION BY RANGE (year);
    CREATE TABLE m_2020 PARTITION OF m FOR VALUES FROM (2020) TO (2021);
    CREATE TABLE m_2021 PARTITION OF m FOR VALUES FROM (2021) TO (2022) PARTITION BY LIST (id);
    CREATE TABLE m_2021_1 PARTITION OF m_2021 FOR VALUES IN (1);
    CREATE INDEX m_note ON m (note);
    CREATE UNIQUE INDEX m_2020_own ON m_2020 (id);
    INSERT INTO m VALUES (1, 2020, 'a'), (2, 2020, 'b'), (1, 2021, 'c');
    CREATE TABLE about (id int, year int, FOREIGN KEY (id, year) REFERENCES m); INSERT INTO about VALUES (1, 2021);
    CREATE FUNCTION counted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE public.tally SET n = n + 1; RETURN NULL; END $$;
    CREATE TRIGGER counts AFTER INSERT ON m FOR EACH ROW EXECUTE FUNCTION counted();
    ALTER TABLE m_2020 DISABLE TRIGGER counts;";

/// Rows, what is part of what, each index with its table and its whole, triggers, and what would be counted twice.
const SHAPE: &str = "SELECT 'row ' || tableoid::regclass || m::text FROM m \
    UNION ALL SELECT 'part ' || inhrelid::regclass || ' of ' || inhparent::regclass FROM pg_inherits \
    UNION ALL SELECT 'index ' || indexrelid::regclass || indrelid::regclass || indisvalid || indisprimary FROM pg_index \
        WHERE indrelid::regclass::text ~ '^m' \
    UNION ALL SELECT 'trigger ' || tgrelid::regclass || ' ' || tgname || ' ' || tgenabled::text FROM pg_trigger WHERE NOT tgisinternal \
    UNION ALL SELECT 'key ' || conrelid::regclass || ' to ' || confrelid::regclass || convalidated FROM pg_constraint WHERE contype = 'f' AND conparentid = 0 \
    UNION ALL SELECT 'tally ' || n FROM tally ORDER BY 1";

#[tokio::test]
async fn a_partition_comes_back_into_its_table() {
    let scene = Scene::new("records_leaf").await;
    scene.write("0001_a", PARTS, "SELECT 1");
    scene.up().await;
    scene.by_hand("DROP TABLE about").await;
    let shape = scene.ask(SHAPE).await;
    // a backup of the partition alone, and one of everything
    scene.write("0002_b", "DROP TABLE m_2020", "SELECT 1");
    scene.up().await;
    let restored = scene.ends(0, &["restore-tables", "1"]).await;
    assert_eq!(restored, "public.m_2020: made, 2 rows\n");
    assert_eq!(scene.ask(SHAPE).await, shape);
    scene.write("0003_c", "DO $$ BEGIN DROP TABLE m_2020, m_2021; END $$", "SELECT 1");
    scene.up().await;
    let restored = scene
        .ends(0, &["restore-tables", "2", "--table", "m_2021", "--table", "m_2020"])
        .await;
    let told = [
        "public.m_2020: made, 2 rows",
        "public.m_2021: made, 0 rows",
        "public.m_2021_1: made, 1 row",
    ];
    assert_eq!(restored.lines().collect::<Vec<_>>(), told);
    assert_eq!(scene.ask(SHAPE).await, shape);
    let next = "INSERT INTO m VALUES (9, 2020, 'next') RETURNING (SELECT count(*)::text FROM m)";
    assert_eq!(scene.ask(next).await, ["3"]);
    assert_eq!(scene.ask("SELECT count(*)::text FROM m WHERE year = 2020").await, ["3"]);

    // without the table that it was part of it is one of its own, which is told
    scene.by_hand("DROP TABLE m").await;
    let restored = scene.ends(0, &["restore-tables", "1"]).await;
    assert!(
        restored.contains("made, 2 rows") && restored.contains("\"m\" is not there"),
        "{restored}"
    );
}

#[tokio::test]
async fn a_partitioned_table_comes_back_with_its_partitions() {
    let scene = Scene::new("records_whole").await;
    scene.write("0001_a", PARTS, "SELECT 1");
    scene.up().await;
    let shape = scene.ask(SHAPE).await;
    scene.write("0002_b", "DO $$ BEGIN DROP TABLE m, about; END $$", "SELECT 1");
    scene.up().await;
    let args = ["restore-tables", "1", "--table", "m", "--table", "about"];
    let restored = scene.ends(0, &args).await;
    let told = [
        "public.about: made, 1 row",
        "public.m: made, 0 rows",
        "public.m_2020: made, 2 rows",
        "public.m_2021: made, 0 rows",
        "public.m_2021_1: made, 1 row",
    ];
    assert_eq!(restored.lines().collect::<Vec<_>>(), told);
    assert_eq!(scene.ask(SHAPE).await, shape);

    // a record of before: what is part of what is not in it, and the rows go where they are named
    let older =
        "UPDATE amas_migrate.backups SET entries = (SELECT jsonb_agg(e - 'of') FROM jsonb_array_elements(entries) e)";
    scene.by_hand(older).await;
    scene.by_hand("DROP TABLE m, about").await;
    let restored = scene.ends(0, &["restore-tables", "1", "--table", "m"]).await;
    assert_eq!(restored, "public.m: made, 0 rows\n");
    scene.by_hand("DROP TABLE m, tally").await;
    scene.ends(0, &["restore-tables", "1"]).await;
    assert_eq!(scene.ask(SHAPE).await, shape);
}

#[tokio::test]
async fn an_index_goes_only_when_the_right_one_is_whole() {
    let scene = Scene::new("records_index").await;
    let make = "CREATE SCHEMA app; CREATE TABLE app.t (id int); CREATE UNIQUE INDEX \"U 1\" ON app.t (id)";
    scene.write("0001_a", make, "DROP SCHEMA app CASCADE");
    scene.up().await;
    let change = "DROP INDEX app.\"U 1\"; CREATE INDEX \"U 1\" ON app.t (id); COMMENT ON INDEX app.\"U 1\" IS 'kept'; \
        INSERT INTO app.t VALUES (1), (1)";
    scene.by_hand(change).await;
    let indexes = "SELECT indexrelid::regclass::text || ' ' || indisunique || indisvalid || ' ' || obj_description(indexrelid, 'pg_class') \
        FROM pg_index WHERE indrelid = 'app.t'::regclass";
    // as often as it is tried
    for _ in 0..2 {
        let said = scene.ends(30, &["drift", "--correct"]).await;
        assert!(said.contains("not put back: index app.\"U 1\""), "{said}");
        assert!(said.contains("could not create unique index"), "{said}");
        assert_eq!(scene.ask(indexes).await, ["app.\"U 1\" falsetrue kept"]);
    }
    scene.by_hand("DELETE FROM app.t").await;
    // what a process that was killed has left goes with the next
    scene.by_hand("CREATE INDEX amas_correcting ON app.t (id)").await;
    let said = scene.ends(0, &["drift", "--correct"]).await;
    assert!(said.contains("put back: index app.\"U 1\""), "{said}");
    assert_eq!(scene.ask(indexes).await, ["app.\"U 1\" truetrue kept"]);
    scene.by_hand("CREATE INDEX amas_correcting ON app.t (id)").await;
    scene.ends(0, &["drift", "--correct"]).await;
    assert_eq!(scene.ask(indexes).await.len(), 1);
}

#[tokio::test]
async fn a_view_keeps_what_hangs_on_it() {
    let scene = Scene::new("records_view").await;
    let make = "CREATE TABLE t (id int, a text, b text);
        CREATE VIEW v AS SELECT id, a FROM t;
        CREATE FUNCTION takes() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO t (id) VALUES (NEW.id); RETURN NEW; END $$;
        CREATE TRIGGER takes INSTEAD OF INSERT ON v FOR EACH ROW EXECUTE FUNCTION takes();
        CREATE RULE quiet AS ON DELETE TO v DO INSTEAD NOTHING;
        COMMENT ON VIEW v IS 'it''s v'; COMMENT ON COLUMN v.a IS 'about a'; ALTER VIEW v ALTER COLUMN a SET DEFAULT 'x';
        GRANT SELECT ON v TO PUBLIC;";
    scene.write("0001_a", make, "DROP TABLE t CASCADE; DROP FUNCTION takes");
    let roles = [
        "CREATE ROLE records_view_mine",
        "COMMENT ON ROLE records_view_mine IS 'amas.dev/claim {}'",
    ];
    scene.db.server.admin("postgres", &roles).await;
    scene.up().await;
    // none of these is compared
    let mine =
        "GRANT SELECT, INSERT ON v TO records_view_mine; GRANT UPDATE (a) ON v TO records_view_mine WITH GRANT OPTION";
    scene.by_hand(mine).await;
    let hangs = "SELECT obj_description('v'::regclass, 'pg_class') UNION ALL SELECT attname || coalesce(col_description(attrelid, attnum), '') || attacl::text \
        FROM pg_attribute WHERE attrelid = 'v'::regclass AND attname = 'a' \
        UNION ALL SELECT string_agg(g::text, ' ' ORDER BY g::text) FROM pg_class, unnest(relacl) g WHERE oid = 'v'::regclass \
        UNION ALL SELECT tgname::text FROM pg_trigger WHERE tgrelid = 'v'::regclass \
        UNION ALL SELECT rulename::text FROM pg_rewrite WHERE ev_class = 'v'::regclass AND rulename <> '_RETURN' \
        UNION ALL SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef WHERE adrelid = 'v'::regclass";
    let before = scene.ask(hangs).await;
    assert_eq!(before.len(), 6, "{before:?}");
    let wider = "CREATE OR REPLACE VIEW v AS SELECT id, a, b FROM t; COMMENT ON COLUMN v.b IS 'goes'; GRANT SELECT (b) ON v TO records_view_mine";
    scene.by_hand(wider).await;
    let said = scene.ends(0, &["drift", "--correct"]).await;
    assert!(said.contains("put back: view v"), "{said}");
    assert_eq!(scene.ask(hangs).await, before);
    // what cannot be carried over keeps the view as it is
    let rule = "CREATE OR REPLACE VIEW v AS SELECT id, a, b FROM t; CREATE RULE asks AS ON UPDATE TO v DO ALSO INSERT INTO t (b) VALUES (OLD.b)";
    scene.by_hand(rule).await;
    let said = scene.ends(30, &["drift", "--correct"]).await;
    assert!(said.contains("not put back: view v"), "{said}");
    scene.by_hand("DROP RULE asks ON v").await;
    scene.ends(0, &["drift", "--correct"]).await;
    assert_eq!(scene.ask(hangs).await, before);

    // of one that is gone the recorded triggers and rights come back in the same call, which no comparison has told before
    scene.by_hand("DROP VIEW v").await;
    let said = scene.ends(30, &["drift", "--correct"]).await;
    for part in [
        "put back: view v",
        "put back: trigger v.takes",
        "put back: grant TABLE v TO PUBLIC",
        "rule v.quiet: gone",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}
