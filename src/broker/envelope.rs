//! A signal in transit between nodes: a versioned line of words, then the body as it came.
//!
//! ```text
//! 1 <session> <generation> <node> <address> offer <n> <bytes of body>[ <word>…]\n<body>
//! 1 <session> <generation> <node> <address> leave <n> 0 <reason> <heard>\n
//! 1 <session> <generation> <node> <address> sync <n> 0\n
//! ```
//! A signal that is delivered once however often it is sent bears the word `id=<its id, percent-encoded>`; whatever belongs to the trace of a
//! call, `t=<traceparent>`.
//!
//! What one session always says comes first, so it is written once and copied from then on. Words behind the known ones are ignored, so
//! that a newer release can add some; a higher version is refused. The length makes envelopes that follow each other tell where they end.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{Buf as _, Bytes};
use memchr::{memchr, memchr_iter};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::model::{
    Address, Body, Correlation, LeaveReason, NodeId, SessionId, Signal, SignalKind, TraceContext,
};

/// The version that this release writes, and the only one that it reads.
const VERSION: &str = "1";
/// The word for what is no signal.
const SYNC: &str = "sync";
/// How the word begins that bears an id.
const ONCE: &str = "id=";
/// How the word begins that bears the place in a trace.
const TRACE: &str = "t=";

/// Who says something, as its node knows it.
#[derive(Debug)]
pub struct Sender {
    /// The user.
    pub address: Address,
    /// The session.
    pub session: SessionId,
    /// How often that was resumed.
    pub generation: u32,
    /// The node that holds it.
    pub node: NodeId,
    /// How every envelope of this session begins.
    head: String,
}

/// What one session says to another user. `(session, generation, n)` grows, so a receiver can drop what comes late.
#[derive(Clone, Debug, PartialEq)]
pub struct Envelope {
    /// Who says it.
    pub from: Arc<Sender>,
    /// Counts what the session has sent.
    pub n: u64,
    /// The id under which this is delivered once, however often the session sends it.
    pub once: Option<Correlation>,
    /// The span that it was sent in, of a call that is traced.
    pub trace: Option<TraceContext>,
    /// What is said.
    pub parcel: Parcel,
}

/// What is in an envelope.
#[derive(Clone, Debug, PartialEq)]
pub enum Parcel {
    /// A signal.
    Signal(Signal),
    /// The end of the call between the two sessions.
    Leave {
        /// Why.
        reason: LeaveReason,
        /// The last `n` that the leaver heard from the other: a call that started later is not meant.
        heard: u64,
    },
    /// The session was resumed on another node: whoever is in no call with it answers with a leave.
    Sync,
}

/// Not an envelope of a version that this release knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an envelope that this release knows")]
pub struct UnknownEnvelope;

impl Sender {
    /// A session of this node.
    pub fn new(address: Address, session: SessionId, generation: u32, node: NodeId) -> Self {
        let head = format!("{VERSION} {session} {generation} {node} {address} ");
        Self {
            address,
            session,
            generation,
            node,
            head,
        }
    }

    /// Reads the head that [`new`](Self::new) wrote.
    fn read(head: &str) -> Result<Self, UnknownEnvelope> {
        let mut words = head.split(' ');
        let mut word = || words.next().ok_or(UnknownEnvelope);
        if word()? != VERSION {
            return Err(UnknownEnvelope);
        }
        let session = word()?.parse().map_err(|_| UnknownEnvelope)?;
        let generation = word()?.parse().map_err(|_| UnknownEnvelope)?;
        let node = NodeId::known(word()?);
        let address = word()?.parse().map_err(|_| UnknownEnvelope)?;
        Ok(Self {
            address,
            session,
            generation,
            node,
            head: head.to_owned(),
        })
    }
}

/// Senders that were read lately: who speaks once is likely to speak again, and reading its head costs as much as all the rest.
#[derive(Debug, Default)]
pub(super) struct KnownSenders {
    by_head: HashMap<String, Arc<Sender>>,
}

impl KnownSenders {
    /// How many are remembered before all are forgotten.
    const MOST: usize = 4096;

    fn find(&mut self, head: &str) -> Result<Arc<Sender>, UnknownEnvelope> {
        if let Some(known) = self.by_head.get(head) {
            return Ok(Arc::clone(known));
        }
        let sender = Arc::new(Sender::read(head)?);
        if self.by_head.len() >= Self::MOST {
            self.by_head.clear();
        }
        self.by_head.insert(head.to_owned(), Arc::clone(&sender));
        Ok(sender)
    }
}

impl PartialEq for Sender {
    fn eq(&self, other: &Self) -> bool {
        self.head == other.head
    }
}

impl Envelope {
    /// The size of what it carries, in bytes.
    pub fn body_len(&self) -> usize {
        match &self.parcel {
            Parcel::Signal(signal) => signal.body.0.len(),
            Parcel::Leave { .. } | Parcel::Sync => 0,
        }
    }

