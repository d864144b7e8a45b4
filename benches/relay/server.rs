//! The servers under test, each started fresh.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use testing::node::{Launch, binary};
use testing::ports::free_address;
use testing::tokens::{Issuer, claims};
use testing::{Process, Redis};

use crate::Outcome;
use crate::collector::{self, Manner};
use crate::peers::Peer;
use crate::wrap::Wrap;

const TUTORIAL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/tutorial");
const PEERSERVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peerserver");
const READY_WITHIN: Duration = Duration::from_secs(10);

/// A server that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// The tutorial's Node.js server: one process.
    Tutorial,
    /// Two nodes and their Redis, with plain sessions, or with resumable ones as the client library uses them.
    Switchboard { resumable: bool },
    /// The original server of PeerJS: one process.
    PeerServer,
    /// Two nodes and their Redis, with PeerJS clients.
    PeerJs,
    /// Two nodes and their Redis that need a token (`EdDSA`) of each client.
    Tokens,
    /// Two nodes of another binary, whose path is in `BEFORE`.
    Before { resumable: bool },
    /// Two nodes of another make and their Redis.
    Peer(Peer),
    /// Two nodes and their Redis that trace one call in a hundred, or all.
    Traced { all: bool, collector: Manner },
}

/// A token, and the file with the key that verifies it.
struct Issued {
    token: String,
    key: String,
    _folder: tempfile::TempDir,
}

static ISSUED: LazyLock<Issued> = LazyLock::new(|| {
    let issuer = Issuer::new("EdDSA");
    let folder = tempfile::tempdir().expect("a folder for a key");
    let path = folder.path().join("key.pem");
    std::fs::write(&path, issuer.pem()).expect("a file for a key");
    Issued {
        token: issuer.sign(&claims("*")),
        key: path.to_string_lossy().into_owned(),
        _folder: folder,
    }
});

impl Subject {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tutorial => "tutorial",
            Self::Switchboard { resumable: false } => "switchboard",
            Self::Switchboard { resumable: true } => "resumable",
            Self::PeerServer => "peerserver",
            Self::PeerJs => "peerjs",
            Self::Tokens => "tokens",
            Self::Peer(peer) => peer.name(),
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
            Self::Tokens,
            Self::Before { resumable: false },
            Self::Before { resumable: true },
        ]
        .into_iter()
        .chain(Peer::ALL.map(Self::Peer))
        .chain(traced);
        all.find(|subject| subject.name() == name.trim())
            .ok_or_else(|| format!("SUBJECTS={name}: there is no such subject").into())
    }

    pub(crate) fn speaks_peerjs(self) -> bool {
        matches!(self, Self::PeerServer | Self::PeerJs)
    }

    /// The token that its clients log in with: anybody's, so that one is enough.
    pub(crate) fn token(self) -> Option<&'static str> {
        (self == Self::Tokens).then(|| &*ISSUED.token)
    }

    /// Whether its clients log in as the client library does, and their signals carry ids.
    pub(crate) fn is_resumable(self) -> bool {
        matches!(
            self,
            Self::Switchboard { resumable: true } | Self::Before { resumable: true }
        )
    }

    pub(crate) fn wrap(self) -> Wrap {
        match self {
            Self::Peer(peer) => peer.wrap(),
            _ => Wrap::None,
        }
    }

    /// The same subject with the other binary.
    pub(crate) fn before(self) -> Option<Self> {
        match self {
            Self::Switchboard { resumable } => Some(Self::Before { resumable }),
            _ => None,
        }
    }

    /// Starts fresh processes and waits until they are ready.
    pub(crate) async fn start(self) -> Outcome<Servers> {
        match self {
            Self::Tutorial => start_node_js("the tutorial's server", TUTORIAL).await,
            Self::PeerServer => start_node_js("PeerServer", PEERSERVER).await,
            Self::Peer(peer) => peer.start().await,
            Self::Switchboard { .. } => start_switchboard(binary(), &[]).await,
            Self::PeerJs => {
                // The clients of this benchmark send no heartbeats.
                let patient = [("SWITCHBOARD_PEERJS__ALIVE_TIMEOUT", "1h")];
                start_switchboard(binary(), &patient).await
            }
            Self::Tokens => {
                let needed = [
                    ("SWITCHBOARD_AUTH__MODE", "required"),
                    ("SWITCHBOARD_AUTH__JWT__KEYS", &*ISSUED.key),
                ];
                start_switchboard(binary(), &needed).await
            }
            Self::Before { .. } => {
                let before = std::env::var("BEFORE");
                let before =
                    before.map_err(|_| "set BEFORE to the path of a switchboard binary")?;
                start_switchboard(before.into(), &[]).await
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
                start_switchboard(binary(), &environment).await
            }
        }
    }
}

