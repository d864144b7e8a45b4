//! The JSON of an event.

use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::broker::Event;
use crate::model::{Address, SessionId};

#[derive(Serialize)]
struct Payload<'a> {
    r#type: &'a str,
    timestamp: String,
    data: Data<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Data<'a> {
    Session {
        #[serde(flatten)]
        user: User,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<&'a str>,
    },
    Call(Box<Call<'a>>),
}

#[derive(Serialize)]
struct User {
    realm: String,
    name: String,
    session: String,
}

#[derive(Serialize)]
struct Call<'a> {
    #[serde(rename = "call")]
    id: &'a str,
    caller: User,
    callee: User,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    answered_at: Option<String>,
    #[serde(flatten)]
    end: Option<End<'a>>,
}

#[derive(Serialize)]
struct End<'a> {
    /// From the answer; `None` if there was none.
    duration_ms: Option<u64>,
    reason: &'a str,
    /// The kind of the candidate pair, if a client has told it.
    pair: Option<&'a str>,
}

/// The body that the receiver gets. `None` for an event that this release does not know.
pub(super) fn body(event: &Event) -> Option<String> {
    let more = |name: &str| {
        let found = event.more.iter().find(|(known, _)| known == name);
        found
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    };
    let time_of = |name: &str| {
        let millis = more(name)?.parse().ok()?;
        Some(SystemTime::UNIX_EPOCH + Duration::from_millis(millis))
    };
    let mut users = event.users.iter().zip(&event.sessions).map(user);
    let data = if event.kind.starts_with("session.") {
        Data::Session {
            user: users.next()?,
            reason: more("reason"),
        }
    } else {
        let answered = time_of("answered");
        let end = more("reason").map(|reason| End {
            duration_ms: answered.map(|answered| {
                let duration = event.at.duration_since(answered).unwrap_or_default();
                u64::try_from(duration.as_millis()).unwrap_or_default()
            }),
            reason,
            pair: more("pair"),
        });
        Data::Call(Box::new(Call {
            id: more("call")?,
            caller: users.next()?,
            callee: users.next()?,
            started_at: time_of("started").map(time),
            answered_at: answered.map(time),
            end,
        }))
    };
    let payload = Payload {
        r#type: &event.kind,
        timestamp: time(event.at),
        data,
    };
    serde_json::to_string(&payload).ok()
}

fn user((address, session): (&Address, &SessionId)) -> User {
    User {
        realm: address.realm.to_string(),
        name: address.name.as_str().to_owned(),
        session: session.to_string(),
    }
}

fn time(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}
