//! Signals to users who may be absent: when they wait, are sent, and are given up.

use bytes::Bytes;

use super::offline_queue::{ANYBODY, LOOK_EVERY, LOOK_SOON, Line, WAITS, field};
use super::outbox::Outgoing;
use super::{Action, Effect, State};
use crate::broker::Holder;
use crate::model::{Address, Correlation, Event, IfAbsent, Refusal, SessionId, UserName};
use crate::telemetry::SignalOutcome;

impl State {
    /// Restores what an earlier connection saved. Signals that waited there are lost, which the client is told.
    pub(super) fn restore_offline(&mut self, notes: &[(String, String)]) {
        for (field, value) in notes {
            let Some(Ok(name)) = field.strip_prefix(WAITS).map(UserName::parse) else {
                continue;
            };
            if let Ok(session) = value.parse() {
                let line = Line {
                    detached: Some(session),
                    noted: Some(value.clone()),
                    ..Line::default()
                };
                self.offline.get_or_insert_default();
                self.put_line(&name, line);
            } else {
                self.save_wait(&name, None);
                self.refuse_in_order(name);
            }
        }
    }

    /// Queues a signal to a user who may be absent, behind other signals that wait for that user or are in flight to
    /// them.
    pub(super) fn line_up(&mut self, mut sent: Outgoing) {
        let to = sent.to.clone();
        let queue = self.offline.get_or_insert_default();
        let mut line = queue.lines.remove(&to).unwrap_or_default();
        let is_free = line.in_flight == 0 && line.signals.is_empty();
        if line.is_absent() && !queue.has_room(&line, &sent) {
            self.tally(&mut sent, SignalOutcome::Absent, None);
            self.put_line(&to, line);
            return self.refuse_in_order(to);
        }
        if line.is_absent() {
            self.begins_to_wait(&mut sent);
        }
        line.signals.push_back(sent);
        if is_free {
            self.send_line(&mut line, None);
        }
        self.put_line(&to, line);
    }

    /// Puts a signal whose receiver is absent back into its line. Returns it if it may not wait.
    pub(super) fn park(&mut self, sent: Outgoing) -> Option<Outgoing> {
        let may_wait = sent.body.is_some() && sent.if_absent == IfAbsent::Queue;
        let Some(queue) = self.offline.as_mut().filter(|_| may_wait) else {
            return Some(sent);
        };
        let to = sent.to.clone();
        let mut line = queue.lines.remove(&to).unwrap_or_default();
        if !queue.has_room(&line, &sent) {
            self.put_line(&to, line);
            return Some(sent);
        }
        line.in_flight = line.in_flight.saturating_sub(1);
        line.detached = None;
        let place = line.signals.partition_point(|other| other.n < sent.n);
        line.signals.insert(place, sent);
        line.signals
            .iter_mut()
            .for_each(|sent| self.begins_to_wait(sent));
        self.put_line(&to, line);
        None
    }

    /// Handles an outcome for the line: the signal reached this holder, was refused, or neither.
    pub(super) fn line_moves(
        &mut self,
        to: &UserName,
        reached: Option<&Holder>,
        refusal: Option<Refusal>,
    ) {
        let Some(queue) = &mut self.offline else {
            return;
        };
        let Some(mut line) = queue.lines.remove(to) else {
            return;
        };
        line.in_flight = line.in_flight.saturating_sub(1);
        if let Some(refusal) = refusal {
            self.give_up(to, &mut line, refusal);
        } else if let Some(holder) = reached {
            let is_awaited = holder.flags.detached && queue.has_place(&line);
            line.detached = is_awaited.then_some(holder.session);
            if line.in_flight == 0 {
                self.send_line(&mut line, Some(holder.session));
            }
        }
        self.put_line(to, line);
    }

    /// Handles the results of lookups.
    pub(super) fn looked_up(&mut self, found: Vec<(UserName, Option<Holder>)>) {
        for (name, holder) in found {
            let queue = self.offline.as_mut();
            let Some(mut line) = queue.and_then(|queue| queue.lines.remove(&name)) else {
                continue;
            };
            let holder = holder.filter(|holder| {
                let is_back = |session| holder.session == session && !holder.flags.detached;
                line.detached.is_none_or(is_back)
            });
            match (line.since, holder) {
                _ if line.in_flight > 0 => {}
                (_, Some(holder)) => {
                    line.detached = None;
                    self.send_line(&mut line, Some(holder.session));
                }
                (Some(since), None) if self.moment.now - since >= self.policy.offline_ttl => {
                    self.give_up(&name, &mut line, Refusal::UserUnavailable);
                }
                _ => {}
            }
            self.put_line(&name, line);
        }
    }

