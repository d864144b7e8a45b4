use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::model::{
    AckStatus, Body, Correlation, IceLogin, IceServer, IceServers, LeaveReason, NodeId, Offset,
    PairKind, Refusal, Report, Secret, SessionId, Signal, SignalKind, UserName, Welcome,
};

/// A transcript: each frame, and below it the decoded command or error.
const TRANSCRIPT: &str = include_str!("tests.transcript");

fn frame(text: &str) -> Frame {
    Frame::Text(Bytes::copy_from_slice(text.as_bytes()))
}

/// Describes a decoded frame, bodies included.
fn describe(text: &str) -> String {
    match Native.decode(&frame(text)) {
        Ok(Command::Send {
            to,
            signal,
            trace,
            id,
            ..
        }) => {
            let body = String::from_utf8_lossy(&signal.body.0).into_owned();
            let trace = trace
                .map(|trace| format!(" in {trace}"))
                .unwrap_or_default();
            format!(
                "{} to {to}{}{trace}: {body}",
                signal.kind.as_str(),
                with(id)
            )
        }
        Ok(Command::Renew { token, id }) => format!("token {}{}", token.expose(), with(id)),
        Ok(Command::Report {
            with: peer,
            report,
            id,
        }) => {
            let Report { state, after, pair } = report;
            let (state, pair) = (state.as_str(), pair.map(PairKind::as_str));
            format!(
                "report on {peer}{}: {state} after {after:?} by {pair:?}",
                with(id)
            )
        }
        Ok(Command::Login { request, id }) => format!("{request:?}{}", with(id)),
        Ok(Command::Leave { whom, id }) => format!("leave {whom:?}{}", with(id)),
        Ok(Command::Presence { names, watch, id }) => {
            format!("presence of {names:?}, watch {watch:?}{}", with(id))
        }
        Ok(Command::Ping { id, seq: None }) => format!("ping{}", with(id)),
        Ok(Command::Ping { seq: Some(seq), .. }) => format!("ping that confirms up to {seq}"),
        Ok(Command::Confirm { seq }) => format!("confirm up to {seq}"),
        Ok(other @ (Command::Heartbeat | Command::Quit)) => format!("{other:?}"),
        Err(DecodeError { refusal, id, name }) => {
            let name = name
                .map(|name| format!(" about {name}"))
                .unwrap_or_default();
            format!(
                "{}{name}{}: {}",
                refusal.code(),
                with(id),
                refusal.message()
            )
        }
    }
}

fn with(id: Option<Correlation>) -> String {
    id.map(|id| format!(" id {}", id.0)).unwrap_or_default()
}

#[test]
fn frames_decode_as_the_transcript_says() {
    let mut lines = TRANSCRIPT
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut count = 0;
    while let Some(json) = lines.next() {
        let json = json.strip_prefix("> ").unwrap();
        let decoded = lines
            .next()
            .and_then(|line| line.strip_prefix("= "))
            .unwrap();
        assert_eq!(describe(json), decoded, "{json}");
        count += 1;
    }
    assert!(count >= 40, "{count}");
}

fn name(text: &str) -> UserName {
    UserName::parse(text).unwrap()
}

