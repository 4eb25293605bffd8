//! Text that is a statement, a name, a pattern or an option elsewhere, in everything of which statements are composed: names that others
//! gave things on the servers, key words as names, passwords, session settings, parameters, claims, key patterns. Against real servers:
//! what was asked for takes place, and nothing else.

use std::{collections::BTreeMap, time::Duration};

use amas_operator::{
    api::{
        names::{GraphName, ItemName, KeyPattern, KeyPrefix, SqlName},
        sensitive::Sensitive,
    },
    stores::{
        claim::Claim,
        endpoint::Endpoint,
        keeper::{Duty, Progress, Store},
        neo4j::{
            self, ConstraintDuty, ConstraintKind, GraphDuty, IndexDuty, IndexKind, Neo4j, Neo4jDuty, Neo4jFacts,
            Neo4jWorker,
        },
        postgres::{Access, Configuration, PostgresDuty, RoleDuty, Twin},
        redis::{CacheDuty, Expires, Mode, Redis, RedisDuty, RedisFacts, RedisWorker, Rule},
    },
};
use neo4rs::{ConfigBuilder, Graph, query};
use redis::Commands;
use sqlx::{PgConnection, Row};

use super::kept::{Kept, duty, login_to, role};
use crate::support::{
    neo4j::{Neo4jServer, base, worked},
    postmaster::Postmaster,
    process::eventually,
    redis::{Program, RedisServer},
};

/// Names that somebody else may have given something.
const NAMES: [&str; 10] = [
    "x\"; DROP TABLE public.canary; --",
    "x'; DROP TABLE public.canary; --",
    "a\nb; DROP TABLE public.canary",
    "$$; DROP TABLE public.canary; $$",
    "back\\slash\\'",
    "%I %s {} ${x} `id` $(id)",
    "* ? [a-z]",
    "ünïcödé ☃ \u{202e}",
    "SELECT",
    "/* comment",
];
/// Passwords that users bring.
const PASSWORDS: [&str; 4] = [
    "p'; DROP ROLE \"user\"; --",
    "$$\\'\\\" `id` $(id) %s",
    "nopass >x #y resetpass ~* +@all",
    "pässwörd ☃ * ? [a-z]",
];

/// Whose server it is, with names that Kubernetes would not let through.
fn claim() -> Claim {
    Claim {
        cluster_id: "c'\"; --".into(),
        namespace: "a\\'b$$".into(),
        name: "x'; DROP TABLE public.canary; --\n`n`".into(),
        uid: "u\"}".into(),
    }
}

fn sql(name: &str) -> SqlName {
    SqlName::parse(name).unwrap()
}

async fn execute(connection: &mut PgConnection, statement: String) {
    let done = sqlx::raw_sql(sqlx::AssertSqlSafe(statement.clone()))
        .execute(connection)
        .await;
    done.unwrap_or_else(|error| panic!("{statement}: {error}"));
}

/// Every relation, function, type, schema and role that there is, with what the roles may do.
async fn catalog(connection: &mut PgConnection) -> String {
    const QUERY: &str = "SELECT string_agg(x, chr(10) ORDER BY x COLLATE \"C\") FROM (
        SELECT 'relation ' || n.nspname || ' ' || c.relname AS x FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname !~ '^pg_(toast|temp)'
        UNION ALL SELECT 'function ' || p.proname FROM pg_proc p
        UNION ALL SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname !~ '^pg_(toast_)?temp'
        UNION ALL SELECT concat_ws(' ', 'role', rolname, rolsuper, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication, rolbypassrls) FROM pg_roles
        UNION ALL SELECT 'database ' || datname FROM pg_database) AS everything";
    let row = sqlx::raw_sql(QUERY).fetch_one(connection).await.unwrap();
    row.get::<String, _>(0)
}

