//! The PeerJS codec, compatible with the original server (`peer` 1.0).
//!
//! A message is forwarded as type, src, dst and payload, in this order and without other fields;
//! the payload is copied byte for byte. Events that PeerJS has no message for are dropped: it knows
//! no acknowledgements and no ends of calls.

use std::borrow::Cow;
use std::collections::VecDeque;

use bytes::Bytes;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{Codec, DecodeError};
use crate::model::{Body, Command, Event, Frame, IfAbsent, Refusal, Signal, SignalKind, UserName};

/// How many invalid ids are kept until their senders got `EXPIRE`.
const MAX_INVALID_IDS: usize = 64;
/// PeerJS messages that have no signal kind of their own travel as messages; the first byte of the
/// body tells which they are.
const LEAVE: u8 = b'L';
const EXPIRE: u8 = b'E';

/// The codec of one connection.
#[derive(Debug, Default)]
pub struct PeerJs {
    /// The client's id as JSON.
    own_id: String,
    /// The invalid ids to which the client sent something, as JSON. Nobody can have such an id, so
    /// the client gets `EXPIRE` for each.
    invalid_ids: VecDeque<String>,
    sends_leave: bool,
}

impl PeerJs {
    /// Creates a codec. With `sends_leave` the client gets `LEAVE` when a peer leaves with which it
    /// exchanged an offer or an answer; it then closes its connections to that peer.
    pub fn new(sends_leave: bool) -> Self {
        Self {
            sends_leave,
            ..Self::default()
        }
    }
}

/// One message with each field as raw text.
#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow, default, deserialize_with = "as_written")]
    r#type: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "as_written")]
    dst: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "as_written")]
    payload: Option<&'a RawValue>,
}

/// Deserializes `null` to `Some`, so that it differs from a missing field.
fn as_written<'de, D: Deserializer<'de>>(field: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(field).map(Some)
}

impl Codec for PeerJs {
    const NAME: &'static str = "peerjs";

    fn decode(&mut self, frame: &Frame) -> Result<Command, DecodeError> {
        let bytes = frame.bytes();
        // serde would accept an array for a struct.
        if bytes.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
            return Err(Refusal::BadJson.into());
        }
        let wire: Wire<'_> = serde_json::from_slice(bytes).map_err(|_| Refusal::BadJson)?;
        let word = wire.r#type.and_then(text).unwrap_or_default();
        let (kind, if_absent, mark) = match &*word {
            "HEARTBEAT" => return Ok(Command::Heartbeat),
            "CANDIDATE" => (SignalKind::Candidate, IfAbsent::Queue, None),
            "OFFER" => (SignalKind::Offer, IfAbsent::Queue, None),
            "ANSWER" => (SignalKind::Answer, IfAbsent::Queue, None),
            "LEAVE" => (SignalKind::Message, IfAbsent::Drop, Some(LEAVE)),
            "EXPIRE" => (SignalKind::Message, IfAbsent::Drop, Some(EXPIRE)),
            _ => return Err(Refusal::BadMessage("Unknown type").into()),
        };
        let dst = wire.dst.and_then(text).filter(|dst| !dst.is_empty());
        let Some(dst) = dst else {
            return match mark {
                Some(LEAVE) => Ok(Command::Quit),
                _ => Err(Refusal::BadMessage("The dst is missing").into()),
            };
        };
        let Ok(to) = UserName::parse(&dst) else {
            if if_absent == IfAbsent::Queue && self.invalid_ids.len() < MAX_INVALID_IDS {
                self.invalid_ids.push_back(quoted(&dst));
                return Err(Refusal::UserUnavailable.into());
            }
            return Err(Refusal::BadMessage("The dst is no valid id").into());
        };
        let payload = wire.payload.map_or("", RawValue::get).as_bytes();
        let body = match mark {
            None => frame_slice(bytes, payload),
            Some(mark) => Bytes::from([&[mark], payload].concat()),
        };
        Ok(Command::Send {
            to,
            signal: Signal {
                kind,
                body: Body(body),
            },
            trace: None,
            id: None,
            if_absent,
        })
    }

    fn encode(&mut self, event: &Event) -> Option<Frame> {
        match event {
            Event::Signal { from, signal, .. } => {
                let (kind, payload) = type_and_payload(signal)?;
                Some(self.forward(kind, from, payload))
            }
            Event::Welcome(welcome) => {
                self.own_id = quoted(welcome.name.as_str());
                Some(r#"{"type":"OPEN"}"#.to_owned().into())
            }
            Event::LoginRefused { refusal, .. } => login_refusal(refusal).map(Frame::from),
            Event::Refused { name, refusal, .. } => match (name, refusal) {
                (
                    Some(name),
                    Refusal::UserUnavailable
                    | Refusal::InboxFull { .. }
                    | Refusal::TooMany(_)
                    | Refusal::Forbidden(_)
                    | Refusal::RateLimited { .. }
                    | Refusal::Unavailable { .. },
                ) => Some(self.forward("EXPIRE", name, b"")),
                (None, Refusal::UserUnavailable | Refusal::RateLimited { .. }) => {
                    let invalid = self.invalid_ids.pop_front()?;
                    Some(self.message_from("EXPIRE", &invalid, b""))
                }
                _ => None,
            },
            Event::Left { from, .. } if self.sends_leave => Some(self.forward("LEAVE", from, b"")),
            // PeerJS has no messages for these. A client notices a lost peer on its peer-to-peer
            // connections.
            Event::Left { .. }
            | Event::Ack { .. }
            | Event::Presence { .. }
            | Event::Pong { .. }
            | Event::GoAway { .. }
            | Event::IceServers(_)
            | Event::TokenExpires { .. }
            | Event::TokenRenewed { .. }
            | Event::Status { .. } => None,
        }
    }
}

