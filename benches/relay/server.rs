//! The processes under test: started fresh, waited for, killed by their own pid.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::Outcome;
use crate::collector::{self, Manner};
use crate::ports::free_address;

const TUTORIAL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/tutorial");
const PEERSERVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peerserver");
const SWITCHBOARD: &str = env!("CARGO_BIN_EXE_switchboard");
const READY_WITHIN: Duration = Duration::from_secs(10);

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// The tutorial's Node.js server: one process.
    Tutorial,
    /// Two nodes and their Redis, with plain sessions or with resumable ones, as the client library has them.
    Switchboard { resumable: bool },
    /// The original server of PeerJS: one process.
    PeerServer,
    /// Two nodes and their Redis, spoken to in the language of PeerJS.
    PeerJs,
    /// The same, of another binary: `BEFORE` has its path.
    Before { resumable: bool },
    /// Two nodes and their Redis, with one call in a hundred traced, or with all.
    Traced { all: bool, collector: Manner },
}

impl Subject {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tutorial => "tutorial",
            Self::Switchboard { resumable: false } => "switchboard",
            Self::Switchboard { resumable: true } => "resumable",
            Self::PeerServer => "peerserver",
            Self::PeerJs => "peerjs",
            Self::Before { resumable: false } => "before",
            Self::Before { resumable: true } => "before-resumable",
            Self::Traced {
                all: false,
                collector: Manner::Kind,
            } => "sampled",
            Self::Traced {
                all: false,
                collector: Manner::Refusing,
            } => "sampled-refused",
            Self::Traced {
                all: false,
                collector: Manner::Slow,
            } => "sampled-slow",
            Self::Traced {
                all: false,
                collector: Manner::Gone,
            } => "sampled-gone",
            Self::Traced {
                all: true,
                collector: Manner::Kind,
            } => "traced",
            Self::Traced {
                all: true,
                collector: Manner::Refusing,
            } => "traced-refused",
            Self::Traced {
                all: true,
                collector: Manner::Slow,
            } => "traced-slow",
            Self::Traced {
                all: true,
                collector: Manner::Gone,
            } => "traced-gone",
        }
    }

    pub(crate) fn named(name: &str) -> Outcome<Self> {
        let manners = [Manner::Kind, Manner::Refusing, Manner::Slow, Manner::Gone];
        let traced = [false, true].into_iter().flat_map(|all| {
            manners
                .into_iter()
                .map(move |collector| Self::Traced { all, collector })
        });
        let mut all = [
            Self::Tutorial,
            Self::Switchboard { resumable: false },
            Self::Switchboard { resumable: true },
            Self::PeerServer,
            Self::PeerJs,
            Self::Before { resumable: false },
            Self::Before { resumable: true },
        ]
        .into_iter()
        .chain(traced);
        all.find(|subject| subject.name() == name.trim())
            .ok_or_else(|| format!("SUBJECTS={name}: nobody is called that").into())
    }

    pub(crate) fn speaks_peerjs(self) -> bool {
        matches!(self, Self::PeerServer | Self::PeerJs)
    }

    /// Whether its clients log in as the client library does, and their signals carry ids.
    pub(crate) fn is_resumable(self) -> bool {
        matches!(
            self,
            Self::Switchboard { resumable: true } | Self::Before { resumable: true }
        )
    }

    /// The same with the other binary.
    pub(crate) fn before(self) -> Option<Self> {
        match self {
            Self::Switchboard { resumable } => Some(Self::Before { resumable }),
            _ => None,
        }
    }

    /// Starts fresh processes and waits until they can be used.
    pub(crate) fn start(self) -> Outcome<Servers> {
        match self {
            Self::Tutorial => start_node_js("the tutorial's server", TUTORIAL),
            Self::PeerServer => start_node_js("PeerServer", PEERSERVER),
            Self::Switchboard { .. } => start_switchboard(SWITCHBOARD, &[]),
            Self::PeerJs => {
                // These clients send no heartbeat.
                let patient = [("SWITCHBOARD_PEERJS__ALIVE_TIMEOUT", "1h")];
                start_switchboard(SWITCHBOARD, &patient)
            }
            Self::Before { .. } => {
                let binary = std::env::var("BEFORE");
                let binary = binary.map_err(|_| "BEFORE is to be the path of a switchboard")?;
                start_switchboard(&binary, &[])
            }
            Self::Traced { all, collector } => {
                let endpoint = format!("http://{}", collector::start(collector)?);
                let ratio = if all { "1" } else { "0.01" };
                let environment = [
                    ("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint),
                    ("OTEL_METRICS_EXPORTER", "none"),
                    ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
                    ("OTEL_TRACES_SAMPLER_ARG", ratio),
                ];
                start_switchboard(SWITCHBOARD, &environment)
            }
        }
    }
}

