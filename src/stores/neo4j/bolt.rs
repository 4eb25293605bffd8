//! A small Bolt client (4.4 and 5.0 to 5.4): a login and short queries, over a socket that we hold ourselves,
//! so that its end is seen at once. The driver the worker uses keeps its sockets to itself.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::stores::{
    endpoint::{Endpoint, StoreError},
    neo4j::{packstream::Value, session::lane},
    tls::{self, Stream},
};

const MAGIC: [u8; 4] = [0x60, 0x60, 0xB0, 0x17];
/// In order of preference: `[0, how many minors below too, minor, major]`.
const PROPOSALS: [[u8; 4]; 4] = [[0, 4, 4, 5], [0, 0, 4, 4], [0; 4], [0; 4]];
const USER_AGENT: &str = concat!("amas-operator/", env!("CARGO_PKG_VERSION"));
/// No answer we ask for comes near it.
const LARGEST_ANSWER: usize = 4 << 20;

const HELLO: u8 = 0x01;
const LOGON: u8 = 0x6A;
const RESET: u8 = 0x0F;
const RUN: u8 = 0x10;
const PULL: u8 = 0x3F;
const SUCCESS: u8 = 0x70;
const RECORD: u8 = 0x71;
const IGNORED: u8 = 0x7E;
const FAILURE: u8 = 0x7F;

/// A logged-in connection. Every method may be dropped half-way and called again: what was sent is remembered, and
/// answers that nobody waits for any more are read over.
pub struct Bolt {
    stream: Box<dyn Stream>,
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
    /// Requests sent whose answers were not read.
    unanswered: usize,
}

impl Bolt {
    pub async fn connect(endpoint: &Endpoint) -> Result<Self, StoreError> {
        let mut bolt = Self {
            stream: tls::connect(endpoint).await?,
            outgoing: Vec::new(),
            incoming: Vec::new(),
            unanswered: 0,
        };
        let version = bolt.agree().await?;
        bolt.ask(&greeting(version, endpoint)).await?;
        Ok(bolt)
    }

    /// Negotiates the version: `(major, minor)`.
    async fn agree(&mut self) -> Result<(u8, u8), StoreError> {
        self.stream
            .write_all(&[MAGIC.as_slice(), PROPOSALS.as_flattened()].concat())
            .await
            .map_err(lost)?;
        self.stream.flush().await.map_err(lost)?;
        let mut answer = [0; 4];
        self.stream.read_exact(&mut answer).await.map_err(lost)?;
        match answer {
            [0, 0, minor, major @ 4..=5] => Ok((major, minor)),
            [0, 0, 0, 0] => Err(StoreError::Rejected(
                "the server speaks none of Bolt 4.4, 5.0 to 5.4".into(),
            )),
            _ => Err(StoreError::Rejected("this is not a Bolt port".into())),
        }
    }

    /// Runs a query and gives its rows. The RESET before it rides in the same packet and clears whatever an earlier,
    /// abandoned query left.
    pub async fn query(&mut self, cypher: &str, database: &str) -> Result<Vec<Vec<Value>>, StoreError> {
        let extra = Value::map([("db", Value::text(database)), ("mode", Value::text("r"))]);
        self.ask(&[
            Value::Struct(RESET, vec![]),
            Value::Struct(RUN, vec![Value::text(cypher), Value::map([]), extra]),
            Value::Struct(PULL, vec![Value::map([("n", Value::Int(-1))])]),
        ])
        .await
    }

    /// Runs a statement that changes something. Parameters are bound, so nothing of them is in the text.
    pub async fn change<const N: usize>(
        &mut self,
        cypher: &str,
        parameters: [(&str, Value); N],
        database: &str,
    ) -> Result<(), StoreError> {
        let extra = Value::map([("db", Value::text(database))]);
        self.ask(&[
            Value::Struct(RESET, vec![]),
            Value::Struct(RUN, vec![Value::text(cypher), Value::map(parameters), extra]),
            Value::Struct(PULL, vec![Value::map([("n", Value::Int(-1))])]),
        ])
        .await
        .map(drop)
    }

    /// Waits until the connection ends, and says how.
    pub async fn end(&mut self) -> StoreError {
        loop {
            match self.receive().await {
                Ok(_) => {}
                Err(error) => return error,
            }
        }
    }

    /// One round trip: sends all messages and reads all their answers; gives the records. The first failure counts.
    async fn ask(&mut self, messages: &[Value]) -> Result<Vec<Vec<Value>>, StoreError> {
        while self.unanswered > 0 {
            self.receive().await?;
        }
        messages.iter().for_each(|message| frame(message, &mut self.outgoing));
        self.unanswered = messages.len();
        let (mut records, mut failure) = (Vec::new(), None);
        while self.unanswered > 0 {
            match self.receive().await? {
                (RECORD, Value::List(fields)) => records.push(fields),
                (FAILURE, details) => failure = failure.or(Some(refusal(&details))),
                _ => {}
            }
        }
        failure.map_or(Ok(records), Err)
    }