    /// The bytes that [`decode`](Self::decode) reads.
    pub fn encode(&self) -> Vec<u8> {
        let mut text = Vec::with_capacity(self.from.head.len() + self.body_len() + 48);
        let mut push = |word: &str| text.extend_from_slice(word.as_bytes());
        push(&self.from.head);
        match &self.parcel {
            Parcel::Signal(signal) => {
                push(signal.kind.as_str());
                push(" ");
                push(itoa::Buffer::new().format(self.n));
                push(" ");
                push(itoa::Buffer::new().format(signal.body.0.len()));
                if let Some(id) = &self.once {
                    push(&format!(
                        " {ONCE}{}",
                        utf8_percent_encode(&id.0, NON_ALPHANUMERIC)
                    ));
                }
            }
            Parcel::Leave { reason, heard } => {
                push(&format!("leave {} 0 {} {heard}", self.n, reason.as_str()));
            }
            Parcel::Sync => push(&format!("{SYNC} {} 0", self.n)),
        }
        if let Some(trace) = &self.trace {
            push(&format!(" {TRACE}{trace}"));
        }
        push("\n");
        if let Parcel::Signal(signal) = &self.parcel {
            text.extend_from_slice(&signal.body.0);
        }
        text
    }

    /// Reads what [`encode`](Self::encode) wrote; the body is a slice of `bytes`.
    pub fn decode(bytes: &Bytes) -> Result<Self, UnknownEnvelope> {
        let mut rest = bytes.clone();
        let envelope = Self::take(&mut rest, &mut KnownSenders::default())?;
        if rest.is_empty() {
            Ok(envelope)
        } else {
            Err(UnknownEnvelope)
        }
    }

    /// Takes the first of several envelopes away, and reads it. One that cannot be read is taken away too, as far as it can be told from what
    /// follows.
    pub(super) fn take(
        bytes: &mut Bytes,
        known: &mut KnownSenders,
    ) -> Result<Self, UnknownEnvelope> {
        let mut end_of_body = None;
        let envelope = Self::read(bytes, known, &mut end_of_body);
        // Whatever happens, what was looked at is gone.
        bytes.advance(end_of_body.unwrap_or(bytes.len()));
        envelope
    }

    /// Reads the first of several envelopes, and tells where it ends.
    fn read(
        all: &Bytes,
        known: &mut KnownSenders,
        end_of_this: &mut Option<usize>,
    ) -> Result<Self, UnknownEnvelope> {
        let end = memchr(b'\n', all).ok_or(UnknownEnvelope)?;
        let line = std::str::from_utf8(&all[..end]).map_err(|_| UnknownEnvelope)?;
        let end_of_head = memchr_iter(b' ', line.as_bytes()).nth(4);
        let (head, rest) = line.split_at(end_of_head.ok_or(UnknownEnvelope)? + 1);
        let mut words = words(rest);
        let mut word = || words.next().ok_or(UnknownEnvelope);
        let (kind, n, length) = (word()?, word()?, word()?);
        let length: usize = length.parse().map_err(|_| UnknownEnvelope)?;
        let end_of_body = (end + 1)
            .checked_add(length)
            .filter(|end| *end <= all.len())
            .ok_or(UnknownEnvelope)?;
        *end_of_this = Some(end_of_body);
        let from = known.find(head)?;
        let n = n.parse().map_err(|_| UnknownEnvelope)?;
        let parcel = if kind == SYNC {
            Parcel::Sync
        } else if kind == "leave" {
            let reason = word()?;
            let reason = LeaveReason::ALL
                .into_iter()
                .find(|known| known.as_str() == reason)
                .ok_or(UnknownEnvelope)?;
            Parcel::Leave {
                reason,
                heard: word()?.parse().map_err(|_| UnknownEnvelope)?,
            }
        } else {
            let kind = SignalKind::ALL
                .into_iter()
                .find(|known| known.as_str() == kind)
                .ok_or(UnknownEnvelope)?;
            let body = all.slice(end + 1..end_of_body);
            std::str::from_utf8(&body).map_err(|_| UnknownEnvelope)?;
            Parcel::Signal(Signal {
                kind,
                body: Body(body),
            })
        };
        let (mut once, mut trace) = (None, None);
        for word in words {
            if let Some(id) = word.strip_prefix(ONCE) {
                let id = percent_decode_str(id)
                    .decode_utf8()
                    .map_err(|_| UnknownEnvelope)?;
                once = Some(Correlation(id.into()));
            } else if let Some(context) = word.strip_prefix(TRACE) {
                // A trace is no reason to lose a signal.
                trace = context.parse().ok();
            }
        }
        Ok(Self {
            from,
            n,
            once,
            trace,
            parcel,
        })
    }
}

