//! Parameters of a managed Redis or Valkey: taken up by the running server, all or none, kept by the file for its next start, and never
//! more than what was asked for, whatever is in a value.

use std::collections::BTreeMap;

use amas_operator::{
    api::redis::ManagedRedis,
    stores::{
        keeper::{Duty, Store},
        redis::{ParameterFacts, Redis, RedisDuty, RedisFacts, RedisWorker, parameters, workload},
        workload::{Config, Family, Image, ImageSource},
    },
};
use serde_json::{Value, json};

use super::redis::base;
use crate::support::redis::{Program, RedisServer};

/// The file of a managed server with these parameters.
fn file(parameters: &Value) -> String {
    let spec: ManagedRedis =
        serde_json::from_value(json!({"storage": {"size": "1Gi"}, "parameters": parameters})).unwrap();
    let family = Family {
        namespace: "n".into(),
        database: "d".into(),
        uid: "u".into(),
        data_goes: false,
    };
    let image = Image {
        name: "i".into(),
        source: ImageSource::Table,
    };
    let Config::Files { files, .. } = workload::workload(&family, &spec, None, image).config else {
        panic!("files")
    };
    files["redis.conf"].clone()
}

/// A keeper's worker, asked again and again.
struct Asked<'a> {
    server: &'a RedisServer,
    worker: RedisWorker,
    facts: RedisFacts,
}

impl<'a> Asked<'a> {
    fn new(server: &'a RedisServer) -> Self {
        Self {
            server,
            worker: RedisWorker::default(),
            facts: RedisFacts::default(),
        }
    }

    async fn to(&mut self, parameters: &Value) -> Option<ParameterFacts> {
        let duty = Duty {
            base: RedisDuty {
                parameters: serde_json::from_value(parameters.clone()).unwrap(),
                ..base(self.server.endpoint())
            },
            policies: BTreeMap::new(),
        };
        Redis::work(&mut self.worker, &duty, &mut self.facts).await.unwrap();
        self.facts.parameters.clone()
    }
}

/// Everything that the server shows.
fn shown(server: &RedisServer) -> BTreeMap<String, String> {
    redis::cmd("CONFIG")
        .arg("GET")
        .arg("*")
        .query(&mut server.client())
        .unwrap()
}

/// How often parameters were set.
fn sets(server: &RedisServer) -> u64 {
    let text: String = redis::cmd("INFO")
        .arg("commandstats")
        .query(&mut server.client())
        .unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("cmdstat_config|set:calls="));
    line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
}

async fn taken_up_all_or_none(program: Program) {
    let server = RedisServer::start_from(program, &file(&json!({}))).await;
    let before = shown(&server);
    let mut asked = Asked::new(&server);
    assert_eq!(asked.to(&json!({})).await, None);
    assert_eq!(sets(&server), 0, "nothing is asked for");

    let wanted = json!({"hz": "20", "repl-backlog-size": "2mb", "client-output-buffer-limit": "pubsub 64mb 16mb 60"});
    assert_eq!(asked.to(&wanted).await.unwrap().refused, [] as [&str; 0]);
    let after = shown(&server);
    assert_eq!(
        (after["hz"].as_str(), after["repl-backlog-size"].as_str()),
        ("20", "2097152")
    );
    assert!(after["client-output-buffer-limit"].contains("pubsub 67108864 16777216 60"));
    let changed: Vec<&String> = after.keys().filter(|name| before[*name] != after[*name]).collect();
    assert_eq!(changed, ["client-output-buffer-limit", "hz", "repl-backlog-size"]);

    let set = sets(&server);
    asked.to(&wanted).await;
    assert_eq!(sets(&server), set, "what is in is not set again");
    redis::cmd("CONFIG")
        .arg("SET")
        .arg("hz")
        .arg("7")
        .exec(&mut server.client())
        .unwrap();
    asked.to(&wanted).await;
    assert_eq!(shown(&server)["hz"], "20", "put right again");

    for (wanted, word) in [
        (json!({"hz": "30", "maxclients": "many"}), "maxclients"),
        (json!({"hz": "30", "no-such": "1"}), "no-such"),
        (json!({"hz": "30", "loglevel": "loud"}), "loglevel"),
    ] {
        let facts = asked.to(&wanted).await.unwrap();
        assert!(facts.refused.join("").contains(word), "{facts:?}");
        assert_eq!(shown(&server)["hz"], "20", "{wanted}: all or none");
    }
}

