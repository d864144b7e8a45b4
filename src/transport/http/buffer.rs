//! Buffers the events of an HTTP session at its home, so that a client can read on after a broken
//! stream.

use std::collections::VecDeque;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::Offset;

/// Bounds of the buffer. A client that asks for dropped events is told of a reset.
const MAX_EVENTS: usize = 1024;
const MAX_BYTES: usize = 1 << 20;

/// The latest events, oldest first.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Buffer {
    events: VecDeque<BufferedEvent>,
    bytes: usize,
    /// The id of the last event.
    last: EventId,
    /// Whether the next event repeats the login reply (a greeting).
    #[serde(rename = "greets")]
    pub(super) greet_next: bool,
    /// Inbox entries up to this offset are confirmed and gone: a client that has not read them gets
    /// a reset unless the buffer has them.
    #[serde(with = "seq")]
    pub(super) confirmed: Option<Offset>,
    /// The client read the inbox up to this offset in an earlier run.
    #[serde(with = "seq")]
    read_before: Option<Offset>,
}

/// How far a client has read: the id of an SSE event (`Last-Event-ID`). In the same run of the
/// buffer the client reads on after `number`. If the run was lost with its node, the client reads
/// on after `seq`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct EventId {
    pub(super) number: u64,
    /// The random id of the buffer's run; 0 stands for the beginning of any run.
    run: u32,
    /// The last inbox entry that the client has; `None` before it has read its login reply.
    #[serde(with = "seq")]
    pub(super) seq: Option<Offset>,
}

/// The events that a client has not read yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Unread {
    /// Oldest first.
    pub(super) events: Vec<(EventId, String)>,
    /// Events before these are lost.
    pub(super) reset: bool,
    /// The id after which the client reads on.
    pub(super) next: EventId,
}

/// One buffered event.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct BufferedEvent {
    id: EventId,
    /// The inbox entry behind this event, if it comes from the inbox.
    #[serde(with = "seq")]
    entry: Option<Offset>,
    /// Repeats the login reply. A client that has read the first reply skips it.
    is_greeting: bool,
    text: String,
}

impl Buffer {
    /// An empty buffer with a run id of its own.
    pub(super) fn new() -> Self {
        let mut buffer = Self::default();
        buffer.last.run = rand::random_range(1..=u32::MAX);
        buffer
    }

    /// Adds an event, and drops the oldest ones if the bounds are exceeded.
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

    /// The next event is the login reply.
    pub(super) fn mark_logged_in(&mut self) {
        self.last.seq.get_or_insert_default();
    }

    /// The id of the last event.
    pub(super) fn last(&self) -> EventId {
        self.last
    }

    /// The number of an event of this run; `None` if it belongs to another run.
    pub(super) fn number_of(&self, after: EventId) -> Option<u64> {
        (after.run == self.last.run).then_some(after.number)
    }

    /// The events after this one.
    pub(super) fn read(&mut self, after: EventId) -> Unread {
        let number = self.number_of(after);
        if number.is_none() {
            // A later resume may add those entries to this buffer; `read_before` filters them.
            self.read_before = self.read_before.max(after.seq);
        }
        let is_unread = |event: &&BufferedEvent| {
            let is_after = match number {
                Some(number) => event.id.number > number,
                None => !event.is_greeting || after.seq.is_none(),
            };
            is_after && (event.entry.is_none() || event.entry > self.read_before)
        };
        let events = self.events.iter().filter(is_unread);
        // A home that was cut off may not know entries that the client has read elsewhere. The ids of its events must
        // not lead the client back behind them.
        let seen = |id: EventId| EventId {
            seq: id.seq.max(self.read_before),
            ..id
        };
        let events: Vec<_> = events
            .map(|event| (seen(event.id), event.text.clone()))
            .collect();
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
            next: if is_empty { after } else { seen(self.last) },
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

/// Serializes an [`Offset`] as text: model types are never serialized themselves.
mod seq {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    use crate::model::Offset;

    #[allow(clippy::ref_option, reason = "serde passes it like this")]
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
