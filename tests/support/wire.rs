//! A wire to a server that can be cut: bytes go through until then.

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

pub struct Wire {
    pub port: u16,
    task: JoinHandle<()>,
}

impl Wire {
    /// Leads to a port of this machine.
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                let Ok(mut far) = TcpStream::connect(("127.0.0.1", port)).await else {
                    continue;
                };
                open.spawn(async move { copy_bidirectional(&mut near, &mut far).await });
            }
        });
        Self { port: own, task }
    }

    /// Both ends of every connection are closed.
    pub fn cut(self) {
        self.task.abort();
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}
