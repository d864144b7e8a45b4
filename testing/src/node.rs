//! A Switchboard node as a process: the real binary.

use std::io::{self, BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::dns::WITH_RESOLVER;
use crate::process::Process;
use crate::redis_server::Redis;
use crate::{PATIENCE, eventually, http};

/// The variable that names the server binary, if it is not beside the test's own executable.
pub const BINARY_VARIABLE: &str = "SERVER_BINARY";
const POLL_EVERY: Duration = Duration::from_millis(10);

/// The server binary: what `SERVER_BINARY` names, or `switchboard` in the folder of this executable or above it.
///
/// Cargo puts tests into `target/PROFILE/deps` and binaries into `target/PROFILE`.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os(BINARY_VARIABLE) {
        return path.into();
    }
    let this = std::env::current_exe().expect("this executable has a path");
    let found = this
        .ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join("switchboard"))
        .find(|path| path.is_file());
    found.unwrap_or_else(|| {
        let this = this.display();
        panic!("no server binary near {this}: run `cargo build --bin switchboard`, or set {BINARY_VARIABLE}")
    })
}

/// How a node is started.
#[derive(Clone, Debug, Default)]
pub struct Launch {
    /// Instead of [`binary`].
    pub binary: Option<PathBuf>,
    /// Without one the node is alone.
    pub redis_url: Option<String>,
    /// Keys and values for `--set`.
    pub settings: Vec<(String, String)>,
    pub environment: Vec<(String, String)>,
    /// The limit of open files.
    pub open_files: Option<usize>,
    /// In place of `/etc/resolv.conf`. Takes root's capabilities.
    pub resolver: Option<PathBuf>,
}

/// Why a node does not listen.
#[derive(Debug)]
pub enum LaunchError {
    Spawn(io::Error),
    /// It ended; with its log.
    Ended(ExitStatus, String),
    /// It did not listen within [`PATIENCE`]; with its log.
    Silent(String),
}

impl std::fmt::Display for LaunchError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Spawn(error) => error.fmt(formatter),
            Self::Ended(status, log) => write!(formatter, "the node ended ({status}):\n{log}"),
            Self::Silent(log) => {
                write!(
                    formatter,
                    "the node does not listen after {PATIENCE:?}:\n{log}"
                )
            }
        }
    }
}

impl std::error::Error for LaunchError {}

/// A running node. It ends when this value is dropped.
#[derive(Debug)]
pub struct Node {
    pub process: Process,
    pub address: SocketAddr,
    pub admin: SocketAddr,
    log: Log,
    log_is_paused: Arc<AtomicBool>,
}

/// Lines of stderr.
type Log = Arc<Mutex<Vec<String>>>;

impl Launch {
    pub fn new(redis: Option<&Redis>, settings: &[(&str, &str)]) -> Self {
        Self {
            redis_url: redis.map(Redis::url),
            settings: owned(settings),
            ..Self::default()
        }
    }

    #[must_use]
    pub fn environment(mut self, environment: &[(&str, &str)]) -> Self {
        self.environment = owned(environment);
        self
    }

