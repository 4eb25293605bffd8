//! Migrations from an image that has nothing but the files: mounted by the kubelet, and copied out of it where that is asked for.

use serde_json::{Value, json};

use crate::{
    cluster::{clients, database::Database, image},
    harness::{Result, context::Ctx},
};

const FILES: [(&str, &str); 4] = [
    ("0001_one.up.sql", "CREATE TABLE one (id int);\n"),
    ("0001_one.down.sql", "DROP TABLE one;\n"),
    ("0002_two.up.sql", "CREATE TABLE two (id int);\n"),
    ("0002_two.down.sql", "DROP TABLE two;\n"),
];

pub async fn run(ctx: &Ctx) -> Result {
    let reference = image::of_files(ctx, "localhost/amas-migrations", &FILES).await?;
    for mount in ["Volume", "Copy"] {
        applied(ctx, &reference, mount).await?;
    }
    Ok(())
}

async fn applied(ctx: &Ctx, reference: &str, mount: &str) -> Result {
    let data = Database::new(ctx, &mount.to_lowercase()).await?;
    let managed = json!({"storage": {"size": "1Gi"}});
    let roles = json!([{"name": "data_app", "access": "ReadWrite"}]);
    let image = json!({"reference": reference, "mount": mount});
    data.apply(json!({
        "postgres": {"managed": managed, "database": "data", "roles": roles},
        "migrations": {"source": {"image": image}},
    }))
    .await?;
    let ready = data.wait_true(&["Ready", "MigrationsApplied"]).await?;
    let secret = data.values("role-data-app").await?;
    let mut session = clients::postgres(secret.get("DATABASE_URL")?).await?;
    let query = "SELECT concat_ws(' ', to_regclass('one'), to_regclass('two'))";
    let tables = clients::value(&mut session, query).await?;
    let progress = &ready.data["status"]["migrations"]["progress"];
    ctx.figure(
        format!("migrations from an image, {mount}"),
        format!("{progress}, tables {tables}"),
        "2/2, one two",
        progress == &Value::from("2/2") && tables == "one two",
    );
    Ok(())
}
