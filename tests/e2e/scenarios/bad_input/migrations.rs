//! Migrations that cannot be carried out: an unknown bundle, a failing statement, an edited file; and the way back from each.

use std::collections::BTreeMap;

use amas_operator::api::amas_database::AmasDatabase;
use k8s_openapi::api::batch::v1::Job;
use kube::api::{DynamicObject, ListParams};
use serde_json::{Value, json};

use super::{
    all,
    by_hand::ByHand,
    evicted,
    room::{Room, postgres},
};
use crate::{
    cluster::{
        clients::{self, Values, role_secret},
        conditions,
        objects::{api, ours},
        platform::PATIENCE,
        wait::Watch,
    },
    harness::{About, Result, context::Ctx},
};

const REREAD: &str = "amas.dev/reread-sources";
const FAILING: &str = "-- the third of five\nCREATE TABLE three (id int);\n\nINSERT INTO nowhere\n  VALUES (1);\n";
const MENDED: &str = "-- the third of five\nCREATE TABLE three (id int);\n";

pub async fn run(ctx: &Ctx) -> Result {
    let (bundle, files) = (Room::new(ctx, "bundle").await?, Room::new(ctx, "files").await?);
    let drained = Room::new(ctx, "drained").await?;
    all([
        Box::pin(unknown_bundle(&bundle)),
        Box::pin(Steps { room: &files }.run()),
        Box::pin(evicted::run(&drained)),
    ])
    .await
}

fn database(source: Value) -> Value {
    let roles = json!([{ "name": "app_writer", "access": "ReadWrite" }]);
    let extensions = json!(["uuid-ossp", "pg_trgm", "btree_gin"]);
    json!({ "postgres": postgres(json!({ "roles": roles, "extensions": extensions })), "migrations": { "source": source } })
}

async fn unknown_bundle(room: &Room<'_>) -> Result {
    room.database("lost", database(json!({ "bundle": "amos" }))).await?;
    room.stalled::<AmasDatabase>("lost", "SourceNotFound", &["no bundle amos", "it has: amas"])
        .await?;
    room.database("no-map", database(json!({ "configMaps": ["gone"] })))
        .await?;
    room.stalled::<AmasDatabase>("no-map", "SourceNotFound", &["/gone does not exist", REREAD])
        .await?;
    // The servers themselves serve meanwhile, and that is said.
    let api = room.api::<AmasDatabase>();
    for name in ["lost", "no-map"] {
        let serves = |object: Option<&DynamicObject>| {
            object.is_some_and(|object| conditions::status(object, "PostgresReady") == Some("True"))
        };
        Watch::open(&api, name)
            .await?
            .until(PATIENCE, "PostgresReady=True", serves)
            .await?;
    }
    room.silent("unknown sources").await?;
    room.database("lost", database(json!({ "bundle": "amas" }))).await?;
    let object = room.database_ready("lost", "the bundle's name is mended").await?;
    progress(room.ctx, &object, "lost", "5/5");
    Ok(())
}

fn progress(ctx: &Ctx, object: &DynamicObject, name: &str, wanted: &str) {
    let seen = object.data["status"]["migrations"]["progress"]
        .as_str()
        .unwrap_or_default();
    ctx.figure(format!("{name}: migrations"), seen, wanted, seen == wanted);
}

/// Five migrations from a ConfigMap, each making a table.
struct Steps<'a> {
    room: &'a Room<'a>,
}

