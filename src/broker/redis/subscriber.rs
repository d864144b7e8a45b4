//! The subscriptions: one RESP3 connection of its own, watched, rebuilt whenever it breaks, freezes or goes deaf.
//!
//! What is wanted is a table; the connection is made to match it. After any break everything is subscribed anew before a single push is
//! believed again, and then everybody is told of the gap.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{PushInfo, PushKind, RedisError, Value};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tracing::{debug, warn};

use super::connect::Store;
use super::publisher::Publisher;
use super::wire::{Heard, Known};
use crate::broker::inbound::{InboundQueue, Line};
use crate::broker::{BrokerError, Lease};
use crate::model::SessionId;
use crate::telemetry::RedisTrouble;

/// How many channels one SUBSCRIBE names.
const BATCH: usize = 1000;
/// How often the connection is probed.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// How long it may be deaf to its own probes.
const DEAF_AFTER: Duration = Duration::from_secs(3);
/// How long to rest between two tries to connect.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

/// After how many connections in a row that cannot be used somebody should look at it.
const REFUSALS_TOLD: u32 = 20;
/// How much longer to rest after each of them.
const REFUSED_PAUSE: Duration = Duration::from_millis(5);

/// What the node wants to hear.
#[derive(Debug, Default)]
pub(super) struct Wants {
    /// Held for a few map operations.
    table: Mutex<Table>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Table {
    /// How many want each channel. As many as there are sessions and logins.
    wanted: HashMap<String, usize>,
    /// Who waits for a confirmation.
    waiting: Vec<(String, oneshot::Sender<()>)>,
    /// What may not be wanted any more.
    dropped: Vec<String>,
    /// The sessions, and which connection of each, whose wish is kept until they end it.
    kept: HashSet<(SessionId, u32)>,
}

/// One wish to hear a channel; forgotten when dropped, unless it was kept.
#[derive(Debug)]
pub(super) struct Listening {
    wants: Arc<Wants>,
    channel: Option<String>,
}

impl Wants {
    /// Wants a channel, and waits until Redis confirmed it.
    pub(super) async fn listen(
        self: &Arc<Self>,
        channel: String,
        within: Duration,
    ) -> Result<Listening, BrokerError> {
        let (sender, confirmed) = oneshot::channel();
        {
            let mut table = self.lock();
            *table.wanted.entry(channel.clone()).or_default() += 1;
            table.waiting.push((channel.clone(), sender));
        }
        self.changed.notify_one();
        let listening = Listening {
            wants: Arc::clone(self),
            channel: Some(channel),
        };
        match timeout(within, confirmed).await {
            Ok(Ok(())) => Ok(listening),
            _ => Err(BrokerError::TimedOut),
        }
    }

    /// Ends a wish that was kept for this lease; once, however often it is called.
    pub(super) fn end(&self, lease: &Lease, channel: String) {
        if self.lock().kept.remove(&(lease.session, lease.generation)) {
            self.forget(channel);
        }
    }

    fn forget(&self, channel: String) {
        let mut table = self.lock();
        if let Some(wishes) = table.wanted.get_mut(&channel) {
            *wishes -= 1;
            if *wishes == 0 {
                table.wanted.remove(&channel);
                table.dropped.push(channel);
                drop(table);
                self.changed.notify_one();
            }
        }
    }

