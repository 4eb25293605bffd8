//! A TCP proxy between an operator and a store that understands as much of the protocol as it takes to number the writes, spoil one of them as
//! told, and hold everything back while the network is "cut".

use std::sync::{Arc, Mutex};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

use super::{
    bolt,
    fault::{Fault, Plan},
};

/// What is spoken. Clear text only.
#[derive(Clone, Copy, Debug)]
pub enum Protocol {
    Postgres,
    Redis,
    Bolt,
}

/// How statements begin that change something.
const SQL_WRITES: [&str; 12] = [
    "ALTER", "COMMENT", "CREATE", "DELETE", "DO", "DROP", "GRANT", "INSERT", "REASSIGN", "REVOKE", "TRUNCATE", "UPDATE",
];
/// How commands begin that change something.
const REDIS_WRITES: [&str; 9] = [
    "SET",
    "DEL",
    "UNLINK",
    "EXPIRE",
    "PEXPIRE",
    "CONFIG SET",
    "CONFIG REWRITE",
    "ACL SETUSER",
    "ACL SAVE",
];

/// How statements of Cypher begin that change something.
const CYPHER_WRITES: [&str; 4] = ["CREATE", "MERGE", "DROP", "ALTER"];

pub struct StoreProxy {
    pub port: u16,
    pub plan: Arc<Plan>,
    open: Arc<watch::Sender<bool>>,
    server: tokio::task::JoinHandle<()>,
}

impl StoreProxy {
    /// To the server on this loopback port.
    pub async fn start(protocol: Protocol, to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (plan, open) = (Arc::new(Plan::default()), Arc::new(watch::Sender::new(true)));
        let (shared, passage) = (plan.clone(), open.clone());
        let server = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(("127.0.0.1", to)).await else {
                    continue;
                };
                let _ = (client.set_nodelay(true), server.set_nodelay(true));
                let between = Between {
                    protocol,
                    plan: shared.clone(),
                    open: passage.clone(),
                    spoilt: Mutex::default(),
                };
                tokio::spawn(between.pass(client, server));
            }
        });
        Self {
            port,
            plan,
            open,
            server,
        }
    }

    /// Nothing passes in either direction until `restore`.
    pub fn cut(&self) {
        self.open.send_replace(false);
    }

    pub fn restore(&self) {
        self.open.send_replace(true);
    }
}

impl Drop for StoreProxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// One connection.
struct Between {
    protocol: Protocol,
    plan: Arc<Plan>,
    open: Arc<watch::Sender<bool>>,
    /// What shall become of the answer that comes next.
    spoilt: Mutex<Option<Fault>>,
}

impl Between {
    /// Until either side hangs up.
    async fn pass(self, client: TcpStream, server: TcpStream) {
        let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
        tokio::select! {
            _ = self.up(from_client, to_server) => {}
            _ = self.down(from_server, to_client) => {}
        }
    }

    async fn passage(&self) {
        let _ = self.open.subscribe().wait_for(|open| *open).await;
    }

    async fn up(&self, mut client: OwnedReadHalf, mut server: OwnedWriteHalf) -> std::io::Result<()> {
        let (mut received, mut greeted) = (Vec::new(), false);
        while client.read_buf(&mut received).await? > 0 {
            self.passage().await;
            while let Some(length) = self.protocol.frame(&received, greeted) {
                greeted = true;
                let frame: Vec<u8> = received.drain(..length).collect();
                let fault = self.protocol.write(&frame).and_then(|write| self.plan.count(write));
                if fault == Some(Fault::Swallowed) {
                    self.plan.has_happened();
                    return std::future::pending().await;
                }
                if fault == Some(Fault::Pretended) {
                    server.write_all(self.protocol.harmless(&frame)).await?;
                    continue;
                }
                if fault.is_some() {
                    *self.spoilt.lock().unwrap() = fault;
                }
                server.write_all(&frame).await?;
            }
        }
        Ok(())
    }

    async fn down(&self, mut server: OwnedReadHalf, mut client: OwnedWriteHalf) -> std::io::Result<()> {
        let mut answer = Vec::new();
        while server.read_buf(&mut answer).await? > 0 {
            self.passage().await;
            let Some(fault) = *self.spoilt.lock().unwrap() else {
                client.write_all(&std::mem::take(&mut answer)).await?;
                continue;
            };
            if !self.protocol.is_complete(&answer) {
                continue;
            }
            // What the server has answered to was carried out.
            *self.spoilt.lock().unwrap() = None;
            self.plan.has_happened();
            match fault {
                Fault::LostAnswer => return Ok(()),
                Fault::Held => {
                    self.plan.was_let_go().await;
                    client.write_all(&std::mem::take(&mut answer)).await?;
                }
                _ => return std::future::pending().await,
            }
        }
        Ok(())
    }
}

