//! How a node is connected to a Redis.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use super::RedisFabric;
use super::connect::{Lives, OpenError, Store};
use super::epoch::StoreEpoch;
use super::keys::{Keys, KnownDestinations};
use super::publisher::Publisher;
use super::rpc::Asked;
use super::scripts::Scripts;
use super::subscriber::{Subscriber, Wants};
use crate::broker::inbound::InboundQueue;
use crate::broker::{Opened, QUESTIONS, Terms};
use crate::model::NodeId;
use crate::telemetry::Metrics;

/// How long a resumable user's inbox lives from its beginning or its last renewal.
const INBOX_LIVES: Duration = Duration::from_mins(10);

/// How to use a Redis.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it is; may hold a password.
    pub url: Url,
    /// What every key and channel begins with.
    pub prefix: String,
    /// How many publishers.
    pub publishers: usize,
    /// How long one round trip may take before Redis counts as away.
    pub timeout: Duration,
}

/// A URL that may hold a password, so it is shown without it.
#[derive(Clone, PartialEq, Eq)]
pub struct Url(String);

impl Url {
    /// This URL.
    pub fn new(url: &str) -> Self {
        Self(url.to_owned())
    }

    /// The URL with its secret.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.0.split_once("://"), self.0.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, host))) => write!(f, "{scheme}://***@{host}"),
            _ => f.write_str(&self.0),
        }
    }
}

impl std::fmt::Debug for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Url({self})")
    }
}

/// Connects a node. A Redis that does not answer is waited for by the drivers; one that is too old is refused.
pub async fn open(
    config: &Config,
    terms: Terms,
    node: NodeId,
    metrics: Arc<Metrics>,
) -> Result<Opened, OpenError> {
    let lives = Lives {
        user: terms.user_ttl,
        inbox: INBOX_LIVES.max(terms.user_ttl),
        record: terms.user_ttl + terms.grace,
        prefix: config.prefix.len(),
    };
    let epoch = Arc::new(StoreEpoch::new(terms.node_ttl));
    let store = Store::prepare(config, lives, Arc::clone(&epoch), metrics)?;
    match store.check().await {
        // It may come: the publishers keep trying.
        Err(error @ OpenError::Away(_)) => store.complain(&error.to_string()),
        checked => checked?,
    }
    let scripts = Arc::new(Scripts::default());
    let keys = Keys::new(&config.prefix);
    let own_lease = keys.node(&node);
    let mut drivers: Vec<(&'static str, BoxFuture<'static, ()>)> = Vec::new();
    let mut publisher = |name| {
        let (publisher, driver) =
            Publisher::open(store.clone(), Arc::clone(&scripts), own_lease.clone());
        drivers.push((name, driver.boxed()));
        publisher
    };
    let publishers: Vec<Publisher> = (0..config.publishers.max(1))
        .map(|_| publisher("publisher"))
        .collect();
    let own_lane = publisher("node channel");

    let (inbound, inbox) = InboundQueue::new(None);
    let inbound = Arc::new(inbound);
    let wants = Arc::<Wants>::default();
    let (http, questions) = mpsc::channel(QUESTIONS);
    let asked = Arc::new(Asked::new(http));
    let subscriber = Subscriber {
        store,
        wants: Arc::clone(&wants),
        inbound: Arc::clone(&inbound),
        ears: {
            let asked = Arc::clone(&asked);
            Arc::new(move |heard, inbound: &_, line| asked.hear(heard, inbound, line))
        },
        own_channel: keys.node_channel(&node),
        publisher: own_lane.clone(),
    };
    drivers.push(("subscriber", subscriber.run().boxed()));
    drivers.push((
        "gap announcer",
        async move { inbound.announce().await }.boxed(),
    ));
    let broker = RedisFabric {
        node,
        keys,
        destinations: KnownDestinations::default(),
        terms,
        timeout: config.timeout,
        scripts,
        publishers,
        own_lane,
        wants,
        asked,
        lives,
        epoch,
    };
    Ok(Opened {
        broker: Arc::new(broker),
        inbox,
        questions,
        drivers,
    })
}
