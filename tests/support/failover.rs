//! A Redis with a replica, which takes its place without what it was sent last.

use std::net::SocketAddr;

use super::eventually;
use super::process::Redis;
use super::proxy::Proxy;

/// A primary and its replica, and a way that leads to the one whose turn it is.
#[derive(Debug)]
pub struct Failover {
    pub primary: Redis,
    pub replica: Redis,
    /// From the nodes to Redis.
    way: Proxy,
    /// From the replica to the primary.
    link: Proxy,
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

impl Failover {
    pub async fn start() -> Self {
        let (primary, replica) = (Redis::start().await, Redis::start().await);
        let way = Proxy::to(local(primary.port)).await;
        let link = Proxy::to(local(primary.port)).await;
        let port = link.address.port();
        replica.ask(&format!("REPLICAOF 127.0.0.1 {port}")).await;
        let failover = Self {
            primary,
            replica,
            way,
            link,
        };
        failover.is_level().await;
        failover
    }

    /// Where nodes find Redis.
    pub fn url(&self) -> String {
        format!("redis://{}", self.way.address)
    }

    /// The replica has everything that the primary was told until now.
    pub async fn is_level(&self) {
        let mark = format!("{:016x}", rand::random::<u64>());
        self.primary.ask(&format!("SET mark {mark}")).await;
        eventually("the replica is level", async || {
            let known = self.replica.ask("GET mark").await;
            let known: Option<String> = redis::from_redis_value(known).unwrap();
            (known.as_ref() == Some(&mark)).then_some(())
        })
        .await;
    }

    /// Whatever the primary is told from here on is lost with it.
    pub fn parts(&self) {
        self.link.block(true);
    }

    /// The replica takes the place of the primary, which is dead.
    pub async fn promotes(&self) {
        self.replica.ask("REPLICAOF NO ONE").await;
        self.way.lead_to(local(self.replica.port));
    }
}
