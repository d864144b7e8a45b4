//! `GET /v1/events`: a stream of server-sent events, or, where something on the way holds streams back, a poll.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::time::Instant;

use super::super::Doors;
use super::super::asking::parameter;
use super::super::reject::Rejection;
use super::event::{EventId, Text, Unread};
use super::requests::{json, text};
use super::stream::EventStream;
use super::token::{Token, token};

/// A poll waits for so long at most, also if it asks for more.
const LONGEST_POLL: Duration = Duration::from_secs(25);

/// Reads behind the last event that the client has.
pub(super) async fn read(
    State(doors): State<Doors>,
    Extension(from): Extension<SocketAddr>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Rejection> {
    let token = token(&headers, &uri)?;
    if doors.phase.is_draining() {
        return Err(Rejection::Draining);
    }
    let after = after(&headers, &uri)?;
    let polls = match parameter(&uri, "mode").as_deref() {
        None | Some("sse") => false,
        Some("poll") => true,
        Some(_) => return Err(Rejection::Bad("mode is sse or poll")),
    };
    let permit = doors.crowd.enter(from.ip());
    let permit = permit.map_err(|_| Rejection::Crowded)?;
    // Before the stream begins, so that a drain waits for it.
    let tracked = doors.phase.track();
    if polls {
        let until = Instant::now() + wait(&headers, &uri)?;
        return poll(&doors, &token, after, until).await;
    }
    let reader = doors.homes.stream(&token, after).await?;
    let (settings, phase) = (doors.settings.http, doors.phase.clone());
    let events = EventStream::new(reader, settings, phase, (permit, tracked));
    let events = Body::from_stream(stream::unfold(events, EventStream::next));
    let header = |name: &'static str, value| {
        (
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )
    };
    let headers = [
        header("content-type", "text/event-stream; charset=utf-8"),
        header("cache-control", "no-cache, no-transform"),
        header("x-accel-buffering", "no"),
    ];
    Ok((StatusCode::OK, headers, events).into_response())
}

/// Answers as soon as there is something, or when the time is over, or when the node drains.
async fn poll(
    doors: &Doors,
    token: &Token,
    after: EventId,
    until: Instant,
) -> Result<Response, Rejection> {
    let drain = doors.phase.draining();
    let unread = tokio::select! {
        biased;
        unread = doors.homes.poll(token, after, until) => unread?,
        () = drain.cancelled() => Unread::nothing(after),
    };
    Ok(json(StatusCode::OK, page(&unread)))
}

fn page(unread: &Unread) -> String {
    let event = |(id, text): &(EventId, Text)| {
        // The text is JSON.
        format!(r#"{{"id":"{id}","data":{}}}"#, text.as_str())
    };
    let events: Vec<String> = unread.events.iter().map(event).collect();
    let reset = if unread.reset { r#""reset":true,"# } else { "" };
    let (events, next) = (events.join(","), unread.next);
    format!("{{{reset}\"events\":[{events}],\"next\":\"{next}\"}}\n")
}

/// The last event that the client has, as it says itself, or as its `EventSource` says when it reconnects.
fn after(headers: &HeaderMap, uri: &Uri) -> Result<EventId, Rejection> {
    let header = text(headers, HeaderName::from_static("last-event-id"));
    let asked = parameter(uri, "after");
    // An EventSource reconnects to the address that it was made with: its header is newer.
    match header.or(asked.as_deref()) {
        None | Some("") => Ok(EventId::default()),
        Some(after) => {
            EventId::parse(after).ok_or(Rejection::Bad("that is no event id that was told"))
        }
    }
}

fn wait(headers: &HeaderMap, uri: &Uri) -> Result<Duration, Rejection> {
    let preferred = text(headers, HeaderName::from_static("prefer"));
    let preferred = preferred.and_then(|prefer| {
        let mut wishes = prefer.split([',', ';']).map(str::trim);
        wishes.find_map(|wish| wish.strip_prefix("wait="))
    });
    match parameter(uri, "wait").as_deref().or(preferred) {
        None => Ok(LONGEST_POLL),
        Some(seconds) => match seconds.parse() {
            Ok(seconds) => Ok(LONGEST_POLL.min(Duration::from_secs(seconds))),
            Err(_) => Err(Rejection::Bad("wait is a number of seconds")),
        },
    }
}