fn encoded(event: &Event) -> String {
    let Some(Frame::Text(bytes)) = Native.encode(event) else {
        panic!("nothing was encoded")
    };
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn id() -> Correlation {
    Correlation("7".into())
}

fn seq() -> Offset {
    Offset {
        millis: 17,
        sequence: 2,
    }
}

/// Checks the JSON of each event.
fn check(table: impl IntoIterator<Item = (Event, &'static str)>) {
    for (event, expected) in table {
        assert_eq!(encoded(&event), expected);
    }
}

#[test]
fn signals_and_leaves_are_encoded() {
    let body = Body(Bytes::from_static(b"{ \"a\":1}"));
    let signal = |kind, from, seq| Event::Signal {
        from: name(from),
        signal: Signal {
            kind,
            body: body.clone(),
        },
        seq,
    };
    let left = |reason, seq| Event::Left {
        from: name("b"),
        reason,
        seq,
    };
    check([
        (
            signal(SignalKind::Offer, "ü\"\\", None),
            r#"{"type":"offer","offer":{ "a":1},"name":"ü\"\\"}"#,
        ),
        (
            signal(SignalKind::Candidate, "b", Some(seq())),
            r#"{"type":"candidate","candidate":{ "a":1},"name":"b","seq":"17-2"}"#,
        ),
        (
            left(LeaveReason::Hangup, Some(seq())),
            r#"{"type":"leave","name":"b","reason":"hangup","seq":"17-2"}"#,
        ),
        (
            left(LeaveReason::NodeLost, None),
            r#"{"type":"leave","name":"b","reason":"node_lost"}"#,
        ),
    ]);
}

fn ice() -> IceServers {
    let stun = IceServer {
        urls: ["stun:a".to_owned()].into(),
        login: None,
    };
    let turn = IceServer {
        urls: ["turn:b".to_owned(), "turns:b?transport=tcp".to_owned()].into(),
        login: Some(IceLogin {
            username: "17:ü\"".to_owned(),
            credential: "c=".to_owned(),
        }),
    };
    IceServers {
        servers: vec![stun, turn],
        ttl: Some(Duration::from_mins(10)),
    }
}

#[test]
fn logins_and_ice_servers_are_encoded() {
    let welcome = Welcome {
        name: name("User\"A"),
        session: "0a".parse::<SessionId>().unwrap(),
        node: NodeId::known("n.1"),
        grace: Duration::from_secs(10),
        ice: IceServers::default(),
        resume: None,
        resumed: false,
        pace: None,
        id: None,
    };
    let resumed = Welcome {
        ice: ice(),
        resume: Some(Secret::claimed("5e")),
        resumed: true,
        ..welcome.clone()
    };
    let refusal = Refusal::NameTaken {
        retry_after: Some(Duration::from_micros(1500)),
    };
    check([
        (
            Event::Welcome(Box::new(welcome)),
            concat!(
                r#"{"type":"login","success":true,"name":"User\"A","#,
                r#""session":"0000000000000000000000000000000a","node":"n.1","iceServers":[],"#,
                r#""resumed":false,"grace_ms":10000}"#,
            ),
        ),
        (
            Event::Welcome(Box::new(resumed)),
            concat!(
                r#"{"type":"login","success":true,"name":"User\"A","#,
                r#""session":"0000000000000000000000000000000a","node":"n.1","#,
                r#""iceServers":[{"urls":["stun:a"]},{"urls":["turn:b","turns:b?transport=tcp"],"#,
                r#""username":"17:ü\"","credential":"c="}],"iceServersTtl":600,"#,
                r#""resumed":true,"grace_ms":10000,"resume":"5e"}"#,
            ),
        ),
        (
            Event::IceServers(ice()),
            concat!(
                r#"{"type":"ice_servers","#,
                r#""iceServers":[{"urls":["stun:a"]},{"urls":["turn:b","turns:b?transport=tcp"],"#,
                r#""username":"17:ü\"","credential":"c="}],"iceServersTtl":600}"#,
            ),
        ),
        (
            Event::LoginRefused {
                refusal,
                id: Some(id()),
            },
            concat!(
                r#"{"type":"login","success":false,"code":"name_taken","#,
                r#""message":"The name is taken","id":7,"retry_after_ms":2}"#,
            ),
        ),
    ]);
}

#[test]
fn replies_and_notices_are_encoded() {
    let status = |reached, missed| Event::Status { reached, missed };
    check([
        (
            status(false, false),
            r#"{"type":"status","fabric":"degraded"}"#,
        ),
        (
            status(true, true),
            r#"{"type":"status","fabric":"ok","missed":true}"#,
        ),
        (
            Event::Ack {
                id: Correlation("\"x\"".into()),
                status: AckStatus::Queued,
            },
            r#"{"type":"ack","id":"x","status":"queued"}"#,
        ),
        (
            Event::Refused {
                refusal: Refusal::UserUnavailable,
                id: Some(id()),
                name: Some(name("b")),
            },
            concat!(
                r#"{"type":"error","code":"user_unavailable","#,
                r#""message":"Nobody of that name is here","id":7,"name":"b"}"#,
            ),
        ),
        (
            Event::Presence {
                users: vec![(name("b"), true)],
                id: None,
            },
            r#"{"type":"presence","users":{"b":true}}"#,
        ),
        (Event::Pong { id: Some(id()) }, r#"{"type":"pong","id":7}"#),
        (
            Event::GoAway {
                reconnect_in: Duration::from_millis(5),
            },
            r#"{"type":"goaway","reconnect_in_ms":5,"reason":"draining"}"#,
        ),
    ]);
}

#[test]
fn a_body_is_a_slice_of_its_frame() {
    let frame = frame(r#"{"type":"offer","name":"b","offer":{"sdp":"v=0"}}"#);
    let Ok(Command::Send { signal, .. }) = Native.decode(&frame) else {
        panic!("not heard")
    };
    assert!(
        frame
            .bytes()
            .as_ptr_range()
            .contains(&signal.body.0.as_ptr()),
        "it was copied"
    );
}

/// Serializers of many languages write what is not there as `null`.
#[test]
fn null_is_absent_for_every_optional_field() {
    let optional = [
        "id",
        "token",
        "resumable",
        "resume",
        "last",
        "traceparent",
        "watch",
        "ms",
        "pair",
    ];
    for message in [
        r#"{"type":"login","name":"a"}"#,
        r#"{"type":"offer","name":"b","offer":1}"#,
        r#"{"type":"answer","name":"b","answer":1}"#,
        r#"{"type":"candidate","name":"b","candidate":1}"#,
        r#"{"type":"message","name":"b","message":1}"#,
        r#"{"type":"leave","name":"b"}"#,
        r#"{"type":"leave"}"#,
        r#"{"type":"presence","names":["b"]}"#,
        r#"{"type":"report","name":"b","state":"connected"}"#,
        r#"{"type":"ping"}"#,
        r#"{"type":"ack","seq":"1-0"}"#,
    ] {
        let fields = message.strip_suffix('}').unwrap();
        let expected = Native.decode(&frame(message));
        assert!(expected.is_ok(), "{message}: {expected:?}");
        let all = optional.map(|field| format!(",\"{field}\":null")).concat();
        for nulls in optional
            .map(|field| format!(",\"{field}\": null"))
            .iter()
            .chain([&all])
        {
            let decoded = Native.decode(&frame(&format!("{fields}{nulls}}}")));
            // What both carry is a slice of another frame, so the texts are compared.
            assert_eq!(
                format!("{decoded:?}"),
                format!("{expected:?}"),
                "{message} with {nulls}"
            );
        }
    }
    let everyone = Native.decode(&frame(r#"{"type":"leave","name":null}"#));
    assert_eq!(everyone, Native.decode(&frame(r#"{"type":"leave"}"#)));
    // A body is whatever the client says: `null` ends the candidates.
    let Ok(Command::Send { signal, .. }) = Native.decode(&frame(
        r#"{"type":"candidate","name":"b","candidate":null,"id":null}"#,
    )) else {
        panic!("not decoded");
    };
    assert_eq!(&signal.body.0[..], b"null");
}

proptest! {
    #[test]
    fn decoding_arbitrary_bytes_never_panics(bytes: Vec<u8>, text in ".*") {
        let _ = Native.decode(&Frame::Binary(bytes.into()));
        let _ = Native.decode(&frame(&text));
    }

    #[test]
    fn decoding_a_damaged_message_never_panics(at in 0..60usize, with in any::<u8>(), cut in 1..80usize) {
        let mut bytes = br#"{"type":"offer","name":"b","offer":{"sdp":"\ud800"},"id":"x"}"#.to_vec();
        let at = at % bytes.len();
        bytes[at] = with;
        bytes.truncate(cut);
        let _ = Native.decode(&Frame::Text(bytes.into()));
    }

    #[test]
    fn any_body_is_forwarded_byte_for_byte(
        text in ".*",
        number in "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,30})?",
        space in "[ \t\r\n]{0,3}",
    ) {
        let quoted = serde_json::to_string(&text).unwrap();
        let body = format!("{{{space}\"k\"{space}:{space}[{number},{quoted}],\"k\":{quoted}{space}}}");
        let message = format!("{{\"type\":\"message\",{space}\"message\":{space}{body}{space},\"name\":\"b\"}}");
        let Ok(Command::Send { signal, .. }) = Native.decode(&frame(&message)) else
        { panic!("not decoded: {message}") };
        prop_assert_eq!(std::str::from_utf8(&signal.body.0).unwrap(), body.as_str());
        let told = encoded(&Event::Signal { from: name("a"), signal, seq: None });
        prop_assert_eq!(told, format!("{{\"type\":\"message\",\"message\":{body},\"name\":\"a\"}}"));
    }

    #[test]
    fn every_encoded_event_is_json(who in "[^\\p{Cc}]{1,32}", word in ".*") {
        let refusal = Refusal::UnknownType(word);
        let json = encoded(&Event::Refused { refusal, id: None, name: Some(UserName::known(&who).unwrap()) });
        prop_assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok(), "{}", json);
    }
}