/// A duty in which key words are names, and everything that is text is hostile.
fn hostile(server: &Postmaster) -> PostgresDuty {
    let plain = duty(server);
    let roles = [("user", Access::ReadWrite, 0), ("table", Access::ReadOnly, 1)];
    let one = |(name, access, password): (&str, Access, usize)| {
        let mut duty: RoleDuty = role(name, PASSWORDS[password], access, 5);
        duty.session.application_name = Some("x'; DROP TABLE public.canary; -- \\ \" $$ %I".into());
        duty.session.search_path = vec![sql("public"), sql("select"), sql("all")];
        duty.twin = Twin {
            active: false,
            other: Some(Sensitive::new(PASSWORDS[2])),
        };
        duty
    };
    PostgresDuty {
        owner_login: Endpoint {
            user: "order".into(),
            password: Sensitive::new(PASSWORDS[3]),
            ..plain.owner_login.clone()
        },
        owner: sql("order"),
        database: sql("select"),
        roles: roles.map(one).into(),
        extensions: Vec::new(),
        claim: claim(),
        ..plain
    }
}

#[tokio::test]
async fn postgres_does_what_was_asked_for_and_nothing_else() {
    let server = Postmaster::start().await;
    let duty = hostile(&server);
    let mut kept = Kept::settled(&duty).await;
    let mut owner = login_to(&server, "order", PASSWORDS[3], "select").await.unwrap();
    execute(&mut owner, "CREATE TABLE public.canary AS SELECT 1 AS v".into()).await;
    let quote = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    for name in NAMES.map(quote) {
        let text = format!(
            "CREATE SCHEMA {name}; CREATE TYPE {name}.kind AS ENUM ('a');
             CREATE TABLE {name}.{name} (id bigserial PRIMARY KEY, {name} text, secret text);
             COMMENT ON COLUMN {name}.{name}.{name} IS 'amas:secret';
             CREATE VIEW {name}.v AS SELECT id FROM {name}.{name};
             CREATE FUNCTION {name}.{name}(a int) RETURNS int LANGUAGE sql AS 'SELECT 1'"
        );
        execute(&mut owner, text).await;
    }
    let before = catalog(&mut owner).await;
    let again = PostgresDuty {
        look_again: "x'; DROP TABLE public.canary; --".into(),
        configuration: Some(Configuration {
            parameters: BTreeMap::from([
                (
                    "log_line_prefix".into(),
                    "x'; DROP TABLE public.canary; -- \\ $$".into(),
                ),
                ("search_path".into(), "x'; DROP TABLE public.canary; --".into()),
                ("amas_test.\"; DROP TABLE public.canary; --".into(), "1".into()),
            ]),
            ..Configuration::default()
        }),
        ..duty.clone()
    };
    let case = again.configuration.as_ref().unwrap().case();
    kept.keepers.assign_base(&kept.key, again.clone());
    kept.until(15., |now| {
        let judged = now.facts.configuration.as_ref().and_then(|facts| facts.judged.clone());
        judged.as_ref() == Some(&case)
    })
    .await;
    kept.settle(&duty).await;

    assert_eq!(catalog(&mut owner).await, before);
    let mut app = login_to(&server, "user", PASSWORDS[0], "select").await.unwrap();
    login_to(&server, "user_twin", PASSWORDS[2], "select").await.unwrap();
    let mut report = login_to(&server, "table", PASSWORDS[1], "select").await.unwrap();
    for name in NAMES.map(quote) {
        execute(
            &mut app,
            format!("INSERT INTO {name}.{name} ({name}) VALUES ('a'); SELECT * FROM {name}.v"),
        )
        .await;
        execute(&mut report, format!("SELECT id, secret FROM {name}.{name}")).await;
        let secret = sqlx::raw_sql(sqlx::AssertSqlSafe(format!("SELECT {name} FROM {name}.{name}")));
        assert!(secret.execute(&mut report).await.is_err(), "{name} is secret");
    }
    let shown =
        sqlx::raw_sql("SELECT concat(current_setting('application_name'), '|', current_setting('search_path'))");
    let row = shown.fetch_one(&mut app).await.unwrap();
    assert_eq!(
        row.get::<String, _>(0),
        "x'; DROP TABLE public.canary; -- \\ \" $$ %I|public, \"select\", \"all\""
    );
    assert!(login_to(&server, "user", PASSWORDS[1], "select").await.is_err());
}

async fn settle(worker: &mut RedisWorker, duty: &Duty<Redis>) -> RedisFacts {
    let mut facts = RedisFacts::default();
    while let Progress::More { pause } = Redis::work(worker, duty, &mut facts).await.unwrap() {
        tokio::time::sleep(pause).await;
    }
    facts
}

