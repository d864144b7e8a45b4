//! The tutorial's JSON protocol with its additions (PROTOCOL §1 and §2).
//!
//! Only the top level of a message is looked at. Every field is taken as the text it was written in, so a body leaves as it came, and a
//! refusal can name the request's `id` even when another field of it is wrong.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{Codec, DecodeError};
use crate::model::{
    AckStatus, Body, Command, Correlation, Event, Frame, IceServer, IceServers, IfAbsent,
    LoginRequest, Offset, PairKind, PeerState, Refusal, Report, Signal, SignalKind, UserName,
    Welcome, Whom,
};

/// The longest `id`, in bytes of what it says.
const MAX_ID_BYTES: usize = 64;
/// How much of an unknown `type` is echoed, in bytes.
const MAX_ECHO_BYTES: usize = 128;
/// The longest time that a report may tell.
const LONGEST_REPORT_MS: f64 = 86_400_000.0;
/// What the tutorial's server says to anything that is not a message.
const UNDEFINED: Refusal = Refusal::BadMessage("Command not found: undefined");

/// The native language; it has nothing to remember.
#[derive(Clone, Copy, Debug, Default)]
pub struct Native;

impl Codec for Native {
    const NAME: &'static str = "native";

    fn decode(&mut self, frame: &Frame) -> Result<Command, DecodeError> {
        let wire = Wire::read(frame.bytes())?;
        let id = wire.correlation()?;
        wire.command(frame.bytes(), id.clone())
            .map_err(|refusal| DecodeError {
                refusal,
                id,
                name: wire.user().ok(),
            })
    }

    fn encode(&mut self, event: &Event) -> Option<Frame> {
        Some(encode(event))
    }
}

/// One message, each field as the text it was written in.
#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow, default, deserialize_with = "as_written")]
    r#type: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "as_written")]
    id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "as_written")]
    name: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "as_written")]
    offer: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "as_written")]
    answer: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "as_written")]
    candidate: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "as_written")]
    message: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "as_written")]
    names: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "as_written")]
    watch: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "as_written")]
    token: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "as_written")]
    resumable: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "as_written")]
    resume: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "as_written")]
    last: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "as_written")]
    seq: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "as_written")]
    traceparent: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "as_written")]
    state: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "as_written")]
    ms: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "as_written")]
    pair: Option<&'a RawValue>,
}

/// Keeps a `null` that was written apart from a field that was not.
fn as_written<'de, D: Deserializer<'de>>(field: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(field).map(Some)
}

