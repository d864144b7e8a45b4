//! Several nodes inside the test's process, over memory or over a real Redis.

use std::collections::HashMap;
use std::net::SocketAddr;

use switchboard::app::App;
use switchboard::broker::memory::MemoryBroker;
use switchboard::config::{Config, Sources};
use switchboard::model::NodeId;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::eventually;
use crate::redis_server::Redis;
use crate::signals::PROBE;
use crate::websocket::{Client, ResumeToken};

/// What the nodes of a cluster share.
pub enum Backend {
    Memory(MemoryBroker),
    Redis(Redis),
}

/// A node that runs in this process. Dropped, it ends at once.
pub struct InProcessNode {
    pub id: NodeId,
    pub address: SocketAddr,
    pub admin: SocketAddr,
    stop: CancellationToken,
    task: Option<JoinHandle<bool>>,
}

/// Nodes that share a backend.
pub struct Cluster {
    pub backend: Backend,
    pub nodes: Vec<InProcessNode>,
    settings: Vec<(String, String)>,
}

/// A configuration with free ports of 127.0.0.1 and these settings.
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
}

fn owned(settings: &[(&str, &str)]) -> Vec<(String, String)> {
    settings
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

impl Cluster {
    #[allow(clippy::unused_async)] // Like `over_redis`, so that a test can take either.
    pub async fn in_memory(nodes: usize, settings: &[(&str, &str)]) -> Self {
        let settings = owned(settings);
        let backend = Backend::Memory(MemoryBroker::new(config(&settings).terms()));
        Self::over(backend, nodes, settings)
    }

    pub async fn over_redis(nodes: usize, settings: &[(&str, &str)]) -> Self {
        Self::with_redis(Redis::start().await, nodes, settings)
    }

    /// Nodes over this Redis. A `redis.url` among the settings counts.
    pub fn with_redis(redis: Redis, nodes: usize, settings: &[(&str, &str)]) -> Self {
        let mut settings = owned(settings);
        if !settings.iter().any(|(key, _)| key == "redis.url") {
            settings.push(("redis.url".to_owned(), redis.url()));
        }
        Self::over(Backend::Redis(redis), nodes, settings)
    }

    fn over(backend: Backend, nodes: usize, settings: Vec<(String, String)>) -> Self {
        let mut cluster = Self {
            backend,
            nodes: Vec::new(),
            settings,
        };
        for _ in 0..nodes {
            cluster.add_node();
        }
        cluster
    }

    pub fn add_node(&mut self) {
        let app = match &self.backend {
            Backend::Memory(broker) => App::plug_into(broker, &config(&self.settings)).unwrap(),
            Backend::Redis(_) => App::build(&config(&self.settings)).unwrap(),
        };
        let (id, address, admin) = (
            app.node().clone(),
            app.local_addr().unwrap(),
            app.admin_addr().unwrap(),
        );
        let stop = CancellationToken::new();
        let task = Some(tokio::spawn(app.run(stop.clone())));
        self.nodes.push(InProcessNode {
            id,
            address,
            admin,
            stop,
            task,
        });
    }

    /// Connects to the node of this number and logs in.
    pub async fn login(&self, node: usize, name: &str) -> Client {
        Client::login(self.nodes[node].address, name).await
    }

    pub async fn connect(&self, node: usize) -> Client {
        Client::connect(self.nodes[node].address).await
    }
}

impl Cluster {
    /// Connects to the node of this number and logs in with a session that outlives its connection.
    pub async fn login_resumable(&self, node: usize, name: &str) -> Client {
        Client::login_resumable(self.nodes[node].address, name).await
    }

    /// Resumes a session at the node of this number.
    pub async fn resume(&self, node: usize, token: &ResumeToken) -> Client {
        Client::resume(self.nodes[node].address, token).await
    }

    /// Breaks a client's connection and waits until its node has noticed: messages of `prober` are queued then.
    pub async fn disconnect(&self, prober: &mut Client, client: Client) -> ResumeToken {
        let token = client.token.clone();
        client.disconnect();
        let mut attempts = 0;
        eventually("the session is detached", async || {
            attempts += 1;
            let id = format!("{PROBE}{attempts}");
            let outcome = prober.send_message(&token.name, &id).await;
            (outcome["status"] == "queued").then_some(())
        })
        .await;
        token
    }
}

impl InProcessNode {
    /// Asks the node to drain, as SIGTERM does.
    pub fn drain(&self) {
        self.stop.cancel();
    }

    /// Waits until it has stopped; whether it drained without an error.
    pub async fn stopped(&mut self) -> bool {
        self.task
            .take()
            .expect("stopped() is called once")
            .await
            .unwrap()
    }
}

impl Drop for InProcessNode {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}
