//! Secrets that people bring for servers that are not ours, and servers that are not who they should be: each mistake is told in words on the object,
//! nothing of a value is told anywhere, nothing is done on the server, and the repaired Secret is taken up.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Map, Value, json};

use crate::{
    deletion::reason,
    lifecycle::database,
    support::{
        kubernetes::{Kubernetes, Namespace, condition_of},
        neo4j::{self, Neo4jServer},
        operator::Operator,
        pki::{Authority, Years},
        postmaster::Postmaster,
        redis::{PASSWORD, Program, RedisServer},
    },
};

/// In every value that must not be shown.
const CANARY: &str = "hunter22";
/// Bytes that are no text.
const BINARY: &[u8] = &[0xff, 0xfe, 0x00, 0x01, 0x80];

type Entries<'a> = Vec<(&'a str, &'a [u8])>;

/// What is in the Secret, and what is said then: the reason, and words of the message.
struct Mistake<'a>(Entries<'a>, &'a str, &'a str);

const UNUSABLE: &str = "CredentialsMissing";
const UNTRUSTED: &str = "TlsFailed";
const REFUSED: &str = "LoginRefused";

fn key<'a>(name: &'a str, value: &'a (impl AsRef<[u8]> + ?Sized)) -> (&'a str, &'a [u8]) {
    (name, value.as_ref())
}

fn trusting<'a>(uri: &'a [u8], ca: &'a [u8]) -> Entries<'a> {
    vec![("uri", uri), ("ca.crt", ca)]
}

/// Another authority; a name that the certificate has not; and, where both are right, a wrong password. The uris are those of the three.
fn untrusted<'a>([here, named, wrong]: [&'a [u8]; 3], ca: &'a str, other: &'a str) -> Vec<Mistake<'a>> {
    let ca = ca.as_bytes();
    vec![
        Mistake(trusting(here, other.as_bytes()), UNTRUSTED, "unknown authority"),
        Mistake(trusting(named, ca), UNTRUSTED, "host name localhost is not among"),
        Mistake(trusting(wrong, ca), REFUSED, "refuses the login in the Secret"),
    ]
}

fn showing<'a>(trusting: Entries<'a>, certificate: &'a str, private: &'a str) -> Entries<'a> {
    [trusting, vec![key("tls.crt", certificate), key("tls.key", private)]].concat()
}

struct Scene {
    ns: Namespace,
    operator: Operator,
    turn: u32,
}

impl Scene {
    /// An object on an external server, whose Secret is `theirs`.
    async fn open(store: &str, external: Value, more: Value) -> Self {
        let api = Kubernetes::shared().await;
        let ns = api.namespace("brought").await;
        let operator = ns.operator(&[("AMAS_LOG", "debug")]).await;
        let mut block = more;
        block["external"] = external;
        block["external"]["secretRef"] = json!({"name": "theirs"});
        ns.apply(database("a", json!({store: block}))).await;
        Self { ns, operator, turn: 0 }
    }

