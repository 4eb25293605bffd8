//! What people put into Secrets and databases is never taken on trust.

use std::time::Duration;

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use sqlx::{ConnectOptions, Connection, postgres::PgConnectOptions};

use super::{beside, message, sql};
use crate::{
    deletion::reason,
    lifecycle::database,
    support::{
        fault::{Fault, Which},
        kubernetes::PATIENCE,
        operator::Operator,
        postgres::Postgres,
        process::eventually,
        proxy::ApiProxy,
    },
};

/// Whether this password opens the role.
async fn opens(postgres: &Postgres, role: &str, password: &str) -> bool {
    let options = PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(postgres.port);
    let login = options
        .username(role)
        .password(password)
        .database("kept")
        .disable_statement_logging();
    match login.connect().await {
        Ok(connection) => connection.close().await.is_ok(),
        Err(_) => false,
    }
}

#[tokio::test]
async fn an_unreadable_secret_clears_no_password() {
    let postgres = Postgres::start_guarded(&[("fsync", "off")]).await;
    let ns = beside("unreadable", &postgres).await;
    let mut operator = ns.operator(&[]).await;
    ns.secret("brought", &[("password", "a password of theirs")]).await;
    let object = database(
        "a",
        json!({"postgres": sql("kept", json!({"secretRef": {"name": "brought"}}))}),
    );
    ns.apply(object.clone()).await;
    ns.wait_condition("AmasDatabase", "a", "Ready", "True").await;
    assert!(opens(&postgres, "kept_app", "a password of theirs").await);
    let owner = ns.get("Secret", "a-role-kept-owner").await.unwrap();
    // What is brought: junk, without its key, gone.
    let unreadable = async |turn: &str, patch: Option<Value>| {
        match patch {
            Some(patch) => {
                let params = PatchParams::default();
                drop(
                    ns.kind("Secret")
                        .patch("brought", &params, &Patch::Merge(&patch))
                        .await
                        .unwrap(),
                );
            }
            None => ns.delete("Secret", "brought").await,
        }
        let mut object = object.clone();
        object["metadata"]["annotations"] = json!({"amas.dev/reread-secrets": turn});
        ns.apply(object).await;
        let object = ns
            .wait("AmasDatabase", "a", "CredentialsMissing", |object| {
                reason(object) == "CredentialsMissing"
            })
            .await;
        assert!(message(&object).contains("brought"), "{}", message(&object));
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(opens(&postgres, "kept_app", "a password of theirs").await, "{turn}");
    };
    unreadable("junk", Some(json!({"data": {"password": "AAEC"}}))).await;
    unreadable(
        "without its key",
        Some(json!({"data": {"password": null, "word": "AAEC"}})),
    )
    .await;
    // Repaired, it is taken up without being asked for.
    ns.secret("brought", &[("password", "a password of theirs")]).await;
    ns.wait_condition("AmasDatabase", "a", "Ready", "True").await;
    unreadable("gone", None).await;
    ns.secret("brought", &[("password", "a password of theirs")]).await;
    ns.wait_condition("AmasDatabase", "a", "Ready", "True").await;
    // What is ours, when the operator comes back to it.
    operator.kill();
    let emptied = json!({"data": {"PGPASSWORD": null}});
    ns.kind("Secret")
        .patch("a-role-kept-owner", &PatchParams::default(), &Patch::Merge(&emptied))
        .await
        .unwrap();
    operator.again();
    ns.wait("AmasDatabase", "a", "CredentialsMissing", |object| {
        reason(object) == "CredentialsMissing"
    })
    .await;
    ns.apply(
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a-role-kept-owner"}, "data": owner["data"]}),
    )
    .await;
    ns.wait_condition("AmasDatabase", "a", "Ready", "True").await;
}