async fn redis_gives_a_ttl_to_what_matches_and_to_nothing_else(program: Program) {
    let server = RedisServer::start(program, "").await;
    let mut client = server.client();
    // What each pattern stands for and what it might be taken for. A pattern is relative to the prefix.
    let patterns: [(&str, &[&str], &[&str]); 6] = [
        ("\\*", &["*"], &["a", "**"]),
        ("\"a'b;FLUSHALL", &["\"a'b;FLUSHALL"], &["a", "FLUSHALL"]),
        ("[x", &["x"], &["[x", "[", "y"]),
        ("q\\?\\[", &["q?["], &["qa[", "q?"]),
        ("$$`id`$(id)", &["$$`id`$(id)"], &["$$"]),
        ("%s{}\\\\", &["%s{}\\"], &["%s{}"]),
    ];
    let others: [&[u8]; 6] = [
        b"amasx:x",
        b"ama*:x",
        b"x",
        b"amas:k\nDEL amas:kept\r\n",
        b"amas:\x00\xff\xfe",
        "amas:ü ☃".as_bytes(),
    ];
    for (_, right, wrong) in patterns {
        for key in right.iter().chain(wrong) {
            client.set::<_, _, ()>(format!("amas:{key}"), "v").unwrap();
        }
    }
    for key in others {
        client.set::<_, _, ()>(key, "v").unwrap();
    }
    let keys: i64 = redis::cmd("DBSIZE").query(&mut client).unwrap();
    let rules = patterns.iter().enumerate().map(|(number, (pattern, ..))| Rule {
        name: ItemName::parse(format!("r{number}")).unwrap(),
        pattern: KeyPattern::parse(*pattern).unwrap(),
        expires: Expires::After(Duration::from_secs(300)),
        mode: Mode::Enforce,
    });
    let policy = CacheDuty {
        generation: 1,
        prefix: Some(KeyPrefix::parse("amas").unwrap()),
        eviction: None,
        default_ttl: None,
        rules: rules.collect(),
        sweep_interval: CacheDuty::SWEEP_INTERVAL,
    };
    let second = format!("{}\n>x nopass", PASSWORDS[2]);
    let duty = Duty {
        base: RedisDuty {
            claim: claim(),
            second: Some(Sensitive::new(second.clone())),
            ..super::redis::base(server.endpoint())
        },
        policies: BTreeMap::from([("amas".into(), policy)]),
    };
    let facts = settle(&mut RedisWorker::default(), &duty).await;
    assert_eq!((facts.claim_conflict, facts.error), (None, None));
    let ttl = |client: &mut redis::Connection, key: &[u8]| -> i64 { redis::cmd("TTL").arg(key).query(client).unwrap() };
    for (pattern, right, wrong) in patterns {
        for key in right {
            assert!(
                ttl(&mut client, format!("amas:{key}").as_bytes()) > 0,
                "{pattern} {key}"
            );
        }
        for key in wrong {
            let meant = patterns.iter().any(|(_, right, _)| right.contains(key));
            assert!(
                meant || ttl(&mut client, format!("amas:{key}").as_bytes()) == -1,
                "{pattern} {key}"
            );
        }
    }
    for key in others {
        assert_eq!(ttl(&mut client, key), -1, "{key:?}");
    }
    let after: i64 = redis::cmd("DBSIZE").query(&mut client).unwrap();
    assert_eq!(after, keys + 1, "the claim");
    // The second password is one password, and no rule of the ACL.
    let auth = |password: &str| -> Result<(), redis::RedisError> {
        redis::cmd("AUTH")
            .arg("default")
            .arg(password)
            .query(&mut server.client())
    };
    auth(&second).unwrap();
    for wrong in ["x", "", "nopass"] {
        assert!(auth(wrong).is_err(), "{wrong:?}");
    }
    let users: Vec<String> = redis::cmd("ACL").arg("USERS").query(&mut client).unwrap();
    assert_eq!(users, ["default"]);
    // Found again by its own claim.
    let facts = settle(&mut RedisWorker::default(), &duty).await;
    assert_eq!(facts.claim_conflict, None);
}

#[tokio::test]
async fn redis_does_what_was_asked_for_and_nothing_else() {
    redis_gives_a_ttl_to_what_matches_and_to_nothing_else(Program::Redis).await;
}