/// A server process of a subject.
pub(crate) struct Server {
    /// Whether clients connect to it.
    pub(crate) is_node: bool,
    pub(crate) pid: u32,
}

/// Running processes. They end with this value, or with the thread that started them.
pub(crate) struct Servers {
    pub(crate) processes: Vec<Server>,
    /// Where the caller of each pair connects, and where the callee does.
    pub(crate) endpoints: [SocketAddr; 2],
    // Keep the processes alive.
    pub(crate) _others: Vec<Process>,
    pub(crate) _nodes: Vec<testing::Node>,
    pub(crate) _redis: Option<Redis>,
}

/// Fails if a program or an npm package is missing.
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
    for peer in Peer::ALL {
        let needed = peer.needs();
        if subjects.contains(&Subject::Peer(peer)) && !needed.exists() {
            let needed = needed.display();
            return Err(format!(
                "{} lacks {needed}: run `make setup-bench-peers` first",
                peer.name()
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
        found.map_err(|error| {
            format!("cannot run `{program}` ({what}): {error}; run `make setup-bench`")
        })?;
    }
    Ok(())
}

async fn start_node_js(what: &str, directory: &str) -> Outcome<Servers> {
    let address = free_address()?;
    let process = Process::start("node", |command| {
        command
            .arg("server.mjs")
            .current_dir(directory)
            .env("HOST", address.ip().to_string())
            .env("PORT", address.port().to_string());
        // stdout is for the results.
        command.stdout(std::io::stderr()).stderr(Stdio::inherit());
    })?;
    let start = Instant::now();
    while TcpStream::connect(address).is_err() {
        if start.elapsed() > READY_WITHIN {
            return Err(format!("{what} was not ready within {READY_WITHIN:?}").into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(Servers {
        processes: vec![Server {
            is_node: true,
            pid: process.id(),
        }],
        endpoints: [address, address],
        _others: vec![process],
        _nodes: Vec::new(),
        _redis: None,
    })
}

async fn start_switchboard(binary: PathBuf, environment: &[(&str, &str)]) -> Outcome<Servers> {
    let redis = Redis::start().await;
    let start = async |name: &str| -> Outcome<testing::Node> {
        let settings = [
            ("limits.signals_per_second", "0"),
            ("node_id", name),
            ("log.level", "error"),
        ];
        let mut launch = Launch::new(Some(&redis), &settings).environment(environment);
        launch.binary = Some(binary.clone());
        Ok(launch.start_at(free_address()?, free_address()?).await?)
    };
    let nodes = [start("node1").await?, start("node2").await?];
    let server = |process: &Process, is_node| Server {
        is_node,
        pid: process.id(),
    };
    Ok(Servers {
        processes: vec![
            server(&nodes[0].process, true),
            server(&nodes[1].process, true),
            server(&redis.process, false),
        ],
        endpoints: [nodes[0].address, nodes[1].address],
        _others: Vec::new(),
        _nodes: nodes.into(),
        _redis: Some(redis),
    })
}
