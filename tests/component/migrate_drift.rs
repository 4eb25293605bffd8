//! What somebody changes by hand is told and nothing else, after every verb; and what can be put back is.

use std::time::{Duration, Instant};

use amas_operator::migrate::{
    drift::{self, Drift},
    runner::Goal,
};

use super::{Dir, command, output};
use crate::migrate::{Database, File, public, request, source};

const SCHEMA: File = (
    "0001_all",
    "CREATE SCHEMA app;
     CREATE EXTENSION pg_trgm;
     CREATE TYPE mood AS ENUM ('good', 'bad');
     CREATE DOMAIN positive AS int CHECK (value > 0);
     CREATE TABLE users (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, email varchar(255) NOT NULL UNIQUE, age positive, mood mood DEFAULT 'good');
     CREATE TABLE app.tasks (id serial PRIMARY KEY, owner bigint REFERENCES users, created timestamptz NOT NULL DEFAULT '2020-01-01 00:00+00', note text);
     CREATE TABLE app.log (at timestamptz NOT NULL, text text) PARTITION BY RANGE (at);
     CREATE INDEX tasks_created ON app.tasks (created DESC);
     CREATE VIEW busy AS SELECT u.id, u.email FROM users u WHERE EXISTS (SELECT FROM app.tasks t WHERE t.owner = u.id);
     CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.note := 'a'; RETURN NEW; END $$;
     CREATE TRIGGER touch BEFORE UPDATE ON app.tasks FOR EACH ROW EXECUTE FUNCTION touch();
     ALTER TABLE users ENABLE ROW LEVEL SECURITY;
     CREATE POLICY own ON users USING (email = current_user);",
    "DROP TABLE app.log, app.tasks, users CASCADE; DROP FUNCTION touch; DROP DOMAIN positive; DROP TYPE mood; DROP EXTENSION pg_trgm; DROP SCHEMA app",
);
const SECOND: File = (
    "0002_more",
    "CREATE TABLE more (id int PRIMARY KEY); CREATE INDEX tasks_note ON app.tasks (note)",
    "DROP INDEX app.tasks_note; DROP TABLE more",
);

impl Database {
    async fn drift(&self) -> Drift {
        drift::look(&mut self.connect().await, &public())
            .await
            .unwrap()
            .unwrap()
    }

    /// The differences as people see them.
    async fn told(&self) -> Vec<String> {
        let drift = self.drift().await;
        assert_eq!(drift.unknown, None);
        assert_eq!(drift.total, drift.differences.len());
        drift.differences.iter().map(ToString::to_string).collect()
    }

    async fn made(name: &str, files: &[File]) -> Self {
        let db = Self::new(name).await;
        // the extension's files are there, its maker is not the owner
        db.server
            .admin("postgres", &[&format!("ALTER ROLE {name}_owner SUPERUSER")])
            .await;
        let report = db.up(files).await;
        assert!(report.failure.is_none(), "{:?}", report.failure);
        db
    }
}

