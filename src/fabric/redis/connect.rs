//! How Redis is reached; the one place that knows which topology it has.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deadpool_redis::{Connection, Manager, Pool, PoolError, Runtime};
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, IntoConnectionInfo as _, ProtocolVersion,
    PushInfo, RedisError,
};
use tokio::sync::watch;
use tracing::warn;

use super::Config;
use crate::fabric::Epoch;
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
    identity: Arc<Identity>,
    /// Causes for which Redis cannot be used that the operator knows, until it can be used.
    told: Arc<Mutex<HashSet<String>>>,
    pub(super) metrics: Arc<Metrics>,
}

/// How long what belongs to a user lives if nobody renews it, and how its keys begin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lives {
    /// A presence lease.
    pub(super) user: Duration,
    /// The inbox of a plain user.
    pub(super) inbox: Duration,
    /// The inbox of a resumable user.
    pub(super) resumable_inbox: Duration,
    /// The record of a resumable session.
    pub(super) record: Duration,
    /// The length of the prefix of keys.
    pub(super) prefix: usize,
}

/// Which Redis is reached: another one, or one that was started anew, may have lost what was told to the last.
#[derive(Debug, Default)]
pub(super) struct Identity {
    known: Mutex<Option<Known>>,
    changes: watch::Sender<u64>,
}

/// A Redis, as it names itself.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    /// Anew with each start.
    run: String,
    /// Whose history it goes on with since it was made a primary; none if it always was one. (The id of its own history says less: that
    /// changes when the first replica comes.)
    succeeds: Option<String>,
}

/// The rest of the line of `INFO` that begins so; empty if there is none.
fn line(info: &str, name: &str) -> String {
    let line = info.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_default().to_owned()
}

impl Known {
    fn read(server: &str, replication: &str) -> Self {
        let succeeds = line(replication, "master_replid2:");
        Self {
            run: line(server, "run_id:"),
            succeeds: Some(succeeds).filter(|id| id.contains(|digit| digit != '0')),
        }
    }

    /// Whether this may not know what the one before knew.
    fn is_other_than(&self, before: &Self) -> bool {
        // A history that is no longer told of is forgotten after an hour without replicas.
        self.run != before.run || (self.succeeds.is_some() && self.succeeds != before.succeeds)
    }
}

impl Identity {
    /// How often it has changed.
    pub(super) fn generation(&self) -> u64 {
        *self.changes.borrow()
    }

    /// The same, told of each change.
    pub(super) fn epoch(&self) -> Epoch {
        self.changes.subscribe()
    }

    /// Which Redis it is, if that is known.
    pub(super) fn name(&self) -> String {
        let known = self.known();
        known
            .as_ref()
            .map(|known| known.run.clone())
            .unwrap_or_default()
    }

    /// What it knew is lost, whoever it is. Returns the new generation.
    pub(super) fn forgot(&self) -> u64 {
        let mut generation = 0;
        self.changes.send_modify(|changes| {
            *changes += 1;
            generation = *changes;
        });
        generation
    }

    fn observe(&self, found: Known) {
        let mut known = self.known();
        if known
            .as_ref()
            .is_some_and(|known| found.is_other_than(known))
        {
            warn!(
                "Redis is another one than before, or was started anew: what it may have lost is sent again"
            );
            self.forgot();
        }
        *known = Some(found);
    }

    fn known(&self) -> MutexGuard<'_, Option<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
            lives,
            identity: Arc::default(),
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

    /// Which Redis it is.
    pub(super) fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// Finds out which Redis this connection has reached, and refuses one that is too old.
    pub(super) async fn identify(&self, connection: &mut Connection) -> Result<(), OpenError> {
        let mut ask = redis::pipe();
        ask.cmd("INFO").arg("server").cmd("INFO").arg("replication");
        let asking = ask.query_async::<(String, String)>(connection);
        let (server, replication) = asking
            .await
            .map_err(|error| OpenError::Away(error.to_string()))?;
        let found = line(&server, "redis_version:");
        let mut numbers = found.split('.').map_while(|number| number.parse().ok());
        if (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < OLDEST {
            return Err(OpenError::TooOld { found });
        }
        self.identity.observe(Known::read(&server, &replication));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_redis_is_told_from_one_with_a_new_replica() {
        let known = |run: &str, succeeds: &str| {
            let server = format!("# Server\r\nrun_id:{run}\r\n");
            Known::read(
                &server,
                &format!(
                    "role:master\r\nmaster_replid:{succeeds}9\r\nmaster_replid2:{succeeds}\r\n"
                ),
            )
        };
        let never = "0".repeat(40);
        let first = known("a", &never);
        assert!(!known("a", &never).is_other_than(&first));
        assert!(known("b", &never).is_other_than(&first), "started anew");
        let promoted = known("a", "5e");
        assert!(promoted.is_other_than(&first), "followed another meanwhile");
        assert!(!known("a", &never).is_other_than(&promoted));
        let identity = Identity::default();
        identity.observe(first);
        assert_eq!(
            (identity.generation(), identity.name()),
            (0, "a".to_owned())
        );
        identity.observe(promoted);
        assert_eq!(identity.generation(), 1);
    }
}
