//! Secrets of roles on a real server: lost and put back, lost and made again, replaced when they are old.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};
use sqlx::{
    ConnectOptions, Connection,
    postgres::{PgConnectOptions, PgSslMode},
};

use crate::{
    deletion::reason,
    encryption::entry,
    lifecycle::{database, external},
    support::{
        kubernetes::{Kubernetes, Namespace, PATIENCE, condition_of},
        operator::Operator,
        postgres::Postgres,
        process::eventually,
    },
};

/// How long a Secret that was put back by hand may go unnoticed: it is looked for every 10 s; the rest is a margin for a busy machine.
const NOTICED: Duration = Duration::from_secs(10 + 20);
/// What is read before a time that was announced has to be there by then.
const AHEAD: Duration = Duration::from_secs(5);

/// Whether an application that reads this Secret gets in.
pub(super) async fn opens(secret: &Value) -> bool {
    let options: PgConnectOptions = entry(secret, "DATABASE_URL").parse().unwrap();
    let options = options.ssl_mode(PgSslMode::Disable).disable_statement_logging();
    match options.connect().await {
        Ok(connection) => connection.close().await.is_ok(),
        Err(_) => false,
    }
}

/// An object with one role of its own name, Ready.
async fn ready(name: &str, rotation: Value) -> (Namespace, Postgres, Operator) {
    let postgres = Postgres::start_guarded(&[("fsync", "off")]).await;
    let ns = Kubernetes::shared().await.namespace(name).await;
    ns.secret("postgres", &[("uri", &postgres.url("postgres", "postgres"))])
        .await;
    let operator = ns.operator(&[]).await;
    let roles = json!([{"name": format!("{name}_app"), "access": "ReadWrite"}]);
    let sql =
        json!({"database": name, "owner": format!("{name}_owner"), "roles": roles, "external": external("postgres")});
    ns.apply(database(
        "a",
        json!({"postgres": sql, "credentials": {"rotation": rotation}}),
    ))
    .await;
    ns.wait_condition("AmasDatabase", "a", "Ready", "True").await;
    (ns, postgres, operator)
}

#[tokio::test]
async fn a_lost_secret_is_told_and_put_back_or_made_again() {
    const NAME: &str = "a-role-lost-app";
    let (ns, _postgres, _operator) = ready("lost", json!({})).await;
    let first = ns.get("Secret", NAME).await.unwrap();
    assert!(opens(&first).await);
    let lost = async |turn: &str| {
        ns.delete("Secret", NAME).await;
        ns.annotate("a", "amas.dev/reread-secrets", turn).await;
        let told = |object: &Value| reason(object) == "CredentialsMissing";
        let object = ns.wait("AmasDatabase", "a", "CredentialsMissing", told).await;
        let message = condition_of(&object, "Ready").unwrap()["message"].to_string();
        assert!(message.contains(NAME), "{message}");
        assert!(opens(&first).await, "applications that know it go on");
        assert!(ns.get("Secret", NAME).await.is_none(), "none is made in its place");
    };
    lost("1").await;
    let labels = &first["metadata"]["labels"];
    ns.apply(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": NAME, "labels": labels}, "data": first["data"]}))
        .await;
    let begun = Instant::now();
    ns.wait_condition("AmasDatabase", "a", "Ready", "True").await;
    assert!(begun.elapsed() < NOTICED, "taken up by itself: {:?}", begun.elapsed());
    assert_eq!(ns.get("Secret", NAME).await.unwrap()["data"], first["data"]);
    assert!(opens(&first).await);

    lost("2").await;
    ns.annotate("a", "amas.dev/reissue-credentials", "lost_app/1").await;
    ns.wait("Secret", NAME, "made again", |_| true).await;
    eventually("who reads the Secret now gets in", NOTICED, || async {
        opens(&ns.get("Secret", NAME).await.unwrap()).await
    })
    .await;
    assert!(!opens(&first).await, "the lost one is over");
    ns.wait_condition("AmasDatabase", "a", "Ready", "True").await;
}

#[tokio::test]
async fn an_old_password_is_replaced_by_itself() {
    const NAME: &str = "a-role-aged-app";
    let (ns, _postgres, _operator) = ready("aged", json!({"every": "4s", "overlap": "1s"})).await;
    let first = ns.get("Secret", NAME).await.unwrap();
    let rotated = |secret: &Value| {
        let count = &secret["data"]["rotation.count"];
        !count.is_null() && entry(secret, "rotation.count").parse::<u32>().unwrap() >= 2
    };
    let later = ns.wait("Secret", NAME, "replaced twice", rotated).await;
    assert_ne!(entry(&later, "PGPASSWORD"), entry(&first, "PGPASSWORD"));
    // It is soon replaced too.
    eventually("who reads the Secret now gets in", PATIENCE, || async {
        opens(&ns.get("Secret", NAME).await.unwrap()).await
    })
    .await;
    eventually("the first one is over", PATIENCE, || async { !opens(&first).await }).await;
}

#[tokio::test]
async fn a_password_is_replaced_when_the_calendar_says_so() {
    const NAME: &str = "a-role-timed-app";
    let (ns, _postgres, _operator) = ready("timed", json!({"schedule": "* * * * *", "overlap": "1s"})).await;
    let told = |object: &Value| {
        let all = object["status"]["credentials"].as_array()?;
        all.iter().find(|one| one["name"] == "timed_app").cloned()
    };
    let time = |one: &Value, field: &str| one[field].as_str().and_then(|text| text.parse::<Timestamp>().ok());
    let is_ahead = |at: Timestamp| at >= Timestamp::now() + AHEAD;
    let announced = |object: &Value| told(object).is_some_and(|one| time(&one, "nextRotationAt").is_some_and(is_ahead));
    let object = ns.wait("AmasDatabase", "a", "the next time is told", announced).await;
    // A minute may have ended already since the role was made: it is counted from here.
    let before = told(&object).unwrap();
    let due = time(&before, "nextRotationAt").unwrap();
    assert_eq!(due.as_second() % 60, 0, "{before}");
    let first = ns.get("Secret", NAME).await.unwrap();

    let until = Duration::try_from(due.duration_since(Timestamp::now())).unwrap_or_default();
    tokio::time::sleep(until).await;
    let rotations = |one: &Value| one["rotations"].as_u64().unwrap_or_default();
    let rotated = |object: &Value| told(object).is_some_and(|one| time(&one, "rotatedAt").is_some_and(|at| at >= due));
    let object = ns.wait("AmasDatabase", "a", "replaced", rotated).await;
    let after = told(&object).unwrap();
    assert_eq!(rotations(&after), rotations(&before) + 1, "once: {before} {after}");
    let (rotated, next) = (time(&after, "rotatedAt").unwrap(), time(&after, "nextRotationAt"));
    println!("calendar: due at {due}, replaced at {rotated}");
    assert!(next.is_none_or(|next| next > rotated), "{after}");
    let now = ns.get("Secret", NAME).await.unwrap();
    assert_ne!(entry(&now, "PGPASSWORD"), entry(&first, "PGPASSWORD"));
    assert!(opens(&now).await);
}
