//! Signals to users who may not be here.
//!
//! What one session sends to one user stands in a line: nothing leaves before the outcome of what left earlier is known, so nothing overtakes a
//! signal that found nobody. Such a signal waits here, with all that is behind it, while the node looks for its receiver. Once somebody has the
//! name, the line is sent to that session alone: should it be gone by then, all of it waits again.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::outbox::Outgoing;
use super::seat::{Seat, Turn};
use crate::fabric::{Holder, Notes, Room};
use crate::model::{Address, Correlation, Event, IfAbsent, Refusal, SessionId, UserName};
use crate::telemetry::Fate;

/// For how many users of one session something may wait; to others it is as if they were not waited for.
const USERS: usize = 256;
/// How much of one session may wait, in bytes.
const BYTES: usize = 1 << 20;
/// How much of that a signal takes beside its body.
const OVERHEAD: usize = 512;
/// How soon a user is looked for who was just not here; each look is half as long again after the one before…
const LOOK_SOON: Duration = Duration::from_millis(100);
/// …but no longer than this.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How the field of a session's record begins which says that something waits for a user. Its value is the session of that user whose inbox has
/// it, or [`HERE`].
const WAITS: &str = "w:";
/// What waits is lost with this connection.
const HERE: &str = "-";
/// How many users are remembered that the client was lately told of.
const TOLD: usize = 1024;
/// How long that is lately: an offer and its candidates are told of once.
const LATELY: Duration = Duration::from_secs(1);

/// The lines of one session, and whom it looks for.
#[derive(Debug, Default)]
pub(super) struct Waits {
    lines: HashMap<UserName, Line>,
    pub(super) look_at: Option<Instant>,
    pause: Duration,
    /// Users who did not come, while there was no connection on which to say so.
    missing: Vec<UserName>,
    told: HashMap<UserName, Instant>,
    told_in_order: VecDeque<(Instant, UserName)>,
}

/// What one session sends to one user.
#[derive(Debug, Default)]
struct Line {
    /// By `n`.
    signals: VecDeque<Outgoing>,
    /// How many left before these, whose outcomes are not known.
    in_flight: usize,
    /// Since when the user is looked for.
    since: Option<Instant>,
    /// The session between connections whose inbox has what was sent last: that session is looked for, nothing waits here.
    detached: Option<SessionId>,
}

impl Line {
    fn is_absent(&self) -> bool {
        self.since.is_some() && self.detached.is_none()
    }
}

impl Waits {
    /// By what an earlier connection of the session has noted. What waited there is lost, and its client is told so.
    pub(super) fn restore(notes: &[(String, String)]) -> Option<Box<Self>> {
        let mut waits = Self::default();
        for (field, value) in notes {
            let name = field.strip_prefix(WAITS);
            let Some(name) = name.and_then(|name| UserName::parse(name).ok()) else {
                continue;
            };
            waits.look_at = Some(Instant::now());
            match value.parse() {
                Ok(session) => {
                    let line = waits.lines.entry(name).or_default();
                    (line.since, line.detached) = (waits.look_at, Some(session));
                }
                Err(_) => waits.missing.push(name),
            }
        }
        waits.look_at.map(|_| Box::new(waits))
    }

    /// All of it, as it is noted for whoever holds the session next.
    pub(super) fn noted(&self) -> impl Iterator<Item = (String, String)> {
        let awaited = self.lines.iter().filter(|(_, line)| line.since.is_some());
        let awaited = awaited.map(|(name, line)| (name, line.detached));
        let missing = self.missing.iter().map(|name| (name, None));
        let noted = awaited.chain(missing);
        noted.map(|(name, detached)| (field(name), value(detached)))
    }

    /// How many signals are behind others that are on their way.
    pub(super) fn lined_up(&self) -> usize {
        let lines = self.lines.values().filter(|line| !line.is_absent());
        lines.map(|line| line.signals.len()).sum()
    }

    /// Whether this user may be looked for, too.
    fn has_room_for(&self, name: &UserName) -> bool {
        let is_awaited = |line: &&Line| line.since.is_some();
        let known = self.lines.get(name).filter(is_awaited);
        known.is_some() || self.lines.values().filter(is_awaited).count() < USERS
    }

