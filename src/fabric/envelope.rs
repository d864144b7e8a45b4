//! A signal in transit between nodes: a versioned line of words, then the body as it came.
//!
//! ```text
//! 1 offer <session> <attach> <n> <node> <address>[ <word>…]\n<body>
//! 1 leave <session> <attach> <n> <node> <address> <reason> <heard>\n
//! ```
//! Words behind the known ones are ignored, so that a newer release can add some; a higher version is refused.

use std::io::Write as _;

use bytes::Bytes;

use crate::model::{Address, Body, LeaveReason, NodeId, SessionId, Signal, SignalKind};

/// The version that this release writes, and the only one that it reads.
const VERSION: &str = "1";

/// What one session says to another user. `(session, attach, n)` grows, so a receiver can drop what comes late.
#[derive(Clone, Debug, PartialEq)]
pub struct Envelope {
    /// The sender, as its node knows it.
    pub from: Address,
    /// The sender's session.
    pub session: SessionId,
    /// How often that was resumed.
    pub attach: u32,
    /// Counts what the session has sent.
    pub n: u64,
    /// The node that holds the session.
    pub node: NodeId,
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
}

/// Not an envelope of a version that this release knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an envelope that this release knows")]
pub struct UnknownEnvelope;

impl Envelope {
    /// The size of what it carries, in bytes.
    pub fn body_len(&self) -> usize {
        match &self.parcel {
            Parcel::Signal(signal) => signal.body.0.len(),
            Parcel::Leave { .. } => 0,
        }
    }

    /// The bytes that [`decode`](Self::decode) reads.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(160 + self.body_len());
        let (word, body) = match &self.parcel {
            Parcel::Signal(signal) => (signal.kind.word(), Some(&signal.body.0)),
            Parcel::Leave { .. } => ("leave", None),
        };
        // Writing to a Vec cannot fail.
        let Self { from, session, attach, n, node, .. } = self;
        let _ = write!(bytes, "{VERSION} {word} {session} {attach} {n} {node} {from}");
        if let Parcel::Leave { reason, heard } = &self.parcel {
            let _ = write!(bytes, " {} {heard}", reason.word());
        }
        bytes.push(b'\n');
        bytes.extend_from_slice(body.map_or(&[][..], |body| body));
        bytes
    }

    /// Reads what [`encode`](Self::encode) wrote; the body is a slice of `bytes`.
    pub fn decode(bytes: &Bytes) -> Result<Self, UnknownEnvelope> {
        let end = bytes.iter().position(|&byte| byte == b'\n').ok_or(UnknownEnvelope)?;
        let head = std::str::from_utf8(&bytes[..end]).map_err(|_| UnknownEnvelope)?;
        let mut words = head.split(' ');
        let mut word = || words.next().ok_or(UnknownEnvelope);
        if word()? != VERSION {
            return Err(UnknownEnvelope);
        }
        let kind = word()?;
        let session = word()?.parse().map_err(|_| UnknownEnvelope)?;
        let attach = word()?.parse().map_err(|_| UnknownEnvelope)?;
        let n = word()?.parse().map_err(|_| UnknownEnvelope)?;
        let node = NodeId::known(word()?);
        let from = word()?.parse().map_err(|_| UnknownEnvelope)?;
        let parcel = if kind == "leave" {
            let reason = word()?;
            let reason = LeaveReason::ALL.into_iter().find(|known| known.word() == reason).ok_or(UnknownEnvelope)?;
            Parcel::Leave { reason, heard: word()?.parse().map_err(|_| UnknownEnvelope)? }
        } else {
            let kind = SignalKind::ALL.into_iter().find(|known| known.word() == kind).ok_or(UnknownEnvelope)?;
            let body = bytes.slice(end + 1..);
            std::str::from_utf8(&body).map_err(|_| UnknownEnvelope)?;
            Parcel::Signal(Signal { kind, body: Body(body) })
        };
        Ok(Self { from, session, attach, n, node, parcel })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Realm, UserName};

    fn envelope(name: &str, parcel: Parcel) -> Envelope {
        Envelope {
            from: Address::new(Realm::new("tenant 1"), UserName::parse(name).unwrap()),
            session: "00c0ffee".parse().unwrap(),
            attach: 2,
            n: 17,
            node: NodeId::known("node-1.abc"),
            parcel,
        }
    }

    fn signal(kind: SignalKind, body: &str) -> Parcel {
        Parcel::Signal(Signal { kind, body: Body(Bytes::copy_from_slice(body.as_bytes())) })
    }

    #[test]
    fn the_wire_is_frozen() {
        let offer = envelope("User A", signal(SignalKind::Offer, "{\"sdp\": 1}"));
        assert_eq!(
            offer.encode(),
            b"1 offer 00000000000000000000000000c0ffee 2 17 node-1.abc tenant%201/User%20A\n{\"sdp\": 1}"
        );
        let leave = envelope("b", Parcel::Leave { reason: LeaveReason::NodeLost, heard: 3 });
        assert_eq!(
            leave.encode(),
            b"1 leave 00000000000000000000000000c0ffee 2 17 node-1.abc tenant%201/b node_lost 3\n"
        );
    }

    #[test]
    fn later_words_are_ignored_and_later_versions_refused() {
        let known = b"1 message 0a 0 1 n.1 /a trace=1 more\n1";
        assert!(Envelope::decode(&Bytes::from_static(known)).is_ok());
        for unknown in [&b"2 message 0a 0 1 n.1 /a\n1"[..], b"1 knock 0a 0 1 n.1 /a\n1", b"", b"\n", b"1 offer"] {
            assert_eq!(Envelope::decode(&Bytes::copy_from_slice(unknown)), Err(UnknownEnvelope));
        }
    }

    proptest! {
        #[test]
        fn every_envelope_survives_the_wire(name in "[^\\p{Cc}]{1,32}", kind in 0..4usize, body in ".*") {
            let sent = envelope(&name, signal(SignalKind::ALL[kind], &body));
            prop_assert_eq!(Envelope::decode(&sent.encode().into()), Ok(sent));
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
