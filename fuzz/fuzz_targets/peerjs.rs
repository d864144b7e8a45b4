//! Lines of PeerJS frames on one connection: none crashes the codec, everything that it sends is JSON, and a payload is
//! carried byte for byte.

#![no_main]

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;
use switchboard::model::{Command, Event, Frame, IceServers, NodeId, SessionId, UserName, Welcome};
use switchboard::protocol::{Codec, PeerJs};

fuzz_target!(|data: &[u8]| {
    let own = UserName::parse("x").expect("a name");
    let mut codec = open(&own);
    for line in data.split(|&byte| byte == b'\n') {
        match codec.decode(&Frame::Text(Bytes::copy_from_slice(line))) {
            Ok(Command::Send { to, signal, .. }) => {
                let body = signal.body.0.clone();
                let sent = codec.encode(&Event::Signal {
                    from: to,
                    signal,
                    seq: None,
                });
                let sent = sent.expect("its kind is of this protocol").bytes().clone();
                let received = message(&sent);
                assert_eq!(received["dst"].get(), "\"x\"");
                // The first byte is the mark of a kind that only PeerJS has.
                let carried = match received["type"].get() {
                    "\"LEAVE\"" | "\"EXPIRE\"" => &body[1..],
                    _ => &body[..],
                };
                let payload = received.get("payload").map_or("", |payload| payload.get());
                assert_eq!(payload.as_bytes(), carried);
            }
            Ok(_) => {}
            Err(error) => {
                let sent = codec.encode(&Event::Refused {
                    refusal: error.refusal,
                    id: error.id,
                    name: error.name,
                });
                if let Some(sent) = sent {
                    message(sent.bytes());
                }
            }
        }
    }
});

/// The codec of a client that is logged in.
fn open(name: &UserName) -> PeerJs {
    let mut codec = PeerJs::new(true);
    codec.encode(&Event::Welcome(Box::new(Welcome {
        name: name.clone(),
        session: SessionId::random(),
        node: NodeId::known("n"),
        grace: Duration::ZERO,
        ice: IceServers::default(),
        resume: None,
        resumed: false,
        id: None,
    })));
    codec
}

/// The fields of a message as they are written: a string may have half a surrogate pair, which JavaScript takes.
fn message(text: &[u8]) -> HashMap<String, &RawValue> {
    serde_json::from_slice(text).expect("what is sent is JSON")
}