async fn the_file_says_the_same_at_the_next_start(program: Program) {
    let wanted = json!({"hz": "20", "repl-backlog-size": "2mb", "databases": "3", "io-threads": "2",
        "client-output-buffer-limit": "pubsub 64mb 16mb 60", "notify-keyspace-events": ""});
    let server = RedisServer::start_from(program, &file(&wanted)).await;
    let mut asked = Asked::new(&server);
    assert_eq!(asked.to(&wanted).await.unwrap().refused, [] as [&str; 0]);
    let after = shown(&server);
    assert_eq!((after["databases"].as_str(), after["io-threads"].as_str()), ("3", "2"));
    assert_eq!(
        (after["hz"].as_str(), after["repl-backlog-size"].as_str()),
        ("20", "2097152")
    );
}

/// Whatever a value holds that validation lets through reaches the server as that value, in the file and by CONFIG SET, and nothing else changes.
async fn hostile_values_stay_values(program: Program) {
    const NAME: &str = "proc-title-template";
    for value in [
        "a\" \"b",
        "a\" requirepass \"x",
        "it's; CONFIG SET requirepass x",
        "back\\slash\\n requirepass x\\",
        "\\x0arequirepass x",
        "# no comment",
        "$$ `id` $(id) *?[a-z]",
        "Zoë ☃ \u{202e}",
        "'",
    ] {
        let wanted = json!({ NAME: value });
        assert_eq!(parameters::refuse(NAME, value), None);
        let plain = RedisServer::start_from(program, &file(&json!({}))).await;
        let before = shown(&plain);
        assert_eq!(
            Asked::new(&plain).to(&wanted).await.unwrap().refused,
            [] as [&str; 0],
            "{value:?}"
        );
        let from_file = RedisServer::start_from(program, &file(&wanted)).await;
        for after in [shown(&plain), shown(&from_file)] {
            assert_eq!(after[NAME], value);
            let own = ["port", "dir", "aclfile", "bind", NAME];
            let changed: Vec<&String> = after
                .keys()
                .filter(|name| !own.contains(&name.as_str()) && before.get(*name) != after.get(*name))
                .collect();
            assert!(changed.is_empty(), "{value:?}: {changed:?}");
        }
    }
}

/// What a running server does not take up is known, so that it comes with a start instead of being refused.
async fn what_only_a_start_takes_up_is_known(program: Program) {
    let server = RedisServer::start(program, "").await;
    let mut client = server.client();
    let (mut live, mut at_start) = (0, Vec::new());
    for (name, value) in shown(&server) {
        if parameters::refuse(&name, "").is_some() {
            continue;
        }
        // Its own value changes nothing.
        let set = redis::cmd("CONFIG").arg("SET").arg(&name).arg(&value).exec(&mut client);
        let immutable = set.is_err_and(|error| error.to_string().contains("immutable"));
        assert_eq!(parameters::is_read_at_start(&name), immutable, "{name}");
        if immutable {
            at_start.push(name);
        } else {
            live += 1;
        }
    }
    println!("{program:?}: {live} parameters live, at a start {at_start:?}");
    assert!(live > 50 && at_start.len() > 5);
}

macro_rules! on_both {
    ($($test:ident)*) => {
        mod on_redis {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::Program::Redis).await;
            })*
        }
        mod on_valkey {
            $(#[tokio::test]
            async fn $test() {
                super::$test(super::Program::Valkey).await;
            })*
        }
    };
}

on_both! {
    taken_up_all_or_none
    the_file_says_the_same_at_the_next_start
    hostile_values_stay_values
    what_only_a_start_takes_up_is_known
}
