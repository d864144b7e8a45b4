//! Bodies of HTTP requests: none crashes the server, a body that opens a session is a login and nothing else, and each
//! message of a batch is one JSON value of one line.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use switchboard::model::{Command, Frame};
use switchboard::protocol::{Codec, Native, posted};

fuzz_target!(|data: &[u8]| {
    let body = Bytes::copy_from_slice(data);
    if let Ok(Some(login)) = posted::initial_login(&body) {
        let command = Native.decode(&Frame::Text(login));
        assert!(matches!(command, Ok(Command::Login { .. }) | Err(_)), "{command:?}");
    }
    if let Ok(message) = posted::message(body.clone()) {
        is_json(&message);
    }
    for message in posted::messages(&body).unwrap_or_default() {
        is_json(&message);
        assert!(!message.contains(&b'\n'));
        let _ = Native.decode(&Frame::Text(message));
    }
});

fn is_json(message: &[u8]) {
    serde_json::from_slice::<&serde_json::value::RawValue>(message).expect("a message is JSON");
    // What the codec carries goes out as text.
    std::str::from_utf8(message).expect("a message is UTF-8");
}
