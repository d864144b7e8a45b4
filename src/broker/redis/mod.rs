//! The broker over Redis: keys with a time to live say who is where, one channel for each user carries what is sent.

mod batch;
mod commands;
mod connect;
mod epoch;
mod keys;
mod open;
mod parked;
mod publisher;
mod rpc;
mod scripts;
mod subscriber;
mod wire;

pub use connect::OpenError;
pub use open::{Config, Url, open};

use std::collections::HashMap;
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, try_join_all};
use redis::{Cmd, Value};
use tokio::time::timeout;

use self::batch::Publish;
use self::connect::Lives;
use self::epoch::StoreEpoch;
use self::keys::{Keys, KnownDestinations};
use self::publisher::Publisher;
use self::rpc::Asked;
use self::scripts::Scripts;
use self::subscriber::{Listening, Wants};
use self::wire::{entries, holder, millis, unexpected};
use super::{
    Beat, Broker, BrokerError, Claim, Entry, Envelope, Epoch, Holder, Lease, Nodes, Question,
    Receipt, RecordUpdate, Renewal, Resume, SendOptions, StoreReport, Terms, Topic,
};
use crate::bugs::{self, Bug};
use crate::model::{Address, NodeId, Offset, Realm, SecretHash, SessionId, UserName};

/// How many leases one script call renews: more would make Redis' other users wait (2 ms at 500, measured).
const RENEWED_AT_ONCE: usize = 500;

/// How many keys one step of a scan looks at: half a millisecond of Redis.
const SCANNED_AT_ONCE: usize = 1000;

/// One node at one Redis; what it asks of it is written in `commands`.
#[derive(Debug)]
struct RedisFabric {
    node: NodeId,
    keys: Keys,
    destinations: KnownDestinations,
    terms: Terms,
    timeout: Duration,
    scripts: Arc<Scripts>,
    publishers: Vec<Publisher>,
    own_lane: Publisher,
    wants: Arc<Wants>,
    asked: Arc<Asked>,
    lives: Lives,
    epoch: Arc<StoreEpoch>,
}

impl RedisFabric {
    /// One address, one publisher: what is sent to it leaves in order.
    fn publisher(&self, address: &Address) -> &Publisher {
        &self.publishers[self.lane_number(address)]
    }

    fn lane_number(&self, address: &Address) -> usize {
        if self.publishers.len() == 1 {
            return 0;
        }
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(address);
        // There are at most 64 publishers, so nothing that matters is cut off.
        usize::try_from(hash % self.publishers.len() as u64).unwrap_or_default()
    }

    /// Until when a command that was just given may run, by the server's clock.
    fn deadline(&self) -> i64 {
        self.epoch.server_now().saturating_add(millis(self.timeout))
    }
}

#[async_trait]
impl Broker for RedisFabric {
    async fn claim(
        &self,
        lease: &Lease,
        over: Option<&Holder>,
        secret: Option<&SecretHash>,
    ) -> Result<Claim, BrokerError> {
        let listening: Listening = self
            .wants
            .listen(self.keys.channel(&lease.address), self.timeout)
            .await?;
        let claim = self.claim_command(lease, over, secret);
        let publisher = self.publisher(&lease.address);
        match publisher.ask(claim).await {
            Ok(Value::Nil) => {
                listening.keep(lease);
                if bugs::has(Bug::ImmortalRecords) {
                    let key = self.keys.presence(&lease.address);
                    drop(publisher.ask(redis::cmd("PERSIST").arg(key).clone()));
                }
                Ok(Claim::Won)
            }
            Ok(Value::BulkString(lease)) => Ok(Claim::Held(holder(&lease)?)),
            Ok(_) => Err(unexpected()),
            Err(error) => {
                // It may have been won without our knowing.
                drop(publisher.ask(self.of_lease(&self.scripts.release, lease, Offset::default())));
                Err(error)
            }
        }
    }

    async fn resume(
        &self,
        address: &Address,
        secret: &SecretHash,
        last: Option<Offset>,
        guarded: bool,
    ) -> Result<Resume, BrokerError> {
        let channel = self.keys.channel(address);
        let listening: Listening = self.wants.listen(channel, self.timeout).await?;
        let resume = self.resume_command(address, secret, last, guarded);
        let (resume, before) = wire::resume(address, self.publisher(address).ask(resume).await?)?;
        if let Resume::Won(resumed) = &resume {
            let Lease {
                session,
                generation,
                ..
            } = resumed.lease;
            listening.keep(&resumed.lease);
            if let Some(before) = before {
                // Should it be lost, the next renewal tells the same.
                let told = publish(
                    self.keys.node_channel(&before.node),
                    wire::replaced(session, generation),
                );
                drop(self.own_lane.ask(told));
            }
        }
        Ok(resume)
    }