/// Running processes. They end with this value, or with the thread that started them.
pub(crate) struct Servers {
    pub(crate) processes: Vec<Process>,
    /// Where the caller of each pair connects, and where the one that is called does.
    pub(crate) endpoints: [SocketAddr; 2],
    _directory: Option<TempDir>,
}

pub(crate) struct Process {
    /// Whether clients are connected to it.
    pub(crate) is_node: bool,
    child: Child,
}

impl Process {
    fn start(
        role: &'static str,
        is_node: bool,
        program: &str,
        configure: impl FnOnce(&mut Command),
    ) -> Outcome<Self> {
        // `setpriv` becomes the program, with the same pid; the kernel kills it should this benchmark be killed.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "--", program])
            .stdin(Stdio::null());
        // stdout is for the results.
        command.stdout(std::io::stderr());
        configure(&mut command);
        let child = command
            .spawn()
            .map_err(|error| format!("{role} did not start: {error}"))?;
        Ok(Self { is_node, child })
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

/// Says what is missing before anything is started.
pub(crate) fn check(subjects: &[Subject]) -> Outcome<()> {
    for (subject, directory, package) in [
        (Subject::Tutorial, TUTORIAL, "ws"),
        (Subject::PeerServer, PEERSERVER, "peer"),
    ] {
        let modules = Path::new(directory).join("node_modules");
        if subjects.contains(&subject) && !modules.join(package).is_dir() {
            return Err(format!(
                "{} lacks its npm package `{package}`: run `make setup-bench` first (npm ci in {directory})",
                subject.name()
            )
            .into());
        }
    }
    for (program, what) in [
        ("node", "Node.js"),
        ("redis-server", "Redis"),
        ("setpriv", "util-linux"),
    ] {
        let found = Command::new(program)
            .arg("--version")
            .stdout(Stdio::null())
            .status();
        found.map_err(|error| format!("`{program}` ({what}) cannot be run: {error}"))?;
    }
    Ok(())
}

fn start_node_js(what: &str, directory: &str) -> Outcome<Servers> {
    let door = free_address()?;
    let server = Process::start("node.js", true, "node", |command| {
        command
            .arg("server.mjs")
            .current_dir(directory)
            .env("HOST", door.ip().to_string())
            .env("PORT", door.port().to_string());
    })?;
    wait_until(what, || TcpStream::connect(door).is_ok())?;
    Ok(Servers {
        processes: vec![server],
        endpoints: [door, door],
        _directory: None,
    })
}

fn start_switchboard(binary: &str, environment: &[(&str, &str)]) -> Outcome<Servers> {
    let directory = TempDir::new()?;
    let redis_door = free_address()?;
    let redis = Process::start("redis", false, "redis-server", |command| {
        command.args([
            "--bind",
            &redis_door.ip().to_string(),
            "--port",
            &redis_door.port().to_string(),
        ]);
        command.args(["--save", "", "--appendonly", "no", "--loglevel", "warning"]);
        command
            .args(["--logfile", "redis.log", "--dir"])
            .arg(directory.path());
    })?;
    wait_until("Redis", || answers(redis_door, "PING\r\n", "+PONG"))?;
    let (first, first_door) = start_node("node 1", redis_door, binary, environment)?;
    let (second, second_door) = start_node("node 2", redis_door, binary, environment)?;
    Ok(Servers {
        processes: vec![first, second, redis],
        endpoints: [first_door, second_door],
        _directory: Some(directory),
    })
}

fn start_node(
    role: &'static str,
    redis: SocketAddr,
    binary: &str,
    environment: &[(&str, &str)],
) -> Outcome<(Process, SocketAddr)> {
    let (door, admin) = (free_address()?, free_address()?);
    let node = Process::start(role, true, binary, |command| {
        command.envs(environment.iter().copied());
        command.env("SWITCHBOARD_LISTEN", door.to_string());
        command.env("SWITCHBOARD_ADMIN__LISTEN", admin.to_string());
        command.env("SWITCHBOARD_REDIS__URL", format!("redis://{redis}"));
        command.env("SWITCHBOARD_LIMITS__SIGNALS_PER_SECOND", "0");
        command.env("SWITCHBOARD_NODE_ID", role.replace(' ', ""));
        command.env("SWITCHBOARD_LOG__LEVEL", "error");
    })?;
    let question = format!("GET /readyz HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    wait_until(role, || answers(admin, &question, "HTTP/1.1 200"))?;
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
