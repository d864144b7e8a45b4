//! Processes under test: started through `setpriv`, so that they die with us, and signalled by their own pid.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::Outcome;
use crate::ports::own_host;

const STARTS_WITHIN: Duration = Duration::from_secs(8);
const POLL: Duration = Duration::from_millis(10);

/// A process that ends with its value.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
}

impl Process {
    fn spawn(program: &str, configure: impl FnOnce(&mut Command)) -> Outcome<Self> {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", program]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        configure(&mut command);
        let child = command
            .spawn()
            .map_err(|error| format!("{program} did not start: {error}"))?;
        Ok(Self { child })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by its name, such as KILL or STOP.
    pub(crate) fn signal(&self, name: &str) -> Outcome<()> {
        let pid = self.id().to_string();
        let sent = Command::new("kill")
            .args([&format!("-{name}"), &pid])
            .status()?;
        if sent.success() {
            Ok(())
        } else {
            Err(format!("kill -{name} {pid} failed").into())
        }
    }

    /// How it has ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok()?
    }

    pub(crate) async fn ends_within(&mut self, time: Duration) -> Option<ExitStatus> {
        let begun = Instant::now();
        loop {
            let ended = self.ended();
            if ended.is_some() || begun.elapsed() > time {
                return ended;
            }
            sleep(POLL).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended already is not there to be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Resident memory in KiB.
pub(crate) fn memory(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// A redis-server without persistence.
#[derive(Debug)]
pub(crate) struct Redis {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
}

impl Redis {
    /// Starts one on this port, following a primary or not.
    pub(crate) async fn start(port: u16, primary: Option<SocketAddr>) -> Outcome<Self> {
        // A replica writes down what it is sent; whoever starts in its place must not read it.
        let directory = env!("CARGO_TARGET_TMPDIR");
        let file = format!("torture-{}-{port}.rdb", std::process::id());
        let _ = std::fs::remove_file(std::path::Path::new(directory).join(&file));
        let process = Process::spawn("redis-server", |command| {
            command
                .args(["--dir", directory, "--dbfilename", &file])
                .args(["--port", &port.to_string()])
                .args(["--bind", &own_host().to_string()])
                .args(["--save", "", "--appendonly", "no"])
                .args(["--repl-diskless-sync-delay", "0"]);
            if let Some(primary) = primary {
                let (host, port) = (primary.ip().to_string(), primary.port().to_string());
                command.args(["--replicaof", &format!("{host} {port}")]);
            }
            command.stderr(Stdio::null());
        })?;
        let mut redis = Self {
            process,
            address: (own_host(), port).into(),
        };
        let begun = Instant::now();
        while redis.ask("PING").await.is_none() {
            if redis.process.ended().is_some() || begun.elapsed() > STARTS_WITHIN {
                return Err(format!("redis-server does not start on port {port}").into());
            }
            sleep(POLL).await;
        }
        Ok(redis)
    }

    /// Asks something, words separated by spaces; nothing if there is no answer within a second.
    pub(crate) async fn ask(&self, words: &str) -> Option<redis::Value> {
        ask(self.address, words).await
    }
}

/// The same where only the address is known.
pub(crate) async fn ask(address: SocketAddr, words: &str) -> Option<redis::Value> {
    let asking = async {
        let client = redis::Client::open(format!("redis://{address}")).ok()?;
        let mut connection = client.get_multiplexed_async_connection().await.ok()?;
        let mut words = words.split(' ');
        let mut command = redis::cmd(words.next().unwrap_or_default());
        for word in words {
            command.arg(word);
        }
        command.query_async(&mut connection).await.ok()
    };
    timeout(Duration::from_secs(1), asking).await.ok()?
}

/// How a node exits that finds no Redis.
const REDIS_AWAY: i32 = 69;

/// A node of the real binary.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
}

impl Node {
    /// Starts one and waits until it listens. Nothing if it ends since Redis does not answer.
    pub(crate) async fn start(
        redis: SocketAddr,
        settings: &[(&str, &str)],
        environment: &[(String, String)],
    ) -> Outcome<Option<Self>> {
        let mut process = Process::spawn(env!("CARGO_BIN_EXE_switchboard"), |command| {
            command
                .args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
                .args(["--redis-url", &format!("redis://{redis}")]);
            for (key, value) in settings {
                command.args(["--set", &format!("{key}={value}")]);
            }
            for (key, value) in environment {
                command.env(key, value);
            }
        })?;
        let log = Arc::<Mutex<Vec<String>>>::default();
        let stderr = process.child.stderr.take().ok_or("no stderr")?;
        std::thread::spawn({
            let log = Arc::clone(&log);
            move || {
                for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                    lock(&log).push(line);
                }
            }
        });
        let begun = Instant::now();
        loop {
            let found = lock(&log).iter().find_map(|line| addresses(line));
            if let Some((address, admin)) = found {
                return Ok(Some(Self {
                    process,
                    address,
                    admin,
                    log,
                }));
            }
            let ended = process.ended();
            if ended.is_some_and(|status| status.code() == Some(REDIS_AWAY)) {
                return Ok(None);
            }
            if ended.is_some() || begun.elapsed() > STARTS_WITHIN {
                let said = lock(&log).join("\n");
                return Err(format!("a node does not start:\n{said}").into());
            }
            sleep(POLL).await;
        }
    }

    pub(crate) fn log(&self) -> Vec<String> {
        lock(&self.log).clone()
    }
}

fn lock(log: &Mutex<Vec<String>>) -> MutexGuard<'_, Vec<String>> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

fn addresses(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let line: Value = serde_json::from_str(line).ok()?;
    let address = |field: &str| line[field].as_str()?.parse().ok();
    Some((address("listen")?, address("admin")?))
}

/// The status of a GET; nothing if there was no answer in time.
pub(crate) async fn http_status(address: SocketAddr, path: &str, within: Duration) -> Option<u16> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let asking = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.ok()?;
        std::str::from_utf8(&head).ok()?.get(9..)?.parse().ok()
    };
    timeout(within, asking).await.ok()?
}
