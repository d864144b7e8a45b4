//! What an HTTP session is told: as a stream of server-sent events, or, where something on the way holds streams back, in answers to polls.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::time::Instant;

use super::super::Doors;
use super::super::asking::parameter;
use super::super::reject::Rejection;
use super::buffer::{Looked, Place};
use super::feed::Feed;
use super::token::{Token, token};
use super::{json, text};

/// The longest that a poll waits, also if it asks for more.
const LONGEST_POLL: Duration = Duration::from_secs(25);

/// Begins to read, behind the place that the client has come to.
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
    let place = doors.crowd.enter(from.ip());
    let place = place.map_err(|_| Rejection::Crowded)?;
    // Taken before the stream begins, so that a drain cannot miss it.
    let tracked = doors.phase.track();
    if polls {
        let until = Instant::now() + wait(&headers, &uri)?;
        return poll(&doors, &token, after, until).await;
    }
    let reader = doors.homes.read(&token, after).await?;
    let kept = (place, tracked);
    let feed = Feed::new(reader, doors.settings.http, doors.phase.clone(), kept);
    let events = stream::unfold(feed, Feed::next);
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/event-stream; charset=utf-8"),
        ),
        (
            header::CACHE_CONTROL,
            HeaderValue::from_static("no-cache, no-transform"),
        ),
        (
            header::HeaderName::from_static("x-accel-buffering"),
            HeaderValue::from_static("no"),
        ),
    ];
    Ok((StatusCode::OK, headers, Body::from_stream(events)).into_response())
}

/// Answers as soon as there is something, or when the time is over, or when the node drains.
async fn poll(
    doors: &Doors,
    token: &Token,
    after: Place,
    until: Instant,
) -> Result<Response, Rejection> {
    let drain = doors.phase.draining();
    let (looked, next) = tokio::select! {
        biased;
        polled = doors.homes.poll(token, after, until) => polled?,
        () = drain.cancelled() => (Looked::default(), after),
    };
    Ok(json(StatusCode::OK, polled(&looked, next)))
}

fn polled(Looked { events, reset }: &Looked, next: Place) -> String {
    let events: Vec<String> = events
        .iter()
        .map(|(place, said)| {
            // Whatever was told is JSON.
            let said = String::from_utf8_lossy(said);
            format!("{{\"id\":\"{place}\",\"data\":{said}}}")
        })
        .collect();
    let reset = if *reset { "\"reset\":true," } else { "" };
    let events = events.join(",");
    format!("{{{reset}\"events\":[{events}],\"next\":\"{next}\"}}\n")
}

/// Where the client has come to: what it says itself, or its `EventSource` for it on a reconnect.
fn after(headers: &HeaderMap, uri: &Uri) -> Result<Place, Rejection> {
    const WRONG: Rejection = Rejection::Bad("that is no event id that was told");
    let header = text(headers, header::HeaderName::from_static("last-event-id"));
    let asked = parameter(uri, "after");
    // An address is made once, and its EventSource comes back to it with what it has seen since.
    let after = header
        .or(asked.as_deref())
        .filter(|after| !after.is_empty());
    after.map_or(Ok(Place::default()), |after| {
        after.parse().map_err(|_| WRONG)
    })
}

fn wait(headers: &HeaderMap, uri: &Uri) -> Result<Duration, Rejection> {
    let preferred = text(headers, header::HeaderName::from_static("prefer"));
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
