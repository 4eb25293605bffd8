//! The sentinel of a Redis server: a connection of its own whose end is announced at once.

use redis::{PushInfo, PushKind};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::stores::{
    endpoint::{Endpoint, StoreError},
    keeper::{Sentinel, ServerIdentity, Sign},
    redis::session::{Connection, connect, info, lane},
};

/// The library's reader task polls the socket all the time and pushes a message when it ends.
#[derive(Debug)]
pub struct RedisSentinel {
    connection: Connection,
    pushes: UnboundedReceiver<PushInfo>,
}

impl RedisSentinel {
    /// Connects, logs in, and makes sure that the server serves: one that still loads its data refuses PING.
    pub async fn open(endpoint: &Endpoint) -> Result<(Self, ServerIdentity), StoreError> {
        let (sender, pushes) = unbounded_channel();
        let connection = connect(endpoint, |config| config.set_push_sender(sender)).await?;
        let mut sentinel = Self { connection, pushes };
        sentinel.ping().await?;
        let (info, _) = info(&mut sentinel.connection, Some("server")).await?;
        Ok((
            sentinel,
            ServerIdentity {
                version: info.version(),
                started_at: info.started_at(),
            },
        ))
    }
}

impl Sentinel for RedisSentinel {
    async fn next_sign(&mut self) -> Sign {
        while let Some(push) = self.pushes.recv().await {
            if push.kind == PushKind::Disconnection {
                return Sign::Lost("the server closed the connection".into());
            }
        }
        Sign::Lost("the connection's reader ended".into())
    }

    async fn ping(&mut self) -> Result<(), StoreError> {
        redis::cmd("PING")
            .query_async::<()>(&mut self.connection)
            .await
            .map_err(lane)
    }
}
