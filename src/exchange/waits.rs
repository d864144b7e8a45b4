//! What waits for users who are not here: whoever sent it is told once of each user who did not come, by whoever holds his session then.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::{BoxFuture, ready};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::time::{Instant, sleep_until};

use super::seat::{Seat, Turn};
use crate::fabric::{Fabric, FabricError, Holder, Notes, WAITS_LONGER};
use crate::model::{Address, Event, Refusal, SessionId, UserName};

/// For how many users of one session something may wait; to others it is as if they were not waited for.
const USERS: usize = 256;
/// How much of one session may wait, in bytes of bodies.
const BYTES: usize = 1 << 20;
/// How many users are remembered that the client was lately told of.
const TOLD: usize = 1024;
/// How the field begins in which it is noted what waits for a user.
const WAITS: &str = "w:";
/// What is noted of a user who did not come, while there was nobody to be told.
const ABSENT: &str = "absent";
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
    bytes: usize,
    /// The `n` of the latest offer or answer among it.
    starts_call: Option<u64>,
    /// The session between connections in whose inbox the latest of it is.
    detached: Option<SessionId>,
    /// An earlier connection has waited for it, and may have withdrawn it.
    is_doubtful: bool,
}

/// What is noted of one user for whoever holds the session next: `UNTIL SESSION`, in ms since 1970, or [`ABSENT`].
struct Noted {
    until: Duration,
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

    /// What an earlier connection of the session has waited for, by its notes.
    pub(super) fn restore(notes: &[(String, String)]) -> Option<Box<Self>> {
        let (now, clock) = (Instant::now(), since_1970());
        let mut waits = Self::default();
        for (field, value) in notes {
            let name = field.strip_prefix(WAITS);
            let Some(name) = name.and_then(|name| UserName::parse(name).ok()) else {
                continue;
            };
            if value == ABSENT {
                let absent = Waited {
                    name,
                    starts_call: None,
                    arrived: false,
                };
                waits.asking.push(ready(absent).boxed());
            } else if let Some(Noted { until, detached }) = Noted::read(value) {
                let left = until.saturating_sub(clock);
                let late = clock.saturating_sub(until);
                let until = (now + left).checked_sub(late).unwrap_or(now);
                waits.add(&name, until, detached, 0, None);
            }
        }
        for wait in waits.by_name.values_mut() {
            wait.is_doubtful = true;
        }
        let by_name = &waits.by_name;
        let until = |name: &UserName| by_name.get(name).map(|wait| wait.until);
        waits.ends.make_contiguous().sort_by_key(until);
        (!waits.by_name.is_empty() || !waits.asking.is_empty()).then(|| Box::new(waits))
    }

    /// All of it, as it is noted for whoever holds the session next.
    pub(super) fn noted(&self) -> impl Iterator<Item = (String, String)> {
        let (now, clock) = (Instant::now(), since_1970());
        self.by_name.iter().map(move |(name, wait)| {
            let noted = Noted {
                until: clock + wait.until.saturating_duration_since(now),
                detached: wait.detached,
            };
            (field(name), noted.to_string())
        })
    }

    /// None waits longer than so long from now: clocks of nodes differ.
    pub(super) fn limit(&mut self, patience: Duration) {
        let latest = Instant::now() + patience;
        for wait in self.by_name.values_mut() {
            wait.until = wait.until.min(latest);
        }
    }

    /// Something of so many bytes waits for this user: where all do, or in the inbox of that session. Whether that is news.
    fn add(
        &mut self,
        name: &UserName,
        until: Instant,
        detached: Option<SessionId>,
        bytes: usize,
        starts_call: Option<u64>,
    ) -> bool {
        let mut is_news = false;
        let wait = self.by_name.entry(name.clone()).or_insert_with(|| {
            self.ends.push_back(name.clone());
            is_news = true;
            Wait {
                until,
                bytes: 0,
                starts_call: None,
                detached,
                is_doubtful: false,
            }
        });
        is_news |= wait.detached != detached;
        wait.detached = detached;
        wait.bytes += bytes;
        wait.starts_call = starts_call.or(wait.starts_call);
        self.bytes += bytes;
        is_news
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
    fn ask(
        &mut self,
        fabric: &Arc<dyn Fabric>,
        from: SessionId,
        address: impl Fn(&UserName) -> Address,
    ) {
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
            let (detached, starts_call) = (wait.detached, wait.starts_call);
            let withdrawn = fabric.withdraw(&address, from);
            // By then the store lets go of it by itself.
            let is_doubtful = wait.is_doubtful || now > wait.until + WAITS_LONGER / 2;
            let fabric = Arc::clone(fabric);
            self.asking.push(Box::pin(async move {
                let here = async {
                    let withdrawn = withdrawn.await?;
                    if detached.is_none() && (withdrawn > 0 || !is_doubtful) {
                        return Ok(withdrawn == 0);
                    }
                    let holders = fabric.holders(&[address]).await?;
                    let has_it = |holder: Holder| {
                        detached.is_none_or(|session| {
                            holder.session == session && !holder.flags.detached
                        })
                    };
                    Ok::<_, FabricError>(holders.into_iter().flatten().any(has_it))
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
            waits.ask(&self.exchange.fabric, self.lease.session, |name| {
                Address::new(realm.clone(), name.clone())
            });
            return;
        };
        let is_told = waited.arrived || !self.is_detached;
        if !waits.by_name.contains_key(&waited.name) {
            let noted = (!is_told).then(|| ABSENT.to_owned());
            self.note_wait(&waited.name, noted);
        }
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
        if is_told {
            turns.extend(self.absent(waited.name, Refusal::UserUnavailable));
        }
    }

    /// Something of so many bytes waits for this user: where all do, or in the inbox of that session.
    pub(super) fn wait_for(
        &mut self,
        to: &UserName,
        detached: Option<SessionId>,
        bytes: usize,
        starts_call: Option<u64>,
    ) {
        let patience = self.manners.patience;
        let waits = self.waits.get_or_insert_default();
        let until = Instant::now() + patience;
        if waits.add(to, until, detached, bytes, starts_call) {
            let until = since_1970() + patience;
            let noted = Noted { until, detached }.to_string();
            self.note_wait(to, Some(noted));
        }
    }

    /// Whoever holds the session next is to know it. Should it fail, and he be needed, nobody is told of that user.
    fn note_wait(&self, name: &UserName, value: Option<String>) {
        if self.memory.is_some() {
            let mut notes = Notes::default();
            notes.put(&field(name), value.unwrap_or_default());
            drop(self.exchange.fabric.note(&self.lease, notes));
        }
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

/// The field in which it is noted what waits for this user.
fn field(name: &UserName) -> String {
    format!("{WAITS}{name}")
}

impl Noted {
    fn read(text: &str) -> Option<Self> {
        let (until, session) = text.split_once(' ')?;
        Some(Self {
            until: Duration::from_millis(until.parse().ok()?),
            detached: session.parse().ok(),
        })
    }
}

impl fmt::Display for Noted {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(text, "{} ", self.until.as_millis())?;
        match self.detached {
            Some(session) => write!(text, "{session}"),
            None => text.write_str("-"),
        }
    }
}

/// What the clock says, which the clocks of other nodes say too, more or less.
fn since_1970() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}
