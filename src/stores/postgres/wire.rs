//! As much of the PostgreSQL protocol as a sentinel needs: log in, send a simple query, and *read*.
//!
//! The pools and listeners of client libraries retry a refused connection behind our back and keep the socket to themselves, so that
//! an idle connection's end of file is noticed late. Work is done with sqlx; this client only watches.

use std::io;

use postgres_protocol::authentication::{
    md5_hash,
    sasl::{ChannelBinding, ScramSha256},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::connect::{APPLICATION_NAME, OPTIONS, PINNED_PATH};
use crate::{
    migrate::session::is_poolers,
    stores::{
        dial::dial,
        endpoint::{Endpoint, StoreError, Tls},
        tls::{self, Stream},
    },
};

/// Larger messages are not for us: somebody else answers at this port.
const LARGEST_MESSAGE: usize = 1 << 20;
const PROTOCOL_3_0: i32 = 196_608;
const SSL_REQUEST: i32 = 80_877_103;

/// What the server refused, with its SQLSTATE; or why it cannot be talked to (no SQLSTATE).
#[derive(Debug)]
pub struct WireError {
    pub sqlstate: Option<String>,
    pub text: String,
    /// No session came about, and waiting will not help.
    unfit: Option<StoreError>,
}

impl From<io::Error> for WireError {
    fn from(error: io::Error) -> Self {
        Self {
            sqlstate: None,
            text: error.to_string(),
            unfit: None,
        }
    }
}

/// Of a connection that could not be encrypted.
impl From<StoreError> for WireError {
    fn from(error: StoreError) -> Self {
        Self {
            sqlstate: None,
            text: error.to_string(),
            unfit: Some(error),
        }
    }
}

impl From<WireError> for StoreError {
    fn from(WireError { sqlstate, text, unfit }: WireError) -> Self {
        unfit.unwrap_or_else(|| super::connect::lane(sqlstate.as_deref(), text))
    }
}

/// One message of the server.
pub struct Message {
    pub tag: u8,
    pub body: Vec<u8>,
}

/// A logged-in connection; closed when dropped.
pub struct Wire {
    stream: Box<dyn Stream>,
    received: Vec<u8>,
    /// As the server writes it, e.g. `17.6 (Debian 17.6-1)`.
    pub server_version: String,
}

impl Wire {
    async fn open(endpoint: &Endpoint) -> Result<Self, WireError> {
        let tcp = dial(endpoint).await?;
        let stream = match endpoint.tls {
            Tls::Disable => Box::new(tcp),
            Tls::Encrypt(_) => encrypt(endpoint, tcp).await?,
        };
        Ok(Self {
            stream,
            received: Vec::new(),
            server_version: String::new(),
        })
    }

    /// Connects and logs in as an application would, with no setting of ours: through a pooler as well.
    pub async fn visit(endpoint: &Endpoint, database: &str) -> Result<Self, WireError> {
        let mut wire = Self::open(endpoint).await?;
        let parameters = [("user", endpoint.user.as_str()), ("database", database)];
        wire.stream.write_all(&startup(&parameters)).await?;
        wire.authenticate(endpoint).await?;
        wire.settle().await?;
        Ok(wire)
    }

    /// Connects and logs in.
    pub async fn login(endpoint: &Endpoint, database: &str) -> Result<Self, WireError> {
        let mut wire = Self::open(endpoint).await?;
        let parameters = [
            ("user", endpoint.user.as_str()),
            ("database", database),
            ("application_name", APPLICATION_NAME),
            ("client_encoding", "UTF8"),
            ("options", OPTIONS),
        ];
        wire.stream.write_all(&startup(&parameters)).await?;
        wire.begin(endpoint)
            .await
            .map_err(|error| match is_poolers(error.sqlstate.as_deref(), &error.text) {
                true => pooler(endpoint).into(),
                false => error,
            })?;
        Ok(wire)
    }

    async fn begin(&mut self, endpoint: &Endpoint) -> Result<(), WireError> {
        self.authenticate(endpoint).await?;
        self.settle().await?;
        // A server never drops what a session is started with. A pooler that shares its sessions does, if it does not refuse it.
        let path = self.query("SHOW search_path").await?;
        if path.first().map(String::as_str) == Some(PINNED_PATH) {
            return Ok(());
        }
        Err(pooler(endpoint).into())
    }

    /// A simple query; returns the first column of each row.
    pub async fn query(&mut self, sql: &str) -> Result<Vec<String>, WireError> {
        self.send(b'Q', &cstr(sql)).await?;
        self.settle().await
    }

    /// The next message. Cancel-safe. The server's last words before it hangs up are an error.
    pub async fn next(&mut self) -> Result<Message, WireError> {
        loop {
            if let Some(message) = self.parse()? {
                if message.tag == b'E' {
                    return Err(server_error(&message.body));
                }
                if message.tag == b'S'
                    && let Some(version) = message.body.strip_prefix(b"server_version\0")
                {
                    self.server_version = text(version);
                }
                return Ok(message);
            }
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection").into());
            }
        }
    }

    fn parse(&mut self) -> Result<Option<Message>, WireError> {
        let Some((&tag, rest)) = self.received.split_first() else {
            return Ok(None);
        };
        let Some(length) = rest.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes) as usize) else {
            return Ok(None);
        };
        if !(4..=LARGEST_MESSAGE).contains(&length) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a PostgreSQL server").into());
        }
        let Some(body) = rest.get(4..length) else {
            return Ok(None);
        };
        let message = Message {
            tag,
            body: body.to_vec(),
        };
        self.received.drain(..=length);
        Ok(Some(message))
    }

    /// Reads until the server is ready for a query; notifications in between are put back for the next reader.
    async fn settle(&mut self) -> Result<Vec<String>, WireError> {
        let mut first_columns = Vec::new();
        let mut notifications = Vec::new();
        loop {
            let message = self.next().await?;
            match message.tag {
                b'D' => first_columns.push(first_column(&message.body)),
                b'A' => notifications.push(message),
                b'Z' => break,
                _ => {}
            }
        }
        for message in notifications {
            self.received.splice(0..0, frame(Some(message.tag), &message.body));
        }
        Ok(first_columns)
    }

    async fn send(&mut self, tag: u8, body: &[u8]) -> Result<(), WireError> {
        Ok(self.stream.write_all(&frame(Some(tag), body)).await?)
    }

    async fn authenticate(&mut self, login: &Endpoint) -> Result<(), WireError> {
        let password = login.password.reveal();
        loop {
            let message = self.next().await?;
            let (b'R', Some((kind, data))) = (message.tag, message.body.split_first_chunk::<4>()) else {
                continue;
            };
            match (i32::from_be_bytes(*kind), data) {
                (0, _) => return Ok(()),
                (3, _) => self.send(b'p', &cstr(password)).await?,
                (5, &[a, b, c, d]) => {
                    let answer = md5_hash(login.user.as_bytes(), password.as_bytes(), [a, b, c, d]);
                    self.send(b'p', &cstr(&answer)).await?;
                }
                (10, _) => self.scram(password).await?,
                (kind, _) => return Err(unsupported(kind)),
            }
        }
    }

    async fn scram(&mut self, password: &str) -> Result<(), WireError> {
        let mut scram = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
        let first = scram.message();
        let length = i32::try_from(first.len()).map_err(io::Error::other)?.to_be_bytes();
        self.send(b'p', &[b"SCRAM-SHA-256\0".as_slice(), &length, first].concat())
            .await?;
        scram.update(&self.sasl(11).await?)?;
        self.send(b'p', scram.message()).await?;
        Ok(scram.finish(&self.sasl(12).await?)?)
    }

    async fn sasl(&mut self, expected: i32) -> Result<Vec<u8>, WireError> {
        let message = self.next().await?;
        match message.body.split_first_chunk::<4>() {
            Some((kind, data)) if i32::from_be_bytes(*kind) == expected => Ok(data.to_vec()),
            _ => Err(unsupported(expected)),
        }
    }
}

