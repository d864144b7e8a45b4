//! What is published on the channels, and what scripts return: read here, and nowhere else.

use std::collections::HashMap;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use memchr::memchr;
use redis::Value;

use crate::broker::{
    BrokerError, Confirmed, Entry, Envelope, Holder, KnownSenders, Lease, Outcome, Question,
    Resume, Resumed, Sent, Topic,
};
use crate::bugs::{self, Bug};
use crate::model::{Address, NodeId, Offset, SessionId};

/// One message of a channel.
#[derive(Debug)]
pub(super) enum Heard {
    /// `S HOLDER\nID ENVELOPE[ID ENVELOPE…]`, published by `send.lua`.
    Push {
        session: SessionId,
        generation: u32,
        entries: Vec<Entry>,
    },
    /// `P SESSION\nENVELOPE[ENVELOPE…]`, for a plain session; published by `send.lua`, or by the sender's node.
    Direct {
        session: SessionId,
        envelopes: Vec<Envelope>,
    },
    /// `R SESSION ATTACH`: a newer connection has taken the session over.
    Replaced { session: SessionId, generation: u32 },
    /// `B SESSION`: everything sent to the user before has arrived.
    Barrier(SessionId),
    /// `T`: the subscription is not deaf.
    Probe,
    /// `Q ASKER NUMBER\nBODY` about a session, `H ASKER NUMBER\nBODY` about an HTTP session: another node asks.
    Question(Topic, Question),
    /// `A NUMBER\nBODY`: the answer to our question of this number.
    Answer(u64, Bytes),
}

impl Heard {
    /// Reads a payload; `None` for what no release that we know publishes.
    pub(super) fn read(payload: Vec<u8>, known: &mut Known) -> Option<Self> {
        match payload.first()? {
            b'S' => Self::read_push(payload, known),
            b'P' => Self::read_direct(payload, known),
            b'Q' | b'H' | b'A' => Self::read_question(payload),
            kind => {
                let text = std::str::from_utf8(&payload).ok()?;
                let mut words = text.split(' ').skip(1);
                match kind {
                    b'B' => Some(Self::Barrier(words.next()?.parse().ok()?)),
                    b'T' => Some(Self::Probe),
                    b'R' => Some(Self::Replaced {
                        session: words.next()?.parse().ok()?,
                        generation: words.next()?.parse().ok()?,
                    }),
                    _ => None,
                }
            }
        }
    }

    fn read_question(payload: Vec<u8>) -> Option<Self> {
        let mut body = Bytes::from(payload);
        let end = memchr(b'\n', &body)?;
        let head = body.split_to(end);
        body.advance(1);
        let mut words = std::str::from_utf8(&head).ok()?.split(' ');
        let topic = match words.next()? {
            "A" => return Some(Self::Answer(words.next()?.parse().ok()?, body)),
            "Q" => Topic::Session,
            "H" => Topic::Http,
            _ => return None,
        };
        let question = Question {
            asker: NodeId::known(words.next()?),
            number: words.next()?.parse().ok()?,
            body,
        };
        Some(Self::Question(topic, question))
    }

    fn read_push(payload: Vec<u8>, known: &mut Known) -> Option<Self> {
        let mut payload = Bytes::from(payload);
        let end = memchr(b'\n', &payload)?;
        let lease = payload[..end].strip_prefix(b"S ")?;
        let holder = known.holders.find(lease).ok()?;
        let (session, generation) = (holder.session, holder.generation);
        payload.advance(end + 1);
        let mut entries: Vec<Entry> = Vec::with_capacity(1);
        while !payload.is_empty() {
            let end = memchr(b' ', &payload)?;
            let id = std::str::from_utf8(&payload[..end]).ok()?.parse().ok()?;
            payload.advance(end + 1);
            // One that only a later release can read does not take the others with it.
            if let Ok(envelope) = Envelope::take(&mut payload, &mut known.senders) {
                entries.push(Entry { id, envelope });
            }
        }
        (!entries.is_empty()).then_some(Self::Push {
            session,
            generation,
            entries,
        })
    }

    fn read_direct(payload: Vec<u8>, known: &mut Known) -> Option<Self> {
        let mut payload = Bytes::from(payload);
        let end = memchr(b'\n', &payload)?;
        let session = payload[..end].strip_prefix(b"P ")?;
        let session = std::str::from_utf8(session).ok()?.parse().ok()?;
        payload.advance(end + 1);
        let mut envelopes = Vec::with_capacity(1);
        while !payload.is_empty() {
            // One that only a later release can read does not take the others with it.
            if let Ok(envelope) = Envelope::take(&mut payload, &mut known.senders) {
                envelopes.push(envelope);
            }
        }
        Some(Self::Direct { session, envelopes })
    }
}

