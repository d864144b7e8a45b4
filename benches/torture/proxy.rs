//! A TCP forwarder that can be told to be a bad network, while connections live.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use crate::Outcome;

/// How long the other direction may go on after one has ended.
const LAST_WORDS: Duration = Duration::from_secs(2);
const CONNECT_WITHIN: Duration = Duration::from_secs(1);

/// How one direction behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Pass,
    /// Nothing is read: bytes wait, and the sender is pushed back in the end.
    Blackhole,
    /// Everything is read and nothing comes out.
    Swallow,
    /// Every piece is late by the first, and by up to the second more.
    Late(Duration, Duration),
    /// Bytes a second.
    Rate(u32),
    /// A few bytes at a time.
    Slice,
}

#[derive(Clone, Copy, Debug)]
struct Line {
    upstream: SocketAddr,
    to_server: Mode,
    to_client: Mode,
    /// Grows when every connection is to be reset.
    cuts: u64,
}

#[derive(Clone, Copy, Debug)]
enum Direction {
    ToServer,
    ToClient,
}

impl Line {
    fn mode(&self, direction: Direction) -> Mode {
        match direction {
            Direction::ToServer => self.to_server,
            Direction::ToClient => self.to_client,
        }
    }
}

/// Ends with its value, and all its connections with it.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    line: watch::Sender<Line>,
    acceptor: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn start(upstream: SocketAddr) -> Outcome<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (line, _) = watch::channel(Line {
            upstream,
            to_server: Mode::Pass,
            to_client: Mode::Pass,
            cuts: 0,
        });
        let acceptor = tokio::spawn(accept(listener, line.clone()));
        Ok(Self {
            address,
            line,
            acceptor,
        })
    }

    /// New connections go there.
    pub(crate) fn lead_to(&self, upstream: SocketAddr) {
        self.line.send_modify(|line| line.upstream = upstream);
    }

    pub(crate) fn set(&self, to_server: Mode, to_client: Mode) {
        self.line.send_modify(|line| {
            line.to_server = to_server;
            line.to_client = to_client;
        });
    }

    /// Resets every connection.
    pub(crate) fn cut(&self) {
        self.line.send_modify(|line| line.cuts += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

async fn accept(listener: TcpListener, line: watch::Sender<Line>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((client, _)) = listener.accept().await else {
            sleep(Duration::from_millis(10)).await;
            continue;
        };
        connections.spawn(forward(client, line.subscribe()));
        while connections.try_join_next().is_some() {}
    }
}

async fn forward(mut client: TcpStream, line: watch::Receiver<Line>) {
    let (upstream, cuts) = {
        let line = line.borrow();
        (line.upstream, line.cuts)
    };
    let Ok(Ok(mut server)) = timeout(CONNECT_WITHIN, TcpStream::connect(upstream)).await else {
        return;
    };
    // Delays are ours to choose.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let mut cut = line.clone();
    let was_cut = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let there = pump(from_client, to_server, line.clone(), Direction::ToServer);
        let back = pump(from_server, to_client, line, Direction::ToClient);
        tokio::select! {
            () = both(there, back) => false,
            _ = cut.wait_for(|line| line.cuts != cuts) => true,
        }
    };
    if was_cut {
        let _ = (client.set_zero_linger(), server.set_zero_linger());
    }
}

/// When one direction has ended, the other may finish.
async fn both(there: impl Future<Output = ()>, back: impl Future<Output = ()>) {
    tokio::pin!(there, back);
    tokio::select! {
        () = &mut there => { let _ = timeout(LAST_WORDS, back).await; }
        () = &mut back => { let _ = timeout(LAST_WORDS, there).await; }
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut line: watch::Receiver<Line>,
    direction: Direction,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let open = line.wait_for(|line| line.mode(direction) != Mode::Blackhole);
        if open.await.is_err() {
            return;
        }
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            _ = line.wait_for(|line| line.mode(direction) == Mode::Blackhole) => continue,
        };
        let Ok(length @ 1..) = read else { break };
        let mode = line.borrow().mode(direction);
        if pass_on(&mut to, &buffer[..length], mode).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

async fn pass_on(
    to: &mut (impl AsyncWrite + Unpin),
    bytes: &[u8],
    mode: Mode,
) -> std::io::Result<()> {
    match mode {
        Mode::Swallow => Ok(()),
        Mode::Pass | Mode::Blackhole => to.write_all(bytes).await,
        Mode::Late(by, jitter) => {
            sleep(by + jitter.mul_f32(rand::random())).await;
            to.write_all(bytes).await
        }
        Mode::Rate(per_second) => {
            let time = bytes.len() as f64 / f64::from(per_second.max(1));
            sleep(Duration::from_secs_f64(time)).await;
            to.write_all(bytes).await
        }
        Mode::Slice => {
            for slice in bytes.chunks(7) {
                to.write_all(slice).await?;
                // Other tasks run between two slices, so the reader sees them apart.
                tokio::task::yield_now().await;
            }
            Ok(())
        }
    }
}
