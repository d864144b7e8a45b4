//! The processes of a run: a Redis and three nodes.

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use testing::node::Launch;
use testing::ports::free_address;
use testing::process::resident_kib;
use testing::{Node, Process, Redis};

use crate::Outcome;

const NODES: usize = 3;
/// Open files of a process besides its sessions; more than it needs.
const OTHER_FILES: usize = 1000;

/// A Redis and the nodes that share it. They end with this value: the nodes first, so that none logs a lost Redis.
pub(crate) struct Cluster {
    /// The last one will be killed.
    nodes: Vec<Node>,
    redis: Redis,
}

impl Cluster {
    /// Starts all processes and waits until the nodes are ready. `files`: the limit of open files of each.
    pub(crate) async fn start(files: usize) -> Outcome<Self> {
        let redis = Redis::start_with_open_files(files).await?;
        let mut nodes = Vec::new();
        for number in 1..=NODES {
            let mut launch = Launch::new(
                Some(&redis),
                &[
                    ("presence.grace", "60s"),
                    ("presence.ttl", "120s"),
                    ("limits.signals_per_second", "0"),
                    ("node_id", &format!("node{number}")),
                    ("log.level", "warn"),
                ],
            );
            launch.open_files = Some(files);
            nodes.push(launch.start_at(free_address()?, free_address()?).await?);
        }
        Ok(Self { nodes, redis })
    }

    pub(crate) fn endpoints(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.address).collect()
    }

    pub(crate) fn redis_pid(&self) -> u32 {
        self.redis.process.id()
    }

    /// The nodes that survive the kill, which is still to come.
    pub(crate) fn survivor_pids(&self) -> Vec<u32> {
        let survivors = &self.nodes[..self.nodes.len() - 1];
        survivors.iter().map(|node| node.process.id()).collect()
    }

    /// Ends the last node as a power cut would.
    pub(crate) fn kill_one(&mut self) {
        drop(self.nodes.pop());
    }

    /// Resident memory of each living node, in KiB.
    pub(crate) fn resident_kib(&self) -> Outcome<Vec<f64>> {
        let resident = |node: &Node| {
            let kib = resident_kib(node.process.id()).ok_or("a node has ended")?;
            Ok(kib as f64)
        };
        self.nodes.iter().map(resident).collect()
    }
}

/// Fails if a program is missing or too few files may be open. Returns how many each process needs.
pub(crate) fn check(sessions: usize) -> Outcome<usize> {
    for (program, package) in [("redis-server", "Redis"), ("setpriv", "util-linux")] {
        let found = Command::new(program)
            .arg("--version")
            .stdout(Stdio::null())
            .status();
        found.map_err(|error| {
            format!("cannot run `{program}` ({package}): {error}; run `make setup`")
        })?;
    }
    // After the kill, all clients of the dead node may connect to the same survivor.
    let files = sessions * 2 / 3 + OTHER_FILES;
    if Process::may_open_files(files)? {
        return Ok(files);
    }
    let limit = Command::new("sh").args(["-c", "ulimit -Hn"]).output()?;
    let limit = String::from_utf8_lossy(&limit.stdout).trim().to_owned();
    Err(format!(
        "a process may open {limit} files, SESSIONS={sessions} needs {files}: raise the hard limit \
         (`ulimit -n {files}` as root, LimitNOFILE= in systemd, `docker run --ulimit nofile={files}`), \
         or set SESSIONS lower"
    )
    .into())
}
