//! Encodes events as frames of the native protocol.

use std::fmt::Write as _;
use std::time::Duration;

use crate::model::{
    AckStatus, Correlation, Event, Frame, Heartbeat, IceServer, IceServers, Offset, Pace, Refusal,
    Signal, UserName, Welcome,
};

/// Encodes an event. Only values that may need escaping go through `quoted`.
pub(super) fn encode(event: &Event) -> Frame {
    let json = match event {
        Event::Signal { from, signal, seq } => return encode_signal(from, signal, *seq),
        Event::Welcome(welcome) => encode_welcome(welcome),
        Event::LoginRefused { refusal, id } => {
            let mut json = String::from(r#"{"type":"login","success":false"#);
            push_refusal(&mut json, refusal, id.as_ref());
            json
        }
        Event::Left { from, reason, seq } => {
            let mut json = format!(
                r#"{{"type":"leave","name":{},"reason":"{}""#,
                quoted(from.as_str()),
                reason.as_str()
            );
            push_seq(&mut json, *seq);
            json
        }
        Event::Status { reached, missed } => {
            let broker = if *reached { "ok" } else { "degraded" };
            let missed = if *missed { r#","missed":true"# } else { "" };
            format!(r#"{{"type":"status","fabric":"{broker}"{missed}"#)
        }
        Event::IceServers(servers) => {
            let mut json = String::from(r#"{"type":"ice_servers""#);
            push_ice(&mut json, servers);
            json
        }
        Event::TokenExpires { within } => encode_token("token_expires", *within, None),
        Event::TokenRenewed { valid_for, id } => encode_token("token", *valid_for, id.as_ref()),
        Event::Ack { id, status } => {
            let status = match status {
                AckStatus::Delivered => "delivered",
                AckStatus::Queued => "queued",
            };
            format!(r#"{{"type":"ack","id":{},"status":"{status}""#, id.0)
        }
        Event::Refused { refusal, id, name } => {
            let mut json = String::from(r#"{"type":"error""#);
            push_refusal(&mut json, refusal, id.as_ref());
            if let Some(name) = name {
                push(&mut json, "name", &quoted(name.as_str()));
            }
            json
        }
        Event::Presence { users, id } => encode_presence(users, id.as_ref()),
        Event::Pong { id } => {
            let mut json = String::from(r#"{"type":"pong""#);
            push_id(&mut json, id.as_ref());
            json
        }
        Event::GoAway { reconnect_in } => {
            format!(
                r#"{{"type":"goaway","reconnect_in_ms":{},"reason":"draining""#,
                reconnect_in.as_millis()
            )
        }
    };
    Frame::from(json + "}")
}

/// The hot path: one allocation; the body is copied as it came.
fn encode_signal(from: &UserName, signal: &Signal, seq: Option<Offset>) -> Frame {
    let name = quoted(from.as_str());
    let word = signal.kind.as_str();
    let mut end = String::new();
    push_seq(&mut end, seq);
    let body = &signal.body.0;
    let json = [
        br#"{"type":""#,
        word.as_bytes(),
        br#"",""#,
        word.as_bytes(),
        br#"":"#,
        // The body is a slice of valid JSON and therefore UTF-8. Between nodes the envelope checks
        // it again.
        body,
        br#","name":"#,
        name.as_bytes(),
        end.as_bytes(),
        b"}",
    ]
    .concat();
    Frame::Text(json.into())
}

fn encode_welcome(welcome: &Welcome) -> String {
    let mut json = format!(
        r#"{{"type":"login","success":true,"name":{},"session":"{}","node":{}"#,
        quoted(welcome.name.as_str()),
        welcome.session,
        quoted(welcome.node.as_str()),
    );
    push_ice(&mut json, &welcome.ice);
    // Writing to a String cannot fail.
    let _ = write!(
        json,
        r#","resumed":{},"grace_ms":{}"#,
        welcome.resumed,
        welcome.grace.as_millis(),
    );
    if let Some(secret) = &welcome.resume {
        push(&mut json, "resume", &quoted(secret.expose()));
    }
    if let Some(pace) = &welcome.pace {
        push_pace(&mut json, pace);
    }
    push_id(&mut json, welcome.id.as_ref());
    json
}

fn push_pace(json: &mut String, pace: &Pace) {
    let Pace {
        heartbeat: Heartbeat { busy, idle, answer },
        signals_per_second,
        frame_bytes,
    } = pace;
    let [busy, idle, answer] = [busy, idle, answer].map(Duration::as_millis);
    let _ = write!(
        json,
        r#","heartbeat":{{"busy_ms":{busy},"idle_ms":{idle},"answer_ms":{answer}}}"#
    );
    let _ = write!(
        json,
        r#","limits":{{"signals_per_second":{signals_per_second},"frame_bytes":{frame_bytes}}}"#
    );
}

/// A token lasts for so long.
fn encode_token(kind: &str, lasts: Duration, id: Option<&Correlation>) -> String {
    let mut json = format!(r#"{{"type":"{kind}","expires_in_ms":{}"#, lasts.as_millis());
    push_id(&mut json, id);
    json
}

fn encode_presence(users: &[(UserName, bool)], id: Option<&Correlation>) -> String {
    let users: serde_json::Map<_, _> = users
        .iter()
        .map(|(name, here)| (name.as_str().to_owned(), (*here).into()))
        .collect();
    let mut json = String::from(r#"{"type":"presence""#);
    push(
        &mut json,
        "users",
        &serde_json::Value::Object(users).to_string(),
    );
    push_id(&mut json, id);
    json
}

fn push_refusal(json: &mut String, refusal: &Refusal, id: Option<&Correlation>) {
    push(json, "code", &quoted(refusal.code()));
    push(json, "message", &quoted(&refusal.message()));
    push_id(json, id);
    if let Some(retry_after) = refusal.retry_after() {
        push(json, "retry_after_ms", &millis_up(retry_after).to_string());
    }
}

fn push(json: &mut String, field: &str, value: &str) {
    // Writing to a String cannot fail.
    let _ = write!(json, r#","{field}":{value}"#);
}

/// Each server in the form that `RTCPeerConnection` takes (W3C WebRTC, `RTCIceServer`).
fn push_ice(json: &mut String, ice: &IceServers) {
    let server = |server: &IceServer| {
        let urls: Vec<String> = server.urls.iter().map(|url| quoted(url)).collect();
        let mut json = format!(r#"{{"urls":[{}]"#, urls.join(","));
        if let Some(login) = &server.login {
            push(&mut json, "username", &quoted(&login.username));
            push(&mut json, "credential", &quoted(&login.credential));
        }
        json + "}"
    };
    let servers: Vec<String> = ice.servers.iter().map(server).collect();
    push(json, "iceServers", &format!("[{}]", servers.join(",")));
    if let Some(ttl) = ice.ttl {
        push(json, "iceServersTtl", &ttl.as_secs().to_string());
    }
}

fn push_seq(json: &mut String, seq: Option<Offset>) {
    if let Some(seq) = seq {
        push(json, "seq", &format!("\"{seq}\""));
    }
}

fn push_id(json: &mut String, id: Option<&Correlation>) {
    if let Some(id) = id {
        push(json, "id", &id.0);
    }
}

/// Rounds up to milliseconds: a client that waits this long has waited long enough.
fn millis_up(time: Duration) -> u128 {
    time.as_micros().div_ceil(1000)
}

fn quoted(text: &str) -> String {
    // Serializing a string cannot fail.
    serde_json::to_string(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_limits_are_told_in_milliseconds_and_bytes() {
        let second = Duration::from_secs(1);
        let pace = Pace {
            heartbeat: Heartbeat {
                busy: 4 * second,
                idle: 15 * second,
                answer: 4 * second,
            },
            signals_per_second: 200,
            frame_bytes: 65536,
        };
        let mut json = String::new();
        push_pace(&mut json, &pace);
        assert_eq!(
            json,
            concat!(
                r#","heartbeat":{"busy_ms":4000,"idle_ms":15000,"answer_ms":4000}"#,
                r#","limits":{"signals_per_second":200,"frame_bytes":65536}"#
            )
        );
    }
}
