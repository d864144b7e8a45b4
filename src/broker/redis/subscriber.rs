//! The connection for subscriptions: a RESP3 connection that is supervised, and replaced when it breaks, freezes or
//! goes silent.
//!
//! The table of wanted subscriptions is the truth, and the connection is made to match it. After a break every channel
//! is subscribed anew before any push is accepted again, and every session is told of the gap.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{PushInfo, PushKind, RedisError, Value};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tracing::debug;

use super::channel::{Caches, ChannelMessage};
use super::diagnosis::error_text;
use super::publisher::Publisher;
use super::store::Store;
use super::subscriptions::Subscriptions;
use crate::broker::BrokerError;
use crate::broker::inbound::{ConnectionId, InboundQueue};
use crate::telemetry::RedisTrouble;

/// How many channels one SUBSCRIBE names.
const CHANNELS_PER_COMMAND: usize = 1000;
/// How often the connection is probed.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// How long no probe may come back before the connection is replaced.
const SILENT_AFTER: Duration = Duration::from_secs(3);
/// How long to wait between two attempts to connect.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);
/// After how many connections in a row that could not subscribe the operator is told. One that breaks early is no
/// reason: Redis may just be restarting.
const REFUSALS_TOLD: u32 = 20;
/// How much longer to wait after each of them.
const REFUSED_PAUSE: Duration = Duration::from_millis(5);

/// Takes every message. The connection's reader calls it, so it must not block.
pub(super) type MessageHandler =
    Arc<dyn Fn(ChannelMessage, &InboundQueue, ConnectionId) + Send + Sync>;

/// Keeps one connection subscribed to what is wanted.
pub(super) struct Subscriber {
    pub(super) store: Store,
    pub(super) subscriptions: Arc<Subscriptions>,
    pub(super) inbound: Arc<InboundQueue>,
    pub(super) handler: MessageHandler,
    /// The channel on which probes are published, and the publisher for it.
    pub(super) own_channel: String,
    pub(super) publisher: Publisher,
}

/// What the reader of one connection reports to its supervisor.
#[derive(Debug, Default)]
struct ConnectionHealth {
    broken: Notify,
    /// Whether every wanted channel was subscribed once.
    subscribed: AtomicBool,
    /// Counts the messages on the node's own channel.
    received: AtomicU64,
    /// When the last probe was sent that has not come back.
    probed_at: Mutex<Option<Instant>>,
}

impl ConnectionHealth {
    fn probe_sent(&self) {
        *self
            .probed_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// The round-trip time of the probe that has just come back.
    fn probe_took(&self) -> Option<Duration> {
        let mut probed_at = self
            .probed_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        probed_at.take().map(|at| at.elapsed())
    }
}

impl Subscriber {
    pub(super) async fn run(self) {
        let mut refusals: u32 = 0;
        for number in 1.. {
            let health = Arc::new(ConnectionHealth::default());
            let error = match self
                .connect(ConnectionId(number), Arc::clone(&health))
                .await
            {
                Ok(connection) => {
                    let Err(error) = self.serve(connection, ConnectionId(number), &health).await;
                    self.inbound.close();
                    // A connection that worked is replaced at once, since inboxes fill meanwhile.
                    let worked = health.subscribed.load(Ordering::Relaxed);
                    refusals = if worked { 0 } else { refusals + 1 };
                    if refusals == REFUSALS_TOLD {
                        self.store.health.subscribed(Some(&error.to_string()));
                    }
                    sleep(REFUSED_PAUSE * refusals.min(REFUSALS_TOLD)).await;
                    error
                }
                Err(error) => {
                    sleep(RECONNECT_PAUSE).await;
                    error
                }
            };
            debug!(%error, "The subscription to Redis broke");
            self.store.metrics.redis_failed(RedisTrouble::Connection);
            self.subscriptions.remove_closed();
        }
    }

    async fn connect(
        &self,
        id: ConnectionId,
        health: Arc<ConnectionHealth>,
    ) -> Result<MultiplexedConnection, BrokerError> {
        let (inbound, handler, own) = (
            Arc::clone(&self.inbound),
            Arc::clone(&self.handler),
            self.own_channel.clone(),
        );
        let metrics = Arc::clone(&self.store.metrics);
        // Only the reader locks it, so nobody waits.
        let caches = Mutex::new(Caches::default());
        let connecting = self
            .store
            .subscriptions(move |info: PushInfo| match info.kind {
                PushKind::Message | PushKind::SMessage => {
                    let mut data = info.data.into_iter();
                    let (Some(Value::BulkString(channel)), Some(Value::BulkString(payload))) =
                        (data.next(), data.next())
                    else {
                        return;
                    };
                    if channel == own.as_bytes() {
                        health.received.fetch_add(1, Ordering::Relaxed);
                    }
                    let message = ChannelMessage::decode(
                        payload,
                        &mut caches.lock().unwrap_or_else(PoisonError::into_inner),
                    );
                    if let Some(message) = message {
                        if let (ChannelMessage::Probe, Some(took)) = (&message, health.probe_took())
                        {
                            metrics.probed(took);
                        }
                        handler(message, &inbound, id);
                    }
                }
                PushKind::Disconnection => health.broken.notify_one(),
                _ => {}
            });
        within(self.store.timeout, connecting).await
    }

