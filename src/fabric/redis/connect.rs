//! How Redis is reached; the one place that knows which topology it has.

use std::time::Duration;

use deadpool_redis::{Manager, Pool, PoolError, Runtime};
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, IntoConnectionInfo as _, ProtocolVersion,
    PushInfo, RedisError,
};

use super::Config;

/// The oldest Redis whose scripts and streams behave as ours need.
const OLDEST: (u32, u32) = (7, 0);

/// The ways to one Redis.
#[derive(Clone, Debug)]
pub(super) struct Store {
    pool: Pool,
    subscriber: Client,
    pub(super) timeout: Duration,
    /// How long an inbox lives that nobody renews.
    pub(super) inbox_ttl: Duration,
}

/// Redis cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL is none.
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
    pub(super) fn prepare(config: &Config, inbox_ttl: Duration) -> Result<Self, OpenError> {
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
            // Every lane holds one for its life, and one is the node's own.
            .max_size(config.lanes + 2)
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
            inbox_ttl,
        })
    }

    /// Refuses a Redis that is too old.
    pub(super) async fn check(&self) -> Result<(), OpenError> {
        let away = |error: &dyn std::fmt::Display| OpenError::Away(error.to_string());
        let mut connection = self.pool.get().await.map_err(|error| away(&error))?;
        let info: String = redis::cmd("INFO")
            .arg("server")
            .query_async(&mut connection)
            .await
            .map_err(|error| away(&error))?;
        let found = info
            .lines()
            .find_map(|line| line.strip_prefix("redis_version:"))
            .unwrap_or("unknown");
        let mut numbers = found.split('.').map_while(|number| number.parse().ok());
        if (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < OLDEST {
            return Err(OpenError::TooOld {
                found: found.to_owned(),
            });
        }
        Ok(())
    }

    /// A connection for commands, to be held: checking one out costs a round trip.
    pub(super) async fn commands(&self) -> Result<deadpool_redis::Connection, PoolError> {
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
