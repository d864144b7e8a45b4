//! The faults of Redis.

use std::time::Duration;

use crate::Outcome;
use crate::cluster::Cluster;
use crate::history::Kind;
use testing::Redis;
use testing::redis_server::ask;

impl Cluster {
    fn redis_goes(&mut self) {
        let now = self.history.now();
        self.redis_since.get_or_insert(now);
    }

    fn redis_returns(&mut self) {
        if let Some(since) = self.redis_since.take() {
            self.history.trouble(Kind::RedisAway, None, since);
        }
    }

    pub(crate) fn freeze_redis(&mut self) -> Outcome<()> {
        if let (Some(redis), false) = (&self.redis, self.redis_frozen) {
            redis.process.try_signal("STOP")?;
            self.redis_frozen = true;
            self.redis_goes();
        }
        Ok(())
    }

    pub(crate) fn thaw_redis(&mut self) -> Outcome<()> {
        if let (Some(redis), true) = (&self.redis, self.redis_frozen) {
            redis.process.try_signal("CONT")?;
            self.redis_frozen = false;
            self.redis_returns();
        }
        Ok(())
    }

    pub(crate) fn kill_redis(&mut self) -> Outcome<()> {
        self.thaw_redis()?;
        if let Some(redis) = self.redis.take() {
            // Its data counts as lost from the moment when it may not have reached a client.
            redis.process.try_signal("KILL")?;
            self.redis_goes();
        }
        Ok(())
    }

    /// Starts an empty Redis if there is none.
    pub(crate) async fn restart_redis(&mut self) -> Outcome<()> {
        if self.redis.is_none() {
            let since = self.redis_since.unwrap_or_default();
            self.redis = Some(Redis::start_at(self.redis_address, None).await?);
            self.history.trouble(Kind::DataLoss, None, since);
            self.redis_returns();
        }
        Ok(())
    }

    /// Kills the primary while the replica lags behind, and promotes the replica.
    pub(crate) async fn promote(&mut self, blind_since: Duration) -> Outcome<()> {
        let Some(replica) = self.replica.take() else {
            return Ok(());
        };
        self.thaw_redis()?;
        if let Some(primary) = self.redis.take() {
            primary.process.try_signal("KILL")?;
        }
        self.redis_goes();
        let promoted = replica.try_ask("REPLICAOF NO ONE").await;
        if promoted.is_none() {
            return Err("the replica cannot be promoted".into());
        }
        self.link = None;
        self.redis_address = replica.address;
        self.redis_at.send_replace(replica.address);
        self.redis = Some(replica);
        for place in &self.places {
            place.store.set_upstream(self.redis_address);
            place.store.cut();
        }
        self.history.trouble(Kind::DataLoss, None, blind_since);
        self.redis_returns();
        Ok(())
    }

    /// Runs a command on Redis without a proxy, as a fault of this kind.
    pub(crate) async fn tell_redis(&self, words: &str, kind: Kind) {
        let since = self.history.now();
        if ask(self.redis_address, words).await.is_some() {
            self.history.trouble(kind, None, since);
        }
    }
}
