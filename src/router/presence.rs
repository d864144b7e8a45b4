//! Presence: queries, watches, and lookups of names that signals wait for.
//!
//! Watches are polled: one batched read covers everybody who is watched, however many watch. A watcher is told how the
//! presence differs from what it was told last. Lookups that sessions ask for within a few milliseconds share one read
//! too.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tracing::debug;

use super::mailbox::Mail;
use super::{Holder, Router};
use crate::broker::{BrokerError, Lease};
use crate::model::{Address, NodeId, Realm, Refusal, SessionId, UserName};

/// How many names one session may watch, or query at once (docs/src/protocol/messages.md).
const NAMES: usize = 256;

/// How much the watches of one session may take, in bytes…
const WATCH_BYTES: usize = 32 * 1024;
/// …of which each takes its name and this.
const WATCH_OVERHEAD: usize = 64;

/// How many names are read at once. Other requests to the store wait meanwhile.
const READ_AT_ONCE: usize = 500;

/// How long a lookup waits for others that share its read.
const ASKED_WITHIN: Duration = Duration::from_millis(20);

/// The watches and lookups of this node's sessions.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    /// What each session was told last. Held for map operations only.
    told: Mutex<HashMap<(SessionId, u32), Watch>>,
    /// The names to look up, and the sessions that ask. Held for map operations only.
    asked: Mutex<HashMap<Address, HashSet<SessionId>>>,
    has_asked: Notify,
}

#[derive(Debug)]
struct Watch {
    /// Who watches.
    watcher: Address,
    users: HashMap<UserName, bool>,
}

impl Watchers {
    pub(super) fn forget(&self, lease: &Lease) {
        self.lock().remove(&(lease.session, lease.generation));
    }

    /// Queues a lookup. The session gets the holder of the name as [`Mail::Looked`].
    pub(super) fn ask(&self, session: SessionId, address: Address) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.entry(address).or_default().insert(session);
        self.has_asked.notify_one();
    }

    fn take_asked(&self) -> HashMap<Address, HashSet<SessionId>> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *asked)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(SessionId, u32), Watch>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watched(&self) -> Vec<Address> {
        let told = self.lock();
        let all = told.values().flat_map(|watch| {
            watch
                .users
                .keys()
                .map(|name| Address::new(watch.watcher.realm.clone(), name.clone()))
        });
        all.collect::<BTreeSet<_>>().into_iter().collect()
    }
}

impl Router {
    /// The connected users of a realm whom everybody may call, on any node, in alphabetical order. Returns an arbitrary
    /// subset if there are more than `most`. Scans every name in the store: call it rarely.
    pub async fn names(&self, realm: &Realm, most: usize) -> Result<Vec<UserName>, BrokerError> {
        let mut found = self.broker.names(realm, most).await?;
        found.retain(|(_, holder)| !holder.flags.detached && holder.callable_by.is_none());
        let nodes: HashSet<&NodeId> = found.iter().map(|(_, holder)| &holder.node).collect();
        let nodes: Vec<NodeId> = nodes.into_iter().cloned().collect();
        let alive = self.broker.nodes(&nodes).await?.alive;
        let dead = nodes.into_iter().zip(alive).filter(|(_, alive)| !alive);
        let dead: HashSet<NodeId> = dead.map(|(node, _)| node).collect();
        let lives =
            |(name, holder): (UserName, Holder)| (!dead.contains(&holder.node)).then_some(name);
        let mut names: Vec<UserName> = found.into_iter().filter_map(lives).collect();
        names.sort();
        Ok(names)
    }

    /// Answers which of these users are present. `watch` adds them to the session's watches (`Some(true)`), removes
    /// them, or changes nothing (`None`). Refuses with `TooMany` above 256 names, and with `Unavailable` if the broker
    /// does not answer or the expiry guard holds.
    pub async fn presence(
        &self,
        lease: &Lease,
        names: Vec<UserName>,
        watch: Option<bool>,
    ) -> Result<Vec<(UserName, bool)>, Refusal> {
        let (session, realm) = ((lease.session, lease.generation), &lease.address.realm);
        if names.len() > NAMES {
            return Err(Refusal::TooMany("At most 256 names at once"));
        }
        let addresses: Vec<Address> = names
            .iter()
            .map(|name| Address::new(realm.clone(), name.clone()))
            .collect();
        let here = self.here(&addresses).await;
        let seen =
            |here: Option<Holder>| here.is_some_and(|holder| holder.lets_call(&lease.address.name));
        let unknown = |retry_after| Refusal::Unavailable { retry_after };
        let here = here.map_err(|_| unknown(Duration::from_secs(1)))?;
        if let Some(retry_after) = self.expiry_guard.remaining() {
            return Err(unknown(retry_after));
        }
        let here = here.into_iter().map(seen);
        let users: Vec<_> = names.into_iter().zip(here).collect();
        match watch {
            None => {}
            Some(true) => {
                let mut told = self.watches.lock();
                let fresh = || Watch {
                    watcher: lease.address.clone(),
                    users: HashMap::new(),
                };
                let watch = told.entry(session).or_insert_with(fresh);
                let added = users.iter().map(|(name, _)| name);
                let added = added.filter(|name| !watch.users.contains_key(*name));
                let all: HashSet<&UserName> = watch.users.keys().chain(added).collect();
                let bytes = |name: &&UserName| name.as_str().len() + WATCH_OVERHEAD;
                if all.len() > NAMES || all.iter().map(bytes).sum::<usize>() > WATCH_BYTES {
                    return Err(Refusal::TooMany(
                        "At most 256 names are watched by one session, fewer if they are long",
                    ));
                }
                watch.users.extend(users.iter().cloned());
            }
            Some(false) => {
                let mut told = self.watches.lock();
                if let Some(watch) = told.get_mut(&session) {
                    watch
                        .users
                        .retain(|name, _| !users.iter().any(|(dropped, _)| dropped == name));
                    if watch.users.is_empty() {
                        told.remove(&session);
                    }
                }
            }
        }
        Ok(users)
    }

