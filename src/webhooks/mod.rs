//! Webhooks: tells an HTTP receiver what happens to sessions and calls, at least once, and in order for each user.
//!
//! Each node records facts in the broker's log of events. One node at a time tells them: over several, the order of a
//! call's two users could not be kept. When it dies, another goes on where the log does.

mod payload;
mod queue;
mod reaper;
mod receiver;
mod recorder;

pub use receiver::{Receiver, WrongReceiver};

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{info, warn};

use self::queue::Queue;
use self::recorder::record_all;
use crate::broker::{BrokerError, Event, EventLog};
use crate::model::Secret;
use crate::router::{Facts, Router, ToldFacts};
use crate::telemetry::{Metrics, Webhook};

/// How often new events are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often the right to tell is renewed, and how long it lasts.
const LEAD_EVERY: Duration = Duration::from_secs(1);
const LEAD_FOR: Duration = Duration::from_secs(5);
/// How often sessions of dead nodes are looked for.
const REAP_EVERY: Duration = Duration::from_secs(2);
/// How many events are told at once.
const AT_ONCE: usize = 16;

/// What a node needs for its webhooks, if it has a receiver.
#[derive(Debug)]
pub struct Webhooks(Option<(ToldFacts, Receiver)>);

impl Webhooks {
    /// Where sessions tell what happens to them, and what is made of it.
    pub fn prepare(settings: Option<&(String, Secret)>, metrics: &Arc<Metrics>) -> (Facts, Self) {
        // A valid configuration has a valid receiver.
        let receiver = settings.and_then(|(url, secret)| Receiver::new(url, secret.expose()).ok());
        let Some(receiver) = receiver else {
            return (Facts::default(), Self(None));
        };
        let (facts, told) = Facts::wanted(Arc::clone(metrics));
        (facts, Self(Some((told, receiver))))
    }

    /// Futures that must run: one records what sessions tell, the other tells the receiver.
    pub fn drivers(
        self,
        events: Arc<dyn EventLog>,
        router: &Arc<Router>,
    ) -> Vec<(&'static str, BoxFuture<'static, ()>)> {
        let Some((told, receiver)) = self.0 else {
            return Vec::new();
        };
        let metrics = Arc::clone(&router.telemetry().metrics);
        let recording = record_all(told, Arc::clone(&events), metrics);
        let teller = Teller::new(events, Arc::clone(router), receiver);
        vec![
            ("webhook recorder", Box::pin(recording)),
            ("webhooks", Box::pin(teller.run())),
        ]
    }
}

/// Tells the events of the log to the receiver.
#[derive(Debug)]
pub struct Teller {
    log: Arc<dyn EventLog>,
    router: Arc<Router>,
    receiver: Arc<Receiver>,
    queue: Queue,
    /// The last event that is in the queue, or was.
    read_to: Option<String>,
    /// Until when this node may tell.
    leads_until: Option<Instant>,
    asked_at: Option<Instant>,
    reaped_at: Option<Instant>,
    is_failing: bool,
}

/// What became of one attempt to tell an event.
type Told = (String, Result<(), String>);

impl Teller {
    /// Tells the events of this log.
    pub fn new(log: Arc<dyn EventLog>, router: Arc<Router>, receiver: Receiver) -> Self {
        Self {
            log,
            router,
            receiver: Arc::new(receiver),
            queue: Queue::default(),
            read_to: None,
            leads_until: None,
            asked_at: None,
            reaped_at: None,
            is_failing: false,
        }
    }

    /// Service: tells events while this node may.
    pub async fn run(mut self) {
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut attempts = FuturesUnordered::new();
        loop {
            tokio::select! {
                Some(told) = attempts.next(), if !attempts.is_empty() => self.told(told).await,
                _ = look.tick() => {
                    if self.refresh().await.is_err() || !self.leads() {
                        // Whoever tells now begins with what this node has not finished.
                        attempts.clear();
                        self.queue = Queue::default();
                        self.read_to = None;
                        continue;
                    }
                }
            }
            while attempts.len() < AT_ONCE
                && let Some(event) = self.queue.start(Instant::now())
            {
                attempts.push(attempt(
                    Arc::clone(&self.receiver),
                    Arc::clone(&self.log),
                    event,
                ));
            }
        }
    }

    fn leads(&self) -> bool {
        self.leads_until.is_some_and(|until| until > Instant::now())
    }

    /// Renews the right to tell, and reads new events.
    async fn refresh(&mut self) -> Result<(), BrokerError> {
        let now = Instant::now();
        let is_due = |at: Option<Instant>, every| at.is_none_or(|at| now - at >= every);
        if is_due(self.asked_at, LEAD_EVERY) {
            self.asked_at = Some(now);
            let leads = self.log.lead(LEAD_FOR).await?;
            self.leads_until = leads.then(|| now + LEAD_FOR);
            if leads {
                let waiting = self.log.waiting().await?;
                self.metrics().webhooks_wait(waiting);
            }
        }
        if !self.leads() {
            self.metrics().webhooks_wait(0);
            return Ok(());
        }
        if is_due(self.reaped_at, REAP_EVERY) {
            self.reaped_at = Some(now);
            reaper::reap(&*self.log, &self.router).await?;
        }
        let events = self
            .log
            .events(self.read_to.as_deref(), self.queue.room())
            .await?;
        for event in events {
            self.read_to = Some(event.place.clone());
            self.queue.push(event);
        }
        Ok(())
    }

    /// Handles the outcome of an attempt.
    async fn told(&mut self, (place, outcome): Told) {
        match outcome {
            Ok(()) => {
                self.metrics().webhooks(Webhook::Delivered, 1);
                self.queue.done(&place);
                if std::mem::take(&mut self.is_failing) {
                    info!("The receiver of webhooks takes events again");
                }
            }
            Err(why) => {
                self.metrics().webhooks(Webhook::Failed, 1);
                if !std::mem::replace(&mut self.is_failing, true) {
                    warn!(
                        why,
                        "The receiver of webhooks does not take an event: it is tried again for a day. \
                         Check that webhooks.url is right and what the receiver says"
                    );
                }
                if let Some(event) = self.queue.failed(&place, Instant::now()) {
                    self.metrics().webhooks(Webhook::Dead, 1);
                    warn!(
                        event.id,
                        "An event was not taken for a day: it is a dead letter now"
                    );
                    // If this fails, another node makes it one.
                    let _ = self.log.done(&event, Some(&why)).await;
                }
            }
        }
    }

    fn metrics(&self) -> &crate::telemetry::Metrics {
        &self.router.telemetry().metrics
    }
}

/// Tells one event, and removes it from the log. If that fails, it is told again: with the same id.
async fn attempt(receiver: Arc<Receiver>, log: Arc<dyn EventLog>, event: Event) -> Told {
    let told = async {
        receiver.tell(&event).await?;
        log.done(&event, None)
            .await
            .map_err(|error| error.to_string())
    };
    let outcome = told.await;
    (event.place, outcome)
}
