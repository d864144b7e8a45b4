//! What the client of an HTTP session reads: events, each with an id behind which it can read on.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::EntryId;

/// How far a client has read. Where the run of the buffer is still known, it reads on exactly behind `number`; where
/// the run was lost with its node, behind `seq`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct EventId {
    pub(super) number: u64,
    /// A random number of the buffer; 0 is the beginning of any buffer.
    pub(super) run: u32,
    /// The last entry of the inbox that the client has; `None` before it has read that it is logged in.
    #[serde(with = "seq")]
    pub(super) seq: Option<EntryId>,
}

/// What a client has not read yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Unread {
    /// Oldest first.
    pub(super) events: Vec<(EventId, Text)>,
    /// Something before these events is lost.
    pub(super) reset: bool,
    /// Where the client reads on.
    pub(super) next: EventId,
}

/// One message, as JSON text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Text(pub(super) Bytes);

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

impl Text {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn as_str(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }
}

impl Serialize for Text {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.as_str())
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from).map(|text| Self(text.into()))
    }
}

/// An [`EntryId`] on the wire: the model itself is never serialized.
pub(super) mod seq {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    use crate::model::EntryId;

    #[allow(clippy::ref_option, reason = "serde calls it so")]
    pub(in super::super) fn serialize<S: Serializer>(
        seq: &Option<EntryId>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        seq.map(|seq| seq.to_string()).serialize(to)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<EntryId>, D::Error> {
        let seq = Option::<String>::deserialize(from)?;
        let seq = seq.as_deref().map(str::parse).transpose();
        seq.map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_id_survives_its_text() {
        assert_eq!(EventId::default().to_string(), "0-0");
        for text in ["0-0", "3-4294967295", "3-7-0-0", "3-7-1795528545005-2"] {
            assert_eq!(EventId::parse(text).unwrap().to_string(), text);
        }
        for dirt in ["", "x", "1", "-", "1-2-3", "1-x", "1-4294967296", "é-1"] {
            assert_eq!(EventId::parse(dirt), None, "{dirt}");
        }
    }
}
