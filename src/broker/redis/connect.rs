//! How Redis is reached; the one place that knows which topology it has.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use deadpool_redis::{Connection, Manager, Pool, PoolError, Runtime};
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, IntoConnectionInfo as _, ProtocolVersion,
    PushInfo, RedisError,
};
use tracing::warn;

use super::Config;
use super::epoch::{Run, StoreEpoch, info_line};
use crate::telemetry::Metrics;

/// How many causes are told while Redis cannot be used: they may alternate.
const CAUSES: usize = 16;
/// The oldest Redis whose scripts and streams behave as ours need.
const OLDEST: (u32, u32) = (7, 0);

/// The ways to one Redis.
#[derive(Clone, Debug)]
pub(super) struct Store {
    pool: Pool,
    subscriber: Client,
    pub(super) timeout: Duration,
    pub(super) lives: Lives,
    pub(super) epoch: Arc<StoreEpoch>,
    /// Causes for which Redis cannot be used that the operator knows, until it can be used.
    told: Arc<Mutex<HashSet<String>>>,
    pub(super) metrics: Arc<Metrics>,
}

/// How long what belongs to a user lives if nobody renews it, and how its keys begin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lives {
    /// A presence lease.
    pub(super) user: Duration,
    /// The inbox of a resumable user.
    pub(super) inbox: Duration,
    /// The record of a resumable session.
    pub(super) record: Duration,
    /// The length of the prefix of keys.
    pub(super) prefix: usize,
}

/// Redis cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL is not a Redis URL.
    #[error("redis.url is not a Redis URL such as redis://localhost:6379: {0}")]
    Url(RedisError),
    /// It does not answer.
    #[error("Redis at redis.url does not answer: {0}. Is it running, and is the address right?")]
    Away(String),
    /// It is too old.
    #[error("Redis {found} at redis.url is too old: 7.0 or newer is needed")]
    TooOld {
        /// What was found.
        found: String,
    },
}

impl Store {
    /// Prepares the ways; connects nothing.
    pub(super) fn prepare(
        config: &Config,
        lives: Lives,
        epoch: Arc<StoreEpoch>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, OpenError> {
        let info = config
            .url
            .expose()
            .into_connection_info()
            .map_err(OpenError::Url)?;
        let tcp = TcpSettings::default().set_nodelay(true);
        let info = info.set_tcp_settings(tcp);
        let settings = connection_config(config.timeout);
        let manager = Manager::new_with_config(info.clone(), settings).map_err(OpenError::Url)?;
        let pool = Pool::builder(manager)
            // Every publisher holds one for its life, and one is the node's own.
            .max_size(config.publishers + 2)
            .create_timeout(Some(config.timeout))
            .wait_timeout(Some(config.timeout))
            .recycle_timeout(Some(config.timeout))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| OpenError::Away(error.to_string()))?;
        let subscriber = Client::open(speaking_resp3(info)).map_err(OpenError::Url)?;
        Ok(Self {
            pool,
            subscriber,
            timeout: config.timeout,
            lives,
            epoch,
            told: Arc::default(),
            metrics,
        })
    }

    /// Tries once whether Redis can be used.
    pub(super) async fn check(&self) -> Result<(), OpenError> {
        let connection = self.pool.get().await;
        let mut connection = connection.map_err(|error| OpenError::Away(error.to_string()))?;
        self.identify(&mut connection).await
    }

    /// Tells the operator why Redis cannot be used, each cause once.
    pub(super) fn complain(&self, cause: &str) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() < CAUSES && told.insert(cause.to_owned()) {
            warn!(
                cause,
                "Redis cannot be used: this node is not ready until it can, and keeps trying"
            );
        }
    }

    /// Redis can be used: from here on each cause is news again.
    fn is_usable(&self) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.clear();
    }

    /// Finds out which Redis this connection has reached, and refuses one that is too old.
    pub(super) async fn identify(&self, connection: &mut Connection) -> Result<(), OpenError> {
        let mut ask = redis::pipe();
        ask.cmd("INFO").arg("server").cmd("INFO").arg("replication");
        ask.cmd("TIME");
        let asked_at = self.epoch.mark();
        let asking = ask.query_async::<(String, String, (i64, i64))>(connection);
        let (server, replication, (seconds, micros)) = asking
            .await
            .map_err(|error| OpenError::Away(error.to_string()))?;
        let found = info_line(&server, "redis_version:");
        let mut numbers = found.split('.').map_while(|number| number.parse().ok());
        if (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < OLDEST {
            return Err(OpenError::TooOld { found });
        }
        self.epoch
            .set_clock(asked_at, seconds * 1000 + micros / 1000);
        self.epoch.observe(Run::read(&server, &replication));
        self.is_usable();
        Ok(())
    }

    /// A connection for commands, to be held: checking one out costs a round trip.
    pub(super) async fn commands(&self) -> Result<Connection, PoolError> {
        self.pool.get().await
    }

    /// A connection for subscriptions, outside the pool. `push` is called by its reader and must not wait.
    pub(super) async fn subscriptions(
        &self,
        push: impl Fn(PushInfo) + Send + Sync + 'static,
    ) -> Result<MultiplexedConnection, RedisError> {
        let settings = connection_config(self.timeout).set_push_sender(move |info| {
            push(info);
            Ok::<(), redis::aio::SendError>(())
        });
        self.subscriber
            .get_multiplexed_async_connection_with_config(&settings)
            .await
    }
}

/// Pushes need RESP3; commands are cheaper to read in RESP2.
fn speaking_resp3(info: ConnectionInfo) -> ConnectionInfo {
    let settings = info
        .redis_settings()
        .clone()
        .set_protocol(ProtocolVersion::RESP3);
    info.set_redis_settings(settings)
}

fn connection_config(timeout: Duration) -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(timeout))
        .set_response_timeout(Some(timeout))
}
