//! Connections to Redis: the pool for commands, and the client for subscriptions. Only this file knows how Redis is
//! deployed.

use std::sync::Arc;
use std::time::Duration;

use deadpool_redis::{Connection, Manager, Pool, PoolError, Runtime};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ConnectionInfo, ProtocolVersion, PushInfo, RedisError};
use tokio::time::{sleep, timeout};

use super::config::{Config, ConnectError};
use super::diagnosis::{CLUSTER, error_text};
use super::epoch::{Run, StoreEpoch, info_line};
use super::health::HealthMonitor;
use super::scripts::Scripts;
use crate::telemetry::{Metrics, RedisTrouble};

/// The oldest version whose scripts and streams behave as ours need.
const OLDEST: (u32, u32) = (7, 0);
/// How long a publisher waits between two attempts to connect.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

/// How to connect to one Redis.
#[derive(Clone, Debug)]
pub(super) struct Store {
    pool: Pool,
    subscriber: Client,
    pub(super) timeout: Duration,
    pub(super) ttls: Ttls,
    pub(super) epoch: Arc<StoreEpoch>,
    pub(super) health: Arc<HealthMonitor>,
    pub(super) metrics: Arc<Metrics>,
}

/// The times to live of a user's keys, and the length of their prefix.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ttls {
    /// A presence lease.
    pub(super) user: Duration,
    /// The inbox of a resumable user.
    pub(super) inbox: Duration,
    /// The record of a resumable session.
    pub(super) record: Duration,
    /// The length of the prefix of keys, in bytes.
    pub(super) prefix: usize,
}

impl Store {
    /// Prepares the pool and the client; connects nothing.
    pub(super) fn prepare(
        config: &Config,
        ttls: Ttls,
        epoch: Arc<StoreEpoch>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, ConnectError> {
        let info = config.connection_info()?;
        let settings = connection_config(config.timeout);
        let manager =
            Manager::new_with_config(info.clone(), settings).map_err(ConnectError::Url)?;
        let pool = Pool::builder(manager)
            // Each publisher holds one, so does the node's own publisher, and `check` needs one.
            .max_size(config.publishers + 2)
            .create_timeout(Some(config.timeout))
            .wait_timeout(Some(config.timeout))
            .recycle_timeout(Some(config.timeout))
            .runtime(Runtime::Tokio1)
            .build()?;
        let subscriber = Client::open(with_resp3(info)).map_err(ConnectError::Url)?;
        Ok(Self {
            pool,
            subscriber,
            timeout: config.timeout,
            ttls,
            epoch,
            health: Arc::default(),
            metrics,
        })
    }

    /// Reads which Redis this connection has reached: its version, run and clock. Refuses one that is too old. A
    /// restart or a failover is noticed here, before the connection carries anything else.
    async fn identify(&self, connection: &mut Connection) -> Result<(), String> {
        let mut ask = redis::pipe();
        ask.cmd("INFO").arg("server").cmd("INFO").arg("replication");
        ask.cmd("TIME");
        let asked_at = self.epoch.mark();
        let asking = ask.query_async::<(String, String, (i64, i64))>(connection);
        let asked = asking.await.map_err(|error| error_text(&error));
        let (server, replication, (seconds, micros)) = asked?;
        let found = info_line(&server, "redis_version:");
        let mut numbers = found.split('.').map_while(|number| number.parse().ok());
        if (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < OLDEST {
            return Err(format!(
                "Redis {found} is too old: upgrade it to 7.0 or newer"
            ));
        }
        if info_line(&server, "redis_mode:") == "cluster" {
            return Err(format!("MOVED: {CLUSTER}"));
        }
        self.epoch
            .set_clock(asked_at, seconds * 1000 + micros / 1000);
        self.epoch.observe(Run::read(&server, &replication));
        Ok(())
    }

    /// Connects for commands, however long it takes. The caller keeps the connection: checking one out costs a round
    /// trip.
    pub(super) async fn connect(&self, scripts: &Scripts) -> Connection {
        loop {
            match timeout(self.timeout * 2, self.try_connect(scripts)).await {
                Ok(Ok(connection)) => {
                    self.health.connected(None);
                    return connection;
                }
                Ok(Err(trouble)) => self.health.connected(Some(&trouble)),
                Err(_) => self.health.connected(Some("Redis does not answer in time")),
            }
            self.metrics.redis_failed(RedisTrouble::Connection);
            sleep(RECONNECT_PAUSE).await;
        }
    }

    /// A connection with the scripts loaded, to a Redis whose run is known.
    async fn try_connect(&self, scripts: &Scripts) -> Result<Connection, String> {
        let connection = self.pool.get().await.map_err(|error| match error {
            PoolError::Backend(error) => error_text(&error),
            error => error.to_string(),
        });
        let mut connection = connection?;
        let load = scripts.load();
        let loaded = load.query_async::<Vec<String>>(&mut connection).await;
        let checked = match loaded {
            Ok(_) => self.identify(&mut connection).await,
            Err(error) => Err(error_text(&error)),
        };
        match checked {
            Ok(()) => Ok(connection),
            Err(error) => {
                // Removed from the pool, which would reuse it.
                drop(Connection::take(connection));
                Err(error)
            }
        }
    }

    /// A connection for subscriptions, outside the pool. Its reader calls `push`, which must not block.
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

/// Pushes need RESP3. Commands use RESP2, which is cheaper to parse.
fn with_resp3(info: ConnectionInfo) -> ConnectionInfo {
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
