//! What the client of an HTTP session was told, kept at its home for a stream that breaks.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::event::{EventId, Text, Unread, seq};
use crate::model::EntryId;

/// The bounds of the buffer: a client that comes back for more is told of a reset.
const MOST_EVENTS: usize = 1024;
const MOST_BYTES: usize = 1 << 20;

/// The last events, oldest first.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Buffer {
    events: VecDeque<Told>,
    bytes: usize,
    /// The id of the last event.
    last: EventId,
    /// The next event is a greeting.
    pub(super) greets: bool,
    /// The inbox has no entries up to this one any more: those that are not in the buffer are lost.
    #[serde(with = "seq")]
    pub(super) confirmed: Option<EntryId>,
    /// The client has read the inbox up to this entry, in an earlier run.
    #[serde(with = "seq")]
    read_before: Option<EntryId>,
}

/// One event.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Told {
    id: EventId,
    /// The entry of the inbox that the event tells, if it tells one.
    #[serde(with = "seq")]
    entry: Option<EntryId>,
    /// It tells of the login again: a client that has read of its login skips it.
    is_greeting: bool,
    text: Text,
}

impl Buffer {
    /// An empty buffer, of a run of its own.
    pub(super) fn new() -> Self {
        let mut buffer = Self::default();
        buffer.last.run = rand::random_range(1..=u32::MAX);
        buffer
    }

    /// Adds an event; the oldest make room for it.
    pub(super) fn tell(&mut self, text: Text, entry: Option<EntryId>) {
        self.last.number += 1;
        self.last.seq = self.last.seq.max(entry);
        self.bytes += text.len();
        self.events.push_back(Told {
            id: self.last,
            entry,
            is_greeting: std::mem::take(&mut self.greets),
            text,
        });
        while (self.events.len() > MOST_EVENTS || self.bytes > MOST_BYTES)
            && self.events.len() > 1
            && let Some(oldest) = self.events.pop_front()
        {
            self.bytes -= oldest.text.len();
        }
    }

    /// The next event tells the client that it is logged in.
    pub(super) fn logs_in(&mut self) {
        self.last.seq.get_or_insert_default();
    }

    /// The id of the last event.
    pub(super) fn last(&self) -> EventId {
        self.last
    }

    /// How many events of this run a client has read; `None` if it has read another run.
    pub(super) fn number_of(&self, after: EventId) -> Option<u64> {
        (after.run == self.last.run).then_some(after.number)
    }

    /// The events behind this one.
    pub(super) fn read(&mut self, after: EventId) -> Unread {
        let number = self.number_of(after);
        if number.is_none() {
            // A resume may bring those entries here again at any time, also later.
            self.read_before = self.read_before.max(after.seq);
        }
        let is_unread = |told: &&Told| {
            let is_behind = match number {
                Some(number) => told.id.number > number,
                None => !told.is_greeting || after.seq.is_none(),
            };
            is_behind && (told.entry.is_none() || told.entry > self.read_before)
        };
        let events = self.events.iter().filter(is_unread);
        let events: Vec<_> = events.map(|told| (told.id, told.text.clone())).collect();
        let first = self.events.front().map(|told| told.id.number);
        let first = first.unwrap_or(self.last.number + 1);
        let reset = match number {
            Some(number) => number + 1 < first,
            None => first > 1 || after.seq.unwrap_or_default() < self.confirmed.unwrap_or_default(),
        };
        let is_empty = events.is_empty() && !reset;
        Unread {
            events,
            reset,
            next: if is_empty { after } else { self.last },
        }
    }
}

#[cfg(test)]
#[path = "buffer_tests.rs"]
mod tests;
