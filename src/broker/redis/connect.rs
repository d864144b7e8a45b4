//! Connects a node to Redis: builds its broker with all drivers.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use super::broker::RedisBroker;
use super::config::{Config, ConnectError};
use super::epoch::StoreEpoch;
use super::health::HealthMonitor;
use super::keys::{DestinationCache, Keys};
use super::probe::Probe;
use super::publisher::Publisher;
use super::questions::PendingQuestions;
use super::scripts::Scripts;
use super::store::{Store, Ttls};
use super::subscriber::{MessageHandler, Subscriber};
use super::subscriptions::Subscriptions;
use crate::broker::inbound::InboundQueue;
use crate::broker::{Connected, EventLog, QUESTIONS, Questions, Terms};
use crate::model::NodeId;
use crate::telemetry::Metrics;

/// Time to live of a resumable user's inbox, from its first entry or its last renewal.
const INBOX_TTL: Duration = Duration::from_mins(10);

type Drivers = Vec<(&'static str, BoxFuture<'static, ()>)>;

/// Prepares a node's connections, which its drivers make and make again. An error is a setting that cannot work.
pub fn connect(
    config: &Config,
    terms: Terms,
    node: NodeId,
    metrics: Arc<Metrics>,
) -> Result<Connected, ConnectError> {
    let ttls = ttls(config, terms);
    let epoch = Arc::new(StoreEpoch::new(terms.node_ttl));
    let store = Store::prepare(config, ttls, Arc::clone(&epoch), metrics)?;
    let scripts = Arc::new(Scripts::default());
    let keys = Keys::new(&config.prefix);
    let mut drivers = Drivers::new();
    let mut publisher = |name| {
        let own_lease = keys.node(&node);
        let (publisher, driver) = Publisher::open(store.clone(), Arc::clone(&scripts), own_lease);
        drivers.push((name, driver.boxed()));
        publisher
    };
    let lanes = 0..config.publishers.max(1);
    let publishers = lanes.map(|_| publisher("publisher")).collect();
    let node_publisher = publisher("node channel");

    let (inbound, inbox) = InboundQueue::new(None);
    let inbound = Arc::new(inbound);
    let (subscriptions, health) = (Arc::<Subscriptions>::default(), Arc::clone(&store.health));
    let (pending, questions, admin_questions) = questions_of_nodes();
    let subscriber = Subscriber {
        store,
        subscriptions: Arc::clone(&subscriptions),
        inbound: Arc::clone(&inbound),
        handler: handler(Arc::clone(&pending)),
        own_channel: keys.node_channel(&node),
        publisher: node_publisher.clone(),
    };
    drivers.push(("subscriber", subscriber.run().boxed()));
    drivers.push((
        "gap announcer",
        async move { inbound.announce().await }.boxed(),
    ));
    let watch = epoch.watch();
    let broker = Arc::new(RedisBroker {
        node,
        keys,
        destinations: DestinationCache::default(),
        terms,
        timeout: config.timeout,
        scripts,
        publishers,
        node_publisher,
        subscriptions,
        questions: pending,
        ttls,
        epoch,
    });
    let told = health.watch();
    drivers.push(("redis probe", probe(&broker, health)));
    Ok(Connected {
        events: Arc::clone(&broker) as Arc<dyn EventLog>,
        broker,
        inbox,
        questions,
        admin_questions,
        epoch: watch,
        health: told,
        drivers,
    })
}

fn probe(broker: &Arc<RedisBroker>, health: Arc<HealthMonitor>) -> BoxFuture<'static, ()> {
    let broker = Arc::clone(broker);
    Probe { broker, health }.run().boxed()
}

fn questions_of_nodes() -> (Arc<PendingQuestions>, Questions, Questions) {
    let (http, questions) = mpsc::channel(QUESTIONS);
    let (admin, admin_questions) = mpsc::channel(QUESTIONS);
    let pending = Arc::new(PendingQuestions::new(http, admin));
    (pending, questions, admin_questions)
}

fn ttls(config: &Config, terms: Terms) -> Ttls {
    Ttls {
        user: terms.user_ttl,
        // Not shorter than the lease, which promises that the inbox is there.
        inbox: INBOX_TTL.max(terms.user_ttl),
        record: terms.user_ttl + terms.grace,
        prefix: config.prefix.len(),
    }
}

fn handler(questions: Arc<PendingQuestions>) -> MessageHandler {
    Arc::new(move |message, inbound, connection| {
        questions.dispatch(message, inbound, connection);
    })
}