    /// Starts it on free ports of 127.0.0.1, and waits until it listens. Its log is kept.
    pub async fn start(self) -> Result<Node, LaunchError> {
        let listen = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
        let log_format = ["--set", "log.format=json"];
        let args: Vec<&str> = [&listen[..], &log_format[..]].concat();
        let mut process = self.spawn(&args, Stdio::piped())?;
        let (log, log_is_paused) = (Log::default(), Arc::new(AtomicBool::new(false)));
        let stderr = process.take_stderr().expect("stderr is piped");
        std::thread::spawn({
            let (log, is_paused) = (Arc::clone(&log), Arc::clone(&log_is_paused));
            move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    lock(&log).push(line);
                    while is_paused.load(Ordering::SeqCst) {
                        std::thread::sleep(POLL_EVERY);
                    }
                }
            }
        });
        let start = Instant::now();
        loop {
            let addresses = lock(&log).iter().find_map(|line| addresses(line));
            if let Some((address, admin)) = addresses {
                return Ok(Node {
                    process,
                    address,
                    admin,
                    log,
                    log_is_paused,
                });
            }
            if let Some(status) = process.exit_status() {
                return Err(LaunchError::Ended(status, lock(&log).join("\n")));
            }
            if start.elapsed() > PATIENCE {
                return Err(LaunchError::Silent(lock(&log).join("\n")));
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
    }

    /// Starts it at these addresses, and waits until it is ready. Its log goes to stderr of this process.
    pub async fn start_at(
        self,
        address: SocketAddr,
        admin: SocketAddr,
    ) -> Result<Node, LaunchError> {
        let (listen, admin_listen) = (address.to_string(), admin.to_string());
        let args = ["--listen", &listen, "--admin-listen", &admin_listen];
        let mut process = self.spawn(&args, Stdio::inherit())?;
        let start = Instant::now();
        while http::status(admin, "/readyz").await != Some(200) {
            let on_stderr = || "its log is above".to_owned();
            if let Some(status) = process.exit_status() {
                return Err(LaunchError::Ended(status, on_stderr()));
            }
            if start.elapsed() > PATIENCE {
                return Err(LaunchError::Silent(on_stderr()));
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
        Ok(Node {
            process,
            address,
            admin,
            log: Log::default(),
            log_is_paused: Arc::default(),
        })
    }

    fn spawn(&self, args: &[&str], stderr: Stdio) -> Result<Process, LaunchError> {
        let binary = self.binary.clone().unwrap_or_else(binary);
        let program = binary.to_str().expect("the binary's path is UTF-8");
        let configure = |command: &mut Command| {
            command.args(args).stderr(stderr);
            if let Some(url) = &self.redis_url {
                command.args(["--redis-url", url]);
            }
            for (key, value) in &self.settings {
                command.args(["--set", &format!("{key}={value}")]);
            }
            for (key, value) in &self.environment {
                command.env(key, value);
            }
        };
        let process = match &self.resolver {
            Some(resolver) => {
                let resolver = resolver.to_str().expect("its path is UTF-8");
                let wrapper = ["unshare", "--mount", "sh", "-c", WITH_RESOLVER, resolver];
                Process::start_within(&wrapper, program, configure)
            }
            None => Process::start_with_open_files(self.open_files, program, configure),
        };
        process.map_err(LaunchError::Spawn)
    }
}

impl Node {
    /// Starts a node, alone or with a Redis, and waits until it is ready.
    pub async fn start(redis: Option<&Redis>, settings: &[(&str, &str)]) -> Self {
        Self::start_in(redis, settings, &[]).await
    }

    /// Like [`start`](Self::start), with environment variables.
    pub async fn start_in(
        redis: Option<&Redis>,
        settings: &[(&str, &str)],
        environment: &[(&str, &str)],
    ) -> Self {
        let launch = Launch::new(redis, settings).environment(environment);
        let node = launch
            .start()
            .await
            .unwrap_or_else(|error| panic!("{error}"));
        node.becomes_ready().await;
        node
    }

    /// Like [`start`](Self::start), and waits only until it listens.
    pub async fn start_unready(redis: Option<&Redis>, settings: &[(&str, &str)]) -> Self {
        let started = Launch::new(redis, settings).start().await;
        started.unwrap_or_else(|error| panic!("{error}"))
    }

    pub async fn becomes_ready(&self) {
        let ready = async || (http::status(self.admin, "/readyz").await == Some(200)).then_some(());
        eventually("the node is ready", ready).await;
    }

    /// What it has logged, one JSON object a line. Empty after [`Launch::start_at`].
    pub fn log(&self) -> String {
        lock(&self.log).join("\n")
    }

    /// The lines of [`log`](Self::log).
    pub fn log_lines(&self) -> Vec<String> {
        lock(&self.log).clone()
    }

    /// Stops reading its stderr, so that the pipe fills; or reads on.
    pub fn pause_log(&self, paused: bool) {
        self.log_is_paused.store(paused, Ordering::SeqCst);
    }

    /// `GET /metrics`: Prometheus text.
    pub async fn metrics(&self) -> String {
        let answer = http::get(self.admin, "/metrics").await;
        answer.expect("the node answers").body
    }

    /// `GET /status`.
    pub async fn status(&self) -> Value {
        let answer = http::get(self.admin, "/status").await;
        answer.expect("the node answers").json()
    }
}

fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

fn lock(log: &Mutex<Vec<String>>) -> MutexGuard<'_, Vec<String>> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The addresses of the log line that a node writes once it listens.
fn addresses(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let line: Value = serde_json::from_str(line).ok()?;
    let address = |field: &str| line[field].as_str()?.parse().ok();
    Some((address("listen")?, address("admin")?))
}