#[tokio::test]
async fn every_kind_of_change_is_named_and_goes_with_it() {
    let db = Database::made("drifted", &[SCHEMA]).await;
    assert_eq!(db.told().await, [""; 0]);
    db.server.admin("postgres", &["CREATE ROLE drift_reader"]).await;
    let changes: &[(&str, &[&str], &str)] = &[
        (
            "CREATE TABLE extra (id int PRIMARY KEY, at date DEFAULT now())",
            &["table extra: new"],
            "DROP TABLE extra",
        ),
        (
            "ALTER TABLE app.tasks ADD COLUMN due date",
            &["column app.tasks.due: new: date"],
            "ALTER TABLE app.tasks DROP COLUMN due",
        ),
        (
            "ALTER TABLE app.tasks ALTER note TYPE varchar(10)",
            &["column app.tasks.note: text -> character varying(10)"],
            "ALTER TABLE app.tasks ALTER note TYPE text",
        ),
        (
            "ALTER TABLE users ALTER mood SET DEFAULT 'bad', ALTER email DROP NOT NULL",
            &[
                "column users.email: character varying(255) NOT NULL -> character varying(255)",
                "column users.mood: public.mood DEFAULT 'good'::public.mood -> public.mood DEFAULT 'bad'::public.mood",
            ],
            "ALTER TABLE users ALTER mood SET DEFAULT 'good', ALTER email SET NOT NULL",
        ),
        (
            "ALTER TABLE app.tasks DROP CONSTRAINT tasks_owner_fkey",
            &["constraint app.tasks.tasks_owner_fkey: gone"],
            "ALTER TABLE app.tasks ADD FOREIGN KEY (owner) REFERENCES users",
        ),
        (
            "DROP INDEX app.tasks_created",
            &["index app.tasks_created: gone"],
            "CREATE INDEX tasks_created ON app.tasks (created DESC)",
        ),
        (
            "CREATE OR REPLACE VIEW busy AS SELECT u.id, u.email FROM users u WHERE u.id > 5",
            &["view busy: line 4:"],
            "CREATE OR REPLACE VIEW busy AS SELECT u.id, u.email FROM users u WHERE EXISTS (SELECT FROM app.tasks t WHERE t.owner = u.id)",
        ),
        (
            "CREATE OR REPLACE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.note := 'b'; RETURN NEW; END $$",
            &["function touch(): line 4:"],
            "CREATE OR REPLACE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.note := 'a'; RETURN NEW; END $$",
        ),
        (
            "ALTER TABLE app.tasks DISABLE TRIGGER touch",
            &["trigger app.tasks.touch: "],
            "ALTER TABLE app.tasks ENABLE TRIGGER touch",
        ),
        (
            "CREATE TYPE pair AS (a int, b text)",
            &["type pair: new: (a integer, b text)"],
            "DROP TYPE pair",
        ),
        (
            "ALTER DOMAIN positive DROP CONSTRAINT positive_check",
            &["type positive: DOMAIN OF integer positive_check CHECK ((VALUE > 0)) -> DOMAIN OF integer"],
            "ALTER DOMAIN positive ADD CONSTRAINT positive_check CHECK (value > 0)",
        ),
        (
            "CREATE EXTENSION btree_gin",
            &["extension btree_gin: new: version"],
            "DROP EXTENSION btree_gin",
        ),
        (
            "ALTER SEQUENCE app.tasks_id_seq INCREMENT 2",
            &["sequence app.tasks_id_seq: "],
            "ALTER SEQUENCE app.tasks_id_seq INCREMENT 1",
        ),
        (
            "GRANT SELECT, INSERT ON users TO drift_reader",
            &["grant TABLE users TO drift_reader: new: INSERT, SELECT"],
            "REVOKE ALL ON users FROM drift_reader",
        ),
        (
            "GRANT SELECT (email) ON users TO drift_reader",
            &["grant TABLE users (email) TO drift_reader: new: SELECT"],
            "REVOKE ALL (email) ON users FROM drift_reader",
        ),
        (
            "REVOKE EXECUTE ON FUNCTION touch() FROM PUBLIC",
            &["grant FUNCTION touch() TO PUBLIC: new: nothing"],
            "GRANT EXECUTE ON FUNCTION touch() TO PUBLIC",
        ),
        (
            "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO drift_reader",
            &["grant DEFAULT ON TABLES OF drifted_owner TO drift_reader: new: SELECT"],
            "ALTER DEFAULT PRIVILEGES REVOKE SELECT ON TABLES FROM drift_reader",
        ),
        (
            "ALTER TABLE users OWNER TO drift_reader",
            &["owner TABLE users: new: drift_reader"],
            "ALTER TABLE users OWNER TO drifted_owner",
        ),
        (
            "ALTER TABLE users DISABLE ROW LEVEL SECURITY",
            &["table users: ROW LEVEL SECURITY -> nothing"],
            "ALTER TABLE users ENABLE ROW LEVEL SECURITY",
        ),
        (
            "DROP POLICY own ON users",
            &["policy users.own: gone"],
            "CREATE POLICY own ON users USING (email = current_user)",
        ),
        (
            "CREATE RULE quiet AS ON DELETE TO users DO INSTEAD NOTHING",
            &["rule users.quiet: new: CREATE RULE quiet"],
            "DROP RULE quiet ON users",
        ),
        ("CREATE SCHEMA other", &["schema other: new"], "DROP SCHEMA other"),
        (
            "ALTER TYPE mood ADD VALUE 'so so'",
            &["type mood: ENUM ('good', 'bad') -> ENUM ('good', 'bad', 'so so')"],
            "",
        ),
    ];
    let mut owner = db.connect().await;
    for (change, lines, undo) in changes {
        sqlx::raw_sql(*change).execute(&mut owner).await.unwrap();
        let told = db.told().await;
        assert_eq!(told.len(), lines.len(), "{change}: {told:?}");
        for (line, expected) in told.iter().zip(*lines) {
            assert!(line.starts_with(expected), "{change}: {line}");
        }
        if !undo.is_empty() {
            sqlx::raw_sql(*undo).execute(&mut owner).await.unwrap();
            assert_eq!(db.told().await, [""; 0], "{undo}");
        }
    }
}

