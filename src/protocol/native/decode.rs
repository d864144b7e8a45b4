//! Decodes frames of the native protocol into commands.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::model::{
    Body, Command, Correlation, IfAbsent, LeaveTarget, LoginRequest, Offset, PairKind, PeerState,
    Refusal, Report, Secret, Signal, SignalKind, UserName,
};

/// The longest string `id`, in bytes after unescaping.
const MAX_ID_BYTES: usize = 64;
/// Limit for the echo of an unknown `type`, in bytes.
const MAX_ECHO_BYTES: usize = 128;
/// The longest duration in a report: one day, in milliseconds.
const LONGEST_REPORT_MS: f64 = 86_400_000.0;
/// The tutorial's server answers this to JSON that is no message.
const UNDEFINED: Refusal = Refusal::BadMessage("Command not found: undefined");

/// One message with each field as raw text.
#[derive(Deserialize)]
pub(super) struct Wire<'a> {
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

/// Deserializes `null` to `Some`, so that it differs from a missing field.
fn as_written<'de, D: Deserializer<'de>>(field: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(field).map(Some)
}

impl<'a> Wire<'a> {
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, Refusal> {
        // serde would accept an array for a struct.
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

    pub(super) fn correlation(&self) -> Result<Option<Correlation>, Refusal> {
        let raw = match self.id.map(RawValue::get) {
            None | Some("null") => return Ok(None),
            Some(raw) => raw,
        };
        let fits = match raw.as_bytes()[0] {
            b'"' => string(raw).is_some_and(|text| text.len() <= MAX_ID_BYTES),
            b'-' | b'0'..=b'9' => raw.len() <= MAX_ID_BYTES && !raw.contains(['.', 'e', 'E']),
            _ => false,
        };
        if fits {
            Ok(Some(Correlation(raw.into())))
        } else {
            Err(Refusal::BadMessage(
                "Invalid id: send an integer or a string of at most 64 bytes",
            ))
        }
    }

    /// The user that the message names. A string that is too long for a name belongs to nobody, so
    /// the error is `user_unavailable`. Its characters are not looked at: this is done for every
    /// signal, and a login has not let anybody have a name that is none.
    pub(super) fn user(&self) -> Result<UserName, Refusal> {
        let raw = self
            .name
            .ok_or(Refusal::BadMessage("The name of a user is missing"))?;
        let name = string(raw.get()).ok_or(Refusal::BadMessage("Invalid name: send a string"))?;
        UserName::known(&name).map_err(|_| Refusal::UserUnavailable)
    }

    pub(super) fn command(
        &self,
        frame: &Bytes,
        id: Option<Correlation>,
    ) -> Result<Command, Refusal> {
        let word = self
            .r#type
            .and_then(|raw| string(raw.get()))
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
            "token" => {
                const WRONG: Refusal = Refusal::BadMessage("Invalid token: send a string");
                let token = self.token.and_then(|raw| string(raw.get())).ok_or(WRONG)?;
                Ok(Command::Renew {
                    token: Secret::claimed(&token),
                    id,
                })
            }
            "ping" => Ok(Command::Ping {
                id,
                seq: offset(self.seq)?,
            }),
            "ack" => Ok(Command::Confirm {
                seq: offset(self.seq)?.ok_or(Refusal::BadMessage("The seq is missing"))?,
            }),
            unknown => Err(Refusal::UnknownType(truncated(unknown).to_owned())),
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
            "The body is missing: send a field with the name of the type",
        ))?;
        let body = Body(frame.slice_ref(body.get().as_bytes()));
        Ok(Command::Send {
            to: self.user()?,
            signal: Signal { kind, body },
            // W3C Trace Context says to ignore an invalid traceparent.
            trace: self
                .traceparent
                .and_then(|raw| string(raw.get())?.parse().ok()),
            id,
            if_absent: IfAbsent::Refuse,
        })
    }

    fn login(&self) -> Result<LoginRequest, Refusal> {
        let optional = |field: Option<&RawValue>, wrong| match field.map(RawValue::get) {
            None | Some("null") => Ok(None),
            Some(raw) => string(raw)
                .map(|text| Some(text.into_owned()))
                .ok_or(Refusal::BadMessage(wrong)),
        };
        Ok(LoginRequest {
            // A missing or invalid name fails as a login, so that the tutorial's client gets
            // `success: false`.
            name: self
                .name
                .and_then(|raw| string(raw.get()))
                .unwrap_or_default()
                .into_owned(),
            token: optional(self.token, "Invalid token: send a string")?,
            resumable: boolean(self.resumable, "Invalid resumable: send true or false")?
                .unwrap_or_default(),
            resume: optional(self.resume, "Invalid resume: send the secret as a string")?,
            last: offset(self.last)?,
            own_secret: None,
        })
    }

    /// The tutorial's client leaves without a name, or with `null`, when it hangs up while idle. An
    /// invalid name cannot be in a call.
    fn leave(&self, id: Option<Correlation>) -> Result<Command, Refusal> {
        let whom = match self.name.map(RawValue::get) {
            None | Some("null") => LeaveTarget::All,
            Some(_) => match self.user() {
                Err(Refusal::UserUnavailable) => LeaveTarget::None,
                user => LeaveTarget::Peer(user?),
            },
        };
        Ok(Command::Leave { whom, id })
    }

    fn report(&self, id: Option<Correlation>) -> Result<Command, Refusal> {
        const STATE: Refusal =
            Refusal::BadMessage("Invalid state: send connected, failed or disconnected");
        let json =
            |raw: Option<&RawValue>| raw.and_then(|raw| Some(string(raw.get())?.into_owned()));
        let state = json(self.state).ok_or(STATE)?;
        let state = PeerState::ALL
            .into_iter()
            .find(|known| known.as_str() == state);
        let after = match self.ms.map(RawValue::get) {
            None | Some("null") => None,
            // `performance.now()` gives fractions.
            Some(raw) => {
                let millis: Option<f64> = raw.parse().ok();
                let millis = millis.filter(|millis| (0.0..=LONGEST_REPORT_MS).contains(millis));
                let millis = millis.ok_or(Refusal::BadMessage(
                    "Invalid ms: send milliseconds, at most one day",
                ))?;
                Some(Duration::from_secs_f64(millis / 1000.0))
            }
        };
        let pair = match self.pair.map(RawValue::get) {
            None | Some("null") => None,
            Some(raw) => {
                let kind = string(raw).unwrap_or_default();
                let kind = PairKind::ALL
                    .into_iter()
                    .find(|known| known.as_str() == kind);
                Some(kind.ok_or(Refusal::BadMessage(
                    "Invalid pair: send host, srflx, prflx or relay, never an address",
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
        const WRONG: Refusal = Refusal::BadMessage("Invalid names: send a list of names");
        let raw = self.names.ok_or(WRONG)?;
        let names: Vec<Cow<'_, str>> = serde_json::from_str(raw.get()).map_err(|_| WRONG)?;
        let names = names
            .iter()
            .map(|name| UserName::parse(name))
            .collect::<Result<_, _>>();
        let names = names
            .map_err(|_| Refusal::BadMessage("Invalid names: one of them is no valid name"))?;
        Ok(Command::Presence {
            names,
            watch: boolean(self.watch, "Invalid watch: send true or false")?,
            id,
        })
    }
}

/// The value of a JSON string; `None` if the text is no string.
fn string(raw: &str) -> Option<Cow<'_, str>> {
    /// A plain `Cow` never borrows when serde deserializes it; this newtype does if nothing is
    /// escaped.
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    // Fast path: without escapes, the text between the quotes is the value.
    if !raw.as_bytes().contains(&b'\\')
        && let Some(inside) = raw.strip_prefix('"')
    {
        return inside.strip_suffix('"').map(Cow::Borrowed);
    }
    serde_json::from_str::<Text<'_>>(raw)
        .ok()
        .map(|text| text.0)
}

/// An inbox offset that the server sent earlier.
fn offset(field: Option<&RawValue>) -> Result<Option<Offset>, Refusal> {
    match field.map(RawValue::get) {
        None | Some("null") => Ok(None),
        Some(raw) => string(raw)
            .and_then(|text| text.parse().ok())
            .map(Some)
            .ok_or(Refusal::BadMessage(
                "Invalid seq: send one that this server sent",
            )),
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

fn truncated(word: &str) -> &str {
    &word[..word.floor_char_boundary(MAX_ECHO_BYTES)]
}
