//! Real processes: redis-server and nodes, on free ports, gone with the test.

use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::eventually;

/// A process that dies with its owner, and with the test if that is killed.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

impl Process {
    pub fn spawn(command: &mut Command) -> Self {
        let mut wrapped = Command::new("setpriv");
        wrapped
            .args(["--pdeathsig", "KILL", "--"])
            .arg(command.get_program())
            .args(command.get_args());
        for (key, value) in command.get_envs() {
            wrapped.env(key, value.expect("only set"));
        }
        let child = wrapped
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        Self {
            child: child.expect("setpriv (util-linux) and the program can be started"),
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by its name, such as KILL or STOP.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([&format!("-{name}"), &self.id().to_string()])
            .status()
            .unwrap();
        assert!(sent.success(), "kill -{name}");
    }

    /// Waits until it has ended; its exit code.
    pub async fn ended(&mut self) -> Option<i32> {
        let status = eventually("the process ends", async || self.child.try_wait().unwrap()).await;
        status.code()
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Resident memory in KiB.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A process that has ended already is not there to be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A redis-server of the test's own, without persistence.
#[derive(Debug)]
pub struct Redis {
    pub process: Process,
    pub port: u16,
}

impl Redis {
    pub async fn start() -> Self {
        for _ in 0..10 {
            let port = TcpListener::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap()
                .port();
            if let Some(redis) = Self::start_on(port).await {
                return redis;
            }
        }
        panic!("redis-server does not start: run `make setup`");
    }

    async fn start_on(port: u16) -> Option<Self> {
        // A replica writes down what it is sent; whoever starts in its place must not read it.
        let directory = env!("CARGO_TARGET_TMPDIR");
        let file = format!("{port}.rdb");
        let _ = std::fs::remove_file(std::path::Path::new(directory).join(&file));
        let mut command = Command::new("redis-server");
        command.args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
            "--dir",
            directory,
            "--dbfilename",
            &file,
        ]);
        let mut redis = Self {
            process: Process::spawn(&mut command),
            port,
        };
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(10) {
            if redis.process.child.try_wait().unwrap().is_some() {
                // Somebody else was given the port meanwhile.
                return None;
            }
            if redis.try_ask("PING").await.is_some() {
                return Some(redis);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        None
    }

    /// Kills it and starts another, empty, in its place.
    pub async fn is_replaced(&mut self) {
        self.dies().await;
        self.returns_empty().await;
    }

    pub async fn dies(&mut self) {
        self.process.signal("KILL");
        self.process.ended().await;
    }

    /// Another starts in its place, which knows nothing.
    pub async fn returns_empty(&mut self) {
        *self = Self::start_on(self.port)
            .await
            .expect("the port is free again");
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub async fn connection(&self) -> redis::aio::MultiplexedConnection {
        let client = redis::Client::open(self.url()).unwrap();
        client.get_multiplexed_async_connection().await.unwrap()
    }

    /// Asks something, words separated by spaces.
    pub async fn ask(&self, words: &str) -> redis::Value {
        self.try_ask(words)
            .await
            .unwrap_or_else(|| panic!("Redis does not answer {words}"))
    }

    /// The same, of one that may not answer now.
    pub async fn try_ask(&self, words: &str) -> Option<redis::Value> {
        let client = redis::Client::open(self.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.ok()?;
        let mut words = words.split(' ');
        let mut command = redis::cmd(words.next().unwrap());
        for word in words {
            command.arg(word);
        }
        command.query_async(&mut connection).await.ok()
    }

    /// Every key with what is left of its life in ms (-1: for ever).
    pub async fn keys(&self) -> Vec<(String, i64)> {
        let mut connection = self.connection().await;
        let keys: Vec<String> = redis::cmd("KEYS")
            .arg("*")
            .query_async(&mut connection)
            .await
            .unwrap();
        let mut with_life = Vec::new();
        for key in keys {
            let life: i64 = redis::cmd("PTTL")
                .arg(&key)
                .query_async(&mut connection)
                .await
                .unwrap();
            if life != -2 {
                with_life.push((key, life));
            }
        }
        with_life
    }
}

/// A node in a process of its own.
#[derive(Debug)]
pub struct Node {
    pub process: Process,
    pub address: SocketAddr,
    pub admin: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
}

impl Node {
    /// Starts the real binary, alone or at a Redis, with these settings.
    pub async fn start(redis: Option<&Redis>, settings: &[(&str, &str)]) -> Self {
        Self::start_in(redis, settings, &[]).await
    }

    /// The same, in this environment.
    pub async fn start_in(
        redis: Option<&Redis>,
        settings: &[(&str, &str)],
        environment: &[(&str, &str)],
    ) -> Self {
        let node = Self::launch(redis, settings, environment).await;
        node.is_ready().await;
        node
    }

    /// Starts it without waiting until it is ready.
    pub async fn begin(redis: Option<&Redis>, settings: &[(&str, &str)]) -> Self {
        Self::launch(redis, settings, &[]).await
    }

    pub async fn is_ready(&self) {
        let ready =
            async || (super::http::status(self.admin, "/readyz").await == Some(200)).then_some(());
        eventually("the node is ready", ready).await;
    }

    async fn launch(
        redis: Option<&Redis>,
        settings: &[(&str, &str)],
        environment: &[(&str, &str)],
    ) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_switchboard"));
        command.envs(environment.iter().copied());
        command.args([
            "--listen",
            "127.0.0.1:0",
            "--admin-listen",
            "127.0.0.1:0",
            "--set",
            "log.format=json",
        ]);
        if let Some(redis) = redis {
            command.args(["--redis-url", &redis.url()]);
        }
        for (key, value) in settings {
            command.args(["--set", &format!("{key}={value}")]);
        }
        command.envs(environment.iter().copied());
        let mut process = Process::spawn(&mut command);
        let log = Arc::<Mutex<Vec<String>>>::default();
        let lines = BufReader::new(process.child.stderr.take().unwrap()).lines();
        std::thread::spawn({
            let log = Arc::clone(&log);
            move || {
                for line in lines.map_while(Result::ok) {
                    log.lock().unwrap().push(line);
                }
            }
        });
        let listening = async || {
            let lines = log.lock().unwrap();
            lines.iter().find_map(|line| {
                let line: Value = serde_json::from_str(line).ok()?;
                Some((
                    line["listen"].as_str()?.parse().ok()?,
                    line["admin"].as_str()?.parse().ok()?,
                ))
            })
        };
        let (address, admin) = eventually("the node listens", listening).await;
        Self {
            process,
            address,
            admin,
            log,
        }
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// What Prometheus reads.
    pub async fn metrics(&self) -> String {
        let answer = super::http::get(self.admin, "/metrics", "").await;
        let answer = answer.expect("the node answers");
        answer.split("\r\n\r\n").nth(1).unwrap().to_owned()
    }

    /// How the node describes itself.
    pub async fn status(&self) -> Value {
        let answer = super::http::get(self.admin, "/status", "")
            .await
            .expect("the node answers");
        serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap()
    }
}
