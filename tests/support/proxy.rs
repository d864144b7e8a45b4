//! A way to a server that can be blocked, cut, and led to another server.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A TCP forwarder on a free port.
#[derive(Debug)]
pub struct Proxy {
    pub address: SocketAddr,
    upstream: Arc<Mutex<SocketAddr>>,
    blocked: watch::Sender<bool>,
    /// Counts the cuts: a connection of an earlier one ends.
    cuts: watch::Sender<u64>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub async fn to(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let upstream = Arc::new(Mutex::new(upstream));
        let (blocked, cuts) = (watch::channel(false).0, watch::channel(0).0);
        let task = tokio::spawn({
            let (upstream, blocked, cuts) =
                (Arc::clone(&upstream), blocked.subscribe(), cuts.subscribe());
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    let server = *upstream.lock().unwrap();
                    tokio::spawn(carry(client, server, blocked.clone(), cuts.clone()));
                }
            }
        });
        Self {
            address,
            upstream,
            blocked,
            cuts,
            task,
        }
    }

    /// Whatever is sent waits from here on, in both directions.
    pub fn block(&self, blocked: bool) {
        self.blocked.send_replace(blocked);
    }

    /// Leads to another server: existing connections end.
    pub fn lead_to(&self, upstream: SocketAddr) {
        *self.upstream.lock().unwrap() = upstream;
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

async fn carry(
    client: TcpStream,
    server: SocketAddr,
    blocked: watch::Receiver<bool>,
    mut cuts: watch::Receiver<u64>,
) {
    let Ok(server) = TcpStream::connect(server).await else {
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) =
        (client.into_split(), server.into_split());
    cuts.mark_unchanged();
    tokio::select! {
        () = copy(from_client, to_server, blocked.clone()) => {}
        () = copy(from_server, to_client, blocked) => {}
        _ = cuts.changed() => {}
    }
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut blocked: watch::Receiver<bool>) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let Ok(count @ 1..) = from.read(&mut buffer).await else {
            return;
        };
        if blocked
            .wait_for(|blocked| !blocked)
            .await
            .map(drop)
            .is_err()
        {
            return;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
