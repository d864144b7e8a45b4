//! A TCP proxy that can behave like a bad network while connections are open.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

/// How long one direction may go on after the other has ended.
const HALF_OPEN_FOR: Duration = Duration::from_secs(2);
const CONNECT_WITHIN: Duration = Duration::from_secs(1);

/// How one direction behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Pass,
    /// Reads nothing. Bytes wait; in the end the sender's writes block.
    Blackhole,
    /// Reads everything and forwards nothing.
    Swallow,
    /// Delays every chunk by the first duration, and by up to the second more.
    Late(Duration, Duration),
    /// Forwards this many bytes per second.
    Rate(u32),
    /// Forwards a few bytes at a time.
    Slice,
}

#[derive(Clone, Copy, Debug)]
struct Line {
    upstream: SocketAddr,
    /// The size of the buffer for what the server sends; `None` for that of the system.
    keeps: Option<u32>,
    to_server: Mode,
    to_client: Mode,
    /// Counts the cuts. A connection remembers the count at its start and ends when it changes.
    cuts: u64,
    /// Counts the freezes, in the same way: a connection that is older than the last one passes nothing more.
    freezes: u64,
}

#[derive(Clone, Copy, Debug)]
enum Direction {
    ToServer,
    ToClient,
}

impl Line {
    /// The mode of a connection that began after so many freezes.
    fn mode(&self, direction: Direction, born: u64) -> Mode {
        match direction {
            _ if self.freezes > born => Mode::Blackhole,
            Direction::ToServer => self.to_server,
            Direction::ToClient => self.to_client,
        }
    }
}

/// A proxy on a free port of 127.0.0.1. Dropped, it ends with all its connections.
#[derive(Debug)]
pub struct Proxy {
    pub address: SocketAddr,
    line: watch::Sender<Line>,
    acceptor: JoinHandle<()>,
}

impl Proxy {
    pub async fn start(upstream: SocketAddr) -> io::Result<Self> {
        Self::keeping(upstream, None).await
    }

    /// A proxy that keeps little of what it has not passed on, as a network does.
    pub async fn narrow(upstream: SocketAddr) -> io::Result<Self> {
        Self::keeping(upstream, Some(16 * 1024)).await
    }

    async fn keeping(upstream: SocketAddr, keeps: Option<u32>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (line, _) = watch::channel(Line {
            upstream,
            keeps,
            to_server: Mode::Pass,
            to_client: Mode::Pass,
            cuts: 0,
            freezes: 0,
        });
        let acceptor = tokio::spawn(accept(listener, line.clone()));
        Ok(Self {
            address,
            line,
            acceptor,
        })
    }

    /// Sends new connections to another server. Open connections stay where they are.
    pub fn set_upstream(&self, upstream: SocketAddr) {
        self.line.send_modify(|line| line.upstream = upstream);
    }

    /// Changes both directions.
    pub fn set(&self, to_server: Mode, to_client: Mode) {
        self.line.send_modify(|line| {
            line.to_server = to_server;
            line.to_client = to_client;
        });
    }

    /// Blocks both directions, or lets bytes pass again.
    pub fn block(&self, blocked: bool) {
        let mode = if blocked { Mode::Blackhole } else { Mode::Pass };
        self.set(mode, mode);
    }

    /// Lets nothing more pass on the open connections, and closes none: their other end has vanished.
    pub fn freeze_open(&self) {
        self.line.send_modify(|line| line.freezes += 1);
    }

    /// Resets every open connection.
    pub fn cut(&self) {
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
    let Line {
        upstream,
        keeps,
        cuts,
        freezes,
        ..
    } = *line.borrow();
    let Ok(Ok(mut server)) = timeout(CONNECT_WITHIN, connect(upstream, keeps)).await else {
        return;
    };
    // Only the modes add delay.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let mut cut = line.clone();
    let was_cut = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let there = pump(
            from_client,
            to_server,
            line.clone(),
            (Direction::ToServer, freezes),
        );
        let back = pump(from_server, to_client, line, (Direction::ToClient, freezes));
        tokio::select! {
            () = both(there, back) => false,
            _ = cut.wait_for(|line| line.cuts != cuts) => true,
        }
    };
    if was_cut {
        let _ = (client.set_zero_linger(), server.set_zero_linger());
    }
}

async fn connect(upstream: SocketAddr, keeps: Option<u32>) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if let Some(bytes) = keeps {
        socket.set_recv_buffer_size(bytes)?;
    }
    socket.connect(upstream).await
}

/// Ends when both directions have, or soon after the first.
async fn both(there: impl Future<Output = ()>, back: impl Future<Output = ()>) {
    tokio::pin!(there, back);
    tokio::select! {
        () = &mut there => { let _ = timeout(HALF_OPEN_FOR, back).await; }
        () = &mut back => { let _ = timeout(HALF_OPEN_FOR, there).await; }
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut line: watch::Receiver<Line>,
    (direction, born): (Direction, u64),
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let open = line.wait_for(|line| line.mode(direction, born) != Mode::Blackhole);
        if open.await.is_err() {
            return;
        }
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            _ = line.wait_for(|line| line.mode(direction, born) == Mode::Blackhole) => continue,
        };
        let Ok(length @ 1..) = read else { break };
        let mode = line.borrow().mode(direction, born);
        if pass_on(&mut to, &buffer[..length], mode).await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

async fn pass_on(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8], mode: Mode) -> io::Result<()> {
    match mode {
        Mode::Swallow => Ok(()),
        Mode::Pass | Mode::Blackhole => to.write_all(bytes).await,
        Mode::Late(by, jitter) => {
            sleep(by + jitter.mul_f32(rand::random())).await;
            to.write_all(bytes).await
        }
        Mode::Rate(per_second) => {
            let bytes_here = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            sleep(Duration::from_secs(1) * bytes_here / per_second.max(1)).await;
            to.write_all(bytes).await
        }
        Mode::Slice => {
            for slice in bytes.chunks(7) {
                to.write_all(slice).await?;
                // Other tasks run between two slices, so the reader gets them in separate reads.
                tokio::task::yield_now().await;
            }
            Ok(())
        }
    }
}
