//! What the client of an HTTP session was event, kept at its home for a stream that breaks.

use std::collections::VecDeque;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::Offset;

/// The bounds of the buffer: a client that comes back for more is event of a reset.
const MAX_EVENTS: usize = 1024;
const MAX_BYTES: usize = 1 << 20;

/// The last events, oldest first.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Buffer {
    events: VecDeque<BufferedEvent>,
    bytes: usize,
    /// The id of the last event.
    last: EventId,
    /// The next event is a greeting.
    #[serde(rename = "greets")]
    pub(super) greet_next: bool,
    /// The inbox has no entries up to this one any more: those that are not in the buffer are lost.
    #[serde(with = "seq")]
    pub(super) confirmed: Option<Offset>,
    /// The client has read the inbox up to this entry, in an earlier run.
    #[serde(with = "seq")]
    read_before: Option<Offset>,
}

/// How far a client has read. Where the run of the buffer is still known, it reads on exactly behind `number`; where
/// the run was lost with its node, behind `seq`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct EventId {
    pub(super) number: u64,
    /// A random number of the buffer; 0 is the beginning of any buffer.
    run: u32,
    /// The last entry of the inbox that the client has; `None` before it has read that it is logged in.
    #[serde(with = "seq")]
    pub(super) seq: Option<Offset>,
}

/// What a client has not read yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Unread {
    /// Oldest first.
    pub(super) events: Vec<(EventId, String)>,
    /// Something before these events is lost.
    pub(super) reset: bool,
    /// Where the client reads on.
    pub(super) next: EventId,
}

/// One event.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct BufferedEvent {
    id: EventId,
    /// The entry of the inbox that the event tells, if it tells one.
    #[serde(with = "seq")]
    entry: Option<Offset>,
    /// It tells of the login again: a client that has read of its login skips it.
    is_greeting: bool,
    text: String,
}

impl Buffer {
    /// An empty buffer, of a run of its own.
    pub(super) fn new() -> Self {
        let mut buffer = Self::default();
        buffer.last.run = rand::random_range(1..=u32::MAX);
        buffer
    }

    /// Adds an event; the oldest make room for it.
    pub(super) fn push(&mut self, text: String, entry: Option<Offset>) {
        self.last.number += 1;
        self.last.seq = self.last.seq.max(entry);
        self.bytes += text.len();
        self.events.push_back(BufferedEvent {
            id: self.last,
            entry,
            is_greeting: std::mem::take(&mut self.greet_next),
            text,
        });
        while (self.events.len() > MAX_EVENTS || self.bytes > MAX_BYTES)
            && self.events.len() > 1
            && let Some(oldest) = self.events.pop_front()
        {
            self.bytes -= oldest.text.len();
        }
    }

    /// The next event tells the client that it is logged in.
    pub(super) fn mark_logged_in(&mut self) {
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
        let is_unread = |event: &&BufferedEvent| {
            let is_behind = match number {
                Some(number) => event.id.number > number,
                None => !event.is_greeting || after.seq.is_none(),
            };
            is_behind && (event.entry.is_none() || event.entry > self.read_before)
        };
        let events = self.events.iter().filter(is_unread);
        let events: Vec<_> = events.map(|event| (event.id, event.text.clone())).collect();
        let first = self.events.front().map(|event| event.id.number);
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

impl EventId {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut words = text.splitn(3, '-');
        Some(Self {
            number: words.next()?.parse().ok()?,
            run: words.next()?.parse().ok()?,
            seq: words.next().map(str::parse).transpose().ok()?,
        })
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.number, self.run)?;
        self.seq.map_or(Ok(()), |seq| write!(f, "-{seq}"))
    }
}

impl Unread {
    pub(super) fn nothing(after: EventId) -> Self {
        Self {
            next: after,
            ..Self::default()
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty() && !self.reset
    }
}

/// An [`Offset`] on the wire: the model itself is never serialized.
mod seq {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    use crate::model::Offset;

    #[allow(clippy::ref_option, reason = "serde calls it so")]
    pub(super) fn serialize<S: Serializer>(seq: &Option<Offset>, to: S) -> Result<S::Ok, S::Error> {
        seq.map(|seq| seq.to_string()).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Offset>, D::Error> {
        let seq = Option::<String>::deserialize(from)?;
        let seq = seq.as_deref().map(str::parse).transpose();
        seq.map_err(D::Error::custom)
    }
}

#[cfg(test)]
#[path = "buffer_tests.rs"]
mod tests;