impl<'a> Wire<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, Refusal> {
        // serde would take an array for a struct.
        if bytes.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
            return Err(match serde_json::from_slice::<&RawValue>(bytes) {
                Ok(_) => UNDEFINED,
                Err(_) => Refusal::BadJson,
            });
        }
        serde_json::from_slice(bytes).map_err(|error| match error.classify() {
            serde_json::error::Category::Data => {
                Refusal::BadMessage("A field is given twice or has the wrong type")
            }
            _ => Refusal::BadJson,
        })
    }

    fn correlation(&self) -> Result<Option<Correlation>, Refusal> {
        let raw = match self.id.map(RawValue::get) {
            None | Some("null") => return Ok(None),
            Some(raw) => raw,
        };
        let fits = match raw.as_bytes()[0] {
            b'"' => text(raw).is_some_and(|text| text.len() <= MAX_ID_BYTES),
            b'-' | b'0'..=b'9' => raw.len() <= MAX_ID_BYTES && !raw.contains(['.', 'e', 'E']),
            _ => false,
        };
        if fits {
            Ok(Some(Correlation(raw.into())))
        } else {
            Err(Refusal::BadMessage(
                "An id is an integer or a string of at most 64 bytes",
            ))
        }
    }

    /// The user that the message names. A text that is no name is nobody's, so nobody of that name is here.
    fn user(&self) -> Result<UserName, Refusal> {
        let raw = self
            .name
            .ok_or(Refusal::BadMessage("The name of a user is missing"))?;
        let name = text(raw.get()).ok_or(Refusal::BadMessage("A name is a string"))?;
        UserName::parse(&name).map_err(|_| Refusal::UserUnavailable)
    }

    fn command(&self, frame: &Bytes, id: Option<Correlation>) -> Result<Command, Refusal> {
        let word = self
            .r#type
            .and_then(|raw| text(raw.get()))
            .ok_or(UNDEFINED)?;
        let signal = |kind, body| self.signal(kind, body, frame, id.clone());
        match &*word {
            "candidate" => signal(SignalKind::Candidate, self.candidate),
            "offer" => signal(SignalKind::Offer, self.offer),
            "answer" => signal(SignalKind::Answer, self.answer),
            "message" => signal(SignalKind::Message, self.message),
            "login" => Ok(Command::Login {
                request: self.login()?,
                id,
            }),
            "leave" => self.leave(id),
            "presence" => self.presence(id),
            "report" => self.report(id),
            "ping" => Ok(Command::Ping { id }),
            "ack" => Ok(Command::Confirm {
                seq: place(self.seq)?.ok_or(Refusal::BadMessage("The seq is missing"))?,
            }),
            unknown => Err(Refusal::UnknownType(shortened(unknown).to_owned())),
        }
    }

    fn signal(
        &self,
        kind: SignalKind,
        body: Option<&RawValue>,
        frame: &Bytes,
        id: Option<Correlation>,
    ) -> Result<Command, Refusal> {
        let body = body.ok_or(Refusal::BadMessage(
            "The field named like the type is missing",
        ))?;
        let body = Body(frame.slice_ref(body.get().as_bytes()));
        Ok(Command::Send {
            to: self.user()?,
            signal: Signal { kind, body },
            // One that cannot be read is as none, says the standard.
            trace: self
                .traceparent
                .and_then(|raw| text(raw.get())?.parse().ok()),
            id,
            if_absent: IfAbsent::Tell,
        })
    }

    fn login(&self) -> Result<LoginRequest, Refusal> {
        let string = |field: Option<&RawValue>, wrong| match field.map(RawValue::get) {
            None | Some("null") => Ok(None),
            Some(raw) => text(raw)
                .map(|text| Some(text.into_owned()))
                .ok_or(Refusal::BadMessage(wrong)),
        };
        Ok(LoginRequest {
            // Whatever is not a name fails as a login does, so that the tutorial's client sees `success: false`.
            name: self
                .name
                .and_then(|raw| text(raw.get()))
                .unwrap_or_default()
                .into_owned(),
            token: string(self.token, "A token is a string")?,
            resumable: boolean(self.resumable, "resumable is true or false")?.unwrap_or_default(),
            resume: string(self.resume, "A resume secret is a string")?,
            last: place(self.last)?,
            own_secret: None,
        })
    }

    /// The tutorial's client leaves without a name, or with `null`, when it hangs up idle; a name that nobody can have is nobody's call.
    fn leave(&self, id: Option<Correlation>) -> Result<Command, Refusal> {
        let whom = match self.name.map(RawValue::get) {
            None | Some("null") => Whom::Everybody,
            Some(_) => match self.user() {
                Err(Refusal::UserUnavailable) => Whom::Nobody,
                user => Whom::One(user?),
            },
        };
        Ok(Command::Leave { whom, id })
    }

    fn report(&self, id: Option<Correlation>) -> Result<Command, Refusal> {
        const STATE: Refusal = Refusal::BadMessage("A state is connected, failed or disconnected");
        let said = |raw: Option<&RawValue>| raw.and_then(|raw| Some(text(raw.get())?.into_owned()));
        let state = said(self.state).ok_or(STATE)?;
        let state = PeerState::ALL
            .into_iter()
            .find(|known| known.word() == state);
        let after = match self.ms.map(RawValue::get) {
            None | Some("null") => None,
            // JavaScript's clocks give fractions.
            Some(raw) => {
                let millis: Option<f64> = raw.parse().ok();
                let millis = millis.filter(|millis| (0.0..=LONGEST_REPORT_MS).contains(millis));
                let millis = millis.ok_or(Refusal::BadMessage(
                    "ms is a number of milliseconds, of a day at most",
                ))?;
                Some(Duration::from_secs_f64(millis / 1000.0))
            }
        };
        let pair = match self.pair.map(RawValue::get) {
            None | Some("null") => None,
            Some(raw) => {
                let kind = text(raw).unwrap_or_default();
                let kind = PairKind::ALL.into_iter().find(|known| known.word() == kind);
                Some(kind.ok_or(Refusal::BadMessage(
                    "A pair is host, srflx, prflx or relay: never an address",
                ))?)
            }
        };
        Ok(Command::Report {
            with: self.user()?,
            report: Report {
                state: state.ok_or(STATE)?,
                after,
                pair,
            },
            id,
        })
    }

    fn presence(&self, id: Option<Correlation>) -> Result<Command, Refusal> {
        const WRONG: Refusal = Refusal::BadMessage("names is a list of names");
        let raw = self.names.ok_or(WRONG)?;
        let names: Vec<Cow<'_, str>> = serde_json::from_str(raw.get()).map_err(|_| WRONG)?;
        let names = names
            .iter()
            .map(|name| UserName::parse(name))
            .collect::<Result<_, _>>();
        let names =
            names.map_err(|_| Refusal::BadMessage("names holds something that is no name"))?;
        Ok(Command::Presence {
            names,
            watch: boolean(self.watch, "watch is true or false")?,
            id,
        })
    }
}