    /// Looks up all absent users.
    pub(super) fn look_up(&mut self) {
        let Some(queue) = &mut self.offline else {
            return;
        };
        let now = self.moment.now;
        queue.pause = (queue.pause * 3 / 2).clamp(LOOK_SOON, LOOK_EVERY);
        queue.look_at = None;
        for (name, line) in &queue.lines {
            let Some(since) = line.since else { continue };
            let until = Some(since + self.policy.offline_ttl).filter(|until| *until > now);
            let next = [queue.look_at, until, Some(now + queue.pause)];
            queue.look_at = next.into_iter().flatten().min();
            let address = Address::new(self.lease.address.realm.clone(), name.clone());
            self.effects.push(Effect::LookUp(address));
        }
    }

    /// Prepares a signal for waiting. Copies its body, so that it does not keep the much larger frame in memory.
    fn begins_to_wait(&mut self, sent: &mut Outgoing) {
        if let (false, Some(body)) = (sent.has_waited, &mut sent.body) {
            body.0 = Bytes::copy_from_slice(&body.0);
        }
        self.tally(sent, SignalOutcome::Waiting, None);
        sent.has_waited = true;
    }

    /// Sends everything in the line, to this session only or to whoever holds the name.
    fn send_line(&mut self, line: &mut Line, only: Option<SessionId>) {
        line.in_flight += line.signals.len();
        for sent in line.signals.drain(..) {
            self.transmit(sent, only);
        }
    }

    /// Gives up everything in the line, and tells the client once.
    fn give_up(&mut self, to: &UserName, line: &mut Line, why: Refusal) {
        let is_told = line.detached.take().is_some() || !line.signals.is_empty();
        for mut sent in line.signals.drain(..) {
            if sent.starts_call {
                self.calls.failed(to, sent.n);
            }
            self.tally(&mut sent, SignalOutcome::of(&why), None);
        }
        if self.is_detached {
            // The record stays as it is: the next connection tells the client.
            line.noted = None;
        } else if is_told {
            let told = self.refused(to.clone(), None, why);
            self.actions.extend(told.map(Action::Tell));
        }
    }

    /// Puts a line back, unless it is empty. Its user is looked up if the line waits, and nothing in flight will tell
    /// whether the user is there.
    fn put_line(&mut self, to: &UserName, mut line: Line) {
        let now = self.moment.now;
        let Some(queue) = &mut self.offline else {
            return;
        };
        let is_idle = line.in_flight == 0 && line.signals.is_empty();
        if line.detached.is_some() || (line.in_flight == 0 && !is_idle) {
            line.since.get_or_insert_with(|| {
                queue.pause = LOOK_SOON;
                queue.look_at = queue.look_at.into_iter().chain([now + LOOK_SOON]).min();
                now
            });
        } else if is_idle {
            line.since = None;
        }
        let awaited = line.since.map(|_| line.detached);
        let note = awaited.map(|detached| {
            detached.map_or_else(|| ANYBODY.to_owned(), |session| session.to_string())
        });
        if line.noted != note {
            line.noted.clone_from(&note);
            self.save_wait(to, note);
        }
        if let Some(queue) = &mut self.offline
            && (!is_idle || line.since.is_some())
        {
            queue.lines.insert(to.clone(), line);
        }
    }

    /// Saves whom the session waits for, for its next connection. Best effort: if the write fails and the session
    /// moves, the client is not told.
    fn save_wait(&mut self, name: &UserName, note: Option<String>) {
        self.save_field(&field(name), note.unwrap_or_default());
    }

    fn refuse_in_order(&mut self, name: UserName) {
        if let Some(event) = self.refused(name, None, Refusal::UserUnavailable) {
            self.tell_in_order(event);
        }
    }

    /// The event for a refused signal. A session with an offline queue reports each absent user only once in a while.
    pub(super) fn refused(
        &mut self,
        name: UserName,
        id: Option<Correlation>,
        refusal: Refusal,
    ) -> Option<Event> {
        self.node.telemetry.metrics.refused(&refusal);
        let is_told_once = id.is_none() && self.is_patient();
        let tells = !is_told_once
            || self
                .offline
                .get_or_insert_default()
                .tells(&name, self.moment.now);
        tells.then_some(Event::Refused {
            refusal,
            id,
            name: Some(name),
        })
    }
}