    /// Forgets who waits no longer.
    fn give_up(&self) {
        self.lock()
            .waiting
            .retain(|(_, waiter)| !waiter.is_closed());
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listening {
    /// Keeps listening until the lease [ends](Wants::end) the wish.
    pub(super) fn keep(mut self, lease: &Lease) {
        let kept = (lease.session, lease.generation);
        self.wants.lock().kept.insert(kept);
        self.channel = None;
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if let Some(channel) = self.channel.take() {
            self.wants.forget(channel);
        }
    }
}

/// What is done with everything that is heard; called by a connection's reader, so it must not wait.
pub(super) type Ears = Arc<dyn Fn(Heard, &InboundQueue, Line) + Send + Sync>;

/// Keeps one connection that hears what is wanted.
pub(super) struct Subscriber {
    pub(super) store: Store,
    pub(super) wants: Arc<Wants>,
    pub(super) inbound: Arc<InboundQueue>,
    pub(super) ears: Ears,
    /// Where the probe is published, and by which publisher.
    pub(super) own_channel: String,
    pub(super) publisher: Publisher,
}

/// What the reader of one connection tells its supervisor.
#[derive(Debug, Default)]
struct Pulse {
    broken: Notify,
    /// Whether everything that is wanted was subscribed once.
    subscribed: AtomicBool,
    /// Counts everything heard on the own channel.
    heard: AtomicU64,
    /// When the last probe left that has not come back.
    probed_at: Mutex<Option<Instant>>,
}

impl Pulse {
    fn probes(&self) {
        *self
            .probed_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// How long the probe was under way that has just come back.
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
            let pulse = Arc::new(Pulse::default());
            let error = match self.connect(Line(number), Arc::clone(&pulse)).await {
                Ok(connection) => {
                    let Err(error) = self.serve(connection, Line(number), &pulse).await;
                    self.inbound.shut();
                    // One that worked is replaced at once: what is sent meanwhile has to fit into the inboxes.
                    let worked = pulse.subscribed.load(Ordering::Relaxed);
                    refusals = if worked { 0 } else { refusals + 1 };
                    if refusals == REFUSALS_TOLD {
                        warn!(%error, "Redis does not let this node subscribe: nothing arrives from other nodes. Look at the rights of \
                               its user (ACL: +subscribe, and & for the channels of redis.prefix)");
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
            self.wants.give_up();
        }
    }

    async fn connect(
        &self,
        line: Line,
        pulse: Arc<Pulse>,
    ) -> Result<MultiplexedConnection, BrokerError> {
        let (inbound, ears, own) = (
            Arc::clone(&self.inbound),
            Arc::clone(&self.ears),
            self.own_channel.clone(),
        );
        let metrics = Arc::clone(&self.store.metrics);
        // One reader calls this, so nobody waits for the lock.
        let known = Mutex::new(Known::default());
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
                        pulse.heard.fetch_add(1, Ordering::Relaxed);
                    }
                    let heard = Heard::read(
                        payload,
                        &mut known.lock().unwrap_or_else(PoisonError::into_inner),
                    );
                    if let Some(heard) = heard {
                        if let (Heard::Probe, Some(took)) = (&heard, pulse.probe_took()) {
                            metrics.probed(took);
                        }
                        ears(heard, &inbound, line);
                    }
                }
                PushKind::Disconnection => pulse.broken.notify_one(),
                _ => {}
            });
        within(self.store.timeout, connecting).await
    }

    /// Makes the connection match the wants until it breaks.
    async fn serve(
        &self,
        mut connection: MultiplexedConnection,
        line: Line,
        pulse: &Pulse,
    ) -> Result<Infallible, BrokerError> {
        self.subscribe_all(&mut connection).await?;
        self.inbound.open(line).await;
        pulse.subscribed.store(true, Ordering::Relaxed);
        let mut probe = interval(PROBE_EVERY);
        probe.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut heard, mut heard_at) = (0, Instant::now());
        loop {
            tokio::select! {
                biased;
                () = pulse.broken.notified() => return Err(BrokerError::unreachable(&"disconnected")),
                () = self.wants.changed.notified() => self.follow(&mut connection).await?,
                _ = probe.tick() => {
                    within(self.store.timeout, redis::cmd("PING").query_async::<Value>(&mut connection)).await?;
                    pulse.probes();
                    // Not awaited: what tells is whether it comes back.
                    drop(self.publisher.ask(redis::cmd("PUBLISH").arg(&self.own_channel).arg("T").clone()));
                    let now = pulse.heard.load(Ordering::Relaxed);
                    if now != heard {
                        (heard, heard_at) = (now, Instant::now());
                    } else if heard_at.elapsed() > DEAF_AFTER {
                        return Err(BrokerError::unreachable(&"deaf to its own probes"));
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
            let mut table = self.wants.lock();
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

    /// Does what the wants have become, whatever they were in between.
    async fn follow(&self, connection: &mut MultiplexedConnection) -> Result<(), BrokerError> {
        let (waiting, mut dropped) = {
            let mut table = self.wants.lock();
            let mut waiting = std::mem::take(&mut table.waiting);
            // Whoever gave up has forgotten the channel: nobody would unsubscribe it again.
            waiting.retain(|(_, waiter)| !waiter.is_closed());
            let mut dropped = std::mem::take(&mut table.dropped);
            dropped.retain(|channel| !table.wanted.contains_key(channel));
            (waiting, dropped)
        };
        dropped.sort_unstable();
        dropped.dedup();
        for batch in dropped.chunks(BATCH) {
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
        for batch in channels.chunks(BATCH) {
            within(self.store.timeout, connection.subscribe(batch)).await?;
        }
        Ok(())
    }
}

fn confirm(waiting: Vec<(String, oneshot::Sender<()>)>) {
    for (_, waiter) in waiting {
        // Whoever gave up waiting has forgotten the channel too.
        let _ = waiter.send(());
    }
}

async fn within<T>(
    time: Duration,
    asking: impl Future<Output = Result<T, RedisError>>,
) -> Result<T, BrokerError> {
    match timeout(time, asking).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(BrokerError::unreachable(&error)),
        Err(_) => Err(BrokerError::TimedOut),
    }
}