#[tokio::test]
async fn valkey_does_what_was_asked_for_and_nothing_else() {
    redis_gives_a_ttl_to_what_matches_and_to_nothing_else(Program::Valkey).await;
}

/// Works as a keeper would: a password that was just replaced ends the connections that were opened with it.
async fn graph_settled(duty: &Duty<Neo4j>) -> Neo4jFacts {
    let (mut worker, mut facts) = (Neo4jWorker::default(), Neo4jFacts::default());
    worked(&mut worker, duty, &mut facts, |_| true).await;
    facts
}

async fn rows(graph: &Graph, text: &str) -> Vec<String> {
    let mut rows = Box::pin(graph.execute(query(text))).await.unwrap();
    let mut all = Vec::new();
    while let Some(row) = Box::pin(rows.next()).await.unwrap() {
        all.push(row.get::<String>("n").unwrap());
    }
    all.sort();
    all
}

fn application(server: &Neo4jServer, password: &str) -> Graph {
    let config = ConfigBuilder::default()
        .uri(format!("127.0.0.1:{}", server.port))
        .user("neo4j")
        .password(password)
        .build()
        .unwrap();
    Graph::connect(config).unwrap()
}

#[tokio::test]
async fn neo4j_does_what_was_asked_for_and_nothing_else() {
    let Some(server) = Neo4jServer::start().await else {
        return;
    };
    let graph = application(&server, crate::support::neo4j::PASSWORD);
    let names = NAMES
        .map(|name| name.replace('`', "``"))
        .into_iter()
        .chain(["a``) DETACH DELETE (n) //".into()]);
    for name in names {
        let create = format!("CREATE (n:`{name}` {{`{name}`: 1}})");
        Box::pin(graph.run(query(&create))).await.unwrap();
        let index = format!("CREATE INDEX `i {name}` FOR (n:`{name}`) ON (n.`{name}`)");
        Box::pin(graph.run(query(&index))).await.unwrap();
    }
    const NODES: &str = "MATCH (n) WHERE NOT n:__AmasClaim RETURN labels(n)[0] AS n";
    const ITEMS: &str = "SHOW INDEXES YIELD name RETURN name AS n";
    let (nodes, items) = (rows(&graph, NODES).await, rows(&graph, ITEMS).await);

    let word = |text: &str| GraphName::parse(text).unwrap();
    let schema = GraphDuty {
        generation: 1,
        constraints: vec![ConstraintDuty {
            name: word("MATCH"),
            label: word("DELETE"),
            properties: vec![word("NULL"), word("n")],
            kind: ConstraintKind::Unique,
        }],
        indexes: vec![IndexDuty {
            name: word("INDEX"),
            label: word("FOR"),
            properties: vec![word("ON")],
            kind: IndexKind::Range,
        }],
    };
    let mut wanted = Duty::<Neo4j> {
        base: Neo4jDuty {
            claim: Claim {
                name: "x' }) DETACH DELETE n //`".into(),
                ..claim()
            },
            next: Some(Sensitive::new(PASSWORDS[1])),
            others: vec![neo4j::User {
                first: false,
                name: "neo4j_twin".into(),
                password: Some(Sensitive::new(PASSWORDS[0])),
            }],
            ..base(server.endpoint())
        },
        policies: BTreeMap::from([("amas".into(), schema)]),
    };
    let mut facts = graph_settled(&wanted).await;
    assert_eq!((&facts.error, &facts.claim_conflict), (&None, &None), "{facts:?}");
    wanted.base.endpoint.password = Sensitive::new(PASSWORDS[1]);
    wanted.base.next = None;
    facts = graph_settled(&wanted).await;
    let graph = application(&server, PASSWORDS[1]);
    // After three refused logins the server takes no password of a user for five seconds.
    eventually("the new password lets in", Duration::from_secs(30), || async {
        Box::pin(graph.run(query("RETURN 1"))).await.is_ok()
    })
    .await;
    assert_eq!(rows(&graph, NODES).await, nodes);
    let mut expected = items;
    expected.extend(["MATCH".into(), "INDEX".into()]);
    expected.sort();
    assert_eq!(rows(&graph, ITEMS).await, expected);
    assert_eq!(
        rows(&graph, "SHOW USERS YIELD user RETURN user AS n").await,
        ["neo4j", "neo4j_twin"]
    );
    assert_eq!(facts.claim_conflict, None);
}