    /// Service: tells watchers what has changed, and answers lookups.
    pub async fn watch(self: Arc<Self>) {
        let mut poll = interval(self.settings.watch_every);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = poll.tick() => {}
                () = self.watches.has_asked.notified() => {
                    sleep(ASKED_WITHIN).await;
                    self.answer_asked().await;
                    continue;
                }
            }
            let watched = self.watches.watched();
            if watched.is_empty() {
                continue;
            }
            match self.here(&watched).await {
                // While the expiry guard holds, nobody counts as gone.
                Ok(here) if self.expiry_guard.remaining().is_none() => {
                    self.tell_watchers(&watched.into_iter().zip(here).collect());
                }
                Ok(_) => {}
                Err(error) => debug!(%error, "Cannot read the presence of watched users"),
            }
        }
    }

    async fn answer_asked(&self) {
        let asked = self.watches.take_asked();
        let (addresses, sessions): (Vec<_>, Vec<_>) = asked.into_iter().unzip();
        let holders = self.holders(&addresses).await.unwrap_or_else(|error| {
            debug!(%error, "Cannot look up the users that signals wait for");
            vec![None; addresses.len()]
        });
        let mut answers: HashMap<SessionId, Vec<(UserName, Option<Holder>)>> = HashMap::new();
        for ((address, sessions), holder) in addresses.into_iter().zip(sessions).zip(holders) {
            for session in sessions {
                let answer = (address.name.clone(), holder.clone());
                answers.entry(session).or_default().push(answer);
            }
        }
        for (session, found) in answers {
            self.registry.post(session, Mail::Looked(found));
        }
    }

    fn tell_watchers(&self, here: &HashMap<Address, Option<Holder>>) {
        let mut news = Vec::new();
        for (session, watch) in self.watches.lock().iter_mut() {
            let mut changed = Vec::new();
            for (name, told) in &mut watch.users {
                let address = Address::new(watch.watcher.realm.clone(), name.clone());
                let now = here.get(&address).map(|holder| {
                    let holder = holder.as_ref();
                    holder.is_some_and(|holder| holder.lets_call(&watch.watcher.name))
                });
                if let Some(now) = now.filter(|now| now != told) {
                    *told = now;
                    changed.push((name.clone(), now));
                }
            }
            if !changed.is_empty() {
                news.push((session.0, changed));
            }
        }
        for (session, changed) in news {
            self.registry.post(session, Mail::Presence(changed));
        }
    }

    async fn holders(&self, addresses: &[Address]) -> Result<Vec<Option<Holder>>, BrokerError> {
        let mut holders = Vec::with_capacity(addresses.len());
        for some in addresses.chunks(READ_AT_ONCE) {
            holders.extend(self.broker.holders(some).await?);
        }
        Ok(holders)
    }

    /// The holder of each of these, if its node is alive.
    async fn here(&self, addresses: &[Address]) -> Result<Vec<Option<Holder>>, BrokerError> {
        let holders = self.holders(addresses).await?;
        let nodes: BTreeSet<NodeId> = holders
            .iter()
            .flatten()
            .map(|holder| holder.node.clone())
            .collect();
        let nodes: Vec<NodeId> = nodes.into_iter().collect();
        let alive: HashMap<NodeId, bool> = nodes
            .iter()
            .cloned()
            .zip(self.broker.nodes(&nodes).await?.alive)
            .collect();
        // A session that may still be resumed counts as present: a resume is no change.
        let awaited = |holder: &Holder| {
            holder.flags.resumable
                && self.local.peers.dead_for(&holder.node) < self.local.terms.grace_if_idle()
        };
        let here = |holder: &Holder| alive.get(&holder.node) == Some(&true) || awaited(holder);
        Ok(holders
            .into_iter()
            .map(|holder| holder.filter(here))
            .collect())
    }
}