    /// Whether this may wait too. For one user no more does than an inbox takes from one sender: all of it leaves at once.
    fn has_room(&self, sent: &Outgoing) -> bool {
        let lined_up = self.lines.values().flat_map(|line| &line.signals);
        let (mut bytes, mut share) = (cost(sent), Room::weight(cost(sent)));
        for other in lined_up {
            bytes += cost(other);
            if other.to == sent.to {
                share += Room::weight(cost(other));
            }
        }
        bytes <= BYTES && share <= Room::INBOX.share && self.has_room_for(&sent.to)
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
    /// Sends a signal to somebody who may not be here: behind whatever waits for that user, or is on its way to them.
    pub(super) fn line_up(&mut self, mut sent: Outgoing) {
        let to = sent.to.clone();
        let waits = self.waits.get_or_insert_default();
        let (is_free, is_absent) = waits.lines.get(&to).map_or((true, false), |line| {
            let is_free = line.in_flight == 0 && line.signals.is_empty();
            (is_free, line.is_absent())
        });
        if is_absent && !waits.has_room(&sent) {
            self.tally(&mut sent, Fate::Absent, None);
            if let Some(event) = self.refused(to, None, Refusal::UserUnavailable) {
                self.tell_in_order(event);
            }
            return;
        }
        if is_absent {
            self.waits(&mut sent);
        }
        let line = self.waits.get_or_insert_default().lines.entry(to.clone());
        line.or_default().signals.push_back(sent);
        if is_free {
            self.send_line(&to, None);
        }
    }

    /// All that is in the line leaves: for this session, or for whoever has the name.
    fn send_line(&mut self, to: &UserName, only: Option<SessionId>) {
        let line = self
            .waits
            .as_mut()
            .and_then(|waits| waits.lines.get_mut(to));
        let signals = line.map(|line| {
            line.in_flight += line.signals.len();
            std::mem::take(&mut line.signals)
        });
        for sent in signals.into_iter().flatten() {
            self.transmit(sent, only);
        }
    }

    /// A signal has found nobody. Comes back if it may not wait.
    pub(super) fn park(&mut self, sent: Outgoing) -> Option<Outgoing> {
        let is_lined_up = sent.body.is_some() && sent.if_absent == IfAbsent::Wait;
        let Some(waits) = self
            .waits
            .as_mut()
            .filter(|waits| is_lined_up && waits.has_room(&sent))
        else {
            return Some(sent);
        };
        let to = sent.to.clone();
        let line = waits.lines.entry(to.clone()).or_default();
        line.in_flight = line.in_flight.saturating_sub(1);
        let place = line.signals.partition_point(|other| other.n < sent.n);
        line.signals.insert(place, sent);
        let mut signals = std::mem::take(&mut line.signals);
        for sent in &mut signals {
            self.waits(sent);
        }
        let line = self
            .waits
            .as_mut()
            .and_then(|waits| waits.lines.get_mut(&to));
        if let Some(line) = line {
            line.signals = signals;
        }
        self.look_for(&to, None);
        None
    }

    /// A signal waits from now on: its frame, which may be much longer than what it says, need not.
    fn waits(&mut self, sent: &mut Outgoing) {
        if let Some(body) = &mut sent.body {
            body.0 = Bytes::copy_from_slice(&body.0);
        }
        self.tally(sent, Fate::Waiting, None);
        sent.has_waited = true;
    }

    /// The outcome of something in the line is known: it reached this holder, was refused, or is of no interest.
    pub(super) fn line_moves(
        &mut self,
        to: &UserName,
        reached: Option<Holder>,
        refusal: Option<Refusal>,
        turns: &mut Vec<Turn>,
    ) {
        let waits = self.waits.as_mut();
        let Some(line) = waits.and_then(|waits| waits.lines.get_mut(to)) else {
            return;
        };
        line.in_flight = line.in_flight.saturating_sub(1);
        if let Some(refusal) = refusal {
            return self.give_up(to, refusal, turns);
        }
        let (is_last, is_empty) = (line.in_flight == 0, line.signals.is_empty());
        let is_awaited = match &reached {
            Some(holder) if holder.flags.detached => self.look_for(to, Some(holder.session)),
            None if is_last && !is_empty => self.look_for(to, None),
            None => line.since.is_some(),
            Some(_) => false,
        };
        match reached {
            _ if !is_last => {}
            Some(holder) if !is_empty => self.send_line(to, Some(holder.session)),
            _ if is_awaited => {}
            _ if is_empty => self.has_come(to),
            _ => self.give_up(to, Refusal::UserUnavailable, turns),
        }
    }

    /// Nothing waits for this user any more.
    fn has_come(&mut self, to: &UserName) {
        let line = self.waits.as_mut().and_then(|waits| waits.lines.remove(to));
        if line.is_some_and(|line| line.since.is_some()) {
            self.note_wait(to, None);
        }
    }

    /// This user is not here, or has no connection. Whether there is room to look for one more.
    fn look_for(&mut self, to: &UserName, detached: Option<SessionId>) -> bool {
        let waits = self.waits.as_mut();
        let Some(waits) = waits.filter(|waits| waits.has_room_for(to)) else {
            return false;
        };
        let line = waits.lines.entry(to.clone()).or_default();
        if line.since.is_none() || line.detached != detached {
            line.detached = detached;
            line.since.get_or_insert_with(Instant::now);
            let soon = Instant::now() + LOOK_SOON;
            waits.pause = LOOK_SOON;
            waits.look_at = Some(waits.look_at.map_or(soon, |at| at.min(soon)));
            self.note_wait(to, Some(detached));
        }
        true
    }

    /// It is time to look for users who are not here.
    pub(super) fn look(&mut self, turns: &mut Vec<Turn>) {
        let Some(waits) = &mut self.waits else { return };
        let (now, realm) = (Instant::now(), &self.lease.address.realm);
        waits.pause = (waits.pause * 3 / 2).clamp(LOOK_SOON, LOOK_EVERY);
        waits.look_at = None;
        let mut addresses = Vec::new();
        for (name, line) in &waits.lines {
            let Some(since) = line.since else { continue };
            let until = Some(since + self.manners.patience).filter(|until| *until > now);
            let next = [waits.look_at, until, Some(now + waits.pause)];
            waits.look_at = next.into_iter().flatten().min();
            if line.in_flight == 0 {
                addresses.push(Address::new(realm.clone(), name.clone()));
            }
        }
        self.exchange.watches.ask(self.lease.session, addresses);
        if !self.is_detached {
            for name in std::mem::take(&mut waits.missing) {
                self.note_wait(&name, None);
                turns.extend(
                    self.refused(name, None, Refusal::UserUnavailable)
                        .map(Turn::Tell),
                );
            }
        }
    }

    /// It is known who has these names.
    pub(super) fn looked(&mut self, found: Vec<(UserName, Option<Holder>)>, turns: &mut Vec<Turn>) {
        for (name, holder) in found {
            let waits = self.waits.as_ref();
            let line = waits.and_then(|waits| waits.lines.get(&name));
            let Some(line) = line.filter(|line| line.in_flight == 0) else {
                continue;
            };
            let Some(since) = line.since else { continue };
            let holder = holder.filter(|holder| {
                let is_back = |session| holder.session == session && !holder.flags.detached;
                line.detached.is_none_or(is_back)
            });
            match holder {
                Some(_) if line.detached.is_some() => self.has_come(&name),
                Some(holder) => self.send_line(&name, Some(holder.session)),
                None if since.elapsed() >= self.manners.patience => {
                    self.give_up(&name, Refusal::UserUnavailable, turns);
                }
                None => {}
            }
        }
    }

    /// What is in the line is not sent: its sender is told so once. Whoever holds the session next says it if there is no connection.
    fn give_up(&mut self, to: &UserName, refusal: Refusal, turns: &mut Vec<Turn>) {
        let Some(waits) = &mut self.waits else { return };
        let Some(mut line) = waits.lines.remove(to) else {
            return;
        };
        let signals = std::mem::take(&mut line.signals);
        let was_awaited = line.since.take().is_some();
        let is_told = line.detached.take().is_some() || !signals.is_empty();
        if line.in_flight > 0 {
            waits.lines.insert(to.clone(), line);
        }
        if is_told && self.is_detached {
            waits.missing.push(to.clone());
            self.note_wait(to, Some(None));
        } else if was_awaited {
            self.note_wait(to, None);
        }
        for mut sent in signals {
            if sent.starts_call.is_some() {
                self.calls.failed(to, sent.n);
            }
            self.tally(&mut sent, Fate::of(&refusal), None);
        }
        if is_told && !self.is_detached {
            turns.extend(self.refused(to.clone(), None, refusal).map(Turn::Tell));
        }
    }

    /// Whoever holds the session next is to know whom it waits for, here or in the inbox of a session; or that it does no more. Best effort: if
    /// the write fails and the session moves, its client is not told.
    fn note_wait(&self, name: &UserName, waits: Option<Option<SessionId>>) {
        if self.memory.is_some() {
            let mut notes = Notes::default();
            notes.put(&field(name), waits.map(value).unwrap_or_default());
            drop(self.exchange.fabric.note(&self.lease, notes));
        }
    }

    /// What the client is told of a signal that was refused. One that waits for users is told of each once.
    pub(super) fn refused(
        &mut self,
        name: UserName,
        id: Option<Correlation>,
        refusal: Refusal,
    ) -> Option<Event> {
        self.exchange.telemetry.metrics.refused(&refusal);
        let tells =
            id.is_some() || !self.is_patient() || self.waits.get_or_insert_default().tells(&name);
        tells.then_some(Event::Refused {
            refusal,
            id,
            name: Some(name),
        })
    }
}

fn cost(sent: &Outgoing) -> usize {
    sent.body.as_ref().map_or(0, |body| body.0.len()) + OVERHEAD
}

fn field(name: &UserName) -> String {
    format!("{WAITS}{name}")
}

fn value(detached: Option<SessionId>) -> String {
    detached.map_or_else(|| HERE.to_owned(), |session| session.to_string())
}