impl PeerJs {
    fn forward(&self, kind: &str, from: &UserName, payload: &[u8]) -> Frame {
        self.message_from(kind, &quoted(from.as_str()), payload)
    }

    /// One allocation; the payload is copied as it came.
    fn message_from(&self, kind: &str, from: &str, payload: &[u8]) -> Frame {
        let before: &[u8] = if payload.is_empty() {
            b""
        } else {
            br#","payload":"#
        };
        let parts = [
            br#"{"type":""#,
            kind.as_bytes(),
            br#"","src":"#,
            from.as_bytes(),
            br#","dst":"#,
            self.own_id.as_bytes(),
            before,
            payload,
            b"}",
        ];
        Frame::Text(parts.concat().into())
    }
}

/// The PeerJS type and payload of a signal; `None` for a message of the native protocol.
fn type_and_payload(signal: &Signal) -> Option<(&'static str, &[u8])> {
    let body = &signal.body.0[..];
    match signal.kind {
        SignalKind::Offer => Some(("OFFER", body)),
        SignalKind::Answer => Some(("ANSWER", body)),
        SignalKind::Candidate => Some(("CANDIDATE", body)),
        SignalKind::Message => match body.split_first()? {
            (&LEAVE, payload) => Some(("LEAVE", payload)),
            (&EXPIRE, payload) => Some(("EXPIRE", payload)),
            _ => None,
        },
    }
}

/// The reply to a refused login; `None` if the client should just reconnect.
fn login_refusal(refusal: &Refusal) -> Option<String> {
    let (kind, message): (_, Cow<'_, str>) = match refusal {
        Refusal::NameTaken { .. } => ("ID-TAKEN", "ID is taken".into()),
        Refusal::Draining | Refusal::Unavailable { .. } | Refusal::KeysUnavailable { .. } => {
            return None;
        }
        refusal => ("ERROR", refusal.message()),
    };
    Some(format!(
        r#"{{"type":"{kind}","payload":{{"msg":{}}}}}"#,
        quoted(&message)
    ))
}

/// The value of a JSON string; `None` if the text is no string.
fn text(raw: &RawValue) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    serde_json::from_str::<Text<'_>>(raw.get())
        .ok()
        .map(|text| text.0)
}

/// A slice of a frame, without a copy.
fn frame_slice(frame: &Bytes, part: &[u8]) -> Bytes {
    if part.is_empty() {
        Bytes::new()
    } else {
        frame.slice_ref(part)
    }
}

fn quoted(text: &str) -> String {
    // Serializing a string cannot fail.
    serde_json::to_string(text).unwrap_or_default()
}

#[cfg(test)]
#[path = "peerjs_tests.rs"]
mod tests;
