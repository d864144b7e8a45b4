//! The fabric over Redis: keys with a time to live say who is where, one channel for each user carries what is sent.

mod batch;
mod clock;
mod commands;
mod connect;
mod keys;
mod lane;
mod ledger;
mod letterboxes;
mod questions;
mod scripts;
mod subscriber;
mod wire;

pub use connect::OpenError;

use std::collections::HashMap;
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, try_join_all};
use redis::{Cmd, Value};
use tokio::time::timeout;

use self::batch::{Letter, Sheet};
use self::clock::Clock;
use self::connect::{Identity, Lives, Store};
use self::keys::{Keys, KnownDestinations};
use self::lane::Lane;
use self::questions::Questions;
use self::scripts::Scripts;
use self::subscriber::{Listening, Subscriber, Wants};
use self::wire::{Heard, entries, holder, millis, unexpected};
use super::intake::Intake;
use super::wakes::Wakes;
use super::{
    Beat, Challenge, Claim, Entry, Envelope, Fabric, FabricError, Holder, Lease, Notes, Opened,
    Postage, Receipt, Renewal, Resume, Terms, Verdict,
};
use crate::bugs::{self, Bug};
use crate::model::{Address, EntryId, NodeId, Realm, SecretHash, SessionId, UserName};
use crate::telemetry::Metrics;

/// How many leases one script call renews: more would make Redis' other users wait (2 ms at 500, measured).
const RENEWED_AT_ONCE: usize = 500;

/// How many keys one step of a scan looks at: half a millisecond of Redis.
const SCANNED_AT_ONCE: usize = 1000;

/// How long a plain user's inbox lives from its beginning or its last renewal.
const INBOX_LIVES: Duration = Duration::from_mins(1);
/// The same, for a resumable user.
const RESUMABLE_INBOX_LIVES: Duration = Duration::from_mins(10);

/// How to use a Redis.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it is; may hold a password.
    pub url: Url,
    /// What every key and channel begins with.
    pub prefix: String,
    /// How many publisher lanes.
    pub lanes: usize,
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

/// Connects a node: checks the Redis, takes the node's own lease.
pub async fn open(
    config: &Config,
    terms: Terms,
    node: NodeId,
    metrics: Arc<Metrics>,
) -> Result<Opened, OpenError> {
    let lives = Lives {
        user: terms.user_ttl,
        inbox: INBOX_LIVES.max(terms.user_ttl),
        resumable_inbox: RESUMABLE_INBOX_LIVES.max(terms.user_ttl),
        record: terms.user_ttl + terms.grace,
        prefix: config.prefix.len(),
    };
    let store = Store::prepare(config, lives, metrics)?;
    store.check().await?;
    let scripts = Arc::new(Scripts::default());
    let mut drivers: Vec<(&'static str, BoxFuture<'static, ()>)> = Vec::new();
    let mut lane = |name| {
        let (lane, driver) = Lane::open(store.clone(), Arc::clone(&scripts));
        drivers.push((name, driver.boxed()));
        lane
    };
    let lanes: Vec<Lane> = (0..config.lanes.max(1))
        .map(|_| lane("publisher lane"))
        .collect();
    let own_lane = lane("node lane");

    let (intake, inbox) = Intake::new(None);
    let intake = Arc::new(intake);
    let wants = Arc::<Wants>::default();
    let questions = Arc::<Questions>::default();
    let wakes = Arc::<Wakes>::default();
    let keys = Keys::new(&config.prefix);
    let identity = Arc::clone(store.identity());
    let subscriber = Subscriber {
        store,
        wants: Arc::clone(&wants),
        intake: Arc::clone(&intake),
        ears: {
            let (questions, wakes) = (Arc::clone(&questions), Arc::clone(&wakes));
            Arc::new(move |heard, intake: &_, line| match heard {
                Heard::Wake(session) => wakes.wake(session),
                heard => questions.hear(heard, intake, line),
            })
        },
        wakes: Arc::clone(&wakes),
        own_channel: keys.node_channel(&node),
        lane: own_lane.clone(),
    };
    drivers.push(("subscriber", subscriber.run().boxed()));
    drivers.push((
        "gap announcer",
        async move { intake.announce().await }.boxed(),
    ));
    let fabric = RedisFabric {
        node,
        keys,
        destinations: KnownDestinations::default(),
        terms,
        timeout: config.timeout,
        scripts,
        lanes,
        own_lane,
        wants,
        questions,
        wakes,
        lives,
        identity,
        beaten: Mutex::default(),
        clock: Clock::default(),
    };
    let fabric = Arc::new(fabric);
    Ok(Opened {
        letterboxes: Arc::clone(&fabric) as _,
        fabric,
        inbox,
        drivers,
    })
}

