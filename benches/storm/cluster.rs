//! The processes of a run: a Redis and three nodes, started fresh, waited for, killed by their own pid.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::Outcome;
use crate::gauge::resident_kib;
use crate::ports::free_address;

const NODES: usize = 3;
const SWITCHBOARD: &str = env!("CARGO_BIN_EXE_switchboard");
const READY_WITHIN: Duration = Duration::from_secs(10);
/// What a process has open besides sessions, generously.
const OTHER_FILES: usize = 1000;

/// Becomes the program, with the same pid, after it is allowed as many files as its first argument says.
const WITH_FILES: &str = r#"ulimit -n "$0" && exec "$@""#;

/// A Redis and the nodes that share it. They end with this value, or with the thread that started them.
pub(crate) struct Cluster {
    pub(crate) redis: Process,
    /// The last one is there to be killed.
    pub(crate) nodes: Vec<Process>,
    pub(crate) endpoints: Vec<SocketAddr>,
    _directory: TempDir,
}

impl Cluster {
    /// Waits until everything can be used.
    pub(crate) fn start(files: usize) -> Outcome<Self> {
        let directory = TempDir::new()?;
        let redis_door = free_address()?;
        let redis = Process::start("redis", files, "redis-server", |command| {
            let (host, port) = (redis_door.ip().to_string(), redis_door.port().to_string());
            command.args(["--bind", &host, "--port", &port, "--loglevel", "warning"]);
            command.args(["--save", "", "--appendonly", "no"]);
            command
                .args(["--logfile", "redis.log", "--dir"])
                .arg(directory.path());
        })?;
        wait_until("Redis", || answers(redis_door, "PING\r\n", "+PONG"))?;
        let mut cluster = Self {
            redis,
            nodes: Vec::new(),
            endpoints: Vec::new(),
            _directory: directory,
        };
        for number in 1..=NODES {
            let (node, door) = start_node(&format!("node{number}"), files, redis_door)?;
            cluster.nodes.push(node);
            cluster.endpoints.push(door);
        }
        Ok(cluster)
    }

    /// Ends the last node as a power cut would.
    pub(crate) fn kill_one(&mut self) {
        drop(self.nodes.pop());
    }

    /// Resident memory of each node that lives.
    pub(crate) fn kib_by_node(&self) -> Outcome<Vec<f64>> {
        let resident = |node: &Process| resident_kib(node.pid());
        self.nodes.iter().map(resident).collect()
    }
}

/// A running process. It is killed at the end of this value, at the latest.
pub(crate) struct Process {
    pub(crate) child: Child,
}

impl Process {
    pub(crate) fn start(
        role: &str,
        files: usize,
        program: &str,
        configure: impl FnOnce(&mut Command),
    ) -> Outcome<Self> {
        // The kernel kills it should this benchmark be killed.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "sh", "-c", WITH_FILES]);
        command.arg(files.to_string()).arg(program);
        // stdout is for the results.
        command.stdin(Stdio::null()).stdout(std::io::stderr());
        configure(&mut command);
        let child = command
            .spawn()
            .map_err(|error| format!("{role} did not start: {error}"))?;
        Ok(Self { child })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Says what is missing before anything is started. Gives the open files that each process needs.
pub(crate) fn check(sessions: usize) -> Outcome<usize> {
    for (program, what) in [("redis-server", "Redis"), ("setpriv", "util-linux")] {
        let found = Command::new(program)
            .arg("--version")
            .stdout(Stdio::null())
            .status();
        found.map_err(|error| format!("`{program}` ({what}) cannot be run: {error}"))?;
    }
    // After the death of a node its clients may connections at one of the others.
    let files = sessions * 2 / 3 + OTHER_FILES;
    let allowed = Command::new("sh")
        .args(["-c", WITH_FILES, &files.to_string(), "true"])
        .stderr(Stdio::null())
        .status()?;
    if allowed.success() {
        return Ok(files);
    }
    let limit = Command::new("sh").args(["-c", "ulimit -Hn"]).output()?;
    let limit = String::from_utf8_lossy(&limit.stdout).trim().to_owned();
    Err(format!(
        "a process may open {limit} files, SESSIONS={sessions} needs {files}: raise the hard limit (`ulimit -n {files}` as root, LimitNOFILE= \
         in systemd, `docker run --ulimit nofile={files}`), or set SESSIONS lower"
    )
    .into())
}

fn start_node(name: &str, files: usize, redis: SocketAddr) -> Outcome<(Process, SocketAddr)> {
    let (door, admin) = (free_address()?, free_address()?);
    let node = Process::start(name, files, SWITCHBOARD, |command| {
        command.env("SWITCHBOARD_LISTEN", door.to_string());
        command.env("SWITCHBOARD_ADMIN__LISTEN", admin.to_string());
        command.env("SWITCHBOARD_REDIS__URL", format!("redis://{redis}"));
        command.env("SWITCHBOARD_PRESENCE__GRACE", "60s");
        command.env("SWITCHBOARD_PRESENCE__TTL", "120s");
        command.env("SWITCHBOARD_LIMITS__SIGNALS_PER_SECOND", "0");
        command.env("SWITCHBOARD_NODE_ID", name);
        command.env("SWITCHBOARD_LOG__LEVEL", "warn");
    })?;
    let question = format!("GET /readyz HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    wait_until(name, || answers(admin, &question, "HTTP/1.1 200"))?;
    Ok((node, door))
}

fn answers(door: SocketAddr, question: &str, expected: &str) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(door)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(question.as_bytes())?;
        let mut answer = vec![0; expected.len()];
        stream.read_exact(&mut answer)?;
        Ok(answer == expected.as_bytes())
    };
    ask().unwrap_or(false)
}

fn wait_until(what: &str, is_ready: impl Fn() -> bool) -> Outcome<()> {
    let give_up = Instant::now() + READY_WITHIN;
    while !is_ready() {
        if Instant::now() > give_up {
            return Err(format!("{what} was not ready within {READY_WITHIN:?}").into());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
