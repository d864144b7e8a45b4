//! HAProxy with `deploy/haproxy/haproxy.cfg`, on free ports and with the test's nodes as servers.

use std::net::{SocketAddr, TcpListener};

use testing::{Node, Process};
use testing::{eventually, http};

const SHIPPED: &str = include_str!("../../deploy/haproxy/haproxy.cfg");

/// How the nodes learn where a client comes from.
#[derive(Clone, Copy, Debug)]
pub enum Tells {
    Nothing,
    Header,
    ProxyProtocol,
}

impl Tells {
    /// The line of the shipped file that is a comment.
    fn line(self) -> &'static str {
        match self {
            Self::Nothing => "",
            Self::Header => "#  option forwardfor\n",
            Self::ProxyProtocol => "#  default-server send-proxy-v2\n",
        }
    }
}

#[derive(Debug)]
pub struct Haproxy {
    /// Where clients connect.
    pub address: SocketAddr,
    /// The statistics page.
    pub operators: SocketAddr,
    _process: Process,
    _folder: tempfile::TempDir,
}

/// The state of a node according to HAProxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    pub sessions: u32,
    pub is_up: bool,
}

impl Haproxy {
    pub async fn before(nodes: &[Node]) -> Self {
        Self::telling(Tells::Nothing, nodes).await
    }

    /// One that tells the nodes where clients come from.
    pub async fn telling(tells: Tells, nodes: &[Node]) -> Self {
        for _ in 0..5 {
            if let Some(started) = Self::try_before(tells, nodes).await {
                return started;
            }
        }
        panic!("haproxy does not start: run `make setup`");
    }

    /// `None` if another process took a port meanwhile.
    async fn try_before(tells: Tells, nodes: &[Node]) -> Option<Self> {
        let (address, operators) = (free(), free());
        let servers: Vec<String> = nodes
            .iter()
            .enumerate()
            .map(|(number, node)| {
                let (client, admin) = (node.address, node.admin.port());
                format!("  server node{number} {client} port {admin}")
            })
            .collect();
        let shipped = SHIPPED.replace(tells.line(), tells.line().trim_start_matches('#'));
        let config: Vec<String> = shipped
            .lines()
            .map(
                |line| match line.split_whitespace().collect::<Vec<_>>()[..] {
                    ["bind", ":9090"] => format!("  bind {address}"),
                    ["bind", ":8404"] => format!("  bind {operators}"),
                    ["server-template", ..] => servers.join("\n"),
                    _ => line.to_owned(),
                },
            )
            .collect();
        let changed = config.iter().zip(shipped.lines());
        let changed = changed.filter(|(ours, shipped)| ours != shipped).count();
        assert_eq!(
            changed, 3,
            "two endpoints and the servers are ours, all else is as shipped"
        );
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("haproxy.cfg");
        std::fs::write(&file, config.join("\n") + "\n").unwrap();
        let mut process = Process::start("haproxy", |command| {
            command.arg("-db").arg("-f").arg(&file);
        })
        .unwrap();
        let up = eventually("HAProxy has found its nodes, or ended", async || {
            if process.exit_status().is_some() {
                return Some(false);
            }
            let healthy = http::status(operators, "/healthz").await == Some(200);
            healthy.then_some(true)
        })
        .await;
        let haproxy = Self {
            address,
            operators,
            _process: process,
            _folder: folder,
        };
        if !up {
            return None;
        }
        Some(haproxy)
    }

    /// The state of the nodes, in their order.
    pub async fn servers(&self) -> Vec<Server> {
        let page = http::get(self.operators, "/stats;csv").await.unwrap();
        page.body
            .lines()
            .map(|line| line.split(',').collect::<Vec<_>>())
            .filter(|fields| fields[0] == "nodes" && fields[1].starts_with("node"))
            .map(|fields| Server {
                sessions: fields[4].parse().unwrap(),
                is_up: fields[17].starts_with("UP"),
            })
            .collect()
    }
}

fn free() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}