#[tokio::test]
async fn what_is_no_change_of_the_schema_is_not_told() {
    let db = Database::made("harmless", &[SCHEMA]).await;
    let before = db.ask(drift::SIGNAL).await;
    let mut owner = db.connect().await;
    let harmless = [
        "INSERT INTO users (email) SELECT 'user ' || i FROM generate_series(1, 200) i",
        "ANALYZE",
        "VACUUM users",
        "VACUUM FULL users",
        "REINDEX TABLE users",
        "CLUSTER users USING users_pkey",
        "CREATE TEMP TABLE users (id int); CREATE TEMP VIEW seen AS SELECT 1",
        "COMMENT ON TABLE app.tasks IS 'commented'",
        "ALTER TABLE app.tasks ALTER note SET STATISTICS 500",
        "CREATE TABLE app.log_1 PARTITION OF app.log FOR VALUES FROM ('2020-01-01') TO ('2021-01-01'); CREATE INDEX ON app.log_1 (text)",
        "SELECT nextval('app.tasks_id_seq')",
        "CREATE ROLE drift_unused",
        "CREATE ROLE drift_managed; COMMENT ON ROLE drift_managed IS 'amas.dev/claim {}'; GRANT SELECT ON app.tasks TO drift_managed; \
         ALTER DEFAULT PRIVILEGES IN SCHEMA app GRANT SELECT ON TABLES TO drift_managed",
        "ALTER ROLE harmless_owner SET timezone = 'Asia/Tokyo'; ALTER ROLE harmless_owner SET datestyle = 'German'",
        "SET timezone = 'Asia/Tokyo'; SET quote_all_identifiers = on",
    ];
    for sql in harmless {
        sqlx::raw_sql(sql).execute(&mut owner).await.unwrap();
        assert_eq!(db.told().await, [""; 0], "{sql}");
    }
    // What an operator makes itself it takes up.
    sqlx::raw_sql("CREATE EXTENSION btree_gin")
        .execute(&mut owner)
        .await
        .unwrap();
    assert_eq!(db.told().await.len(), 1);
    let recorded = db.drift().await.fingerprint;
    drift::take_up_extensions(&mut owner, &["btree_gin".to_owned()])
        .await
        .unwrap();
    assert_eq!(db.told().await, [""; 0]);
    assert_ne!(db.drift().await.fingerprint, recorded);
    let found = drift::look(&mut owner, &public()).await.unwrap().unwrap();
    assert_eq!(found.total, 0, "in a session that has other settings: {found:?}");
    assert_ne!(before, [""], "the server counts");
}

