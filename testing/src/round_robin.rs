//! A load balancer without health checks: each connection goes to the next server that accepts it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

#[derive(Debug)]
struct Balance {
    servers: Vec<SocketAddr>,
    next: AtomicUsize,
    /// The server that got the last request for an event stream.
    stream_at: Mutex<Option<SocketAddr>>,
    /// One in so many POSTs of messages is forwarded and its response dropped; 0 for none.
    drop_one_in: u64,
    posts: AtomicU64,
    dropped: AtomicU64,
}

/// A running load balancer on a free port of 127.0.0.1.
#[derive(Debug)]
pub struct RoundRobin {
    pub address: SocketAddr,
    balance: Arc<Balance>,
    task: JoinHandle<()>,
}

impl Drop for RoundRobin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl RoundRobin {
    pub async fn start(servers: &[SocketAddr], drop_one_in: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let balance = Arc::new(Balance {
            servers: servers.to_vec(),
            next: AtomicUsize::new(0),
            stream_at: Mutex::new(None),
            drop_one_in,
            posts: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        });
        let task = tokio::spawn({
            let balance = Arc::clone(&balance);
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    let balance = Arc::clone(&balance);
                    tokio::spawn(async move { balance.forward(client).await });
                }
            }
        });
        Self {
            address,
            balance,
            task,
        }
    }

    /// The server that got the last request for an event stream.
    pub fn stream_at(&self) -> Option<SocketAddr> {
        *self.balance.stream_at.lock().unwrap()
    }

    /// How many responses were dropped.
    pub fn dropped(&self) -> u64 {
        self.balance.dropped.load(Ordering::Relaxed)
    }
}

impl Balance {
    async fn forward(&self, mut client: TcpStream) -> Option<()> {
        let mut head = vec![0; 4096];
        let length = client.read(&mut head).await.ok()?;
        head.truncate(length);
        let mut server = None;
        for _ in 0..self.servers.len() {
            let turn = self.next.fetch_add(1, Ordering::Relaxed);
            let address = self.servers[turn % self.servers.len()];
            if let Ok(connected) = TcpStream::connect(address).await {
                server = Some((connected, address));
                break;
            }
        }
        let (mut server, address) = server?;
        if head.starts_with(b"GET /v1/events") {
            *self.stream_at.lock().unwrap() = Some(address);
        }
        server.write_all(&head).await.ok()?;
        if head.starts_with(b"POST /v1/messages") && self.drop_one_in > 0 {
            let post = self.posts.fetch_add(1, Ordering::Relaxed);
            if post % self.drop_one_in == self.drop_one_in - 1 {
                // The request may come in two chunks. The server has processed it once it responds.
                let mut response = [0; 1024];
                tokio::select! {
                    _ = server.read(&mut response) => {}
                    more = client.read(&mut head) => {
                        server.write_all(&head[..more.ok()?]).await.ok()?;
                        let _response = server.read(&mut response).await.ok()?;
                    }
                }
                self.dropped.fetch_add(1, Ordering::Relaxed);
                return None;
            }
        }
        copy_bidirectional(&mut client, &mut server).await.ok()?;
        Some(())
    }
}