/// What a JSON string says; `None` if the text is anything else.
fn text(raw: &str) -> Option<Cow<'_, str>> {
    /// Borrows where nothing is escaped, which a plain `Cow` never does.
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    // Nearly always nothing is escaped: then what is between the quotes is what it says.
    if !raw.as_bytes().contains(&b'\\')
        && let Some(inside) = raw.strip_prefix('"')
    {
        return inside.strip_suffix('"').map(Cow::Borrowed);
    }
    serde_json::from_str::<Text<'_>>(raw)
        .ok()
        .map(|text| text.0)
}

/// A place in an inbox, as the server has told it.
fn place(field: Option<&RawValue>) -> Result<Option<Offset>, Refusal> {
    match field.map(RawValue::get) {
        None | Some("null") => Ok(None),
        Some(raw) => text(raw)
            .and_then(|text| text.parse().ok())
            .map(Some)
            .ok_or(Refusal::BadMessage("That is no seq that was told")),
    }
}

fn boolean(field: Option<&RawValue>, wrong: &'static str) -> Result<Option<bool>, Refusal> {
    match field.map(RawValue::get) {
        None | Some("null") => Ok(None),
        Some("true") => Ok(Some(true)),
        Some("false") => Ok(Some(false)),
        Some(_) => Err(Refusal::BadMessage(wrong)),
    }
}

fn shortened(word: &str) -> &str {
    &word[..word.floor_char_boundary(MAX_ECHO_BYTES)]
}

