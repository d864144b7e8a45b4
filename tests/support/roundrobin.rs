//! A load balancer that knows nothing: each connection goes to the next server that takes it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// How a connection is carried.
#[derive(Debug)]
struct Balance {
    servers: Vec<SocketAddr>,
    next: AtomicUsize,
    /// The server that was asked for a stream of events last.
    streams_at: Mutex<Option<SocketAddr>>,
    /// Of so many POSTs of messages one is carried there, and its answer is lost; 0 for none.
    loses_one_in: u64,
    posts: AtomicU64,
    lost: AtomicU64,
}

/// A running load balancer.
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
    pub async fn over(servers: &[SocketAddr], loses_one_in: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let balance = Arc::new(Balance {
            servers: servers.to_vec(),
            next: AtomicUsize::new(0),
            streams_at: Mutex::new(None),
            loses_one_in,
            posts: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        });
        let task = tokio::spawn({
            let balance = Arc::clone(&balance);
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    let balance = Arc::clone(&balance);
                    tokio::spawn(async move { balance.carry(client).await });
                }
            }
        });
        Self {
            address,
            balance,
            task,
        }
    }

    /// The server that was asked for a stream of events last.
    pub fn streams_at(&self) -> Option<SocketAddr> {
        *self.balance.streams_at.lock().unwrap()
    }

    /// How many answers were lost.
    pub fn lost(&self) -> u64 {
        self.balance.lost.load(Ordering::Relaxed)
    }
}

impl Balance {
    async fn carry(&self, mut client: TcpStream) -> Option<()> {
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
            *self.streams_at.lock().unwrap() = Some(address);
        }
        server.write_all(&head).await.ok()?;
        if head.starts_with(b"POST /v1/messages") && self.loses_one_in > 0 {
            let post = self.posts.fetch_add(1, Ordering::Relaxed);
            if post % self.loses_one_in == self.loses_one_in - 1 {
                // The request may come in two pieces; what it asks for is done when it is answered.
                let mut answer = [0; 1024];
                tokio::select! {
                    _ = server.read(&mut answer) => {}
                    more = client.read(&mut head) => {
                        server.write_all(&head[..more.ok()?]).await.ok()?;
                        let _answered = server.read(&mut answer).await.ok()?;
                    }
                }
                self.lost.fetch_add(1, Ordering::Relaxed);
                return None;
            }
        }
        copy_bidirectional(&mut client, &mut server).await.ok()?;
        Some(())
    }
}