/// The words of a line, as `split(' ')` finds them, in a quarter of the time.
fn words(line: &str) -> impl Iterator<Item = &str> {
    let mut ends = memchr_iter(b' ', line.as_bytes()).chain(std::iter::once(line.len()));
    let mut start = 0;
    std::iter::from_fn(move || {
        let end = ends.next()?;
        let word = &line[start..end];
        start = end + 1;
        Some(word)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Realm, UserName};

    fn envelope(name: &str, parcel: Parcel) -> Envelope {
        let address = Address::new(Realm::new("tenant 1"), UserName::parse(name).unwrap());
        let from = Sender::new(
            address,
            "00c0ffee".parse().unwrap(),
            2,
            NodeId::known("node-1.abc"),
        );
        Envelope {
            from: Arc::new(from),
            n: 17,
            once: None,
            trace: None,
            parcel,
        }
    }

    fn signal(kind: SignalKind, body: &str) -> Parcel {
        Parcel::Signal(Signal {
            kind,
            body: Body(Bytes::copy_from_slice(body.as_bytes())),
        })
    }

    #[test]
    fn the_wire_is_frozen() {
        let offer = envelope("User A", signal(SignalKind::Offer, "{\"sdp\": 1}"));
        assert_eq!(
            offer.encode(),
            b"1 00000000000000000000000000c0ffee 2 node-1.abc tenant%201/User%20A offer 17 10\n{\"sdp\": 1}"
        );
        let repeated = Envelope {
            once: Some(Correlation("\"a b\"".into())),
            ..offer
        };
        assert_eq!(
            repeated.encode(),
            b"1 00000000000000000000000000c0ffee 2 node-1.abc tenant%201/User%20A offer 17 10 id=%22a%20b%22\n{\"sdp\": 1}"
        );
        assert_eq!(
            Envelope::decode(&repeated.encode().into()),
            Ok(repeated.clone())
        );
        let traced = Envelope {
            trace: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
                .parse()
                .ok(),
            ..repeated.clone()
        };
        assert_eq!(
            traced.encode(),
            b"1 00000000000000000000000000c0ffee 2 node-1.abc tenant%201/User%20A offer 17 10 id=%22a%20b%22 \
              t=00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\n{\"sdp\": 1}"
        );
        for parcel in [
            traced.parcel.clone(),
            Parcel::Sync,
            Parcel::Leave {
                reason: LeaveReason::Lost,
                heard: 1,
            },
        ] {
            let once = traced.once.clone().filter(|_| parcel == traced.parcel);
            let traced = Envelope {
                once,
                parcel,
                ..traced.clone()
            };
            assert_eq!(Envelope::decode(&traced.encode().into()), Ok(traced));
        }
        let word = envelope("b", Parcel::Sync);
        assert_eq!(Envelope::decode(&word.encode().into()), Ok(word));
        let leave = envelope(
            "b",
            Parcel::Leave {
                reason: LeaveReason::NodeLost,
                heard: 3,
            },
        );
        assert_eq!(
            leave.encode(),
            b"1 00000000000000000000000000c0ffee 2 node-1.abc tenant%201/b leave 17 0 node_lost 3\n"
        );
    }

    #[test]
    fn later_words_are_ignored_and_later_versions_refused() {
        let known = b"1 0a 0 n.1 /a message 1 1 trace=1 more\n1";
        assert!(Envelope::decode(&Bytes::from_static(known)).is_ok());
        for unknown in [
            &b"2 0a 0 n.1 /a message 1 1\n1"[..],
            b"1 0a 0 n.1 /a knock 1 1\n1",
            b"1 0a 0 n.1 /a message 1 2\n1",
            b"1 0a 0 n.1 /a message 1 0\n1",
            b"1 0a 0 n.1 /a message 1 18446744073709551615\n1",
            b"",
            b"\n",
            b"1 0a",
        ] {
            assert_eq!(
                Envelope::decode(&Bytes::copy_from_slice(unknown)),
                Err(UnknownEnvelope)
            );
        }
    }

    #[test]
    fn envelopes_that_follow_each_other_are_taken_one_by_one() {
        let sent = [
            envelope("a", signal(SignalKind::Offer, "[1]")),
            envelope("a", signal(SignalKind::Candidate, "")),
            envelope(
                "b",
                Parcel::Leave {
                    reason: LeaveReason::Lost,
                    heard: 1,
                },
            ),
        ];
        let mut bytes = Bytes::from(sent.iter().flat_map(Envelope::encode).collect::<Vec<u8>>());
        let mut known = KnownSenders::default();
        for sent in &sent {
            assert_eq!(Envelope::take(&mut bytes, &mut known).as_ref(), Ok(sent));
        }
        assert_eq!(known.by_head.len(), 2);
        assert!(bytes.is_empty());
    }

    proptest! {
        #[test]
        fn every_envelope_survives_the_wire(name in "[^\\p{Cc}]{1,32}", kind in 0..4usize, body in ".*") {
            let sent = envelope(&name, signal(SignalKind::ALL[kind], &body));
            prop_assert_eq!(Envelope::decode(&sent.encode().into()), Ok(sent));
        }

        #[test]
        fn words_are_those_between_spaces(line in "[a ]{0,9}|.*") {
            prop_assert!(words(&line).eq(line.split(' ')));
        }

        #[test]
        fn dirt_never_panics(at in 0..90usize, byte: u8, cut in 0..90usize) {
            let mut bytes = envelope("a", signal(SignalKind::Answer, "{}")).encode();
            let at = at % bytes.len();
            bytes[at] = byte;
            bytes.truncate(cut.max(1));
            let _ = Envelope::decode(&bytes.into());
        }
    }
}