/// One node at one Redis; what it asks of it is written in `commands`.
#[derive(Debug)]
struct RedisFabric {
    node: NodeId,
    keys: Keys,
    destinations: KnownDestinations,
    terms: Terms,
    timeout: Duration,
    scripts: Arc<Scripts>,
    lanes: Vec<Lane>,
    own_lane: Lane,
    wants: Arc<Wants>,
    questions: Arc<Questions>,
    wakes: Arc<Wakes>,
    lives: Lives,
    identity: Arc<Identity>,
    beaten: Mutex<Beaten>,
    clock: Clock,
}

/// What the last beat found.
#[derive(Debug, Default, PartialEq, Eq)]
struct Beaten {
    /// What the node's own lease says; another text means that it was lost in between.
    token: String,
    /// Which state of the store it was.
    generation: u64,
    /// When it was asked, by this node's clock.
    at: i64,
    /// It found that the store had lost data: until the next one nobody takes the store for whole, whoever hears of it first.
    lost: bool,
}

impl RedisFabric {
    /// One address, one lane: what is sent to it leaves in order.
    fn lane(&self, address: &Address) -> &Lane {
        &self.lanes[self.lane_number(address)]
    }

    fn lane_number(&self, address: &Address) -> usize {
        if self.lanes.len() == 1 {
            return 0;
        }
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(address);
        // There are at most 64 lanes, so nothing that matters is cut off.
        usize::try_from(hash % self.lanes.len() as u64).unwrap_or_default()
    }

    /// Until when a command that was just given may run, by the server's clock.
    fn deadline(&self) -> i64 {
        self.clock.now().saturating_add(millis(self.timeout))
    }

    /// Takes what a beat has found. Whether the node's lease was still there.
    fn takes(&self, found: Beaten) -> bool {
        let (generation, at) = (found.generation, found.at);
        let mut beaten = self.beaten();
        let before = std::mem::replace(&mut *beaten, found);
        let is_first = before.token.is_empty();
        let same_lease = before.token == beaten.token;
        let in_time = at - before.at < millis(self.terms.node_ttl);
        if !same_lease && !is_first && in_time && before.generation == generation {
            // The same Redis has forgotten a lease that had not run out: by FLUSHALL, for one.
            // One of ours that nobody else has noticed before is no news to the next beat.
            let now = self.identity.forgot();
            beaten.generation = if now == generation + 1 {
                now
            } else {
                generation
            };
        }
        let own = same_lease && before.generation == generation;
        beaten.lost = !own && !is_first;
        own
    }

