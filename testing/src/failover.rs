//! A Redis primary with a replica that can lag behind and take over.

use crate::eventually;
use crate::proxy::Proxy;
use crate::redis_server::Redis;

/// A primary and its replica, behind one address.
#[derive(Debug)]
pub struct Failover {
    pub primary: Redis,
    pub replica: Redis,
    /// Between the nodes and Redis.
    front: Proxy,
    /// Between the replica and the primary.
    link: Proxy,
}

impl Failover {
    pub async fn start() -> Self {
        let (primary, replica) = (Redis::start().await, Redis::start().await);
        let front = Proxy::start(primary.address).await.unwrap();
        let link = Proxy::start(primary.address).await.unwrap();
        let (host, port) = (link.address.ip(), link.address.port());
        replica.ask(&format!("REPLICAOF {host} {port}")).await;
        let failover = Self {
            primary,
            replica,
            front,
            link,
        };
        failover.replicated().await;
        failover
    }

    /// The URL for nodes.
    pub fn url(&self) -> String {
        format!("redis://{}", self.front.address)
    }

    /// Waits until the replica has everything that was written to the primary so far.
    pub async fn replicated(&self) {
        let mark = format!("{:016x}", rand::random::<u64>());
        self.primary.ask(&format!("SET mark {mark}")).await;
        eventually("the replica has caught up", async || {
            let known = self.replica.ask("GET mark").await;
            let known: Option<String> = redis::from_redis_value(known).unwrap();
            (known.as_ref() == Some(&mark)).then_some(())
        })
        .await;
    }

    /// Stops replication: what is written to the primary from here on is lost with it.
    pub fn stop_replication(&self) {
        self.link.block(true);
    }

    /// Makes the replica the primary, and sends the nodes there. The old primary must have ended.
    pub async fn promote(&self) {
        self.replica.ask("REPLICAOF NO ONE").await;
        self.front.set_upstream(self.replica.address);
        self.front.cut();
    }
}