/// The [`tls::fingerprint`] of the certificate that a server shows.
pub async fn certificate(endpoint: &Endpoint) -> Result<Option<String>, StoreError> {
    let mut tcp = tls::open(endpoint).await?;
    ask(endpoint, &mut tcp).await?;
    tls::shown(endpoint, tcp).await
}

async fn encrypt(endpoint: &Endpoint, mut tcp: TcpStream) -> Result<Box<dyn Stream>, WireError> {
    ask(endpoint, &mut tcp).await?;
    Ok(tls::encrypt(endpoint, tcp).await?)
}

/// From here on the server speaks TLS.
async fn ask(endpoint: &Endpoint, tcp: &mut TcpStream) -> Result<(), WireError> {
    tcp.write_all(&frame(None, &SSL_REQUEST.to_be_bytes())).await?;
    if tcp.read_u8().await? != b'S' {
        return Err(StoreError::Untrusted(format!(
            "{}:{}: the server does not offer TLS; turn it on there (ssl = on), or give tls.mode: Disable for clear text",
            endpoint.host, endpoint.port
        ))
        .into());
    }
    Ok(())
}

fn pooler(endpoint: &Endpoint) -> StoreError {
    StoreError::Pooled(format!(
        "{}:{} is a connection pooler, which does not keep a session's settings, locks and notifications together; \
         give the address of the server itself under directUri in the Secret. Applications go on using uri",
        endpoint.host, endpoint.port
    ))
}