    fn beaten(&self) -> MutexGuard<'_, Beaten> {
        self.beaten.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Fabric for RedisFabric {
    async fn claim(
        &self,
        lease: &Lease,
        over: Option<&Holder>,
        secret: Option<&SecretHash>,
    ) -> Result<Claim, FabricError> {
        let listening: Listening = self
            .wants
            .listen(self.keys.channel(&lease.address), self.timeout)
            .await?;
        let claim = self.claim_command(lease, over, secret);
        let lane = self.lane(&lease.address);
        match lane.ask(claim).await {
            Ok(won @ (Value::Nil | Value::Int(1))) => {
                listening.keep(lease);
                if bugs::has(Bug::ImmortalRecords) {
                    let key = self.keys.presence(&lease.address);
                    drop(lane.ask(redis::cmd("PERSIST").arg(key).clone()));
                }
                Ok(if won == Value::Nil {
                    Claim::Won
                } else {
                    Claim::Awaited
                })
            }
            Ok(Value::BulkString(lease)) => Ok(Claim::Held(holder(&lease)?)),
            Ok(_) => Err(unexpected()),
            Err(error) => {
                // It may have been won without our knowing.
                drop(lane.ask(self.of_lease(&self.scripts.release, lease, EntryId::default())));
                Err(error)
            }
        }
    }

    async fn resume(
        &self,
        address: &Address,
        secret: &SecretHash,
        last: Option<EntryId>,
        whole: bool,
    ) -> Result<Resume, FabricError> {
        let channel = self.keys.channel(address);
        let listening: Listening = self.wants.listen(channel, self.timeout).await?;
        let resume = self.resume_command(address, secret, last, whole);
        let (resume, before) = wire::resume(address, self.lane(address).ask(resume).await?)?;
        if let Resume::Won(resumed) = &resume {
            let Lease {
                session, attach, ..
            } = resumed.lease;
            listening.keep(&resumed.lease);
            if let Some(before) = before {
                // Should it be lost, the next renewal tells the same.
                let told = publish(
                    self.keys.node_channel(&before.node),
                    wire::replaced(session, attach),
                );
                drop(self.own_lane.ask(told));
            }
        }
        Ok(resume)
    }

    async fn knows(&self, address: &Address, secret: &SecretHash) -> Result<bool, FabricError> {
        let mut knows = self.scripts.knows.on(&self.keys.of(address));
        knows.arg(secret.as_str());
        Ok(self.lane(address).ask(knows).await? == Value::Int(1))
    }

    fn note(&self, lease: &Lease, notes: Notes) -> BoxFuture<'static, Result<bool, FabricError>> {
        let note = self.note_command(lease, notes);
        let answer = self.lane(&lease.address).ask(note);
        async move {
            match answer.await? {
                Value::Int(is_ours) => Ok(is_ours == 1),
                _ => Err(unexpected()),
            }
        }
        .boxed()
    }