#[tokio::test]
async fn every_verb_keeps_the_record_right() {
    let db = Database::new("recorded").await;
    let dir = Dir::of("recorded", &[]);
    db.server
        .admin("postgres", &["ALTER ROLE recorded_owner SUPERUSER"])
        .await;
    let write = |file: &File| {
        dir.file(&format!("{}.up.sql", file.0), file.1);
        dir.file(&format!("{}.down.sql", file.0), file.2);
    };
    write(&SCHEMA);
    write(&SECOND);
    let verb = async |args: &[&str], expected: i32| {
        let dirs: &[_] = if args[0] == "drift" {
            &[]
        } else {
            &[("--dir", dir.path())]
        };
        let (code, out, err) = output(command(&db, args, dirs)).await;
        assert_eq!(code, expected, "{args:?}: {out}{err}");
        out + &err
    };
    assert!(verb(&["drift"], 17).await.contains("no schema was recorded"));
    let mut seen = Vec::new();
    for args in [
        &["up"][..],
        &["down"],
        &["up"],
        &["redo"],
        &["stamp", "--to", "1"],
        &["stamp", "--to", "2"],
        &["down", "--to", "0"],
        &["up"],
    ] {
        verb(args, 0).await;
        assert_eq!(db.told().await, [""; 0], "{args:?}");
        seen.push((db.drift().await.version, db.drift().await.fingerprint));
    }
    assert_eq!(
        seen.iter().map(|(version, _)| *version).collect::<Vec<_>>(),
        [2, 1, 2, 2, 1, 2, 0, 2]
    );
    // The same version has the same fingerprint, however it was come to.
    assert_eq!((&seen[0], &seen[0], &seen[0]), (&seen[2], &seen[3], &seen[7]));
    assert_ne!(seen[0].1, seen[1].1);

    // A change by hand outlives a run that does not touch it, and is over when it is undone.
    db.ask("CREATE TABLE by_hand (id int); DROP INDEX app.tasks_created; ALTER TABLE app.tasks ADD COLUMN late date")
        .await;
    assert!(verb(&["drift"], 30).await.contains("table by_hand: new"));
    let third = (
        "0003_third",
        "CREATE TABLE third (id int); DROP TABLE by_hand",
        "DROP TABLE third",
    );
    write(&third);
    verb(&["up", "--allow-destructive", "3", "--backup-before", "never"], 0).await;
    let left = ["column app.tasks.late: new: date", "index app.tasks_created: gone"];
    assert_eq!(db.told().await, left);
    // A seed is a run too; so is one that fails in its middle, whose first file stays.
    write(&("0004_good", "CREATE TABLE fourth (id int)", ""));
    write(&("0005_bad", "CREATE TABLE third (id int)", ""));
    verb(&["up"], 10).await;
    assert_eq!(db.told().await, left);
    let text = verb(&["drift", "-o", "json"], 30).await;
    let json: serde_json::Value = serde_json::from_str(text.split("\nerror:").next().unwrap()).unwrap();
    assert_eq!((json["total"].as_u64(), json["version"].as_u64()), (Some(2), Some(4)));
    db.ask("ALTER TABLE app.tasks DROP COLUMN late").await;
    assert_eq!(db.told().await, left[1..]);
    assert!(
        verb(&["drift", "--accept"], 0)
            .await
            .contains("accepted: index app.tasks_created: gone")
    );
    assert_eq!(db.told().await, [""; 0]);

    // What sqlx does is not known, until the next run.
    db.ask("DELETE FROM _sqlx_migrations WHERE version = 4; DROP TABLE fourth")
        .await;
    assert_eq!(
        db.drift().await.unknown,
        Some("migrations were applied or taken back since the schema was recorded")
    );
    std::fs::remove_file(dir.path().join("0005_bad.up.sql")).unwrap();
    std::fs::remove_file(dir.path().join("0005_bad.down.sql")).unwrap();
    db.ask("UPDATE amas_migrate.runs SET finished_at = NULL, outcome = NULL WHERE id = (SELECT max(id) FROM amas_migrate.runs)").await;
    verb(&["up", "--to", "4"], 0).await;
    assert_eq!(db.told().await, [""; 0]);
    // The same after a run that was killed when all was in.
    db.ask("UPDATE amas_migrate.runs SET finished_at = NULL, outcome = NULL WHERE id = (SELECT max(id) FROM amas_migrate.runs)").await;
    assert_eq!(db.drift().await.unknown, Some("a run is under way, or died"));
    verb(&["up"], 0).await;
    assert_eq!(db.told().await, [""; 0]);
}

