//! Servers of other makes that scale out, each as two nodes and a Redis.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use testing::ports::free_address;
use testing::{Process, Redis};

use crate::Outcome;
use crate::server::{Server, Servers};
use crate::wrap::Wrap;

pub(crate) const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers");
const CENTRIFUGO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/peers/centrifugo");
const READY_WITHIN: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// `ws` and `ioredis`, a channel for each user.
    ByHand,
    /// Socket.IO with its Redis adapter, a room for each user.
    SocketIo,
    /// A channel for each user; with recovery its publications are kept for a while.
    Centrifugo { recovery: bool },
}

impl Peer {
    pub(crate) const ALL: [Self; 4] = [
        Self::ByHand,
        Self::SocketIo,
        Self::Centrifugo { recovery: false },
        Self::Centrifugo { recovery: true },
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ByHand => "by-hand",
            Self::SocketIo => "socketio",
            Self::Centrifugo { recovery: false } => "centrifugo",
            Self::Centrifugo { recovery: true } => "centrifugo-recovery",
        }
    }

    pub(crate) fn wrap(self) -> Wrap {
        match self {
            Self::ByHand => Wrap::None,
            Self::SocketIo => Wrap::SocketIo,
            Self::Centrifugo { .. } => Wrap::Centrifugo,
        }
    }

    /// What must be there, and how it comes there.
    pub(crate) fn needs(self) -> PathBuf {
        match self {
            Self::ByHand => [DIRECTORY, "node_modules/ioredis"].iter().collect(),
            Self::SocketIo => [DIRECTORY, "node_modules/socket.io"].iter().collect(),
            Self::Centrifugo { .. } => CENTRIFUGO.into(),
        }
    }

    pub(crate) async fn start(self) -> Outcome<Servers> {
        let redis = Redis::start().await;
        // They need rights that our nodes do not.
        let store = format!("redis://{}", redis.address);
        let endpoints = [free_address()?, free_address()?];
        let nodes = endpoints.map(|address| self.start_node(address, &store));
        let [one, two] = nodes;
        let nodes = vec![one?, two?];
        for (address, node) in endpoints.iter().zip(&nodes) {
            let start = Instant::now();
            while TcpStream::connect(address).is_err() {
                if start.elapsed() > READY_WITHIN {
                    return Err(format!(
                        "process {} was not ready within {READY_WITHIN:?}",
                        node.id()
                    )
                    .into());
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        let of = |process: &Process, is_node| Server {
            is_node,
            pid: process.id(),
        };
        Ok(Servers {
            processes: vec![
                of(&nodes[0], true),
                of(&nodes[1], true),
                of(&redis.process, false),
            ],
            endpoints,
            _others: nodes,
            _nodes: Vec::new(),
            _redis: Some(redis),
        })
    }

    fn start_node(self, address: SocketAddr, redis: &str) -> Outcome<Process> {
        let (ip, port) = (address.ip().to_string(), address.port().to_string());
        let script = match self {
            Self::ByHand => "by-hand.mjs",
            Self::SocketIo => "socketio.mjs",
            Self::Centrifugo { recovery } => return start_centrifugo(recovery, &ip, &port, redis),
        };
        Ok(Process::start("node", |command| {
            command.arg(script).current_dir(DIRECTORY);
            command
                .env("HOST", ip)
                .env("PORT", port)
                .env("REDIS", redis);
            // stdout is for the results.
            command.stdout(std::io::stderr()).stderr(Stdio::inherit());
        })?)
    }
}

/// Everything that it has besides is left off, as by default; clients need no token.
fn start_centrifugo(recovery: bool, ip: &str, port: &str, redis: &str) -> Outcome<Process> {
    Ok(Process::start(CENTRIFUGO, |command| {
        let mut settings = vec![
            ("HTTP_SERVER_ADDRESS", ip),
            ("HTTP_SERVER_PORT", port),
            ("CLIENT_INSECURE", "true"),
            ("LOG_LEVEL", "error"),
            ("ENGINE_TYPE", "redis"),
            ("ENGINE_REDIS_ADDRESS", redis),
        ];
        if recovery {
            // As much as a resumable session keeps.
            settings.push(("CHANNEL_WITHOUT_NAMESPACE_HISTORY_SIZE", "256"));
            settings.push(("CHANNEL_WITHOUT_NAMESPACE_HISTORY_TTL", "60s"));
            settings.push(("CHANNEL_WITHOUT_NAMESPACE_FORCE_RECOVERY", "true"));
        }
        for (name, value) in settings {
            command.env(format!("CENTRIFUGO_{name}"), value);
        }
        command.stdout(std::io::stderr()).stderr(Stdio::inherit());
    })?)
}
