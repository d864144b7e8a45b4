use proptest::prelude::*;

use super::*;
use crate::model::{LeaveReason, NodeId, SessionId, Welcome};

fn frame(text: &str) -> Frame {
    Frame::Text(Bytes::copy_from_slice(text.as_bytes()))
}

fn name(text: &str) -> UserName {
    UserName::parse(text).unwrap()
}

fn text(frame: Option<Frame>) -> String {
    frame.map_or_else(String::new, |frame| {
        String::from_utf8(frame.bytes().to_vec()).unwrap()
    })
}

/// The codec of a client that is logged in as `a`.
fn client(sends_leave: bool) -> PeerJs {
    let mut peer_js = PeerJs::new(sends_leave);
    let welcome = Welcome {
        name: name("a"),
        session: SessionId::random(),
        node: NodeId::known("n"),
        grace: std::time::Duration::ZERO,
        ice: crate::model::IceServers::default(),
        resume: None,
        resumed: false,
        pace: None,
        id: None,
    };
    let open = peer_js.encode(&Event::Welcome(Box::new(welcome)));
    assert_eq!(text(open), r#"{"type":"OPEN"}"#);
    peer_js
}

/// What `a` receives when `c` sends this message.
fn forwarded(message: &str) -> String {
    let Ok(Command::Send { to, signal, .. }) = client(false).decode(&frame(message)) else {
        panic!("not decoded: {message}");
    };
    assert_eq!(to, name("a"));
    text(client(false).encode(&Event::Signal {
        from: name("c"),
        signal,
        seq: None,
    }))
}

#[test]
fn four_fields_are_forwarded_in_order_with_the_payload_unchanged() {
    assert_eq!(
        forwarded(
            r#"{"type":"OFFER","payload":{"sdp":"x", "n":1.0},"dst":"a","src":"forged","extra":1}"#
        ),
        r#"{"type":"OFFER","src":"c","dst":"a","payload":{"sdp":"x", "n":1.0}}"#
    );
    for kind in ["ANSWER", "CANDIDATE", "LEAVE", "EXPIRE"] {
        for (payload, told) in [
            ("", ""),
            (r#","payload":null"#, r#","payload":null"#),
            (r#","payload":"Lü\n""#, r#","payload":"Lü\n""#),
        ] {
            assert_eq!(
                forwarded(&format!(r#"{{"type":"{kind}","dst":"a"{payload}}}"#)),
                format!(r#"{{"type":"{kind}","src":"c","dst":"a"{told}}}"#)
            );
        }
    }
}

#[test]
fn offers_answers_and_candidates_are_queued_and_the_rest_is_dropped() {
    for (kind, expected) in [
        ("OFFER", IfAbsent::Queue),
        ("ANSWER", IfAbsent::Queue),
        ("CANDIDATE", IfAbsent::Queue),
        ("LEAVE", IfAbsent::Drop),
        ("EXPIRE", IfAbsent::Drop),
    ] {
        let decoded = client(false).decode(&frame(&format!(r#"{{"type":"{kind}","dst":"b"}}"#)));
        assert!(
            matches!(decoded, Ok(Command::Send { if_absent, .. }) if if_absent == expected),
            "{kind}: {decoded:?}"
        );
    }
    let decoded = |text: &str| client(false).decode(&frame(text));
    assert_eq!(decoded(r#"{"type":"HEARTBEAT"}"#), Ok(Command::Heartbeat));
    assert_eq!(decoded(r#"{"type":"LEAVE"}"#), Ok(Command::Quit));
    assert_eq!(decoded(r#"{"type":"LEAVE","dst":""}"#), Ok(Command::Quit));
}

#[test]
fn invalid_messages_get_no_reply() {
    let long = format!(r#"{{"type":"LEAVE","dst":"{}"}}"#, "x".repeat(200));
    for dirt in [
        "",
        "null",
        "{",
        "[1]",
        "42",
        "{}",
        r#"{"type":"OPEN"}"#,
        r#"{"type":"ERROR","dst":"b"}"#,
        r#"{"type":"OFFER"}"#,
        r#"{"type":"OFFER","dst":7}"#,
        r#"{"type":"EXPIRE"}"#,
        &long,
    ] {
        let mut peer_js = client(false);
        let Err(DecodeError { refusal, id, name }) = peer_js.decode(&frame(dirt)) else {
            panic!("decoded: {dirt}");
        };
        assert_eq!(
            peer_js.encode(&Event::Refused { refusal, id, name }),
            None,
            "{dirt}"
        );
    }
    let mut peer_js = client(false);
    assert!(
        peer_js
            .decode(&Frame::Binary(Bytes::from_static(b"\xff{")))
            .is_err()
    );
    let binary = Frame::Binary(Bytes::from_static(br#"{"type":"HEARTBEAT"}"#));
    assert_eq!(peer_js.decode(&binary), Ok(Command::Heartbeat));
}

#[test]
fn an_unreachable_peer_is_reported_as_expired() {
    let second = std::time::Duration::from_secs(1);
    for refusal in [
        Refusal::UserUnavailable,
        Refusal::InboxFull {
            retry_after: second,
        },
        Refusal::Unavailable {
            retry_after: second,
        },
        Refusal::RateLimited {
            retry_after: second,
        },
        Refusal::TooMany("calls"),
    ] {
        let event = Event::Refused {
            refusal,
            id: None,
            name: Some(name("b")),
        };
        assert_eq!(
            text(client(false).encode(&event)),
            r#"{"type":"EXPIRE","src":"b","dst":"a"}"#
        );
    }
    let nobody = "é".repeat(100);
    let mut peer_js = client(false);
    let decoded = peer_js.decode(&frame(&format!(r#"{{"type":"OFFER","dst":"{nobody}"}}"#)));
    let Err(DecodeError { refusal, id, name }) = decoded else {
        panic!("decoded: {decoded:?}");
    };
    let told = peer_js.encode(&Event::Refused { refusal, id, name });
    assert_eq!(
        text(told),
        format!(r#"{{"type":"EXPIRE","src":"{nobody}","dst":"a"}}"#)
    );
}

#[test]
fn login_refusals_match_the_original_server() {
    let told = |refusal| {
        let event = Event::LoginRefused { refusal, id: None };
        text(PeerJs::new(false).encode(&event))
    };
    assert_eq!(
        told(Refusal::NameTaken { retry_after: None }),
        r#"{"type":"ID-TAKEN","payload":{"msg":"ID is taken"}}"#
    );
    assert_eq!(
        told(Refusal::Unauthorized("Invalid key provided")),
        r#"{"type":"ERROR","payload":{"msg":"Invalid key provided"}}"#
    );
    assert_eq!(told(Refusal::Draining), "", "the client just reconnects");
}

#[test]
fn leave_is_sent_if_configured() {
    let left = Event::Left {
        from: name("b"),
        reason: LeaveReason::Lost,
        seq: None,
    };
    assert_eq!(client(false).encode(&left), None);
    assert_eq!(
        text(client(true).encode(&left)),
        r#"{"type":"LEAVE","src":"b","dst":"a"}"#
    );
}

proptest! {
    #[test]
    fn decoding_arbitrary_bytes_never_panics(bytes: Vec<u8>, text in r#"[{}"\[\]:,a-zA-Z0-9 \\]{0,60}"#) {
        let _ = client(false).decode(&Frame::Binary(bytes.into()));
        let _ = client(false).decode(&frame(&text));
    }
}
