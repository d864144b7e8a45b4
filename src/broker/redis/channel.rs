//! The messages that are published on channels: their encoding and decoding.

use bytes::{Buf as _, Bytes};
use memchr::memchr;

use super::reply::HolderCache;
use crate::broker::{Entry, Envelope, Question, SenderCache, Topic};
use crate::model::{NodeId, SessionId};

/// A message of a channel.
#[derive(Debug)]
pub(super) enum ChannelMessage {
    /// `S HOLDER\nOFFSET ENVELOPE[OFFSET ENVELOPE…]`: entries for a resumable session, published by `send.lua`.
    Push {
        session: SessionId,
        generation: u32,
        entries: Vec<Entry>,
    },
    /// `P SESSION\nENVELOPE[ENVELOPE…]`: envelopes for a plain session, published by `send.lua` or by the sender's
    /// node.
    Direct {
        session: SessionId,
        envelopes: Vec<Envelope>,
    },
    /// `R SESSION GENERATION`: a newer connection has taken the session over.
    Replaced { session: SessionId, generation: u32 },
    /// `B SESSION`: everything sent to the user before has arrived.
    Barrier(SessionId),
    /// `T`: the node's own probe, which shows that the subscription works.
    Probe,
    /// `Q ASKER NUMBER\nBODY` about a session, `H ASKER NUMBER\nBODY` about an HTTP session, `M ASKER NUMBER\nBODY`
    /// for operators: a question of another node.
    Question(Topic, Question),
    /// `A NUMBER\nBODY`: the answer to our question with this number.
    Answer(u64, Bytes),
}

impl ChannelMessage {
    /// Decodes a message. `None` if this release does not know it; a newer one may have published it.
    pub(super) fn decode(payload: Vec<u8>, caches: &mut Caches) -> Option<Self> {
        match payload.first()? {
            b'S' => Self::decode_push(payload, caches),
            b'P' => Self::decode_direct(payload, caches),
            b'Q' | b'H' | b'M' | b'A' => Self::decode_question(payload),
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

    fn decode_question(payload: Vec<u8>) -> Option<Self> {
        let mut body = Bytes::from(payload);
        let end = memchr(b'\n', &body)?;
        let head = body.split_to(end);
        body.advance(1);
        let mut words = std::str::from_utf8(&head).ok()?.split(' ');
        let topic = match words.next()? {
            "A" => return Some(Self::Answer(words.next()?.parse().ok()?, body)),
            "Q" => Topic::Session,
            "H" => Topic::Http,
            "M" => Topic::Admin,
            _ => return None,
        };
        let question = Question {
            asker: NodeId::known(words.next()?),
            number: words.next()?.parse().ok()?,
            body,
        };
        Some(Self::Question(topic, question))
    }

    fn decode_push(payload: Vec<u8>, caches: &mut Caches) -> Option<Self> {
        let mut payload = Bytes::from(payload);
        let end = memchr(b'\n', &payload)?;
        let lease = payload[..end].strip_prefix(b"S ")?;
        let holder = caches.holders.find(lease).ok()?;
        let (session, generation) = (holder.session, holder.generation);
        payload.advance(end + 1);
        let mut entries: Vec<Entry> = Vec::with_capacity(1);
        while !payload.is_empty() {
            let end = memchr(b' ', &payload)?;
            let id = std::str::from_utf8(&payload[..end]).ok()?.parse().ok()?;
            payload.advance(end + 1);
            // Skips an envelope of a newer release; the others are still delivered.
            if let Ok(envelope) = Envelope::take(&mut payload, &mut caches.senders) {
                entries.push(Entry { id, envelope });
            }
        }
        (!entries.is_empty()).then_some(Self::Push {
            session,
            generation,
            entries,
        })
    }

    fn decode_direct(payload: Vec<u8>, caches: &mut Caches) -> Option<Self> {
        let mut payload = Bytes::from(payload);
        let end = memchr(b'\n', &payload)?;
        let session = payload[..end].strip_prefix(b"P ")?;
        let session = std::str::from_utf8(session).ok()?.parse().ok()?;
        payload.advance(end + 1);
        let mut envelopes = Vec::with_capacity(1);
        while !payload.is_empty() {
            // Skips an envelope of a newer release; the others are still delivered.
            if let Ok(envelope) = Envelope::take(&mut payload, &mut caches.senders) {
                envelopes.push(envelope);
            }
        }
        Some(Self::Direct { session, envelopes })
    }
}

/// The start of a [`ChannelMessage::Direct`], with capacity for so many bytes of envelopes.
pub(super) fn direct(session: SessionId, bytes: usize) -> Vec<u8> {
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
        Topic::Admin => 'M',
    };
    [format!("{word} {asker} {number}\n").as_bytes(), body].concat()
}

pub(super) fn answer(number: u64, body: &[u8]) -> Vec<u8> {
    [format!("A {number}\n").as_bytes(), body].concat()
}

pub(super) fn replaced(session: SessionId, generation: u32) -> String {
    format!("R {session} {generation}")
}

/// Recently decoded senders and holders, of one connection.
#[derive(Debug, Default)]
pub(super) struct Caches {
    senders: SenderCache,
    holders: HolderCache,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(payload: impl Into<Vec<u8>>) -> Option<ChannelMessage> {
        ChannelMessage::decode(payload.into(), &mut Caches::default())
    }

    #[test]
    fn messages_round_trip() {
        let (asker, body) = (NodeId::known("n.1"), Bytes::from_static(b"what\n\xff"));
        for topic in [Topic::Session, Topic::Http, Topic::Admin] {
            let expected = Question {
                asker: asker.clone(),
                number: 7,
                body: body.clone(),
            };
            let decoded = decode(question(topic, &asker, 7, &body));
            assert!(
                matches!(decoded, Some(ChannelMessage::Question(of, decoded)) if (of, &decoded) == (topic, &expected))
            );
        }
        let decoded = decode(answer(7, &body));
        assert!(matches!(decoded, Some(ChannelMessage::Answer(7, decoded)) if decoded == body));
        let session = SessionId::random();
        assert!(
            matches!(decode(barrier(session)), Some(ChannelMessage::Barrier(decoded)) if decoded == session)
        );
        let envelope = "1 0a 0 n.1 /a message 1 4\n {{}";
        let later = "1 0a 0 n.1 /a knock 1 2\n{}";
        let push = format!("S n.2 {session} 0 -\n17-3 {envelope}17-5 {later}17-4 {envelope}");
        let Some(ChannelMessage::Push {
            session: to,
            generation,
            entries,
        }) = decode(push)
        else {
            panic!("not decoded as a push")
        };
        assert_eq!((to, generation), (session, 0));
        assert!(matches!(
            decode(replaced(session, 3)),
            Some(ChannelMessage::Replaced { session: decoded, generation: 3 }) if decoded == session
        ));
        assert_eq!(
            entries
                .iter()
                .map(|entry| entry.id.sequence)
                .collect::<Vec<_>>(),
            [3, 4]
        );
        assert!(decode(format!("S n.2 {session} 0 -\n")).is_none());
    }

    proptest! {
        #[test]
        fn damaged_messages_never_panic(payload: Vec<u8>, text in "[SBPQHMAR][ 0-9a-f.\\-\n]{0,40}") {
            let _ = decode(payload);
            let _ = decode(text);
        }
    }
}