#[tokio::test]
async fn a_secret_that_is_refused_clears_no_password() {
    let postgres = Postgres::start_guarded(&[("fsync", "off")]).await;
    let ns = beside("refused", &postgres).await;
    let proxy = ApiProxy::start(&ns.api, &ns.name).await;
    let operator = Operator::start(&ns, &proxy.kubeconfig, &[]);
    let mut password = "a password of theirs".to_owned();
    ns.secret("brought", &[("password", &password)]).await;
    let role = json!({"secretRef": {"name": "brought"}});
    ns.apply(database("a", json!({"postgres": sql("kept", role)}))).await;
    ns.wait_condition("AmasDatabase", "a", "Ready", "True").await;
    let read = format!("GET /api/v1/namespaces/{}/secrets/brought", ns.name);
    for code in [403, 500] {
        let next = format!("their password after {code}");
        ns.secret("brought", &[("password", &next)]).await;
        proxy
            .reads
            .begin(Some((Which::Each(read.clone()), Fault::Answer(code))));
        let said = operator.log().len();
        ns.annotate("a", "amas.dev/reread-secrets", &code.to_string()).await;
        eventually("it is read again and again", PATIENCE, || async {
            proxy.reads.writes().iter().filter(|other| **other == read).count() >= 3
        })
        .await;
        let log = operator.log()[said..].to_owned();
        let what = format!("Secret {}/brought", ns.name);
        let is_told = |line: &str| {
            line.contains("reconcile failed") && line.contains(&what) && line.contains("planned by a test")
        };
        assert!(log.lines().any(is_told), "{code}: {log}");
        assert!(opens(&postgres, "kept_app", &password).await, "{code}: {log}");
        proxy.reads.begin(None);
        eventually("what is in it is taken up", PATIENCE, || {
            opens(&postgres, "kept_app", &next)
        })
        .await;
        password = next;
    }
}

#[tokio::test]
async fn nothing_that_an_owner_plants_is_run_by_the_operator() {
    let postgres = Postgres::start_with(&[("fsync", "off")]).await;
    let ns = beside("planted", &postgres).await;
    let mut operator = ns.operator(&[]).await;
    let object = |extra: &str| {
        let mut sql = sql("planted", json!({"connection": {"extra": {"TURN": extra}}}));
        if extra == "2" {
            sql["roles"]
                .as_array_mut()
                .unwrap()
                .push(json!({"name": "planted_more", "access": "ReadOnly"}));
        }
        database("a", json!({"postgres": sql}))
    };
    ns.apply(object("1")).await;
    ns.wait_condition("AmasDatabase", "a", "Ready", "True").await;
    // Whatever of the catalog is named without its schema would be one of these, once the owner's path comes first.
    let trap = "CREATE FUNCTION evil.trap() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN \
                IF current_setting('is_superuser') = 'on' AND NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'trapped') THEN EXECUTE 'CREATE ROLE trapped SUPERUSER'; END IF; RETURN true; END $$";
    let relations = [
        "pg_authid",
        "pg_roles",
        "pg_auth_members",
        "pg_class",
        "pg_database",
        "pg_default_acl",
        "pg_db_role_setting",
        "pg_extension",
        "pg_available_extensions",
        "pg_namespace",
        "pg_proc",
        "pg_stat_activity",
        "pg_stat_database",
        "pg_settings",
    ];
    let mut owner = postgres.connect("planted_owner", "planted").await;
    let mut plant = vec![
        "CREATE SCHEMA evil".to_owned(),
        trap.to_owned(),
        "GRANT USAGE ON SCHEMA evil TO PUBLIC".to_owned(),
    ];
    plant.extend(
        relations.map(|name| format!("CREATE VIEW evil.{name} AS SELECT * FROM pg_catalog.{name} WHERE evil.trap()")),
    );
    plant.extend(relations.map(|name| format!("GRANT SELECT ON evil.{name} TO PUBLIC")));
    plant.push("ALTER DATABASE planted SET search_path = evil, pg_catalog, public".to_owned());
    for statement in plant {
        let run = sqlx::raw_sql(sqlx::AssertSqlSafe(statement.clone()))
            .execute(&mut owner)
            .await;
        if let Err(error) = run {
            // What an owner may not read it cannot plant either.
            println!("not planted: {statement}: {error}");
        }
    }
    // The trap works.
    let mut careless = postgres.connect("postgres", "planted").await;
    sqlx::raw_sql("BEGIN; SELECT FROM pg_database; SELECT 1 / (SELECT count(*)::int FROM pg_catalog.pg_roles WHERE rolname = 'trapped'); ROLLBACK")
        .execute(&mut careless)
        .await
        .unwrap();
    operator.kill();
    operator.again();
    ns.apply(object("2")).await;
    ns.wait("Secret", "a-role-planted-more", "made", |_| true).await;
    ns.wait_condition("AmasDatabase", "a", "Ready", "True").await;
    let trapped: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_catalog.pg_roles WHERE rolname = 'trapped'")
        .fetch_one(&mut careless)
        .await
        .unwrap();
    assert_eq!(trapped, 0);
}
