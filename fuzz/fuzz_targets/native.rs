//! Frames of the native protocol: none crashes the codec, a body is carried byte for byte, and every reply is JSON.

#![no_main]

use std::collections::HashMap;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;
use switchboard::model::{Command, Event, Frame, UserName};
use switchboard::protocol::{Codec, Native};

fuzz_target!(|data: &[u8]| {
    match Native.decode(&Frame::Text(Bytes::copy_from_slice(data))) {
        Ok(Command::Send { signal, id, .. }) => {
            let (kind, carried) = (signal.kind.as_str(), signal.body.0.clone());
            let from = UserName::parse("x").expect("a name");
            let seq = None;
            let sent = encoded(&Event::Signal { from, signal, seq });
            let received = fields(&sent);
            assert_eq!(received[kind].get().as_bytes(), carried);
            assert_eq!(received["name"].get(), "\"x\"");
            fields(&encoded(&Event::Pong { id }));
        }
        Ok(Command::Presence { names, id, .. }) => {
            let users = names.into_iter().map(|name| (name, true)).collect();
            fields(&encoded(&Event::Presence { users, id }));
        }
        Ok(command) => {
            let id = command.into_id();
            fields(&encoded(&Event::Pong { id }));
        }
        Err(error) => {
            fields(&encoded(&Event::Refused {
                refusal: error.refusal,
                id: error.id,
                name: error.name,
            }));
        }
    }
});

fn encoded(event: &Event) -> Bytes {
    let frame = Native.encode(event).expect("every event has a message");
    frame.bytes().clone()
}

/// The fields of a message as they are written: a string may have half a surrogate pair, which JavaScript takes.
fn fields(message: &[u8]) -> HashMap<String, &RawValue> {
    serde_json::from_slice(message).expect("what is sent is JSON")
}