    /// Puts this into the Secret, nothing else, and has it read.
    async fn bring(&mut self, entries: &Entries<'_>) {
        let data: Map<String, Value> = entries
            .iter()
            .map(|(key, value)| ((*key).to_owned(), json!(BASE64_STANDARD.encode(value))))
            .collect();
        self.ns
            .apply(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "theirs"}, "data": data}))
            .await;
        self.turn += 1;
        self.ns
            .annotate("a", "amas.dev/reread-secrets", &self.turn.to_string())
            .await;
    }

    async fn each_is_told(&mut self, mistakes: Vec<Mistake<'_>>) {
        for Mistake(entries, wanted, words) in mistakes {
            self.bring(&entries).await;
            let said = |object: &Value| {
                let message = condition_of(object, "Ready").map(|ready| ready["message"].to_string());
                reason(object) == wanted && message.is_some_and(|message| message.contains(words))
            };
            let object = self
                .ns
                .wait("AmasDatabase", "a", &format!("{wanted}: {words}"), said)
                .await;
            println!("{wanted}: {}", condition_of(&object, "Ready").unwrap()["message"]);
        }
    }

    async fn right(&mut self, entries: Entries<'_>) {
        self.bring(&entries).await;
        self.ns.wait_condition("AmasDatabase", "a", "Ready", "True").await;
    }

    /// Nothing of what was brought is shown.
    async fn end(mut self) {
        self.operator.kill();
        let mut shown = vec![self.operator.log()];
        for kind in ["AmasDatabase", "Event"] {
            shown.extend(self.ns.list(kind).await.iter().map(Value::to_string));
        }
        let shown = shown.join("\n");
        assert!(shown.len() > 1000 && !shown.contains(CANARY), "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_the_secret_of_a_redis_or_its_certificates_is_told() {
    let (ours, other) = (Authority::new(), Authority::new());
    let server =
        RedisServer::start_verified(Program::Redis, &ours, &ours.issue("cache", "IP:127.0.0.1", Years::NOW)).await;
    let expired =
        RedisServer::start_verified(Program::Redis, &ours, &ours.issue("old", "IP:127.0.0.1", Years::PAST)).await;
    let client = ours.issue("operator", "DNS:operator", Years::NOW);
    let stranger = ours.issue("stranger", "DNS:stranger", Years::NOW);
    let port = |server: &RedisServer| server.tls_port.unwrap();
    let uri = |host: &str, port: u16, password: &str| format!("rediss://default:{password}@{host}:{port}").into_bytes();
    let right = uri("127.0.0.1", port(&server), &PASSWORD.replace(' ', "%20"));
    let (late, named) = (
        uri("127.0.0.1", port(&expired), CANARY),
        uri("localhost", port(&server), CANARY),
    );
    let wrong = uri("127.0.0.1", port(&server), CANARY);
    let (ca, others) = (ours.pem(), other.pem());
    let (shown, private) = (client.certificate.as_str(), client.key.as_str());
    let cut = &ca[..ca.len() / 2];
    let with = |uri, ca| showing(trusting(uri, ca), shown, private);

    let mut scene = Scene::open("redis", json!({}), json!({})).await;
    let words = "neither a key uri nor a key host that is text";
    scene
        .each_is_told(vec![
            Mistake(vec![], UNUSABLE, words),
            Mistake(vec![key("password", CANARY)], UNUSABLE, words),
            Mistake(vec![key("uri", BINARY)], UNUSABLE, words),
            Mistake(
                vec![key("uri", CANARY)],
                UNUSABLE,
                "the uri in Secret theirs cannot be read",
            ),
            Mistake(
                vec![key("uri", "postgresql://a:hunter22@h/d")],
                UNUSABLE,
                "must begin with redis://",
            ),
            Mistake(
                vec![key("uri", "redis://a:hunter22%zz@h")],
                UNUSABLE,
                "bad percent escape",
            ),
            Mistake(
                vec![key("host", "h"), key("port", CANARY)],
                UNUSABLE,
                "is no number from 1 to 65535",
            ),
            Mistake(
                vec![key("uri", &right), key("directUri", &right)],
                UNUSABLE,
                "behind a pooler only",
            ),
            Mistake(
                with(&right, CANARY.as_bytes()),
                UNUSABLE,
                "ca.crt holds no certificate in PEM form",
            ),
            Mistake(with(&right, cut.as_bytes()), UNUSABLE, "ca.crt "),
            Mistake(
                with(&right, BINARY),
                UNUSABLE,
                "ca.crt holds no certificate in PEM form",
            ),
            Mistake(
                [trusting(&right, ca.as_bytes()), vec![key("tls.crt", shown)]].concat(),
                UNUSABLE,
                "no tls.key",
            ),
            Mistake(
                showing(trusting(&right, ca.as_bytes()), shown, CANARY),
                UNUSABLE,
                "tls.key holds no private key",
            ),
            Mistake(
                showing(trusting(&right, ca.as_bytes()), shown, &stranger.key),
                UNUSABLE,
                "do not belong together",
            ),
            Mistake(with(&right, others.as_bytes()), UNTRUSTED, "unknown authority"),
            Mistake(with(&late, ca.as_bytes()), UNTRUSTED, "expired on 2020-01-01"),
            Mistake(
                with(&named, ca.as_bytes()),
                UNTRUSTED,
                "host name localhost is not among",
            ),
            Mistake(trusting(&right, ca.as_bytes()), UNTRUSTED, "client certificate"),
            Mistake(with(&wrong, ca.as_bytes()), REFUSED, "refuses the login in the Secret"),
        ])
        .await;
    let mut asked = server.client();
    let keys: u64 = ::redis::cmd("DBSIZE").query(&mut asked).unwrap();
    assert_eq!(keys, 0, "nothing was written");
    scene.right(with(&right, ca.as_bytes())).await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_the_secret_of_a_postgresql_is_told() {
    let server = Postmaster::start().await;
    let uri = |password: &str, database: &str| {
        format!("postgresql://postgres:{password}@127.0.0.1:{}/{database}", server.port).into_bytes()
    };
    let (right, wrong) = (uri(&server.password, "postgres"), uri(CANARY, "postgres"));
    let (here, there) = (uri(CANARY, "here"), uri(CANARY, "there"));
    let roles = json!([{"name": "app", "access": "ReadOnly"}]);
    let sql = json!({"database": "made", "roles": roles});
    let mut scene = Scene::open("postgres", json!({"tls": {"mode": "Disable"}}), sql).await;
    let words = "neither a key uri nor a key host that is text";
    scene
        .each_is_told(vec![
            Mistake(vec![], UNUSABLE, words),
            Mistake(vec![key("uri", BINARY)], UNUSABLE, words),
            Mistake(
                vec![key("uri", "redis://default:hunter22@h")],
                UNUSABLE,
                "must begin with postgresql://",
            ),
            Mistake(
                vec![key("uri", &here), key("directUri", &there)],
                UNUSABLE,
                "name different databases",
            ),
            Mistake(vec![key("uri", &wrong)], REFUSED, "refuses the login in the Secret"),
        ])
        .await;
    assert!(!server.log().contains("CREATE "), "nothing was made");
    scene.right(vec![key("uri", &right)]).await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_login_of_another_database_changes_nothing_in_either() {
    let server = Postmaster::start().await;
    let port = server.port;
    let uri = |user: &str, password: &str, database: &str| {
        format!("postgresql://{user}:{password}@127.0.0.1:{port}/{database}").into_bytes()
    };
    let admin = uri("postgres", &server.password, "postgres");
    let mut conn = connect(&admin).await;
    for owner in ["ours", "theirs"] {
        for sql in [
            format!("CREATE ROLE {owner} LOGIN PASSWORD '{CANARY}'"),
            format!("CREATE DATABASE {owner} OWNER {owner}"),
            format!("REVOKE CONNECT ON DATABASE {owner} FROM PUBLIC"),
        ] {
            sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
                .execute(&mut conn)
                .await
                .unwrap();
        }
    }
    let catalogs = async || {
        [
            catalog(&uri("postgres", &server.password, "ours")).await,
            catalog(&uri("postgres", &server.password, "theirs")).await,
        ]
    };
    let before = catalogs().await;
    let (others, elsewhere) = (uri("theirs", CANARY, "ours"), uri("theirs", CANARY, "theirs"));
    let right = uri("ours", CANARY, "ours");
    let external = json!({"tls": {"mode": "Disable"}, "privileges": "Owner"});
    let sql = json!({"database": "ours", "owner": "ours"});
    let mut scene = Scene::open("postgres", external, sql).await;
    scene
        .each_is_told(vec![
            Mistake(
                vec![key("uri", &others)],
                "InvalidSpec",
                "spec.postgres.owner: with external.privileges: Owner it must name the login in the Secret",
            ),
            Mistake(
                vec![key("uri", &elsewhere)],
                "InvalidSpec",
                "must lead to the database itself",
            ),
        ])
        .await;
    assert_eq!(catalogs().await, before, "nothing has changed");
    scene.right(vec![key("uri", &right)]).await;
    assert_eq!(catalogs().await[1], before[1], "nor has it now in the other");
    scene.end().await;
}

async fn connect(uri: &[u8]) -> sqlx::PgConnection {
    use sqlx::Connection;
    sqlx::PgConnection::connect(std::str::from_utf8(uri).unwrap())
        .await
        .unwrap()
}

/// Everything that a catalog has: roles, schemas, relations, rights and comments.
async fn catalog(uri: &[u8]) -> String {
    let query = "SELECT concat_ws(E'\\n', \
        (SELECT string_agg(r::text, ',' ORDER BY r.rolname) FROM pg_authid r), \
        (SELECT string_agg(d::text, ',' ORDER BY d.datname) FROM (SELECT datname, datdba, datacl FROM pg_database) d), \
        (SELECT string_agg(n::text, ',' ORDER BY n.oid) FROM pg_namespace n), \
        (SELECT string_agg(concat(c.oid, c.relname, c.relowner, c.relacl), ',' ORDER BY c.oid) FROM pg_class c \
         JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname !~ '^pg_'), \
        (SELECT string_agg(s::text, ',' ORDER BY s.objoid) FROM pg_shdescription s))";
    sqlx::query_scalar(query)
        .fetch_one(&mut connect(uri).await)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_the_certificate_of_a_postgresql_is_told() {
    let (ours, other) = (Authority::new(), Authority::new().pem());
    let issue = |name, years| ours.issue(name, "IP:127.0.0.1", years);
    let (late, own) = (issue("late", Years::PAST), issue("own", Years::NOW));
    let mut server = Postmaster::prepare();
    server.encrypt_as(&late.certificate, &late.key);
    server.launch();
    server.wait_until_ready().await;
    let (port, ca) = (server.port, ours.pem());
    let uri =
        |host: &str, password: &str| format!("postgresql://postgres:{password}@{host}:{port}/postgres").into_bytes();
    let (wrong, named) = (uri("127.0.0.1", CANARY), uri("localhost", CANARY));
    let right = uri("127.0.0.1", &server.password);
    let mut scene = Scene::open("postgres", json!({}), json!({"database": "made"})).await;
    let words = "expired on 2020-01-01";
    scene
        .each_is_told(vec![Mistake(trusting(&wrong, ca.as_bytes()), UNTRUSTED, words)])
        .await;
    server.kill();
    server.renew(&own.certificate, &own.key);
    server.launch();
    server.wait_until_ready().await;
    scene
        .each_is_told(untrusted([&wrong, &named, &wrong], &ca, &other))
        .await;
    assert!(!server.log().contains("CREATE "), "nothing was made");
    scene.right(trusting(&right, ca.as_bytes())).await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_the_secret_of_a_neo4j_or_its_certificate_is_told() {
    let Some(mut server) = Neo4jServer::start().await else {
        return;
    };
    let other = Authority::new().pem();
    let (ca, port) = (server.authority.pem(), server.port);
    let uri = |host: &str, password: &str| {
        let password = password.replace(' ', "%20");
        format!("bolt+s://neo4j:{password}@{host}:{port}").into_bytes()
    };
    let (right, wrong) = (uri("127.0.0.1", neo4j::PASSWORD), uri("127.0.0.1", CANARY));
    let named = uri("localhost", CANARY);
    let mut scene = Scene::open("neo4j", json!({}), json!({})).await;
    let mut mistakes = vec![
        Mistake(
            vec![key("uri", BINARY)],
            UNUSABLE,
            "neither a key uri nor a key host that is text",
        ),
        Mistake(
            vec![key("uri", "https://neo4j:hunter22@h")],
            UNUSABLE,
            "must begin with bolt://",
        ),
    ];
    mistakes.extend(untrusted([&right, &named, &wrong], &ca, &other));
    scene.each_is_told(mistakes).await;
    scene.right(trusting(&right, ca.as_bytes())).await;
    // Its time comes to an end.
    let late = server.authority.issue("late", "IP:127.0.0.1", Years::PAST);
    server.renew(&late.certificate, &late.key);
    server.restart().await;
    let words = "expired on 2020-01-01";
    scene
        .each_is_told(vec![Mistake(trusting(&right, ca.as_bytes()), UNTRUSTED, words)])
        .await;
    scene.end().await;
}