    async fn knows(&self, address: &Address, secret: &SecretHash) -> Result<bool, BrokerError> {
        let [presence, _, record, _] = self.keys.of(address);
        let mut read = redis::cmd("HMGET");
        read.arg(record).arg("session").arg("hash");
        // One publisher, one pipeline: nothing of this node comes between the two.
        let publisher = self.publisher(address);
        let (holds, known) = (
            publisher.ask(redis::cmd("GET").arg(presence).clone()),
            publisher.ask(read),
        );
        let (Value::BulkString(lease), Value::Array(known)) = (holds.await?, known.await?) else {
            return Ok(false);
        };
        let session = holder(&lease)?.session.to_string();
        let expected = [session.as_str(), secret.as_str()];
        Ok(known == expected.map(|word| Value::BulkString(word.into())))
    }

    fn note(
        &self,
        lease: &Lease,
        notes: RecordUpdate,
    ) -> BoxFuture<'static, Result<bool, BrokerError>> {
        let note = self.save_job(lease, notes);
        let answer = self.publisher(&lease.address).note(note);
        async move {
            match answer.await? {
                Value::Int(is_ours) => Ok(is_ours == 1),
                _ => Err(unexpected()),
            }
        }
        .boxed()
    }

    async fn barrier(&self, lease: &Lease) -> Result<(), BrokerError> {
        let barrier = publish(
            self.keys.channel(&lease.address),
            wire::barrier(lease.session),
        );
        self.publisher(&lease.address).ask(barrier).await.map(drop)
    }

    fn renew(&self, leases: Vec<Lease>) -> BoxFuture<'static, Result<Vec<Renewal>, BrokerError>> {
        // Dealt by publisher, so that a renewal cannot overtake the release of its lease; each answer goes back to its place.
        let mut dealt: Vec<(&Publisher, Vec<usize>)> = self
            .publishers
            .iter()
            .map(|publisher| (publisher, Vec::new()))
            .collect();
        for (place, lease) in leases.iter().enumerate() {
            dealt[self.lane_number(&lease.address)].1.push(place);
        }
        let mut asked = Vec::new();
        for (publisher, places) in dealt {
            for places in places.chunks(RENEWED_AT_ONCE) {
                let batch: Vec<&Lease> = places.iter().map(|&place| &leases[place]).collect();
                let (places, answer) = (places.to_vec(), publisher.ask(self.renew_command(&batch)));
                asked.push(async move {
                    answer
                        .await
                        .and_then(renewals)
                        .map(|renewed| (places, renewed))
                });
            }
        }
        let count = leases.len();
        let (own_lane, epoch) = (self.own_lane.clone(), Arc::clone(&self.epoch));
        let own_lease = redis::cmd("GET").arg(self.keys.node(&self.node)).clone();
        async move {
            let mut results = vec![Renewal::Mine; count];
            for (places, renewed) in try_join_all(asked).await? {
                for (place, renewal) in places.into_iter().zip(renewed) {
                    results[place] = renewal;
                }
            }
            if results.contains(&Renewal::Regained) {
                // A store that has forgotten this node's lease too has lost data: the epoch is to be known before the sessions are told.
                let asked_at = epoch.mark();
                let token = match own_lane.ask(own_lease).await? {
                    Value::BulkString(token) => Some(token),
                    _ => None,
                };
                epoch.compare(token.as_deref(), asked_at);
            }
            Ok(results)
        }
        .boxed()
    }

    fn release(
        &self,
        address: &Address,
        holder: &Holder,
        last: Offset,
    ) -> BoxFuture<'static, Result<Vec<Entry>, BrokerError>> {
        let release = self.of_holder(&self.scripts.release, address, holder, last);
        let unread = self.publisher(address).ask(release);
        async move { unread.await.and_then(entries) }.boxed()
    }

    fn unlisten(&self, lease: &Lease) {
        self.wants.end(lease, self.keys.channel(&lease.address));
    }

    fn send(&self, to: &Address, options: SendOptions, envelope: Envelope, receipt: Receipt) {
        let message = Publish {
            to: self.destinations.find(&self.keys, to),
            options,
            bytes: envelope.encode(),
            receipt,
        };
        self.publisher(to).send(message);
    }

    async fn names(
        &self,
        realm: &Realm,
        most: usize,
    ) -> Result<Vec<(UserName, Holder)>, BrokerError> {
        let (pattern, start) = self.keys.presences(realm);
        let mut names = HashMap::new();
        let mut cursor = String::from("0");
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(&cursor).arg("MATCH").arg(&pattern);
            scan.arg("COUNT").arg(SCANNED_AT_ONCE);
            let (next, keys) = wire::scanned(self.publishers[0].ask(scan).await?)?;
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

    async fn read(&self, lease: &Lease, last: Offset) -> Result<Vec<Entry>, BrokerError> {
        let read = self.of_lease(&self.scripts.read, lease, last);
        self.publisher(&lease.address)
            .ask(read)
            .await
            .and_then(entries)
    }

    async fn holders(&self, addresses: &[Address]) -> Result<Vec<Option<Holder>>, BrokerError> {
        if addresses.is_empty() {
            return Ok(Vec::new());
        }
        let mut read = redis::cmd("MGET");
        for address in addresses {
            read.arg(self.keys.presence(address));
        }
        // Not by the node's own publisher: its lease must not wait for a long answer.
        let values = array(self.publishers[0].ask(read).await?)?;
        let holders = values.into_iter().map(|value| match value {
            Value::BulkString(lease) => holder(&lease).ok(),
            _ => None,
        });
        Ok(holders.collect())
    }

    async fn beat(&self, watched: &[NodeId], says: StoreReport) -> Result<Beat, BrokerError> {
        let (asked_at, epoch) = (self.epoch.mark(), self.epoch.count());
        let own_key = self.keys.node(&self.node);
        let mut beat = self.scripts.beat.on([&own_key, &self.keys.epoch()]);
        beat.arg(format!("{:016x}", rand::random::<u64>()))
            .arg(millis(self.terms.node_ttl))
            .arg(self.epoch.name())
            .arg(match says {
                StoreReport::Nothing => "",
                StoreReport::Guarded => "guarded",
                StoreReport::Known => "known",
            });
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
        self.epoch.set_clock(asked_at, *server_millis);
        let token = String::from_utf8_lossy(token).into_owned();
        let own = self.epoch.beat(token, epoch, asked_at);
        let leases = array(leases.await?)?;
        let alive = leases.iter().skip(1).map(|lease| *lease != Value::Nil);
        Ok(Beat {
            epoch,
            own,
            alive: alive.collect(),
        })
    }

    async fn nodes(&self, nodes: &[NodeId]) -> Result<Nodes, BrokerError> {
        let mut read = redis::cmd("MGET");
        read.arg(self.keys.node(&self.node)).arg(self.keys.epoch());
        for node in nodes {
            read.arg(self.keys.node(node));
        }
        let values = array(self.own_lane.ask(read).await?)?;
        let text = |value: &Value| match value {
            Value::BulkString(text) => Some(String::from_utf8_lossy(text).into_owned()),
            _ => None,
        };
        let [own, said, alive @ ..] = &values[..] else {
            return Err(unexpected());
        };
        let known = format!("known {}", self.epoch.name());
        let says = |said| {
            if said == known {
                StoreReport::Known
            } else {
                StoreReport::Guarded
            }
        };
        Ok(Nodes {
            intact: self
                .epoch
                .is_intact(text(own).as_deref().map(str::as_bytes)),
            said: text(said).map(says),
            alive: alive.iter().map(|lease| *lease != Value::Nil).collect(),
        })
    }

    async fn ask(
        &self,
        node: &NodeId,
        topic: Topic,
        body: Bytes,
        within: Duration,
    ) -> Result<Option<Bytes>, BrokerError> {
        let (open, answer) = self.asked.ask();
        let question = wire::question(topic, &self.node, open.number(), &body);
        let asked = publish(self.keys.node_channel(node), question);
        // How many have heard it.
        if self.own_lane.ask(asked).await? == Value::Int(0) {
            return Ok(None);
        }
        Ok(timeout(within, answer).await.ok().and_then(Result::ok))
    }

    fn epoch(&self) -> Epoch {
        self.epoch.watch()
    }

    fn answer(&self, question: &Question, body: Bytes) {
        let channel = self.keys.node_channel(&question.asker);
        let answer = wire::answer(question.number, &body);
        drop(self.own_lane.ask(publish(channel, answer)));
    }

    async fn locate(
        &self,
        session: SessionId,
        note: Bytes,
        lives: Duration,
    ) -> Result<(), BrokerError> {
        let mut set = redis::cmd("SET");
        set.arg(self.keys.home(session)).arg(&note[..]);
        set.arg("PX").arg(millis(lives).max(1));
        self.publishers[0].ask(set).await.map(drop)
    }

    async fn located(&self, session: SessionId) -> Result<Option<Bytes>, BrokerError> {
        let get = redis::cmd("GET").arg(self.keys.home(session)).clone();
        match self.publishers[0].ask(get).await? {
            Value::Nil => Ok(None),
            Value::BulkString(note) => Ok(Some(note.into())),
            _ => Err(unexpected()),
        }
    }

    fn waiting(&self) -> usize {
        let publishers = self.publishers.iter().chain([&self.own_lane]);
        publishers.map(Publisher::waiting).sum()
    }

    async fn close(&self) {
        let _ = self
            .own_lane
            .ask(redis::cmd("DEL").arg(self.keys.node(&self.node)).clone())
            .await;
    }
}

fn publish(channel: String, payload: impl redis::ToRedisArgs) -> Cmd {
    redis::cmd("PUBLISH").arg(channel).arg(payload).clone()
}

fn array(value: Value) -> Result<Vec<Value>, BrokerError> {
    match value {
        Value::Array(values) => Ok(values),
        _ => Err(unexpected()),
    }
}

fn renewals(value: Value) -> Result<Vec<Renewal>, BrokerError> {
    let results = array(value)?.into_iter().map(|result| match result {
        Value::Int(1) => Ok(Renewal::Mine),
        Value::Int(2) => Ok(Renewal::Regained),
        Value::Int(3) => Ok(Renewal::Replaced),
        Value::Int(_) => Ok(Renewal::Lost),
        _ => Err(unexpected()),
    });
    results.collect()
}
