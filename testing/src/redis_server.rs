//! A `redis-server` process without persistence.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::time::timeout;

use crate::ports::free_address;
use crate::process::Process;

const STARTS_WITHIN: Duration = Duration::from_secs(10);
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);

/// The page of the book that gives the rights of a node.
const PAGE: &str = include_str!("../../docs/src/redis.md");
/// The user of the nodes, and its password.
const USER: [&str; 2] = ["node", "secret-of-the-node"];

/// What a node's user needs, as the book gives it.
pub fn rights_of_a_node() -> String {
    let after = PAGE.split_once("user switchboard on >PASSWORD ").unwrap().1;
    let rights = after.split_once("```").unwrap().0.replace('\\', "");
    rights.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A running Redis. It ends when this value is dropped.
#[derive(Debug)]
pub struct Redis {
    pub process: Process,
    pub address: SocketAddr,
    /// Its working directory. A replica writes there what it receives, and its successor on the same port must not
    /// read that.
    _directory: TempDir,
}

impl Redis {
    /// Starts one on a free port.
    pub async fn start() -> Self {
        let address = free_address().expect("a free port on loopback");
        Self::start_at(address, None).await.unwrap()
    }

    /// Starts one at this address, as a replica of `primary` if there is one.
    pub async fn start_at(address: SocketAddr, primary: Option<SocketAddr>) -> io::Result<Self> {
        let primary = primary.map(|at| format!("--replicaof {} {}", at.ip(), at.port()));
        Self::launch(address, primary.as_deref().unwrap_or_default(), None).await
    }

    /// Starts one on a free port with these options, separated by spaces.
    pub async fn start_with(options: &str) -> io::Result<Self> {
        Self::launch(free_address()?, options, None).await
    }

    /// Starts one on a free port that may have this many open files.
    pub async fn start_with_open_files(files: usize) -> io::Result<Self> {
        Self::launch(free_address()?, "", Some(files)).await
    }

    async fn launch(address: SocketAddr, options: &str, files: Option<usize>) -> io::Result<Self> {
        let directory = TempDir::with_prefix("redis-")?;
        let (host, port) = (address.ip().to_string(), address.port().to_string());
        let process = Process::start_with_open_files(files, "redis-server", |command| {
            command
                .args(["--bind", &host, "--port", &port])
                .args(["--save", "", "--appendonly", "no"])
                .args(["--repl-diskless-sync-delay", "0"])
                .arg("--dir")
                .arg(directory.path())
                .args(["--user", USER[0], "on", &format!(">{}", USER[1])])
                // Tests of other prefixes have their keys too.
                .args(["~other:*", "&other:*", "~test:*", "&test:*"])
                .args(rights_of_a_node().split(' '))
                .args(options.split_whitespace());
        })?;
        let mut redis = Self {
            process,
            address,
            _directory: directory,
        };
        let start = Instant::now();
        while redis.try_ask("PING").await.is_none() {
            if redis.process.exit_status().is_some() || start.elapsed() > STARTS_WITHIN {
                let text = format!("redis-server does not start at {address}: run `make setup`");
                return Err(io::Error::other(text));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(redis)
    }

    /// Kills it and starts an empty one at the same address.
    pub async fn replace(&mut self) {
        self.kill().await;
        self.restart_empty().await;
    }

    pub async fn kill(&mut self) {
        self.process.signal("KILL");
        self.process.ended().await;
    }

    /// Starts an empty one at the same address, after [`kill`](Self::kill).
    pub async fn restart_empty(&mut self) {
        *self = Self::start_at(self.address, None)
            .await
            .expect("the port is free again");
    }

    /// The URL for a node, whose user has no more rights than it needs.
    pub fn url(&self) -> String {
        format!("redis://{}:{}@{}", USER[0], USER[1], self.address)
    }

    /// A connection with every right.
    pub async fn connection(&self) -> redis::aio::MultiplexedConnection {
        let client = redis::Client::open(format!("redis://{}", self.address)).unwrap();
        client.get_multiplexed_async_connection().await.unwrap()
    }

    /// Runs a command whose words are separated by spaces.
    pub async fn ask(&self, words: &str) -> redis::Value {
        self.try_ask(words)
            .await
            .unwrap_or_else(|| panic!("Redis at {} does not answer {words}", self.address))
    }

    /// Like [`ask`](Self::ask); `None` if there is no answer within a second.
    pub async fn try_ask(&self, words: &str) -> Option<redis::Value> {
        ask(self.address, words).await
    }

    /// Every key with its remaining time to live in ms (-1: it does not expire).
    pub async fn keys(&self) -> Vec<(String, i64)> {
        let mut connection = self.connection().await;
        let keys: Vec<String> = redis::cmd("KEYS")
            .arg("*")
            .query_async(&mut connection)
            .await
            .unwrap();
        let mut with_ttl = Vec::new();
        for key in keys {
            let ttl: i64 = redis::cmd("PTTL")
                .arg(&key)
                .query_async(&mut connection)
                .await
                .unwrap();
            // -2: it expired since KEYS.
            if ttl != -2 {
                with_ttl.push((key, ttl));
            }
        }
        with_ttl
    }
}

/// Runs a command, words separated by spaces, on the Redis at this address; `None` if there is no answer within a
/// second.
pub async fn ask(address: SocketAddr, words: &str) -> Option<redis::Value> {
    let answer = async {
        let client = redis::Client::open(format!("redis://{address}")).ok()?;
        let mut connection = client.get_multiplexed_async_connection().await.ok()?;
        let mut words = words.split(' ');
        let mut command = redis::cmd(words.next().unwrap_or_default());
        for word in words {
            command.arg(word);
        }
        command.query_async(&mut connection).await.ok()
    };
    timeout(ANSWERS_WITHIN, answer).await.ok()?
}