/// How a push to a plain session begins, with room for so many bytes of envelopes.
pub(super) fn plain_push(session: SessionId, bytes: usize) -> Vec<u8> {
    let mut payload = Vec::with_capacity(bytes + 35);
    payload.extend_from_slice(format!("P {session}\n").as_bytes());
    payload
}

pub(super) fn barrier(session: SessionId) -> String {
    format!("B {session}")
}

pub(super) fn question(topic: Topic, asker: &NodeId, number: u64, body: &[u8]) -> Vec<u8> {
    let word = match topic {
        Topic::Session => 'Q',
        Topic::Http => 'H',
    };
    [format!("{word} {asker} {number}\n").as_bytes(), body].concat()
}

pub(super) fn answer(number: u64, body: &[u8]) -> Vec<u8> {
    [format!("A {number}\n").as_bytes(), body].concat()
}

pub(super) fn replaced(session: SessionId, generation: u32) -> String {
    format!("R {session} {generation}")
}

/// Stream entries as XRANGE returns them. One that this release cannot read is passed over.
pub(super) fn entries(value: Value) -> Result<Vec<Entry>, BrokerError> {
    let Value::Array(rows) = value else {
        return Err(unexpected());
    };
    Ok(rows.into_iter().filter_map(entry).collect())
}

fn entry(row: Value) -> Option<Entry> {
    let Value::Array(row) = row else { return None };
    let [Value::BulkString(id), Value::Array(fields)] = <[Value; 2]>::try_from(row).ok()? else {
        return None;
    };
    let id: Offset = std::str::from_utf8(&id).ok()?.parse().ok()?;
    let Value::BulkString(bytes) = fields.into_iter().nth(1)? else {
        return None;
    };
    Some(Entry {
        id,
        envelope: Envelope::decode(&bytes.into()).ok()?,
    })
}

/// What `resume.lua` returns.
pub(super) fn resume(
    address: &Address,
    value: Value,
) -> Result<(Resume, Option<Holder>), BrokerError> {
    let words = match value {
        Value::BulkString(word) if word == b"wrong" => return Ok((Resume::Wrong, None)),
        Value::BulkString(word) if word == b"later" => return Ok((Resume::Later, None)),
        Value::BulkString(_) => return Ok((Resume::Gone, None)),
        Value::Array(words) => words,
        _ => return Err(unexpected()),
    };
    let mut words = words.into_iter();
    let mut text = || match words.next() {
        Some(Value::BulkString(text)) => String::from_utf8(text).map_err(|_| unexpected()),
        Some(Value::Int(number)) => Ok(number.to_string()),
        _ => Err(unexpected()),
    };
    let (ours, before) = (holder(text()?.as_bytes())?, holder(text()?.as_bytes())?);
    let mut id = || text()?.parse().map_err(|_| unexpected());
    let confirmed = Confirmed {
        all: id()?,
        told: id()?,
    };
    let missed = text()? != "0";
    let mut notes = Vec::new();
    while let Ok(field) = text() {
        notes.push((field, text()?));
    }
    let resumed = Resumed {
        lease: Lease {
            address: address.clone(),
            session: ours.session,
            generation: ours.generation,
            flags: ours.flags,
        },
        confirmed,
        notes,
        missed,
    };
    Ok((Resume::Won(Box::new(resumed)), Some(before)))
}

/// Who was read lately, on one connection.
#[derive(Debug, Default)]
pub(super) struct Known {
    senders: KnownSenders,
    holders: KnownHolders,
}

/// Holders that were read lately: most signals go to somebody who was sent one before.
#[derive(Debug, Default)]
pub(super) struct KnownHolders {
    by_lease: HashMap<Vec<u8>, Holder>,
}

impl KnownHolders {
    /// How many are remembered before all are forgotten.
    const MOST: usize = 4096;

    /// What `send.lua` says of the `count` envelopes to one name.
    pub(super) fn outcomes(&mut self, result: Value, count: usize) -> Vec<Outcome> {
        let (lease, codes) = match result {
            Value::Nil => return vec![Ok(Sent::Absent); count],
            Value::BulkString(lease) => (lease, None),
            Value::Array(words) => {
                let mut words = words.into_iter();
                let Some(Value::BulkString(lease)) = words.next() else {
                    return vec![Err(unexpected()); count];
                };
                (lease, Some(words))
            }
            _ => return vec![Err(unexpected()); count],
        };
        let holder = match self.find(&lease) {
            Ok(holder) => holder,
            Err(error) => return vec![Err(error); count],
        };
        match codes {
            None => vec![Ok(Sent::To(holder)); count],
            Some(codes) => codes.map(|code| outcome(&holder, &code)).collect(),
        }
    }