impl Steps<'_> {
    async fn run(self) -> Result {
        self.write(&[(3, FAILING)]).await?;
        let by_hand = ByHand {
            room: self.room,
            database: "five",
            files: "steps",
        };
        self.adopted(&by_hand).await?;
        self.failing().await?;
        self.edited().await?;
        by_hand.redo("five").await?;
        self.lossy(&by_hand).await
    }

    /// The files, some replaced; the sixth only if it is named.
    async fn write(&self, replaced: &[(usize, &str)]) -> Result {
        let mut files = BTreeMap::new();
        for (index, word) in ["one", "two", "three", "four", "five", "six"].into_iter().enumerate() {
            let version = index + 1;
            let other = replaced.iter().find(|(replaced, _)| *replaced == version);
            if version == 6 && other.is_none() {
                continue;
            }
            let up = other.map_or_else(
                || format!("CREATE TABLE {word} (id int);\n"),
                |(_, text)| (*text).to_owned(),
            );
            files.insert(format!("000{version}_{word}.up.sql"), up);
            files.insert(format!("000{version}_{word}.down.sql"), format!("DROP TABLE {word};\n"));
        }
        let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "steps" }, "data": files });
        self.room.apply(serde_json::from_value(map)?).await
    }

    /// Tells the operator that the ConfigMap has changed.
    async fn reread(&self, token: &str) -> Result {
        let mut five = ours("AmasDatabase", "five", database(json!({ "configMaps": ["steps"] })))?;
        five.metadata.annotations = Some([(REREAD.to_owned(), token.to_owned())].into());
        self.room.apply(five).await
    }

    /// The tables that there are, seen by the application.
    async fn tables(&self) -> Result<String> {
        let secret = Values::read(
            &self.room.ctx.client,
            &self.room.namespace,
            &role_secret("five", "app_writer"),
        )
        .await?;
        let mut session = clients::postgres(secret.get("DATABASE_URL")?).await?;
        let query = "SELECT coalesce(string_agg(tablename, ' ' ORDER BY tablename), '')::text FROM pg_tables WHERE schemaname = 'public' AND tablename NOT LIKE '\\_%'";
        clients::value(&mut session, query).await
    }

    /// A database that somebody has brought to the first version already: had it not been stamped, its table would be in the way.
    async fn adopted(&self, by_hand: &ByHand<'_>) -> Result {
        let mut spec = database(json!({ "configMaps": ["steps"] }));
        if let Some(spec) = spec.as_object_mut() {
            spec.remove("migrations");
        }
        self.room.database("five", spec).await?;
        self.room
            .database_ready("five", "a database without migrations")
            .await?;
        by_hand.execute("CREATE TABLE one (id int)").await?;
        by_hand.stamp(1).await?;
        self.room
            .database("five", database(json!({ "configMaps": ["steps"] })))
            .await
    }

    async fn failing(&self) -> Result {
        let ctx = self.room.ctx;
        let object = self
            .room
            .stalled::<AmasDatabase>("five", "MigrationFailed", &["0003_three.up.sql", "42P01", "nowhere"])
            .await?;
        let migrations = &object.data["status"]["migrations"];
        let failure = &migrations["failure"];
        let seen = [
            &migrations["current"],
            &failure["version"],
            &failure["file"],
            &failure["line"],
            &failure["sqlstate"],
        ]
        .map(Value::to_string);
        let wanted = ["2", "3", "\"0003_three.up.sql\"", "4", "\"42P01\""];
        ctx.figure(
            "third of five fails: current, version, file, line, SQLSTATE",
            seen.join(" "),
            wanted.join(" "),
            seen == wanted,
        );
        let tables = self.tables().await?;
        ctx.figure("third of five fails: tables", &tables, "one two", tables == "one two");
        self.room.silent("a failed migration").await?;
        let jobs = api::<Job>(&ctx.client, &self.room.namespace)
            .list(&ListParams::default())
            .await?;
        ctx.figure(
            "third of five fails: Jobs",
            jobs.items.len().to_string(),
            "1",
            jobs.items.len() == 1,
        );
        self.write(&[(3, MENDED)]).await?;
        self.reread("mended").await?;
        let object = self
            .room
            .database_ready("five", "the ConfigMap is mended and read again")
            .await?;
        progress(ctx, &object, "five", "5/5");
        let gone = object.data["status"]["migrations"]["failure"].is_null();
        ctx.figure(
            "five: status.migrations.failure after that",
            if gone { "absent" } else { "still there" },
            "absent",
            gone,
        );
        let tables = self.tables().await?;
        ctx.figure(
            "five: tables after that",
            &tables,
            "five four one three two",
            tables == "five four one three two",
        );
        Ok(())
    }

    async fn edited(&self) -> Result {
        self.write(&[(2, "CREATE TABLE two (id bigint);\n"), (3, MENDED)])
            .await?;
        self.reread("edited").await?;
        let object = self
            .room
            .stalled::<AmasDatabase>(
                "five",
                "HistoryMismatch",
                &["0002_two.up.sql", "edited after it was applied"],
            )
            .await?;
        let available = conditions::status(&object, "Available").about("no condition Available")?;
        self.room
            .ctx
            .figure("an edited migration: Available", available, "True", available == "True");
        self.room.silent("an edited migration").await?;
        self.write(&[(3, MENDED)]).await?;
        self.reread("restored").await?;
        self.room
            .database_ready("five", "the edited file is restored")
            .await
            .map(|_| ())
    }

    /// A table that a migration takes away is saved first, by a pod of the server's image and onto a volume; and put back from there.
    async fn lossy(&self, by_hand: &ByHand<'_>) -> Result {
        let ctx = self.room.ctx;
        by_hand.execute("INSERT INTO two SELECT generate_series(1, 20)").await?;
        self.write(&[(3, MENDED), (6, "DROP TABLE two;\n")]).await?;
        let mut spec = database(json!({ "configMaps": ["steps"] }));
        spec["migrations"]["backup"] = json!({ "size": "1Gi" });
        self.room.database("five", spec.clone()).await?;
        self.room
            .stalled::<AmasDatabase>("five", "DestructiveNotAllowed", &["0006_six.up.sql:1: drops a table"])
            .await?;
        spec["migrations"]["allowDestructive"] = json!([6]);
        self.room.database("five", spec).await?;
        let object = self.room.database_ready("five", "the loss is accepted").await?;
        progress(ctx, &object, "five", "6/6");
        let query = "SELECT coalesce(string_agg(b.entries::text || ' ' || (b.bytes > 0), '; '), 'none') FROM amas_migrate.backups b";
        let saved = by_hand.value(query).await?;
        let wanted = r#"[{"name": "\"public\".\"two\""}] true"#;
        ctx.figure("five: what was saved", &saved, wanted, saved == wanted);
        let volume = object.data["status"]["volumes"].to_string();
        ctx.figure(
            "five: its volume",
            &volume,
            "five-backups",
            volume.contains("\"five-backups\""),
        );
        by_hand.restore_tables(1, "two", 20).await
    }
}