    /// Sends what is to be sent, then gives the next message: its tag and its only field.
    async fn receive(&mut self) -> Result<(u8, Value), StoreError> {
        self.send().await?;
        loop {
            if let Some(bytes) = unframe(&mut self.incoming) {
                let Some(Value::Struct(tag, fields)) = Value::decode(&mut bytes.as_slice()) else {
                    return Err(StoreError::Unreachable("the server sent no Bolt message".into()));
                };
                if matches!(tag, SUCCESS | FAILURE | IGNORED) {
                    self.unanswered = self.unanswered.saturating_sub(1);
                }
                return Ok((tag, fields.into_iter().next().unwrap_or(Value::Null)));
            }
            if self.incoming.len() > LARGEST_ANSWER {
                return Err(StoreError::Rejected("the server's answer is too large".into()));
            }
            if self.stream.read_buf(&mut self.incoming).await.map_err(lost)? == 0 {
                return Err(StoreError::Unreachable("the server closed the connection".into()));
            }
        }
    }

    async fn send(&mut self) -> Result<(), StoreError> {
        while !self.outgoing.is_empty() {
            let sent = self.stream.write(&self.outgoing).await.map_err(lost)?;
            if sent == 0 {
                return Err(StoreError::Unreachable("the server closed the connection".into()));
            }
            self.outgoing.drain(..sent);
        }
        self.stream.flush().await.map_err(lost)
    }
}

/// From 5.1 on the login is a message of its own.
fn greeting((major, minor): (u8, u8), endpoint: &Endpoint) -> Vec<Value> {
    let login = [
        ("scheme", Value::text("basic")),
        ("principal", Value::text(&endpoint.user)),
        ("credentials", Value::text(endpoint.password.reveal())),
    ];
    let agent = ("user_agent", Value::text(USER_AGENT));
    if (major, minor) < (5, 1) {
        let [scheme, principal, credentials] = login;
        return vec![Value::Struct(
            HELLO,
            vec![Value::map([agent, scheme, principal, credentials])],
        )];
    }
    let product = Value::map([("product", Value::text(USER_AGENT))]);
    vec![
        Value::Struct(HELLO, vec![Value::map([agent, ("bolt_agent", product)])]),
        Value::Struct(LOGON, vec![Value::map(login)]),
    ]
}

fn refusal(details: &Value) -> StoreError {
    let part = |key: &str| details.get(key).and_then(Value::as_str).unwrap_or_default();
    lane(part("code"), part("message"))
}

fn lost(error: std::io::Error) -> StoreError {
    StoreError::Unreachable(error.to_string())
}

/// A message goes in chunks of at most 65,535 bytes, each after its length, and ends with an empty one.
fn frame(message: &Value, out: &mut Vec<u8>) {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    for chunk in bytes.chunks(usize::from(u16::MAX)) {
        // A chunk is never longer than what fits.
        out.extend((chunk.len() as u16).to_be_bytes());
        out.extend(chunk);
    }
    out.extend([0, 0]);
}

/// Takes the first whole message off the front; empty chunks before it are the server's keep-alive.
fn unframe(incoming: &mut Vec<u8>) -> Option<Vec<u8>> {
    let (mut message, mut at) = (Vec::new(), 0);
    loop {
        let size = usize::from(u16::from_be_bytes(incoming.get(at..at + 2)?.try_into().ok()?));
        at += 2;
        if size > 0 {
            message.extend_from_slice(incoming.get(at..at + size)?);
            at += size;
        } else if !message.is_empty() {
            incoming.drain(..at);
            return Some(message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::sensitive::Sensitive;
    use crate::stores::endpoint::Tls;

    #[test]
    fn frames_and_unframes() {
        let long = Value::text(&"x".repeat(100_000));
        let mut wire = vec![0, 0];
        frame(&long, &mut wire);
        wire.extend([0, 0]);
        frame(&Value::Int(1), &mut wire);
        let whole = wire.clone();
        let bytes = unframe(&mut wire).unwrap();
        assert_eq!(Value::decode(&mut bytes.as_slice()), Some(long));
        assert_eq!(unframe(&mut wire), Some(vec![1]));
        assert_eq!(unframe(&mut wire), None);
        let mut cut = whole[..whole.len() - 8].to_vec();
        assert!(unframe(&mut cut).is_none(), "not all there yet");
    }

    #[test]
    fn greets_by_version() {
        let endpoint = Endpoint {
            host: "h".into(),
            port: 7687,
            tls: Tls::Disable,
            user: "neo4j".into(),
            password: Sensitive::new("pw"),
        };
        assert_eq!(greeting((4, 4), &endpoint).len(), 1);
        assert_eq!(greeting((5, 0), &endpoint).len(), 1);
        let [Value::Struct(HELLO, hello), Value::Struct(LOGON, logon)] = &greeting((5, 4), &endpoint)[..] else {
            panic!("HELLO and LOGON")
        };
        assert_eq!(hello[0].get("credentials"), None);
        assert_eq!(logon[0].get("principal"), Some(&Value::text("neo4j")));
    }

    #[test]
    fn tells_why_the_server_refused() {
        let details = |code: &str| Value::map([("code", Value::text(code)), ("message", Value::text("no"))]);
        let refused = refusal(&details("Neo.ClientError.Security.Unauthorized"));
        assert_eq!(
            refused,
            StoreError::LoginRefused("no (Neo.ClientError.Security.Unauthorized)".into())
        );
    }
}