fn startup(parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = PROTOCOL_3_0.to_be_bytes().to_vec();
    for (name, value) in parameters {
        body.extend(cstr(name));
        body.extend(cstr(value));
    }
    body.push(0);
    frame(None, &body)
}

fn frame(tag: Option<u8>, body: &[u8]) -> Vec<u8> {
    // Our own messages are far below 4 GiB.
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX).to_be_bytes();
    tag.into_iter().chain(length).chain(body.iter().copied()).collect()
}

fn cstr(text: &str) -> Vec<u8> {
    text.bytes().filter(|byte| *byte != 0).chain([0]).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned()
}

fn first_column(row: &[u8]) -> String {
    let value = row.get(2..).and_then(|row| row.split_first_chunk::<4>());
    let value = value.and_then(|(length, rest)| rest.get(..usize::try_from(i32::from_be_bytes(*length)).ok()?));
    value.map(text).unwrap_or_default()
}

fn server_error(body: &[u8]) -> WireError {
    let field = |tag| {
        body.split(|byte| *byte == 0)
            .find_map(|field| field.strip_prefix(&[tag]))
            .map(text)
    };
    WireError {
        sqlstate: field(b'C'),
        text: field(b'M').unwrap_or_default(),
        unfit: None,
    }
}

fn unsupported(kind: i32) -> WireError {
    WireError {
        sqlstate: Some("28000".to_owned()),
        text: format!("unsupported authentication request {kind}"),
        unfit: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_errors_and_rows() {
        let error = server_error(b"SFATAL\0VFATAL\0C57P01\0Mterminating connection\0\0");
        assert_eq!(
            (error.sqlstate.as_deref(), error.text.as_str()),
            (Some("57P01"), "terminating connection")
        );
        assert_eq!(first_column(b"\0\x02\0\0\0\x03abc\0\0\0\x01d"), "abc");
        assert_eq!(first_column(b"\0\x01\xff\xff\xff\xff"), "", "null");
        assert_eq!(first_column(b"\0\x01\0\0\0\x09abc"), "", "cut short");
    }

    #[tokio::test]
    async fn messages_arrive_in_pieces_and_strangers_are_not_read() {
        let (client, mut server) = tokio::io::duplex(64);
        let mut wire = Wire {
            stream: Box::new(client),
            received: Vec::new(),
            server_version: String::new(),
        };
        server.write_all(b"A\0\0\0\x06").await.unwrap();
        tokio::select! {
            biased;
            _ = wire.next() => panic!("half a message"),
            () = tokio::task::yield_now() => {}
        }
        server.write_all(b"hiZ").await.unwrap();
        let message = wire.next().await.unwrap();
        assert_eq!((message.tag, message.body.as_slice()), (b'A', b"hi".as_slice()));
        server.write_all(b"\xff\xff\xff\xff").await.unwrap();
        assert!(wire.next().await.is_err());
    }

    #[tokio::test]
    async fn a_notification_during_a_query_is_kept() {
        let (client, mut server) = tokio::io::duplex(256);
        let mut wire = Wire {
            stream: Box::new(client),
            received: Vec::new(),
            server_version: String::new(),
        };
        server
            .write_all(&[frame(Some(b'A'), b"note"), frame(Some(b'Z'), b"I")].concat())
            .await
            .unwrap();
        assert!(wire.query("").await.unwrap().is_empty());
        assert_eq!(wire.next().await.unwrap().tag, b'A');
    }
}