#[tokio::test]
async fn what_loses_nothing_is_put_back() {
    let db = Database::made("corrected", &[SCHEMA, SECOND]).await;
    db.server.admin("postgres", &["CREATE ROLE correct_reader"]).await;
    db.ask("GRANT SELECT ON users TO correct_reader; INSERT INTO users (email) VALUES ('kept')")
        .await;
    drift::accept(&mut db.connect().await, &public()).await.unwrap();
    db.ask(
        "DROP VIEW busy; DROP INDEX app.tasks_created; DROP INDEX app.tasks_note; CREATE INDEX tasks_note ON app.tasks (note, id); DROP TRIGGER touch ON app.tasks;
         CREATE OR REPLACE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
         REVOKE SELECT ON users FROM correct_reader; GRANT DELETE ON users TO correct_reader; ALTER TABLE users DROP COLUMN age; CREATE INDEX mine ON users (mood)",
    )
    .await;
    assert_eq!(db.told().await.len(), 8, "{:?}", db.told().await);
    let (code, out, err) = output(command(&db, &["drift", "--correct"], &[])).await;
    assert_eq!(code, 30, "{out}{err}");
    assert_eq!(
        out, "column users.age: gone\nindex mine: new: CREATE INDEX mine ON public.users USING btree (mood)\n",
        "{err}"
    );
    assert_eq!(err.matches("put back: ").count(), 6, "{err}");
    assert_eq!(db.ask("SELECT email FROM users").await, ["kept"]);
    // A trigger that was switched off is on again.
    db.ask("ALTER TABLE app.tasks DISABLE TRIGGER touch").await;
    assert!(
        output(command(&db, &["drift", "--correct"], &[]))
            .await
            .2
            .contains("put back: trigger app.tasks.touch")
    );
    assert_eq!(db.told().await.len(), 2);
}

/// Figures of a schema with 1,000 tables, for the documentation; what they must not exceed is far above.
#[tokio::test]
async fn the_hint_costs_next_to_nothing() {
    let db = Database::new("thousand").await;
    let tables = (1..=1000)
        .map(|i| {
            format!(
                "CREATE TABLE t{i} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL DEFAULT 'x', email varchar(255) UNIQUE, \
                 at timestamptz NOT NULL DEFAULT now(), amount numeric(10, 2) CHECK (amount > 0), data jsonb, flag boolean); CREATE INDEX ON t{i} (at) WHERE flag;"
            )
        })
        .collect::<String>();
    let files = [("0001_thousand", &*tables.leak(), "")];
    let report = db.run(request(Goal::Up(None), source(&files))).await;
    assert!(report.failure.is_none(), "{:?}", report.failure);
    let mut owner = db.connect().await;
    let mut times = async |sql: &'static str| {
        let mut all = Vec::new();
        for _ in 0..21 {
            let started = Instant::now();
            sqlx::raw_sql(sql).fetch_all(&mut owner).await.unwrap();
            all.push(started.elapsed());
        }
        all.sort();
        all[10]
    };
    let (nothing, hint) = (
        times("SELECT 1").await,
        times("SET search_path = pg_catalog, pg_temp").await,
    );
    let signal = times(drift::SIGNAL).await;
    let mut conn = db.connect().await;
    let mut look = Duration::MAX;
    for _ in 0..3 {
        let started = Instant::now();
        assert_eq!(drift::look(&mut conn, &public()).await.unwrap().unwrap().total, 0);
        look = look.min(started.elapsed());
    }
    let started = Instant::now();
    drift::accept(&mut conn, &public()).await.unwrap();
    println!(
        "1,000 tables: hint {signal:?} (SELECT 1 {nothing:?}, SET {hint:?}), comparison {look:?}, recording {:?}",
        started.elapsed()
    );
    assert!(signal < Duration::from_millis(50), "{signal:?}");
    assert!(look < Duration::from_secs(5), "{look:?}");

    // It moves with a change, within the server's ten seconds, and does not while nothing happens.
    let before = settled(&db).await;
    sqlx::raw_sql("ALTER TABLE t1 ALTER name DROP NOT NULL")
        .execute(&mut conn)
        .await
        .unwrap();
    let changed = Instant::now();
    while db.ask(drift::SIGNAL).await == before {
        assert!(changed.elapsed() < Duration::from_secs(30), "never told");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("a change was hinted at after {:?}", changed.elapsed());
}

/// The hint once it has not moved for two seconds: sessions tell their counts late.
async fn settled(db: &Database) -> Vec<String> {
    let started = Instant::now();
    let mut last = (db.ask(drift::SIGNAL).await, Instant::now());
    while last.1.elapsed() < Duration::from_secs(2) {
        assert!(started.elapsed() < Duration::from_secs(60), "it never rests");
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = db.ask(drift::SIGNAL).await;
        if now != last.0 {
            last = (now, Instant::now());
        }
    }
    last.0
}
