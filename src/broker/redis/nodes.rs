//! Heartbeats, and what the store knows of nodes.

use redis::Value;

use super::broker::RedisBroker;
use super::reply::{array, millis, unexpected};
use crate::broker::{BrokerError, Heartbeat, Nodes, StoreReport};
use crate::model::NodeId;

impl RedisBroker {
    /// Renews this node's lease, and reads those of the watched nodes.
    pub(super) async fn send_heartbeat(
        &self,
        watched: &[NodeId],
        report: StoreReport,
    ) -> Result<Heartbeat, BrokerError> {
        let (sent_at, epoch) = (self.epoch.mark(), self.epoch.count());
        let own_key = self.keys.node(&self.node);
        let keys = [&own_key, &self.keys.epoch(), &self.keys.members()];
        let mut heartbeat = self.scripts.heartbeat.on(keys);
        heartbeat
            .arg(format!("{:016x}", rand::random::<u64>()))
            .arg(millis(self.terms.node_ttl))
            .arg(self.epoch.name())
            .arg(match report {
                StoreReport::Nothing => "",
                StoreReport::Guarded => "guarded",
                StoreReport::Known => "known",
            })
            .arg(self.node.as_str());
        let mut read = redis::cmd("MGET");
        read.arg(own_key);
        for node in watched {
            read.arg(self.keys.node(node));
        }
        let heartbeat = self.node_publisher.query(heartbeat);
        let leases = self.node_publisher.query(read);
        let heartbeat = array(heartbeat.await?)?;
        let [Value::Int(server_millis), Value::BulkString(token)] = &heartbeat[..] else {
            return Err(unexpected());
        };
        self.epoch.set_clock(sent_at, *server_millis);
        let token = String::from_utf8_lossy(token).into_owned();
        let own = self.epoch.heartbeat(token, epoch, sent_at);
        let leases = array(leases.await?)?;
        let alive = leases.iter().skip(1).map(|lease| *lease != Value::Nil);
        Ok(Heartbeat {
            epoch,
            own,
            alive: alive.collect(),
        })
    }

    /// Reads which nodes live.
    pub(super) async fn read_members(&self) -> Result<Vec<NodeId>, BrokerError> {
        let mut read = redis::cmd("ZRANGE");
        read.arg(self.keys.members()).arg(0).arg(-1);
        let values = array(self.node_publisher.query(read).await?)?;
        let node = |value: Value| match value {
            Value::BulkString(text) => Some(NodeId::known(&String::from_utf8_lossy(&text))),
            _ => None,
        };
        let beaten: Vec<NodeId> = values.into_iter().filter_map(node).collect();
        let alive = self.read_nodes(&beaten).await?.alive;
        let living = beaten.into_iter().zip(alive).filter(|(_, alive)| *alive);
        Ok(living.map(|(node, _)| node).collect())
    }

    /// Reads which nodes are alive, and what they report of the store.
    pub(super) async fn read_nodes(&self, nodes: &[NodeId]) -> Result<Nodes, BrokerError> {
        let mut read = redis::cmd("MGET");
        read.arg(self.keys.node(&self.node)).arg(self.keys.epoch());
        for node in nodes {
            read.arg(self.keys.node(node));
        }
        let values = array(self.node_publisher.query(read).await?)?;
        let text = |value: &Value| match value {
            Value::BulkString(text) => Some(String::from_utf8_lossy(text).into_owned()),
            _ => None,
        };
        let [own, report, alive @ ..] = &values[..] else {
            return Err(unexpected());
        };
        let known = format!("known {}", self.epoch.name());
        let parse = |report| {
            if report == known {
                StoreReport::Known
            } else {
                StoreReport::Guarded
            }
        };
        Ok(Nodes {
            intact: self
                .epoch
                .is_intact(text(own).as_deref().map(str::as_bytes)),
            report: text(report).map(parse),
            alive: alive.iter().map(|lease| *lease != Value::Nil).collect(),
        })
    }
}