/// Words that need no quoting are written as they are; the rest by `quoted`.
fn encode(event: &Event) -> Frame {
    let said = match event {
        Event::Signal { from, signal, seq } => return say_signal(from, signal, *seq),
        Event::Welcome(welcome) => say_welcome(welcome),
        Event::LoginRefused { refusal, id } => {
            let mut said = String::from(r#"{"type":"login","success":false"#);
            say_refusal(&mut said, refusal, id.as_ref());
            said
        }
        Event::Left { from, reason, seq } => {
            let mut said = format!(
                r#"{{"type":"leave","name":{},"reason":"{}""#,
                quoted(from.as_str()),
                reason.word()
            );
            push_seq(&mut said, *seq);
            said
        }
        Event::Status { reached, missed } => {
            let broker = if *reached { "ok" } else { "degraded" };
            let missed = if *missed { r#","missed":true"# } else { "" };
            format!(r#"{{"type":"status","fabric":"{broker}"{missed}"#)
        }
        Event::IceServers(servers) => {
            let mut said = String::from(r#"{"type":"ice_servers""#);
            push_ice(&mut said, servers);
            said
        }
        Event::Ack { id, status } => {
            let status = match status {
                AckStatus::Delivered => "delivered",
                AckStatus::Queued => "queued",
            };
            format!(r#"{{"type":"ack","id":{},"status":"{status}""#, id.0)
        }
        Event::Refused { refusal, id, name } => {
            let mut said = String::from(r#"{"type":"error""#);
            say_refusal(&mut said, refusal, id.as_ref());
            if let Some(name) = name {
                push(&mut said, "name", &quoted(name.as_str()));
            }
            said
        }
        Event::Presence { users, id } => {
            let users: serde_json::Map<_, _> = users
                .iter()
                .map(|(name, here)| (name.as_str().to_owned(), (*here).into()))
                .collect();
            let mut said = String::from(r#"{"type":"presence""#);
            push(
                &mut said,
                "users",
                &serde_json::Value::Object(users).to_string(),
            );
            push_id(&mut said, id.as_ref());
            said
        }
        Event::Pong { id } => {
            let mut said = String::from(r#"{"type":"pong""#);
            push_id(&mut said, id.as_ref());
            said
        }
        Event::GoAway { reconnect_in } => {
            format!(
                r#"{{"type":"goaway","reconnect_in_ms":{},"reason":"draining""#,
                reconnect_in.as_millis()
            )
        }
    };
    Frame::from(said + "}")
}

/// The hot path: one allocation, the body as it came.
fn say_signal(from: &UserName, signal: &Signal, seq: Option<Offset>) -> Frame {
    let name = quoted(from.as_str());
    let word = signal.kind.word();
    let mut end = String::new();
    push_seq(&mut end, seq);
    let body = &signal.body.0;
    let said = [
        br#"{"type":""#,
        word.as_bytes(),
        br#"",""#,
        word.as_bytes(),
        br#"":"#,
        // A slice of a frame that was read as JSON, so it is UTF-8; between nodes the envelope checks it again.
        body,
        br#","name":"#,
        name.as_bytes(),
        end.as_bytes(),
        b"}",
    ]
    .concat();
    Frame::Text(said.into())
}

fn say_welcome(welcome: &Welcome) -> String {
    let mut said = format!(
        r#"{{"type":"login","success":true,"name":{},"session":"{}","node":{}"#,
        quoted(welcome.name.as_str()),
        welcome.session,
        quoted(welcome.node.as_str()),
    );
    push_ice(&mut said, &welcome.ice);
    // Writing to a String cannot fail.
    let _ = write!(
        said,
        r#","resumed":{},"grace_ms":{}"#,
        welcome.resumed,
        welcome.grace.as_millis(),
    );
    if let Some(secret) = &welcome.resume {
        push(&mut said, "resume", &quoted(secret.expose()));
    }
    push_id(&mut said, welcome.id.as_ref());
    said
}

fn say_refusal(said: &mut String, refusal: &Refusal, id: Option<&Correlation>) {
    push(said, "code", &quoted(refusal.code()));
    push(said, "message", &quoted(&refusal.message()));
    push_id(said, id);
    if let Some(retry_after) = refusal.retry_after() {
        push(said, "retry_after_ms", &millis_up(retry_after).to_string());
    }
}

fn push(said: &mut String, field: &str, json: &str) {
    // Writing to a String cannot fail.
    let _ = write!(said, r#","{field}":{json}"#);
}

/// Each server as a browser's `RTCPeerConnection` takes it (W3C: `RTCIceServer`).
fn push_ice(said: &mut String, ice: &IceServers) {
    let server = |server: &IceServer| {
        let urls: Vec<String> = server.urls.iter().map(|url| quoted(url)).collect();
        let mut said = format!(r#"{{"urls":[{}]"#, urls.join(","));
        if let Some(login) = &server.login {
            push(&mut said, "username", &quoted(&login.username));
            push(&mut said, "credential", &quoted(&login.credential));
        }
        said + "}"
    };
    let servers: Vec<String> = ice.servers.iter().map(server).collect();
    push(said, "iceServers", &format!("[{}]", servers.join(",")));
    if let Some(ttl) = ice.ttl {
        push(said, "iceServersTtl", &ttl.as_secs().to_string());
    }
}

fn push_seq(said: &mut String, seq: Option<Offset>) {
    if let Some(seq) = seq {
        push(said, "seq", &format!("\"{seq}\""));
    }
}

fn push_id(said: &mut String, id: Option<&Correlation>) {
    if let Some(id) = id {
        push(said, "id", &id.0);
    }
}

/// Rounded up: who waits that long has waited long enough.
fn millis_up(time: Duration) -> u128 {
    time.as_micros().div_ceil(1000)
}

fn quoted(text: &str) -> String {
    // A text is always JSON.
    serde_json::to_string(text).unwrap_or_default()
}

#[cfg(test)]
#[path = "native_tests.rs"]
mod tests;
