//! Connections to a Redis server: how to open one, which lane its errors take, what INFO says.

use std::{collections::BTreeMap, time::Duration};

use redis::{
    AsyncConnectionConfig, ErrorKind, ProtocolVersion, RedisConnectionInfo, RedisError, ServerErrorKind,
    aio::MultiplexedConnection,
};

use super::programs::{self, Program};
use crate::{
    api::redis::RedisEngine,
    stores::{
        endpoint::{Endpoint, StoreError},
        tls,
    },
};

/// An open, logged-in connection.
pub type Connection = MultiplexedConnection;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens a connection to database 0; `extra` adds to its configuration.
pub async fn connect(
    endpoint: &Endpoint,
    extra: impl FnOnce(AsyncConnectionConfig) -> AsyncConnectionConfig,
) -> Result<Connection, StoreError> {
    let login = RedisConnectionInfo::default()
        .set_username(&endpoint.user)
        .set_password(endpoint.password.reveal())
        .set_protocol(ProtocolVersion::RESP3);
    let config = extra(AsyncConnectionConfig::new().set_response_timeout(Some(REPLY_TIMEOUT)));
    // The stream is our own, so that TLS is the same towards every store.
    let opening = async {
        let stream = tls::connect(endpoint).await?;
        let (connection, driver) = Connection::new_with_config(&login, stream, config)
            .await
            .map_err(lane)?;
        // Ends with the last clone of the connection.
        tokio::spawn(driver);
        Ok(connection)
    };
    let late = || {
        let seconds = CONNECT_TIMEOUT.as_secs();
        Err(StoreError::Unreachable(format!("no connection within {seconds} s")))
    };
    tokio::time::timeout(CONNECT_TIMEOUT, opening)
        .await
        .unwrap_or_else(|_| late())
}

/// Whether a command is taken away from us: by ACL, by renaming it, by a word of the service's own, or because the server is too old for it.
pub fn refuses(error: &RedisError) -> bool {
    let text = error.to_string().to_ascii_lowercase();
    let words = [
        "noperm",
        "unknown command",
        "unknown subcommand",
        "not allowed",
        "disabled",
    ];
    error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm) || words.iter().any(|word| text.contains(word))
}

/// What the server says of itself; where INFO is refused, as little as it says at login, and that it was refused.
pub async fn info(connection: &mut Connection, section: Option<&str>) -> Result<(Info, bool), StoreError> {
    let told: Result<String, RedisError> = redis::cmd("INFO").arg(section).query_async(connection).await;
    match told {
        Ok(text) => Ok((Info::parse(&text), false)),
        Err(error) if refuses(&error) => {
            let hello: BTreeMap<String, redis::Value> =
                redis::cmd("HELLO").query_async(connection).await.map_err(lane)?;
            Ok((Info::of_hello(&hello), true))
        }
        Err(error) => Err(lane(error)),
    }
}

/// Which lane an error of the client library takes.
pub fn lane(error: RedisError) -> StoreError {
    let text = error.to_string();
    match (error.kind(), error.code()) {
        (ErrorKind::AuthenticationFailed, _) | (_, Some("WRONGPASS" | "NOAUTH")) => StoreError::LoginRefused(text),
        (ErrorKind::Io, _) => StoreError::Unreachable(text),
        // These pass: a server that loads its data, fails over, or is stuck in a script.
        (
            ErrorKind::Server(ServerErrorKind::BusyLoading | ServerErrorKind::MasterDown | ServerErrorKind::TryAgain),
            _,
        )
        | (_, Some("BUSY")) => StoreError::Unreachable(text),
        _ => StoreError::Rejected(text),
    }
}

/// The lines of an INFO answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Info(BTreeMap<String, String>);

impl Info {
    pub fn parse(text: &str) -> Self {
        let fields = text.lines().filter_map(|line| line.split_once(':'));
        Self(
            fields
                .map(|(name, value)| (name.to_owned(), value.trim_end().to_owned()))
                .collect(),
        )
    }

    fn of_hello(hello: &BTreeMap<String, redis::Value>) -> Self {
        let text = |key: &str| -> String {
            let value = hello.get(key).map(redis::from_redis_value_ref);
            value.and_then(Result::ok).unwrap_or_default()
        };
        let (server, version) = (text("server"), text("version"));
        let field = format!("{server}_version");
        Self([("server_name".to_owned(), server), (field, version)].into())
    }

    /// A field's text, empty when the server does not tell.
    pub fn text(&self, field: &str) -> &str {
        self.0.get(field).map_or("", String::as_str)
    }

    /// A field's number, absent when the server does not tell.
    pub fn number(&self, field: &str) -> Option<u64> {
        self.text(field).parse().ok()
    }

    /// Which program this is.
    fn program(&self) -> &'static Program {
        programs::named(self.text("server_name"))
    }

    pub fn engine(&self) -> RedisEngine {
        self.program().engine
    }

    /// The program's own version.
    pub fn version(&self) -> String {
        self.text(self.program().version_field).to_owned()
    }

    /// When the server process started. Both fields come from the same cached clock of the server, so every
    /// answer of one process gives the same second.
    pub fn started_at(&self) -> Option<jiff::Timestamp> {
        let now = self.number("server_time_usec")? / 1_000_000;
        let start = now.checked_sub(self.number("uptime_in_seconds")?)?;
        jiff::Timestamp::from_second(start.try_into().ok()?).ok()
    }

    /// Number of keys by database.
    pub fn keys(&self) -> BTreeMap<u32, u64> {
        let count = |value: &str| {
            value
                .split(',')
                .find_map(|part| part.strip_prefix("keys=")?.parse().ok())
        };
        let databases = self.0.iter().filter_map(|(name, value)| {
            let database = name.strip_prefix("db")?.parse().ok()?;
            Some((database, count(value)?))
        });
        databases.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_info() {
        let info = Info::parse(
            "# Server\r\nredis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.0.1\r\nserver_time_usec:1700000010000001\r\n\
             uptime_in_seconds:10\r\n# Keyspace\r\ndb0:keys=12,expires=3,avg_ttl=0\r\ndb3:keys=1,expires=0\r\n",
        );
        assert_eq!((info.engine(), info.version().as_str()), (RedisEngine::Valkey, "8.0.1"));
        assert_eq!(info.started_at(), jiff::Timestamp::from_second(1_700_000_000).ok());
        assert_eq!(info.keys(), BTreeMap::from([(0, 12), (3, 1)]));
        assert_eq!(info.text("absent"), "");
        assert_eq!(Info::parse("redis_version:7.0.15\r\n").version(), "7.0.15");
        assert_eq!(Info::parse("").started_at(), None);
    }

    #[test]
    fn sorts_errors_into_lanes() {
        let server = |code: &str| redis::make_extension_error(code.into(), Some("detail".into()));
        assert!(matches!(lane(server("WRONGPASS")), StoreError::LoginRefused(_)));
        assert!(matches!(lane(server("BUSY")), StoreError::Unreachable(_)));
        assert!(matches!(lane(server("MISCONF")), StoreError::Rejected(_)));
        let loading = RedisError::from((ErrorKind::Server(ServerErrorKind::BusyLoading), "loading"));
        assert!(matches!(lane(loading), StoreError::Unreachable(_)));
        let io = RedisError::from(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
        assert!(matches!(lane(io), StoreError::Unreachable(_)));
    }
}