    fn find(&mut self, lease: &[u8]) -> Result<Holder, BrokerError> {
        if let Some(known) = self.by_lease.get(lease) {
            return Ok(known.clone());
        }
        let holder = holder(lease)?;
        if self.by_lease.len() >= Self::MOST {
            self.by_lease.clear();
        }
        self.by_lease.insert(lease.to_vec(), holder.clone());
        Ok(holder)
    }
}

/// One step of a scan: where the next begins, and the keys that it found.
pub(super) fn scanned(value: Value) -> Result<(String, Vec<String>), BrokerError> {
    let text = |value| match value {
        Value::BulkString(text) => String::from_utf8(text).map_err(|_| unexpected()),
        _ => Err(unexpected()),
    };
    let Value::Array(step) = value else {
        return Err(unexpected());
    };
    let [next, Value::Array(keys)] = <[Value; 2]>::try_from(step).map_err(|_| unexpected())? else {
        return Err(unexpected());
    };
    let keys = keys.into_iter().map(text).collect::<Result<_, _>>();
    Ok((text(next)?, keys?))
}

fn outcome(holder: &Holder, code: &Value) -> Outcome {
    let Value::BulkString(code) = code else {
        return Err(unexpected());
    };
    let holder = holder.clone();
    match &code[..] {
        b"d" => Ok(Sent::To(holder)),
        b"f" => Ok(Sent::Full(holder)),
        b"u" if bugs::has(Bug::PublishCountsTheFrozen) => Ok(Sent::To(holder)),
        b"u" => Ok(Sent::Unheard(holder)),
        _ => Err(unexpected()),
    }
}

/// A lease as it is stored.
pub(super) fn holder(text: &[u8]) -> Result<Holder, BrokerError> {
    let text = std::str::from_utf8(text).ok();
    text.and_then(|text| text.parse().ok())
        .ok_or_else(unexpected)
}

/// A time as scripts take it.
pub(super) fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// Redis answered something that our scripts never do.
pub(super) fn unexpected() -> BrokerError {
    BrokerError::unreachable(&"Redis gave an unexpected answer")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hear(payload: impl Into<Vec<u8>>) -> Option<Heard> {
        Heard::read(payload.into(), &mut Known::default())
    }

    #[test]
    fn what_is_published_is_heard() {
        let (asker, body) = (NodeId::known("n.1"), Bytes::from_static(b"what\n\xff"));
        for topic in [Topic::Session, Topic::Http] {
            let expected = Question {
                asker: asker.clone(),
                number: 7,
                body: body.clone(),
            };
            let heard = hear(question(topic, &asker, 7, &body));
            assert!(
                matches!(heard, Some(Heard::Question(of, heard)) if (of, &heard) == (topic, &expected))
            );
        }
        let heard = hear(answer(7, &body));
        assert!(matches!(heard, Some(Heard::Answer(7, heard)) if heard == body));
        let session = SessionId::random();
        assert!(matches!(hear(barrier(session)), Some(Heard::Barrier(heard)) if heard == session));
        let envelope = "1 0a 0 n.1 /a message 1 4\n {{}";
        let later = "1 0a 0 n.1 /a knock 1 2\n{}";
        let push = format!("S n.2 {session} 0 -\n17-3 {envelope}17-5 {later}17-4 {envelope}");
        let Some(Heard::Push {
            session: to,
            generation,
            entries,
        }) = hear(push)
        else {
            panic!("not heard")
        };
        assert_eq!((to, generation), (session, 0));
        assert!(matches!(
            hear(replaced(session, 3)),
            Some(Heard::Replaced { session: heard, generation: 3 }) if heard == session
        ));
        assert_eq!(
            entries
                .iter()
                .map(|entry| entry.id.sequence)
                .collect::<Vec<_>>(),
            [3, 4]
        );
        assert!(hear(format!("S n.2 {session} 0 -\n")).is_none());
    }

    proptest! {
        #[test]
        fn dirt_on_a_channel_never_panics(payload: Vec<u8>, text in "[SBPQHAR][ 0-9a-f.\\-\n]{0,40}") {
            let _ = hear(payload);
            let _ = hear(text);
        }
    }
}
