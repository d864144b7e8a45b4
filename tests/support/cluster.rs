//! Several nodes in the test's own process, on the embedded switch or on a real Redis.

use std::collections::HashMap;
use std::net::SocketAddr;

use switchboard::app::App;
use switchboard::broker::memory::MemoryBroker;
use switchboard::config::{Config, Sources};
use switchboard::model::NodeId;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::peer::Peer;
use super::process::Redis;

/// What joins the nodes of a cluster.
pub enum Ground {
    MemoryBroker(MemoryBroker),
    Redis(Redis),
}

/// A node that runs in this process.
pub struct Running {
    pub id: NodeId,
    pub address: SocketAddr,
    pub admin: SocketAddr,
    stop: CancellationToken,
    task: Option<JoinHandle<bool>>,
}

/// Nodes that share a ground. Dropped, they end at once.
pub struct Cluster {
    pub ground: Ground,
    pub nodes: Vec<Running>,
    settings: Vec<(String, String)>,
}

/// A configuration for tests: free ports of loopback, and these settings.
pub fn config(settings: &[(String, String)]) -> Config {
    let mut flags = vec![
        ("listen".to_owned(), "127.0.0.1:0".to_owned()),
        ("admin.listen".to_owned(), "127.0.0.1:0".to_owned()),
    ];
    flags.extend_from_slice(settings);
    Config::load(Sources {
        file: None,
        environment: HashMap::new(),
        flags,
    })
    .expect("a valid configuration")
    .0
}

fn owned(settings: &[(&str, &str)]) -> Vec<(String, String)> {
    settings
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

impl Cluster {
    pub async fn embedded(nodes: usize, settings: &[(&str, &str)]) -> Self {
        let settings = owned(settings);
        let ground = Ground::MemoryBroker(MemoryBroker::new(config(&settings).terms()));
        Self::on(ground, nodes, settings).await
    }

    pub async fn redis(nodes: usize, settings: &[(&str, &str)]) -> Self {
        Self::on(Ground::Redis(Redis::start().await), nodes, owned(settings)).await
    }

    async fn on(ground: Ground, nodes: usize, settings: Vec<(String, String)>) -> Self {
        let mut cluster = Self {
            ground,
            nodes: Vec::new(),
            settings,
        };
        for _ in 0..nodes {
            cluster.add_node().await;
        }
        cluster
    }

    pub async fn add_node(&mut self) {
        let app = match &self.ground {
            Ground::MemoryBroker(switch) => {
                App::plug_into(switch, &config(&self.settings)).unwrap()
            }
            Ground::Redis(redis) => {
                let mut settings = self.settings.clone();
                settings.push(("redis.url".to_owned(), redis.url()));
                App::build(&config(&settings)).await.unwrap()
            }
        };
        let (id, address, admin) = (
            app.node().clone(),
            app.local_addr().unwrap(),
            app.admin_addr().unwrap(),
        );
        let stop = CancellationToken::new();
        let task = Some(tokio::spawn(app.run(stop.clone())));
        self.nodes.push(Running {
            id,
            address,
            admin,
            stop,
            task,
        });
    }

    /// Connects to the node of this number and logs in.
    pub async fn login(&self, node: usize, name: &str) -> Peer {
        Peer::login(self.nodes[node].address, name).await
    }

    pub async fn connect(&self, node: usize) -> Peer {
        Peer::connect(self.nodes[node].address).await
    }
}

impl Running {
    /// Asks the node to drain.
    pub fn drain(&self) {
        self.stop.cancel();
    }

    /// Waits until it has stopped; whether all went as it should.
    pub async fn stopped(&mut self) -> bool {
        self.task.take().expect("waited for once").await.unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}