impl Protocol {
    /// The length of the client's first message, once it is there.
    fn frame(self, bytes: &[u8], greeted: bool) -> Option<usize> {
        match self {
            // What opens a connection has no tag.
            Self::Postgres => sql_message(bytes, usize::from(greeted)),
            Self::Redis => redis_command(bytes).map(|(_, length)| length),
            Self::Bolt => bolt::frame(bytes, greeted),
        }
    }

    /// The write that a message is, in words; `None` if it changes nothing.
    fn write(self, frame: &[u8]) -> Option<String> {
        match self {
            Self::Postgres => {
                let (tag, text) = (frame.first()?, String::from_utf8_lossy(frame.get(5..)?));
                let text = match tag {
                    b'Q' => text.split('\0').next(),
                    // Behind the statement's name.
                    b'P' => text.split('\0').nth(1),
                    _ => None,
                }?;
                let statements = text.split(';').map(str::trim_start);
                let writes =
                    |statement: &&str| SQL_WRITES.contains(&statement.split_whitespace().next().unwrap_or_default());
                let first = statements.clone().find(writes)?;
                let words: Vec<&str> = first.split_whitespace().take(3).collect();
                Some(format!("{} ({} statements)", words.join(" "), statements.count()))
            }
            Self::Redis => {
                let (words, _) = redis_command(frame)?;
                let text = words.iter().take(2).cloned().collect::<Vec<_>>().join(" ");
                let upper = text.to_uppercase();
                let is = |write: &&str| upper == **write || upper.starts_with(&format!("{write} "));
                REDIS_WRITES.iter().any(is).then_some(text)
            }
            Self::Bolt => {
                let text = bolt::statement(frame)?;
                let words: Vec<&str> = text.split_whitespace().take(3).collect();
                CYPHER_WRITES.contains(words.first()?).then(|| words.join(" "))
            }
        }
    }

    /// What may take the place of a write, is answered like it, and changes nothing. Of statements only where they are sent in one message.
    fn harmless(self, frame: &[u8]) -> &'static [u8] {
        match self {
            Self::Postgres => {
                assert_eq!(frame.first(), Some(&b'Q'), "a statement in one message");
                b"Q\0\0\0\x06;\0"
            }
            Self::Redis => b"*1\r\n$4\r\nPING\r\n",
            Self::Bolt => unreachable!("nobody pretends to a Neo4j"),
        }
    }

    /// Whether the server's answer to one message is there.
    fn is_complete(self, mut answer: &[u8]) -> bool {
        match self {
            Self::Postgres => {
                while let Some(length) = sql_message(answer, 1) {
                    if answer[0] == b'Z' {
                        return true;
                    }
                    answer = &answer[length..];
                }
                false
            }
            Self::Redis => !answer.is_empty(),
            Self::Bolt => bolt::is_answered(answer),
        }
    }
}

/// The length of a message whose own length stands behind so many bytes.
fn sql_message(bytes: &[u8], tag: usize) -> Option<usize> {
    let length = bytes.get(tag..tag + 4)?.try_into().map(u32::from_be_bytes).ok()?;
    let length = tag + length as usize;
    (bytes.len() >= length).then_some(length)
}

/// The words of a command, and its length, once it is there.
fn redis_command(bytes: &[u8]) -> Option<(Vec<String>, usize)> {
    let (mut at, mut words) = (0, Vec::new());
    for _ in 0..redis_number(bytes, &mut at)? {
        let length = redis_number(bytes, &mut at)?;
        words.push(String::from_utf8_lossy(bytes.get(at..at + length)?).into_owned());
        at += length + 2;
    }
    (bytes.len() >= at).then_some((words, at))
}

/// The number on the line that begins at `at`, which is moved behind it.
fn redis_number(bytes: &[u8], at: &mut usize) -> Option<usize> {
    let line = bytes.get(*at..)?;
    let end = line.windows(2).position(|pair| pair == b"\r\n")?;
    *at += end + 2;
    std::str::from_utf8(line.get(1..end)?).ok()?.parse().ok()
}