    fn free(
        &self,
        address: &Address,
        dead: &Holder,
    ) -> BoxFuture<'static, Result<(), FabricError>> {
        let free = self.of_holder(&self.scripts.release, address, dead, EntryId::default());
        let freed = self.lane(address).ask(free);
        async move { freed.await.map(drop) }.boxed()
    }

    async fn barrier(&self, lease: &Lease) -> Result<(), FabricError> {
        let barrier = publish(
            self.keys.channel(&lease.address),
            wire::barrier(lease.session),
        );
        self.lane(&lease.address).ask(barrier).await.map(drop)
    }

    fn renew(&self, leases: Vec<Lease>) -> BoxFuture<'static, Result<Vec<Renewal>, FabricError>> {
        // Dealt by lane, so that a renewal cannot overtake the release of its lease; each answer goes back to its place.
        let mut dealt: Vec<(&Lane, Vec<usize>)> =
            self.lanes.iter().map(|lane| (lane, Vec::new())).collect();
        for (place, lease) in leases.iter().enumerate() {
            dealt[self.lane_number(&lease.address)].1.push(place);
        }
        let mut asked = Vec::new();
        for (lane, places) in dealt {
            for places in places.chunks(RENEWED_AT_ONCE) {
                let batch: Vec<&Lease> = places.iter().map(|&place| &leases[place]).collect();
                let (places, answer) = (places.to_vec(), lane.ask(self.renew_command(&batch)));
                asked.push(async move {
                    answer
                        .await
                        .and_then(renewals)
                        .map(|renewed| (places, renewed))
                });
            }
        }
        let count = leases.len();
        async move {
            let mut results = vec![Renewal::Mine; count];
            for (places, renewed) in try_join_all(asked).await? {
                for (place, renewal) in places.into_iter().zip(renewed) {
                    results[place] = renewal;
                }
            }
            Ok(results)
        }
        .boxed()
    }

    fn release(
        &self,
        lease: &Lease,
        last: EntryId,
    ) -> BoxFuture<'static, Result<Vec<Entry>, FabricError>> {
        let unread =
            self.lane(&lease.address)
                .ask(self.of_lease(&self.scripts.release, lease, last));
        let (wants, lease, channel) = (
            Arc::clone(&self.wants),
            lease.clone(),
            self.keys.channel(&lease.address),
        );
        async move {
            let unread = unread.await.and_then(entries);
            wants.end(&lease, channel);
            unread
        }
        .boxed()
    }

    fn unlisten(&self, lease: &Lease) {
        self.wants.end(lease, self.keys.channel(&lease.address));
    }

    fn send(&self, to: &Address, postage: Postage, envelope: Envelope, receipt: Receipt) {
        let letter = Letter {
            to: self.destinations.find(&self.keys, to),
            postage,
            sheet: Sheet {
                bytes: envelope.encode(),
                once: envelope.once,
            },
            receipt: Some(receipt),
        };
        self.lane(to).send(letter);
    }

    fn withdraw(
        &self,
        to: &Address,
        from: SessionId,
    ) -> BoxFuture<'static, Result<usize, FabricError>> {
        let mut withdraw = self.scripts.withdraw.on([&self.keys.queue(to)]);
        withdraw.arg(from.to_string());
        let withdrawn = self.lane(to).ask(withdraw);
        async move {
            match withdrawn.await? {
                Value::Int(count) => Ok(usize::try_from(count).unwrap_or_default()),
                _ => Err(unexpected()),
            }
        }
        .boxed()
    }

    async fn names(
        &self,
        realm: &Realm,
        most: usize,
    ) -> Result<Vec<(UserName, Holder)>, FabricError> {
        let (pattern, start) = self.keys.presences(realm);
        let mut names = HashMap::new();
        let mut cursor = String::from("0");
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(&cursor).arg("MATCH").arg(&pattern);
            scan.arg("COUNT").arg(SCANNED_AT_ONCE);
            let (next, keys) = wire::scanned(self.lanes[0].ask(scan).await?)?;
            // A name may be found twice while the store moves its keys.
            let found = keys.iter().filter_map(|key| {
                let text = format!("{}/{}", realm.encoded(), key.get(start..key.len() - 1)?);
                text.parse().ok()
            });
            let found: Vec<Address> = found.collect();
            let holders = self.holders(&found).await?;
            for (address, holder) in found.into_iter().zip(holders) {
                names.extend(holder.map(|holder| (address.name, holder)));
            }
            if next == "0" || names.len() >= most {
                return Ok(names.into_iter().take(most).collect());
            }
            cursor = next;
        }
    }

    async fn read(&self, lease: &Lease, last: EntryId) -> Result<Vec<Entry>, FabricError> {
        let read = self.of_lease(&self.scripts.read, lease, last);
        self.lane(&lease.address).ask(read).await.and_then(entries)
    }

    async fn holders(&self, addresses: &[Address]) -> Result<Vec<Option<Holder>>, FabricError> {
        if addresses.is_empty() {
            return Ok(Vec::new());
        }
        let mut read = redis::cmd("MGET");
        for address in addresses {
            read.arg(self.keys.presence(address));
        }
        // Not by the node's own lane: its lease must not wait for a long answer.
        let values = array(self.lanes[0].ask(read).await?)?;
        let holders = values.into_iter().map(|value| match value {
            Value::BulkString(lease) => holder(&lease).ok(),
            _ => None,
        });
        Ok(holders.collect())
    }

    async fn beat(&self, watched: &[NodeId], whole: bool) -> Result<Beat, FabricError> {
        let fresh = format!("{:016x}", rand::random::<u64>());
        let own_key = self.keys.node(&self.node);
        let mut beat = self.scripts.beat.on([&own_key, &self.keys.whole()]);
        let (asked_at, generation) = (self.clock.mark(), self.identity.generation());
        let whole = whole && self.beaten().generation == generation;
        let store = if whole {
            self.identity.name()
        } else {
            String::new()
        };
        beat.arg(&fresh).arg(millis(self.terms.node_ttl)).arg(store);
        let mut read = redis::cmd("MGET");
        read.arg(own_key);
        for node in watched {
            read.arg(self.keys.node(node));
        }
        let (beat, leases) = (self.own_lane.ask(beat), self.own_lane.ask(read));
        let beat = array(beat.await?)?;
        let [Value::Int(server_millis), Value::BulkString(token)] = &beat[..] else {
            return Err(unexpected());
        };
        self.clock.set(asked_at, *server_millis);
        // Another token than the known one was set by a beat of ours that was given up, after the lease had been lost.
        let token = String::from_utf8_lossy(token).into_owned();
        let found = Beaten {
            token,
            generation,
            at: asked_at,
            lost: false,
        };
        let own = self.takes(found);
        let leases = array(leases.await?)?;
        Ok(Beat {
            own,
            alive: leases
                .iter()
                .skip(1)
                .map(|lease| *lease != Value::Nil)
                .collect(),
        })
    }

    async fn is_whole(&self) -> Result<bool, FabricError> {
        let said = self
            .own_lane
            .ask(redis::cmd("GET").arg(self.keys.whole()).clone());
        if said.await? == Value::BulkString(self.identity.name().into_bytes()) {
            return Ok(true);
        }
        let server = self
            .own_lane
            .ask(redis::cmd("INFO").arg("server").clone())
            .await?;
        if wire::uptime(&server)? < self.terms.node_ttl / 5 {
            // Whoever was at the one before it is on the way here.
            return Ok(false);
        }
        let mut ask = redis::cmd("PUBSUB");
        ask.arg("CHANNELS").arg(self.keys.node_channels());
        let own = Value::BulkString(self.keys.node_channel(&self.node).into_bytes());
        let nodes = array(self.own_lane.ask(ask).await?)?;
        Ok(nodes.iter().all(|channel| *channel == own))
    }

    async fn alive(&self, nodes: &[NodeId]) -> Result<Vec<bool>, FabricError> {
        if nodes.is_empty() {
            return Ok(Vec::new());
        }
        let mut read = redis::cmd("MGET");
        for node in nodes {
            read.arg(self.keys.node(node));
        }
        Ok(array(self.own_lane.ask(read).await?)?
            .iter()
            .map(|lease| *lease != Value::Nil)
            .collect())
    }

    async fn intact(&self) -> Result<bool, FabricError> {
        let value = self
            .own_lane
            .ask(redis::cmd("GET").arg(self.keys.node(&self.node)).clone())
            .await?;
        let beaten = self.beaten();
        let same = self.identity.generation() == beaten.generation && !beaten.lost;
        Ok(same && matches!(value, Value::BulkString(token) if token == beaten.token.as_bytes()))
    }

    async fn challenge(&self, _: &Address, holder: &Holder) -> Result<Verdict, FabricError> {
        let (token, verdict) = self.questions.ask();
        let question = Challenge {
            session: holder.session,
            asker: self.node.clone(),
            token,
        };
        let asked = publish(
            self.keys.node_channel(&holder.node),
            wire::question(&question),
        );
        let asked = self.own_lane.ask(asked).await;
        let verdict = match asked {
            Ok(_) => Ok(timeout(self.terms.challenge, verdict)
                .await
                .ok()
                .and_then(Result::ok)
                .unwrap_or(Verdict::Silent)),
            Err(error) => Err(error),
        };
        self.questions.forget(token);
        verdict
    }

    fn answer(&self, challenge: Challenge, verdict: Verdict) {
        let channel = self.keys.node_channel(&challenge.asker);
        // An answer that is lost is a holder that did not answer: the name stays taken, and the login is tried again.
        drop(
            self.own_lane
                .ask(publish(channel, wire::answer(challenge.token, verdict))),
        );
    }

    fn waiting(&self) -> usize {
        let lanes = self.lanes.iter().chain([&self.own_lane]);
        lanes.map(Lane::waiting).sum()
    }

    async fn close(&self) {
        let _ = self
            .own_lane
            .ask(redis::cmd("DEL").arg(self.keys.node(&self.node)).clone())
            .await;
    }
}

fn publish(channel: String, payload: String) -> Cmd {
    redis::cmd("PUBLISH").arg(channel).arg(payload).clone()
}

fn array(value: Value) -> Result<Vec<Value>, FabricError> {
    match value {
        Value::Array(values) => Ok(values),
        _ => Err(unexpected()),
    }
}

fn renewals(value: Value) -> Result<Vec<Renewal>, FabricError> {
    let results = array(value)?.into_iter().map(|result| match result {
        Value::Int(1) => Ok(Renewal::Mine),
        Value::Int(2) => Ok(Renewal::Regained),
        Value::Int(3) => Ok(Renewal::Replaced),
        Value::Int(_) => Ok(Renewal::Lost),
        _ => Err(unexpected()),
    });
    results.collect()
}
