//! Settings of a managed Neo4j: the ones asked for and no others, whatever is in a value; what the Community edition can change while it
//! runs; and what it says of a name that it does not know.

use std::{collections::BTreeMap, time::Duration};

use amas_operator::stores::neo4j::parameters::{refuse, variable};
use neo4rs::{ConfigBuilder, Graph, query};

use crate::support::{
    neo4j::{Neo4jServer, PASSWORD},
    process::eventually,
};

fn variables(settings: &[(&str, &str)]) -> BTreeMap<String, String> {
    for (name, value) in settings {
        assert_eq!(refuse(name, value), None);
    }
    let pairs = settings
        .iter()
        .map(|(name, value)| (variable(name), (*value).to_owned()));
    pairs.collect()
}

/// All settings that the server shows.
async fn shown(graph: &Graph) -> BTreeMap<String, String> {
    let mut rows = graph.execute(query("SHOW SETTINGS YIELD name, value")).await.unwrap();
    let mut all = BTreeMap::new();
    while let Some(row) = rows.next().await.unwrap() {
        all.insert(
            row.get("name").unwrap(),
            row.get::<Option<String>>("value").unwrap().unwrap_or_default(),
        );
    }
    all
}

async fn client(server: &Neo4jServer) -> Graph {
    server.answers().await;
    let config = ConfigBuilder::default()
        .uri(format!("127.0.0.1:{}", server.port))
        .user("neo4j")
        .password(PASSWORD)
        .build()
        .unwrap();
    Graph::connect(config).unwrap()
}

#[tokio::test]
async fn settings_are_the_ones_asked_for_and_no_others() {
    // Text that is a setting, a comment, a quote or a variable elsewhere.
    const HOSTILE: &str = "it's \"; dbms.security.auth_enabled=false # ${user.home} $$ `id` * %s";
    let wanted = [
        ("db.transaction.timeout", "33s"),
        ("server.memory.query_cache.per_db_cache_num_entries", "77"),
        ("browser.post_connect_cmd", HOSTILE),
    ];
    let Some(plain) = Neo4jServer::start_set(&BTreeMap::new()) else {
        return;
    };
    let before = shown(&client(&plain).await).await;
    drop(plain);
    let server = Neo4jServer::start_set(&variables(&wanted)).unwrap();
    let graph = client(&server).await;
    let after = shown(&graph).await;
    let own = |name: &str| {
        name.starts_with("dbms.ssl.policy.")
            || name.starts_with("server.logs.")
            || name.contains("listen_address")
            || name.contains("advertised_address")
            || name.contains("director")
    };
    let changed: Vec<&str> = after
        .iter()
        .filter(|(name, value)| !own(name) && before.get(*name) != Some(*value))
        .map(|(name, _)| name.as_str())
        .collect();
    let mut names = wanted.map(|(name, _)| name);
    names.sort_unstable();
    assert_eq!(changed, names, "{:?}", names.map(|name| after.get(name)));
    assert_eq!(after["db.transaction.timeout"], "33s");
    assert_eq!(after["browser.post_connect_cmd"], HOSTILE);

    // Why any change is a restart.
    let dynamic = graph
        .run(query("CALL dbms.setConfigValue('db.transaction.timeout', '44s')"))
        .await
        .unwrap_err()
        .to_string();
    println!("{dynamic}");
    assert_eq!(shown(&graph).await["db.transaction.timeout"], "33s");
}

#[tokio::test]
async fn an_unknown_name_keeps_the_server_from_starting_and_is_told() {
    let Some(mut server) = Neo4jServer::start_set(&variables(&[("db.no_such.setting", "1")])) else {
        return;
    };
    eventually("the server has ended", Duration::from_secs(120), || {
        let ended = !server.process.runs();
        async move { ended }
    })
    .await;
    let log = server.log();
    assert!(log.contains("db.no_such.setting"), "{log}");
    // The condition shows the last lines.
    let last: Vec<&str> = log.trim().lines().rev().take(10).collect();
    println!("{}", last.join("\n"));
}