    /// Makes the connection match the table until it breaks.
    ///
    /// PING shows that Redis answers on this connection. The probe, which the node publishes to its own channel, shows
    /// that pushes still arrive: a connection can answer and deliver nothing.
    async fn serve(
        &self,
        mut connection: MultiplexedConnection,
        id: ConnectionId,
        health: &ConnectionHealth,
    ) -> Result<Infallible, BrokerError> {
        self.subscribe_all(&mut connection).await?;
        self.inbound.open(id).await;
        health.subscribed.store(true, Ordering::Relaxed);
        self.store.health.subscribed(None);
        let mut probe = interval(PROBE_EVERY);
        probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut received, mut received_at) = (0, Instant::now());
        loop {
            tokio::select! {
                biased;
                () = health.broken.notified() => return Err(BrokerError::unreachable(&"disconnected")),
                () = self.subscriptions.changed.notified() => self.follow(&mut connection).await?,
                _ = probe.tick() => {
                    within(self.store.timeout, redis::cmd("PING").query_async::<Value>(&mut connection)).await?;
                    health.probe_sent();
                    // Not awaited: what matters is whether the probe comes back.
                    drop(self.publisher.query(redis::cmd("PUBLISH").arg(&self.own_channel).arg("T").clone()));
                    let now = health.received.load(Ordering::Relaxed);
                    if now != received {
                        (received, received_at) = (now, Instant::now());
                    } else if received_at.elapsed() > SILENT_AFTER {
                        let silent = "the subscription no longer delivers: probes do not come back";
                        return Err(BrokerError::unreachable(&silent));
                    }
                }
            }
        }
    }

    async fn subscribe_all(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> Result<(), BrokerError> {
        let (mut channels, waiting) = {
            let mut table = self.subscriptions.lock();
            table.dropped.clear();
            (
                table.wanted.keys().cloned().collect::<Vec<_>>(),
                std::mem::take(&mut table.waiting),
            )
        };
        channels.push(self.own_channel.clone());
        self.subscribe(connection, &channels).await?;
        confirm(waiting);
        Ok(())
    }

    /// Applies the changes of the table.
    async fn follow(&self, connection: &mut MultiplexedConnection) -> Result<(), BrokerError> {
        let (waiting, mut dropped) = {
            let mut table = self.subscriptions.lock();
            let mut waiting = std::mem::take(&mut table.waiting);
            // A caller that has stopped waiting has dropped the channel, so nobody would unsubscribe it again.
            waiting.retain(|(_, waiter)| !waiter.is_closed());
            let mut dropped = std::mem::take(&mut table.dropped);
            dropped.retain(|channel| !table.wanted.contains_key(channel));
            (waiting, dropped)
        };
        dropped.sort_unstable();
        dropped.dedup();
        for batch in dropped.chunks(CHANNELS_PER_COMMAND) {
            within(self.store.timeout, connection.unsubscribe(batch)).await?;
        }
        let mut channels: Vec<String> =
            waiting.iter().map(|(channel, _)| channel.clone()).collect();
        channels.sort_unstable();
        channels.dedup();
        self.subscribe(connection, &channels).await?;
        confirm(waiting);
        Ok(())
    }

    async fn subscribe(
        &self,
        connection: &mut MultiplexedConnection,
        channels: &[String],
    ) -> Result<(), BrokerError> {
        for batch in channels.chunks(CHANNELS_PER_COMMAND) {
            within(self.store.timeout, connection.subscribe(batch)).await?;
        }
        Ok(())
    }
}

fn confirm(waiting: Vec<(String, oneshot::Sender<()>)>) {
    for (_, waiter) in waiting {
        // A caller that has stopped waiting has dropped the channel too.
        let _ = waiter.send(());
    }
}

async fn within<T>(
    time: Duration,
    asking: impl Future<Output = Result<T, RedisError>>,
) -> Result<T, BrokerError> {
    match timeout(time, asking).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(BrokerError::unreachable(&error_text(&error))),
        Err(_) => Err(BrokerError::TimedOut),
    }
}
