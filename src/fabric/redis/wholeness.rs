//! The node's own lease, and whether the store has lost anything since it was taken.

use std::sync::{MutexGuard, PoisonError};

use redis::Value;

use super::wire::{self, millis, unexpected};
use super::{RedisFabric, array};
use crate::fabric::{Beat, FabricError};
use crate::model::NodeId;

/// What the last beat found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Beaten {
    /// What the node's own lease says; another text means that it was lost in between.
    token: String,
    /// Which state of the store it was.
    generation: u64,
    /// When it was asked, by this node's clock.
    at: i64,
    /// It found that the store had lost data: until the next one nobody takes the store for whole, whoever hears of it first.
    lost: bool,
}

impl RedisFabric {
    /// Prolongs the node's lease, and looks at those of others.
    pub(super) async fn beats(&self, watched: &[NodeId], whole: bool) -> Result<Beat, FabricError> {
        let fresh = format!("{:016x}", rand::random::<u64>());
        let own_key = self.keys.node(&self.node);
        let mut beat = self.scripts.beat.on([&own_key, &self.keys.whole()]);
        let (asked_at, generation) = (self.clock.mark(), self.identity.generation());
        let whole = whole && self.beaten().generation == generation;
        let store = if whole {
            self.identity.name()
        } else {
            String::new()
        };
        beat.arg(&fresh).arg(millis(self.terms.node_ttl)).arg(store);
        let mut read = redis::cmd("MGET");
        read.arg(own_key);
        for node in watched {
            read.arg(self.keys.node(node));
        }
        let (beat, leases) = (self.own_lane.ask(beat), self.own_lane.ask(read));
        let beat = array(beat.await?)?;
        let [Value::Int(server_millis), Value::BulkString(token)] = &beat[..] else {
            return Err(unexpected());
        };
        self.clock.set(asked_at, *server_millis);
        // Another token than the known one was set by a beat of ours that was given up, after the lease had been lost.
        let token = String::from_utf8_lossy(token).into_owned();
        let found = Beaten {
            token,
            generation,
            at: asked_at,
            lost: false,
        };
        let own = self.takes(found);
        let leases = array(leases.await?)?;
        Ok(Beat {
            epoch: generation,
            own,
            alive: leases
                .iter()
                .skip(1)
                .map(|lease| *lease != Value::Nil)
                .collect(),
        })
    }

    /// Whether the store has everything that it was ever told, as far as the nodes that use it know.
    pub(super) async fn store_is_whole(&self) -> Result<bool, FabricError> {
        let said = self
            .own_lane
            .ask(redis::cmd("GET").arg(self.keys.whole()).clone());
        if said.await? == Value::BulkString(self.identity.name().into_bytes()) {
            return Ok(true);
        }
        let server = self
            .own_lane
            .ask(redis::cmd("INFO").arg("server").clone())
            .await?;
        if wire::uptime(&server)? < self.terms.node_ttl / 5 {
            // Whoever was at the one before it is on the way here.
            return Ok(false);
        }
        let mut ask = redis::cmd("PUBSUB");
        ask.arg("CHANNELS").arg(self.keys.node_channels());
        let own = Value::BulkString(self.keys.node_channel(&self.node).into_bytes());
        let nodes = array(self.own_lane.ask(ask).await?)?;
        Ok(nodes.iter().all(|channel| *channel == own))
    }

    /// Whether it has lost nothing since the last beat.
    pub(super) async fn store_is_intact(&self) -> Result<bool, FabricError> {
        let value = self
            .own_lane
            .ask(redis::cmd("GET").arg(self.keys.node(&self.node)).clone())
            .await?;
        let beaten = self.beaten();
        let same = self.identity.generation() == beaten.generation && !beaten.lost;
        Ok(same && matches!(value, Value::BulkString(token) if token == beaten.token.as_bytes()))
    }

    /// Takes what a beat has found. Whether the node's lease was still there.
    fn takes(&self, found: Beaten) -> bool {
        let (generation, at) = (found.generation, found.at);
        let mut beaten = self.beaten();
        let before = std::mem::replace(&mut *beaten, found);
        let is_first = before.token.is_empty();
        let same_lease = before.token == beaten.token;
        let in_time = at - before.at < millis(self.terms.node_ttl);
        if !same_lease && !is_first && in_time && before.generation == generation {
            // The same Redis has forgotten a lease that had not run out: by FLUSHALL, for one.
            // One of ours that nobody else has noticed before is no news to the next beat.
            let now = self.identity.forgot();
            beaten.generation = if now == generation + 1 {
                now
            } else {
                generation
            };
        }
        let own = same_lease && before.generation == generation;
        beaten.lost = !own && !is_first;
        own
    }

    fn beaten(&self) -> MutexGuard<'_, Beaten> {
        self.beaten.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
