use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;

use super::envelope::words;
use super::{Envelope, Payload, Sender, SenderCache, UnknownEnvelope};
use crate::model::{
    Address, Body, Correlation, LeaveReason, NodeId, Realm, Signal, SignalKind, UserName,
};

fn envelope(name: &str, payload: Payload) -> Envelope {
    let address = Address::new(Realm::new("tenant 1"), UserName::known(name).unwrap());
    let from = Sender::new(
        address,
        "00c0ffee".parse().unwrap(),
        2,
        NodeId::known("node-1.abc"),
    );
    Envelope {
        from: Arc::new(from),
        n: 17,
        idempotency_key: None,
        trace: None,
        payload,
    }
}

fn signal(kind: SignalKind, body: &str) -> Payload {
    Payload::Signal(Signal {
        kind,
        body: Body(Bytes::copy_from_slice(body.as_bytes())),
    })
}

#[test]
fn encoding_is_frozen() {
    let offer = envelope("User A", signal(SignalKind::Offer, "{\"sdp\": 1}"));
    assert_eq!(
        offer.encode(),
        b"1 00000000000000000000000000c0ffee 2 node-1.abc tenant%201/User%20A offer 17 10\n{\"sdp\": 1}"
    );
    let repeated = Envelope {
        idempotency_key: Some(Correlation("\"a b\"".into())),
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
    assert_eq!(
        Envelope::decode(&traced.encode().into()),
        Ok(traced.clone())
    );
    let sync = envelope("b", Payload::Sync);
    assert_eq!(Envelope::decode(&sync.encode().into()), Ok(sync));
    let leave = envelope(
        "b",
        Payload::Leave {
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
fn every_payload_can_carry_a_trace() {
    for payload in [
        signal(SignalKind::Offer, "{}"),
        Payload::Sync,
        Payload::Leave {
            reason: LeaveReason::Lost,
            heard: 1,
        },
    ] {
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let traced = Envelope {
            trace: trace.parse().ok(),
            ..envelope("a", payload)
        };
        assert!(traced.trace.is_some());
        assert_eq!(Envelope::decode(&traced.encode().into()), Ok(traced));
    }
}

#[test]
fn unknown_words_are_ignored_and_unknown_versions_refused() {
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
fn concatenated_envelopes_are_taken_one_by_one() {
    let sent = [
        envelope("a", signal(SignalKind::Offer, "[1]")),
        envelope("a", signal(SignalKind::Candidate, "")),
        envelope(
            "b",
            Payload::Leave {
                reason: LeaveReason::Lost,
                heard: 1,
            },
        ),
    ];
    let mut bytes = Bytes::from(sent.iter().flat_map(Envelope::encode).collect::<Vec<u8>>());
    let mut known = SenderCache::default();
    for sent in &sent {
        assert_eq!(Envelope::take(&mut bytes, &mut known).as_ref(), Ok(sent));
    }
    assert_eq!(known.len(), 2);
    assert!(bytes.is_empty());
}

proptest! {
    #[test]
    fn every_envelope_round_trips(name in "[^\\p{Cc}]{1,32}", kind in 0..4usize, body in ".*") {
        let sent = envelope(&name, signal(SignalKind::ALL[kind], &body));
        prop_assert_eq!(Envelope::decode(&sent.encode().into()), Ok(sent));
    }

    #[test]
    fn words_are_as_split_finds_them(line in "[a ]{0,9}|.*") {
        prop_assert!(words(&line).eq(line.split(' ')));
    }

    #[test]
    fn damaged_envelopes_never_panic(at in 0..90usize, byte: u8, cut in 0..90usize) {
        let mut bytes = envelope("a", signal(SignalKind::Answer, "{}")).encode();
        let at = at % bytes.len();
        bytes[at] = byte;
        bytes.truncate(cut.max(1));
        let _ = Envelope::decode(&bytes.into());
    }
}
