//! A way to a server that a test can cut.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::{AbortHandle, JoinHandle},
};

type Open = Arc<Mutex<Vec<(AbortHandle, Instant)>>>;

/// Listens on a port of its own and passes everything on, both ways.
pub struct Relay {
    pub port: u16,
    open: Open,
    listener: JoinHandle<()>,
}

impl Relay {
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let open = Open::default();
        let connections = open.clone();
        let listener = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let connection = tokio::spawn(async move {
                    if let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await {
                        let _ = copy_bidirectional(&mut client, &mut server).await;
                    }
                });
                let opened = (connection.abort_handle(), Instant::now());
                connections.lock().unwrap().push(opened);
            }
        });
        Self {
            port: own,
            open,
            listener,
        }
    }

    /// Ends every connection; new ones are let through.
    pub fn cut(&self) {
        for (connection, _) in self.open.lock().unwrap().drain(..) {
            connection.abort();
        }
    }

    /// Since when there is a connection that has lasted for `time`, as one does whose login was accepted.
    pub fn lasting(&self, time: Duration) -> Option<Instant> {
        let open = self.open.lock().unwrap();
        let lasting = open
            .iter()
            .filter(|(connection, since)| !connection.is_finished() && since.elapsed() >= time);
        lasting.map(|(_, since)| *since).min()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.cut();
        self.listener.abort();
    }
}
