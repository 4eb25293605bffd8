//! Specifications that the schema lets through and that cannot be carried out as written.

use amas_operator::api::amas_database::AmasDatabase;
use serde_json::{Value, json};

use super::room::{Room, postgres, with};
use crate::{
    cluster::objects::children,
    harness::{Result, context::Ctx},
};

pub async fn run(ctx: &Ctx) -> Result {
    let room = Room::new(ctx, "specs").await?;
    for (name, spec, words) in cases() {
        room.database(name, json!({ "postgres": spec })).await?;
        room.stalled::<AmasDatabase>(name, "InvalidSpec", words).await?;
    }
    for (name, ..) in cases() {
        let made = children(&ctx.client, &room.namespace, name).await?;
        if !made.is_empty() {
            ctx.figure(format!("{name}: children"), made.join(", "), "none", false);
        }
    }
    // Nothing of ours stands in the way of this one, but the API server does.
    let nothing = json!({ "redis": { "managed": { "storage": { "size": 0 } } } });
    room.database("nothing", nothing).await?;
    room.stalled::<AmasDatabase>("nothing", "Refused", &["must be greater than zero"])
        .await?;
    room.silent("invalid specifications").await?;
    // The last one is mended: 93 and the 7 of the operator are exactly the 100 there are.
    room.database("limits", json!({ "postgres": limits(93) })).await?;
    room.database_ready("limits", "mended").await.map(|_| ())
}

/// Two roles that together may hold this many connections.
fn limits(sum: i64) -> Value {
    postgres(json!({ "roles": [
        { "name": "one", "access": "ReadWrite", "connectionLimit": sum - 10 },
        { "name": "two", "access": "ReadOnly" },
    ] }))
}

fn cases() -> Vec<(&'static str, Value, &'static [&'static str])> {
    let parameters =
        |parameters: Value| postgres(json!({ "managed": { "storage": { "size": "1Gi" }, "parameters": parameters } }));
    vec![
        (
            "denied",
            parameters(json!({ "archive_command": "true", "listen_addresses": "*" })),
            &[
                "archive_command is the operator's own",
                "listen_addresses is the operator's own",
            ],
        ),
        (
            "break",
            parameters(json!({ "work_mem": "1MB'\nlisten_addresses = '*" })),
            &["work_mem contains a line break"],
        ),
        (
            "capital",
            parameters(json!({ "Work_Mem": "1MB" })),
            &["\"Work_Mem\" is not a parameter name"],
        ),
        (
            "limits",
            limits(94),
            &[
                "come to 101, but max_connections is 100",
                "raise parameters.max_connections",
            ],
        ),
        (
            "own",
            postgres(json!({ "database": "template1" })),
            &["template1 is PostgreSQL's own"],
        ),
        (
            "reserved",
            postgres(json!({ "roles": [{ "name": "pg_app", "access": "ReadOnly" }] })),
            &["the role name pg_app is reserved"],
        ),
        (
            "owner",
            with(postgres(json!({})), json!({ "database": "d".repeat(60) })),
            &["is longer than 63 characters", "name an owner"],
        ),
        (
            "key",
            postgres(
                json!({ "roles": [{ "name": "a", "access": "ReadOnly", "connection": { "extra": { "a b": "" } } }] }),
            ),
            &["\"a b\" is not a valid key of a Secret"],
        ),
    ]
}
