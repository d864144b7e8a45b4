//! What waits for users who are not here: whoever sent it is told once of each user who did not come.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until};

use super::seat::{Seat, Turn};
use crate::fabric::{Fabric, FabricError, Holder, WAITS_LONGER};
use crate::model::{Address, EntryId, Event, Refusal, SessionId, UserName};

/// For how many users of one session something may wait; to others it is as if they were not waited for.
const USERS: usize = 256;
/// How much of one session may wait, in bytes of bodies.
const BYTES: usize = 1 << 20;
/// How many users are remembered that the client was lately told of.
const TOLD: usize = 1024;
/// How long that is lately: an offer and its candidates are told of once.
const LATELY: Duration = Duration::from_secs(1);

/// What one session waits for.
#[derive(Debug, Default)]
pub(super) struct Waits {
    by_name: HashMap<UserName, Wait>,
    /// In the order of their ends: all wait equally long.
    ends: VecDeque<UserName>,
    bytes: usize,
    asking: FuturesUnordered<BoxFuture<'static, Waited>>,
    told: HashMap<UserName, Instant>,
    told_in_order: VecDeque<(Instant, UserName)>,
}

/// What waits for one user.
#[derive(Debug)]
struct Wait {
    until: Instant,
    entries: Vec<EntryId>,
    bytes: usize,
    /// The `n` of the latest offer or answer among it.
    starts_call: Option<u64>,
    /// The session between connections in whose inbox some of it is.
    detached: Option<SessionId>,
}

/// What became of it.
#[derive(Debug)]
pub struct Waited {
    name: UserName,
    starts_call: Option<u64>,
    /// Somebody has it.
    arrived: bool,
}

impl Waits {
    /// Whether more may wait for this user.
    pub(super) fn has_room(&self, name: &UserName) -> bool {
        self.bytes < BYTES && (self.by_name.len() < USERS || self.by_name.contains_key(name))
    }

    /// Something of so many bytes waits for this user: in this place, or in the inbox of that session.
    pub(super) fn add(
        &mut self,
        name: &UserName,
        until: Instant,
        place: Result<EntryId, SessionId>,
        bytes: usize,
        starts_call: Option<u64>,
    ) {
        let wait = self.by_name.entry(name.clone()).or_insert_with(|| {
            self.ends.push_back(name.clone());
            Wait {
                until,
                entries: Vec::new(),
                bytes: 0,
                starts_call: None,
                detached: None,
            }
        });
        match place {
            Ok(place) => wait.entries.push(place),
            Err(session) => wait.detached = Some(session),
        }
        wait.bytes += bytes;
        wait.starts_call = starts_call.or(wait.starts_call);
        self.bytes += bytes;
    }

    /// Waits until something has waited long enough, or is known of what has. Takes nothing away but what it returns.
    pub(super) async fn next(&mut self) -> Option<Waited> {
        let due = self.ends.front().and_then(|name| self.by_name.get(name));
        let due = due.map(|wait| wait.until);
        tokio::select! {
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => None,
            Some(waited) = self.asking.next(), if !self.asking.is_empty() => Some(waited),
            else => std::future::pending().await,
        }
    }

    /// Asks what became of whatever has waited long enough.
    fn ask(&mut self, fabric: &Arc<dyn Fabric>, address: impl Fn(&UserName) -> Address) {
        let now = Instant::now();
        while let Some(name) = self.ends.front() {
            if self.by_name.get(name).is_some_and(|wait| wait.until > now) {
                return;
            }
            let Some(name) = self.ends.pop_front() else {
                return;
            };
            let Some(wait) = self.by_name.remove(&name) else {
                continue;
            };
            self.bytes -= wait.bytes;
            let address = address(&name);
            let (entries, detached, starts_call) = (wait.entries, wait.detached, wait.starts_call);
            let withdrawn = (!entries.is_empty()).then(|| fabric.withdraw(&address, &entries));
            // By then the store lets go of it by itself.
            let is_late = now > wait.until + WAITS_LONGER / 2;
            let fabric = Arc::clone(fabric);
            self.asking.push(Box::pin(async move {
                let here = async {
                    if let Some(withdrawn) = withdrawn
                        && (withdrawn.await? > 0 || is_late)
                    {
                        return Ok(false);
                    }
                    let Some(session) = detached else {
                        return Ok(true);
                    };
                    let holders = fabric.holders(&[address]).await?;
                    let resumed =
                        |holder: &Holder| holder.session == session && !holder.flags.detached;
                    Ok::<_, FabricError>(
                        holders.into_iter().flatten().any(|holder| resumed(&holder)),
                    )
                };
                let arrived = here.await.unwrap_or(false);
                Waited {
                    name,
                    starts_call,
                    arrived,
                }
            }));
        }
    }

    /// Whether the client is to be told that this user is not here: it was not told so lately.
    fn tells(&mut self, name: &UserName) -> bool {
        let now = Instant::now();
        while let Some((at, _)) = self.told_in_order.front()
            && (*at + LATELY <= now || self.told_in_order.len() >= TOLD)
        {
            if let Some((at, name)) = self.told_in_order.pop_front()
                && self.told.get(&name) == Some(&at)
            {
                self.told.remove(&name);
            }
        }
        if self.told.contains_key(name) {
            return false;
        }
        self.told.insert(name.clone(), now);
        self.told_in_order.push_back((now, name.clone()));
        true
    }
}

impl Seat {
    /// Something waits for users who are not here, or has waited.
    pub(super) fn waited(&mut self, waited: Option<Waited>, turns: &mut Vec<Turn>) {
        let Some(waits) = &mut self.waits else {
            return;
        };
        let Some(waited) = waited else {
            let realm = self.lease.address.realm.clone();
            waits.ask(&self.exchange.fabric, |name| {
                Address::new(realm.clone(), name.clone())
            });
            return;
        };
        if waited.arrived {
            return;
        }
        if let Some(n) = waited.starts_call {
            self.calls.failed(&waited.name, n);
        }
        self.exchange
            .telemetry
            .metrics
            .refused(&Refusal::UserUnavailable);
        turns.extend(self.absent(waited.name, Refusal::UserUnavailable));
    }

    /// What the client is told of a user who cannot be reached. One that waits for users is told of each once.
    pub(super) fn absent(&mut self, name: UserName, refusal: Refusal) -> Option<Turn> {
        let tells = !self.is_patient() || self.waits.get_or_insert_default().tells(&name);
        tells.then(|| {
            Turn::Tell(Event::Refused {
                refusal,
                id: None,
                name: Some(name),
            })
        })
    }
}

/// Waits for what happens to what one session waits for; for ever if it waits for nothing.
pub(super) async fn next(waits: &mut Option<Box<Waits>>) -> Option<Waited> {
    match waits {
        Some(waits) => waits.next().await,
        None => std::future::pending().await,
    }
}
